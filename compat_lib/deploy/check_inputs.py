"""What a compatibility check is given: two models' features of the same images, brought into one order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from compat_lib.deploy.feature_files import as_keys
from compat_lib.evaluation.inputs import UnitRows, plain_array, table

FOUND = 0.5  # of the shorter side's ids, that must stand on the other side too
NO_LABEL = ["", "nan", "NaN", "None", "none", "null", "NULL", "N/A", "n/a", "NA", "<NA>", "unknown", "-1"]
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
    features = {"old": old_features, "new": new_features}
    keys: dict[tuple[str, str], np.ndarray] = {}
    try:
        features = {side: table(one, f"{side} features") for side, one in features.items()}
        units = {side: UnitRows(one, side) for side, one in features.items()}
        for role, given in (("labels", (labels, new_labels)), ("ids", (ids, new_ids))):
            for side, values in zip(("old", "new"), given, strict=True):
                if values is not None:
                    keys[side, role] = as_keys(role, plain_array(values))
                    if len(keys[side, role]) != len(units[side]):
                        raise ValueError(
                            f"there are {len(keys[side, role])} {side} {role} for {len(units[side])} {side} "
                            "features; give one for each row"
                        )
    except ValueError as error:
        raise UnusableInput(str(error)) from error
    notes = [
        f"The {side} features are unsigned 8-bit numbers: take off their zero point (often 128) if they are "
        "quantised, and unpack them (numpy.unpackbits, then 0 as -1) if they are packed bits."
        for side, one in features.items()
        if str(one.dtype) in ("uint8", "torch.uint8")
    ]
    old_rows, new_rows = _joined(keys, {side: len(one) for side, one in units.items()}, notes)
    named = _one_label(keys, old_rows, new_rows)
    missing = _no_label(named)
    if missing.any():
        words = ", ".join(repr(str(word)) for word in np.unique(named[missing]))
        notes.append(
            f"{int(missing.sum())} images with the label {words}, which usually means that there is none, "
            "are left out; give an identity of that name another one."
        )
    numbers = np.unique(named[~missing], return_inverse=True)[1]
    before = units["old"][torch.from_numpy(old_rows[~missing])]
    after = units["new"][torch.from_numpy(new_rows[~missing])]
    failed = _alike(before, numbers)
    mostly = bool(2 * failed.sum() > len(failed))
    if failed.any():
        done = "kept, and nothing is called compatible by them" if mostly else "left out on both sides"
        notes.append(f"{int(failed.sum())} of the {len(failed)} old {ALIKE}; {done}.")
    if failed.any() and not mostly:
        kept = torch.from_numpy(np.flatnonzero(~failed))
        before, after = before[kept.to(before.device)], after[kept.to(after.device)]
        numbers = np.unique(numbers[~failed], return_inverse=True)[1]
    failed = _alike(after, numbers)
    if failed.any():
        notes.append(f"{int(failed.sum())} of the {len(failed)} new {ALIKE}; kept.")
    sizes = np.bincount(numbers)
    if len(sizes) < 2:
        raise UnusableInput(
            f"all {len(numbers)} images are of one identity; add images of others, or there is nothing to "
            "confuse it with"
        )
    if sizes.max() < 2:
        raise UnusableInput(
            f"no identity has two images ({len(numbers)} images), so no query has a right answer; add a "
            "second image of some identities"
        )
    return Sides(before.to(after.device), after, numbers, tuple(notes), mostly)


def _joined(keys: dict, sizes: dict[str, int], notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The rows of both sides that are the same images, int64 [M] each, in the old side's order."""
    have = [side for side in ("old", "new") if (side, "ids") in keys]
    if len(have) == 1:
        raise UnusableInput(
            f"only the {have[0]} side has ids; add those of the other, or leave both out where row i of both "
            "is the same image"
        )
    if not have:
        if sizes["old"] != sizes["new"]:
            raise UnusableInput(
                f"there are {sizes['old']} old and {sizes['new']} new rows and no ids; give features of the "
                "same images in the same order, or add ids [N] to both sides"
            )
        return (np.arange(sizes["old"]),) * 2
    old, new = _of_one_kind(keys["old", "ids"], keys["new", "ids"])
    for side, ids in (("old", old), ("new", new)):
        twice = pd.Series(ids).duplicated().to_numpy()
        if twice.any():
            raise UnusableInput(
                f"{int(twice.sum())} of the {side} ids stand there before, such as "
                f"{ids[twice.argmax()].item()!r}; an id names one image"
            )
    place = pd.Index(new).get_indexer(pd.Index(old))
    found = np.flatnonzero(place >= 0)
    if len(found) < FOUND * min(sizes.values()):
        raise UnusableInput(
            f"only {len(found)} of {min(sizes.values())} ids stand on the other side too (old: "
            f"{old[0].item()!r}, ...; new: {new[0].item()!r}, ...); one image needs the same id in both"
        )
    if len(found) < max(sizes.values()):
        notes.append(
            f"{len(old) - len(found)} images on the old side only and {len(new) - len(found)} on the new "
            f"side only are left out; {len(found)} are compared."
        )
    return found, place[found]


def _one_label(keys: dict, old_rows: np.ndarray, new_rows: np.ndarray) -> np.ndarray:
    """The labels of the joined rows, after a look at whether both sides agree."""
    rows = {"old": old_rows, "new": new_rows}
    known = [keys[side, "labels"][rows[side]] for side in rows if (side, "labels") in keys]
    if not known:
        raise UnusableInput("no labels were given; give one for each image")
    old, new = _of_one_kind(known[0], known[-1])
    old = np.where(_no_label(old), new, old)
    wrong = np.flatnonzero((old != new) & ~_no_label(new))
    if len(wrong):
        first = wrong[0]
        raise UnusableInput(
            f"the labels of both sides differ in {len(wrong)} rows, first at old row {old_rows[first]} (old: "
            f"{old[first].item()!r}, new: {new[first].item()!r}); row i of both, or an id, must be one image "
            "with one label: check ids and labels"
        )
    return old


def _no_label(labels: np.ndarray) -> np.ndarray:
    return np.isin(labels.astype(str), NO_LABEL)


def _of_one_kind(old: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Numbers beside names are compared as text, and so are int64 and uint64, which have no common type.
    return (old, new) if old.dtype.kind == new.dtype.kind else (old.astype(str), new.astype(str))


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
