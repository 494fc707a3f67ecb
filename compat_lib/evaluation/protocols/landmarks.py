"""Landmark retrieval: mAP@100 of Google Landmarks v2, and the protocols of Revisited Oxford and Paris."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compat_lib.evaluation.inputs import UnitRows, plain_array, table, whole_number, whole_numbers
from compat_lib.evaluation.protocols.reid import own_places
from compat_lib.evaluation.scores import PairScores, expand
from compat_lib.evaluation.search import top_k

EASY, HARD, JUNK = range(3)
PROTOCOLS = {  # what is right and what is junk; everything else is wrong
    "easy": ((EASY,), (JUNK, HARD)),
    "medium": ((EASY, HARD), (JUNK,)),
    "hard": ((HARD,), (JUNK, EASY)),
}


@dataclass(frozen=True)
class LandmarkRetrieval:
    """Mean average precision over the first k items."""

    map: float  # fraction
    average_precision: np.ndarray = field(repr=False)  # float64 [Nq]; 0 for a query without relevant items
    k: int
    empty: int  # queries without relevant items

    def summary(self) -> str:
        """Return one line for reading."""
        return (
            f"mAP@{self.k} {self.map:.4f} ({len(self.average_precision)} queries, {self.empty} without "
            "relevant items count 0)"
        )


@dataclass(frozen=True)
class Protocol:
    """Quality under one of the protocols easy, medium and hard."""

    map: float  # mean average precision, fraction; nan when no query counts
    precision: dict[int, float]  # k -> mean precision at k
    average_precision: np.ndarray = field(repr=False)  # float64 [Nq], nan for a query without right items
    queries: int  # queries that count


@dataclass(frozen=True)
class Revisited:
    """The three protocols; medium is the headline."""

    easy: Protocol
    medium: Protocol
    hard: Protocol

    def summary(self) -> str:
        """Return one line for each protocol."""
        lines = []
        for name in PROTOCOLS:
            found = getattr(self, name)
            rates = ", ".join(f"mP@{k} {value:.4f}" for k, value in found.precision.items())
            size = len(found.average_precision)
            lines.append(f"{name}: mAP {found.map:.4f}, {rates} ({found.queries} of {size} queries)")
        return "\n".join(lines)


def landmark_map(
    query: Any, gallery: Any, relevant: Sequence[Any], *, k: int = 100, gallery_ids: Any = None
) -> LandmarkRetrieval:
    """Return the mean average precision of the k gallery items nearest to each query.

    Source: Google Landmarks v2 (arXiv 2004.01804) as evaluated by OpenCompatible and AdvBCT: cosine, k = 100,
    AP = (sum of the precision at each hit) / min(number of relevant items, k). A query without relevant items
    counts 0. Ties go to the item that stands first in the gallery.

    Args:
        query: float [Nq, D], any length of row; NumPy or torch (computed where the tensor lies).
        gallery: float [Ng, D].
        relevant: for each query its relevant gallery items, each once: rows of the gallery, or ids.
        k: items looked at, 1 or more.
        gallery_ids: whole numbers or names [Ng], all different, when `relevant` holds ids.

    Raises:
        ValueError: "there are 2 lists of relevant items for 3 queries ...", "relevant item 9 of query 0 is
            not in the gallery ...", "relevant lists item 4 twice for query 0 ...", and those of `top_k`.

    >>> gallery = [[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]
    >>> landmark_map([[1.0, 0.0], [0.0, 1.0]], gallery, [[0, 2], []], k=3).average_precision.tolist()
    [0.8333333333333333, 0.0]
    """
    k = whole_number(k, "k", 100)
    query, gallery = table(query, "query features"), table(gallery, "gallery features")
    size = len(gallery)
    start, columns = _listed(relevant, "relevant", len(query), _numbers(gallery_ids, size), size)
    indices = top_k(query, gallery, k)[1]
    lengths = np.diff(start)
    keys = np.sort(np.repeat(np.arange(len(indices)), lengths) * size + columns)
    asked = np.arange(len(indices))[:, None] * size + indices
    hits = (indices >= 0) & (np.searchsorted(keys, asked, "right") > np.searchsorted(keys, asked, "left"))
    precision = hits.cumsum(1) / np.arange(1, hits.shape[1] + 1)
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
    are easy; easy and hard; hard. Junk is junk and hard; junk; junk and easy. Ranks are over the gallery
    without the junk. Average precision is by trapezia: with right item j (from 0) at rank r (from 0), the
    mean over the right items of (j / r + (j + 1) / (r + 1)) / 2, j / r being 1 at r = 0. Precision at k is
    over the first min(k, rank of the last right item) items, so it can be 1 for a query with fewer than k
    right items. Queries without right items are skipped. Ties go to the item that stands first in the
    gallery (the published tool sorts them at will).

    Args:
        query: float [Nq, D], any length of row; NumPy or torch (computed where the tensor lies).
        gallery: float [Ng, D].
        easy, hard, junk: for each query, rows of the gallery; no row twice for one query.
        ks: the k of mean precision at k, 1 or more.

    Raises:
        ValueError: "there are 2 lists of easy items for 3 queries ...", "hard item 9 of query 0 is not in the
            gallery ...", "easy, hard and junk list item 4 twice for query 0 ...", and for NaN or unequal
            widths.

    >>> gallery = [[1.0, 0.0], [0.9, 0.1], [0.5, 0.5], [0.0, 1.0]]
    >>> result = revisited([[1.0, 0.0]], gallery, [[1]], [[3]], [[0]])
    >>> result.easy.map, result.medium.map, result.hard.map  # hard: at 0-based rank 1 behind item 2
    (1.0, 0.7916666666666666, 0.25)
    """
    ks = whole_numbers(ks, "ks")
    query, gallery = UnitRows(query, "query"), UnitRows(gallery, "gallery")
    sizes = len(query), len(gallery)
    kinds = [
        _listed(lists, name, sizes[0], None, sizes[1])
        for lists, name in ((easy, "easy"), (hard, "hard"), (junk, "junk"))
    ]
    rows = np.concatenate([np.repeat(np.arange(sizes[0]), np.diff(start)) for start, _ in kinds])
    columns = np.concatenate([columns for _, columns in kinds])
    kind = np.repeat(np.arange(3), [len(columns) for _, columns in kinds])
    order = np.lexsort((columns, rows))
    rows, columns, kind = rows[order], columns[order], kind[order]
    _refuse_repeats("easy, hard and junk list", rows, columns, None)
    keys = rows * sizes[1] + columns
    judged = _Judged(query, gallery, np.searchsorted(rows, np.arange(sizes[0] + 1)), columns)
    blocks = list(own_places(judged, np.arange(sizes[1])))
    rows, columns, places = (np.concatenate(part) for part in zip(*blocks, strict=True))
    kind = kind[np.searchsorted(keys, rows * sizes[1] + columns)]
    return Revisited(*(_protocol(rows, kind, places, sizes[0], name, ks) for name in PROTOCOLS))


class _Judged(PairScores):
    # The pairs of all queries and gallery items; a row's own columns are the listed ones. Both sides keep
    # their order, because all labels are alike.
    def __init__(self, query: UnitRows, gallery: UnitRows, start: np.ndarray, columns: np.ndarray):
        super().__init__(query, np.zeros(len(query), int), gallery, np.zeros(len(gallery), int))
        self.first, self.last = start[:-1], start[1:]
        self._columns = columns

    def own(self, row: int, stop: int, column: int) -> tuple[np.ndarray, np.ndarray]:
        rows, which = expand(self.first[row:stop], self.last[row:stop])
        columns = self._columns[which]
        inside = (columns >= column) & (columns < column + self.tile[1])
        return rows[inside], columns[inside]


def _protocol(
    rows: np.ndarray, kind: np.ndarray, places: np.ndarray, queries: int, name: str, ks: tuple[int, ...]
) -> Protocol:
    # The judged items by row and place.
    right, junk = (np.isin(kind, kinds) for kinds in PROTOCOLS[name])
    passed = np.cumsum(junk)
    first = np.searchsorted(rows, rows)  # of the item's row
    before = passed - np.where(first > 0, passed[first - 1], 0)
    rows, rank = rows[right], (places - before)[right]  # from 1, without the junk
    start = np.searchsorted(rows, np.arange(queries + 1))
    size = np.diff(start)
    valid = size > 0
    number = np.arange(len(rows)) - start[rows]  # from 0
    left = np.where(rank > 1, number / np.maximum(rank - 1, 1), 1.0)
    total = np.bincount(rows, left + (number + 1) / rank, minlength=queries)
    with np.errstate(invalid="ignore"):
        average = total / (2 * size)  # nan without right items
    last = rank[start[1:][valid] - 1]
    means = {}
    for k in ks:
        reach = np.minimum(last, k)
        hits = np.bincount(rows[rank <= k], minlength=queries)[valid]
        means[k] = float((hits / reach).mean()) if valid.any() else float("nan")
    mean = float(average[valid].mean()) if valid.any() else float("nan")
    return Protocol(mean, means, average, int(valid.sum()))


def _numbers(gallery_ids: Any, size: int) -> np.ndarray | None:
    if gallery_ids is None:
        return None
    ids = plain_array(gallery_ids)
    if ids.shape != (size,) or ids.dtype.kind not in "iuUS":
        raise ValueError(
            f"gallery_ids have shape {ids.shape} and type {ids.dtype} for {size} gallery features; give one "
            "whole number (or name) each"
        )
    if len(np.unique(ids)) < size:
        raise ValueError("gallery_ids hold an id twice; relevant items are found by id: make them distinct")
    return ids


def _listed(
    lists: Sequence[Any], name: str, queries: int, ids: np.ndarray | None, size: int
) -> tuple[np.ndarray, np.ndarray]:
    # Where each query's items start, int64 [queries + 1], and the rows of the gallery.
    try:
        number = len(lists)
    except TypeError:
        raise ValueError(f"the {name} items are {lists!r}; give a list of them for each query") from None
    if number != queries:
        raise ValueError(
            f"there are {number} lists of {name} items for {queries} queries; give one for each query, "
            "[] where there is none"
        )
    arrays = [plain_array(items) for items in lists]
    numbers = ids is None or ids.dtype.kind in "iu"
    for row, array in enumerate(arrays):
        if array.ndim != 1 or (len(array) and array.dtype.kind not in ("iu" if numbers else "US")):
            raise ValueError(
                f"the {name} items of query {row} have shape {array.shape} and type {array.dtype}; give a "
                "list of rows of the gallery, or of ids together with gallery_ids"
            )
    lengths = np.array([len(array) for array in arrays], np.int64)
    rows = np.repeat(np.arange(queries), lengths)
    if numbers:
        items = np.concatenate([array.astype(np.int64) for array in arrays])
    else:
        items = np.concatenate([ids[:0], *(array for array in arrays if len(array))])
    if ids is None:
        columns, known = items, (items >= 0) & (items < size)
    else:
        by_id = np.argsort(ids)
        columns = by_id[np.minimum(np.searchsorted(ids[by_id], items), size - 1)]
        known = ids[columns] == items
    if not known.all():
        wrong = int(np.flatnonzero(~known)[0])
        raise ValueError(
            f"{name} item {items[wrong]} of query {rows[wrong]} is not in the gallery of {size} items; rows "
            "count from 0, and ids need gallery_ids"
        )
    order = np.lexsort((columns, rows))
    _refuse_repeats(f"{name} lists", rows[order], columns[order], ids)
    return np.r_[0, np.cumsum(lengths)], columns


def _refuse_repeats(what: str, rows: np.ndarray, columns: np.ndarray, ids: np.ndarray | None) -> None:
    # Rows and columns are sorted.
    twice = np.flatnonzero((np.diff(rows) == 0) & (np.diff(columns) == 0))
    if len(twice):
        item = columns[twice[0]] if ids is None else ids[columns[twice[0]]]
        raise ValueError(
            f"{what} item {item} twice for query {rows[twice[0]]}; give every item once: it is counted"
        )
