"""Tables of features in Arrow's formats: which columns hold what, and their numbers."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
from pyarrow import compute

USUAL = {
    "features": ("features", "feature", "embeddings", "embedding", "emb", "vectors", "vector"),
    "ids": ("ids", "id", "uuid", "path", "file", "filename", "file_name", "image", "image_id", "image_path"),
    "labels": ("labels", "label", "class", "identity"),
}
REMEDY = "number them, such as f0, f1, ..., or say their name with columns={'features': ...}"
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?", re.ASCII)

Roles = dict[str, list[str]]  # features, ids, labels -> names of columns
Found = tuple[dict[str, np.ndarray], list[str]]  # values by role, and notes


class Refused(ValueError):
    """A file that is not read, with the reason; the caller names the file."""


def choose(header: Sequence[str], columns: Mapping[str, str], vectors: Sequence[str] = ()) -> Roles:
    """Which columns are ids, labels (one each at most) and features.

    Args:
        header: names of all columns.
        columns: role -> name, or what the numbered columns begin with, where the names are not usual.
        vectors: columns that hold a whole feature in each cell.

    Raises:
        Refused: two columns of one name, no column of a name that was given, more than one that would do, no
            features, a gap in their numbers.

    >>> choose(["path", "f1", "f0", "age"], {})
    {'features': ['f0', 'f1'], 'ids': ['path'], 'labels': []}
    """
    shown = ", ".join(header[:8]) + (", ..." if len(header) > 8 else "")
    if twice := next((name for name, times in Counter(header).items() if name and times > 1), None):
        raise Refused(f"two columns are called {twice!r}; give each its own name")
    chosen: Roles = {"features": []}
    for role in ("ids", "labels"):
        chosen[role] = _one(role, [name for name in header if name.lower() in USUAL[role]], columns)
        if chosen[role] and chosen[role][0] not in header:
            raise Refused(f"there is no column {columns[role]!r}, but {shown}")
    free = [name for name in header if name not in chosen["ids"] + chosen["labels"]]
    named = [name for name in free if name.lower() in USUAL["features"]]
    found = [name for name in vectors if name in free]
    if len(found) > 1:
        found = [name for name in found if name in named] or found
    if columns.get("features") in free or ("features" not in columns and (found or named)):
        return chosen | {"features": _one("features", found or named, columns)}
    chosen["features"] = _numbered(free, columns.get("features"))
    if not chosen["features"]:
        raise Refused(f"no features were found in {shown}; {REMEDY}")
    return chosen


def _one(role: str, found: list[str], columns: Mapping[str, str]) -> list[str]:
    if role in columns:
        return [columns[role]]
    if len(found) > 1:
        raise Refused(
            f"the {role} could be {' or '.join(map(repr, found))}; say which, with "
            f"columns={{{role!r}: {found[0]!r}}}"
        )
    return found


def _numbered(header: list[str], start: str | None) -> list[str]:
    """Columns that begin alike and end in a number, in the order of the numbers."""
    groups: dict[str, list[tuple[int, str]]] = {}
    for name in header:
        if match := re.fullmatch(r"(.*?)(\d+)", name):
            groups.setdefault(match[1], []).append((int(match[2]), name))
    starts = [one for one in groups if len(groups[one]) > 1] if start is None else [start]
    if len(starts) > 1:
        raise Refused(
            f"numbered columns begin with {' and with '.join(map(repr, starts))}; say which are features, "
            f"with columns={{'features': {starts[0]!r}}}"
        )
    group = sorted(groups.get(starts[0], [])) if starts else []
    for (number, name), (after, other) in pairwise(group):
        if after != number + 1:
            raise Refused(
                f"of the columns {group[0][1]} to {group[-1][1]}, {name} is followed by {other}; number them "
                "without gaps and doubles"
            )
    return [name for _, name in group]


def not_read(names: Iterable[str], chosen: Roles) -> list[str]:
    """The note about columns or arrays that were left out, if any."""
    used = {name for names in chosen.values() for name in names}
    left = [name or "a column without a name" for name in names if name not in used]
    return [f"not read: {', '.join(left)}"] if left else []


def from_arrow(schema: pa.Schema, read: Callable[[list[str]], pa.Table], columns: Mapping[str, str]) -> Found:
    """Features, ids and labels of a table of which `read` returns the named columns."""
    chosen = choose(schema.names, columns, [one.name for one in schema if _holds_vectors(one.type)])
    return values_of(read(sum(chosen.values(), [])), chosen), not_read(schema.names, chosen)


def values_of(table: pa.Table, chosen: Roles) -> dict[str, np.ndarray]:
    if not len(table):
        raise Refused("there are columns, but no row")
    names, first = chosen["features"], table[chosen["features"][0]]
    if len(names) == 1 and (_holds_vectors(first.type) or _is_text(first.type)):
        features = _vectors(names[0], first)
    else:
        features = np.stack([_numeric(name, table[name]) for name in names], axis=1)
    keys = {role: chosen[role][0] for role in ("ids", "labels") if chosen[role]}
    return {"features": features} | {
        role: np.array(table[name].to_pylist(), object) for role, name in keys.items()
    }


def _is_text(kind: pa.DataType) -> bool:
    return "string" in str(kind)


def _holds_vectors(kind: pa.DataType) -> bool:
    return any(word in str(kind) for word in ("list", "tensor", "binary"))


def _vectors(name: str, column: pa.ChunkedArray) -> np.ndarray:
    if isinstance(column.type, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks])
    if _is_text(column.type):
        column = _written_lists(name, column)
    if "list" not in str(column.type):
        raise Refused(
            f"column {name!r} holds bytes, and nothing says of which numbers; write lists, such as "
            "[numpy.frombuffer(cell, 'float32') for cell in column]"
        )
    lengths = compute.fill_null(compute.list_value_length(column), 0).to_numpy()
    width = int(np.median(lengths)) if len(lengths) else 0
    if len(wrong := np.flatnonzero((lengths != width) | (lengths == 0))):
        raise Refused(
            f"column {name!r} holds {lengths[wrong[0]] or 'no'} numbers in row {wrong[0]}, and {width} in "
            f"most rows ({len(wrong)} of {len(lengths)} are unlike them); leave these rows out"
        )
    return _numeric(name, compute.list_flatten(column), width).reshape(len(lengths), -1)


def _written_lists(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Lists that were written as text, "[0.5, 1.5]" or, by NumPy, "[0.5 1.5]"."""
    column = compute.fill_null(column, "")
    if compute.any(compute.match_substring(column, "...")).as_py():
        raise Refused(
            f"column {name!r} holds lists that NumPy shortened with '...'; export the numbers again"
        )
    lists = compute.split_pattern_regex(compute.utf8_trim(column, " []()\r\n\t"), r"[,;\s]+")
    try:
        return lists.cast(pa.list_(pa.float64()))
    except pa.ArrowInvalid as error:
        numbers = (all(map(is_number, words)) for words in lists.to_pylist())
        row = next((row for row, all_are in enumerate(numbers) if not all_are), 0)
        holds = f"column {name!r} holds {column[row].as_py()[:40]!r} in row {row}"
        raise Refused(f"{holds}, which is no list of numbers; mend it, or leave the row out") from error


def _numeric(name: str, column: pa.ChunkedArray, width: int = 1) -> np.ndarray:
    """Numbers without gaps, 64-bit ones as float32."""
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise Refused(f"column {name!r} holds {kind}, not numbers; convert it")
    if column.null_count:
        row = compute.index(column.is_null(), True).as_py() // width
        raise Refused(
            f"column {name!r} has {column.null_count} empty cells, first in row {row}; extract these images "
            "again, or leave the rows out"
        )
    numbers = column.cast(pa.float64()).to_numpy() if pa.types.is_decimal(kind) else column.to_numpy()
    with np.errstate(over="ignore"):  # what becomes infinite is refused with its row
        return numbers if numbers.dtype.itemsize < 8 else numbers.astype(np.float32)


def is_number(cell: str, comma: bool = False) -> bool:
    """Whether a text is a finite number, also one with a decimal comma."""
    cell = cell.strip()
    if comma and DECIMAL_COMMA.fullmatch(cell):
        cell = cell.replace(",", ".")
    return bool(NUMBER.fullmatch(cell)) and math.isfinite(float(cell))
