"""Tables of features, in text or Arrow's formats: which columns are meant, and their values."""

import csv
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice, pairwise, product
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import compute, dataset, ipc
from pyarrow import csv as arrow_csv

USUAL = {
    "features": ("features", "feature", "embeddings", "embedding", "emb", "vectors", "vector"),
    "ids": ("ids", "id", "uuid", "path", "file", "filename", "file_name", "image", "image_id", "image_path"),
    "labels": ("labels", "label", "class", "identity"),
}
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
WRITTEN_LIST = rf"^[\s\[({{]*{NUMBER}(?:[\s,;]+{NUMBER})*[\s\])}}]*$"
BARE_LIST = rf"{NUMBER}(?:\s+{NUMBER})+"
LIKE_A_LIST = re.compile(rf"\s*(?:[\[({{].*|{BARE_LIST}\s*)", re.ASCII | re.DOTALL)
WHOLE = re.compile(r"(0|-?[1-9]\d{0,17})(\.0)?", re.ASCII)  # ".0" as pandas writes numbers beside a gap
VECTORS = r"(large_|fixed_size_)?(list|binary)|extension<.*tensor"  # Arrow's types of cells of many numbers
ENCODED = r"struct|(large_)?binary image$"  # types and names of columns that hold images, not their names

Roles = dict[str, list[str]]  # features, ids, labels -> names of columns
Found = tuple[dict[str, np.ndarray], list[str]]  # values by role, and notes


class Refused(ValueError):
    """A file that is not read, with the reason; `feature_files.read_features` adds its name."""


def read_table(path: Path, columns: dict[str, str]) -> Found:
    parts, notes, folders = [path], [], {}
    if path.is_dir():
        parts = sorted(part for part in path.rglob("*.parquet") if part.name[0] not in "._")
        if not parts:
            raise Refused("it is a folder without a .parquet file")
        notes = [f"{len(parts)} parts, in the order of their names"]
    if path.suffix.lower() in (".feather", ".arrow"):
        with pa.memory_map(str(path)) as file:
            try:
                reader = ipc.open_file(file)
            except pa.ArrowInvalid:  # no index at its end, so perhaps a stream
                file.seek(0)
                reader = ipc.open_stream(file)
            table = dataset.dataset(reader.read_all())
    else:
        kind = dataset.ParquetFileFormat(arrow_extensions_enabled=True)  # for UUIDs
        hive = {}
        if path.is_dir():
            # Names of folders are columns, such as label=anna, below the folder that was given, and not above
            # it; as text, in which 007 and 7 are two.
            above = {name for part in parts for name in part.relative_to(path).parts[:-1] if "=" in name}
            own = dataset.dataset(str(parts[0]), format=kind).schema.names
            folders = {name.partition("=")[0]: pa.string() for name in sorted(above)}
            folders = {name: text for name, text in folders.items() if name not in own}
            flavor = dataset.partitioning(pa.schema(list(folders.items())), flavor="hive")
            hive = {"partitioning": flavor, "partition_base_dir": str(path)}
        table = dataset.dataset([str(part) for part in parts], format=kind, **hive)
    names = table.schema.names
    held = [part.physical_schema for part in table.get_fragments()] if len(parts) > 1 else []
    for part, own in zip(parts, held, strict=False):  # only what the first one has would be read
        if other := set(own.names) ^ set(held[0].names):
            raise Refused(f"its part {part.name} and the first one differ in {', '.join(sorted(other))}")
    vectors = [one.name for one in table.schema if re.match(VECTORS, str(one.type))]
    encoded = [one.name for one in table.schema if re.match(ENCODED, f"{one.type} {one.name.lower()}")]
    chosen = choose([name for name in names if name not in encoded], columns, vectors)
    for name in {*chosen["ids"], *chosen["labels"], *chosen["groups"]} - set(folders):
        # The first one's type would be every part's, and "007" would be 7.
        types = {str(own.field(name).type) for own in held} - {"null"}
        if len({"string" in one for one in types}) > 1:
            kinds = " in some parts and ".join(sorted(types))
            raise Refused(f"column {name!r} is {kinds} in others; write all parts with one type")
    if parts != sorted(parts, key=_counted) and not chosen["ids"]:
        # pandas reads part-10 before part-2, and whoever wrote them counted
        raise Refused(
            f"its {len(parts)} parts have no ids, and by name they stand in another order than by number, so "
            "that nothing says which row is which; write ids beside the features, or pad numbers: part-02"
        )
    found = _values(table.to_table(sum(chosen.values(), [])), chosen)
    found |= {role: whole_numbers(found[role]) for role in found if chosen[role][0] in folders}
    return found, notes + not_read(names, chosen)


def _counted(part: Path) -> tuple[Path, str]:
    return part.parent, re.sub(r"\d+", lambda number: number[0].zfill(20), part.name)


def read_text(path: Path, columns: dict[str, str]) -> Found:
    """A table in text with commas, semicolons, tabs or bars, and with decimal points or commas."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            excel = re.match(r"sep=(.)\r?\n", file.readline())  # how Excel is told the separator
            mark, decimal, head = separator(path, excel[1] if excel else ",;\t|", int(bool(excel)))
            if not excel:
                file.seek(0)
            reader = csv.reader(file, delimiter=mark)
            header = [name.strip() for name in next(filter(None, reader), [])]
            header[:1] = [name.removeprefix("#").strip() for name in header[:1]]  # as numpy.savetxt marks it
    except UnicodeDecodeError as error:
        raise Refused("it is not text in UTF-8; save it as such") from error
    except pd.errors.EmptyDataError as error:
        raise Refused("it is empty; write the names of the columns into the first line") from error
    notes = _check_header(header, columns)
    head.columns = header
    vectors = []
    for name, column in head.select_dtypes(exclude="number").items():
        some = [cell for cell in column.dropna().astype(str) if cell.strip()]
        if some and all(map(LIKE_A_LIST.fullmatch, some)):
            vectors.append(name)
    chosen = choose(header, columns, vectors)
    used, single = sum(chosen.values(), []), [name for name in chosen["features"] if name not in vectors]
    places, skipped = [header.index(name) for name in single], reader.line_num + bool(excel)
    if places:
        _refuse_thousands(path, mark, decimal, skipped, places)
    read = {"block_size": 1 << 24, "column_names": header, "skip_rows": skipped}
    types = dict.fromkeys(used, pa.string()) | dict.fromkeys(single, pa.float64())
    convert = {"include_columns": used, "column_types": types, "null_values": [""], "decimal_point": decimal}
    options = (
        arrow_csv.ReadOptions(use_threads=False, **read),  # without threads its errors say which row
        arrow_csv.ParseOptions(delimiter=mark, newlines_in_values=True),
        arrow_csv.ConvertOptions(**convert),
    )
    try:
        found = _values(arrow_csv.read_csv(path, *options), chosen)
    except pa.ArrowInvalid as error:
        said = re.sub(r"column #(\d+)", lambda match: f"column {header[int(match[1])]!r}", str(error))
        raise Refused(
            f"{said}; mend the row (every cell is needed, one decimal sign in the whole file, and quotes in "
            "pairs around text that holds the separator), or leave it out"
        ) from error
    found |= {role: whole_numbers(found[role]) for role in ("ids", "labels") if role in found}
    return found, [*notes, *not_read(header, chosen)]


def _refuse_thousands(path: Path, mark: str, decimal: str, skipped: int, places: list[int]) -> None:
    """Refuse 1.234 beside 987: whole numbers whose thousands are marked, and no fractions of three digits."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(islice(file, skipped, skipped + 100), delimiter=mark))
    cells = [row[place].strip() for row in rows for place in places if place < len(row)]
    marked = [cell for cell in cells if decimal in cell]
    grouped = re.compile(rf"[-+]?[1-9]\d{{0,2}}(\{decimal}\d{{3}})+")
    if 10 <= len(marked) < len(cells) and all(map(grouped.fullmatch, marked)):
        raise Refused(
            f"numbers such as {marked[0]} stand beside whole ones, as if {decimal!r} marked thousands; write "
            "numbers without such marks, or fractions with another number of digits"
        )


def whole_numbers(texts: np.ndarray) -> np.ndarray:
    """Texts that are all whole numbers, or empty, as such; all else as it is."""
    there = [one for one in texts if one not in ("", None)]
    if not all(isinstance(one, str) and WHOLE.fullmatch(one) for one in there):
        return texts
    return np.array([int(one.removesuffix(".0")) if one else None for one in texts], object)


def separator(path: Path, marks: str, skipped: int = 0) -> tuple[str, str, pd.DataFrame]:
    """The separator and decimal sign with which the first rows hold the most numbers, and these rows."""
    found, unread = [], False
    for mark, decimal in product(marks, ".,"):
        options = {"sep": mark, "decimal": decimal, "skiprows": skipped, "encoding": "utf-8-sig"}
        options |= {"nrows": 100, "index_col": False, "keep_default_na": False, "on_bad_lines": "skip"}
        with warnings.catch_warnings(action="ignore"):  # under a wrong separator much looks odd
            try:
                found += [] if mark == decimal else [(mark, decimal, pd.read_csv(path, **options))]
            except pd.errors.ParserError:
                unread = True
    best = max(found, key=lambda x: (x[2].select_dtypes("number").shape[1], x[2].shape[1]), default=None)
    if best is None or (unread and best[2].shape[1] == 1):
        raise Refused("its quotes do not go in pairs; look for a lone one")
    return best


def _check_header(header: list[str], columns: Mapping[str, str]) -> list[str]:
    """A note where the names of the columns are numbers; a refusal where they look like a row."""
    known = {"", *columns.values(), *sum(USUAL.values(), ())}
    numbers = [name for name in header if re.fullmatch(NUMBER.replace(r"\.", "[.,]"), name)]
    others = [name for name in header if name not in numbers and name.lower() not in known]
    counted = any(numbers == [str(i + start) for i in range(len(numbers))] for start in (0, 1))
    odd = not counted or (others and len(numbers) < 4)  # no feature goes 0, 1, 2, 3
    fractions = not all(name.isdigit() for name in numbers)
    lists = [name for name in header if re.match(rf"\[|{BARE_LIST}$", name)]
    if lists or fractions or (odd and 2 * len(numbers) >= len(header)):
        raise Refused(
            f"the first line ({', '.join(header[:4])}, ...) looks like a row, not like the names of the "
            "columns; write them above it, such as path,f0,f1,..."
        )
    return [f"the first line was taken for names, {', '.join(header[:4])}, ..."] if numbers else []


def choose(header: Sequence[str], columns: Mapping[str, str], vectors: Sequence[str]) -> Roles:
    """Which columns are ids, labels (at most one each) and features; `vectors` hold one in each cell.

    A column that was asked for has no other role. Labels and groups that were may stand elsewhere.
    """
    if twice := [name for name, times in Counter(header).items() if name and times > 1]:
        raise Refused(f"two columns are called {twice[0]!r}; give each its own name")
    shown, free, chosen = ", ".join(header[:8]) + ", ..." * (len(header) > 8), list(header), {}
    for role in ("ids", "labels", "groups", "features"):
        others = {name for other, name in columns.items() if other != role}
        usual = [name for name in free if name.lower() in USUAL.get(role, ()) and name not in others]
        if role == "features":
            some = [name for name in free if name in vectors]
            rows = _groups([one for one in free if one not in some]) if some else []  # beside boxes
            usual = [name for name in some if name in usual] or [*some, *usual, *rows]
        found = [columns[role]] if role in columns else usual
        if role in ("groups", "labels"):  # in one of the files that are read for one purpose
            found = [name for name in found if name in free]
        if len(found) > 1:
            raise Refused(
                f"the {role} could be {' or '.join(map(repr, found))}; say which, with "
                f"{_asked(role, found[0])}"
            )
        if role == "features" and not set(found) & set(free):
            found = _numbered(free, columns.get(role))
        if (found or role == "features") and not set(found) & set(free):
            called = f" {columns[role]!r}" if role in columns else ""
            raise Refused(
                f"there is no column of {role}{called} in {shown}; number features f0, f1, ..., or give the "
                f"right name with {_asked(role, '...')}"
            )
        chosen[role] = found
        taken = set(found)
        free = [name for name in free if name not in taken]
    return chosen


def _asked(role: str, name: str) -> str:
    return f"columns={{{role!r}: {name!r}}} (--column {role}={name})"


def _groups(header: Sequence[str]) -> dict[str, list[tuple[int, str]]]:
    """Columns that begin alike and end in a number, two or more: what they begin with -> number and name."""
    groups: dict[str, list[tuple[int, str]]] = {}
    for name in header:
        if match := re.fullmatch(r"(.*?)(\d+)", name):
            groups.setdefault(match[1], []).append((int(match[2]), name))
    return {start: names for start, names in groups.items() if len(names) > 1}


def _numbered(header: list[str], start: str | None) -> list[str]:
    """The one group of columns that begin so, in the order of their numbers."""
    groups = _groups(header)
    starts = list(groups) if start is None else [start]
    if len(starts) > 1:
        raise Refused(
            f"numbered columns begin with {' and with '.join(map(repr, starts))}; say which are features, "
            f"with {_asked('features', starts[0])}"
        )
    group = sorted(groups.get(starts[0], [])) if starts else []
    for (number, name), (after, other) in pairwise(group):
        if after != number + 1:
            raise Refused(f"column {name} is followed by {other}; number them without gaps and doubles")
    return [name for _, name in group]


def not_read(names: Sequence[str], chosen: Roles) -> list[str]:
    """The note about columns or arrays that were left out, if any."""
    used = set(sum(chosen.values(), []))
    left = [name or "a column without a name" for name in names if name not in used]
    return [f"not read: {', '.join(left)}"] if left else []


def _values(table: pa.Table, chosen: Roles) -> dict[str, np.ndarray]:
    if not len(table):
        raise Refused("there are columns, but no row")
    names, first = chosen["features"], table[chosen["features"][0]]
    if len(names) == 1 and re.match(rf"(large_)?string|extension|{VECTORS}", str(first.type)):
        features = _vectors(names[0], first)
    else:
        features = np.stack([_numeric(name, table[name]) for name in names], axis=1)
    keys = {role: chosen[role][0] for role in ("ids", "labels", "groups") if chosen[role]}
    values = {role: np.array(table[name].to_pylist(), object) for role, name in keys.items()}
    return {"features": features} | values


def _vectors(name: str, column: pa.ChunkedArray) -> np.ndarray:
    if isinstance(column.type, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks])
    if re.match("(large_)?string", str(column.type)):  # "[0.5, 1.5]" or, by NumPy, "[0.5 1.5]"
        column = compute.fill_null(column, "")
        row = compute.index(compute.match_substring_regex(column, WRITTEN_LIST), False).as_py()
        if row >= 0:
            raise Refused(
                f"column {name!r} holds {column[row].as_py()[:40]!r} in row {row}, which is no whole list of "
                "numbers (NumPy shortens long ones with '...'); export it again, or leave the row out"
            )
        column = compute.split_pattern_regex(compute.utf8_trim(column, " []{}()\r\n\t"), r"[,;\s]+")
        column = column.cast(pa.list_(pa.float64()))
    if "list" not in str(column.type):
        raise Refused(
            f"column {name!r} holds bytes, and nothing says of which numbers; write lists, such as "
            "[numpy.frombuffer(cell, 'float32') for cell in column]"
        )
    lengths = compute.fill_null(compute.list_value_length(column), 0).to_numpy()
    width = int(np.median(lengths))
    if len(wrong := np.flatnonzero((lengths != width) | (lengths == 0))):
        raise Refused(
            f"column {name!r} holds {lengths[wrong[0]] or 'no'} numbers in row {wrong[0]}, and {width} in "
            f"most rows ({len(wrong)} of {len(lengths)} are unlike them); leave these rows out"
        )
    return _numeric(name, compute.list_flatten(column), width).reshape(len(lengths), -1)


def _numeric(name: str, column: pa.ChunkedArray, width: int = 1) -> np.ndarray:
    """Numbers without gaps, 64-bit ones as float32."""
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise Refused(f"column {name!r} holds {column.type}, not numbers; convert it")
    if column.null_count:
        row = compute.index(column.is_null(), True).as_py() // width
        raise Refused(
            f"column {name!r} has {column.null_count} empty cells, first in row {row}; extract these images "
            "again, or leave the rows out"
        )
    values = column.to_numpy()
    with np.errstate(over="ignore"):  # what becomes infinite is refused with its row
        return values if values.dtype.itemsize < 8 else values.astype(np.float32)
