import pytest
import torch

from compat_lib.data import load
from compat_lib.data.images import ImageSet, data_root, with_validation


def image_set(labels=(0, 1, 1, 2), channels=3, extras=None):
    count = len(labels)
    pixels = torch.arange(count * channels * 16, dtype=torch.int64).remainder(251).to(torch.uint8)
    classes = tuple("abc")
    return ImageSet(pixels.view(count, channels, 4, 4), torch.tensor(labels), classes, extras or {})


def test_subset_keeps_classes_order_and_extras():
    images = image_set(extras={"outlier": torch.tensor([0, 1, 2, 0])})
    part = images.subset([3, 1])
    assert part.classes == images.classes
    assert part.labels.tolist() == [2, 1] and part.extras["outlier"].tolist() == [0, 1]
    assert torch.equal(part.images, images.images[[3, 1]])
    by_mask = images.subset(torch.tensor([False, True, False, True]))
    assert torch.equal(by_mask.images, images.images[[1, 3]])
    assert images.subset(torch.arange(4)).images.data_ptr() == images.images.data_ptr()  # one storage


def test_with_labels_renames_and_compact_counts_the_classes_that_are_left():
    part = image_set().with_labels([1, 3], torch.tensor([1, 0]), ["new", "other"])
    assert part.labels.tolist() == [1, 0] and part.classes == ("new", "other")
    part = image_set(labels=(0, 2, 2, 1)).compact(torch.tensor([True, True, True, False]))
    assert part.labels.tolist() == [0, 1, 1] and part.classes == ("a", "c")


def test_digest_depends_on_content_alone():
    base = image_set(extras={"outlier": torch.zeros(4, dtype=torch.int64)})
    assert base.digest() == base.subset([0, 1, 2, 3]).digest()
    last = base.images.contiguous(memory_format=torch.channels_last)
    strided = ImageSet(last, base.labels, base.classes, base.extras)
    assert strided.digest() == base.digest()
    brighter = base.images.clone()
    brighter[2, 1, 0, 3] += 1
    others = [
        ImageSet(brighter, base.labels, base.classes, base.extras),
        ImageSet(base.images, base.labels.flip(0), base.classes, base.extras),
        ImageSet(base.images, base.labels, ("a", "b", "d"), base.extras),
        ImageSet(base.images, base.labels, base.classes),
    ]
    assert len({base.digest(), *(other.digest() for other in others)}) == 5


def of_sizes(sizes):
    """One pixel an image, which tells them apart."""
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(list(sizes.values())))
    return ImageSet(torch.arange(len(labels)).byte().view(-1, 1, 1, 1), labels, tuple(sizes))


FIVE = ("ant", "bee", "cat", "dog", "elk")


@pytest.mark.parametrize(
    ("train", "test", "held"),
    [
        ({"ant": 12, "bee": 30, "cat": 9, "dog": 1}, {"ant": 2}, [2, 3]),  # of shared classes images
        ({f"ant{number}": 8 for number in range(30)}, {"ant": 2}, [8] * 3),  # of others classes
        (dict.fromkeys(FIVE[:3], 10), {"dog": 2}, [2, 2, 2]),  # too few classes: images
        (dict.fromkeys(FIVE, 3), {"ant": 2}, [3, 3]),  # too few images: classes
        ({"elk": 12} | dict.fromkeys(FIVE[:4], 3), {"ant": 2}, [3, 3]),  # no images of one class alone
    ],
)
def test_what_is_held_out_for_validation(train, test, held):
    images, test = of_sizes(train), of_sizes(test)
    data, again, other = (with_validation("x", images, test, seed=s, share=0.1) for s in (0, 0, 1))
    assert data.val.labels.bincount().tolist() == held
    pixels = torch.cat([data.train.images, data.val.images]).flatten()
    assert pixels.sort().values.equal(images.images.flatten())  # none twice and none lost
    classes = [set(part.classes) for part in (data.train, data.val)]
    assert classes[1] <= classes[0] if min(held) == 2 else not classes[0] & classes[1]
    assert torch.equal(again.val.images, data.val.images) and not torch.equal(
        other.val.images, data.val.images
    )


@pytest.mark.parametrize("train", [{"ant": 3, "bee": 3}, {"ant": 12, "bee": 3}])
def test_where_nothing_can_be_held_out_a_sentence_says_so(train):
    with pytest.raises(ValueError, match="nothing can be held out .* fewer than 2 with 10 images; add val/"):
        with_validation("x", of_sizes(train), of_sizes(train), seed=0, share=0.1)


def test_data_root_prefers_the_parameter_then_the_variable_then_data(monkeypatch, tmp_path):
    monkeypatch.setenv("COMPAT_DATA", str(tmp_path / "from-variable"))
    assert data_root(tmp_path / "given") == tmp_path / "given"
    assert data_root() == tmp_path / "from-variable"
    monkeypatch.delenv("COMPAT_DATA")
    monkeypatch.chdir(tmp_path)
    assert data_root() == tmp_path / "data"


def test_a_data_root_that_is_a_file_is_named(tmp_path):
    (tmp_path / "data").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file"):
        data_root(tmp_path / "data")


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("faces", {}, "portraits, omniglot, cifar100, folder"),
        ("portraits", {"people": 3}, "takes the options identities, images, .*; got people"),
        ("portraits", {"stream": True}, "'portraits' is always read in one way, .* leave stream out"),
        ("omniglot", {"pose": 1}, "takes the options in_domain; got pose"),
        ("folder", {}, "takes the options path, skip_unreadable and needs path; got none"),
        ("folder", {"path": "x", "skip_unreadable": "no"}, "skip_unreadable must be True or False; got 'no'"),
        ("msmt17", {"identities": "some"}, "identities is 'some'; choose one of train, all"),
        ("cifar100", {"validation": "0.1"}, "validation must be a number, such as 0.1; got '0.1'"),
    ],
)
def test_load_names_what_is_allowed(name, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        load(name, **options)
