"""Landmark retrieval: mAP@100 of Google Landmarks v2, and the protocols of Revisited Oxford and Paris."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compat_lib.evaluation.inputs import UnitRows, plain_array, table
from compat_lib.evaluation.pairs import PairScores
from compat_lib.evaluation.ranking import rankings, top_k
from compat_lib.names import one_each

KS = (1, 5, 10)  # of precision at k


def landmark_map(query: Any, gallery: Any, relevant: Sequence[Any], *, k: int = 100) -> np.ndarray:
    """Return each query's average precision among the k gallery items nearest to it, float64 [Nq].

    Source: Google Landmarks v2 (arXiv 2004.01804) as evaluated by OpenCompatible and AdvBCT: cosine, k = 100,
    AP = (sum of the precision at each hit) / min(number of relevant items, k). A query without relevant items
    counts 0. mAP@k is the mean. Ties go to the item that stands first in the gallery.

    `relevant`: for each query its relevant items, each once, as rows of the gallery from 0.

    >>> gallery = [[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]
    >>> landmark_map([[1.0, 0.0], [0.0, 1.0]], gallery, [[0, 2], []], k=3).tolist()
    [0.8333333333333333, 0.0]
    """
    query, gallery = table(query, "query features"), table(gallery, "gallery features")
    lists = _rows(relevant, len(gallery), len(query), "relevant")
    found = top_k(query, gallery, k)[1]
    hits = np.stack([np.isin(line, rows) for line, rows in zip(found, lists, strict=True)])
    lengths = np.array([len(rows) for rows in lists])
    precision = hits.cumsum(1) / np.arange(1, k + 1)
    return (precision * hits).sum(1) / np.maximum(1, np.minimum(lengths, k))


def revisited(
    query: Any, gallery: Any, easy: Sequence[Any], hard: Sequence[Any], junk: Sequence[Any]
) -> dict[str, np.ndarray]:
    """Return each query's part in mAP and mean precision at k by the easy, medium and hard protocol.

    Source: Revisited Oxford and Paris (arXiv 1803.11285) and the evaluation published with it. Right items
    are easy; easy and hard; hard. Junk is junk and hard; junk; junk and easy; ranks are over the gallery
    without it. Average precision is by trapezia: with right item j (from 0) at rank r (from 0), the mean over
    the right items of (j / r + (j + 1) / (r + 1)) / 2, j / r being 1 at r = 0. Precision at k is over the
    first min(k, rank of the last right item) items. Ties go to the item that stands first in the gallery
    (the published tool sorts them at will).

    `easy`, `hard`, `junk`: for each query, rows of the gallery, no row twice for one query.

    Returns:
        float64 [Nq] by the names of the means: "map" and "mp@1" of medium, the headline, "easy/map",
        "hard/mp@5" and so on; nan for a query without right items, which is skipped.

    >>> gallery = [[1.0, 0.0], [0.9, 0.1], [0.5, 0.5], [0.0, 1.0]]
    >>> result = revisited([[1.0, 0.0]], gallery, [[1]], [[3]], [[0]])
    >>> [result[name].tolist() for name in ("easy/map", "map", "hard/map")]  # hard: at rank 1 behind item 2
    [[1.0], [0.7916666666666666], [0.25]]
    """
    sides = UnitRows(query, "query"), UnitRows(gallery, "gallery")
    queries, items = len(sides[0]), len(sides[1])
    lists = [_rows(x, items, queries, n) for x, n in ((easy, "easy"), (hard, "hard"), (junk, "junk"))]
    _rows([np.concatenate(kinds) for kinds in zip(*lists, strict=True)], items, queries, "judged")
    pairs = PairScores(sides[0], np.zeros(queries, int), sides[1], np.zeros(items, int))
    values = np.full((3, 1 + len(KS), queries), np.nan)  # by protocol: average precision, precision at each k
    for rows, ranked in rankings(pairs):
        for row, line in zip(rows, ranked, strict=True):
            place = np.argsort(line)  # of every item, from 0
            easy, hard, junk = (place[kind[row]] for kind in lists)
            values[0, :, row] = _quality(np.r_[easy, hard], junk)
            values[1, :, row] = _quality(easy, np.r_[junk, hard])
            values[2, :, row] = _quality(hard, np.r_[junk, easy])
    names = ("map", *(f"mp@{k}" for k in KS))
    kinds = [kind + name for kind in ("", "easy/", "hard/") for name in names]
    return dict(zip(kinds, values.reshape(-1, queries), strict=True))


def _quality(right: np.ndarray, junk: np.ndarray) -> list[float]:
    # Average precision and precision at each k of one query, from the places of its right and junk items.
    if not len(right):
        return [np.nan] * (1 + len(KS))
    right = np.sort(right)
    rank = right - np.searchsorted(np.sort(junk), right)
    number = np.arange(len(rank))
    before = np.where(rank > 0, number / np.maximum(rank, 1), 1.0)
    area = (before + (number + 1) / (rank + 1)).sum() / (2 * len(rank))
    return [area, *((rank < k).sum() / min(k, rank[-1] + 1) for k in KS)]


def _rows(lists: Sequence[Any], size: int, queries: int, name: str) -> list[np.ndarray]:
    # Every query's items, checked: rows of a gallery of this size, none twice.
    one_each(lists, f"lists of {name} items", queries, "queries")
    found = []
    for number, items in enumerate(lists):
        rows = plain_array(list(items) if isinstance(items, set) else items)
        rows = rows if rows.size else rows.astype(np.int64)  # an empty list is one of floats
        good = rows.ndim == 1 and rows.dtype.kind in "iu" and len(np.unique(rows)) == rows.size
        if not good or ((rows < 0) | (rows >= size)).any():
            raise ValueError(
                f"the {name} items of query {number} are {items!r}; give rows of the gallery of {size} "
                "items, from 0, none twice"
            )
        found.append(rows.astype(np.int64))
    return found
