"""A user's arrays: what is taken in, and the sentence for each thing that is not."""

import numpy as np
import pandas as pd
import pytest
import torch

from compat_lib.old_system import OldSystem

X = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
LABELS = np.array([0, 1, 1, 0, 2, 2])
GOOD = {
    "features": X,
    "labels": LABELS,
    "classifier_weight": np.eye(2, 3),
    "classifier_bias": np.zeros(2),
    "class_map": np.array([1, -1, 0]),
}


@pytest.mark.parametrize(
    ("features", "labels"),
    [
        (X, LABELS),
        (pd.DataFrame(X), pd.Series(LABELS)),
        (pd.DataFrame(X, index=[5, 3, 1, 0, 2, 4]), pd.Series(LABELS, index=[9, 8, 7, 6, 5, 4])),
        (pd.DataFrame(np.repeat(X, 2, 0))[::2], pd.Series(np.repeat(LABELS, 2))[::2]),
        (pd.DataFrame(X, dtype="Float32"), pd.Series(LABELS, dtype="Int64")),
        ([torch.tensor(row) for row in X], [torch.tensor(label) for label in LABELS]),
        (X.tolist(), LABELS.tolist()),
        (torch.tensor(X, requires_grad=True), torch.tensor(LABELS, dtype=torch.uint8)),
        (X.astype(">f8"), LABELS.astype(">i2")),
        (X.astype(np.longdouble)[::-1][::-1], LABELS.astype(np.uint64)),
    ],
    ids=[
        "array",
        "table",
        "index",
        "filtered",
        "nullable",
        "tensors",
        "lists",
        "gradient",
        "big-endian",
        "strided",
    ],
)
def test_rows_are_taken_in_their_order(features, labels):
    old = OldSystem.from_arrays(**GOOD | {"features": features, "labels": labels})
    assert np.array_equal(old.features.numpy(), X) and old.labels.tolist() == LABELS.tolist()
    assert old.features.dtype == torch.float32 and old.labels.dtype == old.class_map.dtype == torch.int64
    assert (old.num_classes, old.width) == (3, 3) and not old.features.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.bool])
def test_any_real_type_becomes_float32(dtype):
    assert torch.equal(OldSystem.from_arrays(torch.eye(2, 3).to(dtype), [0, 1]).features, torch.eye(2, 3))


def changed(name, position, value):
    array = GOOD[name].copy()
    array[position] = value
    return {name: array}


BAD = {
    "nan": (
        changed("features", (2, 1), np.nan),
        "features hold 1 values that are not finite, .* row 2",
    ),
    "infinite as float32": ({"features": np.full((6, 3), 1e300)}, "features hold 18 values that are not"),
    "nan in bias": (changed("classifier_bias", 1, np.inf), "classifier_bias hold 1 values .* row 1"),
    "too few labels": ({"labels": [0, 1, 1]}, "features have 6 rows but labels 3"),
    "no labels": ({"labels": None}, "features have 6 rows but labels none"),
    "label too large": (changed("labels", 3, 3), "labels must be 0 to 2, but row 3 has 3"),
    "label negative": (changed("labels", 0, -1), "labels must be 0 to 2, but row 0 has -1"),
    "two dimensions": ({"labels": np.zeros((6, 1), int)}, "labels must have one dimension"),
    "one dimension": ({"features": np.zeros(6)}, r"features must have the shape \[rows, width\]"),
    "no features": ({"features": np.zeros((0, 3))}, r"features must have the shape .* not \[0, 3\]"),
    "other width": ({"prototypes": np.eye(3, 4)}, "features have width 3, prototypes have width 4"),
    "too few prototypes": (
        {"prototypes": np.eye(1, 3)},
        "prototypes have 1 rows, but there are 3 new classes",
    ),
    "bias too long": (
        {"classifier_bias": np.zeros(3)},
        "classifier_bias has 3 values but ",
    ),
    "bias alone": ({"classifier_weight": None}, "classifier_bias has 2 values .* 0 rows"),
    "class map too large": (changed("class_map", 0, 2), "class_map must .* up to 1, .* label 0 maps to 2"),
    "class map too small": (changed("class_map", 1, -2), "but new label 1 maps to -2"),
    "class map too long": (
        {"num_classes": 2, "labels": LABELS % 2},
        "class_map has 3 entries, but there are 2",
    ),
    "scale with bias": ({"classifier_scale": 8.0}, "classifier_scale .* belongs to a cosine classifier"),
    "scale zero": (
        {"classifier_scale": 0, "classifier_bias": None},
        "classifier_scale must be above 0",
    ),
    "number of classes zero": ({"num_classes": 0}, "num_classes must be a whole number of at least 1, not 0"),
    "number of classes a text": ({"num_classes": "2"}, "num_classes must be a whole number"),
    "fractions": ({"labels": LABELS * 1.0}, "labels must be whole numbers, not float64"),
    "booleans": ({"labels": LABELS > 0}, "labels must be whole numbers, not bool"),
    "complex": ({"features": X * 1j}, "features must be real numbers, not complex64"),
    "text": ({"features": "features.npy"}, "features must be real numbers, not <U12"),
    "objects": ({"features": np.array([[object()]])}, "features must be real numbers, not object"),
    "a gap": (
        {"labels": pd.Series([0, 1, None] * 2, dtype="Int64")},
        "labels must be whole numbers",
    ),
    "labels alone": (
        {name: None for name in GOOD if name != "labels"},
        "at least one of features",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arrays_are_refused(case):
    change, message = BAD[case]
    with pytest.raises((ValueError, TypeError), match=message):
        OldSystem.from_arrays(**(GOOD | change))


def test_an_unknown_number_of_classes_is_refused():
    with pytest.raises(ValueError, match="how many new classes there are is not known"):
        OldSystem.from_arrays(classifier_weight=np.eye(2, 3))


def test_large_labels_are_refused_before_anything_is_allocated():
    with pytest.raises(ValueError, match="labels go up to 2000000000, but only 3 are distinct"):
        OldSystem.from_arrays(X, LABELS * 10**9)
    with pytest.raises(ValueError, match="labels must be 0 to 4, but row 1 has 1000000000"):
        OldSystem.from_arrays(X, LABELS * 10**9, num_classes=5)
    assert OldSystem.from_arrays(X, LABELS * 500).num_classes == 1001
    many = np.arange(20_000)
    assert OldSystem.from_arrays(np.ones((len(many), 1)), 5 * many).num_classes == 99_996
