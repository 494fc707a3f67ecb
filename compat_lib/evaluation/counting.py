"""Counting scores without holding them: the histogram of all pairs, and exact order statistics."""

from __future__ import annotations

from collections.abc import Sequence
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
    k = np.where((k + 1) / some <= far, np.minimum(k + 1, negatives), k)
    return np.where(k / some > far, k - 1, k).astype(np.int64)


@dataclass(frozen=True)
class Side:
    """The pairs with those rows of a gallery that are new by a step of its backfill, or with the others.

    Args:
        pairs: with all rows of the gallery, as they are before or after.
        step: int64 [Ng], at which each row becomes new, in the order of `pairs.column_codes`.
        new: whether gallery k holds the rows of steps 0..k of this side, or the others.
    """

    pairs: PairScores
    step: Tensor
    new: bool

    @classmethod
    def of(cls, pairs: PairScores, step: np.ndarray, new: bool) -> Side:
        """From the steps of the caller's gallery rows."""
        return cls(pairs, torch.from_numpy(step[pairs.column_order]).to(pairs.device), new)

    def holds(self, columns: Tensor, gallery: int) -> Tensor:
        """Return which of these columns a gallery takes from this side."""
        return (self.step[columns] <= gallery) == self.new


def count(pairs: PairScores) -> Counts:
    """Return the histogram of all pairs; ValueError where there is no genuine or no impostor pair."""
    return _counts(*_histogram(pairs, torch.zeros(pairs.shape[1], dtype=torch.int64), 1)[:, 0])


def count_steps(sides: Sequence[Side], size: int) -> list[Counts]:
    """Return `count` of each gallery 0..size-1 of a backfill; its pairs are counted once, by their steps."""
    total = 0
    for side in sides:
        tables = _histogram(side.pairs, side.step, size + 1)
        until = tables[:, :-1].cumsum(1)
        total = total + (until if side.new else tables.sum(1, keepdims=True) - until)
    return [_counts(*total[:, k]) for k in range(size)]


def _histogram(pairs: PairScores, step: Tensor, steps: int) -> np.ndarray:
    # int64 [everything and genuine, steps, bins], by the step of the column.
    size = 3 * PER_UNIT + 1
    tables = torch.zeros(2, steps * size, dtype=torch.int64, device=pairs.device)
    first = step.to(pairs.device) * size + 2 * PER_UNIT
    for tile in pairs.tiles():
        width = tile.scores.shape[1]
        place = (tile.scores * PER_UNIT).floor_().long().add_(first[tile.column : tile.column + width])
        place = place.reshape(-1)
        _count_at(tables[0], place)
        _count_at(tables[1], place[tile.genuine])
    return tables.reshape(2, steps, size).cpu().numpy()


def _counts(everything: np.ndarray, same: np.ndarray) -> Counts:
    everything[0] = same[0] = 0  # bin 0 holds the excluded pairs and nothing else
    counts = Counts(same, everything - same)
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
    # high), in a gallery of a backfill or the one there is; `accepted` genuine scores lie above the bracket.
    gallery: int
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


def boundaries(
    sides: Sequence[Side], counts: Sequence[Counts], allowed: Sequence[Sequence[int]]
) -> list[dict[int, tuple[float, int]]]:
    """Return, for each gallery and each number k of impostors allowed there, the highest impostor score to
    refuse, and how many genuine pairs lie above it: k -> (score, number).

    That score is the (k + 1)-th largest of the impostors, 0 <= k < negatives. It is searched in the bin that
    holds it, which is refined by counting, never by holding scores: no number of pairs and no tie can fill
    the memory. A float32 has 32 bits, and each pass settles 16 of them.
    """
    found = [
        {k: _bracket(gallery, one, k) for k in asked}
        for gallery, (one, asked) in enumerate(zip(counts, allowed, strict=True))
    ]
    brackets = [bracket for one in found for bracket in one.values()]
    while wide := [b for b in brackets if b.high - b.low > 1]:
        _refine(sides, wide)
    return [{k: (_score(b.low), b.accepted) for k, b in one.items()} for one in found]


def _bracket(gallery: int, counts: Counts, k: int) -> _Bracket:
    above = np.cumsum(counts.different[::-1])
    place = int(np.searchsorted(above, k, "right"))  # the first bin from the top that brings more than k
    start = len(above) - 1 - place
    edges = torch.tensor([start, start + 1]).to(torch.float32) / PER_UNIT - 2.0  # exact
    low, high = float_keys(edges).tolist()
    accepted = int(np.cumsum(counts.same[::-1])[place] - counts.same[start])
    return _Bracket(gallery, low, high, k - int(above[place] - counts.different[start]), accepted)


def _score(key: int) -> float:
    return float(np.copysign(np.int32(abs(key)).view(np.float32), key))


def _refine(sides: Sequence[Side], brackets: list[_Bracket]) -> None:
    lowest, highest = min(b.low for b in brackets), max(b.high for b in brackets)
    device = sides[0].pairs.device
    tables = [torch.zeros(2, b.cells, dtype=torch.int64, device=device) for b in brackets]
    for side, tile in ((one, tile) for one in sides for tile in one.pairs.tiles()):
        scores, width = tile.scores.reshape(-1), tile.scores.shape[1]
        for kind, chosen in enumerate((at_least(scores, _score(lowest)), tile.genuine)):
            keys = float_keys(scores[chosen])
            near = (keys >= lowest) & (keys < highest)
            keys, columns = keys[near], chosen[near] % width + tile.column
            for bracket, table in zip(brackets, tables, strict=True):
                inside = (keys >= bracket.low) & (keys < bracket.high) & side.holds(columns, bracket.gallery)
                _count_at(table[kind], (keys[inside] - bracket.low) >> bracket.shift)
    for bracket, (everything, same) in zip(brackets, (table.cpu().numpy() for table in tables), strict=True):
        different = everything - same
        above, accepted = np.cumsum(different[::-1]), np.cumsum(same[::-1])
        place = int(np.searchsorted(above, bracket.rank, "right"))
        cell = bracket.cells - 1 - place
        bracket.rank -= int(above[place] - different[cell])
        bracket.accepted += int(accepted[place] - same[cell])
        low, width = bracket.low + (cell << bracket.shift), 1 << bracket.shift
        bracket.low, bracket.high = low, min(bracket.high, low + width)
