"""Retrieval (mean average precision, rank-k) without holding a ranking, and the search for the best k."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import torch
from torch import Tensor

from compat_lib.evaluation.inputs import (
    ENTRIES,
    UnitRows,
    codes_of_ids,
    refuse_unequal_widths,
    slices,
    whole_numbers,
)
from compat_lib.evaluation.pairs import EXCLUDED, PairScores, float_keys
from compat_lib.evaluation.records import Measured
from compat_lib.names import checked_count

MATCHES = 2**23  # right items of the queries that are worked on together
BLOCK = 2**24  # entries of the gallery that are searched together
SPARE = 32  # items that FAISS is asked for beyond the k best
NEAR = 1e-5  # its float32 products of unit rows are off by less
FEW = 24  # sorting scores takes longer than comparing them with so many others one by one


@dataclass(frozen=True)
class Retrieval(Measured):
    """Retrieval quality; arrays in the order of the queries."""

    about = "{0.queries} of {0.first_match.size} queries have a match"
    map: float  # mean average precision, fraction
    rank: dict[int, float]  # k -> share of queries with a right item among the first k
    average_precision: np.ndarray  # float64 [Nq], nan for a query without a right item
    first_match: np.ndarray  # int64 [Nq], rank of the first right item from 1; 0 where there is none
    queries: int  # queries with a right item: those that count
    excluded: int  # pairs with equal ids

    @property
    def values(self) -> dict[str, float]:
        """The metrics by name."""
        return {"map": self.map} | {f"rank{k}": value for k, value in self.rank.items()}


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
    point gain nothing. A query without a right item in the gallery is skipped and not counted; without any,
    it is a ValueError. `gallery` None: each query is left out of a gallery that is the query set itself.

    >>> result = retrieval([[1.0, 0.0]], [7], [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [7, 8, 7])
    >>> result.average_precision.tolist()  # the tied wrong item comes first: (1/2 + 2/3) / 2
    [0.5833333333333333]
    >>> result.rank
    {1: 0.0, 5: 1.0}
    """
    query = UnitRows(query, "query")
    if gallery is not None:
        gallery = UnitRows(gallery, "gallery")
    elif gallery_labels is None and query_ids is None and gallery_ids is None:
        gallery, gallery_labels = query, query_labels
        query_ids = gallery_ids = np.arange(len(query))
    pairs = PairScores(
        query, query_labels, gallery, gallery_labels, query_ids=query_ids, gallery_ids=gallery_ids
    )
    return rank(pairs, whole_numbers(ranks, "the ranks"))


def scores(ranked: Retrieval | Any, name: str = "rank") -> dict[str, np.ndarray]:
    """Return each query's part in "map", "rank1" and so on, float64 [Nq], nan for one that does not count."""
    first = ranked.first_match
    hits = {f"{name}{k}": np.where(first > 0, first <= k, np.nan) for k in ranked.rank}
    return {"map": ranked.average_precision} | hits


def rank(pairs: PairScores, ranks: Sequence[int] = (1, 5)) -> Retrieval:
    """Return the retrieval result of all query x gallery pairs."""
    n, height = pairs.shape[0], pairs.tile[0]
    precision, first = np.full(n, np.nan), np.zeros(n, np.int64)
    row = 0
    while row < n:
        widest = int((pairs.last - pairs.first)[row : row + height].max())
        stop = min(n, row + max(1, min(height, MATCHES // max(widest, 1))))
        rows = pairs.order[row:stop]
        right = sort_rows(right_scores(pairs, row, stop))
        at_least = _at_least_as_good(pairs, row, stop, right)
        precision[rows], first[rows] = precision_and_first(right, at_least)
        row = stop
    return result(pairs, precision, first, ranks)


def result(pairs: PairScores, precision: np.ndarray, first: np.ndarray, ranks: Sequence[int]) -> Retrieval:
    """Return the result of queries with these average precisions and ranks of their first right items."""
    valid = first > 0
    if not valid.any():
        raise ValueError(
            "no query has a right item in the gallery: every identity of a query is missing there, or its "
            "only images are left out, as the query itself or its camera's; add one of at least one identity"
        )
    return Retrieval(
        float(precision[valid].mean()),
        {k: float((first[valid] <= k).mean()) for k in ranks},
        precision,
        first,
        int(valid.sum()),
        pairs.excluded,
    )


def precision_and_first(right: Tensor, at_least: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return average precision float64 [r] and the first right item's rank int64 [r], 0 where there is none.

    Args:
        right: float32 [r, m], the scores of a query's right items, ascending after those that are EXCLUDED.
        at_least: int64 [r, m], how many items, right or wrong, score at least as much.
    """
    count = right.shape[1]
    valid = right > EXCLUDED
    matches = valid.sum(1)
    position = torch.arange(count, 0, -1, device=right.device)  # among the right items; they ascend
    right_before = count - torch.searchsorted(right, right)
    places = at_least - right_before + position
    average = torch.where(valid, position / places.double(), 0.0).sum(1) / matches
    first = torch.where(matches > 0, places[:, -1], 0) if count else matches
    return average.cpu().numpy(), first.cpu().numpy()


def _at_least_as_good(pairs: PairScores, row: int, stop: int, right: Tensor) -> Tensor:
    # How many items, right or wrong, score at least as much as each right one; any number for EXCLUDED ones.
    rows, count = right.shape
    counts = torch.zeros(rows, count, dtype=torch.int64, device=right.device)
    joined = max(1, min(4 * count, MATCHES // rows) // pairs.tile[1])  # tiles; spares looking up too often
    step = joined * pairs.tile[1]
    for column in range(0, pairs.shape[1], step):
        tiles = range(column, min(column + step, pairs.shape[1]), pairs.tile[1])
        scores = torch.cat([pairs.block(row, stop, start) for start in tiles], dim=1)
        if count > FEW:
            counts += scores.shape[1] - torch.searchsorted(sort_rows(scores), right)
        else:
            for k in range(count):
                counts[:, k] += _reached(scores, right[:, k : k + 1])
    return counts


def _reached(scores: Tensor, bound: Tensor) -> Tensor:
    # How many of each row reach its bound [r, 1], int64 [r].
    if scores.device.type == "cpu":  # NumPy compares and counts bits several times as fast as torch
        bits = np.packbits(scores.numpy() >= bound.numpy(), axis=1)
        return torch.from_numpy(np.bitwise_count(bits).sum(1, dtype=np.int64))
    return (scores >= bound).sum(1)


def right_scores(pairs: PairScores, row: int, stop: int) -> Tensor:
    """Return the scores of the right items of sorted rows row..stop-1, float32 [r, most of a row].

    They stand in the order of the sorted columns, EXCLUDED beyond a row's last.
    """
    first, last = pairs.first[row:stop], pairs.last[row:stop]
    size = stop - row, int((last - first).max())
    right = torch.full(size, EXCLUDED, dtype=torch.float32, device=pairs.device)
    width = pairs.tile[1]
    for column in range(int(first.min()) // width * width, int(last.max()), width):
        rows, columns = pairs.own(row, stop, column)
        if len(rows):
            places = np.stack([rows, columns - column, columns - first[rows]])
            line, from_column, to_column = torch.from_numpy(places).to(pairs.device)
            right[line, to_column] = pairs.block(row, stop, column)[line, from_column]
    return right


def sort_rows(scores: Tensor) -> Tensor:
    """Return float32 [r, c] with each row ascending."""
    if scores.device.type == "cpu":  # NumPy's vectorised sort is more than ten times as fast as torch's
        return torch.from_numpy(np.sort(scores.numpy(), axis=1))
    return scores.sort(dim=1).values


def rankings(pairs: PairScores) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows of queries int64 [r] and, for each, all gallery rows int64 [r, Ng], the best first.

    Among ties items of other labels come first, then by gallery row; excluded items come last.
    """
    height, width = pairs.tile
    step = max(1, min(height, MATCHES // pairs.shape[1]))
    for row in range(0, pairs.shape[0], step):
        stop = min(row + step, pairs.shape[0])
        keys = np.empty((stop - row, pairs.shape[1]), np.int64)
        for column in range(0, pairs.shape[1], width):
            part = slice(column, column + width)
            scores = -float_keys(pairs.block(row, stop, column)).cpu().numpy()
            own = pairs.column_codes[part] == pairs.row_codes[row:stop, None]
            keys[:, part] = (scores << 32) + (own.astype(np.int64) << 31) + pairs.column_order[part]
        keys.sort(axis=1)
        yield pairs.order[row:stop], keys & 0x7FFFFFFF


def top_k(
    query: Any, gallery: Any, k: int, *, query_ids: Any = None, gallery_ids: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k gallery items of highest cosine for every query, best first.

    The search is exact: FAISS finds the candidates, whose cosines are then taken in float64 and rounded to
    float32. Ties go to the item that stands first in the gallery, which may be memory-mapped.

    Returns:
        scores float32 [Nq, k], cosines, and indices int64 [Nq, k], rows of the gallery. Where fewer than k
        items are there for a query, its last places hold score -inf and index -1.

    >>> scores, indices = top_k([[2.0, 0.0]], [[0.0, 1.0], [1.0, 0.0], [3.0, 4.0]], 2)
    >>> indices.tolist(), scores.round(3).tolist()
    ([[1, 2]], [[1.0, 0.6000000238418579]])
    """
    query, gallery = UnitRows(query, "query"), UnitRows(gallery, "gallery")
    refuse_unequal_widths(query, gallery)
    k = checked_count("k", k)
    ids = codes_of_ids(query_ids, gallery_ids, (len(query), len(gallery)))
    asked = query.exact(torch.arange(len(query))).cpu()
    scores = np.full((len(query), k), -np.inf, np.float32)
    columns = np.full((len(query), k), -1)
    for part in slices(len(gallery), BLOCK // gallery.shape[1]):
        block = gallery.exact(torch.arange(part.start, part.stop)).cpu()
        found = _best_of_block(asked, block, k, None if ids is None else (ids[0], ids[1][part]))
        found_columns = np.where(found[0] > -np.inf, found[1] + part.start, -1)
        scores, columns = _best(np.c_[scores, found[0]], np.c_[columns, found_columns], k)
    return scores, columns


def _best_of_block(
    query: Tensor, gallery: Tensor, k: int, ids: tuple[np.ndarray, np.ndarray] | None
) -> tuple[np.ndarray, np.ndarray]:
    # Scores [Nq, <= k] and rows of the block; -inf for pairs of one id.
    excluded = 0 if ids is None else int(np.bincount(ids[1], minlength=ids[0].max() + 1)[ids[0]].max())
    more = min(len(gallery), k + SPARE + excluded)
    rough, columns = faiss.knn(
        query.float().numpy(), gallery.float().numpy(), more, metric=faiss.METRIC_INNER_PRODUCT
    )
    scores = np.empty_like(rough)
    for part in slices(len(query), ENTRIES // (more * query.shape[1])):
        found = gallery[torch.from_numpy(columns[part])]
        scores[part] = _rounded(torch.einsum("qd,qkd->qk", query[part], found))
    if ids is not None:
        scores[ids[0][:, None] == ids[1][columns]] = -np.inf
    scores, columns = _best(scores, columns, k)
    # Where what FAISS left out may tie with the last item, all items are compared.
    unsure = np.flatnonzero(rough[:, -1] > scores[:, -1] - NEAR) if more < len(gallery) else np.zeros(0, int)
    for rows in np.array_split(unsure, -(-len(unsure) * len(gallery) // ENTRIES) or 1):
        whole = _rounded(query[torch.from_numpy(rows)] @ gallery.T)
        if ids is not None:
            whole[ids[0][rows, None] == ids[1]] = -np.inf
        scores[rows], columns[rows] = _best(whole, np.broadcast_to(np.arange(len(gallery)), whole.shape), k)
    return scores, columns


def _rounded(cosines: Tensor) -> np.ndarray:
    # float32 from float64, without the last digits, which depend on the order of the sums: equal cosines tie.
    return cosines.numpy().round(12).astype(np.float32)


def _best(scores: np.ndarray, columns: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((columns, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(columns, order, 1)
