"""Bootstrap over identities: how far a metric could move had other identities been photographed.

A draw takes as many identities as there are, with replacement; identity c occurs w_c times (multinomial).
Images of one identity are not independent, so images or pairs are never drawn singly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from compat_lib.evaluation.counting import PER_UNIT, Counts, most_accepted
from compat_lib.evaluation.inputs import codes
from compat_lib.evaluation.pairs import PairScores, at_least
from compat_lib.evaluation.records import Record
from compat_lib.names import checked_count

LEVEL = 0.95  # coverage of every interval
KEPT = 2**22  # impostor scores held to place the thresholds
TAIL, EXTRA = 2, 100  # impostor scores looked at: this many times what the largest FAR needs, and some more
SPACING = 1.001  # ratio of the ranks of neighbouring thresholds beyond the first thousand
ITEMS = 2**18  # pairs that wait to be counted together
CHUNK = 512  # pairs multiplied at a time: their weights stay in the cache


def identity_weights(labels: Any, draws: int = 200, seed: int = 0) -> np.ndarray:
    """Return how often each identity occurs in each draw, int64 [identities, draws].

    It depends on the labels and the seed only: two models on the same labels are paired draw by draw. The
    identities are the sorted distinct labels; each column sums to their number.

    >>> identity_weights([5, 5, 9, 11], draws=2).sum(axis=0).tolist()
    [3, 3]
    """
    draws = checked_count("draws", draws, 0)
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):  # None draws others at each call
        raise ValueError(f"seed is {seed!r}; give a whole number, by which models are paired draw by draw")
    classes = int(codes(labels, None, (len(labels), 0), "labels")[0].max()) + 1
    drawn = np.random.default_rng(seed).multinomial(classes, np.full(classes, 1 / classes), size=draws)
    return np.ascontiguousarray(drawn.T)


def interval(draws: np.ndarray) -> tuple[float, float] | None:
    """Return the 95 % percentile interval of the draws that are numbers; None when fewer than two are.

    >>> [round(end, 3) for end in interval(np.arange(201.0))]
    [5.0, 195.0]
    """
    draws = np.asarray(draws, np.float64)
    known = draws[np.isfinite(draws)]
    if len(known) < 2:
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def drawn_record(name: str, value: float | None, draws: np.ndarray) -> Record:
    """Return a record without names of models: a value with its draws and their interval."""
    return Record(None, None, name, value, *(interval(draws) or (None, None)), draws=draws)


def bootstrap_mean(values: np.ndarray, labels: Any, weights: np.ndarray) -> np.ndarray:
    """Return the mean of the values in every draw, each query counted as often as its identity was drawn.

    The gallery stays as it is. Values that are nan (queries without a match) do not count.

    Args:
        values: float64 [N], one for each query.
        labels: [N]; `weights`, int64 [identities, draws], has a row for each of these.

    Returns:
        float64 [draws]; nan for a draw that holds no query.

    >>> bootstrap_mean(np.array([1.0, 0.0, np.nan]), [0, 1, 1], np.array([[1, 3, 0], [1, 1, 0]])).tolist()
    [0.5, 0.75, nan]
    """
    values = np.asarray(values, np.float64)
    number = codes(labels, None, (len(values), 0), "labels")[0]
    valid, identities = np.isfinite(values), number.max() + 1
    totals = np.bincount(number[valid], values[valid], minlength=identities) @ weights
    counts = np.bincount(number[valid], minlength=identities) @ weights
    return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)


def bootstrap_tar(
    pairs: PairScores, counts: Counts, weights: np.ndarray, fars: tuple[float, ...]
) -> np.ndarray:
    """Return TAR at each FAR in every draw, float64 [len(fars), draws].

    nan where the draw's impostor pairs cannot resolve the FAR. An impostor pair of identities a and b weighs
    w_a w_b: each copy of one meets each copy of the other. A genuine pair of identity c weighs w_c: two
    copies of one identity are neither genuine nor impostors to each other. Excluded pairs must be pairs of
    one identity, as the same image always is.

    Thresholds are taken at impostor scores: all of the highest thousand, beyond that ranks 0.1 % apart (the
    false accept rate stays at or below the level). Only the highest impostor scores are looked at; when a
    draw needs more, the tail is made longer. Memory is bounded.

    `counts` is the histogram of `pairs`, `weights` that of `identity_weights` for both sides together.
    """
    weight = weights.astype(np.float64)
    size = len(weight)
    sizes_row, sizes_column = (np.bincount(c, minlength=size) for c in (pairs.row_codes, pairs.column_codes))
    negatives = (sizes_row @ weight) * (sizes_column @ weight) - (sizes_row * sizes_column) @ weight**2
    negatives = negatives / 2 if pairs.triangular else negatives
    allowed = np.stack([most_accepted(far, negatives) for far in fars])
    largest = max((far for far in fars if far * counts.negatives >= 1), default=0)
    wanted = TAIL * largest * counts.negatives + EXTRA
    above = np.cumsum(counts.different[::-1])
    lowest = int(np.flatnonzero(counts.different[::-1])[-1])
    while True:
        # The highest bin such that it and those above hold the wanted number of impostors.
        cut = min(int(np.searchsorted(above, wanted)), lowest)
        edges = _edges(pairs, (len(above) - 1 - cut) / PER_UNIT - 2.0, int(above[cut]))
        impostors, genuine, positives = _weighted_counts(pairs, edges, weights)
        place = (impostors[:, None] > allowed).sum(0)  # the first edge above which few enough are left
        missing = (place == 0) & (allowed >= 1) & (allowed < negatives)
        if not missing.any() or wanted >= counts.negatives:
            break
        wanted *= 4
    tar = np.take_along_axis(genuine, place, axis=0) / np.maximum(positives, 1)
    tar = np.where(allowed >= negatives, 1.0, tar)
    return np.where((allowed >= 1) & (positives > 0), tar, np.nan)


def _tail(pairs: PairScores, low: float) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    # Scores of at least `low` with the identities of both sides, ITEMS or more at a time.
    waiting, held = [], 0
    for tile in pairs.tiles():
        place = at_least(tile.scores, low)
        row, column = np.divmod(place.cpu().numpy(), tile.scores.shape[1])
        scores = tile.scores.reshape(-1)[place].cpu().numpy()
        waiting.append((scores, pairs.row_codes[tile.row + row], pairs.column_codes[tile.column + column]))
        held += len(scores)
        if held >= ITEMS:
            yield tuple(map(np.concatenate, zip(*waiting, strict=True)))
            waiting, held = [], 0
    if waiting:
        yield tuple(map(np.concatenate, zip(*waiting, strict=True)))


def _edges(pairs: PairScores, low: float, tail: int) -> np.ndarray:
    # Distinct impostor scores, ascending, from a thinned copy of the `tail` of them that reach `low`.
    stride = -(-tail // KEPT)
    kept, offset = [], 0
    for scores, row, column in _tail(pairs, low):
        scores = scores[row != column]
        kept.append(scores[offset % stride :: stride])
        offset -= len(scores)
    scores = np.sort(np.concatenate(kept))[::-1]
    steps = SPACING ** np.arange(np.log(max(len(scores), 2)) / np.log(SPACING) + 1)
    ranks = np.unique(np.r_[steps.astype(np.int64) - 1, len(scores) - 1])
    # The last one lies above all cosines, for draws that may accept no impostor when thinning lost the top.
    return np.r_[np.unique(scores[ranks[ranks < len(scores)]]), np.float32(2)]


def _weighted_counts(
    pairs: PairScores, edges: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # For each edge and draw the weight of impostor and of genuine pairs that score more, and of all genuine
    # pairs. All sums are whole numbers, hence exact.
    size, draws = weights.shape
    table = weights.astype(np.float32)
    cells = np.zeros((2, len(edges) + 1, draws))
    for scores, row, column in _tail(pairs, float(edges[0])):
        place = np.searchsorted(edges, scores, "left")  # the number of edges below the score
        for kind, chosen in enumerate((row != column, row == column)):
            where = np.flatnonzero(chosen & (place > 0))
            where = where[np.argsort(place[where], kind="stable")]
            for start in range(0, len(where), CHUNK):
                some = where[start : start + CHUNK]
                weight = table.take(row[some], axis=0)
                if kind == 0:
                    weight *= table.take(column[some], axis=0)
                bins, first = np.unique(place[some], return_index=True)
                cells[kind, bins] += np.add.reduceat(weight, first, axis=0)
    above = cells[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    return above[0], above[1], pairs.own_counts(size) @ weights.astype(np.float64)
