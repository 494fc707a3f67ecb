"""Training images as MixBCT meets them: old and new features, and the rows of the new classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from compat_lib.evaluation.inputs import unit_rows
from compat_lib.losses import Classifier
from compat_lib.losses.mixbct import MixBCT
from compat_lib.old_system import OldSystem, class_means

TARGETS = ("classifier row", "old prototype")


@dataclass(frozen=True, eq=False)
class TrainingSample:
    """Old and new features of some training images, and the classifier that the new model was trained with.

    Args:
        old: float [n, d], old features of whole classes.
        new: float [n, d], new features of the same images.
        labels: int [n], 0..C-1.
        weight: float [C, d], rows of the new classifier.
        title: what the new model is called.

    Raises:
        ValueError: "old features have width ..., new ones ... and the classifier ...", "there are ... old
            rows ...", "labels must lie in 0..C-1 ...".
    """

    old: np.ndarray
    new: np.ndarray
    labels: np.ndarray
    weight: np.ndarray
    title: str = "new model"
    kept: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        tables = {"old": self.old, "new": self.new, "classifier": self.weight}
        tables = {name: unit_rows(rows, name).cpu().numpy() for name, rows in tables.items()}
        widths = [rows.shape[1] for rows in tables.values()]
        if len(set(widths)) > 1:
            raise ValueError(
                f"old features have width {widths[0]}, new ones {widths[1]} and the classifier {widths[2]}: "
                "angles need one width; choose a run with new_width equal to old_width"
            )
        labels = torch.as_tensor(self.labels).cpu().numpy().astype(np.int64)
        if not len(tables["old"]) == len(tables["new"]) == len(labels):
            raise ValueError(
                f"there are {len(tables['old'])} old rows, {len(tables['new'])} new rows and {len(labels)} "
                "labels; give one of each for every image"
            )
        if labels.min() < 0 or labels.max() >= len(tables["classifier"]):
            raise ValueError(
                f"labels must lie in 0..{len(tables['classifier']) - 1}, one for each row of the classifier; "
                f"got {labels.min()}..{labels.max()}"
            )
        for name, rows in zip(("old", "new", "weight"), tables.values(), strict=True):
            object.__setattr__(self, name, rows)
        object.__setattr__(self, "labels", labels)

    @cached_property
    def prototypes(self) -> np.ndarray:
        """Mean old feature of each class, unit rows [C, d]; zeros for a class without images."""
        means = class_means(torch.from_numpy(self.old), torch.from_numpy(self.labels), len(self.weight))
        return unit_rows(means, "prototype").numpy()

    @cached_property
    def _parts(self) -> tuple[OldSystem, Classifier]:
        with torch.random.fork_rng(devices=[]):  # the classifier's own weights are drawn and never used
            classifier = Classifier("cosface", self.old.shape[1], len(self.weight))
        return OldSystem.from_arrays(self.old, self.labels, num_classes=len(self.weight)), classifier

    def credible(self, share: float) -> np.ndarray:
        """Which rows the credible rule keeps, chosen within this sample, bool [n]."""
        return self._parts[0].credible(share).numpy()

    def replaced(self, mix_ratio: float, credible_share: float, seed: int = 0) -> np.ndarray:
        """Which rows MixBCT would replace by their old features if the sample were one batch, bool [n].

        With one credible share and seed, the rows of a smaller ratio are among those of a larger one.
        """
        method = MixBCT(*self._parts, mix_ratio=mix_ratio, credible_share=credible_share)
        rows, labels = torch.arange(len(self.labels)), torch.from_numpy(self.labels)
        embedded = method.rows_to_embed(rows, labels, torch.Generator().manual_seed(seed))
        return np.zeros(len(rows), bool) if embedded is None else ~embedded.numpy()

    def cosines(self, side: str, target: str) -> np.ndarray:
        """Cosines of the "old" or "new" features with the targets of all classes present, float32 [n, C']."""
        key = ("cosines", side, target)
        if key not in self.kept:
            table = self.weight if target == "classifier row" else self.prototypes[self.present]
            self.kept[key] = getattr(self, side) @ table.T
        return self.kept[key]

    @cached_property
    def present(self) -> np.ndarray:
        """Classes that have images in the sample, int [C']."""
        return np.unique(self.labels)

    def columns(self, target: str) -> np.ndarray:
        """Where each row's own class stands among the columns of `cosines`, int [n]."""
        return self.labels if target == "classifier row" else np.searchsorted(self.present, self.labels)

    def angles(self, side: str, target: str) -> np.ndarray:
        """Angle of each "old" or "new" feature to the target of its own class, degrees [n]."""
        own = self.cosines(side, target)[np.arange(len(self.labels)), self.columns(target)]
        return np.degrees(np.arccos(np.clip(own, -1, 1)))

    def probabilities(self, side: str, target: str, scale: float) -> np.ndarray:
        """What a softmax over scale times cosine gives the right class, float [n], without any margin."""
        logits = scale * self.cosines(side, target)
        own = logits[np.arange(len(logits)), self.columns(target)]
        top = logits.max(1)
        return np.exp(own - top - np.log(np.exp(logits - top[:, None]).sum(1)))


def class_rows(labels: Sequence[int], most: int) -> np.ndarray:
    """Rows of whole classes, evenly spaced over all, of at most about `most` rows; at least two classes.

    >>> class_rows([0, 0, 1, 1, 2, 2, 3, 3], 4).tolist()
    [0, 1, 6, 7]
    """
    labels = np.asarray(labels)
    present = np.unique(labels)
    wanted = int(np.clip(most * len(present) // len(labels), 2, len(present)))
    chosen = present[np.unique(np.linspace(0, len(present) - 1, wanted).round().astype(int))]
    return np.flatnonzero(np.isin(labels, chosen))
