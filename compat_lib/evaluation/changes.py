"""Who gets worse by an upgrade: gains and losses identity by identity, and queries whose answer flips."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compat_lib.evaluation.inputs import codes, plain_array, table, two_parts
from compat_lib.evaluation.intervals import bootstrap_mean, identity_weights, interval
from compat_lib.evaluation.ranking import Retrieval, retrieval
from compat_lib.evaluation.records import Record, Records

EQUAL = 1e-12  # average precisions that differ by no more are equal up to rounding


@dataclass(frozen=True)
class IdentityChanges:
    """What the upgrade does to each identity that has a counted query; arrays [K] in the same order.

    The identities stand sorted by the change of their average precision, the greatest loss first.
    """

    identities: np.ndarray  # labels
    queries: np.ndarray  # int64, counted queries of the identity
    precision_before: np.ndarray  # float64, mean average precision of its queries
    precision_after: np.ndarray
    rank1_before: np.ndarray  # float64, share of its queries that are right at rank 1
    rank1_after: np.ndarray

    @property
    def difference(self) -> np.ndarray:
        """Mean average precision after minus before, float64 [K], rising."""
        return self.precision_after - self.precision_before


@dataclass(frozen=True)
class Changes:
    """Losses and gains of an upgrade; fractions, None where there is nothing to take a mean of."""

    losing: float  # share of the identities whose mean average precision falls
    gaining: float  # share of those where it rises
    forgetting: float | None  # mean loss of those that lose, positive
    gain: float | None  # mean gain of those that gain, positive
    negative_flips: float  # share of the queries that were right at rank 1 and are wrong now
    positive_flips: float  # share of those that were wrong and are right now
    intervals: dict[str, tuple[float, float] | None] = field(repr=False)  # 95 %, by the names above
    by_identity: IdentityChanges = field(repr=False, compare=False)

    @property
    def records(self) -> Records:
        """The six numbers with their intervals, of new/old."""
        return Records(
            Record("new", "old", name, getattr(self, name), *(ends or (None, None)))
            for name, ends in self.intervals.items()
        )

    @property
    def metrics(self) -> dict[str, float | None]:
        """Flat names: "changes/negative_flips", with "/low" and "/high", and so on."""
        values: dict[str, float | None] = {}
        for name, ends in self.intervals.items():
            low, high = ends or (None, None)
            key = f"changes/{name}"
            values |= {key: getattr(self, name), f"{key}/low": low, f"{key}/high": high}
        return values

    def summary(self) -> str:
        """Return two lines for reading."""
        loss, gain = (
            "" if mean is None else f" (mean AP {sign}{mean:.4f})"
            for sign, mean in (("-", self.forgetting), ("+", self.gain))
        )
        return (
            f"identities: {self.losing:.4f} lose{loss}, {self.gaining:.4f} gain{gain}, "
            f"of {len(self.by_identity.identities)}\n"
            f"queries: {self.negative_flips:.4f} right before and wrong after, "
            f"{self.positive_flips:.4f} wrong before and right after"
        )


def changes(before: Retrieval, after: Retrieval, labels: Any, *, draws: int = 200, seed: int = 0) -> Changes:
    """Return who gains and who loses between two retrieval results of the same queries.

    Source: the negative flip rate of positive-congruent training (arXiv 2011.09161), at rank 1 of a ranking
    instead of a classifier's first class, and with all counted queries as its denominator, as there. An
    upgrade that gains on average can still break what worked. Intervals are percentiles of a bootstrap over
    the queries' identities.

    Args:
        before: such as old queries in the old gallery.
        after: such as new queries in the same gallery, still old.
        labels: whole numbers or names [Nq] of the queries.
        draws: bootstrap draws; 0 for no intervals.
        seed: of the draws.

    Raises:
        ValueError: "the results have 5 and 6 queries ...", "the two results count different queries ...".

    >>> right = retrieval([[1.0, 0.0], [0.0, 1.0]], [0, 1], [[1.0, 0.0], [0.0, 1.0]], [0, 1])
    >>> partly = retrieval([[1.0, 0.0], [1.0, 0.1]], [0, 1], [[1.0, 0.0], [0.0, 1.0]], [0, 1])
    >>> print(changes(right, partly, [0, 1], draws=0).summary())
    identities: 0.5000 lose (mean AP -0.5000), 0.0000 gain, of 2
    queries: 0.5000 right before and wrong after, 0.0000 wrong before and right after
    """
    if len(before.first_match) != len(after.first_match):
        raise ValueError(
            f"the results have {len(before.first_match)} and {len(after.first_match)} queries; give two "
            "results of the same queries"
        )
    counted = before.first_match > 0
    if not np.array_equal(counted, after.first_match > 0):
        raise ValueError(
            "the two results count different queries: some have a right item in one gallery only; use the "
            "same gallery images and exclude the same pairs in both"
        )
    number = codes(labels, None, (len(counted), 0), "labels")[0]
    sides = [before.average_precision, after.average_precision]
    sides += [result.first_match == 1 for result in (before, after)]
    queries = np.bincount(number[counted])
    used = queries > 0
    means = [np.bincount(number[counted], side[counted])[used] / queries[used] for side in sides]
    difference = np.full(number.max() + 1, np.nan)  # nan for an identity without a counted query
    difference[np.flatnonzero(used)] = np.where(abs(means[1] - means[0]) > EQUAL, means[1] - means[0], 0.0)
    known = np.isfinite(difference)
    was, now = sides[2:]
    values = {
        "losing": (np.where(known, difference < 0, np.nan), None),
        "gaining": (np.where(known, difference > 0, np.nan), None),
        "forgetting": (np.where(difference < 0, -difference, np.nan), None),
        "gain": (np.where(difference > 0, difference, np.nan), None),
        "negative_flips": (np.where(counted, was & ~now, np.nan), labels),
        "positive_flips": (np.where(counted, now & ~was, np.nan), labels),
    }
    weights = identity_weights(labels, draws, seed)
    found, ends = {}, {}
    for name, (value, groups) in values.items():
        found[name] = float(np.nanmean(value)) if np.isfinite(value).any() else None
        groups = np.arange(len(value)) if groups is None else groups
        ends[name] = interval(bootstrap_mean(value, groups, weights))
    names = np.unique(plain_array(labels))[: len(queries)][used]
    order = np.argsort(difference[known], kind="stable")
    table = IdentityChanges(names[order], queries[used][order], *(mean[order] for mean in means))
    return Changes(**found, intervals=ends, by_identity=table)


def upgrade_changes(
    old: Any, new: Any, labels: Any, *, cross: tuple[Any, Any] | None = None, draws: int = 200, seed: int = 0
) -> Changes:
    """Return who gains and who loses when new queries meet the old gallery: old/old before, new/old after.

    Every image is a query and a gallery item; no image is compared with itself.

    Args:
        old, new: float [N, d_old], [N, d_new] features of the same images.
        labels: whole numbers or names [N].
        cross: (query form of new [N, d], gallery form of old [N, d]) that the cross-test compares, for models
            of unequal width or a transformed gallery. None: new and old themselves.
        draws, seed: as in `changes`.

    Raises:
        ValueError: those of `changes` and `retrieval`.

    >>> points = [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]]
    >>> result = upgrade_changes(points, points, [0, 0, 1, 1], draws=0)
    >>> result.losing, result.gain, result.negative_flips
    (0.0, None, 0.0)
    """
    old, new = table(old, "old features"), table(new, "new features")
    query, gallery = (
        (new, old) if cross is None else two_parts(cross, "cross", "query features, gallery features")
    )
    images = np.arange(len(old))
    ids = {"query_ids": images, "gallery_ids": images}
    before = retrieval(old, labels, old, labels, **ids)
    after = retrieval(query, labels, gallery, labels, **ids)
    return changes(before, after, labels, draws=draws, seed=seed)
