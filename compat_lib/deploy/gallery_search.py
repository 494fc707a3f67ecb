"""What a gallery takes from its user: rows, which get unit length, their scale, and numbers."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

SCALE_ROWS = 2000  # most features of a side that a scale is taken from, evenly spaced
BLOCK = 16_384  # rows that are read, scaled and written at a time


def as_array(values: Any) -> np.ndarray:
    """NumPy's array, with NaN for what is masked; torch, which may hand over tensors, is not imported."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if str(values.dtype) == "torch.bfloat16":  # NumPy has no such type
            values = values.float()
    if np.ma.is_masked(values):
        values = values.astype(np.float64).filled(np.nan)
    return np.asarray(values)


def as_rows(features: Any, width: int | None, who: str) -> np.ndarray:
    """A NumPy table [n, width] of a list, an array or a torch tensor."""
    array = as_array(features)
    if array.ndim != 2 or array.dtype.kind not in "fiu" or width not in (None, array.shape[1]):
        raise ValueError(
            f"the {who} have shape {array.shape} and type {array.dtype}; give real numbers "
            f"[n, {width or 'd'}]"
        )
    if array.dtype == np.uint8:
        warnings.warn(
            f"the {who} are unsigned 8-bit numbers and are compared as they are; subtract the zero point of "
            "quantised features first, and unpack packed bits to -1 and 1",
            stacklevel=3,
        )
    return array


def unit_rows(array: np.ndarray) -> np.ndarray:
    """Rows of unit length, float32 [n, d]; NaN where a row has no direction: not finite, or all zero.

    >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [nan, nan]]
    """
    unit = np.full(array.shape, np.nan, np.float32)
    for start in range(0, len(array), BLOCK):  # in double precision, a block at a time
        block = array[start : start + BLOCK].astype(np.float64)
        largest = np.abs(block).max(axis=1, keepdims=True, initial=0)  # whose square may leave float64
        good = np.isfinite(largest[:, 0]) & (largest[:, 0] > 0)
        block = block[good] / largest[good]
        unit[start : start + BLOCK][good] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return unit


def checked_rows(features: Any, width: int | None, who: str) -> np.ndarray:
    """Features as float32 [n, width] of unit length; "2 of the queries of 'old-2024' hold NaN, ..."."""
    unit = unit_rows(as_rows(features, width, who))
    if (broken := np.isnan(unit).any(axis=1)).any():
        raise ValueError(
            f"{broken.sum()} of the {who} hold NaN, infinite values or nothing but zeros (the first: row "
            f"{broken.argmax()}); look for a diverged model or a corrupt image and leave these rows out"
        )
    return unit


def score_scale(queries: Any, entries: Any, share: float = 0.01) -> tuple[float, float]:
    """Where the scores of strangers lie: their median, and how far above it their highest hundredth begins.

    Scores of new queries with new and with old entries have different distributions, so that in a mixed
    gallery one raw score means two things. On the scale (score - centre) / spread, 0 is a typical stranger
    and 1 is passed by one random pair in a hundred, whoever made the entry. No label is needed as long as
    random pairs are strangers. Before any entry is backfilled, take new features of other images in place of
    new entries.

    Args:
        queries, entries: [n, d], [m, d] real numbers, scaled to unit length here; features of different
            images, of which at most 2,000 evenly spaced ones of each side are used.
        share: of random pairs that pass 1, between 0 and 0.5.

    Returns:
        (centre, spread) for `Gallery.search(scales=...)`.

    Raises:
        ValueError: too few or equal pairs, and what is wrong with rows.

    >>> centre, spread = score_scale([[1.0, 0.0]], [[0.0, 1.0], [0.6, 0.8], [1.0, 0.0]], share=0.4)
    >>> round(centre, 3), round(spread, 3)
    (0.6, 0.08)
    """
    if not 0 < share < 0.5:
        raise ValueError(f"share is {share!r}; give a fraction between 0 and 0.5, such as 0.01")
    asking = as_rows(queries, None, "features to compare")
    asked = as_rows(entries, asking.shape[1], "features to compare")
    thinned = (side[:: max(1, -(-len(side) // SCALE_ROWS))] for side in (asking, asked))
    asking, asked = (checked_rows(side, None, "features to compare") for side in thinned)
    scores = (asking @ asked.T).ravel()
    centre, high = np.quantile(scores, [0.5, 1 - share]) if len(scores) else (0.0, 0.0)
    if len(scores) * share < 1 or high <= centre:
        raise ValueError(
            f"{len(scores)} pairs do not show which score one in {1 / share:.0f} passes; give more features, "
            "of different images"
        )
    return float(centre), float(high - centre)


def checked_count(name: str, value: Any, least: int = 1) -> int:
    """A whole number of at least 1, or another least one; "k is 0; give a whole number of at least 1"."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} is {value!r}; give a whole number of at least {least}")
    return int(value)
