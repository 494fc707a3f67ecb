"""Old and new points in one picture of the plane."""

from collections.abc import Sequence
from typing import Any

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.axes import Axes

from .maps import JointMap
from .style import INK, NEW, OLD, as_array, unit_rows

_HALO = [effects.withStroke(linewidth=2.5, foreground="white")]
_CENTRED = {"ha": "center", "va": "center", "fontweight": "bold", "path_effects": _HALO, "zorder": 6}


def draw_map(
    ax: Axes,
    joint: JointMap,
    labels: Any,
    new_labels: Any = None,
    *,
    prototype_labels: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    marked: Any = None,
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
        marked: bool [N], old points to ring, such as outliers; None for none.
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
        marked=marked,
    )
    shown = "old features" if joint.new is None else "old and new features together"
    ax.set_title(
        f"t-SNE of {shown}\nneighbours kept by the map: {joint.knn_agreement:.0%} of {joint.neighbours}"
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
    marked: Any = None,
) -> Axes:
    """Draw old points, new points and prototypes in the plane, identities numbered.

    Args:
        ax: axis to draw on.
        old: [N, 2].  new: [M, 2] or None.  prototypes: [C, 2] or None.
        labels, new_labels, prototype_labels, names: as in draw_map.
        marked: bool [N], old points to ring, such as outliers; None for none.
    """
    old, labels = as_array(old), as_array(labels)
    identities = np.unique(labels)
    text = _names(identities, names)
    _dots(ax, old, OLD, "old features", 2, marked)
    if new is not None:
        new = as_array(new)
        new_labels = labels if new_labels is None else as_array(new_labels)
        _dots(ax, new, NEW, "new features", 3)
        for identity in identities[np.isin(identities, new_labels)]:
            ends = np.stack([old[labels == identity].mean(axis=0), new[new_labels == identity].mean(axis=0)])
            ax.plot(*ends.T, color=INK, linewidth=0.8, alpha=0.5, zorder=1)
            _number(ax, ends[1], text[identity], NEW, -5)
    if prototypes is None:
        anchors = [(old[labels == identity].mean(axis=0), identity) for identity in identities]
    else:
        prototype_labels = identities if prototype_labels is None else as_array(prototype_labels)
        anchors = list(zip(as_array(prototypes), prototype_labels, strict=True))
        _stars(ax, as_array(prototypes))
    for position, identity in anchors:
        _number(ax, position, text[identity], OLD, 7)
    ax.set_aspect("equal", adjustable="datalim")
    return ax


def draw_circle(
    ax: Axes,
    old: Any,
    new: Any,
    labels: Any,
    *,
    prototypes: Any = None,
    classifier: Any = None,
    names: Sequence[str] | None = None,
    marked: Any = None,
) -> Axes:
    """Draw points of which the angle alone has meaning: old ones on a circle, new ones on a wider one.

    Blue numbers and rays stand at the old prototypes; an orange number stands where a class of new points has
    gathered, and nowhere while it is scattered.

    Args:
        ax: axis to draw on.
        old: [N, 2], drawn where they are, length about 1.  new: [N, 2] of any length, or None.
        labels: int [N], class of every image.
        prototypes: [C, 2] class means of the old features, or None.
        classifier: [C, 2] rows of the new classifier, drawn as short orange strokes, or None.
        names: text for each class; 1, 2, 3, … when None.
        marked: bool [N], images to ring on both circles, such as outliers.
    """
    labels = as_array(labels)
    identities = np.unique(labels)
    text = _names(identities, names)
    turn = np.linspace(0, 2 * np.pi, 200)
    ax.plot(np.cos(turn), np.sin(turn), color="#CCCCCC", linewidth=0.8, zorder=0)
    _dots(ax, as_array(old), OLD, "old features", 2, marked)
    if new is not None:
        new = unit_rows(as_array(new))
        _dots(ax, 1.25 * new, NEW, "new features", 3, marked)
        for identity in identities:
            centre = new[labels == identity].mean(axis=0)
            if np.linalg.norm(centre) > 0.8:
                ax.text(*(1.5 * unit_rows(centre)), text[identity], color=NEW, **_CENTRED)
    for row in [] if classifier is None else unit_rows(as_array(classifier)):
        ax.plot(*np.stack([1.33 * row, 1.41 * row]).T, color=NEW, linewidth=2.5, zorder=1)
    if prototypes is not None:
        prototypes = as_array(prototypes)
        _stars(ax, prototypes)
        for position, identity in zip(prototypes, identities, strict=True):
            ax.plot([0, position[0]], [0, position[1]], color=OLD, linewidth=0.8, alpha=0.5, zorder=1)
            ax.text(*(0.62 * unit_rows(position)), text[identity], color=OLD, **_CENTRED)
    ax.set(xlim=(-1.65, 1.65), ylim=(-1.65, 1.65), aspect="equal")
    ax.axis("off")
    return ax


def _names(identities: np.ndarray, names: Sequence[str] | None) -> dict[Any, str]:
    names = [str(i + 1) for i in range(len(identities))] if names is None else names
    return dict(zip(identities.tolist(), names, strict=True))


def _dots(ax: Axes, points: np.ndarray, colour: str, label: str, level: int, marked: Any = None) -> None:
    ax.scatter(
        *points.T,
        s=26,
        alpha=0.8,
        linewidths=0.4,
        edgecolors="white",
        color=colour,
        label=label,
        zorder=level,
    )
    if marked is not None and as_array(marked).any():
        ringed = points[as_array(marked)]
        ax.scatter(
            *ringed.T, s=60, facecolors="none", edgecolors=INK, linewidths=1.2, label="outliers", zorder=5
        )


def _stars(ax: Axes, points: np.ndarray) -> None:
    style = {"s": 190, "color": OLD, "edgecolors": "white", "linewidths": 0.8}
    ax.scatter(*points.T, marker="*", label="old prototypes", zorder=4, **style)


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
