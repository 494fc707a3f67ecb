"""Rows of features and images: what counts as a proof that they belong together, and what does not."""

import numpy as np
import pytest

from compat_lib.old_images import align, check_classes, match_images

FILES = ["train/anna/1.png", "train/anna/2.png", "train/bert/1.png"]


@pytest.mark.parametrize(
    "ids",
    [
        ["train/bert/1.png", "train/anna/1.png", "train/anna/2.png"],
        ["/data/photos/train/bert/1.png", "/data/photos/train/anna/1.png", "/data/photos/train/anna/2.png"],
        ["bert/1.png", "anna/1.png", "anna/2.png"],
        ["old\\bert\\1.png", "old\\anna\\1.png", ".\\anna\\2.png"],
        ["bert/1", "anna/1", "anna/2"],
        [b"bert/1.png", b"anna/1.png", b"anna/2.png"],
    ],
)
def test_ids_are_paths_from_their_end(ids):
    assert match_images(ids, FILES).tolist() == [1, 2, 0]


def test_file_names_alone_are_enough_where_they_differ():
    files = ["anna/10.jpg", "anna/11.jpg", "bert/12.jpg"]
    assert match_images(["flat/12.jpg", "flat/10.jpg", "flat/11.jpg"], files).tolist() == [1, 2, 0]
    assert match_images(np.array([12, 11, 10]), files).tolist() == [2, 1, 0]
    with pytest.raises(ValueError, match="'1.png' lies in several class folders"):
        match_images(["1.png", "2.png", "1.png"], FILES)


def test_a_file_of_that_name_in_another_class_is_another_image():
    files = ["anna/1.png", "bert/2.png"]
    with pytest.raises(ValueError, match="1 of 2 images have no feature, the first 'anna/1.png'"):
        match_images(["bert/1.png", "bert/2.png"], files)


def test_training_and_test_images_of_one_name_are_kept_apart():
    ids = ["x/test/anna/1.png", "x/train/anna/1.png"]
    assert match_images(ids, ["train/anna/1.png"]).tolist() == [1]
    assert match_images(ids, ["test/anna/1.png"]).tolist() == [0]
    with pytest.raises(ValueError, match="No id is the name of an image"):
        match_images(ids[:1], ["train/anna/1.png"])
    with pytest.raises(ValueError, match="The ids of rows 0 and 1 name the same image, 'anna/1.png'"):
        match_images(ids, ["anna/1.png"])


def test_rows_without_an_image_are_passed_over_and_images_without_a_row_are_not():
    found = align(FILES, 5, ["anna/2.png", "carl/1.png", "bert/1.png", "anna/1.png", "dora/7.png"])
    assert found.rows.tolist() == [3, 0, 2] and found.left_over == 2
    with pytest.raises(ValueError, match="2 of 3 images have no feature, the first 'train/anna/2.png'"):
        match_images(["anna/1.png"], FILES)


def test_ids_that_occur_twice_or_never():
    with pytest.raises(ValueError, match="The ids of rows 0 and 2 name the same image, 'train/anna/1.png'"):
        match_images(["anna/1.png", "anna/2.png", "anna/1.png", "bert/1.png"], FILES)
    with pytest.raises(ValueError, match="No id is the name of an image .the first id: 'x/9.png', the first"):
        match_images(["x/9.png"], FILES)
    with pytest.raises(ValueError, match="No id is the name of an image .the first id: 'none'"):
        match_images(np.array([], dtype=str), FILES)


def test_without_ids_the_order_is_not_assumed():
    with pytest.raises(ValueError, match="Nothing says which row belongs to which image.*trust_order=True"):
        align(FILES, 3, labels=["anna", "anna", "bert"])
    with pytest.raises(ValueError, match="There are 4 rows of features without ids and 3 images"):
        align(FILES, 4, trust_order=True)


def test_an_order_that_is_vouched_for_is_still_compared_with_the_labels():
    found = align(FILES, 3, labels=["anna", "anna", "bert"], trust_order=True)
    assert found.rows.tolist() == [0, 1, 2]
    assert found.proof == "by their order, which you vouch for, and their labels agree with the class folders"
    with pytest.raises(ValueError, match="1 of 3 labels are not the class folder's name.*'train/anna/2.png'"):
        align(FILES, 3, labels=["anna", "bert", "bert"], trust_order=True)
    assert align(FILES, 3, trust_order=True).proof == "by their order, which you vouch for"


def test_classes_are_numbered_as_data_sets_number_them():
    found = align(["b/1.png", "a/1.png", "C/1.png"], 3, trust_order=True)
    assert found.classes == ("C", "a", "b") and found.labels.tolist() == [2, 1, 0]


def test_lengths_and_paths_that_cannot_be():
    with pytest.raises(ValueError, match="ids have 2 rows but features 3"):
        align(FILES, 3, ["anna/1.png", "anna/2.png"])
    with pytest.raises(ValueError, match="labels have 1 rows but features 3"):
        align(FILES, 3, labels=["anna"], trust_order=True)
    for files in ([], ["1.png"]):
        with pytest.raises(ValueError, match="Give at least one image, and each with its class folder"):
            align(files, 1, trust_order=True)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["anna", "Anna", "bert"], "1 of 3 labels are not the class folder's name, .* the label is 'Anna'"),
        ([7, 7, 7], "The label 7 stands for 2 class folders .anna, bert."),
        ([7, 8, 9], "The class folder anna stands for 2 labels .7, 8."),
    ],
)
def test_labels_that_contradict_the_folders(labels, message):
    with pytest.raises(ValueError, match=message):
        check_classes(labels, ["anna", "anna", "bert"], FILES)


def test_numbers_of_classes_may_be_any_numbers():
    check_classes([12, 12, 0], ["anna", "anna", "bert"], FILES)
    check_classes(["2", "2", "1"], ["2", "2", "1"], FILES)


def test_twenty_thousand_shuffled_rows():
    rng = np.random.default_rng(0)
    files = [f"train/c{image % 100:03}/{image:06}.png" for image in range(20_000)]
    order = rng.permutation(len(files))
    rows = match_images([files[place] for place in order], files)
    assert np.array_equal(order[rows], np.arange(len(files)))
