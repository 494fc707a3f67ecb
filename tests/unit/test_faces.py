import hashlib

import numpy as np
import pytest
import torch
import torchvision
from image_folders import picture
from PIL import Image
from record_files import image_record, jpeg, write_face_set, write_records
from test_ijb import write_ijb

from compat_lib.data import load
from compat_lib.data.alignment import TEMPLATE
from compat_lib.data.faces import celeba_lfw, ms1mv3, records

SIZES = [3, 2, 4, 3, 2, 5, 3, 2]


@pytest.fixture
def root(tmp_path):
    write_face_set(tmp_path / "ms1m-retinaface-t1", SIZES)
    return tmp_path


# -- MS1Mv3 --------------------------------------------------------------------------------------


def test_images_labels_and_order(root):
    images = records(root / "ms1m-retinaface-t1", root, 112)
    assert images.labels.tolist() == np.repeat(np.arange(8), SIZES).tolist()
    assert images.images.shape == (24, 3, 112, 112) and images.classes[7] == "7"
    pixels = images.images[torch.tensor([23, 0, 7])][:, :, 50, 50].tolist()
    for found, wanted in zip(pixels, ([145, 10, 99], [5, 0, 99], [45, 20, 99]), strict=True):
        assert np.abs(np.array(found) - wanted).max() < 4


def test_rows_come_from_the_cache_until_the_file_changes(root):
    place = root / "ms1m-retinaface-t1"
    before = records(place, root, 112)
    assert records(place, root, 112).digest() == before.digest()
    assert len(list((root / "cache").iterdir())) == 1
    write_face_set(place, [*SIZES, 2])
    after = records(place, root, 112)
    assert len(after) == 26 and after.digest() != before.digest()


def test_validation_and_test_identities_are_held_out(root):
    data = load("ms1mv3", root=root, size=112, test="identities", validation=2)
    parts = [set(part.classes) for part in (data.train, data.val, data.test)]
    assert [len(part) for part in parts] == [4, 2, 2] and len(set.union(*parts)) == 8
    assert len(data.train) + len(data.val) + len(data.test) == 24
    for part in (data.train, data.val, data.test):
        for row in range(len(part)):
            red = 20 * int(part.classes[part.labels[row]]) + 5
            assert abs(int(part.images[[row]][0, 0, 50, 50]) - red) < 4
    again = ms1mv3(root, test="identities", validation=2)
    assert again.val.classes == data.val.classes
    others = [ms1mv3(root, seed=seed, test="identities", validation=2).val.classes for seed in (1, 2, 3)]
    assert any(other != data.val.classes for other in others)


def test_a_set_tested_on_ijb(root):
    write_ijb(root / "IJBC")
    data = ms1mv3(root, size=(56, 56), validation=3)
    assert data.train.num_classes == 5 and data.val.num_classes == 3
    assert set(data.lists) == {"pairs", "gallery1", "gallery2", "probes"}
    assert data.test.images[torch.tensor([0])].shape == (1, 3, 56, 56)
    assert data.train.images[torch.tensor([0])].shape == (1, 3, 56, 56)
    write_ijb(root / "elsewhere", "ijbb")
    assert len(ms1mv3(root, test="ijbb", test_path=root / "elsewhere", validation=3).test) == 7
    whole = ms1mv3(root, validation=0)  # everything trains, and validation looks at it
    assert len(whole.train) == len(whole.val) == 24 and whole.train.num_classes == 8


def test_a_set_without_a_header_record_is_all_images(tmp_path):
    images = [image_record([float(n // 2), 0.0], jpeg((9, 9, 9)), n) for n in range(8)]
    write_records(tmp_path / "packed", images)
    assert records(tmp_path / "packed", tmp_path, 112).labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def header(images):
    return image_record([float(images + 1), float(images + 2)], b"")


@pytest.mark.parametrize(
    ("payloads", "told"),
    [
        ([header(1), image_record(0.5, b"x")], r"train\.rec, record 1 has the label 0\.5, which is no class"),
        ([header(1), image_record(-1.0, b"x")], r"record 1 has the label -1\.0"),
        ([header(2), image_record(0.0, b"x"), image_record(2.0, b"x")], r"3 classes, but class 1 has no im"),
        ([header(0), image_record(0.0, b"x")], r"tells of 0 images, its index names 0 of them"),
        ([header(17_091_657), image_record(0.0, b"x")], r"tells of 17091657 images"),  # as Glint360K's
    ],
)
def test_labels_that_cannot_be_are_told(tmp_path, payloads, told):
    write_records(tmp_path / "set", payloads)
    with pytest.raises(ValueError, match=told):
        records(tmp_path / "set", tmp_path, 112)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"test": "lfw"}, r"test is 'lfw'; choose one of ijbb, ijbc, identities"),
        ({"validation": 1}, r"validation must be at least 2 identities, or 0 for none; got 1"),
        ({"test": "identities", "validation": 0}, r"at least 2 identities to test on; got 0"),
        ({"test": "identities", "validation": 4}, r"validation takes 8 of 8 identities"),
        ({}, r"no folder .*IJBC: put meta/ijbc_face_tid_mid\.txt"),
        ({"path": "nowhere", "test": "identities"}, r"no file of records .*nowhere/train\.rec"),
    ],
)
def test_options_and_missing_files_are_told_in_a_sentence(root, options, told):
    with pytest.raises((ValueError, FileNotFoundError), match=told):
        ms1mv3(root, **options)


# -- CelebA and LFW ------------------------------------------------------------------------------


def write_celeba(root, people):
    """torchvision's layout, lists as CelebA prints them; return their checksums as torchvision has them."""
    place, names = root / "celeba", [f"{number:06d}.jpg" for number in range(1, len(people) + 1)]
    for number, name in enumerate(names):
        picture(place / "img_align_celeba" / name, 9 * number, (178, 218))
    points = " ".join(f"{value:3d}" for value in (TEMPLATE + (30, 50)).round().astype(int).flatten())
    corners = ("lefteye", "righteye", "nose", "leftmouth", "rightmouth")
    checksums = []
    for name, header, values in (
        ("identity_CelebA.txt", "", people),
        ("list_eval_partition.txt", "", [number % 3 for number in range(len(people))]),
        ("list_attr_celeba.txt", "Bald Young ", ["-1  1"] * len(people)),
        ("list_bbox_celeba.txt", "image_id x_1 y_1 width height", ["   95  71 226 313"] * len(people)),
        (
            "list_landmarks_align_celeba.txt",
            " ".join(f"{c}_x {c}_y" for c in corners),
            [points] * len(people),
        ),
    ):
        text = f"{len(people)}\n{header}\n" * bool(header)
        text += "".join(f"{image} {value}\n" for image, value in zip(names, values, strict=True))
        (place / name).write_text(text)
        checksums.append(("", hashlib.md5(text.encode()).hexdigest(), name))
    return checksums


def write_lfw(place, people):
    for who, count in people.items():
        for number in range(1, count + 1):
            picture(place / who / f"{who}_{number:04d}.jpg", 20 * number, (250, 250))
    (place / "pairs_01.txt").write_text("as the archive has it\n")


@pytest.fixture
def two_sets(tmp_path, monkeypatch):
    # torchvision's own check of the lists runs, on the checksums of the small ones.
    checksums = write_celeba(tmp_path, [2880, 17, 17, 2880, 5, 5, 5, 99, 99, 2880, 8, 8])
    monkeypatch.setattr(torchvision.datasets.CelebA, "file_list", checksums)
    write_lfw(tmp_path / "lfw-py" / "lfw_funneled", {"Ada_Byron": 2, "Bob_Solo": 1, "Eve_Doe": 3})
    return tmp_path


def test_celeba_to_lfw(two_sets):
    data = load("celeba-lfw", root=two_sets, size=112, validation=2)
    assert data.train.num_classes == 3 and data.val.num_classes == 2 and len(data.train) + len(data.val) == 12
    people = sorted([*data.train.classes, *data.val.classes])
    assert people == ["CelebA 17", "CelebA 2880", "CelebA 5", "CelebA 8", "CelebA 99"]
    assert data.test.classes == ("Ada_Byron", "Eve_Doe") and data.test.labels.tolist() == [0, 0, 1, 1, 1]
    assert data.test.images.shape == (5, 3, 112, 112)
    reds = data.test.images[torch.arange(5)][:, 0, 50, 50].int()
    assert (reds - torch.tensor([20, 40, 20, 40, 60])).abs().max() < 4
    assert data.train.images[torch.tensor([0])].shape == (1, 3, 112, 112)


def test_celeba_is_aligned_by_its_points(two_sets):
    pixels = np.zeros((218, 178, 3), np.uint8)
    x, y = (TEMPLATE[2] + (30, 50)).round().astype(int)  # the nose
    pixels[y - 3 : y + 4, x - 3 : x + 4] = 255
    path = two_sets / "celeba" / "img_align_celeba" / "000001.jpg"
    Image.fromarray(pixels).save(path, quality=95)
    data = celeba_lfw(two_sets, validation=2)
    images = torch.cat([part.images[:] for part in (data.train, data.val)])
    _, rows, columns = (images[:, 1] > 200).nonzero(as_tuple=True)  # of this one alone
    centre = torch.stack([columns.double().mean(), rows.double().mean()])
    assert (centre - torch.tensor(TEMPLATE[2])).abs().max() < 1


def test_what_is_missing_of_the_two_sets_is_told(two_sets, monkeypatch):
    with pytest.raises(ValueError, match="validation must be at least 2 identities; got 0"):
        celeba_lfw(two_sets, validation=0)
    (two_sets / "celeba" / "img_align_celeba" / "000003.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"name 000003\.jpg, which is not in"):
        celeba_lfw(two_sets, validation=2)
    (two_sets / "celeba" / "identity_CelebA.txt").write_text("000001.jpg 7\n")  # another checksum

    def no_network(self):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets.CelebA, "download", no_network)
    with pytest.raises(FileNotFoundError, match=r"CelebA is not there and could not be .*img_align_celeba/"):
        celeba_lfw(two_sets, validation=2)
    (two_sets / "lfw-py").rename(two_sets / "other")
    with pytest.raises(FileNotFoundError, match=r"LFW is not there, .*unpack lfw-funneled\.tgz to .*lfw_fun"):
        celeba_lfw(two_sets, validation=2)
