"""Retrieval (mean average precision and rank-k) over the full ranking, without holding a ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compat_lib.evaluation.inputs import UnitRows, whole_numbers
from compat_lib.evaluation.scores import EXCLUDED, PairScores, at_least, float_keys

MATCHES = 2**23  # right items of the queries that are worked on together
MUCH = 32  # sorting scores takes about as long as looking up one in this many


@dataclass(frozen=True)
class Retrieval:
    """Retrieval quality; arrays in the order of the queries."""

    map: float  # mean average precision, fraction
    rank: dict[int, float]  # k -> share of queries with a right item among the first k
    average_precision: np.ndarray  # float64 [Nq], nan for a query without a right item
    first_match: np.ndarray  # int64 [Nq], rank of the first right item from 1; 0 where there is none
    queries: int  # queries with a right item: those that count
    excluded: int
    note: str

    def summary(self) -> str:
        """Return one line for reading."""
        ranks = ", ".join(f"rank-{k} {value:.4f}" for k, value in self.rank.items())
        return f"mAP {self.map:.4f}, {ranks} ({self.queries} of {len(self.first_match)} queries have a match)"


def retrieval(
    query: Any,
    query_labels: Any,
    gallery: Any = None,
    gallery_labels: Any = None,
    *,
    query_ids: Any = None,
    gallery_ids: Any = None,
    ranks: Sequence[int] = (1, 5),
) -> Retrieval:
    """Return mean average precision and rank-k accuracy, every gallery item ranked by its cosine.

    Average precision is the mean, over the right items, of (right items so far) / (rank). Ties are
    pessimistic: every wrong item tied with a right one is ranked before it, so features that collapse to a
    point gain nothing. A query without a right item in the gallery is skipped and not counted.

    Args:
        query: float [Nq, D]; NumPy or torch (computed where the tensor lies).
        query_labels: whole numbers or names [Nq].
        gallery: float [Ng, D], or None: each query is left out of a gallery that is the query set itself.
        gallery_labels: [Ng], given with the gallery.
        query_ids, gallery_ids: image ids; pairs with equal ids are excluded. None: nothing is excluded.
        ranks: the k of rank-k, 1 or more.

    Raises:
        ValueError: for NaN, unequal widths or lengths, and "no query has a right item in the gallery ...".

    >>> result = retrieval([[1.0, 0.0]], [7], [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [7, 8, 7])
    >>> result.average_precision.tolist()  # the tied wrong item comes first: (1/2 + 2/3) / 2
    [0.5833333333333333]
    >>> result.rank
    {1: 0.0, 5: 1.0}
    """
    ranks = whole_numbers(ranks, "ranks")
    query = UnitRows(query, "query")
    if gallery is None:
        if any(x is not None for x in (gallery_labels, query_ids, gallery_ids)):
            raise ValueError(
                "gallery labels or ids were given without gallery features; give the gallery, or leave them "
                "out: inside one set each query is left out of its own ranking"
            )
        gallery, gallery_labels = query, query_labels
        query_ids = gallery_ids = np.arange(len(query))
    else:
        gallery = UnitRows(gallery, "gallery")
    pairs = PairScores(
        query, query_labels, gallery, gallery_labels, query_ids=query_ids, gallery_ids=gallery_ids
    )
    return rank(pairs, ranks)


def rank(pairs: PairScores, ranks: Sequence[int] = (1, 5)) -> Retrieval:
    """Return the retrieval result of all query x gallery pairs."""
    n = pairs.shape[0]
    precision, first = np.full(n, np.nan), np.zeros(n, np.int64)
    row = 0
    while row < n:
        widest = int((pairs.last - pairs.first)[row : row + pairs.tile[0]].max())
        stop = min(n, row + max(1, min(pairs.tile[0], MATCHES // max(widest, 1))))
        precision[pairs.order[row:stop]], first[pairs.order[row:stop]] = _rank_rows(pairs, row, stop)
        row = stop
    valid = first > 0
    if not valid.any():
        raise ValueError(
            "no query has a right item in the gallery: every identity of a query is missing there, or its "
            "only image is the query itself; add a second image of at least one identity"
        )
    return Retrieval(
        float(precision[valid].mean()),
        {k: float((first[valid] <= k).mean()) for k in ranks},
        precision,
        first,
        int(valid.sum()),
        pairs.excluded,
        pairs.note,
    )


def _rank_rows(pairs: PairScores, row: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    right = _right_scores(pairs, row, stop)
    count = right.shape[1]
    valid = right > EXCLUDED
    matches = valid.sum(1)
    places = _at_least_as_good(pairs, row, stop, right)
    right_before = count - torch.searchsorted(right, right)
    position = torch.arange(count, 0, -1, device=right.device)  # among the right items; they ascend
    places = places - right_before + position
    average = torch.where(valid, position / places.double(), 0.0).sum(1) / matches
    first = torch.where(matches > 0, places[:, -1], 0) if count else matches
    return average.cpu().numpy(), first.cpu().numpy()


def _at_least_as_good(pairs: PairScores, row: int, stop: int, right: Tensor) -> Tensor:
    # How many items, right or wrong, score at least as much as each right one; any number for EXCLUDED ones.
    # Only what reaches a row's lowest right score matters. Where that is little, each such score is looked up
    # among the right ones; where it is much, the scores are sorted and the right ones are looked up in them.
    # Which of the two is judged by the columns before.
    rows, count = right.shape
    counts = torch.zeros(rows, count, dtype=torch.int64, device=right.device)
    looked_up = torch.zeros(rows * count, dtype=torch.int64, device=right.device)
    if not count:
        return counts
    matches = (right > EXCLUDED).sum(1, keepdim=True)
    lowest_place = (count - matches).clamp(max=count - 1)
    lowest = torch.where(matches > 0, right.gather(1, lowest_place), np.inf)
    base = torch.arange(rows, device=right.device) << 33
    keys = (float_keys(right) + base[:, None]).reshape(-1)
    much = matches[:, 0] > 0
    joined = max(1, min(4 * count, MATCHES // rows) // pairs.tile[1])  # tiles; spares looking up too often
    step = joined * pairs.tile[1]
    for column in range(0, pairs.shape[1], step):
        tiles = range(column, min(column + step, pairs.shape[1]), pairs.tile[1])
        scores = [pairs.block(row, stop, start) for start in tiles]
        scores = scores[0] if len(scores) == 1 else torch.cat(scores, dim=1)
        width = scores.shape[1]
        reached = torch.zeros(rows, dtype=torch.int64, device=right.device)
        dense = much.nonzero()[:, 0]
        if len(dense):
            above = width - torch.searchsorted(_sorted(scores[dense]), right[dense])
            counts[dense] += above
            reached[dense] = above.gather(1, lowest_place[dense])[:, 0]
        if len(dense) < rows:
            place = at_least(scores, torch.where(much[:, None], np.inf, lowest))
            own = place // width
            found = float_keys(scores.reshape(-1)[place]) + base[own]
            best = torch.searchsorted(keys, found, right=True) - 1  # the best right item that it reaches
            looked_up.index_add_(0, best, torch.ones_like(best))
            reached += torch.bincount(own, minlength=rows)
        much = reached > width // MUCH + count
    return counts + looked_up.reshape(rows, count).flip(1).cumsum(1).flip(1)


def _right_scores(pairs: PairScores, row: int, stop: int) -> Tensor:
    # float32 [rows, most matches of a row], ascending; rows with fewer matches start with EXCLUDED.
    first, last = pairs.first[row:stop], pairs.last[row:stop]
    right = torch.full((stop - row, int((last - first).max())), EXCLUDED, device=pairs.device)
    width = pairs.tile[1]
    for column in range(int(first.min()) // width * width, int(last.max()), width):
        rows, columns = pairs.own(row, stop, column)
        if len(rows):
            place = torch.from_numpy(np.stack([rows, columns - column, columns - first[rows]])).to(
                pairs.device
            )
            right[place[0], place[2]] = pairs.block(row, stop, column)[place[0], place[1]]
    return _sorted(right)


def _sorted(scores: Tensor) -> Tensor:
    if scores.device.type == "cpu":  # NumPy's vectorised sort is more than ten times as fast as torch's
        return torch.from_numpy(np.sort(scores.numpy(), axis=1))
    return scores.sort(dim=1).values
