"""Files of features as people have them, read without running anything that is in them.

A file has one row an image. Beside its features it names the images (ids) and perhaps their classes (labels).
"""

import contextlib
import re
import unicodedata
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path, PurePath
from reprlib import repr as shorten
from typing import Any

import numpy as np
import pandas as pd
import torch

from compat_lib.deploy import feature_tables as tables
from compat_lib.deploy.feature_tables import USUAL, Found, Refused, whole_numbers
from compat_lib.deploy.gallery_search import UNSIGNED
from compat_lib.evaluation.inputs import plain_array
from compat_lib.files import load_arrays, load_tensors
from compat_lib.names import one_each
from compat_lib.user_arrays import numbers

EXACT = 2**53  # below it a float holds each whole number
ROUNDED = re.compile(r"-?\d([.,]\d+)?[eE]\+\d\d+")  # as Excel and pandas write long whole numbers


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """What a file of features holds, in the file's order."""

    path: Path
    features: np.ndarray  # float32 [N, D], finite
    labels: np.ndarray | None = None  # [N], whole numbers or text, "" where one is missing
    ids: np.ndarray | None = None  # [N], whole numbers or text, names of the images
    notes: tuple[str, ...] = ()  # what was left out or guessed, a sentence each
    groups: np.ndarray | None = None  # [N], whole numbers or text, of a column that was asked for

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
    group: str | None = None,
    elsewhere: bool = False,
) -> FeatureTable:
    """Features of images from a file, with the images' names and labels where they are given.

    Args:
        path: .npz or .safetensors with arrays "features" [N, D], "ids" [N] and "labels" [N]; .npy with
            features alone; a table with one row an image: .csv, .tsv, .parquet (or a folder of its parts),
            .feather, .arrow. A table's features are numbered columns (f0, f1, ..., in the order of their
            numbers) or one column of lists. A run folder of this library: the features of its test images,
            with the labels of its data set, which is read again.
        columns: "features", "ids" and "labels" -> what they are called in the file, where they have none of
            the usual names (`USUAL`); for numbered columns that is what they begin with.
        ids, labels: files that hold them where `path` does not: .npy, or text with one a line; labels also a
            .csv, .tsv or .parquet of ids and labels, in any order.
        group: column, or array, of groups of the images, such as a camera, where there is one of that name.
        elsewhere: the column of labels that `columns` names may be missing, because another file has it.

    A ValueError is one sentence with the file, the row, the column and what to do.
    """
    if not isinstance(columns or {}, Mapping):
        raise ValueError(f"columns is {columns!r}; give a mapping, such as {{'ids': 'photo'}}")
    path, columns = Path(path).expanduser(), dict(columns or {})
    if unknown := sorted(set(columns) - set(USUAL)):
        raise ValueError(f"columns may name {', '.join(USUAL)}, not {unknown[0]!r}")
    suffix = ".parquet" if path.is_dir() else path.suffix.lower()
    if suffix not in READERS:
        raise ValueError(f"{path}: features are read from {', '.join(READERS)}; save them in one of these")
    reader = _run if (path / "features.safetensors").is_file() else READERS[suffix]
    found, notes = read_by(reader, path, columns | ({"groups": group} if group else {}))
    if not elsewhere and "labels" in columns and "labels" not in found:
        raise ValueError(f"{path}: there is no column of labels {columns['labels']!r}; {'; '.join(notes)}")
    if ids is not None:
        found["ids"] = read_by(_lines, ids)
    if labels is not None and Path(labels).suffix.lower() in (".csv", ".tsv", ".parquet"):
        found["labels"] = read_by(_by_id, labels, found.get("ids"))
    elif labels is not None:
        found["labels"] = read_by(_lines, labels)
    notes += [f"the features are {UNSIGNED}"] if found["features"].dtype.kind == "u" else []
    try:
        features = numbers("features", found["features"], 2).numpy()
        keys = {role: as_keys(role, found[role]) for role in ("labels", "ids", "groups") if role in found}
        for role, values in keys.items():
            one_each(values, role, len(features), "rows of features")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    if missing := int((keys.get("labels", np.zeros(0)) == "").sum()):
        notes.append(f"{missing} of {len(features)} rows have no label")
    return FeatureTable(path, features, notes=tuple(notes), **keys)


def read_by(reader: Callable, path: str | Path, *arguments: Any) -> Any:
    """What a reader returns; its refusals, and whatever a library says of a damaged file, with the path."""
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}")
    try:
        return reader(path, *arguments)
    except PermissionError:
        raise
    except Refused as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:  # a damaged file can raise anything, also MemoryError
        said = str(error).removeprefix(f"{path} ")
        hint = "is it whole, and what its name says?"
        if "Object arrays" in said:
            hint = "Python objects could run code: save names as text, numpy.array(names, dtype=str)"
        raise ValueError(f"{path} cannot be read ({said}); {hint}") from error


def as_keys(what: str, values: Any) -> np.ndarray:
    """Ids or labels as whole numbers, or as text in Unicode's form NFC without blanks around it [N]; a
    missing label is "". Paths and UUIDs are text. Of anything else a ValueError tells the row.

    >>> as_keys("ids", [7.0, 12]), as_keys("labels", ["anna", None])
    (array([ 7, 12]), array(['anna', ''], dtype='<U4'))
    """
    array = plain_array(values)
    if array.ndim != 1:
        raise ValueError(f"the {what} have shape {list(array.shape)}; give one for each row")
    if array.dtype.kind in "iu":
        return array
    keys = []
    for row, one in enumerate(array):
        if isinstance(one, np.generic) and not isinstance(one, np.datetime64 | np.timedelta64):
            one = one.item()  # not of dates, some of which would become whole numbers
        if isinstance(one, Decimal) or (isinstance(one, float) and abs(one) < EXACT):
            one = int(one) if one % 1 == 0 else one  # from what pandas makes of whole numbers beside a gap
        elif isinstance(one, PurePath | uuid.UUID):
            one = str(one)
        elif isinstance(one, bytes):
            with contextlib.suppress(UnicodeDecodeError):
                one = one.decode("utf-8")
        elif what != "ids" and _is_missing(one):
            one = ""
        if what == "groups" and (isinstance(one, bool) or not isinstance(one, str | int)):  # such as dates
            one = str(one)
        if isinstance(one, str) and ROUNDED.fullmatch(one):
            raise Refused(
                f"the {what} hold {one!r} in row {row}, a long number that was rounded, so that several may "
                "have become one; export them as text"
            )
        if isinstance(one, bool) or not isinstance(one, str | int) or (one == "" and what == "ids"):
            advice = "give every row one, or leave the row out" if _is_missing(one) else "write it as text"
            raise Refused(
                f"the {what} must be whole numbers or names, but row {row} holds {shorten(one)}; {advice}"
            )
        keys.append(one)
    if keys and not any(isinstance(one, str) for one in keys):
        return np.array(keys)
    return np.array([unicodedata.normalize("NFC", str(one)).strip() for one in keys], dtype=str)


def _is_missing(one: Any) -> bool:
    return one is None or (pd.api.types.is_scalar(one) and (bool(pd.isna(one)) or one == ""))


# -- arrays --------------------------------------------------------------------------------------


def _arrays(path: Path, columns: dict[str, str]) -> Found:
    if path.suffix.lower() == ".npz":
        arrays = load_arrays(path)
    else:
        tensors = load_tensors(path)[0]
        arrays = {k: (v.float() if v.is_floating_point() else v).numpy() for k, v in tensors.items()}
    wide = [name for name, array in arrays.items() if array.ndim == 2]
    only = {"features": wide[0]} if len(wide) == 1 else {}  # whatever it is called
    chosen = tables.choose(list(arrays), only | columns, wide)
    return {k: arrays[v[0]] for k, v in chosen.items() if v}, tables.not_read(arrays, chosen)


def _npy(path: Path, columns: dict[str, str]) -> Found:
    with path.open("rb") as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):
            raise Refused("more follows the first array, as after two numpy.save into one file; save one")
    return {"features": array}, []


def _lines(path: Path) -> np.ndarray:
    """Ids or labels from a file of their own."""
    if path.suffix.lower() == ".npy":
        return _npy(path, {})[0]["features"]
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    if "" in lines:
        raise Refused(f"line {lines.index('') + 1} is empty; write one name a line")
    return whole_numbers(np.array(lines, dtype=str))


def _by_id(path: Path, wanted: np.ndarray | None) -> np.ndarray:
    """Labels from a table of ids and labels, in the order of the wanted ids; "" where it has none."""
    if path.suffix.lower() == ".parquet":
        read = pd.read_parquet(path)
        read = read if read.index.name is None else read.reset_index()
    else:
        mark = tables.separator(path, ",;\t|")[0]
        how = {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig", "header": None}
        read = pd.read_csv(path, sep=mark, **how)  # the header by hand: pandas numbers doubled names
        read = read[1:].set_axis(read.iloc[0].str.strip(), axis=1)
    named = {role: [name for name in read if str(name).lower() in USUAL[role]] for role in ("ids", "labels")}
    if any(len(names) != 1 for names in named.values()) or wanted is None:
        raise Refused(
            "a table beside the features has one column of ids and one of labels, called id and label, and "
            "the features have ids; or write the labels one a line"
        )
    columns = {role: whole_numbers(read[names[0]].to_numpy()) for role, names in named.items()}
    ids, labels = (as_keys(role, values).astype(str) for role, values in columns.items())
    if (twice := pd.Series(ids).duplicated()).any():
        raise Refused(f"the id {ids[int(twice.argmax())].item()!r} stands there twice")
    wanted = as_keys("ids", wanted).astype(str)
    if not np.isin(wanted, ids).any():
        first = ids[0].item(), wanted[0].item()
        raise Refused("none of its ids ({!r}, ...) is one of the features ({!r}, ...)".format(*first))
    return pd.Series(labels, ids).reindex(wanted, fill_value="").to_numpy(object)


def _run(path: Path, columns: dict[str, str]) -> Found:
    from compat_lib.experiment_data import data_of_run  # here, for those who have files of their own

    tensors, made_on = load_tensors(path / "features.safetensors")[0], data_of_run(path)
    pairs, old = [(tensors.get("query"), tensors["test"])], path.parent / made_on.config.old_folder.name
    if (old / "features.safetensors").is_file():
        pairs.append((tensors.get("gallery"), load_tensors(old / "features.safetensors")[0]["test"]))
    odd = any(ours is not None and not torch.equal(ours, plain) for ours, plain in pairs)
    note = "its method compares other forms of these features, which stand beside them as query and gallery"
    return {"features": tensors["test"].numpy(), "labels": made_on.data.test.labels.numpy()}, [note] * odd


READERS = {".npz": _arrays, ".npy": _npy} | dict.fromkeys((".csv", ".tsv"), tables.read_text)
READERS |= dict.fromkeys((".parquet", ".feather", ".arrow"), tables.read_table) | {".safetensors": _arrays}
