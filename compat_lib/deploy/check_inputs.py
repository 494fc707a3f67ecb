"""What a compatibility check is given: two models' features of the same images, brought into one order."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from compat_lib.evaluation.inputs import UnitRows, plain_array, table

FOUND = 0.5  # of the shorter side's ids, that must stand on the other side too
NO_LABEL = {"", "nan", "NaN", "None", "none", "null", "NULL", "N/A", "n/a", "NA", "<NA>", "unknown", "-1", -1}
REPEATED, OF_IDENTITIES = 5, 3  # rows alike, of so many identities at least, are no features of their images
ALIKE = "features are zeros, or one vector for different identities, as from unreadable images"
CELL = 1e-4  # rows are alike whose projections on a few directions differ by less
DIRECTIONS = 4
BLOCK = 2**16  # rows worked on at a time


class UnusableInput(ValueError):
    """Input from which compatibility cannot be judged; the text says why and what to do next."""


@dataclass(frozen=True, eq=False)
class Sides:
    """The images that both models have embedded, row i of both being the same one."""

    before: Tensor  # float32 [M, d_old], unit rows of the old model
    after: Tensor  # float32 [M, d_new], unit rows of the new model
    labels: np.ndarray  # int64 [M], identities 0..K-1 in the order of their names
    notes: tuple[str, ...]  # what was left out, and what to be careful with
    mostly_alike: bool  # more than half of the old rows are one vector, which no verdict may rest on

    @property
    def equal_widths(self) -> bool:
        """Whether a new query has a cosine with an old gallery image."""
        return self.before.shape[1] == self.after.shape[1]


def bring_together(
    old_features: Any,
    new_features: Any,
    labels: Any,
    *,
    new_labels: Any = None,
    ids: Any = None,
    new_ids: Any = None,
) -> Sides:
    """Check both models' features, bring them into one order, and leave out what says nothing.

    - With ids, rows are joined by them; images of one side only are left out. Without, row i is row i.
    - Text is compared in Unicode's NFC, so that a name typed on a Mac is the same elsewhere.
    - A label that usually means *no label* (`NO_LABEL`, None, nan) is left out. A person of that name is lost
      by this, which the note tells.
    - Old rows that hold one and the same vector for different identities, or nothing but zeros, are what a
      model gives for an unreadable image. They are left out on both sides, so that the new model gains
      nothing by them. Such new rows stay and count against the new model.

    Args:
        old_features, new_features: real [N, d_old], [N', d_new], NumPy, torch or lists; rows of any length.
        labels, new_labels: whole numbers or names [N], [N']; one of them may be None.
        ids, new_ids: whole numbers or names of the images, each once; None: both sides hold the same images.

    Raises:
        UnusableInput: lengths that differ, ids of one side only or given twice, labels of both sides that
            differ, fewer than half of the ids found, fewer than two identities, no identity of two images,
            and tables that hold no finite real numbers.

    >>> sides = bring_together([[1.0, 0.0]] * 3, [[0.0, 2.0]] * 3, ["b", "b", "a"])
    >>> sides.after.tolist()[0], sides.labels.tolist()
    ([0.0, 1.0], [1, 1, 0])
    """
    notes: list[str] = []
    sides = {"old": old_features, "new": new_features}
    try:
        tables = {name: table(features, f"{name} features") for name, features in sides.items()}
        units = {name: UnitRows(features, name) for name, features in tables.items()}
    except ValueError as error:
        raise UnusableInput(str(error)) from error
    notes += [
        f"The {name} features are whole numbers from 0 to 255: take off their zero point (often 128) if they "
        "are quantised, and unpack them (numpy.unpackbits, then 0 as -1) if they are packed bits."
        for name, features in tables.items()
        if str(features.dtype) in ("uint8", "torch.uint8")
    ]
    known = {
        "old": _keys(labels, "old labels", len(units["old"])),
        "new": _keys(new_labels, "new labels", len(units["new"])),
    }
    if known["old"] is None and known["new"] is None:
        raise UnusableInput("no labels were given; give one for each image")
    rows = _joined(
        _keys(ids, "old ids", len(units["old"])), _keys(new_ids, "new ids", len(units["new"])), units, notes
    )
    named = _one_label(known, rows)
    has_label = np.array([label is not None and label not in NO_LABEL for label in named], bool)
    if not has_label.all():
        words = ", ".join(sorted({repr(label) for label in named[~has_label]}))
        notes.append(
            f"{_count(int((~has_label).sum()), 'image')} with the label {words}, which usually means that "
            "there is none, left out; give an identity of that name another one."
        )
    unit = {name: side[torch.from_numpy(rows[name][has_label])] for name, side in units.items()}
    numbers = pd.factorize(named[has_label], sort=True)[0]
    failed = _alike(unit["old"], numbers)
    mostly = bool(2 * failed.sum() > len(failed))
    if failed.any():
        done = "kept, and nothing is called compatible by them" if mostly else "left out on both sides"
        notes.append(f"{int(failed.sum())} of the {len(failed)} old {ALIKE}; {done}.")
    if failed.any() and not mostly:
        kept = torch.from_numpy(np.flatnonzero(~failed))
        unit = {name: side[kept.to(side.device)] for name, side in unit.items()}
        numbers = pd.factorize(numbers[~failed], sort=True)[0]
    failed = _alike(unit["new"], numbers)
    if failed.any():
        notes.append(f"{int(failed.sum())} of the {len(failed)} new {ALIKE}; kept.")
    _check_identities(numbers)
    return Sides(unit["old"].to(unit["new"].device), unit["new"], numbers, tuple(notes), mostly)


def _keys(values: Any, what: str, rows: int) -> np.ndarray | None:
    """Whole numbers or names in NFC as objects [N], None for a missing one."""
    if values is None:
        return None
    array = plain_array(values)
    if array.shape != (rows,):
        raise UnusableInput(f"the {what} have shape {array.shape} for {rows} rows; give one for each row")
    places, distinct = pd.factorize(array)
    names = [_name(value, what) for value in distinct]
    if len({isinstance(name, str) for name in names}) > 1:
        raise UnusableInput(f"some of the {what} are names and some numbers; use one kind")
    return np.array([*names, None], object)[places]  # a missing value has the place -1


def _name(value: Any, what: str) -> str | int:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        return unicodedata.normalize("NFC", str(value))
    try:
        if int(value) == value and not (isinstance(value, float) and abs(value) > 2**53):
            return int(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise UnusableInput(f"the {what} hold {value}; give whole numbers or names")


def _joined(old: Any, new: Any, units: dict[str, UnitRows], notes: list[str]) -> dict[str, np.ndarray]:
    """The rows of both sides that are the same images, int64 [M] each, in the old side's order."""
    if (old is None) != (new is None):
        have, lack = ("old", "new") if new is None else ("new", "old")
        raise UnusableInput(
            f"only the {have} side has ids; add those of the {lack} side, or leave both out where row i of "
            "both is the same image"
        )
    if old is None:
        if len(units["old"]) != len(units["new"]):
            raise UnusableInput(
                f"there are {len(units['old'])} old and {len(units['new'])} new rows and no ids; give "
                "features of the same images in the same order, or add ids [N] to both sides"
            )
        return {name: np.arange(len(side)) for name, side in units.items()}
    for name, ids in (("old", old), ("new", new)):
        twice = pd.Series(ids).duplicated() | (ids == None)  # noqa: E711  (element by element)
        if twice.any():
            raise UnusableInput(
                f"{int(twice.sum())} of the {name} ids are missing or given before, the first "
                f"{ids[int(twice.to_numpy().argmax())]!r}; an id names one image"
            )
    place = pd.Index(new, dtype=object).get_indexer(pd.Index(old, dtype=object))
    found = np.flatnonzero(place >= 0)
    fewest = min(len(old), len(new))
    if len(found) < FOUND * fewest:
        raise UnusableInput(
            f"only {len(found)} of {fewest} ids stand on the other side too (old: {old[0]!r}, ...; new: "
            f"{new[0]!r}, ...); the same image needs the same id in both"
        )
    if len(found) < max(len(old), len(new)):
        notes.append(
            f"{_count(len(old) - len(found), 'image')} on the old side only and {len(new) - len(found)} on "
            f"the new side only left out; {len(found)} are compared."
        )
    return {"old": found, "new": place[found]}


def _one_label(known: dict[str, Any], rows: dict[str, np.ndarray]) -> np.ndarray:
    """The labels of the joined rows, after a look at whether both sides agree."""
    both = [labels[rows[name]] for name, labels in known.items() if labels is not None]
    wrong = np.flatnonzero(both[0] != both[-1])
    if len(wrong):
        first = wrong[0]
        raise UnusableInput(
            f"the labels of both sides differ in {_count(len(wrong), 'row')}, first at old row "
            f"{rows['old'][first]} (old: {both[0][first]!r}, new: {both[-1][first]!r}); row i of both, or an "
            "id, must be one image with one label: check ids and labels"
        )
    return both[0]


def _alike(unit: Tensor, labels: np.ndarray) -> np.ndarray:
    """Which rows are zeros, or one vector that several identities share, bool [N].

    Rows are compared by a few random projections, rounded: what differs in the last bits is the same vector.
    """
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(unit.shape[1], DIRECTIONS, generator=generator, dtype=torch.float64)
    parts = [part.cpu().double() @ directions for part in unit.split(BLOCK)]
    cells = pd.DataFrame(np.round(torch.cat(parts).numpy() / CELL).astype(np.int64))
    label = cells.assign(label=labels).groupby(list(cells.columns))["label"]
    shared = (label.transform("size") >= REPEATED) & (label.transform("nunique") >= OF_IDENTITIES)
    return (shared | (cells == 0).all(axis=1)).to_numpy()


def _check_identities(labels: np.ndarray) -> None:
    sizes = np.bincount(labels)
    if len(sizes) < 2:
        raise UnusableInput(
            f"all {len(labels)} images are of one identity; add images of others, or there is nothing to "
            "confuse it with"
        )
    if sizes.max() < 2:
        raise UnusableInput(
            f"no identity has two images ({len(labels)} images), so no query has a right answer; add a "
            "second image of some identities"
        )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
