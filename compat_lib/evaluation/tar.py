"""Verification (1:1): TAR at FAR, the ROC curve and histograms of all pairs, exact and streamed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from compat_lib.evaluation.counting import (
    PER_UNIT,
    Counts,
    Side,
    boundaries,
    count,
    count_steps,
    most_accepted,
)
from compat_lib.evaluation.inputs import UnitRows, fractions
from compat_lib.evaluation.pairs import PairScores
from compat_lib.evaluation.records import Measured, rates

FARS = (1e-2, 1e-3, 1e-4)


@dataclass(frozen=True)
class Roc:
    """Exact points of the ROC curve, from the strictest threshold to the loosest, 2**-15 apart.

    Thresholds between which no score lies are left out.
    """

    far: np.ndarray  # float64 [K], from 0 to 1
    tar: np.ndarray  # float64 [K], from 0 to 1
    thresholds: np.ndarray  # float64 [K], falling; a pair is accepted when its cosine is at least this


@dataclass(frozen=True)
class Verification(Measured):
    """True accept rates at false accept rates; tuples in the order of `fars`."""

    about = "{0.positives} genuine, {0.negatives} impostor pairs"
    fars: tuple[float, ...]
    tar: tuple[float, ...]  # fraction; nan where not measurable
    thresholds: tuple[float, ...]  # a pair is accepted when its cosine is at least this; nan likewise
    measurable: tuple[bool, ...]
    positives: int  # genuine pairs: two images of one identity
    negatives: int  # impostor pairs
    excluded: int  # pairs with equal ids, or an image with itself
    roc: Roc = field(repr=False, compare=False)  # the curve of the same pairs, which costs nothing more

    @property
    def values(self) -> dict[str, float | None]:
        """TAR at every FAR, by name."""
        return rates("tar@far", self.fars, self.tar, self.measurable)


def verification(
    query: Any,
    query_labels: Any,
    gallery: Any = None,
    gallery_labels: Any = None,
    *,
    query_ids: Any = None,
    gallery_ids: Any = None,
    fars: Sequence[float] = FARS,
) -> Verification:
    """Return the true accept rate at each false accept rate over all pairs, exactly.

    The TAR at FAR f is the largest TAR of any threshold whose false accept rate is at most f (the
    conservative reading; IJB's tools take the nearest point instead). With ties the whole tied group is
    accepted or refused. A FAR is measurable when f times the number of impostor pairs is at least 1. Without
    a genuine or an impostor pair it is a ValueError. `gallery` None: every unordered pair inside `query`.

    >>> features = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]
    >>> result = verification(features, [0, 0, 1, 1], fars=[0.25, 0.1])
    >>> result.tar, result.positives, result.negatives
    ((1.0, nan), 2, 4)
    """
    fars = fractions(fars, "a FAR")
    ids = {"query_ids": query_ids, "gallery_ids": gallery_ids}
    pairs = _pairs(query, query_labels, gallery, gallery_labels, **ids)
    return verify(pairs, count(pairs), fars)


def cosine_histograms(
    query: Any,
    query_labels: Any,
    gallery: Any = None,
    gallery_labels: Any = None,
    *,
    bins: int = 100,
    **ids: Any,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return histograms of the cosines of genuine and of impostor pairs; arguments as `verification`.

    The bins divide [-1, 1] evenly; the last one includes 1. A kind of pair that does not occur has an empty
    histogram.

    Returns:
        edges float64 [bins + 1], same identity int64 [bins], different identities int64 [bins].

    >>> edges, same, different = cosine_histograms([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], [0, 0, 1], bins=4)
    >>> same.tolist(), different.tolist()
    ([0, 0, 1, 0], [1, 0, 1, 0])
    """
    pairs = _pairs(query, query_labels, gallery, gallery_labels, **ids)
    everything, same = np.zeros(bins + 1, np.int64), np.zeros(bins + 1, np.int64)
    for tile in pairs.tiles():
        scaled = (tile.scores.reshape(-1).double() + 1) * (bins / 2)
        place = scaled.floor_().clamp_(-1, bins - 1).long() + 1  # place 0 holds the excluded pairs
        everything += torch.bincount(place, minlength=bins + 1).cpu().numpy()
        same += torch.bincount(place[tile.genuine], minlength=bins + 1).cpu().numpy()
    return np.linspace(-1, 1, bins + 1), same[1:], (everything - same)[1:]


def _pairs(query, query_labels, gallery, gallery_labels, **ids) -> PairScores:
    gallery = None if gallery is None else UnitRows(gallery, "gallery")
    return PairScores(UnitRows(query, "query"), query_labels, gallery, gallery_labels, **ids)


def roc_points(counts: Counts) -> Roc:
    """Return the points of the curve at the bins' lower edges."""
    used = np.flatnonzero(counts.same + counts.different)[::-1]
    tar = np.cumsum(counts.same[used]) / counts.positives
    far = np.cumsum(counts.different[used]) / counts.negatives
    thresholds = used / PER_UNIT - 2.0
    return Roc(np.r_[0.0, far], np.r_[0.0, tar], np.r_[np.inf, thresholds])


def verify(pairs: PairScores, counts: Counts, fars: tuple[float, ...]) -> Verification:
    """Return the exact result for pairs whose histogram is known."""
    everything = Side(pairs, torch.zeros(pairs.shape[1], dtype=torch.int64, device=pairs.device), new=True)
    return _verified([everything], [counts], fars)[0]


def verify_steps(
    before: PairScores, after: PairScores, step: np.ndarray, size: int, fars: tuple[float, ...]
) -> list[Verification]:
    """Return the exact result of each gallery of a backfill; as in `backfill_ranking.rank_steps`."""
    sides = [Side.of(before, step, new=False), Side.of(after, step, new=True)]
    return _verified(sides, count_steps(sides, size), fars)


def _verified(sides: list[Side], counts: list[Counts], fars: tuple[float, ...]) -> list[Verification]:
    allowed = [[int(most_accepted(far, one.negatives)) for far in fars] for one in counts]
    searched = [
        [k for k in asked if 1 <= k < one.negatives] for one, asked in zip(counts, allowed, strict=True)
    ]
    results = []
    for one, asked, found in zip(counts, allowed, boundaries(sides, counts, searched), strict=True):
        tar, thresholds = [], []
        for k in asked:
            if k in found:
                refused, accepted = found[k]
                tar.append(accepted / one.positives)
                thresholds.append(float(np.nextafter(np.float32(refused), np.float32(2))))
            else:  # no impostor may pass, or all may
                tar.append(1.0 if k else float("nan"))
                thresholds.append(-1.0 if k else float("nan"))
        passed = tuple(k >= 1 for k in asked)
        numbers = one.positives, one.negatives, sides[0].pairs.excluded, roc_points(one)
        results.append(Verification(fars, tuple(tar), tuple(thresholds), passed, *numbers))
    return results
