"""What a compatibility check chooses before it measures: its metric, who asks, what is drawn at random."""

from __future__ import annotations

import numpy as np

from compat_lib.deploy.check.sides import UnusableInput
from compat_lib.deploy.check.words import HEADLINE, metric_far, metric_name, title

RESOLVED = 10  # impostor pairs that the headline's FAR must let pass, or mAP is the headline
PAIRS_ASKED, FEWEST_QUERIES = 10**8, 2_000  # as many queries as make so many pairs, and at least so many
CELLS = 10**7  # identities x draws that are held; beyond it identities without a query are drawn in groups
FITTED = 2**17  # images to which an adapter is fitted, at most: more add nothing to a linear map
PAIRWISE, EACH = 2_000, 20  # images whose pairs the constraints are counted in, and of one identity


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
    metric = known_metric(metric)
    far = metric_far(metric)
    if far is not None and far * impostors < 1:
        raise UnusableInput(
            f"{title(metric)} cannot be measured with {impostors:,} pairs of different identities, of which "
            "not one may be accepted; choose a larger FAR or the metric map, or add images"
        )
    return metric


def known_metric(metric: str) -> str:
    """Return the full name of a metric.

    Raises:
        UnusableInput: "the metric 'auc' is not known ...".
    """
    try:
        return metric_name(str(metric))
    except ValueError as error:
        raise UnusableInput(str(error)) from error


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


def choose_halves(labels: np.ndarray, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the rows of either half of the identities, and those of them to which an adapter is fitted.

    >>> halves, fitted = choose_halves(np.array([0, 0, 1, 1]), seed=0)
    >>> sorted(rows.tolist() for rows in halves)
    [[0, 1], [2, 3]]
    """
    generator = np.random.default_rng(seed)
    half = generator.permutation(int(labels.max()) + 1)[labels] % 2
    halves = [np.flatnonzero(half == side) for side in (0, 1)]
    return halves, [np.sort(generator.permutation(rows)[:FITTED]) for rows in halves]


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
