"""Cosines of every query with every gallery item, tile by tile; queries x gallery is never held.

All tiles are products of the same shape (the last ones are padded with zero rows), so that the score of two
rows is the same float in every pass, in either order and wherever the rows stand: ties stay ties.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

EXCLUDED = -2.0  # the score of a pair that is not to be counted; cosines lie in [-1, 1]
TILES = {"cpu": (256, 1024), "cuda": (4096, 8192)}  # rows, columns; the CPU's fits its second-level cache


def unit_rows(features: Any, side: str) -> Tensor:
    """Return the rows of `features`, checked and scaled to unit length.

    A row of zeros has no direction: it stays zero, and its cosine with everything is 0.

    Args:
        features: float [N, D], NumPy array or torch tensor (its device is kept).
        side: what the error messages call them, such as "query".

    Returns:
        float32 [N, D], detached.

    Raises:
        ValueError: "the query features have shape ...", or "... of the N rows of the query features hold NaN
        or
            infinite values".

    >>> unit_rows([[3.0, 4.0], [0.0, 0.0]], "query")
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    features = torch.as_tensor(features).detach()
    if features.ndim != 2 or 0 in features.shape or features.is_complex():
        raise ValueError(
            f"the {side} features have shape {tuple(features.shape)} and type {features.dtype}; "
            "give one row of real numbers for each image: [N, D] with N and D at least 1"
        )
    unit = torch.empty(features.shape, dtype=torch.float32, device=features.device)
    broken = 0
    for start in range(0, len(features), 65536):
        rows = features[start : start + 65536].double()
        # Dividing by the largest entry first: squares of very large or very small numbers leave float64.
        largest = rows.abs().amax(1, keepdim=True)
        broken += int((~torch.isfinite(largest)).sum())
        rows = rows / torch.where(largest > 0, largest, 1.0)
        length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        unit[start : start + 65536] = rows / torch.where(length > 0, length, 1.0)
    if broken:
        raise ValueError(
            f"{broken} of the {len(features)} rows of the {side} features hold NaN or infinite values; "
            "look for a diverged model or a corrupt image and leave these rows out"
        )
    return unit


def codes(
    query: Any, gallery: Any | None, lengths: tuple[int, int], what: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of both sides as numbers 0..K-1 of the sorted distinct values.

    Raises:
        ValueError: "there are ... query labels for ... query features".
    """
    arrays = []
    for side, values, length in zip(("query", "gallery"), (query, gallery), lengths, strict=True):
        if values is None and side == "gallery":
            continue
        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
        if array.ndim != 1 or array.dtype.kind not in "iubUS":
            raise ValueError(
                f"the {side} {what} have shape {array.shape} and type {array.dtype}; "
                "give one whole number (or name) for each row"
            )
        if len(array) != length:
            raise ValueError(
                f"there are {len(array)} {side} {what} for {length} {side} features; give one each"
            )
        arrays.append(array)
    if len({array.dtype.kind in "US" for array in arrays}) > 1:
        raise ValueError(f"one side's {what} are names and the other's are numbers; use one kind for both")
    inverse = np.unique(np.concatenate(arrays), return_inverse=True)[1].astype(np.int64)
    first = inverse[: lengths[0]]
    return first, (first if gallery is None else inverse[lengths[0] :])


@dataclass(frozen=True)
class Tile:
    """The scores of one rectangle of pairs."""

    scores: Tensor  # float32 [r, c], EXCLUDED where a pair does not count
    genuine: Tensor  # int64 [g], positions in the flattened scores of the pairs of one identity
    row: int  # the first row and column, in sorted order
    column: int


class PairScores:
    """The pairs of a query set and a gallery and their cosines, both sides sorted by label.

    Args:
        query: float32 [Nq, D] unit rows.
        gallery: float32 [Ng, D] unit rows, or None: every unordered pair i < j inside `query`.
        query_labels, gallery_labels: labels [Nq], [Ng].
        query_ids, gallery_ids: image ids; pairs with equal ids are excluded. None: nothing is excluded.

    Raises:
        ValueError: "the query features have 64 columns and the gallery features 128 ...".
    """

    def __init__(
        self,
        query: Tensor,
        query_labels: Any,
        gallery: Tensor | None = None,
        gallery_labels: Any = None,
        *,
        query_ids: Any = None,
        gallery_ids: Any = None,
    ):
        self.triangular = gallery is None
        if self.triangular and any(x is not None for x in (gallery_labels, query_ids, gallery_ids)):
            raise ValueError(
                "gallery labels or ids were given without gallery features; give the gallery, or leave them "
                "out: inside one set an image is never paired with itself"
            )
        if not self.triangular and gallery_labels is None:
            raise ValueError(
                "gallery features were given without gallery_labels; give one label for each row"
            )
        if (query_ids is None) != (gallery_ids is None):
            raise ValueError(
                "only one of query_ids and gallery_ids was given; give both to exclude pairs of the same "
                "image, or neither to exclude nothing"
            )
        gallery = query if gallery is None else gallery
        if query.shape[1] != gallery.shape[1]:
            raise ValueError(
                f"the query features have {query.shape[1]} columns and the gallery features "
                f"{gallery.shape[1]}; cosines need equal widths; map one side into the other's space first"
            )
        lengths = len(query), len(gallery)
        query_codes, gallery_codes = codes(query_labels, gallery_labels, lengths, "labels")
        self.device = query.device
        self.shape = lengths
        self.tile = TILES["cpu" if self.device.type == "cpu" else "cuda"]
        self.order = np.argsort(query_codes, kind="stable")  # sorted row -> row of the caller's
        columns = self.order if self.triangular else np.argsort(gallery_codes, kind="stable")
        self.row_codes, self.column_codes = query_codes[self.order], gallery_codes[columns]
        self._query = self._padded(query, self.order, self.tile[0])
        self._gallery = self._padded(gallery.to(self.device), columns, self.tile[1])
        # The columns of a row's own identity are one range, because the columns are sorted.
        self.first = np.searchsorted(self.column_codes, self.row_codes, "left")
        self.last = np.searchsorted(self.column_codes, self.row_codes, "right")
        if self.triangular:
            self.first = np.arange(1, lengths[0] + 1)
        self.excluded = lengths[0] if self.triangular else 0
        self._same = None
        if query_ids is not None:
            row_ids, column_ids = codes(query_ids, gallery_ids, lengths, "ids")
            row_ids, column_ids = row_ids[self.order], column_ids[columns]
            by_id = np.argsort(column_ids, kind="stable")
            start = np.searchsorted(column_ids[by_id], row_ids, "left")
            stop = np.searchsorted(column_ids[by_id], row_ids, "right")
            self._same = by_id, start, stop
            self.excluded = int((stop - start).sum())

    def _padded(self, unit: Tensor, order: np.ndarray, tile: int) -> Tensor:
        # One tile more than needed, so that a block may start at any row.
        padded = unit.new_zeros((len(order) // tile + 2) * tile, unit.shape[1])
        padded[: len(order)] = unit[torch.from_numpy(order).to(unit.device)]
        return padded

    @property
    def note(self) -> str:
        """What was excluded, as a sentence."""
        if self.triangular:
            return "Unordered pairs inside one set; no image is paired with itself."
        if self._same is None:
            return "Every query with every gallery item; nothing was excluded."
        return (
            f"Every query with every gallery item but {self.excluded} pairs with equal ids (the same image)."
        )

    def block(self, row: int, stop: int, column: int) -> Tensor:
        """Return the scores of the sorted rows row..stop-1 with one tile of columns, float32 [r, c]."""
        height, width = self.tile
        right = min(column + width, self.shape[1])
        with torch.autocast(self.device.type, enabled=False):
            scores = torch.mm(self._query[row : row + height], self._gallery[column : column + width].T)
        scores = scores.clamp_(-1.0, 1.0)[: stop - row, : right - column]
        if self._same is not None:
            by_id, start, end = self._same
            rows, which = expand(start[row:stop], end[row:stop])
            columns = by_id[which]
            inside = (columns >= column) & (columns < right)
            if inside.any():
                place = torch.from_numpy(np.stack([rows[inside], columns[inside] - column])).to(self.device)
                scores[place[0], place[1]] = EXCLUDED
        if self.triangular and column <= stop:
            below = np.arange(column, right) <= np.arange(row, stop)[:, None]
            scores.masked_fill_(torch.from_numpy(below).to(self.device), EXCLUDED)
        return scores.contiguous()

    def own(self, row: int, stop: int, column: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the places (row from `row`, column) of the pairs of one identity in a block."""
        right = min(column + self.tile[1], self.shape[1])
        return expand(
            np.clip(self.first[row:stop], column, right), np.clip(self.last[row:stop], column, right)
        )

    def tiles(self) -> Iterator[Tile]:
        """Yield the tiles that cover every pair once, always the same ones."""
        height, width = self.tile
        for row in range(0, self.shape[0], height):
            stop = min(row + height, self.shape[0])
            for column in range(row // width * width if self.triangular else 0, self.shape[1], width):
                scores = self.block(row, stop, column)
                rows, columns = self.own(row, stop, column)
                genuine = torch.from_numpy(rows * scores.shape[1] + columns - column).to(self.device)
                yield Tile(scores, genuine, row, column)


def expand(start: np.ndarray, stop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (row, value) for every value start[row] <= value < stop[row].

    >>> [x.tolist() for x in expand(np.array([4, 0, 7]), np.array([6, 0, 8]))]
    [[0, 0, 2], [4, 5, 7]]
    """
    lengths = np.maximum(stop - start, 0)
    rows = np.repeat(np.arange(len(start)), lengths)
    before = np.cumsum(lengths) - lengths
    return rows, np.arange(len(rows)) + (start - before)[rows]


def at_least(scores: Tensor, low: float) -> Tensor:
    """Return the positions in the flattened scores that are `low` or more."""
    if scores.device.type == "cpu":  # NumPy's search for set bits is several times as fast as torch's
        return torch.from_numpy(np.flatnonzero(scores.numpy() >= np.float32(low)))
    return (scores.reshape(-1) >= low).nonzero().reshape(-1)
