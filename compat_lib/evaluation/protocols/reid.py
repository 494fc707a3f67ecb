"""Re-identification: CMC, mAP, mINP and TPR at FPR under the camera rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compat_lib.evaluation.inputs import UnitRows, codes, fractions, names_or_numbers, table, whole_numbers
from compat_lib.evaluation.pairs import PairScores
from compat_lib.evaluation.ranking import Retrieval, rankings, result
from compat_lib.evaluation.records import rates


@dataclass(frozen=True)
class Reid(Retrieval):
    """Re-identification quality: that of the ranking and more; nan for a query that is skipped."""

    about = "{0.queries} queries, {0.skipped} skipped"
    minp: float  # mean inverse negative penalty
    inverse_negative_penalty: np.ndarray = field(repr=False)  # float64 [Nq]
    skipped: int  # queries without a right item, and junk
    junk: int  # gallery items that were dropped
    fars: tuple[float, ...]
    tpr: tuple[float, ...]  # in the order of fars; nan where there is no such value
    measurable: tuple[bool, ...]  # whether there are enough pairs for this rate

    @property
    def values(self) -> dict[str, float | None]:
        """The metrics by name, "metric" being FastReID's, the mean of mAP and CMC@1; None: not measurable."""
        found = {"map": self.map, "minp": self.minp} | super().values
        found["metric"] = (self.map + (self.first_match == 1).sum() / self.queries) / 2
        return found | rates("tpr@fpr", self.fars, self.tpr, self.measurable)


def reid(
    query: Any,
    query_identities: Any,
    query_cameras: Any,
    gallery: Any,
    gallery_identities: Any,
    gallery_cameras: Any,
    *,
    ranks: Sequence[int] = (1, 5, 10),
    fars: Sequence[float] = (1e-4, 1e-3, 1e-2),
    junk: Any = (-1,),
) -> Reid:
    """Return CMC, mAP, mINP and TPR at FPR of queries against a gallery seen by other cameras.

    Source: the evaluation of FastReID (Market-1501 rule) that Dual-Tuning uses; mINP of AGW (arXiv
    2001.04193). The distance is 1 - cosine. For each query the gallery items with its identity and its camera
    are removed; a query without a right item left is skipped and not counted. With right items at ranks
    r_1 < ... < r_m, AP is the mean of j / r_j and INP is m / r_m.

    Deviations: ties are pessimistic, wrong items first; a query with fewer than k items keeps its last CMC
    value; every point of the ROC is looked at, where scikit-learn's default drops those amid straight parts.

    TPR at FPR is over the pooled kept pairs, those of skipped queries included, in FastReID's reading: its
    positives are the pairs of *different* identities, so TPR is the share of these that are told apart when
    FPR is the share of the pairs of one identity that are told apart. It takes the ROC point of nearest FPR,
    of two equally near ones the smaller FPR, and the lowest TPR there. The scores of the pairs of one
    identity are held, 4 bytes each. `verification` has the conservative reading.

    A cross-test passes new queries and an old gallery. For data without cameras give one camera to the
    queries and another one to the gallery.

    Args:
        ranks: the k of CMC@k; range(1, 51) is a curve.
        fars: the FPR; () measures the ranking only.
        junk: one identity or several that are dropped from the gallery, -1 or "-1" in Market-1501, and
            skipped as queries. Distractors (identity 0 there) stay as wrong items.

    >>> result = reid([[1, 0], [0, 1]], [7, 8], [1, 1], [[1, 0], [3, 1], [1, 1]], [7, 0, 7], [1, 2, 2])
    >>> result.average_precision.tolist()  # its own camera's item is removed, the distractor comes first
    [0.5, nan]
    >>> result.rank, result.skipped, result.excluded
    ({1: 0.0, 5: 1.0, 10: 1.0}, 1, 1)
    """
    fars, ranks = fractions(fars, "an FPR"), whole_numbers(ranks, "the ranks")
    query, gallery = table(query, "query features"), table(gallery, "gallery features")
    lengths = len(query), len(gallery)
    identities = codes(query_identities, gallery_identities, lengths, "identities")
    cameras = codes(query_cameras, gallery_cameras, lengths, "cameras")
    kept = [_not_junk(side, junk) for side in (query_identities, gallery_identities)]
    labels = [values[rows] for values, rows in zip(identities, kept, strict=True)]
    # The number of an identity as one camera sees it.
    views = [(i * sum(lengths) + c)[rows] for i, c, rows in zip(identities, cameras, kept, strict=True)]
    sides = UnitRows(query[kept[0]], "query"), UnitRows(gallery[kept[1]], "gallery")
    pairs = PairScores(sides[0], labels[0], sides[1], labels[1], query_ids=views[0], gallery_ids=views[1])

    precision, penalty = np.full(lengths[0], np.nan), np.full(lengths[0], np.nan)
    first = np.zeros(lengths[0], np.int64)
    for rows, ranked in rankings(pairs):
        right = labels[1][ranked] == labels[0][rows, None]
        right &= views[1][ranked] != views[0][rows, None]  # what is excluded comes last
        line, places = np.nonzero(right)
        places += 1
        line, start, matches = np.unique(line, return_index=True, return_counts=True)
        number = np.arange(len(places)) - np.repeat(start, matches) + 1
        where = kept[0][rows[line]]
        if len(line):
            precision[where] = np.add.reduceat(number / places, start) / matches
            first[where], penalty[where] = places[start], matches / places[start + matches - 1]
    ranked = result(pairs, precision, first, ranks)
    return Reid(
        **vars(ranked),
        minp=float(penalty[first > 0].mean()),
        inverse_negative_penalty=penalty,
        skipped=lengths[0] - ranked.queries,
        junk=lengths[1] - len(kept[1]),
        fars=fars,
        **_rates(pairs, fars),
    )


def _not_junk(identities: Any, junk: Any) -> np.ndarray:
    names = names_or_numbers(identities, "identities").astype(str)
    rows = np.flatnonzero(~np.isin(names, np.atleast_1d(junk).astype(str)))
    if not len(rows):
        raise ValueError(f"all queries or all gallery items are junk, identity {junk}; see junk=")
    return rows


def _rates(pairs: PairScores, fars: tuple[float, ...]) -> dict[str, tuple]:
    genuine = int((pairs.last - pairs.first).sum()) - pairs.excluded
    impostors = pairs.shape[0] * pairs.shape[1] - genuine - pairs.excluded
    if not fars or not impostors:
        return {"tpr": (np.nan,) * len(fars), "measurable": (False,) * len(fars)}
    # The excluded pairs, which are of one identity, come first.
    own = np.sort(np.concatenate([tile.scores.reshape(-1)[tile.genuine].cpu() for tile in pairs.tiles()]))
    own = own[pairs.excluded :]
    # A rate lies between those of two ROC points: at the genuine pair number `wanted`, counted from the most
    # distant one, and at the genuine pair before it that is not tied with it, if there is one.
    wanted = np.ceil(np.multiply(fars, genuine)).astype(np.int64).clip(1, genuine)
    high = own[wanted - 1]
    low = np.r_[np.float32(-np.inf), own][np.searchsorted(own, high)]
    ends = np.stack([low, high])
    same = np.searchsorted(own, ends, "right")
    others = np.zeros_like(same)
    for tile in pairs.tiles():
        others += [[int((tile.scores <= score).sum()) for score in line] for line in ends.tolist()]
    others -= same + np.where(np.isfinite(ends), pairs.excluded, 0)
    nearest = np.abs(same / genuine - fars).argmin(0)
    rates = (others / impostors)[nearest, np.arange(len(fars))]
    return {"tpr": tuple(rates.tolist()), "measurable": tuple(far * genuine >= 1 for far in fars)}
