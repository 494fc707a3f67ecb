"""The four ways in which the data of an old and a new model can relate."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from compat_lib.config import SCENARIOS, project_path
from compat_lib.names import check_choice

from .decoding import printable
from .images import ImageSet, seeded_generator


@dataclass(frozen=True, eq=False)
class Scenario:
    """Who trains on what: rows, in file order, and labels of both sides; all tensors are int64."""

    old_rows: Tensor  # [n_o], rows that the old model trains on
    old_labels: Tensor  # [n_o], 0..C_o-1
    new_rows: Tensor  # [n], rows that the new model trains on; old features are extracted on the same rows
    new_labels: Tensor  # [n], 0..C_n-1
    class_map: Tensor  # [C_n], new label -> old label of the same class, -1 where the old model never saw it
    old_classes: Tensor  # [C_o], original label of each old label
    new_classes: Tensor  # [C_n], original label of each new label

    def training_set(self, side: str, images: ImageSet) -> ImageSet:
        """What the "old" or "new" model trains on, labelled anew, of the images that were dealt out."""
        rows, labels, classes = (getattr(self, f"{side}_{what}") for what in ("rows", "labels", "classes"))
        return images.with_labels(rows, labels, [images.classes[label] for label in classes.tolist()])


def split(
    labels: Tensor | Sequence[int],
    scenario: str,
    *,
    share: float = 0.3,
    shuffle_seed: int | None = None,
    chosen: Tensor | None = None,
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
        share: fraction (not %) of the classes or images that the old side gets, above 0 and below 1.
        shuffle_seed: None keeps file order; a number shuffles the classes (class scenarios) or the rows
            within each class (data scenarios) before the first ones are taken. Data sets whose classes are
            sorted by a family (Omniglot: by alphabet) need it.
        chosen: int64 labels of the old side's classes, see `named_classes`; share and shuffle_seed then say
            nothing. Class scenarios only.

    >>> s = split([0, 0, 1, 1, 2, 2], "open-class", share=0.34)
    >>> s.old_rows.tolist(), s.new_rows.tolist(), s.new_labels.tolist(), s.class_map.tolist()
    ([0, 1], [2, 3, 4, 5], [0, 0, 1, 1], [-1, -1])
    """
    check_choice("scenario", scenario, SCENARIOS)
    if not 0 < share <= 1:
        raise ValueError(f"share must be a fraction above 0 and at most 1; got {share}")
    by_class = scenario.endswith("class")
    # One stream for both class scenarios, one for both data scenarios: the old side is then the same in both.
    unit = "classes" if by_class else "rows"
    generator = None if shuffle_seed is None else seeded_generator(shuffle_seed, "scenario", unit)
    classes, dense = torch.unique(torch.as_tensor(labels), return_inverse=True)  # dense: 0..C-1
    sizes = torch.bincount(dense)
    total = len(classes if by_class else dense)
    order = torch.arange(total) if generator is None else torch.randperm(total, generator=generator)
    if by_class:
        first = classes[order[: round(share * total)]] if chosen is None else chosen
        in_old = torch.isin(classes, first)[dense]
        in_new = ~in_old
    else:
        order = order[dense[order].argsort(stable=True)]  # class after class, file or shuffled order inside
        taken = torch.tensor([max(1, round(share * n)) for n in sizes.tolist()])
        # Rows up to the last one that its class gives, in the order above.
        last = (sizes.cumsum(0) - sizes + taken).repeat_interleave(sizes)
        in_old = torch.empty(total, dtype=torch.bool)
        in_old[order] = torch.arange(total) < last
        in_new = ~in_old | (sizes == 1)[dense]
    if scenario.startswith("extended"):
        in_new = torch.ones_like(in_old)
    if not (in_old.any() and in_new.any()):
        what = f"share {share}" if chosen is None else f"the list of {len(chosen)} old classes"
        raise ValueError(
            f"{what} of {len(classes)} classes leaves the old or the new side of {scenario} empty; "
            "take a larger or a smaller share"
        )
    (old_rows, old_labels, old_kept, old_label_of), (new_rows, new_labels, new_kept, _) = (
        _side(side, dense, len(classes)) for side in (in_old, in_new)
    )
    class_map = old_label_of[new_kept]
    kept = classes[old_kept], classes[new_kept]
    return Scenario(old_rows, old_labels, new_rows, new_labels, class_map, *kept)


def _side(chosen: Tensor, dense: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The rows of a side (bool [N]), their labels counted anew, its classes, and each class's label or -1."""
    rows = chosen.nonzero().flatten()
    found = dense[rows]
    kept = torch.bincount(found, minlength=count).nonzero().flatten()
    label_of = torch.full((count,), -1)
    label_of[kept] = torch.arange(len(kept))
    return rows, label_of[found], kept, label_of


def other_set(labels: Tensor) -> Scenario:
    """Return the scenario of an old model that trained on another data set, with other classes.

    Source: Dual-Tuning (arXiv 2108.02959) from all of MSMT17 to Market-1501 or DukeMTMC-reID. The new model
    trains on everything here (labels int64 [N], 0..C-1, each class with an image); the old side has no row.
    """
    none, rows = torch.empty(0, dtype=torch.int64), torch.arange(len(labels))
    classes = torch.unique(labels)
    return Scenario(none, none, rows, labels, torch.full_like(classes, -1), none, classes)


def named_classes(given: str, classes: Sequence[str], also: Iterable[str] = ()) -> Tensor:
    """Return the labels of the classes that a split given by hand names, int64, ascending.

    Args:
        given: "<600": the classes whose name is a whole number below 600, as Dual-Tuning publishes its old
            sides (Market-1501 below 600, MSMT17 below 502); else the path of a text file with the name of a
            class on each line, empty lines passed over.
        classes: names of the training classes, in the order of their labels.
        also: names that may stand in the file although nothing trains on them (held out for validation).

    >>> named_classes("<3", ["0001", "0002", "0007"]).tolist()
    [0, 1]
    """
    if bound := re.fullmatch(r"<(\d+)", given.strip()):
        if wrong := [name for name in classes if not name.isdecimal()]:
            why = f"compares numbers, but the class {wrong[0]!r} is none"
            raise ValueError(f"old_classes {given!r} {why}: give a file")
        below = [label for label, name in enumerate(classes) if int(name) < int(bound[1])]
        return torch.tensor(below, dtype=torch.int64)
    path = project_path(Path(given).expanduser())  # a notebook's folder is another one
    if not path.is_file():
        raise FileNotFoundError(
            f"old_classes {given!r} is no file: give a text file with one class name a line, or <NUMBER"
        )
    label_of, held, labels = {name: label for label, name in enumerate(classes)}, set(also), set()
    text = printable(path.read_bytes()).removeprefix("\ufeff")  # as names of classes are read
    for number, line in enumerate(text.splitlines(), start=1):
        name = line.strip()
        if name in label_of:
            labels.add(label_of[name])
        elif name and name not in held:
            raise ValueError(
                f"{path} line {number} names the class {name!r}, which the training set does not have; its "
                f"{len(classes)} classes are named like {classes[0]!r}"
            )
    return torch.tensor(sorted(labels), dtype=torch.int64)
