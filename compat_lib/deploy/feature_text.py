"""Tables of features in text: with which separator and names, and what is wrong in which line."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import compute
from pyarrow import csv as arrow_csv

from compat_lib.deploy.feature_tables import (
    DECIMAL_COMMA,
    USUAL,
    Found,
    Refused,
    choose,
    is_number,
    not_read,
    values_of,
)

csv.field_size_limit(1 << 30)  # a list in a cell can be long
SAMPLE = 1 << 20  # bytes of a text file from which its separator and its header are told
SEPARATORS = ",;\t|"
WHOLE = re.compile(r"(0|-?[1-9]\d{0,17})(\.0)?", re.ASCII)  # ".0" as pandas writes numbers beside a gap


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
    vectors = [name for name, some in cells.items() if any(some) and all(map(_is_list, filter(None, some)))]
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
                column_types=dict.fromkeys(used, pa.string()) | dict.fromkeys(numbers, pa.float64()),
                null_values=[""],
                decimal_point="," if comma else ".",
            ),
        )
        sound = all(compute.all(compute.is_finite(table[name]), skip_nulls=False).as_py() for name in numbers)
    except pa.ArrowInvalid as error:
        raise Refused(_first_fault(path, mark, header, numbers, lines, comma) or str(error)) from error
    if len(table) and not sound:
        raise Refused(_first_fault(path, mark, header, numbers, lines, comma))
    found = values_of(table, chosen)
    for role in ("ids", "labels"):
        if role in found and all(WHOLE.fullmatch(one) for one in found[role] if one):
            whole = [int(one.removesuffix(".0")) if one else None for one in found[role]]
            found[role] = np.array(whole, dtype=object)
    return found, [*notes, *not_read(header, chosen)]


def _likely(text: str, mark: str) -> tuple[bool, int, int]:
    """How much speaks for a separator: rows as long as the first, numbers, columns."""
    rows = list(filter(None, islice(csv.reader(io.StringIO(text, newline=""), delimiter=mark), 20)))
    width = len(rows[0]) if rows else 0
    alike = [row for row in rows if len(row) == width]
    numbers = sum(is_number(one, mark != ",") for row in alike[1:] for one in row)
    return width > 1 and 2 * len(alike) >= len(rows), numbers, width


def _is_list(cell: str) -> bool:
    words = cell.split()
    return cell[0] in "[(" or (len(words) > 1 and all(map(is_number, words)))


def _check_header(header: list[str], columns: Mapping[str, str]) -> list[str]:
    """A note where the names of the columns are numbers; a refusal where they look like a row."""
    known = {"", *columns.values(), *(name for names in USUAL.values() for name in names)}
    numbers = [name for name in header if is_number(name, comma=True)]
    others = [name for name in header if name not in numbers and name.lower() not in known]
    counted = [str(i) for i in range(len(numbers))], [str(i + 1) for i in range(len(numbers))]
    fractions = [name for name in numbers if not name.isdigit()]
    odd = numbers not in counted or (others and len(numbers) < 4)  # no feature goes 0, 1, 2, 3
    if fractions or (odd and 2 * len(numbers) >= len(header)) or any(name.startswith("[") for name in header):
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
                    if not is_number(row[place], comma) or (comma and "." in row[place]):
                        holds = f"holds {row[place]!r}, which is not a finite number"
                        what = holds if row[place].strip() else "is empty"
                        hint = (
                            " with one decimal sign in the whole file" if is_number(row[place], True) else ""
                        )
                        return f"{where}: column {name!r} {what}; mend it{hint}, or leave the line out"
        except csv.Error as error:
            return f"line {lines + reader.line_num} is not CSV: {error}; look for a lone quote"
        except UnicodeDecodeError:
            return "it is not text in UTF-8; save it as such"
    return None
