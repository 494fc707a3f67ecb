"""Top-k search by cosine: the best gallery items of every query, exact, block by block."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from compat_lib.evaluation.inputs import UnitRows, check_widths, whole_number
from compat_lib.evaluation.scores import TILES, SameImages, at_least, cosines, padded, same_images

BLOCK = 2**17  # gallery rows that are scaled to unit length together
WAITING = 2**16  # candidates of a block of queries that wait, at least, until they are ranked


def top_k(
    query: Any, gallery: Any, k: int, *, query_ids: Any = None, gallery_ids: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k gallery items of highest cosine for every query, best first.

    The search is exact. Ties go to the item that stands first in the gallery, and equal rows always have
    equal scores, so the result depends on nothing but the input. It takes one copy of the queries and of a
    block of the gallery; the gallery may lie on another device or be memory-mapped.

    Args:
        query: float [Nq, D], any length of row; NumPy or torch (computed where the tensor lies).
        gallery: float [Ng, D], likewise.
        k: items wanted, 1 or more.
        query_ids, gallery_ids: image ids [Nq], [Ng]; pairs with equal ids are left out. None: nothing is.

    Returns:
        scores float32 [Nq, k], cosines, and indices int64 [Nq, k], rows of the gallery. Where fewer than k
        items are there for a query, its last places hold score -inf and index -1.

    Raises:
        ValueError: for NaN, unequal widths or lengths, only one side's ids, and "k is 0 ...".

    >>> scores, indices = top_k([[2.0, 0.0]], [[0.0, 1.0], [1.0, 0.0], [3.0, 4.0]], 2)
    >>> indices.tolist(), scores.round(3).tolist()
    ([[1, 2]], [[1.0, 0.6000000238418579]])
    """
    k = whole_number(k, "k", 100)
    query, gallery = UnitRows(query, "query"), UnitRows(gallery, "gallery")
    check_widths(query.shape[1], gallery.shape[1])
    same = same_images(query_ids, gallery_ids, (len(query), len(gallery)))
    tile = TILES["cpu" if query.device.type == "cpu" else "cuda"]
    rows = padded(query, np.arange(len(query)), tile[0], query.device)
    best = [
        _Best(row, min(tile[0], len(query) - row), min(k, len(gallery)), same)
        for row in range(0, len(query), tile[0])
    ]
    step = -(-BLOCK // tile[1]) * tile[1]
    for start in range(0, len(gallery), step):
        taken = np.arange(start, min(start + step, len(gallery)))
        block = padded(gallery, taken, tile[1], query.device)
        for one in best:
            for column in range(0, len(taken), tile[1]):
                scores = cosines(rows, one.row, block, column, tile)
                one.add(scores[: one.rows, : len(taken) - column], start + column)
            one.rank()  # nothing waits for the next block: many small arrays would scatter over the memory
    scores = np.full((len(query), k), -np.inf, np.float32)
    indices = np.full((len(query), k), -1, np.int64)
    for one in best:
        place = slice(one.row, one.row + one.rows), slice(one.scores.shape[1])
        scores[place], indices[place] = one.scores, one.columns
    return scores, indices


class _Best:
    # The best columns so far of a block of rows; the columns come in rising order.
    def __init__(self, row: int, rows: int, k: int, same: SameImages | None):
        self.row, self.rows, self.k, self.same = row, rows, k, same
        self.scores = np.full((rows, k), -np.inf, np.float32)
        self.columns = np.full((rows, k), -1, np.int64)
        self.low: np.ndarray | None = None  # float32 [rows, 1], the least score that may still enter
        self.waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # row, column, score
        self.held = 0

    def add(self, scores: Tensor, column: int) -> None:
        if self.same is not None:
            self.same.exclude(scores, self.row, column)
        if self.low is not None:
            low = torch.from_numpy(self.low).to(scores.device)
        elif scores.shape[1] >= self.k:  # spares ranking the whole of the first tile
            low = scores.topk(self.k, dim=1).values[:, -1:].clamp_(min=-1.0)  # no excluded pair enters
        else:
            low = scores.new_full((self.rows, 1), -1.0)
        place = at_least(scores, low)
        found = scores.reshape(-1)[place].cpu().numpy()
        rows, columns = np.divmod(place.cpu().numpy(), scores.shape[1])
        self.waiting.append((rows, columns + column, found))
        self.held += len(found)
        if self.low is None or self.held >= max(WAITING, self.rows * self.k):
            self.rank()

    def rank(self) -> None:
        rows, place = np.nonzero(self.columns >= 0)
        best = rows, self.columns[rows, place], self.scores[rows, place]
        rows, columns, scores = (np.concatenate(parts) for parts in zip(best, *self.waiting, strict=True))
        order = np.lexsort((-scores, rows))  # stable, and the columns of a row are in order where scores tie
        rows, columns, scores = rows[order], columns[order], scores[order]
        place = np.arange(len(rows)) - np.searchsorted(rows, np.arange(self.rows))[rows]
        kept = place < self.k
        self.scores[rows[kept], place[kept]] = scores[kept]
        self.columns[rows[kept], place[kept]] = columns[kept]
        self.waiting, self.held = [], 0
        # A later item that ties with the last one does not enter.
        least = np.nextafter(self.scores[:, -1:], np.float32(np.inf))
        self.low = np.where(self.columns[:, -1:] < 0, np.float32(-1.0), least)
