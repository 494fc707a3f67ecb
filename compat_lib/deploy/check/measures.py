"""The numbers behind a compatibility check: what each test gives, what an adapter and a backfill reach."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compat_lib.adapters import fit_procrustes, fit_ridge
from compat_lib.deploy.check.words import metric_far
from compat_lib.evaluation.compatibility import RANKS, tar_name
from compat_lib.evaluation.counting import Counts, count
from compat_lib.evaluation.intervals import bootstrap_mean, bootstrap_tar, interval
from compat_lib.evaluation.paired import paired_comparison
from compat_lib.evaluation.pairs import Verification, verify
from compat_lib.evaluation.ranking import Retrieval, rank
from compat_lib.evaluation.scores import PairScores

FARS = (1e-3, 1e-4)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the gallery, re-embedded
BLOCK = 2**16  # rows worked on at a time
FITS = {"ridge": fit_ridge, "procrustes": fit_procrustes}


@dataclass(frozen=True, eq=False)
class Task:
    """What all tests of one check share."""

    labels: np.ndarray  # int64 [N], identities 0..K-1
    units: np.ndarray  # int64 [N], what the bootstrap draws: identities, or groups of those that do not ask
    queries: np.ndarray  # int64 [Q], rows, rising
    fars: tuple[float, ...]
    weights: np.ndarray  # int64 [units, draws]

    @property
    def all_ask(self) -> bool:
        return len(self.queries) == len(self.labels)

    def pairs(self, query: Tensor, gallery: Tensor) -> PairScores:
        """Return the pairs of every query with every gallery image but itself; both are unit rows [N, D]."""
        asking = query if self.all_ask else query[torch.from_numpy(self.queries).to(query.device)]
        ids = {"query_ids": self.queries, "gallery_ids": np.arange(len(self.labels))}
        return PairScores(asking, self.units[self.queries], gallery, self.units, **ids)


@dataclass(frozen=True, eq=False)
class Test:
    """One query model against one gallery."""

    __test__ = False  # for pytest: not a class of tests

    values: dict[str, float | None]  # metric -> fraction; None: not measurable
    draws: dict[str, np.ndarray]
    retrieved: Retrieval
    counts: Counts
    verified: Verification


def measure(query: Tensor, gallery: Tensor, task: Task) -> Test:
    """Return one test of unit rows [N, D]; its values and draws are those of `evaluation.compare`.

    Unlike there the histogram, the ROC curve and the answers to every query are kept, for what follows.
    """
    ordered = task.pairs(query, gallery)
    asked = task.units[task.queries]
    # Inside one set and model the order of the two does not matter.
    pairs = PairScores(query, task.units) if query is gallery and task.all_ask else ordered
    counts = count(pairs)
    verified = verify(pairs, counts, task.fars)
    retrieved = rank(ordered, RANKS)
    draws = task.weights.shape[1]
    tars = bootstrap_tar(pairs, counts, task.weights, task.fars) if draws else np.empty((len(task.fars), 0))
    values: dict[str, float | None] = {}
    drawn = {}
    for far, tar, known, each in zip(task.fars, verified.tar, verified.measurable, tars, strict=True):
        name = tar_name(far)
        values[name], drawn[name] = (tar, each) if known else (None, np.full(draws, np.nan))
    weights = task.weights[np.unique(asked)]
    values["map"] = retrieved.map
    drawn["map"] = bootstrap_mean(retrieved.average_precision, asked, weights)
    for k, value in retrieved.rank.items():
        hit = np.where(retrieved.first_match > 0, retrieved.first_match <= k, np.nan)
        values[f"rank{k}"], drawn[f"rank{k}"] = value, bootstrap_mean(hit, asked, weights)
    return Test(values, drawn, retrieved, counts, verified)


def adapted_galleries(
    before: Tensor, after: Tensor, halves: list[np.ndarray], fitted: list[np.ndarray]
) -> Iterator[tuple[str, Tensor]]:
    """Yield each adapter's name and the old gallery in the new space.

    A map is fitted on either half of the identities, and each image is mapped by the one that did not see
    its identity.

    Args:
        before, after: unit rows [N, D] of both models.
        halves, fitted: from `choose_halves`.
    """
    for name, fit in FITS.items():
        mapped = torch.empty_like(before)
        for seen, unseen in zip(fitted, reversed(halves), strict=True):
            place = torch.from_numpy(seen).to(before.device)
            adapter = fit(before[place], after[place])
            for part in torch.from_numpy(unseen).to(before.device).split(BLOCK):
                mapped[part] = adapter.apply(before[part])
        yield name, mapped


def values_of(tests: Mapping[str, Test]) -> dict[str, float | None]:
    """Return the tests' values with their intervals, and the differences that are asked for, draw by draw.

    Names: "new_old/map", "new_old/map/low", ...; "gain/..." is new/old - old/old, "backfill_gain/..."
    new/new - new/old, "full_gain/..." new/new - old/old, "adapter/ridge/gain/..." the adapter's cross-test
    minus old/old and "adapter/ridge/over_new/..." minus new/old.
    """
    values: dict[str, float | None] = {}
    for pair, test in tests.items():
        for name, value in test.values.items():
            ends = interval(test.draws[name]) if value is not None else None
            values |= _with_ends(f"{pair}/{name}", value, ends)
    asked = {
        "gain": ("new_old", "old_old"),
        "backfill_gain": ("new_new", "new_old"),
        "full_gain": ("new_new", "old_old"),
    }
    for adapter in (pair.removesuffix("/new_old") for pair in tests if pair.startswith("adapter/")):
        asked[f"{adapter}/gain"] = f"{adapter}/new_old", "old_old"
        asked[f"{adapter}/over_new"] = f"{adapter}/new_old", "new_old"
    for what, (first, second) in asked.items():
        for name in tests[first].values:
            values |= _with_ends(f"{what}/{name}", *_difference(tests[first], tests[second], name))
    return values


def _with_ends(name: str, value: float | None, ends: tuple[float, float] | None) -> dict[str, float | None]:
    low, high = ends or (None, None)
    return {name: value, f"{name}/low": low, f"{name}/high": high}


def _difference(first: Test, second: Test, name: str) -> tuple[float | None, tuple[float, float] | None]:
    sides = [test.values[name] for test in (first, second)]
    if None in sides:
        return None, None
    drawn = [test.draws[name] for test in (first, second)]
    options = dict(zip(("draws_a", "draws_b"), drawn, strict=True)) if len(drawn[0]) else {}
    found = paired_comparison(*sides, **options)
    return found.value, (found.low, found.high) if np.isfinite(found.low) else None


def backfill_points(
    cross: Test, own: Test, metric: str, before: Tensor, after: Tensor, task: Task, seed: int
) -> tuple[float | None, ...]:
    """Return the metric at SHARES of a gallery that is re-embedded in random order.

    A TAR needs no further search: of a random share s of the gallery, on average, s of every kind of pair are
    new/new and the rest new/old, so that the rates at a threshold are weighted means of those of both tests.
    """
    far = metric_far(metric)
    inner: list[float | None] = []
    shuffled = np.random.default_rng(seed).permutation(len(before))
    for share in SHARES[1:-1]:
        if far is not None:
            inner.append(_mixed_tar(cross.counts, own.counts, share, far))
            continue
        gallery = before.clone()
        place = torch.from_numpy(shuffled[: round(share * len(before))]).to(before.device)
        gallery[place] = after[place]
        found = rank(task.pairs(after, gallery), RANKS)
        inner.append(found.map if metric == "map" else found.rank[int(metric.removeprefix("rank"))])
    return cross.values[metric], *inner, own.values[metric]


def _mixed_tar(cross: Counts, own: Counts, share: float, far: float) -> float:
    def rates(kind: str) -> np.ndarray:  # from the highest threshold, which accepts nothing, to the lowest
        sides = [getattr(counts, kind)[::-1] for counts in (cross, own)]
        above = [np.cumsum(side) / side.sum() for side in sides]
        return np.r_[0.0, (1 - share) * above[0] + share * above[1]]

    return float(rates("same")[np.searchsorted(rates("different"), far, "right") - 1])


def chance(name: str, labels: np.ndarray, queries: np.ndarray) -> float:
    """Return what a ranking at random gives on average, over the queries with a right answer.

    Mean average precision of R right ones among n in random order: H_n / n + (R - 1) / (n - 1) (1 - H_n / n),
    with the harmonic number H_n.

    >>> round(chance("rank1", np.array([0, 0, 1, 1]), np.arange(4)), 3)
    0.333
    """
    far = metric_far(name)
    if far is not None:
        return far
    others = len(labels) - 1  # the gallery without the query itself
    right = np.bincount(labels)[labels[queries]] - 1.0
    right = right[right > 0]
    if name == "map":
        first = float((1 / np.arange(1, others + 1)).sum()) / others
        return float((first + (right - 1) / max(others - 1, 1) * (1 - first)).mean())
    miss = np.ones_like(right)
    for k in range(min(int(name.removeprefix("rank")), others)):
        miss *= np.maximum(others - right - k, 0) / (others - k)
    return float((1 - miss).mean())
