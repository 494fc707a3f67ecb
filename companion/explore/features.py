"""An upgrade as plain arrays: the images, and what the old and the new model made of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.special import softmax

from compat_lib.evaluation import backfill_order, constraints, top_k, upgrade_changes
from compat_lib.evaluation.inputs import unit_rows
from compat_lib.losses.heads import Classifier
from compat_lib.losses.mixbct import MixBCT
from compat_lib.old_system import OldSystem

OUTCOMES = (
    "right before and now",
    "right before, wrong now",
    "wrong before, right now",
    "wrong before and now",
)
NO_CROSS = (
    "Old and new features have unequal widths and no form in which they can be compared, so there is no "
    "new query on the old gallery. Train with new_width equal to old_width, or choose another run."
)
RIGHT, WRONG = "#332288", "#CC6677"  # neither the blue of old nor the orange of new
THUMBNAIL = 48  # pixels: larger images are made smaller before they go into a page


def spaced(count: int, most: int) -> np.ndarray:
    """At most so many of the places 0 .. count - 1, evenly spaced over all."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))


@dataclass(frozen=True, eq=False)
class Upgrade:
    """Features of the same test images by an old and a new model, with the images; what the views take.

    Whatever takes more than a few milliseconds is computed once and kept, so that moving a control is quick.
    Without `cross`, the query form of new [N, d] and the gallery form of old [N, d] that the cross-test
    compares, these are new and old themselves, and there is no cross-test where their widths differ.
    """

    old: np.ndarray  # float [N, d_o], any length of row
    new: np.ndarray  # float [N, d_n]
    labels: np.ndarray  # int [N], identities
    images: np.ndarray  # uint8 [N, 1 or 3, H, W]
    cross: tuple[np.ndarray, np.ndarray] | None = None
    names: Sequence[str] | None = None  # of the identities in the order of the sorted labels
    title: str = "new model"
    kept: dict[Any, Any] = field(default_factory=dict, repr=False)  # maps, by what was asked for

    def __post_init__(self) -> None:
        # Unit rows once: every view compares by the cosine.
        old, new = (unit_rows(getattr(self, side), side).numpy() for side in ("old", "new"))
        cross = (new, old) if old.shape[1] == new.shape[1] else None
        if self.cross is not None:
            cross = tuple(unit_rows(rows, "cross-test").numpy() for rows in self.cross)
        values = {"old": old, "new": new, "cross": cross, "images": np.asarray(self.images)}
        vars(self).update(values, labels=np.asarray(self.labels, np.int64))

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def identities(self) -> np.ndarray:
        """The distinct labels, sorted."""
        return np.unique(self.labels)

    @cached_property
    def places(self) -> np.ndarray:
        """Where each image's identity stands among `identities`, int [N]."""
        return np.searchsorted(self.identities, self.labels)

    def name(self, label: int) -> str:
        """The text of an identity."""
        return str(label if self.names is None else self.names[np.searchsorted(self.identities, label)])

    def picked(self, identities: int | Sequence[int] | None) -> np.ndarray:
        """Labels that a choice means: so many identities evenly spaced over all, the labels given, or all."""
        present = self.identities
        if identities is None:
            return present
        if isinstance(identities, int | np.integer):
            chosen = present[spaced(len(present), identities)]
        else:
            chosen = np.unique(np.asarray(list(identities), np.int64))
        if not len(chosen):
            raise ValueError("no identity was chosen; choose at least one")
        if unknown := set(chosen.tolist()) - set(present.tolist()):
            raise ValueError(f"there is no identity {min(unknown)}; there are {present[0]} to {present[-1]}")
        return chosen

    @cached_property
    def pictures(self) -> list[str]:
        """Every image as an address that holds the image itself, at most THUMBNAIL pixels a side."""
        addresses = []
        for image in self.images:
            picture = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
            picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
            file = io.BytesIO()
            picture.save(file, "WEBP", quality=75, method=2)
            addresses.append(f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}")
        return addresses

    @cached_property
    def means(self) -> np.ndarray:
        """Mean old feature of each identity as the cross-test takes it, not scaled to length one [K, d]."""
        sums = np.zeros((len(self.identities), self.cross[1].shape[1]))
        np.add.at(sums, self.places, self.cross[1])
        return sums / np.bincount(self.places)[:, None]

    @cached_property
    def prototypes(self) -> np.ndarray:
        """The directions of `means`: unit rows [K, d]."""
        return unit_rows(self.means, "mean").numpy()

    @cached_property
    def changes(self) -> Any:
        """Who gains and who loses, old/old before and new/old after; see `upgrade_changes`; no intervals."""
        return upgrade_changes(self.old, self.new, self.labels, cross=self.cross, draws=0)

    @cached_property
    def held(self) -> Any:
        """How many of all pairs satisfy each of the four constraints; see `constraints`; no intervals."""
        return constraints(self.old, self.new, self.labels, cross=self.cross)

    @cached_property
    def first(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """First answer of every query, "before" (old/old) and "now" (new/old): cosines [N] and rows [N]."""
        ids = dict.fromkeys(("query_ids", "gallery_ids"), np.arange(len(self)))  # no image answers itself
        found = {"before": top_k(self.old, self.old, 1, **ids), "now": top_k(*self.cross, 1, **ids)}
        return {when: tuple(np.asarray(part)[:, 0] for part in parts) for when, parts in found.items()}

    @cached_property
    def outcome(self) -> np.ndarray:
        """What happened to the first answer of every query, int [N], places in OUTCOMES."""
        before, now = (self.labels[rows] == self.labels for _, rows in self.first.values())
        return np.where(before, np.where(now, 0, 1), np.where(now, 2, 3))

    def prepared(self) -> Upgrade:
        """The same, after computing what the views would otherwise compute when they are first drawn."""
        _ = self.pictures
        if self.cross is not None:
            _ = self.prototypes, self.changes, self.held, self.outcome
        return self

    def order(self, name: str = "random") -> np.ndarray:
        """Rows of the gallery in the order of a backfill, int [N]; see `backfill_order`."""
        return np.asarray(backfill_order(self.old, self.labels, name))


@dataclass(frozen=True, eq=False)
class TrainingSample:
    """Old and new features of some training images, and the classifier that trained with the new ones."""

    old: np.ndarray  # float [n, d], of whole classes
    new: np.ndarray  # float [n, d], of the same images
    labels: np.ndarray  # int [n], 0..C-1
    weight: np.ndarray  # float [C, d], rows of the new classifier
    title: str = "new model"

    def __post_init__(self) -> None:
        units = {name: unit_rows(getattr(self, name), name).numpy() for name in ("old", "new", "weight")}
        vars(self).update(units, labels=np.asarray(self.labels, np.int64))

    @cached_property
    def prototypes(self) -> np.ndarray:
        """Mean old feature of each class that has images, unit rows [C', d]."""
        return unit_rows(np.stack([self.old[self.labels == c].mean(0) for c in self.present]), "mean").numpy()

    @cached_property
    def present(self) -> np.ndarray:
        """Classes that have images in the sample, int [C']."""
        return np.unique(self.labels)

    @cached_property
    def _parts(self) -> tuple[OldSystem, Classifier]:
        with torch.random.fork_rng(devices=[]):  # the classifier's own weights are drawn and never used
            classifier = Classifier("cosface", self.old.shape[1], len(self.weight))
        return OldSystem.from_arrays(self.old, self.labels, num_classes=len(self.weight)), classifier

    def credible(self, share: float) -> np.ndarray:
        """Which rows the credible rule keeps, chosen within this sample, bool [n]."""
        return self._parts[0].credible(share).numpy()

    def replaced(self, mix_ratio: float, credible_share: float) -> np.ndarray:
        """Which rows MixBCT would replace by their old features if the sample were one batch, bool [n].

        With one credible share, the rows of a smaller ratio are among those of a larger one.
        """
        method = MixBCT(*self._parts, mix_ratio=mix_ratio, credible_share=credible_share)
        rows, labels = torch.arange(len(self.labels)), torch.from_numpy(self.labels)
        embedded = method.rows_to_embed(rows, labels, torch.Generator().manual_seed(0))
        return np.zeros(len(rows), bool) if embedded is None else ~embedded.numpy()

    def cosines(self, side: str, target: str) -> np.ndarray:
        """Cosines of the "old" or "new" features with the targets of all classes, float32 [n, C or C']."""
        return getattr(self, side) @ (self.weight if target == "classifier row" else self.prototypes).T

    def own(self, table: np.ndarray, target: str) -> np.ndarray:
        """Of the columns of `cosines` the one of each row's own class, [n]."""
        own = self.labels if target == "classifier row" else np.searchsorted(self.present, self.labels)
        return table[np.arange(len(own)), own]

    def angles(self, side: str, target: str) -> np.ndarray:
        """Angle of each "old" or "new" feature to the target of its own class, degrees [n]."""
        return np.degrees(np.arccos(np.clip(self.own(self.cosines(side, target), target), -1, 1)))

    def probabilities(self, side: str, target: str, scale: float) -> np.ndarray:
        """What a softmax over scale times cosine gives the right class, float [n], without any margin."""
        return self.own(softmax(scale * self.cosines(side, target), axis=1), target)
