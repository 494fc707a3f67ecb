"""The numbers behind a compatibility check: who asks, what each test gives, what an adapter reaches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compat_lib.adapters import fit_procrustes, fit_ridge
from compat_lib.check_files import UnusableInput
from compat_lib.check_words import HEADLINE, metric_far, metric_name, title
from compat_lib.evaluation.compatibility import RANKS, tar_name
from compat_lib.evaluation.counting import Counts, count
from compat_lib.evaluation.intervals import bootstrap_mean, bootstrap_tar, interval
from compat_lib.evaluation.paired import paired_comparison
from compat_lib.evaluation.pairs import Verification, verify
from compat_lib.evaluation.ranking import Retrieval, rank
from compat_lib.evaluation.scores import PairScores

FARS = (1e-3, 1e-4)
RESOLVED = 10  # impostor pairs that the headline's FAR must let pass, or mAP is the headline
PAIRS_ASKED, FEWEST_QUERIES = 10**8, 2_000  # as many queries as make so many pairs, and at least so many
CELLS = 10**7  # identities x draws that are held; beyond it identities without a query are drawn in groups
FITTED = 2**17  # images to which an adapter is fitted, at most: more add nothing to a linear map
PAIRWISE, EACH = 2_000, 20  # images whose pairs the constraints are counted in, and of one identity
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


def choose_queries(labels: np.ndarray, queries: int | None, seed: int) -> np.ndarray:
    """Return the rows that ask: all, or some at random of those that have a right answer.

    Rows are drawn singly and not by identity: the more identities ask, the narrower an interval over
    identities, and one of half a million images cannot crowd out the others.

    >>> choose_queries(np.array([0, 0, 1, 2, 2]), 4, seed=0).tolist()
    [0, 1, 3, 4]
    """
    most = max(FEWEST_QUERIES, PAIRS_ASKED // len(labels)) if queries is None else queries
    if len(labels) <= most:
        return np.arange(len(labels))
    able = np.flatnonzero(np.bincount(labels)[labels] > 1)
    if len(able) <= most:
        return able
    return np.sort(np.random.default_rng(seed).choice(able, most, replace=False))


def choose_metric(metric: str | None, labels: np.ndarray, queries: np.ndarray) -> str:
    """Return the metric of the criterion: the one asked for, or what the number of pairs can resolve.

    Raises:
        UnusableInput: "the metric 'auc' is not known ...", "TAR at FAR 1e-5 cannot be measured with ...".

    >>> choose_metric(None, np.array([0, 0, 1, 1]), np.arange(4))
    'map'
    """
    sizes = np.bincount(labels)
    impostors = len(queries) * len(labels) - int(np.bincount(labels[queries], minlength=len(sizes)) @ sizes)
    if len(queries) == len(labels):
        impostors //= 2  # those of old/old are unordered then: the fewest of the three tests
    if metric is None:
        return HEADLINE if impostors * metric_far(HEADLINE) >= RESOLVED else "map"
    try:
        metric = metric_name(str(metric))
    except ValueError as error:
        raise UnusableInput(str(error)) from error
    far = metric_far(metric)
    if far is not None and far * impostors < 1:
        raise UnusableInput(
            f"{title(metric)} cannot be measured with {impostors:,} pairs of different identities, of which "
            "not one may be accepted; choose a larger FAR or the metric map, or add images"
        )
    return metric


def choose_units(labels: np.ndarray, queries: np.ndarray, most: int) -> np.ndarray:
    """Return what the bootstrap draws, int64 [N]: the identities, or at most about `most` of them and groups.

    The table of all identities and draws would fill the memory where a gallery holds hundreds of thousands
    of people. Those without a query only count as impostors, and many of them are drawn together.

    >>> choose_units(np.array([0, 1, 2, 3, 4, 4]), np.array([4, 5]), most=3).tolist()
    [1, 2, 1, 2, 0, 0]
    """
    number = int(labels.max()) + 1
    if number <= most:
        return labels
    asked = np.unique(labels[queries])
    rest = np.setdiff1d(np.arange(number), asked, assume_unique=True)
    unit = np.empty(number, np.int64)
    unit[asked] = np.arange(len(asked))
    unit[rest] = len(asked) + np.arange(len(rest)) % max(1, most - len(asked))
    return unit[labels]


def choose_pairwise(labels: np.ndarray, seed: int) -> np.ndarray:
    """Return the rows whose pairs are looked at one by one: all, or some of whole identities in random order.

    Of a large identity some images are taken at random.
    """
    if len(labels) <= PAIRWISE:
        return np.arange(len(labels))
    sizes = np.bincount(labels)
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(labels))
    order = shuffled[np.argsort(generator.permutation(len(sizes))[labels[shuffled]], kind="stable")]
    starts = np.flatnonzero(np.r_[True, np.diff(labels[order]) != 0])
    within = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    return np.sort(order[(within < EACH) & (sizes[labels[order]] > 1)][:PAIRWISE])


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
    before: Tensor, after: Tensor, labels: np.ndarray, seed: int
) -> Iterator[tuple[str, Tensor]]:
    """Yield each adapter's name and the old gallery in the new space.

    The identities are halved at random and a map is fitted on either half; each image is mapped by the one
    that did not see its identity.
    """
    generator = np.random.default_rng(seed)
    half = generator.permutation(int(labels.max()) + 1)[labels] % 2
    folds = [np.flatnonzero(half == side) for side in (0, 1)]
    seen = [np.sort(generator.permutation(fold)[:FITTED]) for fold in folds]
    for name, fit in FITS.items():
        mapped = torch.empty_like(before)
        for fitted, applied in zip(seen, reversed(folds), strict=True):
            place = torch.from_numpy(fitted).to(before.device)
            adapter = fit(before[place], after[place])
            for part in torch.from_numpy(applied).to(before.device).split(BLOCK):
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
