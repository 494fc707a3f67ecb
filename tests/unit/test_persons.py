"""Re-identification sets in the formats as they are distributed, damaged ones included."""

import shutil

import pytest
import torch
from image_folders import change_lines, picture

from compat_lib.data import load

# identity, camera: as in the names
MARKET = {
    "bounding_box_train": [(i, c) for i in (2, 7, 10, 11, 599, 600, 1500) for c in (1, 2, 6)] + [(-1, 3)],
    "query": [(1, 1), (1, 3), (5, 2)],
    "bounding_box_test": [(1, 1), (1, 2), (5, 4), (5, 2), (0, 1), (0, 2), (0, 5), (-1, 1), (-1, 4)],
}
MSMT17 = {  # list -> lines; the camera is the third field
    "train": [(i, c) for i in range(5) for c in (1, 15)],
    "val": [(i, c) for i in range(5) for c in (4, 5)],
    "query": [(0, 3), (1, 3)],
    "gallery": [(0, 3), (0, 12), (1, 1), (2, 1)],
}


def write_market(base, form="{identity}_c{camera}s1_{number:06d}_00.jpg"):
    for folder, rows in MARKET.items():
        for number, (identity, camera) in enumerate(rows):
            name = "-1" if identity < 0 else f"{identity:04d}"
            file = form.format(identity=name, camera=camera, number=number)
            picture(base / folder / file, identity, (64, 128))
        (base / folder / "Thumbs.db").write_text("as the archive has it")
    return base


def write_msmt17(base, folders=("train", "test")):
    for part, rows in MSMT17.items():
        lines = []
        for number, (identity, camera) in enumerate(rows):
            name = f"{identity:04d}/{identity:04d}_{number:03d}_{camera:02d}_0303morning_{part}_0.jpg"
            picture(base / folders[part in ("query", "gallery")] / name, identity)
            lines.append(f"{name} {identity}\n")
        (base / f"list_{part}.txt").write_text("".join(lines))
    return base


def test_market1501(tmp_path):
    write_market(tmp_path / "Market-1501-v15.09.15")
    data = load("market1501", root=tmp_path, size=(256, 128), validation=0)
    assert data.train.images.shape == (21, 3, 256, 128)
    assert data.train.classes == ("0002", "0007", "0010", "0011", "0599", "0600", "1500")
    assert data.train.extras["camera"].tolist() == [1, 2, 6] * 7 and "query" not in data.train.extras
    assert (data.train.images[[0]][0, 0].float().mean() - 2).abs() < 4  # JPEG, the identity's colour
    # Queries first, then the gallery without junk; the distractors are a class that no query has.
    test = data.test
    assert test.classes == ("0001", "0005", "distractor")
    assert test.extras["query"].tolist() == [True] * 3 + [False] * 7
    names = [test.classes[label] for label in test.labels]
    assert names[:3] == ["0001", "0001", "0005"]
    assert sorted(names[3:]) == ["0001"] * 2 + ["0005"] * 2 + ["distractor"] * 3
    assert test.extras["camera"].dtype == torch.int64
    assert test.extras["camera"].tolist() == [1, 3, 2, 1, 2, 5, 1, 2, 2, 4]  # by file name: 0000, 0001, 0005


def test_what_is_held_out_of_the_identities(tmp_path):
    base = write_market(tmp_path / "market")
    held = load("market1501", root=tmp_path, path=base, size=8)
    assert held.train.num_classes == 5 and held.val.num_classes == 2
    assert not set(held.train.classes) & set(held.val.classes) and len(held.val.extras["camera"]) == 6
    assert load("market1501", root=tmp_path, path=base, size=8, validation=0.5).val.num_classes == 4
    # As published: every identity trains; the looks see the same ones as before, which now train as well.
    whole = load("market1501", root=tmp_path, path=base, size=8, validation=0)
    assert whole.train.num_classes == 7 and whole.val.classes == held.val.classes
    with pytest.raises(ValueError, match="validation must be a share of at least 0 and below 1; got 1"):
        load("market1501", root=tmp_path, path=base, size=8, validation=1)


@pytest.mark.parametrize("folders", [("train", "test"), ("mask_train_v2", "mask_test_v2")])
def test_msmt17(tmp_path, folders):
    write_msmt17(tmp_path / ("MSMT17_V1" if folders[0] == "train" else "MSMT17_V2"), folders)
    data = load("msmt17", root=tmp_path, size=(16, 8))
    assert data.train.classes == data.val.classes == ("0000", "0001", "0002", "0003", "0004")
    assert data.train.extras["camera"].tolist() == [1, 15] * 5 and len(data.val) == 10
    assert data.test.classes == ("test-0000", "test-0001", "test-0002")
    assert data.test.labels.tolist() == [0, 1, 0, 0, 1, 2]
    assert data.test.extras["camera"].tolist() == [3, 3, 3, 12, 1, 1]
    every = load("msmt17", root=tmp_path, size=(16, 8), identities="all")
    assert every.train.num_classes == 8 and len(every.train) == 10 + 6  # test people are other people
    assert every.test.digest() == data.test.digest() and every.val.digest() == data.val.digest()
    assert every.train.images[:].shape == (16, 3, 16, 8)


def test_the_digest_is_of_the_list_and_the_sizes(tmp_path):
    first = load("msmt17", root=tmp_path, path=write_msmt17(tmp_path / "a"), size=8)
    moved = load("msmt17", root=tmp_path, path=write_msmt17(tmp_path / "b"), size=8)
    assert first.train.digest() == moved.train.digest()
    with (tmp_path / "b" / "train" / "0000" / "0000_000_01_0303morning_train_0.jpg").open("ab") as file:
        file.write(b"!")
    changed = load("msmt17", root=tmp_path, path=tmp_path / "b", size=8)
    assert changed.train.digest() != first.train.digest() and changed.test.digest() == first.test.digest()


def copied(base, folder, old, new):
    shutil.copy(next((base / folder).glob(old)), base / folder / new)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda b: copied(b, "query", "0001_*", "0001_s1_7.jpg"), r"0001_s1_7\.jpg does not begin with"),
        (
            lambda b: copied(b, "query", "0001_*", "0009_c1s1_7.jpg"),
            r"identity 0009 of the query .*0009_c1s1_7\.jpg",
        ),
        (
            lambda b: copied(b, "query", "0001_*", "0000_c1s1_7.jpg"),
            r"identity 0000 of the query .*0000_c1s1_7\.jpg",
        ),
        (lambda b: shutil.rmtree(b / "query"), "has no folder query"),
        (lambda b: [f.unlink() for f in (b / "query").glob("*.jpg")], "query has no images"),
    ],
)
def test_damaged_names(tmp_path, damage, words):
    damage(write_market(tmp_path / "market"))
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        load("market1501", root=tmp_path, path=tmp_path / "market", size=8)


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("train", lambda x: [*x[:2], "0000/0000_9_01_a_0_0.jpg 0"], "lists name train/0000/0000_9_01_a"),
        ("val", lambda x: [x[0], "0001/0001_3.jpg 1"], "line 2 of .* third field is no camera"),
        ("query", lambda x: [x[0], x[1][:-1] + "7"], "identity test-0007 of the query"),
    ],
)
def test_damaged_lists(tmp_path, part, change, words):
    base = write_msmt17(tmp_path / "msmt")
    change_lines(base / f"list_{part}.txt", change)
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        load("msmt17", root=tmp_path, path=base, size=8)
    shutil.rmtree(base / "train")
    with pytest.raises(FileNotFoundError, match="is not there with a folder train"):
        load("msmt17", root=tmp_path, path=base, size=8)
