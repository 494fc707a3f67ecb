"""ImageNet and Places365 in class folders, as they are distributed, damaged ones included."""

import pickle
import shutil

import numpy as np
import pytest
import torch
from image_folders import picture
from PIL import Image
from torchvision import transforms

from compat_lib.data import load
from compat_lib.data.imagenet import centre_crop

WNIDS = ("n01440764", "n01443537", "n02102040")
PLACES = ("airfield", "arena-hockey", "army_base")


def write_classes(base, names, kind):
    for label, name in enumerate(names):
        for part, count in (("train", 12), ("val", 2)):
            for number in range(count):
                picture(base / part / name / f"{name}_{number:08d}.{kind}", 80 * label)
    return base


def write_imagenet(base):
    return write_classes(base, WNIDS, "JPEG")


def write_places(base):
    return write_classes(base, PLACES, "jpg")


def colours(images):
    """The red of each image over 80: the class, up to JPEG."""
    return (images[:][:, 0].float().mean((1, 2)) / 80).round().long().tolist()


def test_imagenet_by_folders(tmp_path):
    write_imagenet(tmp_path / "imagenet")
    data = load("imagenet", root=tmp_path, size=24)
    assert data.train.classes == data.test.classes == WNIDS
    assert data.train.images.shape == (30, 3, 24, 24) and data.val.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert colours(data.train.images) == data.train.labels.tolist()
    assert colours(data.val.images) == data.val.labels.tolist()
    assert data.test.labels.tolist() == [0, 0, 1, 1, 2, 2] == colours(data.test.images)
    assert len(load("imagenet", root=tmp_path, size=24, validation=0).train) == 36
    copied = pickle.loads(pickle.dumps(data.val.images))  # as a worker process gets it
    assert torch.equal(copied[:], data.val.images[:])
    other = load("imagenet", root=tmp_path, size=24, seed=1)
    assert other.train.digest() != data.train.digest() and other.test.digest() == data.test.digest()


def test_places365(tmp_path):
    base = write_places(tmp_path / "elsewhere")
    for part in ("train", "val"):  # the archive's own lists, which name folders alone
        (base / f"{part}.txt").write_text(f"{part}/airfield/00000001.jpg\n")
    data = load("places365", root=tmp_path, path=base, size=24, validation=0)
    assert data.train.classes == data.test.classes == PLACES and len(data.train) == 36
    assert data.test.labels.tolist() == [0, 0, 1, 1, 2, 2] == colours(data.test.images)


@pytest.mark.parametrize("shape", [(500, 375), (375, 500), (224, 224), (301, 999), (60, 50)])
@pytest.mark.parametrize("size", [224, 112])
def test_the_crop_is_torchvisions(shape, size):
    pixels = np.random.default_rng(0).integers(0, 256, (shape[1], shape[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    theirs = transforms.Compose([transforms.Resize(size * 256 // 224), transforms.CenterCrop(size)])(image)
    assert np.array_equal(centre_crop(image, (size, size)), np.asarray(theirs))


def test_the_crop_of_another_shape_fills_it():
    image = Image.linear_gradient("L").resize((400, 90)).convert("RGB")
    cut = centre_crop(image, (64, 32))
    assert cut.shape == (64, 32, 3) and cut[:2].max() < 40 and cut[-2:].min() > 215  # the middle of each side


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda b: shutil.rmtree(b / "val"), r"has no folder val; expected train/<wnid>/\*.JPEG"),
        (lambda b: [shutil.rmtree(b / "val" / name) for name in WNIDS], "val has 0 class folder.*flat val"),
        (lambda b: [shutil.rmtree(b / "train" / name) for name in WNIDS[1:]], "train has 1 class folder"),
    ],
)
def test_damaged_imagenet(tmp_path, damage, words):
    damage(write_imagenet(tmp_path / "imagenet"))
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        load("imagenet", root=tmp_path, size=24)
