"""The two sides of a compatibility check: checked, and brought into one order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compat_lib.evaluation.inputs import UnitRows

FOUND = 0.5  # of the shorter side's ids, that must stand on the other side too


class UnusableInput(ValueError):
    """Input from which compatibility cannot be judged; the text says why and what to do next."""


@dataclass(frozen=True)
class Source:
    """Where the features of one side came from."""

    name: str  # of the file, without its folder
    bytes: int
    digest: str  # SHA-256, hexadecimal
    rows: int
    width: int


@dataclass(frozen=True, eq=False)
class Side:
    """One model's features with their labels, checked."""

    name: str  # "old" or "new"
    features: Any = field(repr=False)  # [N, D] real and finite, NumPy or torch
    labels: np.ndarray = field(repr=False)  # int64, uint64 or str [N]
    ids: np.ndarray | None = field(default=None, repr=False)  # likewise, each once; None: not given
    source: Source | None = None


@dataclass(frozen=True, eq=False)
class Matched:
    """Which rows of both sides are the same images."""

    old_rows: Tensor = field(repr=False)  # int64 [M]
    new_rows: Tensor = field(repr=False)
    labels: np.ndarray = field(repr=False)  # [M]
    notes: tuple[str, ...] = ()  # what was left out


def checked_side(name: str, features: Any, labels: Any, ids: Any = None) -> Side:
    """Return one side of the check, or refuse it.

    Args:
        name: "old" or "new", for the sentences.
        features: real [N, D], NumPy, torch or nested lists; rows of any length.
        labels: [N], whole numbers (also as floats) or names.
        ids: [N], whole numbers or names of the images, each once; None where both sides hold the same images
            in the same order.

    Raises:
        UnusableInput: "the old features have shape ...", "... hold NaN or infinite values ...", "there are
            99 old labels for 100 old features ...", "the old labels must be whole numbers or names ...",
            "the old ids must be unique ...".

    >>> checked_side("old", [[1.0, 0.0]], [7.0]).labels
    array([7])
    """
    features = _table(features, name)
    try:
        rows = len(UnitRows(features, name))
    except ValueError as error:
        raise UnusableInput(str(error)) from error
    checked = [_keys(values, f"{name} {what}") for what, values in (("labels", labels), ("ids", ids))]
    for what, values in zip(("labels", "ids"), checked, strict=True):
        if values is not None and len(values) != rows:
            raise UnusableInput(
                f"there are {len(values)} {name} {what} for {rows} {name} features; give one for each row"
            )
    if checked[0] is None:
        raise UnusableInput(f"no {name} labels were given; give one label for each row")
    if checked[1] is not None:
        _check_unique(checked[1], f"{name} ids")
    return Side(name, features, *checked)


def _table(features: Any, name: str) -> Any:
    # Features as an array or a tensor, of whose shape and numbers nothing is known yet.
    try:
        features = features.detach() if isinstance(features, Tensor) else np.asarray(features)
    except (TypeError, ValueError) as error:
        raise UnusableInput(
            f"the {name} features are no table of numbers; give one row of real numbers for each image, all "
            "rows of one length"
        ) from error
    if isinstance(features, Tensor) and features.layout != torch.strided:
        raise UnusableInput(f"the {name} features are a sparse tensor; give a dense one, with .to_dense()")
    if "bool" in str(features.dtype):
        raise UnusableInput(f"the {name} features have type bool; give real numbers, one row for each image")
    return features


def _keys(values: Any, what: str) -> np.ndarray | None:
    # Labels or ids as whole numbers or as text.
    if values is None:
        return None
    try:
        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    except (TypeError, ValueError) as error:
        raise UnusableInput(f"the {what} are no array: {error}") from error
    if array.ndim != 1:
        hint = "; flatten them with .ravel()" if array.size == max(array.shape, default=0) else ""
        raise UnusableInput(
            f"the {what} have shape {list(array.shape)}; give one number or name for each row{hint}"
        )
    if array.dtype.kind in "OT" and all(isinstance(value, str) for value in array):
        array = array.astype(str)  # names as pandas gives them
    kind = array.dtype.kind
    if kind == "f":
        wrong = ~(np.isfinite(array) & (array == np.round(array)) & (abs(array) <= 2**53))
        if wrong.any():
            row = int(wrong.argmax())
            raise UnusableInput(
                f"the {what} must be whole numbers or names, but row {row} holds {array[row]:g}; number the "
                "identities, or give their names"
            )
        return array.astype(np.int64)
    if kind == "S":
        try:
            return np.char.decode(array, "utf-8") if array.size else array.astype(str)
        except UnicodeDecodeError as error:
            raise UnusableInput(f"the {what} hold bytes that are not UTF-8; save them as text") from error
    if kind == "U":
        return array
    if kind in "iub":
        return array if kind == "u" and array.size and array.max() > 2**63 - 1 else array.astype(np.int64)
    raise UnusableInput(
        f"the {what} have type {array.dtype}; give whole numbers, or names as a plain array of strings, such "
        "as numpy.asarray(names, dtype=str)"
    )


def _check_unique(ids: np.ndarray, what: str) -> None:
    values, first, times = np.unique(ids, return_index=True, return_counts=True)
    if len(values) == len(ids):
        return
    place = int(times.argmax())
    rows = np.flatnonzero(ids == values[place])[:2]
    raise UnusableInput(
        f"the {what} must be unique, but {values[place].item()!r} occurs {times[place]} times, first in rows "
        f"{rows[0]} and {rows[1]}; an id names one image"
    )


def match(old: Side, new: Side) -> Matched:
    """Return which rows of the two sides are the same images, and their labels.

    Without ids row i of both is the same image. With ids the rows are matched by them, in the order of the
    old side; an image that only one side has is left out, and counted in a note. Where fewer than half of
    the shorter side's ids are found on the other, that is taken for a mistake in the ids.

    Raises:
        UnusableInput: "there are 100 old and 90 new rows and no ids ...", "the labels of both sides differ
            ...", "only the old side has ids ...", "only 3 of the 90 new ids stand on the other side too ...",
            "all images are of one identity ...", "no identity has two images ...".
    """
    notes: tuple[str, ...] = ()
    if (old.ids is None) != (new.ids is None):
        have, lack = ("old", "new") if new.ids is None else ("new", "old")
        raise UnusableInput(
            f"only the {have} side has ids; add those of the {lack} side, or leave both out where row i of "
            "both is the same image"
        )
    if old.ids is None:
        if len(old.labels) != len(new.labels):
            raise UnusableInput(
                f"there are {len(old.labels)} old and {len(new.labels)} new rows and no ids; give features "
                "of the same images in the same order, or add ids [N] to both sides"
            )
        rows = [np.arange(len(old.labels))] * 2
    else:
        ids = _comparable(old.ids, new.ids, "ids")
        _, *rows = np.intersect1d(*ids, assume_unique=True, return_indices=True)
        order = np.argsort(rows[0], kind="stable")
        rows = [side[order] for side in rows]
        fewest = min((old, new), key=lambda side: len(side.ids))
        if len(order) < FOUND * len(fewest.ids):
            raise UnusableInput(
                f"only {len(order)} of the {len(fewest.ids)} {fewest.name} ids stand on the other side too "
                f"(old: {old.ids[0].item()!r}, ...; new: {new.ids[0].item()!r}, ...); the same image needs "
                "the same id in both"
            )
        alone = [len(side.ids) - len(order) for side in (old, new)]
        if any(alone):
            notes = (
                f"{_count(alone[0], 'image')} on the old side only and {alone[1]} on the new side only were "
                f"left out; {len(order)} are compared.",
            )
    labels = [side[place] for side, place in zip((old.labels, new.labels), rows, strict=True)]
    wrong = np.flatnonzero(np.not_equal(*_comparable(*labels, "labels")))
    if len(wrong):
        first, shown = wrong[0], [side[wrong[0]].item() for side in labels]
        where = f"row {first}" if old.ids is None else f"id {old.ids[rows[0][first]].item()!r}"
        said = (
            "without ids row i of both must be the same image: add ids [N] to both sides"
            if old.ids is None
            else "an id names one image and an image one identity: check ids and labels"
        )
        raise UnusableInput(
            f"the labels of both sides differ in {_count(len(wrong), 'row')}, first at {where} (old: "
            f"{shown[0]!r}, new: {shown[1]!r}); {said}"
        )
    _check_identities(labels[0])
    return Matched(torch.from_numpy(rows[0]), torch.from_numpy(rows[1]), labels[0], notes)


def _comparable(old: np.ndarray, new: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    if (old.dtype.kind == "U") != (new.dtype.kind == "U"):
        kinds = ["names" if side.dtype.kind == "U" else "numbers" for side in (old, new)]
        raise UnusableInput(
            f"the old {what} are {kinds[0]} and the new {what} {kinds[1]}; use one kind on both sides"
        )
    # NumPy compares int64 with uint64 as floats, which are too short for hashes.
    return (old, new) if old.dtype.kind == new.dtype.kind else (old.astype(str), new.astype(str))


def _check_identities(labels: np.ndarray) -> None:
    sizes = np.unique(labels, return_counts=True)[1]
    if len(sizes) < 2:
        raise UnusableInput(
            f"{'the one image is' if len(labels) == 1 else f'all {len(labels)} images are'} of one identity; "
            "add images of others, or there is nothing to confuse it with"
        )
    if sizes.max() < 2:
        raise UnusableInput(
            f"no identity has two images ({len(labels)} images, {len(sizes)} identities), so no query has a "
            "right answer; add a second image of some identities"
        )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
