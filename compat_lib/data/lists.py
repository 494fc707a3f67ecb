"""Lists that come with a data set, text files of millions of lines, and images that they name, streamed."""

import csv
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from .decoding import Resize, Size, printable, smooth_resize
from .encoded import EncodedImages, Names
from .images import ImageSet

ANEW = "take images and lists of one release, and fetch them anew"


def read_list(path: Path, columns: Mapping[str, type], *, header: bool = False) -> pd.DataFrame:
    """Return the columns of a text file, one row a line.

    Args:
        columns: name -> str, np.int64 or np.float32, in the file's order. A list without a header has these
            columns and no others; of one with a header they are the first ones, whatever it calls them.
        header: the first line names the columns, and commas part the fields; else blanks and tabs do.

    A list that is not there or empty is refused, and so is the first wrong line, by its number.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no list {printable(path)}; it comes with the data set's lists")
    places = dict(enumerate(columns.values()))
    try:
        frame = pd.read_csv(
            path,
            sep="," if header else r"\s+",  # as the sets' own readers split a line: one may end in a blank
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
        raise ValueError(_first_wrong_line(path, columns, header) or f"{path}: {error}") from error


def refuse_line(path: Path, wrong: np.ndarray, says: Callable[[int], str]) -> None:
    """Refuse a list at the first row that is wrong, bool [N]; `says(row)` follows "line 3 of list.txt"."""
    if np.any(wrong):
        row = int(np.argmax(wrong))
        raise ValueError(f"line {row + 1} of {printable(path)} {says(row)}; {ANEW}")


def _first_wrong_line(path: Path, columns: Mapping[str, type], header: bool) -> str | None:
    """What is wrong with the first line that is, found slowly since nobody waits for it twice."""
    wanted = f"each line {'begins with' if header else 'has'} {len(columns)}: {', '.join(columns)}"
    wanted += f"{', below a line of names' if header else ''}; fetch the list anew"
    number = 0
    with open(path, encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            fields = line.rstrip("\r\n").split("," if header else None)
            try:
                good = len(fields) == len(columns) or header and len(fields) > len(columns)
                if header and number == 1:
                    good = not fields[0].isdecimal()
                else:
                    kinds = zip(fields, columns.values(), strict=False)
                    good = good and all(kind is str or np.isfinite(kind(field)) for field, kind in kinds)
            except (ValueError, OverflowError):
                good = False
            if not good:
                return f"line {number} of {printable(path)} is {line.strip()[:200]!r}, but {wanted}"
    return f"{printable(path)} is empty; {wanted}" if number <= header else None


def listed_set(folder: Path, rows: pd.DataFrame, **how: Any) -> ImageSet:
    """Return the images of a table with their classes, streamed; the rest as in `listed_images`.

    A row is an image: "file", "class" (text, or a categorical; labels count the classes that occur, in their
    sorted order or that of the categories), and any further columns, which become extras.
    """
    classes = rows["class"].astype("category").cat.remove_unused_categories().cat
    labels = torch.tensor(classes.codes.to_numpy(np.int64))
    extras = {name: torch.tensor(rows[name].to_numpy()) for name in rows.columns.drop(["file", "class"])}
    images = listed_images(folder, rows["file"].tolist(), **how)
    return ImageSet(images, labels, tuple(classes.categories), extras)


def listed_images(
    folder: Path, names: Sequence[str], *, size: Size, resize: Resize = smooth_resize
) -> EncodedImages:
    """Return the images of a list, every one of which is there; none is decoded yet.

    The names are relative to the folder, whose own place is no part of the digest.
    """
    total, place = hashlib.sha256(), os.fspath(folder)
    for name in names:
        try:
            total.update(os.fsencode(f"{name}\0{os.stat(f'{place}/{name}').st_size}\n"))
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(
                f"the set's lists name {printable(name)}, which is not in {printable(folder)}; unpack the "
                "images anew, or take images and lists of one release"
            ) from None
    files = Names(f"{place}/{name}" for name in names)
    return EncodedImages(files, size=size, digest=total.hexdigest(), resize=resize)
