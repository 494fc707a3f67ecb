"""Where the points of a map lie: PCA of the identities that are shown, or t-SNE of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from companion.explore.upgrade import NO_CROSS, Upgrade

PROJECTIONS = ("PCA", "t-SNE")
MOST = 1000  # images in a t-SNE: each gives two points, and its time grows faster than their number


@dataclass(frozen=True)
class Layout:
    """Places of old features, new features and prototypes in one plane."""

    rows: np.ndarray  # int [M], images that have a place
    old: np.ndarray  # float [M, 2]
    new: np.ndarray  # float [M, 2]
    stars: np.ndarray  # float [K, 2]
    labels: np.ndarray  # int [K], identities of the stars
    note: str  # how far to trust the map


def layout(upgrade: Upgrade, projection: str, identities: Sequence[int]) -> Layout:
    """Places of the images of some identities (PCA), or of all (t-SNE, which takes seconds the first time).

    Old features, new features and prototypes are placed *together*: two maps made apart cannot be compared.

    Args:
        upgrade: with features that can be compared.
        projection: "PCA", the plane in which the shown points vary most; or "t-SNE", neighbours first, of at
            most MOST images, evenly thinned within each identity.
        identities: labels that PCA looks at.

    Raises:
        ValueError: "the projection ... is not known ...", or the features cannot be compared.
    """
    if projection not in PROJECTIONS:
        raise ValueError(f"the projection {projection!r} is not known; choose PCA or t-SNE")
    if upgrade.cross is None:
        raise ValueError(NO_CROSS)
    labels = upgrade.identities if projection == "t-SNE" else np.asarray(identities)
    key = ("layout", projection, *(() if projection == "t-SNE" else labels.tolist()))
    if key not in upgrade.kept:
        rows = np.flatnonzero(np.isin(upgrade.labels, labels))
        if projection == "t-SNE":
            rows = thinned(upgrade.labels, MOST)
        upgrade.kept[key] = _place(upgrade, projection, rows, labels)
    return upgrade.kept[key]


def thinned(labels: np.ndarray, most: int) -> np.ndarray:
    """Rows of at most about `most` images, equally many of each identity where it has as many, int [M].

    >>> thinned(np.array([0, 0, 0, 1, 1, 1]), 4).tolist()
    [0, 1, 3, 4]
    """
    each = max(1, most // len(np.unique(labels)))
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], labels[order])
    place = np.arange(len(labels)) - starts  # 0, 1, 2, ... within the identity
    return np.sort(order[place < each])


def _place(upgrade: Upgrade, projection: str, rows: np.ndarray, labels: np.ndarray) -> Layout:
    query, gallery = upgrade.cross
    # The mean as it is, not scaled to length one: a star stands in the middle of its dots.
    means = [gallery[upgrade.labels == label].mean(0) for label in labels]
    parts = [gallery[rows], query[rows], np.stack(means)]
    if projection == "t-SNE":
        from companion.plots import joint_tsne

        joint = joint_tsne(*parts)
        note = (
            f"t-SNE of {len(rows)} images of all identities; trustworthiness {joint.trustworthiness:.2f}; "
            "distances between groups mean nothing"
        )
        return Layout(rows, joint.old, joint.new, joint.prototypes, labels, note)
    from sklearn.decomposition import PCA
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        pca = PCA(min(2, parts[0].shape[1])).fit(np.concatenate(parts).astype(np.float64))
        places = [np.pad(flat := pca.transform(part), ((0, 0), (0, 2 - flat.shape[1]))) for part in parts]
    share = float(pca.explained_variance_ratio_.sum())
    return Layout(
        rows, *places, labels, f"PCA of the shown identities; the plane keeps {share:.0%} of the variance"
    )
