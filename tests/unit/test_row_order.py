"""Rows of features and images: what counts as a proof that they belong together, and what does not."""

import unicodedata

import numpy as np
import pytest

from compat_lib.deploy.feature_files import FeatureTable, as_keys
from compat_lib.deploy.row_order import align

FILES = ["train/anna/1.png", "train/anna/2.png", "train/bert/1.png"]


def table(ids=None, labels=None, count=3, files=FILES, **options):
    ids = None if ids is None else as_keys("ids", ids)
    labels = None if labels is None else as_keys("labels", labels)
    features = np.arange(count, dtype=np.float32)[:, None]
    found = align(FeatureTable("old.csv", features, labels, ids), files, **options)
    assert found.features[:, 0].tolist() == found.rows.tolist()
    return found


def rows(ids, files=FILES):
    return table(ids=ids, count=len(ids), files=files).rows.tolist()


TEN = ["anna/10.jpg", "anna/11.jpg", "bert/12.jpg"]
NAMED_ALIKE = ["x/test/anna/1.png", "x/train/anna/1.png"]


@pytest.mark.parametrize(
    ("ids", "files", "expected"),
    [
        (["train/bert/1.png", "train/anna/1.png", "train/anna/2.png"], FILES, [1, 2, 0]),
        ([f"/data/photos/train/{one}.png" for one in ("bert/1", "anna/1", "anna/2")], FILES, [1, 2, 0]),
        (["bert/1.png", "anna/1.png", "anna/2.png"], FILES, [1, 2, 0]),
        (["old\\bert\\1.png", "old\\anna\\1.png", ".\\anna\\2.png"], FILES, [1, 2, 0]),
        (["bert/1", "anna/1", "anna/2"], FILES, [1, 2, 0]),
        ([b"bert/1.png", b"anna/1.png", b"anna/2.png"], FILES, [1, 2, 0]),
        # file names alone are enough where they differ
        (["flat/12.jpg", "flat/10.jpg", "flat/11.jpg"], TEN, [1, 2, 0]),
        ([12, 11, 10], TEN, [2, 1, 0]),
        # training and test images of one name are kept apart
        (NAMED_ALIKE, ["train/anna/1.png"], [1]),
        (NAMED_ALIKE, ["test/anna/1.png"], [0]),
    ],
)
def test_ids_are_paths_from_their_end(ids, files, expected):
    assert rows(ids, files) == expected


def test_names_of_a_mac_are_the_same_names():
    files = ["Zoë/1.png", "Bob/1.png"]
    for form in ("NFC", "NFD"):
        ids = [unicodedata.normalize(form, file) for file in files[::-1]]
        assert rows(ids, [unicodedata.normalize("NFD", file) for file in files]) == [1, 0]
    labels = [unicodedata.normalize("NFD", "Zoë"), "Bob"]
    assert table(files, labels, 2, files).classes == ("Bob", "Zoë")


def test_rows_without_an_image_are_passed_over():
    found = table(["anna/2.png", "carl/1.png", "bert/1.png", "anna/1.png", "dora/7.png"], count=5)
    assert found.rows.tolist() == [3, 0, 2] and found.left_over == 2


@pytest.mark.parametrize(
    ("ids", "files", "message"),
    [
        (["anna/1.png"], FILES, "2 of 3 images have no feature, the first 'train/anna/2.png'"),
        (["bert/1.png", "bert/2.png"], ["anna/1.png", "bert/2.png"], "1 of 2 .* the first 'anna/1.png'"),
        (["anna/1.png", "anna/2.png", "anna/1.png", "bert/1.png"], FILES, "rows 0 and 2 name .* 'train"),
        (["x/test/anna/1.png", "x/train/anna/1.png"], ["anna/1.png"], "rows 0 and 1 name the same image"),
        (["x/9.png"], FILES, "no id is the name of an image .the first id: 'x/9.png', the first"),
        (["x/test/anna/1.png"], FILES[:1], "no id is the name of an image"),
        (
            ["1.png", "2.png", "1.png"],
            FILES,
            "'1.png' could be 'train/anna/1.png' or 'train/bert/1.png'",
        ),
        (
            ["a/0", "a/1"],
            ["train/a/0.png", "train/a/0.jpg"],
            "'train/a/0.png' or 'train/a/0.jpg'; .* the suffix",
        ),
        (["a/0.png"], ["train/a/0.png", "test/a/0.png"], "'a/0.png' could be 'train/a/0.png' or 'test/a/0"),
        (["1.png"], ["1.png"], "give images with their class folders"),
        (["1.png"], [], "give images with their class folders"),
    ],
)
def test_ids_that_leave_a_doubt(ids, files, message):
    with pytest.raises(ValueError, match=rf"old\.csv: .*{message}"):
        rows(ids, files)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"labels": ["anna", "anna", "bert"]}, "nothing says which .*trust_order=True"),
        ({"count": 4, "trust_order": True}, r"old\.csv: nothing says which of the 4 rows .* of the 3 images"),
        ({"trust_order": "no"}, "trust_order is 'no'; give True or False"),
    ],
)
def test_without_ids_the_order_is_not_assumed(given, message):
    with pytest.raises(ValueError, match=message):
        table(**given)


def test_an_order_that_is_vouched_for_is_still_compared_with_the_labels():
    found = table(labels=["anna", "anna", "bert"], trust_order=True)
    assert found.rows.tolist() == [0, 1, 2]
    assert found.proof == "by their order, which you vouch for, and their labels agree with the class folders"
    assert table(labels=["anna", "", "bert"], trust_order=True).proof == found.proof  # a gap says nothing
    assert table(trust_order=True).proof == "by their order, which you vouch for"
    assert table(labels=["", "", ""], trust_order=True).proof == "by their order, which you vouch for"


def test_classes_are_numbered_as_data_sets_number_them():
    found = table(files=["b/1.png", "a/1.png", "C/1.png"], trust_order=True)
    assert found.classes == ("C", "a", "b") and found.labels.tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["anna", "Anna", "bert"], "1 of 3 labels .*'train/anna/2.png': the label is 'Anna'"),
        ([7, 7, 7], "the label 7 stands for 2 class folders .anna, bert."),
        ([7, 8, 9], "the class folder anna stands for 2 labels .7, 8."),
    ],
)
def test_labels_that_contradict_the_folders(labels, message):
    with pytest.raises(ValueError, match=message):
        table(labels=labels, trust_order=True)


def test_numbers_of_classes_may_be_any_numbers():
    assert table(labels=[12, 12, 0], trust_order=True).labels.tolist() == [0, 0, 1]
    files = ["2/1.png", "2/2.png", "1/1.png"]
    assert table(labels=[2, 2, 1], files=files, trust_order=True).labels.tolist() == [1, 1, 0]
