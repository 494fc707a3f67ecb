"""Counting scores without holding them: the histogram of all pairs, and exact order statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compat_lib.evaluation.pairs import PairScores, at_least, float_keys

PER_UNIT = 2**15  # bins in a unit of cosine: a power of two, so that scaling a score is exact
TABLE = 2**16  # counters of one refinement


@dataclass(frozen=True)
class Counts:
    """How many scores of each kind lie in each bin of width 1 / PER_UNIT; bin b starts at b/PER_UNIT - 2."""

    same: np.ndarray  # int64 [3 * PER_UNIT + 1]
    different: np.ndarray

    @property
    def positives(self) -> int:
        return int(self.same.sum())

    @property
    def negatives(self) -> int:
        return int(self.different.sum())


def most_accepted(far: float, negatives: Any) -> Any:
    """Return the largest whole k with k / negatives <= far; negatives may be an array."""
    negatives = np.asarray(negatives, np.float64)
    some = np.maximum(negatives, 1)
    k = np.floor(far * negatives)
    # The product is rounded; the comparison that counts is that of the quotient.
    k = np.where((k + 1) / some <= far, k + 1, k)
    return np.where(k / some > far, k - 1, k).astype(np.int64)


def count(pairs: PairScores) -> Counts:
    """Return the histogram of all pairs; ValueError where there is no genuine or no impostor pair."""
    size = 3 * PER_UNIT + 1
    everything = torch.zeros(size, dtype=torch.int64, device=pairs.device)
    same = torch.zeros_like(everything)
    for tile in pairs.tiles():
        place = (tile.scores.reshape(-1) * PER_UNIT).floor_().long().add_(2 * PER_UNIT)
        _count_at(everything, place)
        _count_at(same, place[tile.genuine])
    everything[0] = same[0] = 0  # bin 0 holds the excluded pairs and nothing else
    counts = Counts(same.cpu().numpy(), (everything - same).cpu().numpy())
    if not counts.positives:
        raise ValueError(
            "there is no genuine pair: no identity has two images that may be compared; "
            "verification needs at least one identity with two images, or with one on each side"
        )
    if not counts.negatives:
        raise ValueError(
            "there is no impostor pair: all images are of one identity; add images of another one"
        )
    return counts


def _count_at(table: Tensor, place: Tensor) -> None:
    table.scatter_add_(0, place, torch.ones_like(place))


@dataclass
class _Bracket:
    # The impostor score searched for is number `rank` (from 0, falling) among those whose keys lie in [low,
    # high); `accepted` genuine scores lie above the bracket.
    low: int
    high: int
    rank: int
    accepted: int

    @property
    def shift(self) -> int:
        return max(0, (self.high - self.low - 1).bit_length() - TABLE.bit_length() + 1)

    @property
    def cells(self) -> int:
        return ((self.high - self.low - 1) >> self.shift) + 1


def boundaries(pairs: PairScores, counts: Counts, allowed: list[int]) -> dict[int, tuple[float, int]]:
    """Return, for each number k of impostors allowed, the highest impostor score to refuse, and how many
    genuine pairs lie above it: k -> (score, number).

    That score is the (k + 1)-th largest of the impostors, 0 <= k < negatives. It is searched in the bin that
    holds it, which is refined by counting, never by holding scores: no number of pairs and no tie can fill
    the memory. A float32 has 32 bits, and each pass settles 16 of them.
    """
    above = np.cumsum(counts.different[::-1])
    accepted = np.cumsum(counts.same[::-1])
    brackets: dict[int, _Bracket] = {}
    for k in allowed:
        place = int(np.searchsorted(above, k, "right"))  # the first bin from the top that brings more than k
        start = len(above) - 1 - place
        low, high = (int(float_keys(torch.tensor([b / PER_UNIT - 2.0]))) for b in (start, start + 1))
        rank = k - int(above[place] - counts.different[start])
        brackets[k] = _Bracket(low, high, rank, int(accepted[place] - counts.same[start]))
    while any(b.high - b.low > 1 for b in brackets.values()):
        _refine(pairs, [b for b in brackets.values() if b.high - b.low > 1])
    return {k: (_score(b.low), b.accepted) for k, b in brackets.items()}


def _score(key: int) -> float:
    return float(np.copysign(np.int32(abs(key)).view(np.float32), key))


def _refine(pairs: PairScores, brackets: list[_Bracket]) -> None:
    lowest, highest = min(b.low for b in brackets), max(b.high for b in brackets)
    tables = [torch.zeros(2, b.cells, dtype=torch.int64, device=pairs.device) for b in brackets]
    for tile in pairs.tiles():
        scores = tile.scores.reshape(-1)
        for kind, chosen in enumerate((at_least(scores, _score(lowest)), tile.genuine)):
            keys = float_keys(scores[chosen])
            keys = keys[(keys >= lowest) & (keys < highest)]
            for bracket, table in zip(brackets, tables, strict=True):
                inside = keys[(keys >= bracket.low) & (keys < bracket.high)]
                _count_at(table[kind], (inside - bracket.low) >> bracket.shift)
    for bracket, (everything, same) in zip(brackets, (table.cpu().numpy() for table in tables), strict=True):
        different = everything - same
        above, accepted = np.cumsum(different[::-1]), np.cumsum(same[::-1])
        place = int(np.searchsorted(above, bracket.rank, "right"))
        cell = bracket.cells - 1 - place
        bracket.rank -= int(above[place] - different[cell])
        bracket.accepted += int(accepted[place] - same[cell])
        low, width = bracket.low + (cell << bracket.shift), 1 << bracket.shift
        bracket.low, bracket.high = low, min(bracket.high, low + width)
