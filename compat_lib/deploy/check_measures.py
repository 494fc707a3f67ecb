"""What a compatibility check chooses before it measures, and the small measures that only it needs."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from compat_lib.adapters import fit_procrustes, fit_ridge
from compat_lib.deploy.check_inputs import BLOCK, UnusableInput
from compat_lib.evaluation.compatibility import HEADLINE, RANKS, tar_name
from compat_lib.evaluation.counting import Counts
from compat_lib.evaluation.records import metric_title

FITS = {"ridge": fit_ridge, "procrustes": fit_procrustes}
RESOLVED = 10  # impostor pairs that the headline's FAR must let pass, or mAP decides
PAIRS_ASKED, FEWEST_QUERIES = 10**8, 2_000  # as many queries as make so many pairs, and at least so many
CELLS = 10**7  # identities x draws that are held; beyond it identities without a query are drawn in groups


def metric_name(text: str) -> str:
    """Return the full name of a metric as a user may write it.

    Raises:
        UnusableInput: "the metric 'auc' is not known ...".

    >>> metric_name("tar@far=0.001"), metric_name("mAP")
    ('tar@far=1e-3', 'map')
    """
    name = str(text).strip().lower()
    if name in ("map", *(f"rank{k}" for k in RANKS)):
        return name
    found = re.fullmatch(r"tar@far=((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)", name)
    if not found or not 0 < float(found[1]) <= 1:
        raise UnusableInput(
            f"the metric {text!r} is not known; choose map, rank1, rank5, or tar@far=F with F a fraction "
            f"above 0 and at most 1, such as {HEADLINE}"
        )
    return tar_name(float(found[1]))


def metric_far(metric: str) -> float | None:
    """Return the false accept rate of a metric's name; None for one without."""
    return float(metric.removeprefix("tar@far=")) if metric.startswith("tar@far=") else None


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
        UnusableInput: "TAR@FAR=1e-5 cannot be measured with ...".

    >>> choose_metric(None, np.array([0, 0, 1, 1]), np.arange(4))
    'map'
    """
    sizes = np.bincount(labels)
    impostors = len(queries) * len(labels) - int(np.bincount(labels[queries], minlength=len(sizes)) @ sizes)
    if len(queries) == len(labels):
        impostors //= 2  # those of old/old are unordered then: the fewest of the three tests
    if metric is None:
        return HEADLINE if impostors * metric_far(HEADLINE) >= RESOLVED else "map"
    far = metric_far(metric)
    if far is not None and far * impostors < 1:
        raise UnusableInput(
            f"{metric_title(metric)} cannot be measured with {impostors:,} pairs of different identities, of "
            "which not one may be accepted; choose a larger FAR or the metric map, or add images"
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


def mapped_by_the_other_half(
    source: Tensor, target: Tensor, labels: np.ndarray, seed: int
) -> Iterator[tuple[str, Tensor]]:
    """Yield each adapter's name and the source in the target's space, unit rows [N, d_target].

    A map is fitted on either half of the identities, and each image is mapped by the one that did not see
    its identity.
    """
    half = np.random.default_rng(seed).permutation(int(labels.max()) + 1)[labels] % 2
    rows = [torch.from_numpy(np.flatnonzero(half == side)).to(source.device) for side in (0, 1)]
    for name, fit in FITS.items():
        mapped = torch.empty_like(target)
        for seen, unseen in (rows, reversed(rows)):
            adapter = fit(source[seen], target[seen])
            for part in unseen.split(BLOCK):
                mapped[part] = adapter.apply(source[part])
        yield name, mapped


def mixed_tar(cross: Counts, own: Counts, share: float, far: float) -> float:
    """Return TAR at a FAR in a gallery of which a random share is re-embedded, on average.

    Of a random share s of the gallery, on average, s of every kind of pair are new/new and the rest new/old,
    so that the rates at a threshold are weighted means of those of both tests.
    """

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
