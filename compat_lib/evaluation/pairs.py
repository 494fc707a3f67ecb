"""Verification (1:1): the share of genuine pairs accepted at a false accept rate, exactly and in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compat_lib.evaluation.scores import PairScores, at_least, unit_rows

FARS = (1e-2, 1e-3, 1e-4)
PER_UNIT = 2**15  # bins in a unit of cosine: a power of two, so that scaling a score is exact
TABLE = 2**16  # counters of one refinement


@dataclass(frozen=True)
class Verification:
    """True accept rates at false accept rates; tuples in the order of `fars`."""

    fars: tuple[float, ...]
    tar: tuple[float, ...]  # fraction; nan where not measurable
    thresholds: tuple[float, ...]  # a pair is accepted when its cosine is at least this; nan likewise
    measurable: tuple[bool, ...]
    positives: int  # genuine pairs: two images of one identity
    negatives: int  # impostor pairs
    excluded: int
    note: str

    def summary(self) -> str:
        """Return one line for reading."""
        parts = [f"TAR@FAR={far:g} " + (f"{tar:.4f}" if ok else "not measurable") for far, tar, ok in
                 zip(self.fars, self.tar, self.measurable, strict=True)]
        return f"{', '.join(parts)} ({self.positives} genuine, {self.negatives} impostor pairs)"


@dataclass(frozen=True)
class Roc:
    """Exact points of the ROC curve, from the strictest threshold to the loosest."""

    far: np.ndarray  # float64 [K], from 0 to 1
    tar: np.ndarray  # float64 [K], from 0 to 1
    thresholds: np.ndarray  # float64 [K], falling; a pair is accepted when its cosine is at least this


@dataclass(frozen=True)
class Counts:
    """How many scores of each kind lie in each bin of width 1 / PER_UNIT; bin b starts at b / PER_UNIT - 2."""

    same: np.ndarray  # int64 [3 * PER_UNIT + 1]
    different: np.ndarray

    @property
    def positives(self) -> int:
        return int(self.same.sum())

    @property
    def negatives(self) -> int:
        return int(self.different.sum())


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

    The TAR at FAR f is the largest TAR of any threshold whose false accept rate is at most f (the conservative
    reading; IJB's tools take the nearest point instead). With ties the whole tied group is accepted or refused.
    A FAR is measurable when f times the number of impostor pairs is at least 1. Identities with one image give
    impostor pairs only. Memory does not grow with the number of pairs.

    Args:
        query: float [Nq, D], any length of row; NumPy or torch (computed where the tensor lies).
        query_labels: whole numbers or names [Nq].
        gallery: float [Ng, D], or None: every unordered pair i < j inside the query set.
        gallery_labels: [Ng], given with the gallery.
        query_ids, gallery_ids: image ids; pairs with equal ids are excluded. None: nothing is excluded.
        fars: fractions in (0, 1].

    Raises:
        ValueError: for NaN, unequal widths or lengths, "there is no genuine pair ...", "there is no impostor pair
            ...", and "a FAR of 10 was given; it is a fraction ...".

    >>> features = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]
    >>> result = verification(features, [0, 0, 1, 1], fars=[0.25, 0.1])
    >>> result.tar, result.positives, result.negatives
    ((1.0, nan), 2, 4)
    """
    fars = checked_fars(fars)
    pairs = pair_scores(query, query_labels, gallery, gallery_labels, query_ids, gallery_ids)
    return verify(pairs, count(pairs), fars)


def roc_curve(
    query: Any,
    query_labels: Any,
    gallery: Any = None,
    gallery_labels: Any = None,
    *,
    query_ids: Any = None,
    gallery_ids: Any = None,
) -> Roc:
    """Return points of the ROC curve over all pairs, at thresholds 2**-15 apart.

    Every point is exact: the rates are those of accepting the scores at or above its threshold. Thresholds between
    which no score lies are left out. Arguments and errors are those of `verification`.

    >>> roc = roc_curve([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], [0, 0, 1, 1])
    >>> roc.far.tolist(), roc.tar.tolist()
    ([0.0, 0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0, 1.0])
    """
    return roc_points(count(pair_scores(query, query_labels, gallery, gallery_labels, query_ids, gallery_ids)))


def cosine_histograms(
    query: Any,
    query_labels: Any,
    gallery: Any = None,
    gallery_labels: Any = None,
    *,
    query_ids: Any = None,
    gallery_ids: Any = None,
    bins: int = 100,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return histograms of the cosines of genuine and of impostor pairs.

    The bins divide [-1, 1] evenly; the last one includes 1. The other arguments are those of `verification`; a kind
    of pair that does not occur has an empty histogram.

    Returns:
        edges float64 [bins + 1], same identity int64 [bins], different identities int64 [bins].

    >>> edges, same, different = cosine_histograms([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], [0, 0, 1], bins=4)
    >>> same.tolist(), different.tolist()
    ([0, 0, 1, 0], [1, 0, 1, 0])
    """
    if bins < 1:
        raise ValueError(f"bins is {bins}; give at least 1")
    pairs = pair_scores(query, query_labels, gallery, gallery_labels, query_ids, gallery_ids)
    everything, same = np.zeros(bins + 1, np.int64), np.zeros(bins + 1, np.int64)
    for tile in pairs.tiles():
        place = torch.floor((tile.scores.reshape(-1).double() + 1) * (bins / 2)).clamp_(-1, bins - 1).long() + 1
        everything += torch.bincount(place, minlength=bins + 1).cpu().numpy()
        same += torch.bincount(place[tile.genuine], minlength=bins + 1).cpu().numpy()
    return np.linspace(-1, 1, bins + 1), same[1:], (everything - same)[1:]


def pair_scores(query, query_labels, gallery, gallery_labels, query_ids, gallery_ids) -> PairScores:
    """Return the checked pairs of the public functions' arguments."""
    query = unit_rows(query, "query")
    gallery = None if gallery is None else unit_rows(gallery, "gallery")
    return PairScores(
        query, query_labels, gallery, gallery_labels, query_ids=query_ids, gallery_ids=gallery_ids
    )


def checked_fars(fars: Sequence[float]) -> tuple[float, ...]:
    """Return the false accept rates as floats, or raise ValueError."""
    fars = tuple(float(far) for far in fars)
    for far in fars:
        if not 0 < far <= 1:
            raise ValueError(f"a FAR of {far:g} was given; it is a fraction above 0 and at most 1, such as 1e-3")
    return fars


def most_accepted(far: float, negatives: Any) -> Any:
    """Return the largest whole k with k / negatives <= far; negatives may be an array."""
    negatives = np.asarray(negatives, np.float64)
    some = np.maximum(negatives, 1)
    k = np.floor(far * negatives)
    # The product is rounded; the comparison that counts is that of the quotient.
    k = np.where((k + 1) / some <= far, k + 1, k)
    return np.where(k / some > far, k - 1, k).astype(np.int64)


def count(pairs: PairScores) -> Counts:
    """Return the histogram of all pairs; excluded ones are not counted.

    Raises:
        ValueError: "there is no genuine pair ..." or "there is no impostor pair ...".
    """
    size = 3 * PER_UNIT + 1
    everything = torch.zeros(size, dtype=torch.int64, device=pairs.device)
    same = torch.zeros_like(everything)
    for tile in pairs.tiles():
        place = (tile.scores * PER_UNIT).floor_().add_(2 * PER_UNIT).int().reshape(-1)
        everything += torch.bincount(place, minlength=size)
        if len(tile.genuine):
            same += torch.bincount(place[tile.genuine], minlength=size)
    everything[0] = same[0] = 0  # bin 0 holds the excluded pairs and nothing else
    counts = Counts(same.cpu().numpy(), (everything - same).cpu().numpy())
    if not counts.positives:
        raise ValueError(
            "there is no genuine pair: no identity has two images that may be compared; "
            "verification needs at least one identity with two images, or with one on each side"
        )
    if not counts.negatives:
        raise ValueError("there is no impostor pair: all images are of one identity; add images of another one")
    return counts


def roc_points(counts: Counts) -> Roc:
    """Return the points of the curve at the bins' lower edges."""
    used = np.flatnonzero(counts.same + counts.different)[::-1]
    tar = np.cumsum(counts.same[used]) / counts.positives
    far = np.cumsum(counts.different[used]) / counts.negatives
    thresholds = used / PER_UNIT - 2.0
    return Roc(np.r_[0.0, far], np.r_[0.0, tar], np.r_[np.inf, thresholds])


@dataclass
class _Bracket:
    # The impostor score searched for is number `rank` (from 0, falling) among those whose keys lie in [low, high);
    # `accepted` genuine scores lie above the bracket.
    low: int
    high: int
    rank: int
    accepted: int

    @property
    def shift(self) -> int:
        return max(0, (self.high - self.low - 1).bit_length() - TABLE.bit_length() + 1)


def verify(pairs: PairScores, counts: Counts, fars: tuple[float, ...]) -> Verification:
    """Return the exact result: the first impostor score to be refused is searched inside the bin that holds it.

    Genuine pairs above the (k + 1)-th largest impostor score are accepted, k being the impostors that the FAR
    allows. A bin is refined by counting, never by holding scores, so that no number of pairs and no tie can fill
    the memory: a float32 has 32 bits, and each pass settles 16 of them.
    """
    allowed = [int(most_accepted(far, counts.negatives)) for far in fars]
    above = np.cumsum(counts.different[::-1])
    accepted = np.cumsum(counts.same[::-1])
    brackets: dict[int, _Bracket] = {}
    for k in allowed:
        if 1 <= k < counts.negatives:
            place = int(np.searchsorted(above, k, "right"))  # the first bin from the top that brings more than k
            bin_ = len(above) - 1 - place
            low, high = (int(_keys(torch.tensor([b / PER_UNIT - 2.0]))) for b in (bin_, bin_ + 1))
            rank = k - int(above[place] - counts.different[bin_])
            brackets[k] = _Bracket(low, high, rank, int(accepted[place] - counts.same[bin_]))
    while any(b.high - b.low > 1 for b in brackets.values()):
        _refine(pairs, [b for b in brackets.values() if b.high - b.low > 1])
    tar, thresholds = [], []
    for k in allowed:
        if k < 1:
            tar.append(float("nan"))
            thresholds.append(float("nan"))
        elif k >= counts.negatives:
            tar.append(1.0)
            thresholds.append(-1.0)
        else:
            tar.append(brackets[k].accepted / counts.positives)
            thresholds.append(float(np.nextafter(np.float32(_score(brackets[k].low)), np.float32(2))))
    return Verification(
        fars, tuple(tar), tuple(thresholds), tuple(k >= 1 for k in allowed),
        counts.positives, counts.negatives, pairs.excluded, pairs.note,
    )


def _keys(scores: Tensor) -> Tensor:
    # The bits of a float32 as whole numbers in the order of the floats; adding 0 makes the two zeros one.
    bits = (scores + 0.0).view(torch.int32).long()
    return torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def _score(key: int) -> float:
    bits = torch.tensor([abs(key)], dtype=torch.int32).view(torch.float32)
    return float(bits) if key >= 0 else -float(bits)


def _refine(pairs: PairScores, brackets: list[_Bracket]) -> None:
    lowest = _score(min(b.low for b in brackets))
    tables = [torch.zeros(2, TABLE, dtype=torch.int64, device=pairs.device) for _ in brackets]
    for tile in pairs.tiles():
        scores = tile.scores.reshape(-1)
        keys = _keys(scores[at_least(scores, lowest)])
        own = _keys(scores[tile.genuine])
        for bracket, table in zip(brackets, tables, strict=True):
            for row, values in zip(table, (keys, own), strict=True):
                inside = values[(values >= bracket.low) & (values < bracket.high)]
                row += torch.bincount((inside - bracket.low) >> bracket.shift, minlength=TABLE)
    for bracket, table in zip(brackets, tables, strict=True):
        everything, same = table.cpu().numpy()
        different = everything - same
        above, accepted = np.cumsum(different[::-1]), np.cumsum(same[::-1])
        place = int(np.searchsorted(above, bracket.rank, "right"))
        cell = TABLE - 1 - place
        bracket.rank -= int(above[place] - different[cell])
        bracket.accepted += int(accepted[place] - same[cell])
        shift = bracket.shift
        low = bracket.low + (cell << shift)
        bracket.low, bracket.high = low, min(bracket.high, low + (1 << shift))
