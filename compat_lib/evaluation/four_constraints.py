"""The four constraints of backward compatibility, pair by pair: how many hold, and by how much."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from compat_lib.evaluation.bootstrap import identity_weights, interval
from compat_lib.evaluation.inputs import unit_rows
from compat_lib.evaluation.pairs import EXCLUDED, PairScores, Tile
from compat_lib.evaluation.records import Readable, Record, Records

STATEMENTS = (
    "same identity: d(new, old) <= d(old, old)",
    "different identities: d(new, old) >= d(old, old)",
    "same identity: d(new, new) <= d(new, old)",
    "different identities: d(new, new) >= d(new, old)",
)
ROUNDING = 1e-6  # float32 cosines of equal pairs may differ by this much


@dataclass(frozen=True)
class Constraints(Readable):
    """How well each of the four constraints holds; tuples in the order of STATEMENTS, constraints 1 to 4."""

    about = "; ".join(f"{k}, {statement}" for k, statement in enumerate(STATEMENTS, 1))
    share: tuple[float | None, ...]  # of the pairs, fraction; None where there is no pair of that kind
    slack: tuple[float | None, ...]  # mean, in units of the cosine; positive: satisfied on average
    intervals: tuple[tuple[float, float] | None, ...] = field(repr=False)  # 95 %, of the shares
    positives: int  # ordered pairs of one identity
    negatives: int  # ordered pairs of different identities

    @property
    def records(self) -> Records:
        """Records "constraint1/share", with interval, and "constraint1/slack", and so on to 4."""
        found = []
        for k, ends in enumerate(self.intervals):
            low, high = ends or (None, None)
            found.append(Record(None, None, f"constraint{k + 1}/share", self.share[k], low, high))
            found.append(Record(None, None, f"constraint{k + 1}/slack", self.slack[k]))
        return Records(found)


def constraints(
    old: Any,
    new: Any,
    labels: Any,
    *,
    cross: tuple[Any, Any] | None = None,
    draws: int = 0,
    seed: int = 0,
) -> Constraints:
    """Return the share of pairs of two different images that satisfy each constraint, and its mean slack.

    Source: MixBCT (arXiv 2308.06948). With d(n_i, o_j) = 1 - cosine of new feature i and old feature j:

    1. y_i = y_j: d(n_i, o_j) <= d(o_i, o_j), slack d(o_i, o_j) - d(n_i, o_j);
    2. y_i != y_j: d(n_i, o_j) >= d(o_i, o_j), slack d(n_i, o_j) - d(o_i, o_j);
    3. y_i = y_j: d(n_i, n_j) <= d(n_i, o_j), slack d(n_i, o_j) - d(n_i, n_j);
    4. y_i != y_j: d(n_i, n_j) >= d(n_i, o_j), slack d(n_i, n_j) - d(n_i, o_j).

    1 and 2 are BCT's definition of compatibility, 3 and 4 ask that the new model is no worse than the
    cross-test. Not every pair can satisfy them (any negative that comes closer breaks 2). Every ordered pair
    i, j counts but i = j, where 1 would ask for n_i = o_i. A slack down to minus 1e-6 in cosine counts as
    satisfied: equal distances are equal up to rounding. Memory does not grow with the number of pairs.

    Args:
        old, new: [N, d_old], [N, d_new] features of the same held-out images.
        cross: (query form of new [N, d], gallery form of old [N, d]) between which d(n_i, o_j) is taken, for
            models of unequal width or a transformed gallery. None: new and old themselves.
        draws: over the identities of the queries i, for the intervals of the shares.

    >>> old = [[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]
    >>> result = constraints(old, [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [0, 0, 1])
    >>> result.share[:2], [round(slack, 2) for slack in result.slack[:2]]  # 2: one of four pairs moved apart
    ((1.0, 1.0), [0.2, 0.2])
    """
    before, after = unit_rows(old, "old"), unit_rows(new, "new")
    crossed = after, before
    if cross is not None:
        crossed = unit_rows(cross[0], "cross-test's query"), unit_rows(cross[1], "cross-test's gallery")
    ids = dict.fromkeys(("query_ids", "gallery_ids"), np.arange(len(before)))
    # Old/old, cross-test and new/new: the same pairs in the same tiles.
    sides = ((side.to(after.device) for side in pair) for pair in ((before, before), crossed, (after, after)))
    tables = [PairScores(query, labels, gallery, labels, **ids) for query, gallery in sides]
    order = tables[0]
    size = len(order.row_codes)
    satisfied, slack = np.zeros((4, size)), np.zeros(4)  # by query, in sorted order; sums
    for tiles in zip(*(table.tiles() for table in tables), strict=True):
        for first in (0, 1):  # constraints 1 and 2, then 3 and 4
            farther, nearer = tiles[first : first + 2]
            rows = slice(nearer.row, nearer.row + len(nearer.scores))
            held, sums = _pair(farther, nearer)
            satisfied[2 * first : 2 * first + 2, rows] += held
            slack[2 * first : 2 * first + 2] += sums
    own = order.last - order.first
    pairs = np.stack([own - 1, size - own] * 2)
    totals = pairs.sum(1)
    ends: list[tuple[float, float] | None] = [None] * 4
    if draws:
        weights = identity_weights(labels, draws, seed)
        # A query brings all of its pairs, as often as its identity was drawn; the other side stays as it is.
        by_identity = (np.stack([np.bincount(order.row_codes, row) for row in x]) for x in (satisfied, pairs))
        drawn, counted = (x @ weights for x in by_identity)
        ends = [interval(row) for row in np.where(counted > 0, drawn / np.maximum(counted, 1), np.nan)]
    share, mean = (
        tuple(float(x) / int(n) if n else None for x, n in zip(sums, totals, strict=True))
        for sums in (satisfied.sum(1), slack)
    )
    return Constraints(share, mean, tuple(ends), int(totals[0]), int(totals[1]))


def _pair(farther: Tile, nearer: Tile) -> tuple[np.ndarray, np.ndarray]:
    # Which pairs of a tile are nearer (same identity) or farther (different ones) on the second side: their
    # number in each row, float64 [2, r], and the sums of the slacks, float64 [2].
    # An excluded pair is one of the same identity and has the same score on both sides: its difference is 0,
    # and what it adds to the whole tile, its place in `genuine` takes away again.
    height, width = nearer.scores.shape
    closer = nearer.scores - farther.scores
    same = closer.reshape(-1)[nearer.genuine]
    rows = torch.div(nearer.genuine, width, rounding_mode="floor")
    counted = nearer.scores.reshape(-1)[nearer.genuine] > EXCLUDED
    kept = torch.bincount(rows[counted & (same >= -ROUNDING)], minlength=height)
    apart = (closer <= ROUNDING).sum(1) - torch.bincount(rows[same <= ROUNDING], minlength=height)
    own = same.sum(dtype=torch.float64)
    other = own - closer.sum(dtype=torch.float64)
    return torch.stack([kept, apart]).cpu().double().numpy(), torch.stack([own, other]).cpu().numpy()
