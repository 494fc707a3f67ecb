"""A chain of model generations: each later model as the query, each earlier one in the gallery."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from compat_lib.evaluation.compatibility import one_set_test
from compat_lib.evaluation.inputs import as_tensor
from compat_lib.evaluation.records import Record, Records
from compat_lib.evaluation.tar import FARS

Pair = tuple[int, int]  # query generation, gallery generation
Comparable = Callable[[Tensor, Tensor], tuple[Any, Any] | None]


def generations(
    features: Sequence[Any],
    labels: Any,
    *,
    comparable: Mapping[Pair, Comparable] | None = None,
    names: Sequence[str] | None = None,
    fars: Sequence[float] = FARS,
    draws: int = 200,
    seed: int = 0,
) -> Records:
    """Return the metrics of a chain of models on one test set, for each query and each earlier gallery.

    Source: the chains of BT2 (arXiv 2211.03989, AlexNet to ViT). The self-tests and cross-tests are those of
    `compare`, with one set of draws for all: every difference is paired.

    Args:
        features: [N, d_g] for each generation, oldest first, of the same images.
        comparable: (i, j) -> function of the features of query generation i and of gallery generation j, as
            tensors, that returns the query and the gallery form to compare, or None; such as the method's own
            `comparable`. Without one the features are compared as they are, where their widths agree.
        names: of the generations, all different; None: "generation 0", ...

    Returns:
        records whose query and gallery are the names, the oldest first; value None: not measurable.

    >>> points = [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]]
    >>> chain = generations([points, points, points], [0, 0, 1, 1], fars=(), draws=0)
    >>> matrix(chain, "rank1").round(2).tolist()
    [[1.0, nan, nan], [1.0, 1.0, nan], [1.0, 1.0, 1.0]]
    >>> average_compatibility(matrix(chain)), average_accuracy(matrix(chain))  # equal is not better
    (0.0, 1.0)
    """
    tables = [as_tensor(each, f"generation {g}'s features") for g, each in enumerate(features)]
    names = tuple(names or (f"generation {g}" for g in range(len(tables))))
    records: list[Record] = []
    how = {"fars": fars, "draws": draws, "seed": seed}
    for i, query in enumerate(tables):
        own = one_set_test(query, None, labels, **how).records
        blank = {"value": None, "low": None, "high": None, "draws": np.full(draws, np.nan)}
        for j, gallery in enumerate(tables[:i]):
            forms = (comparable or {}).get((i, j), _as_they_are)(query, gallery)
            found = one_set_test(*forms, labels, **how).records if forms else own.changed(**blank)
            records += found.changed(query=names[i], gallery=names[j])
        records += own.changed(query=names[i], gallery=names[i])
    return Records(records)


def _as_they_are(query: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor] | None:
    return (query, gallery) if query.shape[1] == gallery.shape[1] else None


def matrix(measured: Records, metric: str = "map") -> np.ndarray:
    """Return a metric of query generation (row) and gallery generation (column), float64 [G, G].

    nan above the diagonal, where an older model would ask a newer gallery, and where not measurable.
    """
    names = list(dict.fromkeys(one.query for one in measured))
    found = np.full((len(names), len(names)), np.nan)
    for i, j in zip(*np.tril_indices(len(names)), strict=True):
        value = measured.value(names[i], names[j], metric)
        found[i, j] = np.nan if value is None else value
    return found


def average_compatibility(values: np.ndarray) -> float | None:
    """Return AC of a `matrix`: the share of cross-tests that are better than the gallery's own self-test.

    M(i, j) > M(j, j) for every later query i and earlier gallery j, as in `criterion`. The first generation
    that fails breaks the chain: the gallery of that age has to be embedded again. None if one of the tests
    was not measurable.

    Source of AC and AA: Biondi et al. (CVPR 2024, arXiv 2405.02581), of tasks instead of generations.
    """
    later, earlier = np.tril_indices(len(values), -1)
    cross, bar = values[later, earlier], values[earlier, earlier]
    return float((cross > bar).mean()) if len(bar) and np.isfinite(cross - bar).all() else None


def average_accuracy(values: np.ndarray) -> float | None:
    """Return AA of a `matrix`: the mean of all self-tests and cross-tests; None if one was not measurable."""
    mean = float(np.mean(values[np.tril_indices(len(values))]))
    return None if np.isnan(mean) else mean
