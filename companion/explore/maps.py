"""Old and new features in one map; pointing at a point shows its image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from companion.explore.layout import Layout, layout
from companion.explore.marks import COLOURS, Plane, map_legend
from companion.explore.markup import View, sentence, view
from companion.explore.upgrade import NO_CROSS, Upgrade
from compat_lib.evaluation.inputs import unit_rows


def map_view(
    upgrade: Upgrade,
    identities: int | Sequence[int] = 12,
    *,
    colour: str = "model",
    projection: str = "PCA",
) -> View:
    """Old features, new features and prototypes of some identities in one map, with images to point at.

    A dot shows its image while the pointer is on it, and keeps it when clicked or tapped; a star, the mean of
    the old features, shows the image nearest to it when its name is pointed at or reached with the tabulator
    key.

    Args:
        upgrade: the features and images.
        identities: how many, evenly spaced over all; or labels.
        colour: "model" (old blue, new orange), "identity" (new features are rings), or "first answer": what
            happens to each image's first answer when new queries meet the old gallery.
        projection: "PCA" of what is shown, at once; "t-SNE" of all identities, which takes some seconds the
            first time, and in which the identities that are not chosen stay in the picture, pale.

    Raises:
        ValueError: "the colour ... is not known ...", or what `Upgrade.picked` and `layout` refuse.
    """
    if colour not in COLOURS:
        raise ValueError(f"the colour {colour!r} is not known; choose one of {', '.join(COLOURS)}")
    labels = upgrade.picked(identities)
    if upgrade.cross is None:
        return sentence(NO_CROSS)
    places = layout(upgrade, projection, labels)
    plane = Plane(upgrade, places, labels, colour)
    return view(
        [map_legend(colour, upgrade), plane.html()], _text(upgrade, places, labels, len(plane.chosen))
    )


def nearest_star(upgrade: Upgrade) -> tuple[float, float]:
    """Share of the images whose old, and whose new feature lies nearest to its own identity's prototype.

    An image's own old feature is left out of its prototype, or it would vote for itself.

    >>> picture = np.zeros((4, 1, 8, 8), np.uint8)
    >>> old = [[1.0, 0.1], [1.0, -0.1], [0.1, 1.0], [-0.1, 1.0]]
    >>> nearest_star(Upgrade(old, old[2:] + old[:2], [0, 0, 1, 1], picture))
    (1.0, 0.0)
    """
    if "nearest star" not in upgrade.kept:
        query, gallery = upgrade.cross
        own, rows = np.searchsorted(upgrade.identities, upgrade.labels), np.arange(len(upgrade))
        sums = np.zeros((len(upgrade.identities), gallery.shape[1]))
        np.add.at(sums, own, gallery)
        others = unit_rows(sums[own] - gallery, "other").numpy()
        shares = []
        for features in (gallery, query):
            scores = features @ upgrade.prototypes.T
            scores[rows, own] = (features * others).sum(1)
            shares.append(float((scores.argmax(1) == own).mean()))
        upgrade.kept["nearest star"] = tuple(shares)
    return upgrade.kept["nearest star"]


def _text(upgrade: Upgrade, places: Layout, labels: np.ndarray, images: int) -> str:
    before, now = nearest_star(upgrade)
    total = len(upgrade.identities)
    return (
        f"{upgrade.title}: {len(labels)} of {total} identities, {images} images, each with an old and a new "
        f"feature. {places.note}. Before any flattening, the nearest of all {total} stars is the own one for "
        f"{before:.0%} of the old features and {now:.0%} of the new ones (a star without the image itself)."
    )
