"""What a gallery is given, checked: ids as whole numbers, features as rows of unit length, models by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def as_array(values: Any) -> np.ndarray:
    """A NumPy array of a list, an array or a torch tensor, which is never imported for it."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if str(values.dtype) == "torch.bfloat16":  # NumPy has no such type
            values = values.float()
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ValueError("these values are no table: their rows have unequal lengths") from error


def checked_ids(values: Any, repeats: bool = False) -> np.ndarray:
    """Ids as int64 [n].

    Raises:
        ValueError: "the ids have shape (2, 1) and type float64 ...", "the ids hold -1 ..." or "the id 7 was
            given 2 times ..."

    >>> checked_ids([3, 1])
    array([3, 1])
    """
    array = as_array(values)
    if array.ndim == 1 and not len(array):
        return np.empty(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(
            f"the ids have shape {array.shape} and type {array.dtype}; give a list of whole numbers of at "
            "least 0, one for each entry, and keep a table of your own names beside the gallery"
        )
    for end in (array.min(), array.max()):
        if not 0 <= end < 2**63:
            raise ValueError(
                f"the ids hold {end}; give whole numbers of at least 0 and below 2**63, and keep a table of "
                "your own names beside the gallery"
            )
    array = array.astype(np.int64)
    if not repeats:
        once, times = np.unique(array, return_counts=True)
        if len(once) < len(array):
            raise ValueError(
                f"the id {once[times.argmax()]} was given {times.max()} times; give each id once"
            )
    return array


def checked_rows(features: Any, width: int, who: str, ids: np.ndarray | None = None) -> np.ndarray:
    """Features as float32 [n, width] of unit length.

    Args:
        features: [n, width] real numbers, NumPy or torch.
        width: what the model's features have.
        who: what the error messages call them, such as "features of 'old-2024'".
        ids: int64 [n], one for each row; None for queries.

    Raises:
        ValueError: "the features of 'old-2024' have shape (10, 32) ...", "there are 9 ids for 10 ...", or
            "... hold NaN, infinite values or nothing but zeros ..."

    >>> checked_rows([[3.0, 4.0]], 2, "features")
    array([[0.6, 0.8]], dtype=float32)
    """
    array = as_array(features)
    if array.ndim != 2 or array.shape[1] != width or array.dtype.kind not in "fiu":
        raise ValueError(
            f"the {who} have shape {array.shape} and type {array.dtype}; the model was declared with {width} "
            f"numbers a feature: give real numbers [n, {width}], or name the model that made them"
        )
    if ids is not None and len(ids) != len(array):
        raise ValueError(f"there are {len(ids)} ids for {len(array)} {who}; give one each")
    unit = np.empty(array.shape, np.float32)
    for start in range(0, len(array), 65_536):  # in double precision, a block at a time
        block = array[start : start + 65_536].astype(np.float64)
        largest = np.abs(block).max(axis=1, keepdims=True, initial=0)  # squares of huge numbers overflow
        usable = np.isfinite(largest[:, 0]) & (largest[:, 0] > 0)
        if not usable.all():
            broken = np.flatnonzero(~usable) + start
            which = f"row {broken[0]}" if ids is None else f"id {ids[broken[0]]}"
            raise ValueError(
                f"{len(broken)} or more of the {who} hold NaN, infinite values or nothing but zeros (the "
                f"first: {which}); look for a diverged model or a corrupt image and leave these rows out"
            )
        block /= largest
        unit[start : start + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return unit


def checked_width(model: str, width: Any) -> int:
    """The width as int, and a refusal of a model's name that is no text.

    Raises:
        ValueError: "a model's name is text such as 'old-2024', not 7" or "the width of ..."
    """
    if not isinstance(model, str) or not model.strip():
        raise ValueError(f"a model's name is text such as 'old-2024', not {model!r}")
    if isinstance(width, bool) or not isinstance(width, int | np.integer) or width < 1:
        raise ValueError(
            f"the width of {model!r} is {width!r}; give how many numbers a feature has, such as 64"
        )
    return int(width)


def checked_count(name: str, value: Any, least: int = 1) -> int:
    """A whole number of at least 1, or another least one.

    Raises:
        ValueError: "k is 0; give a whole number of at least 1"
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} is {value!r}; give a whole number of at least {least}")
    return int(value)


def listed(values: Sequence[Any], most: int = 5) -> str:
    """The first few values, for a sentence.

    >>> listed([4, 8, 15, 16, 23, 42])
    '4, 8, 15, 16, 23, ...'
    """
    return ", ".join(str(value) for value in values[:most]) + (", ..." if len(values) > most else "")
