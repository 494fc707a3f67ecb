"""Old and new points in one plane, and the images behind them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, trustworthiness
from threadpoolctl import threadpool_limits

from compat_lib.evaluation.inputs import plain_array

from .distributions import unequal_widths
from .style import INK, NEW, OLD, say_instead, unit_rows

GATHERED = 0.8  # length of a class's mean of unit points from which the class has one place
_HALO = [effects.withStroke(linewidth=2.5, foreground="white")]
_CENTRED = {"ha": "center", "va": "center", "fontweight": "bold", "path_effects": _HALO, "zorder": 6}


@dataclass(frozen=True)
class JointMap:
    """Old features, new features and prototypes embedded together, with a number that judges the map."""

    old: np.ndarray  # [N, 2]
    new: np.ndarray | None  # [M, 2]
    prototypes: np.ndarray | None  # [C, 2]
    trustworthiness: float  # 0..1, scikit-learn's: 1 when neighbours in the map are neighbours in the space


def joint_tsne(old: Any, new: Any = None, prototypes: Any = None) -> JointMap:
    """One t-SNE map of old features [N, D], new ones [M, D] and prototypes [C, D], the same on every call.

    Rows are normalised and embedded *together*: two maps made apart cannot be compared. One thread keeps the
    order of summation.
    """
    given = (old, new, prototypes)
    parts = [unit_rows(part) for part in given if part is not None]
    points = np.concatenate(parts)
    with threadpool_limits(1):
        reduced = PCA(min(30, *points.shape), svd_solver="full").fit_transform(points)
        few = (len(points) - 1) / 3
        tsne = TSNE(perplexity=min(20.0, few), init="pca", random_state=0, n_jobs=1)
        flat = tsne.fit_transform(reduced).astype(np.float64)
        judged = trustworthiness(points, flat, n_neighbors=max(1, min(10, int(few))))
    pieces = iter(np.split(flat, np.cumsum([len(part) for part in parts])[:-1]))
    return JointMap(*(None if part is None else next(pieces) for part in given), float(judged))


def model_map(ax: Axes, old: Any, new: Any, labels: Any) -> JointMap | None:
    """Old and new features of ten identities in one t-SNE map; stars are the old features' class means.

    `old` [N, d_o] and `new` [N, d_n] are embeddings of the same images. The identities are evenly spaced over
    the sorted labels. None where the widths differ, which the axis then says.
    """
    if old.shape[1] != new.shape[1]:
        say_instead(ax, unequal_widths(old, new))
        return None
    labels = plain_array(labels)
    present = np.unique(labels)
    shown = present[np.linspace(0, len(present) - 1, min(10, len(present))).round().astype(int)]
    rows = np.isin(labels, shown)
    old, new = (unit_rows(features[rows]) for features in (old, new))
    prototypes = np.stack([old[labels[rows] == identity].mean(axis=0) for identity in shown])
    joint = joint_tsne(old, new, prototypes)
    draw_map(ax, joint, labels[rows])
    return joint


def draw_map(ax: Axes, joint: JointMap, labels: Any, *, marked: Any = None) -> Axes:
    """Draw a joint map: colour says old or new, a number says which identity, a star is a prototype.

    A thin line leads from the centre of each identity's old features to that of its new ones: short where the
    two spaces agree. The title holds the trustworthiness, because the picture alone proves nothing. `labels`
    [N] are of every old feature and of the new one of the same image, prototypes in their order; old points
    that are `marked`, bool [N], such as outliers, have a ring.
    """
    labels = plain_array(labels)
    text = _names(labels)
    _dots(ax, joint.old, OLD, "old features", 2, marked)
    centres = {identity: joint.old[labels == identity].mean(axis=0) for identity in text}
    if joint.new is not None:
        _dots(ax, joint.new, NEW, "new features", 3)
        for identity in text:
            ends = np.stack([centres[identity], joint.new[labels == identity].mean(axis=0)])
            ax.plot(*ends.T, color=INK, linewidth=0.8, alpha=0.5, zorder=1)
            _number(ax, ends[1], text[identity], NEW, -5)
    if joint.prototypes is not None:
        _stars(ax, joint.prototypes)
        centres = dict(zip(text, joint.prototypes, strict=True))
    for identity, position in centres.items():
        _number(ax, position, text[identity], OLD, 7)
    shown = "old features" if joint.new is None else "old and new features together"
    ax.set_title(f"t-SNE of {shown}\ntrustworthiness {joint.trustworthiness:.2f}")
    ax.set_aspect("equal", adjustable="datalim")
    ax.set(xticks=[], yticks=[], frame_on=False)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=3, handletextpad=0.2)
    return ax


def draw_circle(
    ax: Axes,
    old: Any,
    new: Any,
    labels: Any,
    *,
    prototypes: Any,
    classifier: Any = None,
    marked: Any = None,
) -> Axes:
    """Draw points of which the angle alone has meaning: old ones on a circle, new ones on a wider one.

    Blue numbers and rays stand at the old prototypes; an orange number stands where a class of new points has
    gathered, and nowhere while it is scattered.

    Args:
        old: [N, 2], drawn where they are, length about 1.  new: [N, 2] of any length.
        prototypes: [C, 2], class means of the old features.
        classifier: [C, 2] rows of the new classifier, drawn as short orange strokes.
        marked: bool [N], images to ring on both circles, such as outliers.
    """
    labels = plain_array(labels)
    text = _names(labels)
    turn = np.linspace(0, 2 * np.pi, 200)
    ax.plot(np.cos(turn), np.sin(turn), color="#CCCCCC", linewidth=0.8, zorder=0)
    _dots(ax, plain_array(old), OLD, "old features", 2, marked)
    new = unit_rows(new)
    _dots(ax, 1.25 * new, NEW, "new features", 3, marked)
    for identity in text:
        centre = new[labels == identity].mean(axis=0)
        if np.linalg.norm(centre) > GATHERED:
            ax.text(*(1.5 * unit_rows(centre)), text[identity], color=NEW, **_CENTRED)
    for row in [] if classifier is None else unit_rows(classifier):
        ax.plot(*np.stack([1.33 * row, 1.41 * row]).T, color=NEW, linewidth=2.5, zorder=1)
    prototypes = plain_array(prototypes)
    _stars(ax, prototypes)
    for position, name in zip(prototypes, text.values(), strict=True):
        ax.plot([0, position[0]], [0, position[1]], color=OLD, linewidth=0.8, alpha=0.5, zorder=1)
        ax.text(*(0.62 * unit_rows(position)), name, color=OLD, **_CENTRED)
    ax.set(xlim=(-1.65, 1.65), ylim=(-1.65, 1.65), aspect="equal")
    ax.axis("off")
    return ax


def toy_row(axes: Sequence[Axes], toy: Any, run: Any, *, title: str = "") -> Sequence[Axes]:
    """The last snapshots of a toy training side by side, one an axis, each with its two tests.

    `toy` is from companion.toy.make_toy, `run` from train_toy; `title` stands over the first axis.
    """
    first = len(run.steps) - len(axes)
    for ax, at in zip(axes, range(first, len(run.steps)), strict=True):
        sides = {"prototypes": toy.system.prototypes(), "classifier": run.classifier[at]}
        draw_circle(ax, toy.old, run.points[at], toy.labels, marked=toy.outlier, **sides)
        tests = f"new/new {run.self_test[at]:.0%}, new/old {run.cross_test[at]:.0%}"
        name = f"{title}\n" if title and at == first else ""
        ax.set_title(f"{name}step {run.steps[at]}\n{tests}", fontsize=10)
    return axes


def image_strip(
    ax: Axes,
    images: Any,
    captions: Sequence[str] | None = None,
    colours: Sequence[str] | str | None = None,
    *,
    columns: int = 10,
    title: str | None = None,
) -> Axes:
    """Images uint8 [n, 1 or 3, H, W] in a grid on one axis, each with a caption below and a coloured frame.

    Captions are short: a column is about 10 characters wide at 10 columns. `colours` are one for each frame
    or one for all; no frame when None.
    """
    images = plain_array(images)
    count, _, height, width = images.shape
    colours = [colours] * count if isinstance(colours, str) or colours is None else colours
    captions, columns, gap = captions or [""] * count, min(columns, count), 0.12 * width
    lines = max(caption.count("\n") + 1 if caption else 0 for caption in captions)
    step_x, step_y = width + gap, height + gap + lines * 0.26 * height
    for i, (image, caption, colour) in enumerate(zip(images, captions, colours, strict=True)):
        left, top = (i % columns) * step_x, (i // columns) * step_y
        picture = image.transpose(1, 2, 0) if len(image) == 3 else image[0]
        extent = (left, left + width, top + height, top)
        ax.imshow(picture, extent=extent, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        if colour is not None:
            ax.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=colour, linewidth=2.5))
        ax.text(left + width / 2, top + height * 1.05, caption, ha="center", va="top", fontsize=9)
    ax.set(xlim=(-gap, columns * step_x), ylim=(-(-count // columns) * step_y, -gap), aspect="equal")
    ax.axis("off")
    if title:
        ax.set_title(title, loc="left")
    return ax


def _names(labels: np.ndarray) -> dict[Any, str]:
    return {identity: str(number) for number, identity in enumerate(np.unique(labels).tolist(), 1)}


def _dots(ax: Axes, points: np.ndarray, colour: str, label: str, level: int, marked: Any = None) -> None:
    look = {"s": 26, "alpha": 0.8, "linewidths": 0.4, "edgecolors": "white"}
    ax.scatter(*points.T, color=colour, label=label, zorder=level, **look)
    if marked is not None and plain_array(marked).any():
        ring = {"s": 60, "facecolors": "none", "edgecolors": INK, "linewidths": 1.2}
        ax.scatter(*points[plain_array(marked)].T, label="outliers", zorder=5, **ring)


def _stars(ax: Axes, points: np.ndarray) -> None:
    style = {"s": 190, "color": OLD, "edgecolors": "white", "linewidths": 0.8}
    ax.scatter(*points.T, marker="*", label="old prototypes", zorder=4, **style)


def _number(ax: Axes, position: np.ndarray, text: str, colour: str, offset: int) -> None:
    """Write beside a point: above right for old, below left for new, so that both stay readable."""
    side = {"ha": "left", "va": "bottom"} if offset > 0 else {"ha": "right", "va": "top"}
    look = {"color": colour, "fontsize": 11, "fontweight": "bold", "path_effects": _HALO, "zorder": 5}
    ax.annotate(text, position, xytext=(offset, offset), textcoords="offset points", **side, **look)
