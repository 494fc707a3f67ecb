"""Files of features as people have them, read without running anything that is in them.

    table = read_features("old.parquet")                 # features, and perhaps ids and labels
    found = align(table, ["train/anna/1.png", ...])      # in the order of these images, and the proof

A file has one row an image. Beside its features it names the images (ids) and perhaps their classes (labels).
What was left out or guessed stands in ``notes``.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import dataset, ipc

from compat_lib.deploy.feature_tables import USUAL, Found, Refused, choose, from_arrow, not_read
from compat_lib.deploy.feature_text import from_csv
from compat_lib.files import load_arrays, load_tensors

UNSIGNED = (
    "the features are unsigned 8-bit numbers, taken as they are: subtract the zero point first if they are "
    "quantised, and unpack them with numpy.unpackbits where they are packed bits"
)


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """What a file of features holds, in the file's order.

    Args:
        path: of the file.
        features: float32 [N, D], finite.
        labels: [N], whole numbers or text ("" where one is missing), or None.
        ids: [N], whole numbers or text, names of the images, or None.
        notes: what was left out or guessed, a sentence each.
    """

    path: Path
    features: np.ndarray
    labels: np.ndarray | None = None
    ids: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        rows, width = self.features.shape
        parts = [f"{rows} rows of width {width}", "no ids" if self.ids is None else "ids"]
        return "; ".join([*parts, "no labels" if self.labels is None else "labels", *self.notes])


def read_features(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    ids: str | Path | None = None,
    labels: str | Path | None = None,
) -> FeatureTable:
    """Features of images from a file, with the images' names and labels where they are given.

    Args:
        path: .npz or .safetensors with arrays "features" [N, D], "ids" [N] and "labels" [N]; .npy with
            features alone; a table with one row an image: .csv, .tsv, .parquet (or a folder of its parts),
            .feather, .arrow. A table's features are numbered columns (f0, f1, ..., in the order of their
            numbers) or one column of lists.
        columns: "features", "ids" and "labels" -> what they are called in the file, where they have none of
            the usual names (`USUAL`); for numbered columns that is what they begin with.
        ids, labels: files that hold them where `path` does not: .npy, or text with one a line.

    Raises:
        FileNotFoundError: "There is no file old.csv".
        ValueError: one sentence with the file, the row or line, the column and what to do.
    """
    path, columns = Path(path).expanduser(), dict(columns or {})
    if unknown := sorted(set(columns) - set(USUAL)):
        raise ValueError(f"columns may name {', '.join(USUAL)}, not {unknown[0]!r}")
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}")
    suffix = ".parquet" if path.is_dir() else path.suffix.lower()
    if suffix not in READERS:
        raise ValueError(f"{path}: features are read from {', '.join(READERS)}; save them in one of these")
    found, notes = _read(READERS[suffix], path, columns)
    for role, beside in (("ids", ids), ("labels", labels)):
        if beside is not None:
            found[role] = _read(_lines, Path(beside).expanduser(), {})
    try:
        features = np.asarray(found["features"])
        notes += [UNSIGNED] if features.dtype == np.uint8 else []
        features = _finite(features)
        keys = {}
        for role in ("labels", "ids"):
            values = keys[role] = None if found.get(role) is None else as_keys(role, found[role])
            if values is not None and len(values) != len(features):
                raise ValueError(f"there are {len(values)} {role} for {len(features)} rows of features")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if keys["labels"] is not None and (missing := int((keys["labels"] == "").sum())):
        notes.append(f"{missing} of {len(features)} rows have no label")
    return FeatureTable(path, features, keys["labels"], keys["ids"], tuple(notes))


def _read(reader: Callable, path: Path, columns: dict[str, str]) -> Any:
    """What a reader returns; its refusals, and whatever a library says of a damaged file, with the path."""
    try:
        return reader(path, columns)
    except (FileNotFoundError, PermissionError):
        raise
    except Refused as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:  # a damaged file can raise anything, also MemoryError
        said = str(error).removeprefix(f"{path} ")
        raise ValueError(f"{path} cannot be read ({said}); is it whole, and what its name says?") from error


def _npz(path: Path, columns: dict[str, str]) -> Found:
    return _arrays(load_arrays(path), columns)


def _safetensors(path: Path, columns: dict[str, str]) -> Found:
    tensors = load_tensors(path)[0]
    return _arrays(
        {k: (v.float() if v.is_floating_point() else v).numpy() for k, v in tensors.items()}, columns
    )


def _arrays(arrays: Mapping[str, np.ndarray], columns: dict[str, str]) -> Found:
    chosen = choose(list(arrays), columns)
    if len(chosen["features"]) > 1:
        raise Refused(
            f"any of {', '.join(arrays)} could hold the features; say which, with columns={{'features': ...}}"
        )
    return {k: arrays[v[0]] for k, v in chosen.items() if v}, not_read(arrays, chosen)


def _npy(path: Path, columns: dict[str, str]) -> Found:
    with path.open("rb") as file:
        array = np.load(file, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise Refused("it is an archive of arrays; call it .npz")
        if file.read(1):
            raise Refused(
                "more follows the first array, as after two numpy.save into one open file; save one array"
            )
    return {"features": array}, []


def _parquet(path: Path, columns: dict[str, str]) -> Found:
    parts, notes = [path], []
    if path.is_dir():
        parts = sorted(part for part in path.rglob("*.parquet") if part.name[0] not in "._")
        if not parts:
            raise Refused("it is a folder without a .parquet file")
        notes = [f"{len(parts)} parts, in the order of their names"]
    table = dataset.dataset([str(part) for part in parts], format="parquet", partitioning="hive")
    found, more = from_arrow(table.schema, table.to_table, columns)
    return found, notes + more


def _arrow(path: Path, columns: dict[str, str]) -> Found:
    with pa.memory_map(str(path)) as file:
        try:
            table = ipc.open_file(file).read_all()
        except pa.ArrowInvalid:  # no index at its end, so perhaps a stream
            file.seek(0)
            table = ipc.open_stream(file).read_all()
        return from_arrow(table.schema, table.select, columns)


READERS = {
    ".npz": _npz,
    ".npy": _npy,
    ".csv": from_csv,
    ".tsv": from_csv,
    ".parquet": _parquet,
    ".feather": _arrow,
    ".arrow": _arrow,
    ".safetensors": _safetensors,
}


def _lines(path: Path, columns: dict[str, str]) -> np.ndarray:
    """Ids or labels from a file of their own."""
    if path.suffix.lower() == ".npy":
        return _npy(path, columns)[0]["features"]
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    if "" in lines:
        raise Refused(f"line {lines.index('') + 1} is empty; write one name a line")
    return np.array(lines, dtype=str)


def _finite(features: np.ndarray) -> np.ndarray:
    if features.dtype.kind not in "iuf":
        raise ValueError(f"the features are no real numbers, but {features.dtype}; convert them")
    if features.ndim != 2 or not features.size:
        raise ValueError(
            f"the features have shape {list(features.shape)}; give [rows, width], one row an image"
        )
    with np.errstate(over="ignore"):
        features = np.ascontiguousarray(features, dtype=np.float32)
    wrong = np.argwhere(~np.isfinite(features))
    if len(wrong):
        row, column = wrong[0].tolist()
        raise ValueError(
            f"{len(wrong)} of the features are not finite, first in row {row}, column {column}; extract "
            "them again, or leave the rows out"
        )
    return features


def as_keys(what: str, values: Any) -> np.ndarray:
    """Ids or labels as whole numbers or as text in Unicode's form NFC [N]; a missing label is "".

    Raises:
        ValueError: "the ids must be whole numbers or names, but row 3 holds None; ...".

    >>> as_keys("ids", [7.0, 12]), as_keys("labels", ["anna", None])
    (array([ 7, 12]), array(['anna', ''], dtype='<U4'))
    """
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"the {what} have shape {list(array.shape)}; give one for each row")
    if array.dtype.kind in "iu":
        return array
    keys = []
    for row, (one, missing) in enumerate(zip(array.tolist(), pd.isna(array), strict=True)):
        one = one.item() if isinstance(one, np.generic) else one  # of an array of objects
        if missing:
            one = "" if what == "labels" else None
        elif isinstance(one, float) and one.is_integer():  # what pandas makes of whole numbers beside a gap
            one = int(one)
        elif isinstance(one, bytes):
            one = one.decode("utf-8")
        if isinstance(one, bool) or not isinstance(one, str | int) or (one == "" and what != "labels"):
            raise ValueError(
                f"the {what} must be whole numbers or names, but row {row} holds {array[row]!r}; give every "
                "row one, or leave the row out"
            )
        keys.append(one)
    if keys and all(isinstance(one, int) for one in keys):
        return np.array(keys)
    return np.array([unicodedata.normalize("NFC", str(one)) for one in keys], dtype=str)
