"""ImageNet and Places365 in the layouts as they are distributed, damaged ones included."""

import hashlib
import pickle
import shutil
import tarfile

import numpy as np
import pytest
import scipy.io
import torch
from image_folders import change_lines, picture
from PIL import Image
from torchvision import transforms
from torchvision.datasets import imagenet as reader

from compat_lib.data import load
from compat_lib.data.imagenet import centre_crop

WNIDS = ("n01440764", "n01443537", "n02102040")
KAGGLE = "LOC_val_solution.csv"
TRAIN = "places365_train_standard.txt"
VAL = (2, 0, 1, 0, 2, 1)  # class of validation image 1, 2, ...


def write_imagenet(base, flat=False):
    for label, wnid in enumerate(WNIDS):
        for number in range(12):
            picture(base / "train" / wnid / f"{wnid}_{number}.JPEG", 80 * label)
    for number, label in enumerate(VAL, start=1):
        folder = base / "val" if flat else base / "val" / WNIDS[label]
        picture(folder / f"ILSVRC2012_val_{number:08d}.JPEG", 80 * label)
    return base


def write_devkit(base, numbers, monkeypatch):
    """The development kit's archive: its class numbers are not in the order of the WordNet numbers."""
    kit = base / "kit" / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    names = zip((3, 1, 2), WNIDS, ("tench, Tinca", "goldfish", "spaniel"), strict=True)
    rows = [(*each, "", 0) for each in names]
    synsets = np.array([*rows, (4, "n00001740", "entity", "", 3)], dtype=kind)
    scipy.io.savemat(kit / "meta.mat", {"synsets": synsets[:, None]})
    truth = "".join(f"{number}\n" for number in numbers)
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text(truth)
    archive = base / "ILSVRC2012_devkit_t12.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(kit.parent, "ILSVRC2012_devkit_t12")
    shutil.rmtree(base / "kit")
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setitem(reader.ARCHIVE_META, "devkit", (archive.name, md5))


def write_kaggle(base):
    row = "ILSVRC2012_val_{:08d},{1} 85 1 499 272 {1} 1 1 9 9 ".replace("{:08d}", "{0:08d}")
    rows = [row.format(number, WNIDS[label]) for number, label in enumerate(VAL, start=1)]
    text = "\n".join(["ImageId,PredictionString", *reversed(rows)])  # as Kaggle has it: in no order
    (base / KAGGLE).write_text(text + "\n")


def write_places(base, train="data_256", val="val_256"):
    classes = ("/a/airfield", "/a/airplane_cabin", "/s/staircase")
    images = [(f"{c}/{n:08d}.jpg", i) for i, c in enumerate(classes) for n in range(1, 13)]
    checked = [(f"Places365_val_{n:08d}.jpg", label) for n, label in enumerate(VAL, start=1)]
    lists = {"categories_places365.txt": list(zip(classes, range(3), strict=True))}
    for name, rows in (lists | {TRAIN: images, "places365_val.txt": checked}).items():
        base.mkdir(exist_ok=True)
        (base / name).write_text("".join(f"{one} {label}\n" for one, label in rows))
    for folder, rows in ((train, images), (val, checked)):
        for name, label in rows:
            picture(base / folder / name.lstrip("/"), 80 * label)
    return base


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


@pytest.mark.parametrize("kind", ["devkit", "kaggle"])
def test_imagenet_with_a_flat_validation_folder(tmp_path, monkeypatch, kind):
    base = write_imagenet(tmp_path / "flat", flat=True)
    (base / "val" / "a stray folder").mkdir()
    if kind == "kaggle":
        write_kaggle(base)
    else:
        write_devkit(base, [(3, 1, 2)[label] for label in VAL], monkeypatch)
    test = load("imagenet", path=base, root=tmp_path, size=24).test
    assert test.classes == WNIDS and test.labels.tolist() == list(VAL) == colours(test.images)


@pytest.mark.parametrize("folders", [("data_256", "val_256"), ("data_large_standard", "val_large")])
def test_places365(tmp_path, folders):
    write_places(tmp_path / "places365", *folders)
    data = load("places365", root=tmp_path, size=24)
    assert data.train.classes == ("a/airfield", "a/airplane_cabin", "s/staircase")
    assert len(data.train) == 30 and colours(data.train.images) == data.train.labels.tolist()
    assert data.test.labels.tolist() == list(VAL) == colours(data.test.images)


def test_places365_with_the_easy_directory_structure(tmp_path):
    base, names = tmp_path / "places365", ("airfield", "arena-hockey", "arena-rodeo", "army_base")
    for label, name in enumerate(names):
        for number in range(1, 13):
            picture(base / "train" / name / f"{number:08d}.jpg", 80 * label)
        picture(base / "val" / name / f"Places365_val_{label + 1:08d}.jpg", 80 * label)
    for part in ("train", "val"):  # the archive's own lists, which name folders alone
        (base / f"{part}.txt").write_text(f"{part}/airfield/00000001.jpg\n")
    data = load("places365", root=tmp_path, size=24, validation=0)
    assert data.train.classes == data.test.classes == names and len(data.train) == 48
    assert data.test.labels.tolist() == [0, 1, 2, 3] == colours(data.test.images)
    shutil.rmtree(base / "val")
    with pytest.raises(FileNotFoundError, match=r"places365 has no folder val; expected train/airfield/"):
        load("places365", root=tmp_path, size=24)


def test_the_lists_are_read_as_torchvision_reads_them(tmp_path, monkeypatch):
    base = write_places(tmp_path / "places365", "data_256_standard")
    from torchvision.datasets import Places365

    monkeypatch.setattr(Places365, "_check_integrity", lambda *rest: True)  # the digests of the true lists
    theirs = Places365(str(base), small=True)
    ours = load("places365", root=tmp_path, size=24, validation=0).train
    assert theirs.targets == ours.labels.tolist()
    assert [file for file, _ in theirs.imgs] == [ours.images.files[row] for row in range(len(ours))]


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
        (lambda b: shutil.rmtree(b / "val"), "has no folder val"),
        (lambda b: None, "no list says of which class"),
        (lambda b: (b / "meta.bin").write_bytes(b"cut off"), "no list says of which class"),
        (lambda b: write_kaggle(b) or next((b / "val").iterdir()).rename(b / "val" / "ILSVRC2012_val_9.JPEG"),
         "val has 6 images, .* lists 6, and ILSVRC2012_val_0000000. is in one of them alone"),
        (lambda b: write_kaggle(b) or change_lines(b / KAGGLE, lambda x: [*x[:2], x[2][:23], *x[3:]]),
         "LOC_val_solution.csv names no class of ILSVRC2012_val_00000005"),
        (lambda b: write_kaggle(b) or [shutil.rmtree(b / "train" / name) for name in WNIDS[1:]],
         "train has 1 class folder"),
    ],
)  # fmt: skip
def test_damaged_imagenet(tmp_path, damage, words):
    base = write_imagenet(tmp_path / "imagenet", flat=True)
    damage(base)
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        load("imagenet", root=tmp_path, size=24)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda b: (b / "data_256/a/airfield/00000003.jpg").unlink(),
         "name a/airfield/00000003.jpg, which is not in .*data_256"),
        (lambda b: change_lines(b / "places365_val.txt", lambda x: [x[0], x[1][:-1] + "9", *x[2:]]),
         "line 2 of .*places365_val.txt has the class 9, but categories_places365.txt names 0 to 2"),
        (lambda b: change_lines(b / "categories_places365.txt", lambda x: [x[0], x[2]]),
         "number its 2 categories from 0 on, but has 2 in the place of 1"),
        (lambda b: shutil.rmtree(b / "val_256"), "has no folder val_256 or val_large"),
    ],
)  # fmt: skip
def test_damaged_places(tmp_path, damage, words):
    damage(write_places(tmp_path / "places365"))
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        load("places365", root=tmp_path, size=24)
