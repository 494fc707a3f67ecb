import os
import re
import shutil
import unicodedata
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from image_folders import COLOURS, make, paint
from PIL import Image

from compat_lib.data import encoded, load
from compat_lib.data.folders import cifar100, folder


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


@pytest.fixture
def place(tmp_path):
    return tmp_path / "pictures"


def test_images_labels_and_names(root, place):
    make(place, val={"ant": 2, "cat": 2})
    data = load("folder", root=root, path=place, size=12)
    assert data.name == "pictures"
    assert data.train.classes == ("ant", "bee") and data.val.classes == ("ant", "cat")
    assert data.train.images.shape == (42, 3, 12, 12) and data.test.labels.tolist() == [0, 0, 1, 1, 1]
    assert data.train.images[:, :, 5, 5].unique(dim=0).tolist() == [[10] * 3, [60] * 3]
    assert data.test.images[:, 0, 0, 0].tolist() == [0, 1, 0, 1, 2]  # in the order of file names


@pytest.mark.parametrize("stream", [False, True])
def test_queries_of_their_own_are_test_images_that_know_it(root, place, stream):
    make(place, val={"ant": 2, "cat": 2})
    paint(place / "query", {"bee": 2, "elk": 1})
    test = load("folder", root=root, path=place, size=12, stream=stream).test
    assert test.classes == ("ant", "bee", "elk")
    assert test.labels.tolist() == [0, 0, 1, 1, 1, 1, 1, 2]
    assert test.extras["query"].tolist() == [False] * 5 + [True] * 3
    shades = test.images[torch.arange(8)][:, 0, 5, 5].tolist()
    assert shades == [COLOURS[test.classes[label]] for label in test.labels.tolist()]


def test_decoded_once_outside_the_folder(root, place, monkeypatch):
    make(place)
    before = sorted(place.rglob("*"))
    data = folder(root, path=place, size=12)
    assert sorted(place.rglob("*")) == before
    with monkeypatch.context() as patch:
        patch.setattr(encoded, "open_image", None)  # any decoding would fail
        assert folder(root, path=place, size=12).train.digest() == data.train.digest()
    cached = len(list((root / "cache").iterdir()))
    Image.new("RGB", (12, 12), (1, 2, 3)).save(place / "test" / "bee" / "009.png")
    changed = folder(root, path=place, size=12)
    assert changed.test.images[-1, :, 0, 0].tolist() == [1, 2, 3]
    assert len(list((root / "cache").iterdir())) == cached + 1  # only test was decoded again
    file = place / "test" / "ant" / "000.png"
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1_000_000_000))  # another time, the same size
    assert folder(root, path=place, size=12).test.digest() == changed.test.digest()
    assert len(list((root / "cache").iterdir())) == cached + 2


def test_files_that_swap_names_are_decoded_again_though_size_and_time_are_equal(root, place):
    make(place)
    one, two, spare = (place / "test" / name for name in ("ant/000.png", "bee/000.png", "spare"))
    for file in (one, two):  # a PNG reads the same with anything after its end
        file.write_bytes(file.read_bytes().ljust(999, b"\0"))
        os.utime(file, ns=(0, 0))
    before = folder(root, path=place, size=12).test
    one.rename(spare), two.rename(one), spare.rename(two)
    for file in (one, two):
        os.utime(file, ns=(0, 0))
    after = folder(root, path=place, size=12).test
    assert torch.equal(after.images[[2, 1, 0, 3, 4]], before.images) and after.digest() != before.digest()


def test_the_digest_of_a_streamed_folder_changes_with_its_files(root, place):
    make(place, val={"ant": 2, "bee": 2})

    def digest(place, size=12):
        return folder(root, path=place, size=size, stream=True).train.digest()

    first = digest(place)
    os.utime(place / "train" / "ant" / "000.png", ns=(0, 0))
    moved = shutil.move(place, place.parent / "elsewhere")
    assert digest(moved) == first
    file = moved / "train" / "ant" / "012.png"
    file.with_name("000.png").rename(file)
    others = [digest(moved)]
    file.write_bytes(b"")  # not decoded here: its batch will name it
    others += [digest(moved), digest(moved, (12, 11))]
    assert len({first, *others}) == 4
    assert not root.exists()  # and nothing was kept


def test_what_is_left_out_is_said_on_a_line_and_system_files_are_passed_over(root, place, caplog):
    noise = np.random.default_rng(0)
    for part, count in (("train", 21), ("test", 2), ("val", 2)):
        paint(place / part, {"ant": count, "bee": count}, noise=noise)
    for name in ("__MACOSX", "lost+found", "$RECYCLE.BIN", "@eaDir", "#recycle", ".cache"):
        (place / "train" / name).mkdir()
    for name in (".DS_Store", "._000.png", "Thumbs.db"):
        (place / "train" / "ant" / name).write_text("")
    assert folder(root, path=place, size=12).train.num_classes == 2
    assert caplog.messages == []
    wrong = ("train/ant/a.HEIC", "train/ant/b.heic", "train/bee/notes", "test/ant/2024/a.png", "valid/x")
    for name in (*wrong, "val/b.png"):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text("")
    assert len(folder(root, path=place, size=12).train) == 42
    assert [re.search(r"left out of .*/(.*?); ", line)[1] for line in caplog.messages] == [
        "pictures: valid, 1 image(s) directly in val",
        "train: 2 .heic, 1 without suffix",
        "test: 1 folder(s)",
    ]


def test_images_asked_for_that_are_trained_on_are_said(root, place, caplog):
    noise = np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 3), ("val", 2)):
        paint(place / part, {"ant": count, "bee": count}, noise=noise)
    folder(root, path=place, size=12)
    assert caplog.messages == []
    shutil.copy(
        place / "train/ant/007.png", place / "test/bee/photo.png"
    )  # in another class, by another name
    with Image.open(place / "train/bee/002.png") as image:
        image.save(place / "val/bee/2.bmp")  # and as another kind of file
        image.putpixel((0, 0), (0, 0, 0))
        image.save(place / "val/bee/3.bmp")  # one pixel differs: another image
    paint(place / "query", {"bee": 2}, noise=noise)
    shutil.copy(place / "test/ant/001.png", place / "query/bee/asks.png")
    folder(root, path=place, size=12)
    form = r"(\d+ of \d+) images of (\w+) are (.*) too, .* such as (.*)"
    assert [re.search(form, line).groups() for line in caplog.messages] == [
        ("1 of 6", "val", "training images", "val/bee/2.bmp"),
        ("1 of 10", "test", "training images", "test/bee/photo.png"),
        ("1 of 3", "query", "in the gallery", "query/bee/asks.png"),
    ]


def test_names_need_not_be_utf8(root, place):
    make(place)
    file = os.fsencode(place / "test" / "ant") + b"/z\xe4.png"
    Path(os.fsdecode(file)).write_bytes((place / "test" / "ant" / "000.png").read_bytes())
    (place / "test" / "bee").rename(os.fsdecode(os.fsencode(place / "test") + b"/b\xe9e"))
    data = folder(root, path=place, size=12)
    assert data.test.classes == ("ant", "b\ufffde") and len(data.test.digest()) == 64
    Path(os.fsdecode(file)).write_bytes(b"")
    with pytest.raises(ValueError, match="z\ufffd.png .the file is empty"):
        folder(root, path=place, size=12)


def test_names_in_either_form_of_unicode_are_one_class(root, place):
    whole, apart = (unicodedata.normalize(form, "Zoë") for form in ("NFC", "NFD"))
    make(place, train={whole: 12, "bee": 12}, test={apart: 2, "bee": 2})
    paint(place / "query", {whole: 1, "bee": 1})
    data = folder(root, path=place, size=12)
    assert data.val.classes == ("Zoë", "bee")  # shared with test: images are held out
    assert data.test.classes == ("Zoë", "bee") and data.test.labels.bincount().tolist() == [3, 3]
    paint(place / "train", {apart: 1})
    with pytest.raises(ValueError, match="two class folders in .*train are called 'Zoë'"):
        folder(root, path=place, size=12)


def test_links_to_themselves_are_no_images(root, place):
    make(place)
    for name in ("train/loop", "train/ant/loop"):
        (place / name).symlink_to("loop")
    assert len(folder(root, path=place, size=12).test) == 5
    (place / "test" / "ant" / "z.png").symlink_to("z.png")
    with pytest.raises(ValueError, match="cannot read the image .*z.png .Too many levels of symbolic links"):
        folder(root, path=place, size=12)


def test_all_unreadable_images_are_named_and_their_part_is_not_kept(root, place):
    make(place)
    for name, content in (("train/bee/007", b""), ("train/ant/003", b"text"), ("test/bee/001", b"")):
        (place / f"{name}.png").write_bytes(content)
    file = place / "test" / "ant" / "000.png"
    file.unlink()
    file.symlink_to("nowhere.png")
    said = "cannot read 4 images: .*ant/003.png.*bee/007.png.*ant/000.png .No such file.*test/bee/001.png"
    with pytest.raises(ValueError, match=said):
        folder(root, path=place, size=12)
    assert not any((root / "cache").iterdir())


@pytest.mark.parametrize(
    ("train", "damage", "error", "sentence"),
    [
        ({"ant": 3, "bee": 3}, lambda place: None, ValueError, "nothing can be held out .* add val/"),
        (None, lambda place: (place / "test" / "cat").mkdir(), ValueError, "class 'cat' has no images"),
        (None, lambda place: shutil.rmtree(place / "test" / "ant"), ValueError, "test has 1 class folder"),
        (None, lambda place: shutil.rmtree(place / "test"), FileNotFoundError, "has no folder test; expec"),
        (None, shutil.rmtree, FileNotFoundError, "pictures"),
    ],
)
def test_folders_of_which_nothing_can_be_made_are_refused(root, place, train, damage, error, sentence):
    damage(make(place, train=train))
    with pytest.raises(error, match=sentence):
        folder(root, path=place, size=12)


def test_cifar100_is_read_from_its_folder(root):
    make(root / "cifar100", train={name: 20 for name in COLOURS}, test={name: 2 for name in COLOURS})
    data = load("cifar100", root=root, size=12)
    assert data.name == "cifar100" and data.test.classes == tuple(COLOURS)
    assert data.train.labels.bincount().tolist() == [18] * 5
    assert data.val.labels.bincount().tolist() == [2] * 5


class TinyCifar:
    """Stands for torchvision's data set: 4 classes in mixed order."""

    classes = ("apple", "bear", "clock", "dolphin")

    def __init__(self, root, train, download):
        assert download
        self.targets = [3, 1, 0, 2] * (12 if train else 2)
        self.data = np.zeros((len(self.targets), 32, 32, 3), dtype=np.uint8)
        self.data[..., 0] = np.array(self.targets, dtype=np.uint8)[:, None, None] * 50


@pytest.mark.parametrize("size", [32, 16])
def test_without_the_folder_torchvision_is_asked(root, monkeypatch, size):
    monkeypatch.setattr("torchvision.datasets.CIFAR100", TinyCifar)
    data = cifar100(root, size=size)
    assert data.train.images.shape == (40, 3, size, size) and data.test.classes == TinyCifar.classes
    assert torch.equal(data.test.labels, torch.arange(4).repeat_interleave(2))
    for part in (data.train, data.val, data.test):
        assert torch.equal(part.images[:, 0, 3, 3].long(), part.labels * 50)
        assert not part.images[:, 1:].any()


@pytest.mark.parametrize(("name", "kind"), [("cifar100", "CIFAR100"), ("omniglot", "Omniglot")])
def test_without_folder_and_network_one_sentence_says_what_to_do(root, monkeypatch, name, kind):
    def no_network(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(f"torchvision.datasets.{kind}", no_network)
    with pytest.raises(FileNotFoundError, match=f"{kind} .*no route to host.*put its images at {root}.*png"):
        load(name, root=root)


def test_unreadable_images_are_left_out_by_choice_and_named(tmp_path, caplog):
    four, how = {"ant": 4, "bee": 4}, {"root": tmp_path, "path": tmp_path / "shop", "size": 8}
    place = make(tmp_path / "shop", train=four, val=four, test=four)
    whole = load("folder", **how)
    assert str(whole.train) == "ImageSet(8 images of 3 x 8 x 8, 2 classes)"
    assert str(whole) == "Splits('shop', images of classes: train: 8 of 2, val: 8 of 2, test: 8 of 2)"
    (place / "train" / "ant" / "001b.png").write_bytes(b"no image")
    (place / "test" / "bee" / "0.jpg").write_bytes(b"")
    for _ in range(2):  # decoded, then from the cache
        caplog.clear()
        skipped = load("folder", **how, skip_unreadable=True)
        assert skipped.skipped == ("train/ant/001b.png", "test/bee/0.jpg")
        assert "skipped 2 images" in caplog.text
        for part, images in skipped.parts.items():
            assert images.digest() == whole.parts[part].digest()
            names = [f"{part}/{c}/{n:03d}.png" for c in four for n in range(4)]
            assert [images.names[row] for row in range(8)] == names
    with pytest.raises(ValueError, match="cannot stream"):
        load("folder", **how, stream=True, skip_unreadable=True)
    for number in range(4):
        (place / "train" / "bee" / f"{number:03d}.png").write_bytes(b"")
    with pytest.raises(ValueError, match="no image of class 'bee' in .*train can be read"):
        load("folder", **how, skip_unreadable=True)
