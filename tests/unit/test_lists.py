import csv

import numpy as np
import pytest

from compat_lib.data.lists import read_list

COLUMNS = {"name": str, "number": np.int64, "score": np.float32}


def write(path, text):
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_list_is_what_the_csv_module_reads(tmp_path):
    draw = np.random.default_rng(0)
    rows = [f"{n}.jpg {draw.integers(-9, 2**60)} {draw.normal():.6f}\n" for n in range(50)]
    path = write(tmp_path / "list.txt", 'NA 7 0.5\n"b 8 0.5\n' + "".join(rows))
    frame = read_list(path, COLUMNS)
    with open(path, newline="") as file:
        read = csv.reader(file, delimiter=" ", quoting=csv.QUOTE_NONE)
        slow = [(name, int(number), np.float32(score)) for name, number, score in read]
    assert list(frame.itertuples(index=False, name=None)) == slow  # a file called NA stays one
    assert frame.dtypes["number"] == np.int64 and frame.dtypes["score"] == np.float32


@pytest.mark.parametrize("text", ["a 1 0.5 \nb 2 1 \n", "a 1 0.5\r\nb 2 1\r\n", "a\t1\t0.5\nb\t2\t1"])
def test_blanks_tabs_and_ends_of_lines_part_fields_as_python_splits_them(tmp_path, text):
    rows = read_list(write(tmp_path / "list.txt", text), COLUMNS).to_numpy().tolist()
    assert rows == [["a", 1, 0.5], ["b", 2, 1.0]]


def test_of_a_list_with_a_header_the_first_columns_count(tmp_path):
    path = write(tmp_path / "list.csv", "TEMPLATE_ID,SUBJECT_ID,FILENAME\r\n4,9,a b.jpg\r\n5,8,\r\n")
    frame = read_list(path, {"template": np.int64, "subject": np.int64}, header=True)
    assert frame.to_numpy().tolist() == [[4, 9], [5, 8]] and list(frame) == ["template", "subject"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a 1 0.5\nb 2\n", r"line 2 of .*list\.txt is 'b 2', but each line has 3: name, number, score"),
        ("a 1 0.5 x\n", r"line 1 of .*list\.txt is 'a 1 0\.5 x'"),
        ("a 1 0.5\nb 2 0.5 x\n", r"line 2 of .*list\.txt is 'b 2 0\.5 x'"),
        ("a 1 0.5\nb 1.5 0.5\n", r"line 2 of .*list\.txt is 'b 1\.5 0\.5'"),
        ("a 1 0.5\nb 99999999999999999999 0.5\n", r"line 2 of .*list\.txt is 'b 9{20} 0\.5'"),
        ("a 1 high\n", r"line 1 of .*list\.txt is 'a 1 high'"),
        ("a 1 2\nb 2 inf\n", r"line 2 of .*list\.txt is 'b 2 inf'"),
        ("", r"list\.txt is empty; each line has 3"),
        (b"\xff\xfe 1 0.5\n", r"list\.txt"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_named(tmp_path, text, told):
    with pytest.raises(ValueError, match=told):
        read_list(write(tmp_path / "list.txt", text), COLUMNS)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ID,SUBJECT\n4,9\n5\n", r"line 3 of .*list\.csv is '5', but each line begins with 2"),
        ("ID,SUBJECT\n", r"list\.csv is empty"),
        ("4,9\n5,8\n", r"line 1 of .*list\.csv is '4,9', .* below a line of names"),
        (None, r"there is no list .*list\.csv"),
    ],
)
def test_a_wrong_line_below_a_header_and_a_missing_list_are_named(tmp_path, text, told):
    path = tmp_path / "list.csv"
    if text is not None:
        write(path, text)
    with pytest.raises((ValueError, FileNotFoundError), match=told):
        read_list(path, {"template": np.int64, "subject": np.int64}, header=True)
