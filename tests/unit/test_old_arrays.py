"""A user's arrays: what is taken in, and the sentence for each thing that is not."""

import numpy as np
import pandas as pd
import pytest
import torch

from compat_lib.old_system import OldSystem

GOOD = {
    "features": np.eye(4, 3, dtype=np.float32),
    "labels": np.array([0, 1, 1, 0]),
    "classifier_weight": np.eye(2, 3),
    "classifier_bias": np.zeros(2),
    "class_map": np.array([1, -1]),
}


def with_value(name, position, value):
    array = GOOD[name].astype(float if isinstance(value, float) else GOOD[name].dtype).copy()
    array[position] = value
    return {name: array}


BAD = {
    "nan": (
        with_value("features", (2, 1), np.nan),
        "features hold 1 values that are not finite, first in row 2",
    ),
    "infinite after float32": (with_value("features", (1, 1), 1e300), "features hold 1 values that are not"),
    "nan in classifier": (with_value("classifier_weight", (0, 0), np.nan), "classifier_weight hold 1 values"),
    "nan in bias": (with_value("classifier_bias", 1, np.inf), "classifier_bias hold 1 values .* row 1"),
    "too few labels": ({"labels": [0, 1, 1]}, "features have 4 rows but labels 3"),
    "no labels": ({"labels": None}, "features have 4 rows but labels none"),
    "label too large": (with_value("labels", 3, 2), "labels must be 0 to 1, but row 3 has 2"),
    "label negative": (with_value("labels", 0, -1), "labels must be 0 to 1, but row 0 has -1"),
    "labels of two dimensions": ({"labels": np.zeros((4, 1), int)}, "labels must have one dimension"),
    "features of one dimension": ({"features": np.zeros(4)}, r"features must have the shape \[rows, width\]"),
    "no features": ({"features": np.zeros((0, 3))}, r"features must have the shape .* not \[0, 3\]"),
    "other width": (
        {"classifier_weight": np.eye(2, 4)},
        "features have width 3, classifier_weight have width 4",
    ),
    "prototypes of other width": ({"prototypes": np.eye(2, 5)}, "prototypes have width 5"),
    "too few prototypes": (
        {"prototypes": np.eye(1, 3)},
        "prototypes have 1 rows, but there are 2 new classes",
    ),
    "bias too long": (
        {"classifier_bias": np.zeros(3)},
        "classifier_bias has 3 values but classifier_weight 2",
    ),
    "bias without weight": ({"classifier_weight": None}, "classifier_bias has 2 values .* 0 rows"),
    "class map too large": (
        with_value("class_map", 0, 2),
        "class_map must hold old labels up to 1, .* new label 0 maps to 2",
    ),
    "class map too small": (with_value("class_map", 1, -2), "but new label 1 maps to -2"),
    "class map too long": (
        {"class_map": [0, 1, -1], "num_classes": 2},
        "class_map has 3 entries, but there are 2",
    ),
    "scale with bias": (
        {"classifier_scale": 8.0},
        "classifier_scale must be .* belongs to a cosine classifier",
    ),
    "scale zero": (
        {"classifier_scale": 0, "classifier_bias": None},
        "classifier_scale must be above 0, not 0",
    ),
    "number of classes zero": ({"num_classes": 0}, "num_classes must be a whole number of at least 1, not 0"),
    "number of classes a text": ({"num_classes": "2"}, "num_classes must be a whole number"),
}


def test_good_arrays_are_taken():
    old = OldSystem.from_arrays(**GOOD)
    assert (old.num_classes, old.width) == (2, 3)
    assert old.features.dtype == torch.float32
    assert old.labels.dtype == old.class_map.dtype == torch.int64


@pytest.mark.parametrize("case", BAD)
def test_bad_arrays_are_refused(case):
    change, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        OldSystem.from_arrays(**(GOOD | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0.0, 1.0, 1.0, 0.0]}, "labels must be whole numbers, not float64"),
        ({"labels": [True, False, True, False]}, "labels must be whole numbers, not bool"),
        ({"features": np.eye(4, 3) * 1j}, "features must be real numbers, not complex128"),
        ({"features": "features.npy"}, "features must be real numbers, not <U12"),
        ({"features": np.array([[object()]])}, "features must be real numbers, not object"),
    ],
)
def test_wrong_types_are_refused(change, message):
    with pytest.raises(TypeError, match=message):
        OldSystem.from_arrays(**(GOOD | change))


def test_nothing_at_all_and_unknown_number_of_classes_are_refused():
    with pytest.raises(ValueError, match="at least one of features with labels, prototypes and"):
        OldSystem.from_arrays(labels=[0, 1])
    with pytest.raises(ValueError, match="how many new classes there are is not known"):
        OldSystem.from_arrays(classifier_weight=np.eye(2, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.int32])
def test_any_real_type_becomes_float32(dtype):
    old = OldSystem.from_arrays(torch.eye(2, 3).to(dtype), torch.tensor([0, 1], dtype=torch.int16))
    assert torch.equal(old.features, torch.eye(2, 3))
    assert old.labels.dtype == torch.int64


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i2", np.longdouble])
def test_other_byte_orders_and_long_doubles_are_numbers_too(dtype):
    old = OldSystem.from_arrays(np.eye(3).astype(dtype), np.array([0, 1, 1], ">i8"))
    assert torch.equal(old.features, torch.eye(3)) and old.labels.tolist() == [0, 1, 1]
    backwards = OldSystem.from_arrays(np.arange(6.0).reshape(3, 2)[::-1], [0, 1, 1])
    assert backwards.features.tolist() == [[4, 5], [2, 3], [0, 1]]


def test_lists_and_strided_arrays_are_taken():
    strided = np.arange(24, dtype=np.float32).reshape(4, 6)[:, ::2]
    old = OldSystem.from_arrays(strided, [0, 1, 1, 0])
    assert np.array_equal(old.features.numpy(), strided)
    assert OldSystem.from_arrays([[1, 2], [3, 4]], [0, 1]).width == 2


X = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
LABELS = np.array([0, 1, 1, 0, 2, 2])


@pytest.mark.parametrize(
    ("features", "labels"),
    [
        (pd.DataFrame(X), pd.Series(LABELS)),
        (pd.DataFrame(X, index=[5, 3, 1, 0, 2, 4]), pd.Series(LABELS, index=[9, 8, 7, 6, 5, 4])),
        (pd.DataFrame(np.repeat(X, 2, 0))[::2], pd.Series(np.repeat(LABELS, 2))[::2]),
        (pd.DataFrame(X, dtype="Float32"), pd.Series(LABELS, dtype="Int64")),
        ([torch.tensor(row) for row in X], [torch.tensor(label) for label in LABELS]),
        (list(X), list(LABELS)),
        (torch.tensor(X, requires_grad=True), torch.tensor(LABELS, dtype=torch.uint8)),
    ],
    ids=["table", "other index", "filtered", "nullable", "tensors", "rows", "gradient"],
)
def test_rows_are_taken_in_their_order(features, labels):
    old = OldSystem.from_arrays(features, labels)
    assert np.array_equal(old.features.numpy(), X) and old.labels.tolist() == LABELS.tolist()
    assert not old.features.requires_grad


def test_large_labels_are_refused_before_anything_is_allocated():
    with pytest.raises(ValueError, match="labels go up to 2000000000, but only 3 are distinct"):
        OldSystem.from_arrays(X, LABELS * 10**9)
    with pytest.raises(ValueError, match="labels must be 0 to 4, but row 1 has 1000000000"):
        OldSystem.from_arrays(X, LABELS * 10**9, num_classes=5)
    assert OldSystem.from_arrays(X, LABELS * 500).num_classes == 1001
    many = np.arange(20_000)
    assert OldSystem.from_arrays(np.ones((len(many), 1)), 5 * many).num_classes == 99_996
