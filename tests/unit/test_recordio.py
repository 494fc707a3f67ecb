import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from record_files import MAGIC, framed, image_record, jpeg, write_records

from compat_lib.data.decoding import UnreadableImages
from compat_lib.data.recordio import RecordFile, unpacked

RED, BLUE = jpeg((200, 0, 0)), jpeg((0, 0, 200))


@pytest.fixture
def file(tmp_path):
    return write_records(tmp_path, [image_record(7.0, RED), image_record([3.0, 1.0], BLUE)])


def damage(path, place, data):
    content = bytearray(path.read_bytes())
    content[place : place + len(data)] = data
    path.write_bytes(content)


def test_images_and_labels_come_from_their_records(file):
    records = pickle.loads(pickle.dumps(RecordFile(file)))  # as a worker gets it
    numbers, offsets = records.index
    assert numbers.tolist() == [0, 1]
    assert records.first_labels(offsets[::-1]).tolist() == [3.0, 7.0]
    assert unpacked(records.payload(offsets[1]))[0].tolist() == [3.0, 1.0]
    image = records(offsets[1])
    assert image.size == (112, 112) and image.mode == "RGB"
    assert np.abs(np.asarray(image)[50, 50].astype(int) - [0, 0, 200]).max() < 3


def test_a_record_that_holds_the_magic_number_is_joined_again(tmp_path):
    magic = struct.pack("<I", MAGIC)
    data = image_record(1.0, b"abcd" + magic + b"efgh" + magic + b"ij")
    assert framed(data).count(magic) == 3  # three parts: none of them holds the number
    records = RecordFile(write_records(tmp_path, [data, image_record(2.0, RED)]))
    assert records.payload(0) == data
    assert records.first_labels(records.index[1]).tolist() == [1.0, 2.0]


def test_headers_of_many_records_are_those_of_a_loop(tmp_path, monkeypatch):
    monkeypatch.setattr("compat_lib.data.recordio._BLOCK", 64)
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 100_000, 300).tolist()
    kinds = [([float(n), 5.0] if n % 3 else float(n), b"x" * int(n % 40)) for n in labels]
    path = write_records(tmp_path, [image_record(*kind) for kind in kinds])
    records, content = RecordFile(path), path.read_bytes()
    slow = []
    for offset in records.index[1].tolist():
        flag, label = struct.unpack_from("<If", content, offset + 8)
        slow.append(struct.unpack_from("<f", content, offset + 32)[0] if flag else label)
    assert records.first_labels(records.index[1]).tolist() == slow == labels
    if (maps := Path("/proc/self/smaps")).exists():  # a file of tens of gigabytes must not stay in memory
        mine = maps.read_text().partition(f"{path}\n")[2].partition("Rss:")[2].split()
        assert mine[:2] == ["0", "kB"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file of records .*train\.rec: unpack"):
        RecordFile(tmp_path / "train.rec")
    (tmp_path / "train.rec").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"no list .*train\.idx"):
        _ = RecordFile(tmp_path / "train.rec").index


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0\t0\n1\t99999999\n", r"line 2 of .*train\.idx has record 1 at byte 99999999"),
        ("0\t0\n1\t6\n", r"line 2 of .*train\.idx has record 1 at byte 6"),
        ("0\t-4\n", r"line 1 of .*train\.idx has record 0 at byte -4"),
        ("5\t0\n5\t8\n", r"train\.idx names record 5 twice"),
    ],
)
def test_a_damaged_index_is_told_by_line(file, text, told):
    index = file.with_suffix(".idx")
    index.write_text(text)
    with pytest.raises(ValueError, match=told):
        _ = RecordFile(file).index


@pytest.mark.parametrize("told", ["it is cut off at the end of the file", "it is damaged: no record begins"])
def test_a_cut_off_file_and_a_wrong_magic_number_are_told_by_record(file, told):
    records = RecordFile(file)
    offsets = records.index[1]
    if "cut off" in told:
        file.write_bytes(file.read_bytes()[:-30])
        records = RecordFile(file)
    else:
        damage(file, int(offsets[1]), b"\0\0\0\0")
    with pytest.raises(UnreadableImages, match=rf"train\.rec, record 1 \({told}"):
        records.payload(offsets[1])
    with pytest.raises(ValueError, match=r"train\.rec, record 1 is damaged, or the file is cut off in it"):
        records.first_labels(offsets)


def test_a_record_without_a_header_and_a_broken_image_are_told(tmp_path):
    two_labels = (2).to_bytes(4, "little") + bytes(20 + 4)  # and one of them is there
    records = RecordFile(write_records(tmp_path, [b"short", image_record(1.0, RED[:300]), two_labels]))
    for first in (0, 1):
        with pytest.raises(ValueError, match=rf"record {2 * first} is damaged"):
            records.first_labels(records.index[1][first:])
    with pytest.raises(UnreadableImages, match=r"train\.rec, record 1 \("):
        records(records.index[1][1])
