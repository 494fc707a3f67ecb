"""Re-identification: CMC, mAP, mINP and TPR at FPR under the camera rule; places of items in a ranking."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compat_lib.evaluation.counting import count
from compat_lib.evaluation.inputs import UnitRows, codes, plain_array, whole_number, whole_numbers
from compat_lib.evaluation.pairs import checked_fars, verify
from compat_lib.evaluation.scores import EXCLUDED, PairScores, float_keys

READINGS = ("published", "conservative")
MATCHES = 2**22  # right items of the queries that are worked on together
WAITING = 2**20  # genuine scores that wait, at least, until the lowest of them are kept


@dataclass(frozen=True)
class Reid:
    """Re-identification quality; arrays in the order of the queries, fractions from 0 to 1."""

    map: float  # mean average precision
    minp: float  # mean inverse negative penalty
    rank: dict[int, float]  # k -> CMC@k, the share of queries with a right item among the first k
    cmc: np.ndarray = field(repr=False)  # float64 [max_rank], CMC@1 first
    average_precision: np.ndarray = field(repr=False)  # float64 [Nq], nan for a skipped query
    inverse_negative_penalty: np.ndarray = field(repr=False)  # float64 [Nq], nan for a skipped query
    first_match: np.ndarray = field(repr=False)  # int64 [Nq], rank from 1; 0 for a skipped query
    queries: int  # queries that count
    skipped: int  # queries without a right item, and junk
    junk: int  # gallery items that were dropped
    excluded: int  # pairs of one identity and one camera
    fars: tuple[float, ...]
    tpr: tuple[float, ...]  # in the order of fars; nan where there is no such value
    measurable: tuple[bool, ...]  # whether there are enough pairs for this rate
    reading: str
    note: str

    @property
    def metric(self) -> float:
        """The mean of mAP and CMC@1, FastReID's single number."""
        return (self.map + float(self.cmc[0])) / 2

    def summary(self) -> str:
        """Return one line for reading."""
        ranks = ", ".join(f"rank-{k} {value:.4f}" for k, value in self.rank.items())
        rates = "".join(
            f", TPR@FPR={far:g} " + (f"{tpr:.4f}" if ok else "not measurable")
            for far, tpr, ok in zip(self.fars, self.tpr, self.measurable, strict=True)
        )
        return (
            f"mAP {self.map:.4f}, mINP {self.minp:.4f}, {ranks}, metric {self.metric:.4f}{rates} "
            f"({self.queries} queries, {self.skipped} skipped)"
        )


def reid(
    query: Any,
    query_identities: Any,
    query_cameras: Any,
    gallery: Any,
    gallery_identities: Any,
    gallery_cameras: Any,
    *,
    max_rank: int = 50,
    ranks: Sequence[int] = (1, 5, 10),
    fars: Sequence[float] = (1e-4, 1e-3, 1e-2),
    reading: str = "published",
    junk: Sequence[Any] = (-1,),
) -> Reid:
    """Return CMC, mAP, mINP and TPR at FPR of queries against a gallery seen by other cameras.

    Source: the evaluation of FastReID (Market-1501 rule) that Dual-Tuning uses; mINP of AGW (arXiv
    2001.04193). The distance is 1 - cosine. For each query the gallery items with its identity and its camera
    are removed; a query without a right item left is skipped and not counted. With right items at ranks
    r_1 < ... < r_m, AP is the mean of j / r_j and INP is m / r_m.

    Deliberate deviations. Ties rank by gallery row, so the result is reproducible, but features that
    collapse to a point are ranked by the order of the gallery: shuffle it, or see `retrieval`. A query with
    fewer than `max_rank` items keeps its last CMC value. Every point of the ROC is looked at; scikit-learn's
    default drops those inside straight parts.

    TPR at FPR is over the pooled kept pairs, those of skipped queries included. The reading "published" is
    FastReID's: its positives are the pairs of *different* identities, so TPR is the share of these that are
    told apart when FPR is the share of the pairs of one identity that are told apart. It takes the ROC
    point of nearest FPR, of two equally near ones the smaller FPR, and the lowest TPR there: it is 0 where
    too few pairs of one identity are there. "conservative" is that of `verification`: the largest share of
    the pairs of one identity accepted when at most that share of the others is.

    A cross test passes new queries and an old gallery; identities and cameras are those of the images. For
    data without cameras give one camera to the queries and another one to the gallery.

    Args:
        query: float [Nq, D], any length of row; NumPy or torch (computed where the tensor lies).
        query_identities: whole numbers or names [Nq].
        query_cameras: whole numbers or names [Nq].
        gallery: float [Ng, D].
        gallery_identities, gallery_cameras: [Ng].
        max_rank: length of the CMC curve, 1 or more.
        ranks: the k of CMC@k, 1 or more.
        fars: the FPR, fractions in (0, 1]; () measures the ranking only, in about half of the time.
        reading: "published" or "conservative".
        junk: identities that are dropped from the gallery, -1 or "-1" in Market-1501; such a query is
            skipped. Distractors (identity 0 there) stay as wrong items.

    Raises:
        ValueError: "no query has a right item left in the gallery ...", "all gallery items are junk ...",
            "the reading ... is not known ...", and those of `verification`.

    >>> result = reid([[1, 0], [0, 1]], [7, 8], [1, 1], [[1, 0], [3, 1], [1, 1]], [7, 0, 7], [1, 2, 2])
    >>> result.average_precision.tolist()  # its own camera's item is removed, the distractor comes first
    [0.5, nan]
    >>> result.rank, result.skipped, result.excluded
    ({1: 0.0, 5: 1.0, 10: 1.0}, 1, 1)
    """
    fars = checked_fars(fars)
    if reading not in READINGS:
        raise ValueError(f"the reading {reading!r} is not known; choose one of {', '.join(READINGS)}")
    ranks = whole_numbers(ranks, "ranks")
    max_rank = whole_number(max_rank, "max_rank", 50)
    if np.ndim(junk) == 0:
        raise ValueError(f"junk is {junk!r}; give the identities in a list, such as (-1,)")
    sides = UnitRows(query, "query"), UnitRows(gallery, "gallery")
    lengths = len(sides[0]), len(sides[1])
    identities = codes(query_identities, gallery_identities, lengths, "identities")
    cameras = codes(query_cameras, gallery_cameras, lengths, "cameras")
    kept = [np.flatnonzero(~_junk(values, junk)) for values in (query_identities, gallery_identities)]
    for side, rows in zip(("queries", "gallery items"), kept, strict=True):
        if not len(rows):
            raise ValueError(f"all {side} are junk, identity {tuple(junk)}; check the identities, or junk=")
    units = [
        unit if len(rows) == len(unit) else unit[torch.from_numpy(rows)]
        for unit, rows in zip(sides, kept, strict=True)
    ]
    seen = max(int(values.max()) for values in cameras) + 1
    labels = [values[rows] for values, rows in zip(identities, kept, strict=True)]
    views = [label * seen + c[rows] for label, c, rows in zip(labels, cameras, kept, strict=True)]
    pairs = PairScores(units[0], labels[0], units[1], labels[1], query_ids=views[0], gallery_ids=views[1])

    precision, penalty = np.full(lengths[0], np.nan), np.full(lengths[0], np.nan)
    first = np.zeros(lengths[0], np.int64)
    for rows, _, places in own_places(pairs, np.argsort(labels[1], kind="stable")):  # the columns' order
        if not len(rows):
            continue
        found, start, matches = np.unique(rows, return_index=True, return_counts=True)
        number = np.arange(len(rows)) - np.repeat(start, matches) + 1
        where = kept[0][pairs.order[found]]
        precision[where] = np.add.reduceat(number / places, start) / matches
        first[where], penalty[where] = places[start], matches / places[start + matches - 1]
    valid = first > 0
    if not valid.any():
        raise ValueError(
            "no query has a right item left in the gallery: every identity of a query is missing there, or "
            "was seen by the query's camera only; check that identities and cameras belong to the features"
        )
    cmc = np.array([(first[valid] <= k).mean() for k in range(1, max_rank + 1)])
    tpr, measurable = _rates(pairs, fars, reading)
    return Reid(
        float(precision[valid].mean()),
        float(penalty[valid].mean()),
        {k: float((first[valid] <= k).mean()) for k in ranks},
        cmc,
        precision,
        penalty,
        first,
        int(valid.sum()),
        int((~valid).sum()),
        lengths[1] - len(kept[1]),
        pairs.excluded,
        fars,
        tpr,
        measurable,
        reading,
        f"{pairs.excluded} pairs of one identity and one camera are excluded; ties rank by gallery row.",
    )


def _junk(identities: Any, junk: Sequence[Any]) -> np.ndarray:
    identities = plain_array(identities)
    if identities.dtype.kind not in "iub":
        return np.isin(identities.astype(str), [str(value) for value in junk])
    return np.isin(identities, [value for value in junk if not isinstance(value, str)])


def own_places(pairs: PairScores, index: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the places of every row's own columns among all its columns, one block of rows after another.

    Args:
        pairs: the scores; excluded pairs have no place and take none.
        index: int64 [columns], distinct; among equal scores the column of lower index comes first.

    Yields:
        rows and columns in the order of `pairs`, and places from 1: int64 [g] each, by row and then place.
    """
    for row, stop in _blocks(pairs):
        yield _block_places(pairs, index, row, stop)


def _blocks(pairs: PairScores) -> Iterator[tuple[int, int]]:
    own, row = pairs.last - pairs.first, 0
    while row < pairs.shape[0]:
        widest = max(1, int(own[row : row + pairs.tile[0]].max()))
        stop = min(pairs.shape[0], row + max(1, min(pairs.tile[0], MATCHES // widest)))
        yield row, stop
        row = stop


def _own_scores(pairs: PairScores, row: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # (row from `row`, column, score) of the own pairs that are not excluded.
    parts = []
    for column in range(0, pairs.shape[1], pairs.tile[1]):
        rows, columns = pairs.own(row, stop, column)
        if len(rows):
            place = torch.from_numpy(np.stack([rows, columns - column])).to(pairs.device)
            scores = pairs.block(row, stop, column)[place[0], place[1]].cpu().numpy()
            counted = scores > EXCLUDED
            parts.append((rows[counted], columns[counted], scores[counted]))
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
    rows, columns, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
    return rows, columns, scores


def _block_places(
    pairs: PairScores, index: np.ndarray, row: int, stop: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows, columns, scores = _own_scores(pairs, row, stop)
    if not len(rows):
        return rows, columns, rows
    order = np.lexsort((index[columns], -scores, rows))
    rows, columns, scores = rows[order], columns[order], scores[order]
    start = np.searchsorted(rows, np.arange(stop - row + 1))
    slot = np.arange(len(rows)) - start[rows]
    table = np.full((stop - row, int(slot.max()) + 1), np.inf, np.float32)
    table[rows, slot] = scores
    right, number = torch.from_numpy(table).to(pairs.device), torch.from_numpy(index).to(pairs.device)
    keys = torch.from_numpy(rows << 33).to(pairs.device) - float_keys(right[rows, slot])  # ascending
    # Among equal keys the index decides: `tied` is ascending too.
    tied = torch.searchsorted(keys, keys) * len(index) + number[columns]
    better = torch.zeros(table.shape, dtype=torch.int64, device=pairs.device)
    equal = torch.zeros(len(rows) + 1, dtype=torch.int64, device=pairs.device)  # differences along the rows
    for column in range(0, pairs.shape[1], pairs.tile[1]):
        tile = pairs.block(row, stop, column)
        width = tile.shape[1]
        ordered = _ascending(tile)
        not_better = torch.searchsorted(ordered, right, right=True)
        better += width - not_better
        # In most tiles a row's own columns are the only ones that score as much as themselves.
        met = (not_better - torch.searchsorted(ordered, right)).sum(1).cpu().numpy()
        own = np.bincount(rows[(columns >= column) & (columns < column + width)], minlength=stop - row)
        lines = torch.from_numpy(np.flatnonzero(met > own)).to(pairs.device)
        key = (lines[:, None] << 33) - float_keys(tile[lines])
        first, last = torch.searchsorted(keys, key), torch.searchsorted(keys, key, right=True)
        line, item = (first < last).nonzero().T
        first, last = first[line, item], last[line, item]
        # Each comes before the equal ones of higher index.
        first = torch.searchsorted(tied, first * len(index) + number[column + item], right=True)
        ends = torch.stack([torch.ones_like(first), -torch.ones_like(first)])
        equal.index_add_(0, torch.cat([first, last]), ends.reshape(-1))
    places = better.cpu().numpy()[rows, slot] + equal.cumsum(0).cpu().numpy()[:-1] + 1
    return rows + row, columns, places


def _ascending(scores: Tensor) -> Tensor:
    if scores.device.type == "cpu":  # NumPy's vectorised sort is more than ten times as fast as torch's
        return torch.from_numpy(np.sort(scores.numpy(), axis=1))
    return scores.sort(dim=1).values


def _rates(
    pairs: PairScores, fars: tuple[float, ...], reading: str
) -> tuple[tuple[float, ...], tuple[bool, ...]]:
    genuine = int((pairs.last - pairs.first).sum()) - pairs.excluded
    impostors = pairs.shape[0] * pairs.shape[1] - genuine - pairs.excluded
    if not fars or not impostors:
        return (math.nan,) * len(fars), (False,) * len(fars)
    if reading == "conservative":
        result = verify(pairs, count(pairs), fars)
        return result.tar, result.measurable
    # A rate lies between those of two ROC points: at the genuine pair number `wanted`, counted from the most
    # distant one, and at the genuine pair before it that is not tied with it, if there is one.
    wanted = [min(genuine, max(1, math.ceil(far * genuine))) for far in fars]
    lowest = _lowest_genuine(pairs, max(wanted))
    high = [float(lowest[k - 1]) for k in wanted]
    fewer = [int(np.searchsorted(lowest, np.float32(score))) for score in high]
    low = [float(lowest[k - 1]) if k else -math.inf for k in fewer]
    told_apart = _at_most(pairs, sorted({*high, *low}))
    rates = []
    for far, ends in zip(fars, zip(low, high, strict=True), strict=True):
        points = [told_apart[score] for score in ends]
        rates.append(min(points, key=lambda point: abs(point[0] / genuine - far))[1] / impostors)
    return tuple(rates), tuple(far * genuine >= 1 for far in fars)


def _lowest_genuine(pairs: PairScores, size: int) -> np.ndarray:
    # The lowest scores of the pairs of one identity, ascending: `size` of them.
    held, waiting = np.zeros(0, np.float32), []
    for row, stop in _blocks(pairs):
        waiting.append(_own_scores(pairs, row, stop)[2])
        if sum(map(len, waiting)) >= max(WAITING, size):
            held, waiting = np.sort(np.concatenate([held, *waiting]))[:size], []
    return np.sort(np.concatenate([held, *waiting]))[:size]


def _at_most(pairs: PairScores, scores: list[float]) -> dict[float, tuple[int, int]]:
    # score -> how many genuine and how many impostor pairs score at most that. All excluded pairs are of one
    # identity, and score less than any other.
    totals = np.zeros((len(scores), 2), np.int64)
    for tile in pairs.tiles():
        own = tile.scores.reshape(-1)[tile.genuine]
        totals += [(int((own <= score).sum()), int((tile.scores <= score).sum())) for score in scores]
    totals[:, 1] -= totals[:, 0]
    totals[:, 0] -= np.where(np.isfinite(scores), pairs.excluded, 0)
    return {score: (int(same), int(others)) for score, (same, others) in zip(scores, totals, strict=True)}
