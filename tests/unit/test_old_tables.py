"""A user's files of features in every format, and the sentence for each kind of bad file."""

import io
import zipfile

import numpy as np
import pandas as pd
import pytest

from compat_lib.old_tables import read_features

FEATURES = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -3.0], [4.0, 8.0, 16.0], [0.125, 0.0, 1.0]], np.float32)
IDS = ["anna/2.png", "bert/1.png", "anna/1.png", "bert/2.png"]
LABELS = ["anna", "bert", "anna", "bert"]
FILES = ["anna/1.png", "anna/2.png", "bert/1.png", "bert/2.png"]  # the data set's order
IN_ORDER = FEATURES[[2, 0, 1, 3]]


def frame():
    return pd.DataFrame({"path": IDS, "label": LABELS} | {f"f{i}": FEATURES[:, i] for i in range(3)})


def write(folder, kind):
    path = folder / f"old.{kind}"
    if kind == "npz":
        np.savez(path, features=FEATURES.astype(np.float64), ids=np.array(IDS), labels=np.array(LABELS))
    elif kind == "npy":
        np.save(path, FEATURES)
        (folder / "ids.txt").write_text("\n".join(IDS) + "\n")
        np.save(folder / "labels.npy", np.array(LABELS))
        return path, {"ids": folder / "ids.txt", "labels": folder / "labels.npy"}
    elif kind == "parquet":
        pytest.importorskip("pyarrow")
        frame().to_parquet(path)
    else:
        frame().to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    return path, {}


@pytest.mark.parametrize("kind", ["npz", "npy", "csv", "tsv", "parquet"])
def test_every_format_gives_the_same(tmp_path, kind):
    path, beside = write(tmp_path, kind)
    table = read_features(path, **beside)
    assert table.features.dtype == np.float32 and np.array_equal(table.features, FEATURES)
    assert table.ids.tolist() == IDS and table.labels.tolist() == LABELS and table.ignored == ()
    features, found = table.of_images(FILES)
    assert np.array_equal(features, IN_ORDER)
    assert found.labels.tolist() == [0, 0, 1, 1] and found.classes == ("anna", "bert")
    assert found.proof == "by their ids, and their labels agree with the class folders"
    assert str(table) == "4 rows of width 3; ids; labels"


@pytest.mark.parametrize("kind", ["npz", "csv"])
def test_what_cannot_be_matched_names_the_file(tmp_path, kind):
    path, _ = write(tmp_path, kind)
    with pytest.raises(ValueError, match=f"old.{kind}: 1 of 5 images have no feature, the first 'anna/3"):
        read_features(path).of_images([*FILES[:2], "anna/3.png", *FILES[2:]])


# -- tables --------------------------------------------------------------------------------------


def csv_of(tmp_path, text, **options):
    path = tmp_path / "old.csv"
    path.write_bytes(text.encode(options.pop("encoding", "utf-8")))
    return read_features(path, **options)


def test_columns_are_taken_by_number_wherever_they_stand(tmp_path):
    table = csv_of(tmp_path, "f10,f9,id,f11\n10,9,a/1.png,11\n100,90,a/2.png,110\n")
    assert table.features.tolist() == [[9, 10, 11], [90, 100, 110]]
    assert table.ids.tolist() == ["a/1.png", "a/2.png"] and table.labels is None


def test_a_stray_column_is_not_taken_for_a_feature(tmp_path):
    text = ",path,age,f0,f1\n0,a/1.png,31,0.5,1\n1,a/2.png,32,0.25,2\n"  # pandas wrote its index as well
    table = csv_of(tmp_path, text)
    assert table.features.tolist() == [[0.5, 1], [0.25, 2]]
    assert table.ignored == ("", "age")


def test_other_names_can_be_given(tmp_path):
    text = "key,who,x0,x1,y0,y1\nk1,anna,1,2,3,4\n"
    table = csv_of(tmp_path, text, columns={"ids": "key", "labels": "who", "features": "y"})
    assert table.features.tolist() == [[3, 4]] and table.ids.tolist() == ["k1"]
    assert table.labels.tolist() == ["anna"]


def test_a_mark_of_byte_order_quotes_semicolons_and_empty_lines(tmp_path):
    text = '\ufeffpath;f0;f1\n"a;b/1.png";1;2\n\n"c/""2"".png";3;4\n\n'
    table = csv_of(tmp_path, text)
    assert table.ids.tolist() == ["a;b/1.png", 'c/"2".png'] and table.features.tolist() == [[1, 2], [3, 4]]


def test_more_lines_than_are_read_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("compat_lib.old_columns.LINES", 3)
    lines = [f"a/{row}.png,{row},{row / 2}" for row in range(10)]
    table = csv_of(tmp_path, "\n".join(["path,f0,f1", *lines]))
    assert table.features[:, 0].tolist() == list(range(10)) and len(table.ids) == 10
    lines[7] = "a/7.png,7,x"
    with pytest.raises(ValueError, match="old.csv, line 9: column 'f1' holds 'x'"):
        csv_of(tmp_path, "\n".join(["path,f0,f1", *lines]))


BAD_CSV = {
    "empty file": ("", "old.csv is empty"),
    "no line of numbers": ("path,f0,f1\n", "has a first line with names, but no line of numbers"),
    "no features": ("path,age\na,1\n", "has no columns of features; it has path, age"),
    "a feature is missing": ("path,f0,f2\na,1,2\n", "has no column f1, but columns f0 to f2"),
    "two starts": ("path,f0,f1,g0,g1\na,1,2,3,4\n", "numbered columns that begin with 'f' and with 'g'"),
    "doubled column": ("path,f0,f0\na,1,2\n", "has two columns called 'f0'"),
    "doubled number": ("path,f1,f01\na,1,2\n", "has columns 'f1' and 'f01'"),
    "two ids": ("path,id,f0,f1\na,b,1,2\n", "could have its ids in 'path' or 'id'"),
    "a cell too many": ("path,f0,f1\na,1,2\nb,1,2,3\n", "line 3 has 4 cells, but the first line names 3"),
    "a cell too few": ("path,f0,f1\na,1\n", "line 2 has 2 cells, but the first line names 3"),
    "text among numbers": ("path,f0,f1\na,1,2\nb,one,2\n", "line 3: column 'f0' holds 'one'"),
    "an empty cell": ("path,f0,f1\na,,2\n", "line 2: column 'f0' is empty"),
    "not a number": ("path,f0,f1\na,nan,2\n", "line 2: column 'f0' holds 'nan', which is not a finite"),
    "infinite as float32": ("path,f0,f1\na,1e300,2\n", "column 'f0' holds '1e300'"),
    "decimal comma": ("path;f0;f1\na;0,5;2\n", "holds '0,5', .* Write decimals with a point"),
    "lone quote": ('path,f0,f1\n"a,1,2\n', "is not CSV: .*Look for a lone quote"),
}


@pytest.mark.parametrize("case", BAD_CSV)
def test_bad_csv_files(tmp_path, case):
    text, message = BAD_CSV[case]
    with pytest.raises(ValueError, match=message):
        csv_of(tmp_path, text)


def test_csv_in_another_encoding(tmp_path):
    with pytest.raises(ValueError, match="old.csv is not text in UTF-8"):
        csv_of(tmp_path, "path,f0,f1\nmüller,1,2\n", encoding="latin-1")


def test_a_column_that_was_named_and_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="old.csv has no column 'photo'; it has path, f0, f1"):
        csv_of(tmp_path, "path,f0,f1\na,1,2\n", columns={"ids": "photo"})
    with pytest.raises(ValueError, match="has no columns of features"):
        csv_of(tmp_path, "path,f0,f1\na,1,2\n", columns={"features": "emb"})
    with pytest.raises(ValueError, match="columns may name features, ids, labels, not 'id'"):
        csv_of(tmp_path, "path,f0,f1\na,1,2\n", columns={"id": "path"})


# -- parquet -------------------------------------------------------------------------------------


def test_parquet_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "old.parquet").write_bytes(b"PAR1")
    with pytest.raises(ModuleNotFoundError, match="old.parquet: reading parquet needs the package pyarrow"):
        read_features(tmp_path / "old.parquet")


@pytest.mark.parametrize("fixed", [False, True])
def test_parquet_with_a_column_of_lists(tmp_path, fixed):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    kind = pa.list_(pa.float32(), 3 if fixed else -1)
    table = pa.table(
        {"id": [7, 8, 9, 10], "embedding": pa.array(FEATURES.tolist(), kind), "note": list("abcd")}
    )
    parquet.write_table(table, tmp_path / "old.parquet", row_group_size=2)
    read = read_features(tmp_path / "old.parquet")
    assert np.array_equal(read.features, FEATURES)
    assert read.ids.tolist() == ["7", "8", "9", "10"] and read.ignored == ("note",)


def test_bad_parquet_files(tmp_path):
    pa = pytest.importorskip("pyarrow")
    path = tmp_path / "old.parquet"
    path.write_bytes(b"hello")
    with pytest.raises(ValueError, match="old.parquet is damaged, or not a parquet file"):
        read_features(path)
    frame().assign(f1=["1", "2", "3", "4"]).to_parquet(path)
    with pytest.raises(ValueError, match="column 'f1' holds .*string, not numbers"):
        read_features(path)
    pa.parquet.write_table(pa.table({"path": ["a", "b"], "f0": [1.0, None], "f1": [1.0, 2.0]}), path)
    with pytest.raises(ValueError, match="column 'f0' has 1 empty cells"):
        read_features(path)
    pa.parquet.write_table(pa.table({"path": ["a", "b"], "e": [[1.0, 2.0], [1.0]]}), path)
    with pytest.raises(ValueError, match="column 'e' holds 2 numbers in row 0 and 1 in row 1"):
        read_features(path)
    pa.parquet.write_table(pa.table({"path": ["a", None], "f0": [1.0, 2.0], "f1": [1.0, 2.0]}), path)
    with pytest.raises(ValueError, match="ids must be names or whole numbers, but row 1 holds None"):
        read_features(path)
    pa.parquet.write_table(pa.table({"path": [["a"], ["b"]], "f0": [1.0, 2.0], "f1": [1.0, 2.0]}), path)
    with pytest.raises(ValueError, match="old.parquet: ids must have one dimension"):
        read_features(path)
    pa.parquet.write_table(pa.table({"e": pa.array([], pa.list_(pa.float32()))}), path)
    with pytest.raises(ValueError, match="old.parquet has columns, but no row"):
        read_features(path)
    frame().assign(f1=[1.0, 1e300, 3.0, 4.0]).to_parquet(path)
    with pytest.raises(
        ValueError, match="old.parquet: features hold 1 values that are not finite, first in row 1"
    ):
        read_features(path)
    frame().assign(f1=[1.0, np.nan, 3.0, 4.0]).to_parquet(path)
    with pytest.raises(ValueError, match="old.parquet: (features hold 1 values|column 'f1' has 1 empty)"):
        read_features(path)


# -- npz and npy ---------------------------------------------------------------------------------


def test_npz_with_other_names_and_numbers_for_labels(tmp_path):
    path = tmp_path / "old.npz"
    np.savez(path, emb=FEATURES, who=np.array([3.0, 5.0, 3.0, 5.0]), ids=np.array(IDS), more=np.eye(2))
    table = read_features(path, columns={"features": "emb", "labels": "who"})
    assert table.labels.tolist() == ["3", "5", "3", "5"] and table.ignored == ("more",)
    assert table.of_images(FILES)[1].proof.endswith("agree with the class folders")


def test_bad_npz_files(tmp_path):
    path = tmp_path / "old.npz"
    np.savez(path, embeddings=FEATURES)
    with pytest.raises(ValueError, match="has no array 'features'; its arrays are embeddings. Save it under"):
        read_features(path)
    np.savez(path, features=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="'features' holds Python objects.*can run code"):
        read_features(path)
    np.savez(path, features=FEATURES, ids=np.array(IDS[:3]))
    with pytest.raises(ValueError, match="old.npz: ids have 3 rows but features 4"):
        read_features(path)
    np.savez(path, features=FEATURES, labels=np.array([0.5, 1, 2, 3]))
    with pytest.raises(ValueError, match="old.npz: labels must be names or whole numbers, but row 0 holds 0"):
        read_features(path)
    np.savez(path, features=np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match="old.npz: features hold 4 values that are not finite"):
        read_features(path)
    np.savez(path, features=FEATURES[0])
    with pytest.raises(ValueError, match=r"old.npz: features must have the shape \[rows, width\]"):
        read_features(path)
    path.write_bytes(b"hello")
    with pytest.raises(ValueError, match="old.npz is not an npz archive of plain arrays"):
        read_features(path)


@pytest.mark.parametrize("kind", ["npz", "compressed npz", "npy"])
def test_altered_files_are_refused_whatever_numpy_raises(tmp_path, kind):
    # An npz has checksums: what is read is right. An npy has none, and is only known to be an array.
    path = tmp_path / f"old.{kind.split()[-1]}"
    save = {"npz": np.savez, "compressed npz": np.savez_compressed, "npy": np.save}[kind]
    save(path, FEATURES) if kind == "npy" else save(path, features=FEATURES)
    sound, refused = path.read_bytes(), 0
    for place in range(len(sound)):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ (1 << place % 8)]) + sound[place + 1 :])
        try:
            found = read_features(path)
        except ValueError as error:
            refused += "old.np" in str(error)
        else:
            assert kind == "npy" or np.array_equal(found.features, FEATURES)
    assert refused > 60


@pytest.mark.parametrize("name", ["old.npz", "old.npy"])
def test_a_header_that_promises_more_than_the_memory(tmp_path, name):
    data = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (10**12, 4096)}
    np.lib.format.write_array_header_1_0(data, header)
    if name == "old.npz":
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("features.npy", data.getvalue())
    else:
        (tmp_path / name).write_bytes(data.getvalue())
    with pytest.raises(ValueError, match=f"{name}.* damaged or larger than the memory"):
        read_features(tmp_path / name)


def test_bad_npy_files(tmp_path):
    path = tmp_path / "old.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="old.npy is not a plain array.*can run code"):
        read_features(path)
    np.save(path, np.zeros(3, dtype=[("id", "i4"), ("f", "f4")]))
    with pytest.raises(ValueError, match="old.npy is not one plain array"):
        read_features(path)
    np.save(path, FEATURES)
    (tmp_path / "ids.txt").write_text("a\n\nb\nc\n")
    with pytest.raises(ValueError, match="ids.txt, line 2 is empty"):
        read_features(path, ids=tmp_path / "ids.txt")
    (tmp_path / "ids.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match="old.npy: ids have 2 rows but features 4"):
        read_features(path, ids=tmp_path / "ids.txt")
    with pytest.raises(FileNotFoundError, match="There is no file .*labels.txt"):
        read_features(path, labels=tmp_path / "labels.txt")


def test_files_that_are_not_there_or_of_another_kind(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file .*old.csv. Features are read from .npz"):
        read_features(tmp_path / "old.csv")
    with pytest.raises(ValueError, match="old.pkl: features are read from .npz, .npy, .csv, .tsv, .parquet"):
        read_features(tmp_path / "old.pkl")
