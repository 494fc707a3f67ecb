"""Retrieval from every gallery of a backfill in one pass over its pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from compat_lib.evaluation.pairs import PairScores
from compat_lib.evaluation.ranking import (
    MATCHES,
    Retrieval,
    precision_and_first,
    result,
    right_scores,
    sort_rows,
)


def rank_steps(
    before: PairScores, after: PairScores, step: np.ndarray, size: int, ranks: Sequence[int]
) -> list[Retrieval]:
    """Return what `ranking.rank` returns of each gallery, to the bit, for about the price of two.

    A right item's place is the number of items that score at least as much. It is a sum over the steps: of
    those that are new by then, and of those that are not yet. So each step's items are sorted once, as they
    were and as they will be, and not once more for every gallery.

    Args:
        before, after: the same queries and gallery rows, as no row and as every row is new.
        step: int64 [Ng], 0..size, at which each gallery row becomes new.
        size: how many galleries there are. Gallery k holds the rows of steps 0..k as new ones.
    """
    step, n = step[before.column_order], before.shape[0]
    precision, first = np.full((size, n), np.nan), np.zeros((size, n), np.int64)
    row = 0
    while row < n:
        widest = max(1, int((before.last - before.first)[row : row + before.tile[0]].max()))
        stop = min(n, row + max(1, min(before.tile[0], MATCHES // (4 * widest * (size + 1)))))
        rows = before.order[row:stop]
        right = torch.stack([right_scores(side, row, stop) for side in (before, after)])
        counts = _at_least_as_good(before, after, row, stop, right, step, size)
        slots = np.minimum(before.first[row:stop, None] + np.arange(right.shape[2]), before.shape[1] - 1)
        own = torch.from_numpy(step[slots]).to(right.device)
        for k in range(size):
            new = own <= k
            scores, order = torch.where(new, right[1], right[0]).sort(dim=1)
            places = torch.where(new, counts[k, 1], counts[k, 0]).gather(1, order)
            precision[k, rows], first[k, rows] = precision_and_first(scores, places)
        row = stop
    return [result(before, *found, ranks) for found in zip(precision, first, strict=True)]


def _at_least_as_good(
    before: PairScores, after: PairScores, row: int, stop: int, right: Tensor, step: np.ndarray, size: int
) -> Tensor:
    # int64 [galleries, 2, r, m]: how many items of a gallery score at least as much as each right item did
    # before, and as it does after.
    bounds = right.transpose(0, 1).flatten(1)  # [r, 2 m]
    found = torch.zeros(size + 1, 2, *bounds.shape, dtype=torch.int64, device=bounds.device)
    width = before.tile[1]
    joined = max(1, MATCHES // (stop - row) // width) * width
    for column in range(0, before.shape[1], joined):
        tiles = range(column, min(column + joined, before.shape[1]), width)
        own = step[column : column + joined]
        place = torch.from_numpy(np.argsort(own, kind="stable")).to(right.device)
        lengths = np.bincount(own, minlength=size + 1).tolist()
        for side, pairs in enumerate((before, after)):
            scores = torch.cat([pairs.block(row, stop, x) for x in tiles], dim=1)
            for k, part in enumerate(scores.index_select(1, place).split(lengths, dim=1)):
                if lengths[k]:
                    found[k, side] += lengths[k] - torch.searchsorted(sort_rows(part), bounds)
    new = found[:-1, 1].cumsum(0)
    old = found[:, 0].sum(0) - found[:-1, 0].cumsum(0)
    return (new + old).unflatten(2, (2, right.shape[2])).transpose(1, 2)
