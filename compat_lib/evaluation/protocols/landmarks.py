"""Landmark retrieval: mAP@100 of Google Landmarks v2, and the protocols of Revisited Oxford and Paris."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compat_lib.evaluation.inputs import UnitRows, plain_array, table, whole_numbers
from compat_lib.evaluation.pairs import PairScores
from compat_lib.evaluation.ranking import rankings, top_k
from compat_lib.evaluation.records import Measured


@dataclass(frozen=True)
class LandmarkRetrieval(Measured):
    """Mean average precision over the first k items."""

    about = (
        "the first {0.k} items; {0.average_precision.size} queries, {0.empty} without relevant items count 0"
    )
    map: float  # fraction
    average_precision: np.ndarray = field(repr=False)  # float64 [Nq]; 0 for a query without relevant items
    k: int
    empty: int  # queries without relevant items

    @property
    def values(self) -> dict[str, float]:
        """The one number."""
        return {"map": self.map}


@dataclass(frozen=True)
class Protocol:
    """Quality under one of the protocols easy, medium and hard."""

    map: float  # mean average precision, fraction; nan when no query counts
    precision: dict[int, float]  # k -> mean precision at k
    average_precision: np.ndarray = field(repr=False)  # float64 [Nq], nan for a query without right items
    queries: int  # queries that count


@dataclass(frozen=True)
class Revisited(Measured):
    """The three protocols; medium is the headline."""

    about = "{0.easy.queries} easy, {0.medium.queries} medium, {0.hard.queries} hard queries"
    easy: Protocol
    medium: Protocol
    hard: Protocol

    @property
    def values(self) -> dict[str, float]:
        """ "map" and "mp@1" of medium, "easy/map", "hard/mp@5" and so on."""
        kinds = {"": self.medium, "easy/": self.easy, "hard/": self.hard}
        found = {f"{kind}map": one.map for kind, one in kinds.items()}
        return found | {f"{n}mp@{k}": mp for n, one in kinds.items() for k, mp in one.precision.items()}


def landmark_map(query: Any, gallery: Any, relevant: Sequence[Any], *, k: int = 100) -> LandmarkRetrieval:
    """Return the mean average precision of the k gallery items nearest to each query.

    Source: Google Landmarks v2 (arXiv 2004.01804) as evaluated by OpenCompatible and AdvBCT: cosine, k = 100,
    AP = (sum of the precision at each hit) / min(number of relevant items, k). A query without relevant items
    counts 0. Ties go to the item that stands first in the gallery.

    `relevant`: for each query its relevant items, each once, as rows of the gallery from 0.

    >>> gallery = [[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]
    >>> landmark_map([[1.0, 0.0], [0.0, 1.0]], gallery, [[0, 2], []], k=3).average_precision.tolist()
    [0.8333333333333333, 0.0]
    """
    query, gallery = table(query, "query features"), table(gallery, "gallery features")
    lists = _rows(relevant, len(gallery), len(query), "relevant")
    found = top_k(query, gallery, k)[1]
    hits = np.stack([np.isin(line, rows) for line, rows in zip(found, lists, strict=True)])
    lengths = np.array([len(rows) for rows in lists])
    precision = hits.cumsum(1) / np.arange(1, k + 1)
    average = (precision * hits).sum(1) / np.maximum(1, np.minimum(lengths, k))
    return LandmarkRetrieval(float(average.mean()), average, k, int((lengths == 0).sum()))


def revisited(
    query: Any,
    gallery: Any,
    easy: Sequence[Any],
    hard: Sequence[Any],
    junk: Sequence[Any],
    *,
    ks: Sequence[int] = (1, 5, 10),
) -> Revisited:
    """Return mAP and mean precision at k under the easy, medium and hard protocols.

    Source: Revisited Oxford and Paris (arXiv 1803.11285) and the evaluation published with it. Right items
    are easy; easy and hard; hard. Junk is junk and hard; junk; junk and easy; ranks are over the gallery
    without it. Average precision is by trapezia: with right item j (from 0) at rank r (from 0), the mean over
    the right items of (j / r + (j + 1) / (r + 1)) / 2, j / r being 1 at r = 0. Precision at k is over the
    first min(k, rank of the last right item) items. Queries without right items are skipped. Ties go to the
    item that stands first in the gallery (the published tool sorts them at will).

    `easy`, `hard`, `junk`: for each query, rows of the gallery, no row twice for one query.

    >>> gallery = [[1.0, 0.0], [0.9, 0.1], [0.5, 0.5], [0.0, 1.0]]
    >>> result = revisited([[1.0, 0.0]], gallery, [[1]], [[3]], [[0]])
    >>> result.easy.map, result.medium.map, result.hard.map  # hard: at 0-based rank 1 behind item 2
    (1.0, 0.7916666666666666, 0.25)
    """
    ks = whole_numbers(ks, "ks")
    sides = UnitRows(query, "query"), UnitRows(gallery, "gallery")
    queries, items = len(sides[0]), len(sides[1])
    lists = [_rows(x, items, queries, n) for x, n in ((easy, "easy"), (hard, "hard"), (junk, "junk"))]
    _rows([np.concatenate(kinds) for kinds in zip(*lists, strict=True)], items, queries, "judged")
    pairs = PairScores(sides[0], np.zeros(queries, int), sides[1], np.zeros(items, int))
    values = np.full((3, 1 + len(ks), queries), np.nan)  # by protocol: average precision, precision at each k
    for rows, ranked in rankings(pairs):
        for row, line in zip(rows, ranked, strict=True):
            place = np.argsort(line)  # of every item, from 0
            easy, hard, junk = (place[kind[row]] for kind in lists)
            values[0, :, row] = _quality(easy, np.r_[junk, hard], ks)
            values[1, :, row] = _quality(np.r_[easy, hard], junk, ks)
            values[2, :, row] = _quality(hard, np.r_[junk, easy], ks)
    protocols = []
    for average, *precision in values:
        valid = ~np.isnan(average)
        means = [float(each[valid].mean()) if valid.any() else np.nan for each in (average, *precision)]
        protocols.append(Protocol(means[0], dict(zip(ks, means[1:], strict=True)), average, int(valid.sum())))
    return Revisited(*protocols)


def _quality(right: np.ndarray, junk: np.ndarray, ks: Sequence[int]) -> list[float]:
    # Average precision and precision at each k of one query, from the places of its right and junk items.
    if not len(right):
        return [np.nan] * (1 + len(ks))
    right = np.sort(right)
    rank = right - np.searchsorted(np.sort(junk), right)
    number = np.arange(len(rank))
    before = np.where(rank > 0, number / np.maximum(rank, 1), 1.0)
    area = (before + (number + 1) / (rank + 1)).sum() / (2 * len(rank))
    return [area, *((rank < k).sum() / min(k, rank[-1] + 1) for k in ks)]


def _rows(lists: Sequence[Any], size: int, queries: int, name: str) -> list[np.ndarray]:
    # Every query's items, checked: rows of a gallery of this size, none twice.
    if len(lists) != queries:
        raise ValueError(f"there are {len(lists)} lists of {name} items for {queries} queries; give one each")
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
