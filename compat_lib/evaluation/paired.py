"""Paired comparison of two methods: one difference, one interval over seeds and identities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import stdtr, stdtrit

from compat_lib.evaluation.bootstrap import LEVEL, bootstrap_mean, identity_weights, interval

BETTER, WORSE, NOT_DECIDABLE = "better", "worse", "not decidable"
EQUAL = 1e-12  # differences that vary by no more, as a share of the values, are equal up to rounding


@dataclass(frozen=True)
class PairedComparison:
    """A paired difference, first minus second, and its interval."""

    value: float  # mean over the seeds
    low: float  # nan when there is no interval
    high: float
    seeds: int
    draws: int = 0  # bootstrap draws over test identities behind the interval; 0: it knows nothing of them

    @property
    def decided(self) -> bool:
        """Whether the interval leaves out zero."""
        return bool(self.low > 0 or self.high < 0)

    @property
    def verdict(self) -> str:
        """ "better", "worse" or "not decidable", of the first as compared with the second."""
        return NOT_DECIDABLE if not self.decided else BETTER if self.low > 0 else WORSE


def paired_comparison(a: Any, b: Any, *, draws_a: Any = None, draws_b: Any = None) -> PairedComparison:
    """Return a minus b with a 95 % interval that holds the noise of training and that of the test identities.

    A seed's difference is D_s = mu + A + B_s: what the drawn test identities do to every seed alike, A, and
    all that differs from seed to seed, B_s.

    - The variance of the mean of B is estimated by the seeds' deviation / sqrt(S), with Student's S - 1
      degrees of freedom.
    - A is what the bootstrap draws of two seeds share: the draws of the mean difference are shrunk to the
      mean covariance of the draws of two seeds. Without this step the seeds' own part would count twice.
    - The interval is that of the sum: the draws, each spread by Student's distribution (the exact mixture,
      nothing is drawn at random), cut at both ends.

    With one seed this is the percentile interval of the paired bootstrap; with draws that show no common
    part, or none at all, Student's interval over the seeds. Where the differences of all seeds are equal, the
    seeds' noise is as unknown as with one seed: the interval is that of the draws, and without draws there is
    none.

    Args:
        a, b: numbers [S] of the two methods, seed by seed in the same order (or one number); more is better.
        draws_a, draws_b: float [S, draws] (or [draws] for one seed), the bootstrap draws of the same values,
            from the same labels and seed; nan where a draw could not be measured. None: without that noise.

    >>> paired_comparison(0.53, 0.50, draws_a=[0.52, 0.53, 0.54], draws_b=[0.49, 0.50, 0.51]).verdict
    'better'
    >>> paired_comparison([2.0, 3.0, 4.0], [1.0, 1.0, 1.0]).verdict  # 2 +- 4.303 / sqrt(3), Student's
    'not decidable'
    """
    values = [np.atleast_1d(np.asarray(x, np.float64)) for x in (a, b)]
    shapes = [each.shape for each in values]
    if shapes[0] != shapes[1] or values[0].ndim != 1 or 0 in shapes[0] or not np.isfinite(values).all():
        raise ValueError(
            f"a and b have shapes {shapes[0]} and {shapes[1]}, or some values are not finite; give one for "
            "each seed that was measured on both sides (scores by query go to paired_scores)"
        )
    differences = values[0] - values[1]
    seeds, value = len(differences), float(differences.mean())
    drawn = _draws(draws_a, draws_b, seeds)
    # Metrics move in steps, so the differences of a few seeds can be equal by chance: no sign of no noise.
    alike = seeds > 1 and bool(np.ptp(differences) <= EQUAL * np.abs(values).max())
    spread = float(differences.std(ddof=1) / np.sqrt(seeds)) if seeds > 1 and not alike else 0.0
    centres = value + _shared(drawn) * (drawn.mean(0) - value) if drawn.shape[1] else np.array([value])
    if spread > 0:
        low, high = _mixture_interval(centres, spread, seeds - 1)
    else:
        low, high = interval(centres) or (np.nan, np.nan)
    return PairedComparison(value, float(low), float(high), seeds, drawn.shape[1])


def paired_scores(a: Any, b: Any, labels: Any, *, draws: int = 1000, seed: int = 0) -> PairedComparison:
    """Return the comparison of two methods from one score a query, such as the average precision.

    Args:
        a, b: float [S, N] (or [N] for one seed), a score of every query for each seed, more is better; nan
            for queries that do not count, the same ones in both (`Retrieval.average_precision`).
        labels: [N], the same for every seed.

    >>> result = paired_scores([0.9, 0.8, 0.7, 0.9], [0.5, 0.6, 0.5, 0.6], [0, 0, 1, 1], draws=100)
    >>> round(result.value, 3), result.verdict
    (0.275, 'better')
    """
    a, b = (np.atleast_2d(np.asarray(x, np.float64)) for x in (a, b))
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        raise ValueError(
            "the two methods count different queries (nan in one, a score in the other); compare them on the "
            "same queries and the same gallery items"
        )
    weights = identity_weights(labels, draws, seed)
    drawn = [np.stack([bootstrap_mean(row, labels, weights) for row in side]) for side in (a, b)]
    means = [np.nanmean(side, axis=1) for side in (a, b)]
    options = {"draws_a": drawn[0], "draws_b": drawn[1]} if draws else {}
    return paired_comparison(*means, **options)


def _draws(a: Any, b: Any, seeds: int) -> np.ndarray:
    # The differences of the draws, [seeds, draws], without the draws that are not a number somewhere.
    if a is None and b is None:
        return np.empty((seeds, 0))
    a, b = (np.atleast_2d(np.asarray(x, np.float64)) for x in (a, b))
    if a.shape != b.shape or len(a) != seeds:
        raise ValueError(
            f"the draws have shapes {a.shape} and {b.shape} for {seeds} seeds; give [seeds, draws]"
        )
    differences = a - b
    known = differences[:, np.isfinite(differences).all(0)]
    return known if known.shape[1] > 1 else known[:, :0]


def _shared(drawn: np.ndarray) -> float:
    # The share of the deviation of the mean's draws that is common to all seeds.
    seeds = len(drawn)
    together, alone = drawn.mean(0).var(), drawn.var(1).mean()
    if seeds == 1 or not together > 0:
        return 1.0
    covariance = (seeds * together - alone) / (seeds - 1)  # of two seeds, on average
    return float(np.sqrt(np.clip(covariance / together, 0.0, 1.0)))


def _mixture_interval(centres: np.ndarray, spread: float, degrees: int) -> tuple[float, float]:
    # Both ends of the mixture of Student distributions around the centres.
    def below(x: float) -> float:
        return float(stdtr(degrees, (x - centres) / spread).mean())

    tail = (1 - LEVEL) / 2
    far = -spread * stdtrit(degrees, tail / 2)  # beyond all centres by this much lies less than the tail
    low, high = centres.min() - far, centres.max() + far
    ends = (brentq(lambda x, mass: below(x) - mass, low, high, (mass,), 1e-15) for mass in (tail, 1 - tail))
    return tuple(ends)
