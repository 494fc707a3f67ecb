import hashlib
import io
import pickle
import zipfile

import numpy as np
import pytest
import torch

from compat_lib.deploy.check.files import read_side
from compat_lib.deploy.check.sides import Side, UnusableInput, checked_side, match

FEATURES = np.arange(12, dtype=np.float32).reshape(6, 2) + 1
LABELS = np.array([4, 4, 7, 7, 9, 9])
NAMES = ["a", "a", "bü", "bü", "c", "c"]
HASHES = np.array([2**64 - 1, 2**64 - 2] * 3, np.uint64)


@pytest.fixture
def file(tmp_path):
    """A function that writes an npz file and returns its path."""

    def write(name="old.npz", **arrays):
        np.savez(tmp_path / name, **arrays)
        return tmp_path / name

    return write


def side(name="old", labels=LABELS, ids=None):
    return checked_side(name, np.ones((len(labels), 2)), labels, ids)


# -- one side ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels, expected",
    [
        ([4.0, 4.0, 7.0, 7.0, 9.0, 9.0], LABELS),
        (np.array([4, 4, 7, 7, 9, 9], np.uint8), LABELS),
        (np.array([4, 4, 7, 7, 9, 9], ">i4"), LABELS),
        (torch.tensor([4, 4, 7, 7, 9, 9]), LABELS),
        ([True, True, False, False, True, False], [1, 1, 0, 0, 1, 0]),
        (NAMES, NAMES),
        (np.char.encode(np.array(NAMES), "utf-8"), NAMES),
        (HASHES, HASHES),
        (np.array(NAMES, dtype=object), NAMES),  # as pandas gives them
    ],
)
def test_labels_are_whole_numbers_or_text(labels, expected):
    found = checked_side("old", FEATURES, labels).labels
    assert found.tolist() == np.asarray(expected).tolist() and found.dtype.kind in "iuU"


@pytest.mark.parametrize("features", [FEATURES.tolist(), torch.tensor(FEATURES), FEATURES.astype(">f8")])
def test_features_are_kept_as_they_are(features):
    assert np.array_equal(checked_side("new", features, LABELS).features, FEATURES)


@pytest.mark.parametrize(
    "features, labels, ids, message",
    [
        (FEATURES[0], LABELS, None, r"the old features have shape \(2,\)"),
        (FEATURES[:0], LABELS[:0], None, r"the old features have shape \(0, 2\)"),
        (FEATURES[:, :0], LABELS, None, r"the old features have shape \(6, 0\)"),
        (FEATURES > 3, LABELS, None, "the old features have type bool"),
        (torch.tensor(FEATURES) > 3, LABELS, None, "the old features have type bool"),
        (FEATURES * 1j, LABELS, None, "type complex64; give one row of real numbers"),
        (FEATURES.astype(str), LABELS, None, "type <U32; give one row of real numbers"),
        (FEATURES.astype(object), LABELS, None, "type object"),
        (torch.tensor(FEATURES).to_sparse(), LABELS, None, "the old features are a sparse tensor"),
        (FEATURES, np.array(["a", None] * 3, object), None, "the old labels have type object"),
        ([[1.0, 2.0], [3.0]], LABELS, None, "no table of numbers; .* all rows of one length"),
        (np.where(FEATURES == 5, np.nan, FEATURES), LABELS, None, "1 of the 6 rows of the old features"),
        (np.where(FEATURES > 9, np.inf, FEATURES), LABELS, None, "2 of the 6 rows of the old features"),
        (FEATURES, LABELS[:5], None, "there are 5 old labels for 6 old features"),
        (FEATURES, None, None, "no old labels were given"),
        (FEATURES, LABELS[:, None], None, r"the old labels have shape \[6, 1\].*flatten them with .ravel"),
        (FEATURES, np.ones((6, 2)), None, r"have shape \[6, 2\]; give one number or name for each row$"),
        (FEATURES, 3, None, r"the old labels have shape \[\]"),
        (FEATURES, LABELS + 0.25, None, "must be whole numbers or names, but row 0 holds 4.25"),
        (FEATURES, [0.0, 1.0, 2.0, np.nan, 1.0, 1.0], None, "row 3 holds nan"),
        (FEATURES, [0.0, 1e17, 2.0, 1.0, 1.0, 1.0], None, "row 1 holds 1e"),
        (FEATURES, [1, 2, None, 3, 4, 5], None, "the old labels have type object; give whole"),
        (FEATURES, LABELS * 1j, None, "the old labels have type complex128"),
        (FEATURES, np.array([b"\xff"] * 6), None, "bytes that are not UTF-8"),
        (FEATURES, LABELS, LABELS[:2], "there are 2 old ids for 6 old features"),
        (FEATURES, LABELS, [1, 2, 3, 2, 5, 2], "unique, but 2 occurs 3 times, first in rows 1 and 3"),
        (FEATURES, LABELS, list("abcdea"), "'a' occurs 2 times, first in rows 0 and 5"),
    ],
)  # fmt: skip
def test_a_wrong_side_gets_a_sentence(features, labels, ids, message):
    with pytest.raises(UnusableInput, match=message):
        checked_side("old", features, labels, ids)


# -- files ---------------------------------------------------------------------------------------


def test_a_file_is_read_with_its_record(file):
    path = file(features=FEATURES, labels=LABELS.astype(float), ids=list("abcdef"), comment="left alone")
    found = read_side(path, "old")
    assert np.array_equal(found.features, FEATURES) and found.labels.tolist() == LABELS.tolist()
    assert found.ids.tolist() == list("abcdef")
    data = path.read_bytes()
    assert (found.source.name, found.source.bytes) == ("old.npz", len(data))
    assert found.source.digest == hashlib.sha256(data).hexdigest()
    assert (found.source.rows, found.source.width) == (6, 2)


def test_compressed_fortran_ordered_and_large_headers_are_read(tmp_path):
    path = tmp_path / "old.npz"
    np.savez_compressed(path, features=np.asfortranarray(FEATURES), labels=LABELS)
    assert np.array_equal(read_side(path, "old").features, FEATURES)
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in (("features", FEATURES), ("labels", LABELS)):
            data = io.BytesIO()
            np.lib.format.write_array(data, array, version=(2, 0))
            archive.writestr(f"{name}.npy", data.getvalue())
    assert np.array_equal(read_side(str(path), "old").features, FEATURES)


def test_a_file_that_is_not_there_or_is_a_folder(tmp_path):
    with pytest.raises(UnusableInput, match=r"nowhere.npz: there is no such file; write it with numpy.savez"):
        read_side(tmp_path / "nowhere.npz", "old")
    with pytest.raises(UnusableInput, match="is not a file"):
        read_side(tmp_path, "old")
    with pytest.raises(UnusableInput):
        read_side(tmp_path / "a\0b", "old")


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_cut_file_is_refused(file, kept):
    path = file(features=np.ones((500, 8)), labels=np.arange(500) % 5)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(UnusableInput, match="old.npz is damaged, or not an npz archive"):
        read_side(path, "old")


def test_a_flipped_bit_is_noticed(file):
    path = file(features=np.ones((500, 8)), labels=np.arange(500) % 5)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UnusableInput, match="is damaged"):
        read_side(path, "old")


@pytest.mark.parametrize(
    "content", [b"", b"no archive at all", pickle.dumps([1, 2]), b"\x93NUMPY\x01\x00"], ids=range(4)
)
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "old.npz").write_bytes(content)
    with pytest.raises(UnusableInput, match="not an npz archive"):
        read_side(tmp_path / "old.npz", "old")
    np.save(tmp_path / "old.npy", FEATURES)
    with pytest.raises(UnusableInput, match="old.npy is damaged, or not an npz archive"):
        read_side(tmp_path / "old.npy", "old")


def test_a_header_that_promises_more_than_there_is(tmp_path):
    data = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (10**12, 128)}
    np.lib.format.write_array_header_1_0(data, header)
    with zipfile.ZipFile(tmp_path / "old.npz", "w") as archive:
        archive.writestr("features.npy", data.getvalue() + b"\0" * 100)
        archive.writestr("labels.npy", b"not an array")
    with pytest.raises(UnusableInput, match="is damaged"):
        read_side(tmp_path / "old.npz", "old")


def test_an_altered_file_is_refused_whatever_numpy_raises(file):
    # A file of one wrong bit is either refused or, where nothing of the arrays is wrong, read as it was.
    # The features are longer than what zipfile reads, and checks, at once.
    path = file(features=np.ones((200, 64)), labels=np.arange(200) // 2)
    sound, generator = path.read_bytes(), np.random.default_rng(0)
    for place in [*range(40, 180), *generator.integers(0, len(sound), 100)]:
        wrong = bytes([sound[place] ^ (1 << generator.integers(8))])
        path.write_bytes(sound[:place] + wrong + sound[place + 1 :])
        try:
            found = read_side(path, "old")
        except UnusableInput:
            continue
        assert np.array_equal(found.features, np.ones((200, 64))) and found.labels.tolist()[-1] == 99


class Trap:
    """An object that leaves a trace when it is unpickled."""

    def __init__(self, place):
        self.place = str(place)

    def __reduce__(self):
        return open, (self.place, "w")


@pytest.mark.parametrize("name", ["features", "labels", "ids"])
def test_pickled_objects_are_never_loaded(file, tmp_path, name):
    arrays = {"features": FEATURES, "labels": LABELS, "ids": np.arange(6)}
    arrays[name] = np.array([Trap(tmp_path / "trace")] * 6, dtype=object)
    with pytest.raises(UnusableInput, match=f"old.npz: '{name}' holds Python objects and is not read"):
        read_side(file(**arrays), "old")
    assert not (tmp_path / "trace").exists()


def test_an_object_array_that_nobody_asked_for_stays_closed(file, tmp_path):
    path = file(features=FEATURES, labels=LABELS, extra=np.array([Trap(tmp_path / "trace")], dtype=object))
    assert read_side(path, "old").ids is None and not (tmp_path / "trace").exists()


def test_missing_arrays_are_named(file):
    with pytest.raises(UnusableInput, match="no array 'features'; its arrays are: 'embeddings', 'labels'"):
        read_side(file(embeddings=FEATURES, labels=LABELS), "old")
    with pytest.raises(UnusableInput, match="holds no array 'labels'; its arrays are: 'features'"):
        read_side(file(features=FEATURES), "old")
    with pytest.raises(UnusableInput, match=r"old.npz: there are 5 new labels for 6 new features"):
        read_side(file(features=FEATURES, labels=LABELS[:5]), "new")


# -- both sides ----------------------------------------------------------------------------------


def test_without_ids_row_i_is_row_i():
    found = match(side(), side("new", LABELS.astype(float)))
    assert found.old_rows.tolist() == found.new_rows.tolist() == list(range(6))
    assert found.labels.tolist() == LABELS.tolist() and found.notes == ()


def test_ids_bring_both_into_the_old_order():
    old = side(ids=["f", "e", "d", "c", "b", "a"])
    new = side("new", np.array([9, 7, 7, 9, 1]), ids=["a", "c", "d", "b", "z"])
    found = match(old, new)
    assert found.old_rows.tolist() == [2, 3, 4, 5] and found.new_rows.tolist() == [2, 1, 3, 0]
    assert found.labels.tolist() == [7, 7, 9, 9]
    said = "2 images on the old side only and 1 on the new side only were left out; 4 are compared."
    assert found.notes == (said,)


def test_hashes_match_as_numbers_of_any_type():
    hashes = np.array([2**64 - 1, 2**63 + 1, 5, 2**53, 2**53 + 1, 7], np.uint64)
    small = np.array([5, 2**53 + 1, 2**53, 7], np.int64)
    found = match(side(ids=hashes), side("new", np.array([7, 9, 7, 9]), ids=small))
    assert found.old_rows.tolist() == [2, 3, 4, 5] and found.new_rows.tolist() == [0, 2, 1, 3]


@pytest.mark.parametrize(
    "old, new, message",
    [
        (side(), side("new", LABELS[:4]), "there are 6 old and 4 new rows and no ids"),
        (side(), side("new", LABELS[::-1]), r"4 rows, first at row 0 \(old: 4, new: 9\); without ids"),
        (side(), side("new", LABELS.astype(str)), "the old labels are numbers and the new labels names"),
        (side(ids=range(6)), side("new"), "only the old side has ids; add those of the new side"),
        (side(), side("new", ids=range(6)), "only the new side has ids; add those of the old side"),
        (side(ids=range(6)), side("new", ids=range(6, 12)), "only 0 of the 6 old ids stand on"),
        (side(ids=range(6)), side("new", LABELS[:4], ids=[0, 7, 8, 9]), "only 1 of the 4 new ids stand"),
        (side(ids=range(6)), side("new", ids=list("abcdef")), "old ids are numbers and the new ids names"),
        (
            side(ids=list("abcdef")),
            side("new", LABELS[::-1], ids=list("edfcba")),
            r"differ in 2 rows, first at id 'd' \(old: 7, new: 9\); an id names one image",
        ),
        (side(labels=np.ones(3, int)), side("new", np.ones(3, int)), "all 3 images are of one identity"),
        (side(labels=np.ones(1, int)), side("new", np.ones(1, int)), "the one image is of one identity"),
        (side(labels=np.arange(3)), side("new", np.arange(3)), "no identity has two images .3 images, 3 id"),
        (side(ids=range(6)), side("new", LABELS[:3], ids=[0, 1, 12]), "all 2 images are of one identity"),
    ],
)  # fmt: skip
def test_sides_that_do_not_belong_together(old, new, message):
    with pytest.raises(UnusableInput, match=message):
        match(old, new)


def test_a_side_shows_itself_in_a_line():
    assert repr(Side("old", FEATURES, LABELS)) == "Side(name='old', source=None)"
