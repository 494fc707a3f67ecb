"""Pairs: cosines of every query with every gallery item, tile by tile; only a small matrix is held.

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

from compat_lib.evaluation.inputs import (
    ENTRIES,
    UnitRows,
    codes,
    codes_of_ids,
    full_precision,
    refuse_unequal_widths,
    slices,
)

EXCLUDED = -2.0  # the score of a pair that is not to be counted; cosines lie in [-1, 1]
HELD = 2**26  # pairs whose scores are kept, 256 MiB: an evaluation asks for each tile five times or more
TILES = {"cpu": (256, 1024), "cuda": (4096, 8192)}  # rows, columns; the CPU's fits its second-level cache


def _padded(
    side: Tensor | UnitRows,
    order: np.ndarray,
    tile: int,
    whole: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    # The rows in this order, followed by rows of zeros so that a tile may start at any row.
    rows = torch.zeros((len(order) // tile + 2) * tile, side.shape[1], dtype=dtype, device=device)
    for place in slices(len(order), ENTRIES // side.shape[1]):
        part = torch.from_numpy(order[place]).to(side.device)
        rows[place] = (side.multiples(part) if whole else side[part]).to(device)
    return rows


class SameImages:
    """Which pairs of rows (ids int64 [r]) and columns (int64 [c]) carry one id."""

    def __init__(self, row_ids: np.ndarray, column_ids: np.ndarray):
        self._by_id = np.argsort(column_ids, kind="stable")
        column_ids = column_ids[self._by_id]
        self._start = np.searchsorted(column_ids, row_ids, "left")
        self._stop = np.searchsorted(column_ids, row_ids, "right")
        self.count = int((self._stop - self._start).sum())

    def places(self, row: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (row from `row`, column) of the pairs in the rows row..stop-1."""
        rows, which = expand(self._start[row:stop], self._stop[row:stop])
        return rows, self._by_id[which]

    def exclude(self, scores: Tensor, row: int, column: int) -> None:
        """Write EXCLUDED over these pairs in scores [r, c] of the rows from `row`, columns from `column`."""
        rows, columns = self.places(row, row + len(scores))
        inside = (columns >= column) & (columns < column + scores.shape[1])
        if inside.any():
            place = torch.from_numpy(np.stack([rows[inside], columns[inside] - column])).to(scores.device)
            scores[place[0], place[1]] = EXCLUDED


@dataclass(frozen=True)
class Tile:
    """The scores of one rectangle of pairs."""

    scores: Tensor  # float32 [r, c], EXCLUDED where a pair does not count
    genuine: Tensor  # int64 [g], positions in the flattened scores of the pairs of one identity
    row: int  # the first row and column, in sorted order
    column: int


class PairScores:
    """The pairs of a query set and a gallery and their cosines, both sides sorted by label.

    query, gallery: [Nq, D], [Ng, D], unit rows: float32 tensors, float64 ones whose equal products shall tie,
    or `UnitRows`, which saves memory. Gallery None: every unordered pair i < j inside `query`.
    """

    def __init__(
        self,
        query: Tensor | UnitRows,
        query_labels: Any,
        gallery: Tensor | UnitRows | None = None,
        gallery_labels: Any = None,
        *,
        query_ids: Any = None,
        gallery_ids: Any = None,
    ):
        self.triangular = gallery is None
        if self.triangular and any(x is not None for x in (gallery_labels, query_ids, gallery_ids)):
            raise ValueError("gallery labels or ids were given without gallery features: give these too")
        if not self.triangular and gallery_labels is None:
            raise ValueError("gallery features were given without gallery_labels: give one for each row")
        gallery = query if gallery is None else gallery
        refuse_unequal_widths(query, gallery)
        lengths = len(query), len(gallery)
        query_codes, gallery_codes = codes(query_labels, gallery_labels, lengths, "labels")
        self.device, self.shape = query.device, lengths
        self._held: dict[tuple[int, int, int], Tensor] = {}
        self._room = HELD if np.prod(lengths) <= 4 * HELD else 0  # a small part of all would save no time
        self.tile = TILES["cpu" if self.device.type == "cpu" else "cuda"]
        self.order = np.argsort(query_codes, kind="stable")  # sorted row -> row of the caller's
        columns = self.order if self.triangular else np.argsort(gallery_codes, kind="stable")
        self.column_order = columns
        self.row_codes, self.column_codes = query_codes[self.order], gallery_codes[columns]
        # Whole numbers (binary codes, counts) are multiplied as they are and divided by their lengths in
        # float64: rows of equal cosine then tie, which products of rounded unit rows do not.
        sides = query, gallery
        whole = all(isinstance(side, UnitRows) and (side.whole or side.codes) for side in sides)
        double = any(isinstance(side, Tensor) and side.dtype == torch.float64 for side in sides)
        dtype = torch.float64 if double else torch.float32
        self._query, self._gallery = (
            _padded(side, order, tile, whole, dtype, self.device)
            for side, order, tile in zip(sides, (self.order, columns), self.tile, strict=True)
        )
        self._scales = None
        if whole:
            squares = (side.square().sum(1).double() for side in (self._query, self._gallery))  # exact
            self._scales = [torch.where(x > 0, x, torch.inf).rsqrt() for x in squares]
        # The columns of a row's own identity are one range, because the columns are sorted.
        self.first = np.searchsorted(self.column_codes, self.row_codes, "left")
        self.last = np.searchsorted(self.column_codes, self.row_codes, "right")
        if self.triangular:
            self.first = np.arange(1, lengths[0] + 1)
        ids = codes_of_ids(query_ids, gallery_ids, lengths)
        self._same = None if ids is None else SameImages(ids[0][self.order], ids[1][columns])
        self.excluded = lengths[0] if self.triangular else 0 if self._same is None else self._same.count

    def block(self, row: int, stop: int, column: int) -> Tensor:
        """Return the scores of sorted rows row..stop-1 with one tile of columns, float32 [r, c], to read."""
        place = row, stop, column
        if place in self._held:
            return self._held[place]
        scores = self._computed(row, stop, column)
        if scores.numel() <= self._room:
            self._room -= scores.numel()
            self._held[place] = scores
        return scores

    def _computed(self, row: int, stop: int, column: int) -> Tensor:
        right = min(column + self.tile[1], self.shape[1])
        rows, columns = self._query[row : row + self.tile[0]], self._gallery[column : column + self.tile[1]]
        with full_precision(self.device):
            scores = torch.mm(rows, columns.T)
        if self._scales is not None:
            first = self._scales[0][row : row + self.tile[0], None]
            scores = (scores * (first * self._scales[1][column : column + self.tile[1]])).float()
        if scores.dtype == torch.float64:  # its last digits depend on the order of the sums
            scores = scores.round(decimals=12).float()
        scores = scores.clamp_(-1.0, 1.0)[: stop - row, : right - column]
        if self._same is not None:
            self._same.exclude(scores, row, column)
        if self.triangular and column <= stop:
            below = np.arange(column, right) <= np.arange(row, stop)[:, None]
            scores.masked_fill_(torch.from_numpy(below).to(self.device), EXCLUDED)
        return scores.contiguous()

    def own(self, row: int, stop: int, column: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the places (row from `row`, column) of the pairs of one identity in a block."""
        right = min(column + self.tile[1], self.shape[1])
        first, last = self.first[row:stop], self.last[row:stop]
        if column >= last[-1] or right <= first[0]:  # the rows' ranges ascend, and most tiles hold none
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        return expand(np.clip(first, column, right), np.clip(last, column, right))

    def own_counts(self, size: int) -> np.ndarray:
        """Return how many pairs of each identity 0..size-1 count, int64 [size]."""
        rows, columns = (np.bincount(c, minlength=size) for c in (self.row_codes, self.column_codes))
        total = rows * (rows - 1) // 2 if self.triangular else rows * columns
        if self._same is not None:
            line, place = self._same.places(0, self.shape[0])
            identity = self.row_codes[line]
            total -= np.bincount(identity[identity == self.column_codes[place]], minlength=size)
        return total

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
    return (scores >= low).reshape(-1).nonzero().reshape(-1)


def float_keys(scores: Tensor) -> Tensor:
    """Return whole numbers in the order of the float32 scores, their bits; both zeros are 0."""
    bits = scores.view(torch.int32).long()
    return torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)
