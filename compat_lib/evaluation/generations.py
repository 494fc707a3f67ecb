"""A chain of model generations: each later model as the query, each earlier one in the gallery."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from compat_lib.evaluation.compatibility import Comparison, compare
from compat_lib.evaluation.inputs import as_tensor, codes, table
from compat_lib.evaluation.paired import PairedComparison, paired_comparison
from compat_lib.evaluation.pairs import FARS

Pair = tuple[int, int]  # query generation, gallery generation
Comparable = Callable[[Tensor, Tensor], tuple[Any, Any] | None]


@dataclass(frozen=True)
class Generations:
    """All metrics of every query generation i with every gallery generation j <= i; 0 is the oldest."""

    names: tuple[str, ...]
    cells: dict[Pair, dict[str, float | None]]  # metric, with "/low" and "/high"; None: not measurable
    draws: dict[Pair, dict[str, np.ndarray]] = field(repr=False)  # metric -> float64 [draws]
    identities: int

    @property
    def metrics(self) -> dict[str, float | None]:
        """Flat names, such as "query2_gallery0/map" and "query2_gallery0/map/low"."""
        return {
            f"query{i}_gallery{j}/{name}": value
            for (i, j), cell in self.cells.items()
            for name, value in cell.items()
        }

    def matrix(self, metric: str = "map") -> np.ndarray:
        """Return a metric of query generation (row) and gallery generation (column), float64 [G, G].

        nan above the diagonal, where an older model would ask a newer gallery, and where not measurable.
        """
        values = np.full((len(self.names), len(self.names)), np.nan)
        for (i, j), cell in self.cells.items():
            value = self._known(cell, metric)
            values[i, j] = np.nan if value is None else value
        return values

    def criteria(self, metric: str = "map") -> dict[Pair, bool | None]:
        """Return for each later query i and earlier gallery j whether M(i, j) > M(j, j), as in `criterion`.

        None where either was not measurable. The first generation that fails breaks the chain: the gallery of
        that age has to be embedded again.
        """
        found: dict[Pair, bool | None] = {}
        for i, j in self.cells:
            if i > j:
                cross, bar = (self._known(self.cells[pair], metric) for pair in ((i, j), (j, j)))
                found[i, j] = None if cross is None or bar is None else cross > bar
        return found

    def margins(self, metric: str = "map") -> dict[Pair, PairedComparison]:
        """Return M(i, j) - M(j, j) with its interval for each pair that was measured."""
        found = {}
        for i, j in (pair for pair, holds in self.criteria(metric).items() if holds is not None):
            drawn = [self.draws[pair][metric] for pair in ((i, j), (j, j))]
            sides = {"draws_a": drawn[0], "draws_b": drawn[1]} if len(drawn[0]) else {}
            found[i, j] = paired_comparison(
                self.cells[i, j][metric],
                self.cells[j, j][metric],
                **sides,
                identities=self.identities,
                names=tuple(f"{self.names[query]}/{self.names[j]}" for query in (i, j)),
            )
        return found

    def _known(self, cell: Mapping[str, float | None], metric: str) -> float | None:
        if metric not in cell:
            known = ", ".join(name for name in cell if "/" not in name)
            raise ValueError(f"the metric {metric!r} was not measured; choose one of {known}")
        return cell[metric]


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
        features: float [N, d_g] for each generation, oldest first, of the same images; at least two.
        labels: whole numbers or names [N].
        comparable: (i, j) -> function of the features of generation i and of generation j, as tensors, that
            returns the query and the gallery form to compare, or None; such as the method's own
            `comparable`. Without one the features are compared as they are, where their widths agree.
        names: of the generations; None: "generation 0", ...
        fars: fractions in (0, 1].
        draws: bootstrap draws over identities; 0 for no intervals.
        seed: of the draws.

    Raises:
        ValueError: "a chain of 1 was given ...", "generation 2 has features of shape ...", "comparable speaks
            of ...", and those of `compare`.

    >>> points = [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]]
    >>> chain = generations([points, points, points], [0, 0, 1, 1], fars=(), draws=0)
    >>> chain.matrix("rank1").round(2).tolist()
    [[1.0, nan, nan], [1.0, 1.0, nan], [1.0, 1.0, 1.0]]
    >>> chain.criteria("map")  # equal is not better
    {(1, 0): False, (2, 0): False, (2, 1): False}
    """
    tables = [as_tensor(table(each, f"generation {g}'s features")) for g, each in enumerate(features)]
    size = len(tables)
    if size < 2:
        raise ValueError(f"a chain of {size} was given; give the features of at least two generations")
    for g, each in enumerate(tables):
        if len(each) != len(tables[0]):
            raise ValueError(
                f"generation {g} has features of shape {tuple(each.shape)} and generation 0 of "
                f"{tuple(tables[0].shape)}; give all models' features of the same images in the same order"
            )
    names = tuple(f"generation {g}" for g in range(size)) if names is None else tuple(names)
    if len(names) != size:
        raise ValueError(f"there are {len(names)} names for {size} generations; give one each")
    pairs = [(i, j) for i in range(size) for j in range(i + 1)]
    unknown = [pair for pair in comparable or {} if pair not in pairs or pair[0] == pair[1]]
    if unknown:
        raise ValueError(
            f"comparable speaks of the pair {unknown[0]}; a pair is (query, gallery) with "
            f"0 <= gallery < query < {size}"
        )
    options: dict[str, Any] = {"fars": fars, "draws": draws, "seed": seed}
    cells, drawn = {}, {}
    cells[0, 0], drawn[0, 0] = _cell(compare(None, tables[0], labels, **options), "new_new")
    for i in range(1, size):
        for j in range(i):
            forms = (comparable or {}).get((i, j), _as_they_are)(tables[i], tables[j])
            if forms is None:
                cells[i, j] = dict.fromkeys(cells[0, 0])
                drawn[i, j] = {name: np.full(draws, np.nan) for name in drawn[0, 0]}
            else:
                result = compare(None, tables[i], labels, cross=forms, **options)
                cells[i, j], drawn[i, j] = _cell(result, "new_old")
                cells[i, i], drawn[i, i] = _cell(result, "new_new")
        if (i, i) not in cells:
            cells[i, i], drawn[i, i] = _cell(compare(None, tables[i], labels, **options), "new_new")
    identities = int(codes(labels, None, (len(tables[0]), 0), "labels")[0].max()) + 1
    return Generations(names, {p: cells[p] for p in pairs}, {p: drawn[p] for p in pairs}, identities)


def _as_they_are(query: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor] | None:
    return (query, gallery) if query.shape[1] == gallery.shape[1] else None


def _cell(result: Comparison, pair: str) -> tuple[dict[str, float | None], dict[str, np.ndarray]]:
    start = f"{pair}/"
    return tuple(
        {name.removeprefix(start): value for name, value in table.items() if name.startswith(start)}
        for table in (result.metrics, result.draws)
    )
