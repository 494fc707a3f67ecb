"""The four ways in which the data of an old and a new model can relate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .images import seeded_generator

SCENARIOS = ("extended-class", "extended-data", "open-class", "open-data")


@dataclass(frozen=True, eq=False)
class Scenario:
    """Who trains on what: rows and labels of the old and of the new side of one training set.

    Rows are in file order on both sides. Labels are counted from 0 on each side, in the order of the
    original labels. All tensors are int64.
    """

    name: str  # one of SCENARIOS
    old_rows: Tensor  # [n_o], rows that the old model trains on
    old_labels: Tensor  # [n_o], 0..C_o-1
    new_rows: Tensor  # [n], rows that the new model trains on; old features are extracted on the same rows
    new_labels: Tensor  # [n], 0..C_n-1
    class_map: Tensor  # [C_n], new label -> old label of the same class, -1 where the old model never saw it
    old_classes: Tensor  # [C_o], original label of each old label
    new_classes: Tensor  # [C_n], original label of each new label


def split(
    labels: Tensor | Sequence[int], scenario: str, *, share: float = 0.3, shuffle_seed: int | None = None
) -> Scenario:
    """Deal the rows of a training set out to the old and the new model.

    Source: the splits published with MixBCT (arXiv 2308.06948): a class split gives the first
    round(share C) classes to the old side; a data split gives it the first max(1, round(share n)) images
    of each class, and a class with a single image goes to both sides. `round` is Python's, half to even.
    "open" scenarios give the new model only what is left, "extended" ones give it everything.
    The seeded shuffle is our addition: the published split depends on the order of the files.

    Args:
        labels: int64 [N], any integers; the classes are the distinct values in ascending order.
        scenario: one of SCENARIOS.
        share: fraction (not %) of the classes or images that the old side gets, above 0 and below 1
            (at most 1 for the extended scenarios).
        shuffle_seed: None keeps file order; a number shuffles the classes (class scenarios) or the rows
            within each class (data scenarios) before the first ones are taken. Data sets whose classes are
            sorted by a family (Omniglot: by alphabet) need it.

    Raises:
        ValueError: "unknown scenario ...", "share must be ...", "... leaves the old side without classes",
            "... leaves nothing for the new side".

    >>> s = split([0, 0, 1, 1, 2, 2], "open-class", share=0.34)
    >>> s.old_rows.tolist(), s.new_rows.tolist(), s.new_labels.tolist(), s.class_map.tolist()
    ([0, 1], [2, 3, 4, 5], [0, 0, 1, 1], [-1, -1])
    """
    if scenario not in SCENARIOS:
        raise ValueError(f"unknown scenario {scenario!r}; choose one of {', '.join(SCENARIOS)}")
    opened, by_class = scenario.startswith("open"), scenario.endswith("class")
    if not 0 < share <= 1 or (opened and share == 1):
        allowed = "above 0 and below 1" if opened else "above 0 and at most 1"
        raise ValueError(f"share must be a fraction {allowed} for {scenario}; got {share!r}")
    # One stream for both class scenarios, one for both data scenarios: the old side is then the same in both.
    unit = "classes" if by_class else "rows"
    generator = None if shuffle_seed is None else seeded_generator(shuffle_seed, "scenario", unit)
    classes, dense = torch.unique(torch.as_tensor(labels), return_inverse=True)  # dense: 0..C-1
    in_old, in_rest = (_class_split if by_class else _data_split)(dense, len(classes), share, generator)
    in_new = in_rest if opened else torch.ones_like(in_old)
    if not in_new.any():
        raise ValueError(
            f"share {share} of {len(classes)} classes leaves nothing for the new side of {scenario}; "
            "take a smaller share"
        )
    old_rows, old_labels, old_kept = _side(dense, in_old)
    new_rows, new_labels, new_kept = _side(dense, in_new)
    old_label_of = torch.full((len(classes),), -1, dtype=torch.int64)
    old_label_of[old_kept] = torch.arange(len(old_kept))
    old_classes, new_classes = classes[old_kept], classes[new_kept]
    class_map = old_label_of[new_kept]
    return Scenario(scenario, old_rows, old_labels, new_rows, new_labels, class_map, old_classes, new_classes)


def _class_split(
    dense: Tensor, count: int, share: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Return bool [N] twice: rows of the old classes, rows of the others."""
    taken = round(share * count)
    if taken == 0:
        raise ValueError(
            f"share {share} of {count} classes leaves the old side without classes; take a larger share"
        )
    order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
    old_class = torch.zeros(count, dtype=torch.bool)
    old_class[order[:taken]] = True
    in_old = old_class[dense]
    return in_old, ~in_old


def _data_split(
    dense: Tensor, count: int, share: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Return bool [N] twice: the first rows of each class, the others; a lone row is in both."""
    total = len(dense)
    order = torch.arange(total) if generator is None else torch.randperm(total, generator=generator)
    order = order[torch.sort(dense[order], stable=True).indices]  # by class, file (or shuffled) order inside
    sizes = torch.bincount(dense, minlength=count)
    place = torch.arange(total) - (sizes.cumsum(0) - sizes)[dense[order]]  # position inside the class
    taken = torch.tensor([max(1, round(share * n)) for n in sizes.tolist()])
    in_old = torch.empty(total, dtype=torch.bool)
    in_old[order] = place < taken[dense[order]]
    return in_old, ~in_old | (sizes[dense] == 1)


def _side(dense: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the chosen rows, their labels counted from 0, and the dense class of each label."""
    rows = chosen.nonzero().flatten()
    kept, labels = torch.unique(dense[rows], return_inverse=True)
    return rows, labels, kept
