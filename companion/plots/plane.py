"""Old and new points in one picture of the plane."""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.axes import Axes

from .maps import JointMap
from .style import INK, NEW, OLD, as_array, unit_rows

GATHERED = 0.8  # length of a class's mean of unit points from which the class has one place
_HALO = [effects.withStroke(linewidth=2.5, foreground="white")]
_CENTRED = {"ha": "center", "va": "center", "fontweight": "bold", "path_effects": _HALO, "zorder": 6}
_RING = f'stroke="{INK}" stroke-width=".02"'


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
    kept = f"{joint.knn_agreement * joint.neighbours:.1f} of {joint.neighbours}"
    ax.set_title(f"t-SNE of {shown}\n{kept} nearest neighbours are the same in the map")
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
            if np.linalg.norm(centre) > GATHERED:
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


def circle_steps(toy: Any, runs: Mapping[str, Any]) -> str:
    """HTML that plays toy trainings without a script: buttons for the training and for the step.

    For exported pages. JupyterLab hides it, because a slider can stand there.

    Args:
        toy: from companion.toy.make_toy.
        runs: title of a training -> its result of companion.toy.train_toy, all with the same snapshots.

    Returns:
        One element that looks like draw_circle. Its points turn from step to step, the shorter way round.

    Raises:
        ValueError: "one run at least, and the same steps in all; got …".
    """
    kinds = {run.steps for run in runs.values()}
    if len(kinds) != 1:
        raise ValueError(f"one run at least, and the same steps in all; got {sorted(kinds)}")
    steps, points = kinds.pop(), [as_array(run.points) for run in runs.values()]
    key = f"toy{zlib.crc32(b''.join(part.tobytes() for part in points)):08x}"  # two in one page stay apart
    rules = [
        ".jp-OutputArea .circle-steps{display:none}",
        ".circle-steps svg{display:block;width:100%;max-width:28rem}",
        ".circle-steps label{margin-right:.8em;white-space:nowrap}",
        ".circle-steps .run,.circle-steps .at{display:none}",
        ".circle-steps .new{transition:transform .8s}",
        "@media(prefers-reduced-motion:reduce){.circle-steps .new{transition:none}}",
        *(f"#{key}-run-{i}:checked~svg .run-{i}{{display:inline}}" for i in range(len(runs))),
    ]
    for k in range(len(steps)):
        chosen = f"#{key}-at-{k}:checked~svg"
        rules.append(f"{chosen} .at-{k}{{display:inline}}{chosen} .new{{transform:rotate(var(--a{k}))}}")
    drawn = [_still(toy)]
    for i, run in enumerate(runs.values()):
        drawn.append(f'<g class="run run-{i}">{_moving(toy, run)}</g>')
    return (
        f'<div class="circle-steps"><style>{"".join(rules)}</style>training: '
        f"{_buttons(f'{key}-run', runs)}<br>step: {_buttons(f'{key}-at', steps)}"
        '<svg viewBox="-1.7 -1.9 3.4 3.6" role="img" aria-label="old and new points on two circles" '
        f'font-family="sans-serif" font-size=".15" text-anchor="middle">{"".join(drawn)}</svg></div>'
    )


def _buttons(group: str, names: Iterable[Any]) -> str:
    """Radio buttons, the first one pressed."""
    return "".join(
        f'<input type="radio" name="{group}" id="{group}-{i}"{"" if i else " checked"}>&nbsp;'
        f'<label for="{group}-{i}">{escape(str(name))}</label>'
        for i, name in enumerate(names)
    )


def _still(toy: Any) -> str:
    """SVG of what never moves: the circle, old points, prototypes and their numbers."""
    turn = np.pi * (0.5 + np.arange(10) / 5)
    spike = np.where(np.arange(10) % 2, 0.04, 0.1)[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    parts = ['<circle r="1" fill="none" stroke="#ccc" stroke-width=".01"/>']
    for (x, y), ringed in zip(as_array(toy.old), as_array(toy.outlier), strict=True):
        parts.append(f'<circle cx="{x:.2f}" cy="{-y:.2f}" r=".035" fill="{OLD}"/>')
        if ringed:
            parts.append(f'<circle cx="{x:.2f}" cy="{-y:.2f}" r=".07" fill="none" {_RING}/>')
    for c, star in enumerate(as_array(toy.system.prototypes())):
        corners = " ".join(f"{x:.2f},{-y:.2f}" for x, y in star + spike)
        parts.append(f'<polygon points="{corners}" fill="{OLD}" stroke="#fff" stroke-width=".01"/>')
        parts.append(_text(0.62 * unit_rows(star), c + 1, OLD))
    return "".join(parts)


def _moving(toy: Any, run: Any) -> str:
    """SVG of a training: new points and classifier rows with an angle a step, and each step's words."""
    labels, points = as_array(toy.labels), unit_rows(as_array(run.points))
    parts = []
    for turns, ringed in zip(_turns(points), as_array(toy.outlier), strict=True):
        parts.append(f'<circle class="new" cx="1.25" r=".045" fill="{NEW}" style="{turns}"/>')
        if ringed:
            parts.append(f'<circle class="new" cx="1.25" r=".08" fill="none" {_RING} style="{turns}"/>')
    for turns in _turns(as_array(run.classifier)):
        parts.append(
            f'<path class="new" d="M1.33 0H1.41" stroke="{NEW}" stroke-width=".04" style="{turns}"/>'
        )
    for k, new in enumerate(points):
        words = [_text((0, 1.72), f"step {run.steps[k]}, cross-test {run.cross_test[k]:.0%}", INK)]
        for c in np.unique(labels):
            centre = new[labels == c].mean(axis=0)
            if np.linalg.norm(centre) > GATHERED:
                words.append(_text(1.53 * unit_rows(centre), c + 1, NEW))
        parts.append(f'<g class="at at-{k}">{"".join(words)}</g>')
    return "".join(parts)


def _turns(points: np.ndarray) -> list[str]:
    """For each of N points in S steps ([S, N, 2]) its clockwise degrees, as CSS variables --a0, --a1, …"""
    degrees = np.rad2deg(np.unwrap(np.arctan2(-points[..., 1], points[..., 0]), axis=0))
    return ["".join(f"--a{k}:{value:.0f}deg;" for k, value in enumerate(column)) for column in degrees.T]


def _text(position: Any, words: Any, colour: str) -> str:
    x, y = position
    bold = ' font-weight="bold"' if colour != INK else ""
    return f'<text x="{x:.2f}" y="{0.05 - y:.2f}" fill="{colour}"{bold}>{words}</text>'


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
