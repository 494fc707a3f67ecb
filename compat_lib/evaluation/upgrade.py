"""Who gains and who loses by an upgrade."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compat_lib.evaluation.bootstrap import bootstrap_mean, identity_weights, interval
from compat_lib.evaluation.inputs import codes, names_or_numbers
from compat_lib.evaluation.ranking import Retrieval, retrieval
from compat_lib.evaluation.records import Readable, Record, Records

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

    @property
    def difference(self) -> np.ndarray:
        """Mean average precision after minus before, float64 [K], rising."""
        return self.precision_after - self.precision_before


@dataclass(frozen=True)
class Changes(Readable):
    """Losses and gains of an upgrade; fractions, None where there is nothing to take a mean of."""

    about = "{0.by_identity.identities.size} identities"
    losing: float  # share of the identities whose mean average precision falls
    gaining: float  # share of those where it rises
    forgetting: float | None  # mean loss of those that lose, positive
    gain: float | None  # mean gain of those that gain, positive
    negative_flips: float  # share of the queries that were right at rank 1 and are wrong now
    positive_flips: float  # share of those that were wrong and are right now
    relative_negative_flips: float | None  # beside what two unrelated models of these error rates give: 1
    intervals: dict[str, tuple[float, float] | None] = field(repr=False)  # 95 %, by the names above
    by_identity: IdentityChanges = field(repr=False, compare=False)

    @property
    def records(self) -> Records:
        """The seven numbers with their intervals, of new/old."""
        return Records(
            Record("new", "old", name, getattr(self, name), *(ends or (None, None)))
            for name, ends in self.intervals.items()
        )


def changes(before: Retrieval, after: Retrieval, labels: Any, *, draws: int = 200, seed: int = 0) -> Changes:
    """Return who gains and who loses between two retrieval results of the same queries.

    Source: the negative flip rate of positive-congruent training (arXiv 2011.09161), at rank 1 of a ranking
    instead of a classifier's first class, and with all counted queries as its denominator, as there. The
    relative rate divides it by (share right before) x (share wrong now), as MPT (arXiv 2511.08322) and others
    report it, so that models of unequal quality can be compared. None where that is zero.

    Args:
        before: such as old queries in the old gallery.
        after: such as new queries in the same gallery, still old.
        labels: [Nq] of the queries; intervals are over these.

    >>> right = retrieval([[1.0, 0.0], [0.0, 1.0]], [0, 1], [[1.0, 0.0], [0.0, 1.0]], [0, 1])
    >>> partly = retrieval([[1.0, 0.0], [1.0, 0.1]], [0, 1], [[1.0, 0.0], [0.0, 1.0]], [0, 1])
    >>> found = changes(right, partly, [0, 1], draws=0)
    >>> found.losing, found.forgetting, found.gaining, found.negative_flips, found.positive_flips
    (0.5, 0.5, 0.0, 0.5, 0.0)
    """
    counted = before.first_match > 0
    if not np.array_equal(counted, after.first_match > 0):
        raise ValueError(
            "the two results count different queries: some have a right item in one gallery only; use the "
            "same gallery images and exclude the same pairs in both"
        )
    number = codes(labels, None, (len(counted), 0), "labels")[0]
    sides = before.average_precision, after.average_precision
    was, now = (result.first_match == 1 for result in (before, after))
    queries = np.bincount(number[counted])
    used = queries > 0
    means = [np.bincount(number[counted], side[counted])[used] / queries[used] for side in sides]
    difference = np.full(number.max() + 1, np.nan)  # nan for an identity without a counted query
    difference[np.flatnonzero(used)] = np.where(abs(means[1] - means[0]) > EQUAL, means[1] - means[0], 0.0)
    known = np.isfinite(difference)
    identities = np.arange(len(difference))
    values = {
        "losing": (np.where(known, difference < 0, np.nan), identities),
        "gaining": (np.where(known, difference > 0, np.nan), identities),
        "forgetting": (np.where(difference < 0, -difference, np.nan), identities),
        "gain": (np.where(difference > 0, difference, np.nan), identities),
        "negative_flips": (np.where(counted, was & ~now, np.nan), labels),
        "positive_flips": (np.where(counted, now & ~was, np.nan), labels),
    }
    weights = identity_weights(labels, draws, seed)
    found, ends, drawn = {}, {}, {}
    for name, (value, groups) in values.items():
        found[name] = float(np.nanmean(value)) if np.isfinite(value).any() else None
        drawn[name] = bootstrap_mean(value, groups, weights)
        ends[name] = interval(drawn[name])
    right, wrong = (np.where(counted, side, np.nan) for side in (was, ~now))
    expected = np.nanmean(right) * np.nanmean(wrong)
    found["relative_negative_flips"] = float(found["negative_flips"] / expected) if expected else None
    expected = bootstrap_mean(right, labels, weights) * bootstrap_mean(wrong, labels, weights)
    ratio = np.divide(drawn["negative_flips"], expected, np.full_like(expected, np.nan), where=expected > 0)
    ends["relative_negative_flips"] = interval(ratio)
    names = np.unique(names_or_numbers(labels, "labels"))[: len(queries)][used]
    order = np.argsort(difference[known], kind="stable")
    table = IdentityChanges(names[order], queries[used][order], *(mean[order] for mean in means))
    return Changes(**found, intervals=ends, by_identity=table)


def upgrade_changes(
    old: Any, new: Any, labels: Any, *, cross: tuple[Any, Any] | None = None, draws: int = 200, seed: int = 0
) -> Changes:
    """Return who gains and who loses when new queries meet the old gallery: old/old before, new/old after.

    Every image is a query and a gallery item; no image is compared with itself. `cross` are the forms of
    (queries, gallery) that the cross-test compares, None: new and old themselves.

    >>> points = [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]]
    >>> result = upgrade_changes(points, points, [0, 0, 1, 1], draws=0)
    >>> result.losing, result.gain, result.negative_flips
    (0.0, None, 0.0)
    """
    query, gallery = (new, old) if cross is None else cross
    ids = dict.fromkeys(("query_ids", "gallery_ids"), np.arange(len(labels)))
    after = retrieval(query, labels, gallery, labels, **ids)
    return changes(retrieval(old, labels), after, labels, draws=draws, seed=seed)
