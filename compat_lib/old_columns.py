"""Tables with named columns, CSV and parquet: which columns are features, and what is wrong in which line.

A table has one row an image: a column of ids, perhaps one of labels, and numbered columns of features such
as f0, f1, ..., which are taken in the order of their numbers, not in that of the file.
"""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path

import numpy as np

USUAL = {"ids": ("ids", "id", "path", "file", "image"), "labels": ("labels", "label", "class", "identity")}
LINES = 8_192  # of a CSV file, turned into numbers at a time


def choose_columns(path: Path, header: Sequence[str], columns: Mapping[str, str]) -> dict[str, list[str]]:
    """Which columns of a table are ids, labels and features; at most one each of the first two.

    Args:
        path: of the file, for the messages.
        header: names of all columns.
        columns: role -> name, as in `read_features`.
    Raises:
        ValueError: "old.csv has two columns called 'f1'. ...", "... has no column 'path'; it has ...", "...
            could have its ids in 'id' or 'path'. ...", "... has no column f3, but f0 to f63. ...", "... has
            no columns of features; ..."

    >>> choose_columns(Path("old.csv"), ["path", "f1", "f0", "age"], {})
    {'ids': ['path'], 'labels': [], 'features': ['f0', 'f1']}
    """
    shown = ", ".join(header[:8]) + (", ..." if len(header) > 8 else "")
    for name in header:
        if name and header.count(name) > 1:
            raise ValueError(f"{path} has two columns called {name!r}. Give each column its own name.")
    chosen: dict[str, list[str]] = {}
    for role, usual in USUAL.items():
        found = [name for name in header if name.lower() in usual]
        if role in columns:
            found = [columns[role]]
            if columns[role] not in header:
                raise ValueError(f"{path} has no column {columns[role]!r}; it has {shown}.")
        if len(found) > 1:
            raise ValueError(
                f"{path} could have its {role} in {' or '.join(map(repr, found))}. Say in which, with "
                f"columns={{{role!r}: {found[0]!r}}}."
            )
        chosen[role] = found
    if columns.get("features") in header:
        return chosen | {"features": [columns["features"]]}
    free = [name for name in header if name not in (*chosen["ids"], *chosen["labels"])]
    return chosen | {"features": _numbered(path, free, shown, columns.get("features"))}


def _numbered(path: Path, header: list[str], shown: str, start: str | None) -> list[str]:
    """Columns that begin alike and end in a number, in the order of the numbers."""
    groups: dict[str, dict[int, str]] = {}
    for name in header:
        if match := re.fullmatch(r"(.*?)(\d+)", name):
            group = groups.setdefault(match[1], {})
            if int(match[2]) in group:
                raise ValueError(
                    f"{path} has columns {group[int(match[2])]!r} and {name!r}. Keep one of them."
                )
            group[int(match[2])] = name
    starts = [one for one in groups if len(groups[one]) > 1] if start is None else [start]
    if len(starts) > 1:
        raise ValueError(
            f"{path} has numbered columns that begin with {' and with '.join(map(repr, starts))}. Say which "
            f"are the features, with columns={{'features': {starts[0]!r}}}."
        )
    group = groups.get(starts[0], {}) if starts else {}
    if not group:
        raise ValueError(
            f"{path} has no columns of features; it has {shown}. Number them, such as f0, f1, ..., or say "
            "what they begin with, with columns={'features': ...}."
        )
    first, last = min(group), max(group)
    if missing := sorted(set(range(first, last + 1)) - set(group)):
        raise ValueError(
            f"{path} has no column {starts[0]}{missing[0]}, but columns {group[first]} to {group[last]}. "
            "Every number in between must be there."
        )
    return [group[number] for number in sorted(group)]


def read_csv(path: Path, columns: Mapping[str, str]) -> tuple[dict[str, object], list[str]]:
    """Features, ids and labels of a table in text with commas, semicolons or tabs; and columns not read.

    Raises:
        ValueError: "old.csv, line 7 has 66 cells, but the first line names 65 columns. ...", "old.csv, line
            9: column 'f3' holds 'abc', which is not a finite number. ..." and the like.
    """
    parts: dict[str, list] = {"features": [], "ids": [], "labels": []}
    reader = None
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            mark = "\t" if "\t" in first else ";" if ";" in first and "," not in first else ","
            reader = csv.reader(file, delimiter=mark, strict=True)
            header = [name.strip() for name in next(reader, [])]
            if not any(header):
                raise ValueError(f"{path} is empty, or has no first line with the names of the columns.")
            chosen = choose_columns(path, header, columns)
            take = {role: itemgetter(*map(header.index, found)) for role, found in chosen.items() if found}
            for lines, rows in _blocks(path, reader, len(header)):
                for role, pick in take.items():
                    picked = [pick(row) for row in rows]
                    if role == "features":
                        picked = [_block(path, lines, picked, chosen["features"])]
                    parts[role] += picked
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8. Save it as such.") from error
    except csv.Error as error:
        line = reader.line_num if reader else 1
        raise ValueError(f"{path}, line {line} is not CSV: {error}. Look for a lone quote.") from error
    if not parts["features"]:
        raise ValueError(f"{path} has a first line with names, but no line of numbers.")
    used = sum(chosen.values(), [])
    found = {role: values or None for role, values in parts.items()}
    return found | {"features": np.concatenate(parts["features"])}, [x for x in header if x not in used]


def _blocks(path: Path, reader, width: int) -> Iterator[tuple[list[int], list[list[str]]]]:
    """Lines of one length, with their numbers in the file; empty lines are passed over."""
    lines, rows = [], []
    for row in reader:
        if not row:
            continue
        if len(row) != width:
            raise ValueError(
                f"{path}, line {reader.line_num} has {len(row)} cells, but the first line names {width} "
                "columns. Write every cell, and put text that holds the separator in quotes."
            )
        lines.append(reader.line_num)
        rows.append(row)
        if len(rows) == LINES:
            yield lines, rows
            lines, rows = [], []
    if rows:
        yield lines, rows


def _block(path: Path, lines: list[int], rows: list, header: list[str]) -> np.ndarray:
    """Cells as float32 [lines, columns], or the first one that is no number."""
    with np.errstate(over="ignore"):
        try:
            block = np.array(rows, dtype=np.float64).reshape(len(rows), -1).astype(np.float32)
            if np.isfinite(block).all():
                return block
        except ValueError:
            pass
        for line, row in zip(lines, rows, strict=True):
            for name, cell in zip(header, (row,) if isinstance(row, str) else row, strict=True):
                if not _is_number(cell):
                    what = f"holds {cell!r}, which is not a finite number" if cell.strip() else "is empty"
                    hint = " Write decimals with a point." if re.fullmatch(r"-?\d+,\d+", cell) else ""
                    raise ValueError(
                        f"{path}, line {line}: column {name!r} {what}.{hint} Mend it, or leave the line out."
                    )
    raise AssertionError("what is no block of numbers has a cell that is no number")


def _is_number(cell: str) -> bool:
    try:
        return bool(np.isfinite(np.float32(float(cell))))
    except ValueError:
        return False


def read_parquet(path: Path, columns: Mapping[str, str]) -> tuple[dict[str, object], list[str]]:
    """Features, ids and labels of a parquet table, and columns not read; needs the package pyarrow.

    Raises:
        ModuleNotFoundError: "old.parquet: reading parquet needs the package pyarrow, ..."
        ValueError: "old.parquet: column 'f3' holds string, not numbers. ...", "... has 2 empty cells. ...",
            "old.parquet: column 'embedding' holds 64 numbers in row 0 and 63 in row 5. ..."
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{path}: reading parquet needs the package pyarrow, which is not installed here. Install it, or "
            "save the table as CSV or npz."
        ) from error
    try:
        schema = parquet.read_schema(path)
        keys = (*USUAL["ids"], *USUAL["labels"])
        lists = [one.name for one in schema if _is_list(one.type) and one.name.lower() not in keys]
        given = {"features": lists[0]} | dict(columns) if len(lists) == 1 else columns
        chosen = choose_columns(path, schema.names, given)
        used = sum(chosen.values(), [])
        table = parquet.read_table(path, columns=used)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is damaged, or not a parquet file. Write it again.") from error
    found: dict[str, object] = {
        role: np.array(table[chosen[role][0]].to_pylist(), dtype=object) for role in USUAL if chosen[role]
    }
    if _is_list(table[chosen["features"][0]].type):
        found["features"] = _lists(path, chosen["features"][0], table[chosen["features"][0]])
    else:
        found["features"] = np.stack([_numeric(path, x, table[x]) for x in chosen["features"]], axis=1)
    return found, [name for name in schema.names if name not in used]


def _is_list(kind) -> bool:
    return str(kind).startswith(("list<", "large_list<", "fixed_size_list<"))


def _numeric(path: Path, name: str, column) -> np.ndarray:
    if not str(column.type).startswith(("float", "halffloat", "double", "int", "uint")):
        raise ValueError(f"{path}: column {name!r} holds {column.type}, not numbers. Convert it.")
    if column.null_count:
        raise ValueError(
            f"{path}: column {name!r} has {column.null_count} empty cells. Extract these features again, or "
            "leave the rows out."
        )
    with np.errstate(over="ignore"):  # what becomes infinite is refused with its row
        return column.to_numpy().astype(np.float32)


def _lists(path: Path, name: str, column) -> np.ndarray:
    from pyarrow import compute

    lengths = compute.fill_null(compute.list_value_length(column), 0).to_numpy()
    if not len(lengths):
        raise ValueError(f"{path} has columns, but no row. Write one for each image.")
    if wrong := np.flatnonzero(lengths != lengths[:1]).tolist():
        raise ValueError(
            f"{path}: column {name!r} holds {lengths[0]} numbers in row 0 and {lengths[wrong[0]]} in row "
            f"{wrong[0]}. All features of one model have one width."
        )
    return _numeric(path, name, compute.list_flatten(column)).reshape(len(lengths), -1)
