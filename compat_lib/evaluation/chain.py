"""A chain of model generations: each later model as the query, each earlier one in the gallery."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from compat_lib.evaluation.compatibility import compare
from compat_lib.evaluation.inputs import as_tensor
from compat_lib.evaluation.paired import PairedComparison, paired_comparison
from compat_lib.evaluation.records import Record, Records
from compat_lib.evaluation.tar import FARS

Pair = tuple[int, int]  # query generation, gallery generation
Comparable = Callable[[Tensor, Tensor], tuple[Any, Any] | None]


@dataclass(frozen=True)
class Generations:
    """All metrics of every query generation i with every gallery generation j <= i; 0 is the oldest."""

    names: tuple[str, ...]
    records: Records  # query and gallery are the names; value None: not measurable

    def get(self, query: int, gallery: int, metric: str = "map") -> Record:
        """Return the record of a query generation and a gallery generation."""
        return self.records.get(self.names[query], self.names[gallery], metric)

    def matrix(self, metric: str = "map") -> np.ndarray:
        """Return a metric of query generation (row) and gallery generation (column), float64 [G, G].

        nan above the diagonal, where an older model would ask a newer gallery, and where not measurable.
        """
        ages = range(len(self.names))
        return np.array(
            [[self.get(i, j, metric).value if j <= i else None for j in ages] for i in ages], float
        )

    def criteria(self, metric: str = "map") -> dict[Pair, bool | None]:
        """Return for each later query i and earlier gallery j whether M(i, j) > M(j, j), as in `criterion`.

        None where either was not measurable. The first generation that fails breaks the chain: the gallery of
        that age has to be embedded again.
        """
        pairs = [(i, j) for i in range(len(self.names)) for j in range(i)]
        values = {(i, j): (self.get(i, j, metric).value, self.get(j, j, metric).value) for i, j in pairs}
        return {pair: None if None in both else both[0] > both[1] for pair, both in values.items()}

    def average_compatibility(self, metric: str = "map") -> float | None:
        """Return the share of those pairs for which `criteria` hold, AC; None if one was not measurable.

        Source of AC and AA: Biondi et al. (CVPR 2024, arXiv 2405.02581), of tasks instead of generations.
        """
        held = list(self.criteria(metric).values())
        return None if None in held or not held else float(np.mean(held))

    def average_accuracy(self, metric: str = "map") -> float | None:
        """Return the mean of all self-tests and cross-tests, AA; None if one was not measurable."""
        mean = float(np.mean(self.matrix(metric)[np.tril_indices(len(self.names))]))
        return None if np.isnan(mean) else mean

    def margins(self, metric: str = "map") -> dict[Pair, PairedComparison]:
        """Return M(i, j) - M(j, j) with its interval for each pair that was measured."""
        found = {}
        for i, j in (pair for pair, holds in self.criteria(metric).items() if holds is not None):
            cross, bar = self.get(i, j, metric), self.get(j, j, metric)
            drawn = {"draws_a": cross.draws, "draws_b": bar.draws}
            found[i, j] = paired_comparison(cross.value, bar.value, **drawn)
        return found


def generations(
    features: Sequence[Any],
    labels: Any,
    *,
    comparable: Mapping[Pair, Comparable] | None = None,
    names: Sequence[str] | None = None,
    fars: Sequence[float] = FARS,
    draws: int = 200,
    seed: int = 0,
) -> Generations:
    """Return the metrics of a chain of models on one test set, for each query and each earlier gallery.

    Source: the chains of BT2 (arXiv 2211.03989, AlexNet to ViT). The self-tests and cross-tests are those of
    `compare`, with one set of draws for all: every difference is paired.

    Args:
        features: [N, d_g] for each generation, oldest first, of the same images.
        comparable: (i, j) -> function of the features of query generation i and of gallery generation j, as
            tensors, that returns the query and the gallery form to compare, or None; such as the method's own
            `comparable`. Without one the features are compared as they are, where their widths agree.
        names: of the generations, all different; None: "generation 0", ...

    >>> points = [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]]
    >>> chain = generations([points, points, points], [0, 0, 1, 1], fars=(), draws=0)
    >>> chain.matrix("rank1").round(2).tolist()
    [[1.0, nan, nan], [1.0, 1.0, nan], [1.0, 1.0, 1.0]]
    >>> chain.criteria("map")  # equal is not better
    {(1, 0): False, (2, 0): False, (2, 1): False}
    >>> chain.average_compatibility("map"), chain.average_accuracy("map")
    (0.0, 1.0)
    """
    tables = [as_tensor(each, f"generation {g}'s features") for g, each in enumerate(features)]
    names = tuple(names or (f"generation {g}" for g in range(len(tables))))
    records: list[Record] = []
    for i, query in enumerate(tables):
        for j, gallery in enumerate(tables[:i]):
            forms = (comparable or {}).get((i, j), _as_they_are)(query, gallery)
            result = compare(None, query, labels, cross=forms, fars=fars, draws=draws, seed=seed).records
            records += result.select(query="new", gallery="old").changed(query=names[i], gallery=names[j])
        if not i:
            result = compare(None, query, labels, fars=fars, draws=draws, seed=seed).records
        records += result.select(query="new", gallery="new").changed(query=names[i], gallery=names[i])
    return Generations(names, Records(records))


def _as_they_are(query: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor] | None:
    return (query, gallery) if query.shape[1] == gallery.shape[1] else None
