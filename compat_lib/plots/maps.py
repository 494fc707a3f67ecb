"""Old and new features in one picture of the plane."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.axes import Axes
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from .style import INK, NEW, OLD, as_array

_HALO = [effects.withStroke(linewidth=2.5, foreground="white")]


@dataclass(frozen=True)
class JointMap:
    """Old features, new features and prototypes embedded together, with a number that judges the map."""

    old: np.ndarray  # [N, 2]
    new: np.ndarray  # [M, 2]
    prototypes: np.ndarray | None  # [C, 2]
    knn_agreement: float  # 0..1, see knn_agreement()
    neighbours: int


def knn_agreement(high: Any, low: Any, neighbours: int = 10) -> float:
    """Share of every point's nearest neighbours in the feature space that are also nearest in the map.

    Args:
        high: [N, D] points in the original space (Euclidean distance; unit rows give the cosine's order).
        low: [N, 2] the same points in the map.
        neighbours: how many neighbours to compare, at most N - 1.

    Returns:
        Mean share, 0..1; a random map gives about neighbours / (N - 1).

    >>> knn_agreement([[0, 0], [1, 0], [5, 0], [6, 0]], [[0, 0], [1, 0], [5, 0], [6, 0]], neighbours=1)
    1.0
    """
    high, low = as_array(high), as_array(low)
    neighbours = min(neighbours, len(high) - 1)
    near_high = NearestNeighbors(n_neighbors=neighbours).fit(high).kneighbors(return_distance=False)
    near_low = NearestNeighbors(n_neighbors=neighbours).fit(low).kneighbors(return_distance=False)
    shared = [len(np.intersect1d(a, b)) for a, b in zip(near_high, near_low, strict=True)]
    return float(np.mean(shared) / neighbours)


def joint_tsne(
    old: Any,
    new: Any,
    prototypes: Any = None,
    *,
    perplexity: float = 20.0,
    neighbours: int = 10,
    components: int = 30,
    seed: int = 0,
) -> JointMap:
    """One t-SNE map of old features, new features and prototypes, the same on every call.

    Rows are normalised, reduced by PCA and embedded *together*: two maps made apart cannot be compared.
    PCA also gives the starting positions, and one thread keeps the order of summation.

    Args:
        old: [N, D] old features.  new: [M, D] new features.  prototypes: [C, D] or None.
        perplexity: t-SNE's neighbourhood size; lowered to a third of the points when there are few.
        neighbours: for the agreement number.
        components: PCA dimensions before t-SNE.
        seed: for t-SNE.

    Raises:
        ValueError: "old features have width …, new … : one map needs one feature space".
    """
    parts = [as_array(part).astype(np.float64) for part in (old, new, prototypes) if part is not None]
    widths = {part.shape[1] for part in parts}
    if len(widths) > 1:
        raise ValueError(
            f"old features, new features and prototypes have widths {[part.shape[1] for part in parts]}: "
            "one map needs one feature space; map them to the same width first"
        )
    points = np.concatenate(parts)
    if len(points) < 5:
        raise ValueError(f"{len(points)} points given: a t-SNE map needs at least 5")
    points = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    with threadpool_limits(1):
        size = min(components, *points.shape)
        reduced = PCA(size, svd_solver="full").fit_transform(points)
        start = np.zeros((len(points), 2))
        start[:, : min(2, size)] = reduced[:, :2]
        start *= 1e-4 / max(start[:, 0].std(), 1e-12)
        tsne = TSNE(
            perplexity=min(perplexity, (len(points) - 1) / 3), init=start, random_state=seed, n_jobs=1
        )
        flat = tsne.fit_transform(reduced).astype(np.float64)
        agreement = knn_agreement(points, flat, neighbours)
    n, m = len(parts[0]), len(parts[1])
    stars = flat[n + m :] if prototypes is not None else None
    return JointMap(flat[:n], flat[n : n + m], stars, agreement, min(neighbours, len(points) - 1))


def draw_map(
    ax: Axes,
    joint: JointMap,
    labels: Any,
    new_labels: Any = None,
    *,
    prototype_labels: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    legend: bool = True,
) -> Axes:
    """Draw a joint map: colour says old or new, a number says which identity, a star is a prototype.

    Every identity has a thin line from the centre of its old features to the centre of its new ones: short
    lines where the two spaces agree, long lines where they do not. The orange number stands on the new side.

    Args:
        ax: axis to draw on.
        joint: from joint_tsne.
        labels: [N] identity of every old feature.
        new_labels: [M] identity of every new feature; the old ones' when None.
        prototype_labels: identity of every prototype; the sorted labels when None.
        names: text for each identity in sorted order; 1, 2, 3, … when None.
        legend: whether to add the legend under the map.

    Returns:
        The axis. Its title holds the agreement number, because the picture alone proves nothing.
    """
    draw_plane(
        ax,
        joint.old,
        joint.new,
        labels,
        new_labels,
        prototypes=joint.prototypes,
        prototype_labels=prototype_labels,
        names=names,
    )
    ax.set_title(
        f"t-SNE of old and new features together\n"
        f"neighbours kept by the map: {joint.knn_agreement:.0%} of {joint.neighbours}"
    )
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    if legend:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=3, handletextpad=0.2)
    return ax


def draw_plane(
    ax: Axes,
    old: Any,
    new: Any,
    labels: Any,
    new_labels: Any = None,
    *,
    prototypes: Any = None,
    prototype_labels: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    circle: bool = False,
) -> Axes:
    """Draw old points, new points and prototypes in the plane, identities numbered.

    Args:
        ax: axis to draw on.
        old: [N, 2].  new: [M, 2] or None.  prototypes: [C, 2] or None.
        labels, new_labels, prototype_labels, names: as in draw_map.
        circle: for points whose angle alone has meaning: draw the unit circle and a ray to each prototype.
    """
    old, labels = as_array(old), as_array(labels)
    identities = np.unique(labels)
    names = [str(i + 1) for i in range(len(identities))] if names is None else list(names)
    text = dict(zip(identities.tolist(), names, strict=True))
    dot = {"s": 26, "alpha": 0.8, "linewidths": 0.4, "edgecolors": "white"}
    ax.scatter(*old.T, color=OLD, label="old features", zorder=2, **dot)
    if new is not None:
        new = as_array(new)
        new_labels = labels if new_labels is None else as_array(new_labels)
        ax.scatter(*new.T, color=NEW, label="new features", zorder=3, **dot)
        if not circle:
            for identity in identities:
                if (new_labels == identity).any():
                    ends = np.stack(
                        [old[labels == identity].mean(axis=0), new[new_labels == identity].mean(axis=0)]
                    )
                    ax.plot(*ends.T, color=INK, linewidth=0.8, alpha=0.5, zorder=1)
                    _number(ax, ends[1], text[int(identity)], NEW, -5)
    if prototypes is not None:
        prototypes = as_array(prototypes)
        prototype_labels = identities if prototype_labels is None else as_array(prototype_labels)
        ax.scatter(
            *prototypes.T,
            marker="*",
            s=190,
            color=OLD,
            edgecolors="white",
            linewidths=0.8,
            zorder=4,
            label="old prototypes",
        )
        anchors = zip(prototypes, prototype_labels, strict=True)
    else:
        anchors = ((old[labels == identity].mean(axis=0), identity) for identity in identities)
    for position, identity in anchors:
        if circle:
            ax.plot([0, position[0]], [0, position[1]], color=OLD, linewidth=0.8, alpha=0.5, zorder=1)
        _number(ax, position, text[int(identity)], OLD, 7)
    if circle:
        angle = np.linspace(0, 2 * np.pi, 200)
        ax.plot(np.cos(angle), np.sin(angle), color="#CCCCCC", linewidth=0.8, zorder=0)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(False)
        for spine in ax.spines.values():
            spine.set_visible(False)
    ax.set_aspect("equal", adjustable="datalim")
    return ax


def _number(ax: Axes, position: np.ndarray, text: str, colour: str, offset: int) -> None:
    """Write beside a point: above right for old, below left for new, so that both stay readable."""
    ax.annotate(
        text,
        position,
        xytext=(offset, offset),
        textcoords="offset points",
        ha="left" if offset > 0 else "right",
        va="bottom" if offset > 0 else "top",
        color=colour,
        fontsize=11,
        fontweight="bold",
        path_effects=_HALO,
        zorder=5,
    )
