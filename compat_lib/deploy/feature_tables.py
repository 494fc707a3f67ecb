"""Tables of features: which columns hold what, and what is wrong in which line."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import compute
from pyarrow import csv as arrow_csv

USUAL = {
    "features": ("features", "feature", "embeddings", "embedding", "emb", "vectors", "vector"),
    "ids": ("ids", "id", "uuid", "path", "file", "filename", "file_name", "image", "image_id", "image_path"),
    "labels": ("labels", "label", "class", "identity"),
}
REMEDY = "number them, such as f0, f1, ..., or say their name with columns={'features': ...}"
SAMPLE = 1 << 20  # bytes of a text file from which its separator and its header are told
SEPARATORS = ",;\t|"
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")
WHOLE = re.compile(r"0|-?[1-9]\d{0,17}")

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
    if twice := next((name for name in header if name and list(header).count(name) > 1), None):
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
    used = [name for names in chosen.values() for name in names]
    left = [name or "a column without a name" for name in names if name not in used]
    return [f"not read: {', '.join(left)}"] if left else []


# -- Arrow ---------------------------------------------------------------------------------------


def from_arrow(schema: pa.Schema, read: Callable[[list[str]], pa.Table], columns: Mapping[str, str]) -> Found:
    """Features, ids and labels of a table of which `read` returns the named columns."""
    chosen = choose(schema.names, columns, [one.name for one in schema if _holds_vectors(one.type)])
    return _values(read(sum(chosen.values(), [])), chosen), not_read(schema.names, chosen)


def _values(table: pa.Table, chosen: Roles) -> dict[str, np.ndarray]:
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
        raise Refused(f"column {name!r} holds text that is no list of numbers ({error}); {REMEDY}") from error


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


# -- text ----------------------------------------------------------------------------------------


def from_csv(path: Path, columns: Mapping[str, str]) -> Found:
    """Features, ids and labels of a table in text with commas, semicolons, tabs or bars.

    Raises:
        Refused: "line 9: column 'f3' holds 'abc', which is not a finite number; ..." and the like.
    """
    try:
        with path.open("rb") as file:
            sample = codecs.getincrementaldecoder("utf-8-sig")().decode(file.read(SAMPLE))
    except UnicodeDecodeError as error:
        raise Refused("it is not text in UTF-8; save it as such") from error
    excel = re.match(r"sep=(.)\r?\n", sample)  # how Excel is told the separator
    text = sample[excel.end() :] if excel else sample
    mark = excel[1] if excel else max(SEPARATORS, key=lambda one: _likely(text, one))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark)
    header = [name.strip() for name in next(filter(None, reader), [])]
    lines = reader.line_num + bool(excel)  # up to the header and with it
    if not any(header):
        raise Refused("it is empty, or has no first line with the names of the columns")
    rows = [row for row in islice(reader, 100) if len(row) == len(header)]
    if len(rows) > 1 and len(text) > SAMPLE // 4:
        rows.pop()  # the sample may end within it
    notes = _check_header(header, columns)

    cells = {name: [row[i].strip() for row in rows] for i, name in enumerate(header)}
    vectors = [name for name, some in cells.items() if some and all(one[:1] in ("[", "(") for one in some)]
    chosen = choose(header, columns, vectors)
    numbers = [name for name in chosen["features"] if name not in vectors]
    comma = mark != "," and any(DECIMAL_COMMA.fullmatch(one) for name in numbers for one in cells[name])
    used = sum(chosen.values(), [])
    try:
        table = arrow_csv.read_csv(
            path,
            arrow_csv.ReadOptions(column_names=header, skip_rows=lines, block_size=1 << 24),
            arrow_csv.ParseOptions(delimiter=mark, newlines_in_values=True),
            arrow_csv.ConvertOptions(
                include_columns=used,
                column_types={name: pa.float64() if name in numbers else pa.string() for name in used},
                null_values=[""],
                decimal_point="," if comma else ".",
            ),
        )
        sound = all(compute.all(compute.is_finite(table[name]), skip_nulls=False).as_py() for name in numbers)
    except pa.ArrowInvalid as error:
        raise Refused(_first_fault(path, mark, header, numbers, lines, comma) or str(error)) from error
    if len(table) and not sound:
        raise Refused(_first_fault(path, mark, header, numbers, lines, comma))
    found = _values(table, chosen)
    for role in ("ids", "labels"):
        if role in found and all(WHOLE.fullmatch(one) for one in found[role]):
            found[role] = found[role].astype(np.int64)
    return found, [*notes, *not_read(header, chosen)]


def _likely(text: str, mark: str) -> tuple[bool, int, int]:
    """How much speaks for a separator: rows as long as the first, numbers, columns."""
    rows = list(filter(None, islice(csv.reader(io.StringIO(text, newline=""), delimiter=mark), 20)))
    width = len(rows[0]) if rows else 0
    alike = [row for row in rows if len(row) == width]
    numbers = sum(_is_number(one, mark != ",") for row in alike[1:] for one in row)
    return width > 1 and 2 * len(alike) >= len(rows), numbers, width


def _is_number(cell: str, comma: bool = False) -> bool:
    cell = cell.strip()
    return bool(NUMBER.fullmatch(cell) or (comma and DECIMAL_COMMA.fullmatch(cell)))


def _check_header(header: list[str], columns: Mapping[str, str]) -> list[str]:
    """A note where the names of the columns are numbers; a refusal where they look like a row."""
    known = {"", *columns.values(), *(name for names in USUAL.values() for name in names)}
    numbers = [name for name in header if _is_number(name, comma=True)]
    others = [name for name in header if name not in numbers and name.lower() not in known]
    counted = [str(i) for i in range(len(numbers))], [str(i + 1) for i in range(len(numbers))]
    fractions = [name for name in numbers if not name.isdigit()]
    row = fractions or (2 * len(numbers) >= len(header) and (numbers not in counted or others))
    if row or any(name.startswith("[") for name in header):
        raise Refused(
            f"the first line ({', '.join(header[:4])}, ...) looks like a row, not like the names of the "
            "columns; write them above it, such as path,f0,f1,..."
        )
    return [f"the first line was taken for names, {', '.join(header[:4])}, ..."] if numbers else []


def _first_fault(
    path: Path, mark: str, header: list[str], numbers: list[str], lines: int, comma: bool
) -> str | None:
    """What is wrong in the first line that cannot be read."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        for _ in range(lines):
            next(file)
        reader = csv.reader(file, delimiter=mark, strict=True)
        places = [(name, header.index(name)) for name in numbers]
        try:
            for row in filter(None, reader):
                where = f"line {lines + reader.line_num}"
                if len(row) != len(header):
                    return (
                        f"{where} has {len(row)} cells, but the first line names {len(header)} columns; "
                        "write every cell, and put text that holds the separator in quotes"
                    )
                for name, place in places:
                    if not _is_number(row[place], comma):
                        holds = f"holds {row[place]!r}, which is not a finite number"
                        what = holds if row[place].strip() else "is empty"
                        hint = " with a decimal point" if DECIMAL_COMMA.fullmatch(row[place].strip()) else ""
                        return f"{where}: column {name!r} {what}; mend it{hint}, or leave the line out"
        except csv.Error as error:
            return f"line {lines + reader.line_num} is not CSV: {error}; look for a lone quote"
        except UnicodeDecodeError:
            return "it is not text in UTF-8; save it as such"
    return None
