"""Lists that come with a data set, text files of millions of lines: read by pandas, a wrong line is named."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from .decoding import printable

ANEW = "take images and lists of one release, and fetch them anew"


def read_list(
    path: Path, columns: Mapping[str, type], *, sep: str = " ", header: bool = False
) -> pd.DataFrame:
    """Return the columns of a text file, one row a line.

    Args:
        path: of the list.
        columns: name -> str, np.int64 or np.float32, in the file's order. A list without a header has these
            columns and no others; of one with a header they are the first ones, whatever it calls them.
        sep: one character between the fields.
        header: the first line names the columns.

    Raises:
        FileNotFoundError, ValueError: there is no list; it is empty; the first wrong line, by its number.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no list {printable(path)}; it comes with the data set's lists")
    places = dict(enumerate(columns.values()))
    try:
        frame = pd.read_csv(
            path,
            sep=sep,
            header=0 if header else None,
            dtype=str if header else places,
            usecols=list(places) if header else None,
            index_col=False,
            na_filter=False,
            quoting=csv.QUOTE_MINIMAL if header else csv.QUOTE_NONE,  # a file's name may have a quote
        )
        if frame.shape[1] != len(columns) or frame.empty or header and frame.columns[0].isdecimal():
            raise ValueError("another number of columns, no row, or no names of columns")
        frame.columns = list(columns)
        frame = frame.astype(dict(columns)) if header else frame
        if not np.isfinite(frame.select_dtypes(np.float32)).all(axis=None):
            raise ValueError("a number that is not finite")
        return frame
    except (ValueError, OverflowError) as error:  # pandas' own parser errors are ValueErrors
        raise ValueError(_first_wrong_line(path, columns, sep, header) or f"{path}: {error}") from error


def refuse_line(path: Path, wrong: np.ndarray, says: Callable[[int], str], *, header: bool = False) -> None:
    """Refuse a list at its first wrong line.

    Args:
        path: of the list.
        wrong: bool [N], of each row.
        says: row -> what is wrong with it, after "line 3 of list.txt".
        header: the rows begin at the second line.
    """
    if np.any(wrong):
        row = int(np.argmax(wrong))
        raise ValueError(f"line {row + 1 + header} of {printable(path)} {says(row)}; {ANEW}")


def _first_wrong_line(path: Path, columns: Mapping[str, type], sep: str, header: bool) -> str | None:
    """What is wrong with the first line that is, found slowly since nobody waits for it twice."""
    wanted = f"each line has {len(columns)}: {', '.join(columns)}"
    empty = True
    with open(path, encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            fields, place = line.rstrip("\r\n").split(sep), f"line {number} of {printable(path)}"
            if header and number == 1:
                if fields[0].isdecimal():
                    return f"{place} is {fields[0]} ... and no names of columns; fetch the list anew"
                continue
            empty = False
            if len(fields) < len(columns) or not header and len(fields) > len(columns):
                told = wanted if not header else wanted.replace("has", "begins with")
                return f"{place} has {len(fields)} fields, but {told}; fetch the list anew"
            for field, kind in zip(fields, columns.values(), strict=False):
                try:
                    value = kind(field)
                    wrong = kind is np.float32 and not np.isfinite(value)
                except (ValueError, OverflowError):
                    wrong = True
                if wrong:
                    word = "whole number" if kind is np.int64 else "number"
                    return f"{place}: {field!r} is no {word}, but {wanted}; fetch the list anew"
    return f"{printable(path)} is empty; {wanted}; fetch the list anew" if empty else None
