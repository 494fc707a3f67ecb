"""Files of features in every format that people have, and the sentence for each kind of bad file."""

import functools
import io
import json
import unicodedata
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from image_folders import paint
from pyarrow import dataset, ipc, parquet

from compat_lib.config import ExperimentConfig
from compat_lib.deploy.feature_files import as_keys, read_features
from compat_lib.experiment import Experiment
from compat_lib.files import save_tensors

FEATURES = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -3.0], [4.0, 8.0, 16.0], [0.125, 0.0, 1.0]], np.float32)
IDS = ["anna/2.png", "bert/1.png", "anna/1.png", "bert/2.png"]
LABELS = ["anna", "bert", "anna", "bert"]


FRAME = pd.DataFrame({"path": IDS, "label": LABELS} | {f"f{i}": FEATURES[:, i] for i in range(3)})
TABLE = pa.Table.from_pandas(FRAME)


def arrow(file, **columns):
    parquet.write_table(pa.table(columns), file)
    return read_features(file)


def stream(path):
    with ipc.new_stream(path, TABLE.schema) as file:
        file.write_table(TABLE)


WRITERS = {
    "npz": lambda path: np.savez(path, features=FEATURES.astype("f8"), ids=IDS, labels=LABELS),
    "npy": lambda path: np.save(path, FEATURES),
    "csv": lambda path: FRAME.to_csv(path, index=False),
    "tsv": lambda path: FRAME.to_csv(path, index=False, sep="\t"),
    "parquet": FRAME.to_parquet,
    "parts": lambda path: dataset.write_dataset(
        TABLE, path, format="parquet", max_rows_per_file=3, max_rows_per_group=3
    ),
    "feather": FRAME.to_feather,
    "arrow": stream,
    "safetensors": lambda path: save_tensors({"features": torch.tensor(FEATURES).bfloat16()}, path),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_same(tmp_path, kind):
    WRITERS[kind](path := tmp_path / f"old.{kind}")
    beside = {}
    if kind in ("npy", "safetensors"):
        beside = {"ids": tmp_path / "ids.txt", "labels": tmp_path / "labels.npy"}
        beside["ids"].write_text("\n".join(IDS) + "\n")
        np.save(beside["labels"], LABELS)
    table = read_features(path, **beside)
    assert table.features.dtype == np.float32 and np.array_equal(table.features, FEATURES)
    assert table.ids.tolist() == IDS and table.labels.tolist() == LABELS and table.path == path
    assert table.notes == (("2 parts, in the order of their names",) if kind == "parts" else ())
    assert str(table).startswith("4 rows of width 3; ids; labels")


# -- text ----------------------------------------------------------------------------------------


def csv_of(folder, text, **options):
    path = folder / "old.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_features(path, **options)


X = np.random.default_rng(0).standard_normal((7, 8)).astype(np.float32)
NAMES = [f"a/{i}.png" for i in range(7)]
NAMED = pd.DataFrame(X, columns=[f"f{i}" for i in range(8)]).assign(id=NAMES)


def savetxt(**options):
    np.savetxt(text := io.StringIO(), X, **options)
    return text.getvalue()


GOOD_TEXT = {
    "commas": NAMED.to_csv(index=False),
    "bars": NAMED.to_csv(index=False, sep="|"),
    "decimal comma": NAMED.to_csv(index=False, sep=";", decimal=","),
    "a comma in one header": NAMED.assign(**{"note, free": 1}).to_csv(index=False, sep=";"),
    "a tab in one header": NAMED.assign(**{"note\tfree": True}).to_csv(index=False),
    "Excel's sep= line": "\ufeffsep=;\n" + NAMED.to_csv(index=False, sep=";"),
    "mark of byte order, lines of Windows": "\ufeff" + NAMED.to_csv(index=False, lineterminator="\r\n"),
    "empty lines": NAMED.to_csv(index=False, lineterminator="\n\n"),
    "lists": pd.DataFrame({"id": NAMES, "embedding": [str(x) for x in X.tolist()]}).to_csv(index=False),
    "bare lists": NAMED.assign(v=[" ".join(map(str, x.tolist())) for x in X])[["id", "v"]].to_csv(),
    "NumPy's lists": pd.DataFrame({"id": NAMES, "v": [str(x.astype("f8")) for x in X]}).to_csv(index=False),
    "spaces and signs": NAMED.map(lambda x: f" {x:+.9g} " if isinstance(x, float) else x).to_csv(index=False),
    "three digits": NAMED.map(lambda x: f"{x:.3f}" if isinstance(x, float) else x).to_csv(index=False),
    "numbered names": pd.DataFrame(X).assign(id=NAMES).to_csv(index=False),
}
for mark in " ,;":  # the header becomes "# f0 ..."
    names = mark.join(f"f{i}" for i in range(8))
    GOOD_TEXT[f"savetxt{mark}"] = savetxt(fmt="%.9g", delimiter=mark, header=names)


@pytest.mark.parametrize("case", GOOD_TEXT)
def test_texts_that_people_have(tmp_path, case):
    table = csv_of(tmp_path, GOOD_TEXT[case])
    assert case.startswith("savetxt") or table.ids.tolist() == NAMES
    tolerance = {"NumPy's lists": 1e-7, "three digits": 5.1e-4}.get(case, 0)  # NumPy prints eight digits
    np.testing.assert_allclose(table.features, X, rtol=0, atol=tolerance)
    assert any("taken for names" in note for note in table.notes) == (case == "numbered names")


def test_a_list_in_a_cell_may_be_long(tmp_path):
    long = np.random.default_rng(0).standard_normal((2, 16_384)).astype(np.float32)
    table = csv_of(tmp_path, pd.DataFrame({"id": ["a", "b"], "v": [str(x) for x in long.tolist()]}).to_csv())
    assert np.array_equal(table.features, long)


OTHER = {"ids": "key", "labels": "who", "features": "y"}
NO_LABEL = "1 of 2 rows have no label"
COLUMNS = [  # text, options, features, ids, labels, notes
    (
        ",f10,f9,id,age,f11\n0,10,9,a/1.png,31,11\n1,100,90,a/2.png,32,110\n",
        ([[9, 10, 11], [90, 100, 110]], ["a/1.png", "a/2.png"], None),
        ("not read: a column without a name, age",),
    ),
    ("key,who,x0,x1,y0,y1\nk1,anna,1,2,3,4\n", ([[3, 4]], ["k1"], ["anna"]), ("not read: x0, x1",)),
    ('path;f0;f1\n"a;b";1;2\n"c/""2""\n.p";3;4\n', ([[1, 2], [3, 4]], ["a;b", 'c/"2"\n.p'], None), ()),
    (
        "photo,0,1,2,3\na/1.png,5,6,7,8\n",
        ([[5, 6, 7, 8]], None, None),
        ("the first line was taken for names, photo, 0, 1, 2, ...", "not read: photo"),
    ),
    # whole numbers are numbers, all else is text
    ("id,label,f0,f1\n007,12.0,1,2\n1_000,-1,3,4\n", ([[1, 2], [3, 4]], ["007", "1_000"], [12, -1]), ()),
    ("id,label,f0,f1\n7,12.0,1,2\n8,,3,4\n", ([[1, 2], [3, 4]], [7, 8], ["12", ""]), (NO_LABEL,)),
]


@pytest.mark.parametrize(("text", "expected", "notes"), COLUMNS)
def test_columns_are_found_by_their_names(tmp_path, text, expected, notes):
    table = csv_of(tmp_path, text, columns=OTHER if text.startswith("key") else None)
    keys = [None if one is None else one.tolist() for one in (table.ids, table.labels)]
    assert (table.features.tolist(), *keys) == expected and table.notes == notes


BAD_TEXT = [
    ("", "it is empty"),
    ("path,f0,f1\nmüller,1,2\n".encode("latin-1"), "it is not text in UTF-8"),
    ("path,f0,f1\n", "there are columns, but no row"),
    ("path,age\na,1\n", "no column of features in path, age"),
    ("path,f0,f2\na,1,2\n", "f0 is followed by f2"),
    ("path,f1,f01\na,1,2\n", "f01 is followed by f1"),
    ("path,f0,f1,g0,g1\na,1,2,3,4\n", "numbered columns begin with 'f' and with 'g'"),
    ("path,f0,f0\na,1,2\n", "two columns are called 'f0'"),
    ("path,id,f0,f1\na,b,1,2\n", "the ids could be 'path' or 'id'"),
    ("path,f0,f1\na,1,2\nb,1,2,3\n", "Row #3: Expected 3 columns, got 4"),
    ("path,f0,f1\na,1,2\nb,1_000,2\n", "column 'f0': Row #3: .*'1_000'"),
    ("path,f0,f1\na,,2\n", "column 'f0' has 1 empty cells, first in row 0"),
    ("sep=,\npath,f0,f1\na,nan,2\n", "1 values that are not finite, first in row 0"),
    ("path,f0,f1\na,1e300,2\n", "1 values that are not finite, first in row 0"),  # infinite as float32
    ('path,f0,f1\na,"0,5",2\n', "column 'f0': Row #2: .*'0,5'.* one decimal sign"),
    ("path;f0;f1\na;0,5;2\nb;0.5;2\n", "column 'f0': .* one decimal sign"),
    ("path,f0,f1\na,1,2\n,1,2\n", "the ids must be .* but row 1 holds ''"),
    ('path,f0,f1\n"a,1,2\n', "look for a lone one"),
    ('id,label,emb\na,b,"[1, 2', "look for a lone one"),
    (NAMED[["id", "f0", "f1"]].to_csv(index=False, header=False), "looks like a row"),
    ("a/1.png,12,10,11\na/2.png,5,6,7\n", "looks like a row"),
    ("a/1.png,0,1,2\na/2.png,5,6,7\n", "looks like a row"),
    ("12,10\n5,6\n", "looks like a row"),
    ('a/1.png,anna,"[1, 2]"\na/2.png,bert,"[3, 4]"\n', "looks like a row"),
    (savetxt(fmt="%g"), "looks like a row"),
    (savetxt(delimiter="  "), "looks like a row"),
    ('id,emb\na,"[1 2 ... 9]"\nb,"[1 2 ... 7]"\n', r"'emb' holds '\[1 2 \.\.\. 9\]' in row 0"),
    ('id,emb\na,\nb,"[1, 2]"\n', "'emb' holds '' in row 0"),
    ('id,emb\na,"[1, 2]"\nb,[3]\nc,"[4, 5]"\n', "'emb' holds 1 numbers in row 1, and 2"),
    ('id,f0,f1,bbox\na,1,2,"[3, 4]"\n', "the features could be 'bbox' or 'f'; say which"),
    ("id,f0,f1,size\na,1,2,640 480\n", "the features could be 'size' or 'f'; say which"),
    ("id;f0;f1\n" + "a;1.234;987\nb;-12.345;1.000\n" * 5, r"numbers such as 1\.234 .* marked thousands"),
    ("id;f0;f1\n" + "a;1,234;987\nb;-12,345;1,000\n" * 5, "numbers such as 1,234 .* marked thousands"),
]


@pytest.mark.parametrize(("text", "message"), BAD_TEXT)
def test_bad_texts(tmp_path, text, message):
    with pytest.raises(ValueError, match=r"old\.csv: .*" + message):
        csv_of(tmp_path, text)


def test_a_fault_far_down_is_found_with_its_row(tmp_path):
    lines = [f'"a/{row}\n.png",{row},{row / 2}' for row in range(100_000)]
    lines[77_777] = "a/7.png,7,x"
    with pytest.raises(ValueError, match="column 'f1': Row #77779: .*'x'"):
        csv_of(tmp_path, "\n".join(["path,f0,f1", *lines]))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"ids": "photo"}, "no column of ids 'photo' in path, f0, f1"),
        ({"features": "emb"}, "no column of features 'emb'"),
        ({"labels": "who"}, r"no column of labels 'who'"),
        ({"id": "path"}, "columns may name features, ids, labels, not 'id'"),
    ],
)
def test_a_column_that_was_named_and_is_not_there(tmp_path, columns, message):
    with pytest.raises(ValueError, match=message):
        csv_of(tmp_path, "path,f0,f1\na,1,2\n", columns=columns)


def test_a_column_that_was_asked_for_has_no_other_role(tmp_path):
    text = "id,path,f0,f1\n7,a.png,1,2\n7,b.png,3,4\n"
    table = csv_of(tmp_path, text, columns={"labels": "id"})
    assert table.labels.tolist() == [7, 7] and table.ids.tolist() == ["a.png", "b.png"]


# -- Arrow ---------------------------------------------------------------------------------------


GOOD_ARROW = {
    "lists": pa.array(FEATURES.tolist(), pa.list_(pa.float32())),
    "lists of a fixed size": pa.array(FEATURES.tolist(), pa.list_(pa.float64(), 3)),
    "views of lists": pa.array(FEATURES.tolist(), pa.list_view(pa.float32())),
    "tensors": pa.FixedShapeTensorArray.from_numpy_ndarray(FEATURES),
    "text": pa.array([str(row) for row in FEATURES.tolist()]),
}


@pytest.mark.parametrize("case", GOOD_ARROW)
def test_vectors_in_cells(tmp_path, case):
    path, columns = tmp_path / "old.parquet", {"uuid": [7, 8, 9, 10], "emb": GOOD_ARROW[case]}
    write = functools.partial(arrow, path, **columns, bbox=[[1.0, 2.0]] * 4)
    if case == "text":  # which is looked into where it is named
        with pytest.raises(ValueError, match="the features could be 'bbox' or 'emb'"):
            write()
    table = read_features(path, columns={"features": "emb"}) if case == "text" else write()
    assert np.array_equal(table.features, FEATURES) and table.ids.tolist() == [7, 8, 9, 10]
    assert table.notes == ("not read: bbox",)


BAD_ARROW = [
    ({"f0": [1.0, 2.0], "f1": ["1", "2"]}, "column 'f1' holds .*string, not numbers"),
    ({"f0": [1.0, None], "f1": [1.0, 2.0]}, "column 'f0' has 1 empty cells, first in row 1"),
    ({"emb": [[1.0, 2.0], [None, 1.0]]}, "column 'emb' has 1 empty cells, first in row 1"),
    ({"emb": [[1.0, 2.0], None, [3.0, 4.0]]}, "'emb' holds no numbers in row 1, and 2"),
    ({"emb": [[1.0, 2.0], [1.0], [3.0, 4.0]]}, "column 'emb' holds 1 numbers in row 1, and 2"),
    ({"bbox": [[1, 2]], "f0": [1.0], "f1": [1.0]}, "the features could be 'bbox' or 'f'; say which"),
    ({"emb": [b"\0\0\0\0"]}, "column 'emb' holds bytes"),
]


@pytest.mark.parametrize(("columns", "message"), BAD_ARROW)
def test_bad_parquet_files(tmp_path, columns, message):
    with pytest.raises(ValueError, match=r"old\.parquet: .*" + message):
        arrow(tmp_path / "old.parquet", **columns)


@pytest.mark.parametrize("kind", ["parquet", "feather", "arrow", "npz", "npy", "safetensors", "huge.npy"])
def test_what_is_no_such_file(tmp_path, kind):
    path = tmp_path / f"old.{kind}"
    path.write_bytes(b"hello, here are no numbers")
    if kind == "huge.npy":  # a header that promises more than the memory
        with path.open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (10**12, 4096)}
            np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(ValueError, match=rf"old\.{kind} cannot be read .*; is it whole"):
        read_features(path)


def test_ids_may_be_uuids(tmp_path):
    names = [UUID(int=n) for n in range(4)]
    ids = pa.array([name.bytes for name in names], pa.uuid())
    found = arrow(tmp_path / "old.parquet", id=ids, emb=FEATURES.tolist()).ids
    assert found.tolist() == [str(name) for name in names]


@pytest.mark.parametrize("relative", [False, True])
def test_parts_of_a_partitioned_table(tmp_path, monkeypatch, relative):
    monkeypatch.chdir(tmp_path)
    folder = (Path() if relative else tmp_path) / "id=7"  # this name says nothing of the rows
    for label in ("anna", "bert"):
        (folder / f"label={label}").mkdir(parents=True)
        table = pa.table({"id": [f"{label}/1.png"], "emb": [[1.0, 2.0]]})
        parquet.write_table(table, folder / f"label={label}" / "0.parquet")
    table = read_features(folder)
    assert table.labels.tolist() == ["anna", "bert"] and table.ids.tolist() == ["anna/1.png", "bert/1.png"]
    table = read_features(folder / "label=anna" / "0.parquet")
    assert table.labels is None and table.ids.tolist() == ["anna/1.png"]
    parquet.write_table(pa.table({"id": ["x"], "emb": [[1.0, 2.0]], "who": ["x"]}), folder / "who.parquet")
    with pytest.raises(ValueError, match=r"its part who\.parquet and the first one differ in .*who"):
        read_features(folder)


@pytest.mark.parametrize("image", [{"bytes": b"\x89PNG", "path": None}, b"\x89PNG"])
def test_encoded_images_are_no_names(tmp_path, image):
    """As data sets of Hugging Face hold them, beside features."""
    table = arrow(tmp_path / "x.parquet", image=[image] * 2, label=[3, 4], embedding=[[1.0, 2.0], [3.0, 4.0]])
    assert table.ids is None and table.labels.tolist() == [3, 4] and table.notes == ("not read: image",)


def test_parts_that_are_counted_without_zeros_need_ids(tmp_path):
    """By name part-10 stands before part-2, and whoever wrote them counted."""

    def write(form, *left_out):
        for number in range(12):
            one = TABLE.slice(number % 4, 1).drop_columns(list(left_out))
            parquet.write_table(one, tmp_path / form.format(number))
        return read_features(tmp_path)

    assert write("part-{}.parquet").ids.tolist() == [IDS[n % 4] for n in (0, 1, 10, 11, *range(2, 10))]
    with pytest.raises(ValueError, match="its 12 parts have no ids, and by name they stand in another order"):
        write("part-{}.parquet", "path")
    for part in tmp_path.iterdir():
        part.unlink()
    assert write("part-{:02}.parquet", "path").labels.tolist() == [LABELS[n % 4] for n in range(12)]


@pytest.mark.parametrize(
    ("parts", "expected"),  # folder, and the labels in the file
    [
        ([("label=007", None), ("label=7", None)], ["007", "7"]),  # folders are text: two classes
        ([("label=12", None), ("label=7", None)], [12, 7]),
        ([("label=12", None), ("label=__HIVE_DEFAULT_PARTITION__", None)], ["12", ""]),
        ([("label=12", [12]), ("label=7", [7])], [12, 7]),
        ([("a", [7]), ("b", ["007"])], "'label' is int64 in some parts and string in others"),
        ([("a", ["007"]), ("b", [7])], "'label' is int64 in some parts and string in others"),
        ([("a", [7]), ("b", [8.0])], [7, 8]),
        ([("a", ["x"]), ("b", pa.array(["y"], pa.large_string()))], ["x", "y"]),
    ],
)
def test_labels_of_parts_keep_their_type(tmp_path, parts, expected):
    for folder, labels in parts:
        (tmp_path / folder).mkdir()
        columns = {"emb": [[1.0, 2.0]]} | ({} if labels is None else {"label": labels})
        parquet.write_table(pa.table(columns), tmp_path / folder / "0.parquet")
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            read_features(tmp_path)
    else:
        assert read_features(tmp_path).labels.tolist() == expected


# -- arrays --------------------------------------------------------------------------------------


def test_npz_with_other_names_and_numbers_for_labels(tmp_path):
    path = tmp_path / "old.npz"
    np.savez(path, arr_0=FEATURES, arr_1=np.zeros(4), arr_2=np.zeros(4))
    assert np.array_equal(read_features(path).features, FEATURES)
    np.savez(path, x=FEATURES, who=np.array([3.0, 5.0, 3.0, 5.0]), ids=np.array(IDS), more=np.eye(2))
    table = read_features(path, columns={"features": "x", "labels": "who"})
    assert table.labels.tolist() == [3, 5, 3, 5] and table.notes == ("not read: more",)


BAD_NPZ = [
    ({"x": FEATURES[0]}, "no column of features in x"),
    (
        {"arr_0": FEATURES, "arr_1": FEATURES},
        "the features could be 'arr_0' or 'arr_1'; say which, with columns=",
    ),
    ({"features": np.array([{"a": 1}], dtype=object)}, "cannot be read .*allow_pickle.* save names as text"),
    ({"features": FEATURES, "ids": IDS[:3]}, "there are 3 ids for 4 rows"),
    ({"features": np.array([["a"]])}, "features must be real numbers, not <U1"),
]


@pytest.mark.parametrize(("arrays", "message"), BAD_NPZ)
def test_bad_npz_files(tmp_path, arrays, message):
    np.savez(tmp_path / "old.npz", **arrays)
    with pytest.raises(ValueError, match=rf"old\.npz.* {message}"):
        read_features(tmp_path / "old.npz")


def test_bad_npy_files(tmp_path):
    path, ids = tmp_path / "old.npy", tmp_path / "ids.txt"
    np.save(path, np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match=r"old\.npy cannot be read .*allow_pickle"):
        read_features(path)
    np.save(path, FEATURES)
    ids.write_text("a\n\nb\nc\n")
    with pytest.raises(ValueError, match=r"ids\.txt: line 2 is empty"):
        read_features(path, ids=ids)
    with path.open("ab") as file:
        np.save(file, FEATURES)
    with pytest.raises(ValueError, match=r"old\.npy: more follows the first array, as after two numpy\.save"):
        read_features(path)


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.uint16])
def test_unsigned_numbers_get_a_note_and_signed_ones_do_not(tmp_path, kind):
    """Of 16 bits they may be the bits of half numbers, whose cosines are all near 1."""
    rows = FEATURES.astype(np.int8).astype(kind)
    np.savez(tmp_path / "old.npz", features=rows)
    cells = pa.array(rows.tolist(), pa.list_(pa.from_numpy_dtype(kind)))
    for table in (read_features(tmp_path / "old.npz"), arrow(tmp_path / "old.parquet", emb=cells)):
        said = [note for note in table.notes if note.startswith("the features are unsigned numbers")]
        assert len(said) == len(table.notes) == (kind != np.int8)
        assert all(words in one for one in said for words in ("zero point", "packed bits", "view 16 bits"))


def test_files_that_are_not_there_or_of_another_kind(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file .*old\.csv"):
        read_features(tmp_path / "old.csv")
    with pytest.raises(ValueError, match="columns is 'emb'; give a mapping"):
        read_features(tmp_path / "old.csv", columns="emb")
    (tmp_path / "old.pkl").touch()
    with pytest.raises(ValueError, match=r"old\.pkl: features are read from \.npz, \.npy, \.csv, \.tsv"):
        read_features(tmp_path / "old.pkl")
    with pytest.raises(ValueError, match="it is a folder without a .parquet file"):
        read_features(tmp_path)


# -- ids and labels ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["a", "b"], ["a", "b"]),
        (torch.tensor([3, 1]), [3, 1]),
        (np.array([3.0, 1.0]), [3, 1]),
        (np.array([2**63 + 1], np.uint64), [2**63 + 1]),
        (np.array([b"m\xc3\xbc", b"x"]), ["mü", "x"]),
        ([Path("a/1.png"), UUID(int=1)], ["a/1.png", "00000000-0000-0000-0000-000000000001"]),
        ([Decimal(2**60 + 1), Decimal("3.0")], [2**60 + 1, 3]),
        (np.ma.array([3, 1]), [3, 1]),
        (["1e5", "2E5"], ["1e5", "2E5"]),
        (np.array(["a", 7], dtype=object), ["a", "7"]),
        ([unicodedata.normalize("NFD", "Zoë/1.png")], ["Zoë/1.png"]),
    ],
)
def test_keys(value, expected):
    assert as_keys("ids", value).tolist() == expected


@pytest.mark.parametrize(
    ("values", "advice"),
    [(one, "give every row one") for one in ([None], [pd.NA], [float("nan")], np.ma.array([1], mask=[True]))]
    + [([one], "write it as text") for one in (0.5, 2.0**60, b"\xff", pd.Timestamp("2026"))]
    + [(np.array(one), "write it as text") for one in ([True], [1 + 0j])]
    + [(np.array(["2026"], "M8[ns]").astype(kind), "write it as text") for kind in ("M8[ns]", "M8[D]")]
    + [(np.array([np.datetime64("2026", "ns"), ""], object)[:1], "write it as text")]
    + [(np.array([[1, 2], None], object), "write it as text")],
)
def test_what_is_no_key(values, advice):
    with pytest.raises(
        ValueError, match=f"the ids must be whole numbers or names, but row 0 holds .*{advice}"
    ):
        as_keys("ids", values)
    with pytest.raises(ValueError, match="give one for each row"):
        as_keys("ids", [values])


@pytest.mark.parametrize("rounded", ["1.15292E+18", "1.152921504606847e+18", "1,15E+18"])  # Excel, pandas
def test_long_numbers_that_were_rounded_are_refused(tmp_path, rounded):
    with pytest.raises(ValueError, match=r"the labels hold '1.*' in row 1, a long number that was rounded"):
        csv_of(tmp_path, f"id;label;f0;f1\na;1;2;3\nb;{rounded};2;3\n")


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_labels_in_a_table_of_their_own_are_joined_by_ids(tmp_path, suffix):
    np.savez(tmp_path / "old.npz", features=FEATURES, ids=np.array(IDS))
    order, path = [2, 0, 3], tmp_path / f"labels.{suffix}"
    table = pd.DataFrame({"filename": IDS, "split": "test", "Label": LABELS}).iloc[order]
    if suffix == "parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    found = read_features(tmp_path / "old.npz", labels=path)
    assert found.labels.tolist() == ["anna", "", "anna", "bert"]
    assert "1 of 4 rows have no label" in found.notes
    if suffix == "parquet":  # with the ids as pandas' index
        table.set_index("filename").to_parquet(path)
        assert read_features(tmp_path / "old.npz", labels=path).labels.tolist() == found.labels.tolist()
    path = tmp_path / "twice.csv"
    path.write_text("id,label\na,1\na,2\n")
    with pytest.raises(ValueError, match="the id 'a' stands there twice"):
        read_features(tmp_path / "old.npz", labels=path)
    path.write_text("id;label\n" + "".join(f"{one};{n}.0\n" for n, one in enumerate(IDS)))
    assert read_features(tmp_path / "old.npz", labels=path).labels.tolist() == ["0", "1", "2", "3"]
    path.write_text("id,label\nx,1\n")
    with pytest.raises(ValueError, match=r"none of its ids \('x', ...\) is one of .* \('anna/2.png'"):
        read_features(tmp_path / "old.npz", labels=path)
    for text in ("anna\nbert\n", "id,label,label\nanna/1.png,anna,bert\n"):
        path.write_text(text)
        with pytest.raises(ValueError, match="one column of ids and one of labels"):
            read_features(tmp_path / "old.npz", labels=path)


def test_a_column_of_groups_is_read_where_there_is_one(tmp_path):
    path = tmp_path / "old.csv"
    FRAME.assign(camera=[1, 2, 1, None]).to_csv(path, index=False)
    assert read_features(path, group="camera").groups.tolist() == ["1.0", "2.0", "1.0", ""]
    assert read_features(path, group="other").groups is None
    np.savez(tmp_path / "old.npz", features=FEATURES, camera=np.array([1, 2, 1, 2]))
    assert read_features(tmp_path / "old.npz", group="camera").groups.tolist() == [1, 2, 1, 2]
    day = pd.Timestamp("2026-01-02")
    for values, said in (([day, None] * 2, [str(day), ""] * 2), ([True, False] * 2, ["True", "False"] * 2)):
        FRAME.assign(when=values).to_parquet(tmp_path / "old.parquet")
        assert read_features(tmp_path / "old.parquet", group="when").groups.tolist() == said


def test_a_run_folder_gives_its_test_features_and_the_labels_of_its_data(tmp_path):
    photos = tmp_path / "photos"
    for part, names in {"train": "ab", "val": "ef", "test": "cd"}.items():
        paint(photos / part, dict.fromkeys(names, 2), noise=np.random.default_rng(ord(names[0])))
    options = {"dataset": "folder", "dataset_options": {"path": str(photos)}}
    options["data_root"] = str(tmp_path / "data")
    data = Experiment(ExperimentConfig(**options)).data.test
    run = tmp_path / "run"
    run.mkdir()
    save_tensors({"test": torch.tensor(FEATURES)}, run / "features.safetensors")
    stored = {"experiment_id": "folder-1", "method": "old", "made_of": {"test images": data.digest()}}
    (run / "config.json").write_text(json.dumps(options | stored))
    found = read_features(run)
    assert np.array_equal(found.features, FEATURES) and found.labels.tolist() == [0, 0, 1, 1]
    (photos / "test" / "c" / "000.png").rename(photos / "test" / "d" / "9.png")
    with pytest.raises(ValueError, match="made with other test images than now"):
        read_features(run)
