"""A user's arrays: what is taken in, and the sentence for each thing that is not."""

import numpy as np
import pytest
import torch

from compat_lib.old_arrays import by_class, names
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
    "no labels": ({"labels": None}, "features have 4 rows but no labels were given"),
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
    "bias without weight": ({"classifier_weight": None}, "classifier_bias has 2 values .* no rows"),
    "class map too large": (
        with_value("class_map", 0, 2),
        "class_map must hold -1 to 1, but new label 0 maps to 2",
    ),
    "class map too small": (with_value("class_map", 1, -2), "but new label 1 maps to -2"),
    "class map too long": (
        {"class_map": [0, 1, -1], "num_classes": 2},
        "class_map has 3 entries, but there are 2",
    ),
    "scale with bias": ({"classifier_scale": 8.0}, "classifier_scale belongs to a cosine classifier"),
    "scale zero": (
        {"classifier_scale": 0, "classifier_bias": None},
        "classifier_scale must be a number above 0",
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
        ({"labels": [0.0, 1.0, 1.0, 0.0]}, "labels must be whole numbers, not float32"),
        ({"labels": [True, False, True, False]}, "labels must be whole numbers, not bool"),
        ({"features": np.eye(4, 3) * 1j}, "features must be real numbers, not complex128"),
        ({"features": "features.npy"}, "features must be an array of numbers .* not str"),
        ({"features": np.array([[object()]])}, "features must be an array of numbers .* not ndarray"),
    ],
)
def test_wrong_types_are_refused(change, message):
    with pytest.raises(TypeError, match=message):
        OldSystem.from_arrays(**(GOOD | change))


def test_nothing_at_all_and_unknown_number_of_classes_are_refused():
    with pytest.raises(ValueError, match="at least one of features, prototypes and classifier_weight"):
        OldSystem.from_arrays(labels=[0, 1])
    with pytest.raises(ValueError, match="The number of new classes is not known"):
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


def test_what_is_no_number_is_named_by_its_type():
    with pytest.raises(TypeError, match="must be an array of numbers .*, not ndarray of <U1"):
        OldSystem.from_arrays(np.array([["a"]]), [0])


def test_features_with_a_gradient_are_detached():
    features = torch.randn(2, 3, requires_grad=True)
    assert not OldSystem.from_arrays(features, [0, 1]).features.requires_grad
    assert features.requires_grad


def test_lists_and_strided_arrays_are_taken():
    strided = np.arange(24, dtype=np.float32).reshape(4, 6)[:, ::2]
    old = OldSystem.from_arrays(strided, [0, 1, 1, 0])
    assert np.array_equal(old.features.numpy(), strided)
    assert OldSystem.from_arrays([[1, 2], [3, 4]], [0, 1]).width == 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["a", "b"], ["a", "b"]),
        (np.array([3, 1]), ["3", "1"]),
        (torch.tensor([3, 1]), ["3", "1"]),
        (np.array([3.0, 1.0]), ["3", "1"]),
        (np.array([b"m\xc3\xbc", b"x"]), ["mü", "x"]),
        (np.array(["a", 7], dtype=object), ["a", "7"]),
    ],
)
def test_names_become_text(value, expected):
    assert names("ids", value).tolist() == expected


@pytest.mark.parametrize("value", [[0.5], [None], [float("nan")], np.array([True]), np.array([1 + 0j])])
def test_what_is_no_name(value):
    with pytest.raises(TypeError, match="ids must be names or whole numbers, but row 0 holds"):
        names("ids", value)
    with pytest.raises(ValueError, match="ids must have one dimension"):
        names("ids", [value])


def test_prototypes_and_classifier_find_their_classes_by_name():
    given = by_class(
        {
            "prototypes": [[1, 1], [2, 2], [3, 3]],
            "prototype_classes": ["b", "gone", "a"],
            "classifier_weight": np.eye(2) * 5,
            "classifier_classes": ["c", "a"],
            "classifier_bias": [0.5, 0.25],
        },
        ["a", "b", "c"],
    )
    old = OldSystem.from_arrays(**given)
    assert old.prototypes().tolist() == [[3, 3], [1, 1], [0, 0]]
    assert old.class_map.tolist() == [1, -1, 0] and old.classifier_bias.tolist() == [0.5, 0.25]
    assert old.has == {"prototypes", "classifier"}


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"prototypes": np.eye(2)}, "prototypes come without prototype_classes"),
        ({"classifier_weight": np.eye(2)}, "classifier_weight come without classifier_classes"),
        ({"prototypes": np.eye(2), "prototype_classes": ["a"]}, "prototype_classes have 1 names, but prot"),
        ({"prototypes": np.eye(2), "prototype_classes": ["a", "a"]}, "prototype_classes hold 'a' twice"),
        (
            {"classifier_weight": [[np.nan]], "classifier_classes": ["a"]},
            "classifier_weight hold 1 values that are not finite",
        ),
    ],
)
def test_tables_of_classes_that_are_refused(tables, message):
    with pytest.raises(ValueError, match=message):
        by_class(tables, ["a", "b"])
