"""One upgrade as plain arrays: the images, and what the old and the new model made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from compat_lib.evaluation.backfill import backfill_order
from compat_lib.evaluation.changes import Changes, upgrade_changes
from compat_lib.evaluation.constraints import Constraints, constraints
from compat_lib.evaluation.inputs import unit_rows
from compat_lib.evaluation.search import top_k

OUTCOMES = (
    "right before and now",
    "right before, wrong now",
    "wrong before, right now",
    "wrong before and now",
)
THUMBNAIL = 48  # pixels: larger images are made smaller before they go into a page


@dataclass(frozen=True, eq=False)
class Upgrade:
    """Features of the same test images by an old and a new model, with the images; what the views take.

    Whatever takes more than a few milliseconds is computed once and kept, so that moving a control is quick.

    Args:
        old: float [N, d_o], old features, any length of row.
        new: float [N, d_n], new features.
        labels: int [N], identities.
        images: uint8 [N, 1 or 3, H, W].
        cross: (query form of new [N, d], gallery form of old [N, d]) that the cross-test compares. None: new
            and old themselves, and no cross-test where their widths differ.
        names: one text for each identity in the order of the sorted labels; the labels themselves when None.
        title: what the new model is called.

    Raises:
        ValueError: "there are 10 old features, 9 new features, ...", "images must be uint8 ...", "labels must
            be ...", "cross has ... columns ...", "there is one identity ...", "... names for ... identities".

    >>> picture = np.zeros((4, 1, 8, 8), np.uint8)
    >>> points = [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]]
    >>> Upgrade(points, points, [0, 0, 1, 1], picture, names=("Ann", "Bob")).name(1)
    'Bob'
    """

    old: np.ndarray
    new: np.ndarray
    labels: np.ndarray
    images: np.ndarray
    cross: tuple[np.ndarray, np.ndarray] | None = None
    names: Sequence[str] | None = None
    title: str = "new model"
    kept: dict[Any, Any] = field(default_factory=dict, repr=False)  # maps, by what was asked for

    def __post_init__(self) -> None:
        # Unit rows once: every view compares by the cosine.
        old, new = (unit_rows(x, side).cpu().numpy() for x, side in ((self.old, "old"), (self.new, "new")))
        labels, images = _array(self.labels), _array(self.images)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(
                f"images must be uint8 [N, 1 or 3, H, W]; got {images.dtype} {list(images.shape)}"
            )
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise ValueError(
                f"labels must be one whole number for each image; got {labels.dtype} {list(labels.shape)}"
            )
        cross = self.cross
        if cross is not None:
            sides = zip(cross, ("query", "gallery"), strict=True)
            cross = tuple(unit_rows(rows, side).cpu().numpy() for rows, side in sides)
        elif old.shape[1] == new.shape[1]:
            cross = (new, old)
        counts = {"old features": old, "new features": new, "labels": labels, "images": images}
        if cross is not None:
            counts |= {"queries": cross[0], "gallery items": cross[1]}
        if len({len(rows) for rows in counts.values()}) > 1:
            said = ", ".join(f"{len(rows)} {what}" for what, rows in counts.items())
            raise ValueError(f"there are {said}; give one of each for every image, in the same order")
        if cross is not None and cross[0].shape[1] != cross[1].shape[1]:
            raise ValueError(
                f"cross has {cross[0].shape[1]} and {cross[1].shape[1]} columns; a cosine needs equal widths"
            )
        identities = np.unique(labels)
        if len(identities) < 2:
            raise ValueError("there is one identity only; views compare identities, so give at least two")
        if self.names is not None and len(self.names) != len(identities):
            raise ValueError(
                f"{len(self.names)} names for {len(identities)} identities: give one for each, in the order "
                "of the sorted labels"
            )
        values = {"old": old, "new": new, "labels": labels.astype(np.int64), "images": images, "cross": cross}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def identities(self) -> np.ndarray:
        """The distinct labels, sorted."""
        return np.unique(self.labels)

    def name(self, label: int) -> str:
        """The text of an identity."""
        place = int(np.searchsorted(self.identities, label))
        return str(label) if self.names is None else str(self.names[place])

    def picked(self, identities: int | Sequence[int]) -> np.ndarray:
        """Labels that a choice means: a number of identities evenly spaced over all, or the labels given.

        Raises:
            ValueError: "no identity was chosen ...", "there is no identity 7 ...".
        """
        present = self.identities
        if isinstance(identities, int | np.integer):
            if identities < 1:
                raise ValueError("no identity was chosen; choose at least one")
            wanted = min(int(identities), len(present))
            return present[np.unique(np.linspace(0, len(present) - 1, wanted).round().astype(int))]
        chosen = np.unique(np.asarray(list(identities), dtype=np.int64))
        if not len(chosen):
            raise ValueError("no identity was chosen; choose at least one")
        unknown = chosen[~np.isin(chosen, present)]
        if len(unknown):
            raise ValueError(f"there is no identity {unknown[0]}; there are {present[0]} to {present[-1]}")
        return chosen

    @cached_property
    def thumbnails(self) -> np.ndarray:
        """The images with at most THUMBNAIL pixels a side, uint8 [N, C, h, w]."""
        largest = max(self.images.shape[2:])
        if largest <= THUMBNAIL:
            return self.images
        import torch

        size = [max(1, round(side * THUMBNAIL / largest)) for side in self.images.shape[2:]]
        parts = []
        for start in range(0, len(self), 256):  # float copies of a part only
            part = torch.from_numpy(np.ascontiguousarray(self.images[start : start + 256])).float()
            parts.append(torch.nn.functional.interpolate(part, size, mode="area").round().byte())
        return torch.cat(parts).numpy()

    @cached_property
    def prototypes(self) -> np.ndarray | None:
        """Mean old feature of each identity as the cross-test takes it, unit rows [K, d], or None."""
        if self.cross is None:
            return None
        place = np.searchsorted(self.identities, self.labels)
        sums = np.zeros((len(self.identities), self.cross[1].shape[1]))
        np.add.at(sums, place, self.cross[1])
        return unit_rows(sums, "mean").numpy()

    @cached_property
    def changes(self) -> Changes:
        """Who gains and who loses, old/old before and new/old after; no intervals."""
        return upgrade_changes(*self._sides(), self.labels, cross=self.cross, draws=0)

    @cached_property
    def held(self) -> Constraints:
        """How many of all pairs satisfy each of the four constraints; no intervals."""
        return constraints(*self._sides(), self.labels, cross=self.cross)

    @cached_property
    def first(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """First answer of every query, "before" (old/old) and "now" (new/old): cosines [N] and rows [N]."""
        self._sides()
        ids = {"query_ids": np.arange(len(self)), "gallery_ids": np.arange(len(self))}
        found = {"before": top_k(self.old, self.old, 1, **ids), "now": top_k(*self.cross, 1, **ids)}
        return {when: (scores[:, 0], rows[:, 0]) for when, (scores, rows) in found.items()}

    @cached_property
    def outcome(self) -> np.ndarray:
        """What happened to the first answer of every query, int [N], places in OUTCOMES."""
        before, now = (self.labels[rows] == self.labels for _, rows in self.first.values())
        return np.where(before, np.where(now, 0, 1), np.where(now, 2, 3))

    def prepared(self) -> Upgrade:
        """The same, after computing what the views would otherwise compute when they are first drawn."""
        _ = self.thumbnails
        if self.cross is not None:
            _ = self.prototypes, self.changes, self.held, self.first
        return self

    def order(self, name: str = "random") -> np.ndarray:
        """Rows of the gallery in the order of a backfill, int [N]; see `backfill_order`."""
        key = ("order", name)
        if key not in self.kept:
            self.kept[key] = backfill_order(self.old, self.labels, name)
        return self.kept[key]

    def _sides(self) -> tuple[np.ndarray, np.ndarray]:
        if self.cross is None:
            raise ValueError(NO_CROSS)
        return self.old, self.new


NO_CROSS = (
    "Old and new features have unequal widths and no form in which they can be compared, so there is no "
    "new query on the old gallery. Train with new_width equal to old_width, or choose another run."
)


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)
