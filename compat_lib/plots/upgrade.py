"""Pictures of one upgrade: the toy, an old model beside its successor, and the backfill of a gallery."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from compat_lib.evaluation.pairs import cosine_histograms, verification

from .comparisons import FAR_BELOW
from .histograms import cosine_row, value_histogram
from .maps import JointMap, joint_tsne
from .plane import draw_circle, draw_map
from .style import OLD, ORACLE, as_array, method_style, metric_title, say_instead, unit_rows


def toy_row(axes: Sequence[Axes], toy: Any, run: Any, *, title: str = "") -> Sequence[Axes]:
    """Snapshots of a toy training side by side, each with its two tests.

    Args:
        axes: one axis a snapshot, for the last snapshots of the run.
        toy: from compat_lib.toy.make_toy.  run: from compat_lib.toy.train_toy.
        title: what was trained, over the first axis.
    """
    prototypes = toy.system.prototypes()
    first = len(run.steps) - len(axes)
    for ax, at in zip(axes, range(first, len(run.steps)), strict=True):
        draw_circle(
            ax,
            toy.old,
            run.points[at],
            toy.labels,
            prototypes=prototypes,
            classifier=run.classifier[at],
            marked=toy.outlier,
        )
        tests = f"new/new {run.self_test[at]:.0%}, new/old {run.cross_test[at]:.0%}"
        name = f"{title}, " if title and at == first else ""
        ax.set_title(f"{name}step {run.steps[at]}\n{tests}", fontsize=10)
    return axes


def model_cosines(
    axes: Sequence[Axes],
    old: Any,
    new: Any,
    labels: Any,
    *,
    cross: tuple[Any, Any] | None = None,
    far: float = 1e-3,
    bins: int = 100,
) -> Sequence[Axes]:
    """Cosine histograms of old/old, new/old and new/new with the threshold of an operating point.

    Args:
        axes: three axes of one figure.
        old: [N, d_o], new: [N, d_n], embeddings of the same images, normalised here. Where the widths differ
            the middle axis says so.
        labels: [N].
        cross: gallery side and query side of new/old, [N, d] each, where a method cuts, pads or transforms
            features before it compares them; None: `old` and `new` themselves.
        far: false-accept rate of the marked threshold, a fraction.
        bins: over the cosine's range.
    """
    ids = np.arange(len(old))
    gallery, asked = cross or (old, new)
    across = {"gallery": gallery, "gallery_labels": labels, "query_ids": ids, "gallery_ids": ids}
    pairs = {"old_old": (old, {}), "new_old": (asked, across), "new_new": (new, {})}
    placed = dict(zip(pairs, axes, strict=True))
    if gallery.shape[1] != asked.shape[1]:
        say_instead(placed.pop("new_old"), unequal_widths(gallery, asked))
    histograms, thresholds = {}, {}
    for pair in placed:
        query, others = pairs[pair]
        histograms[pair] = cosine_histograms(query, labels, **others, bins=bins)
        threshold = verification(query, labels, **others, fars=(far,)).thresholds[0]
        thresholds[pair] = threshold if np.isfinite(threshold) else None
    label = f"threshold at FAR {far:.0e}".replace("e-0", "e-")
    cosine_row(list(placed.values()), histograms, thresholds, threshold_label=label)
    return axes


def model_map(
    ax: Axes, old: Any, new: Any, labels: Any, *, identities: int = 10, seed: int = 0
) -> JointMap | None:
    """Old and new features of some identities in one t-SNE map; stars are the old features' class means.

    Args:
        ax: axis to draw on; where the widths differ it says so.
        old: [N, d_o], new: [N, d_n], embeddings of the same images, normalised here.
        labels: [N].
        identities: how many are shown, evenly spaced over the sorted labels.
        seed: for t-SNE.

    Returns:
        The map with its agreement number, or None where the widths differ.
    """
    if old.shape[1] != new.shape[1]:
        say_instead(ax, unequal_widths(old, new))
        return None
    labels = as_array(labels)
    present = np.unique(labels)
    shown = present[np.linspace(0, len(present) - 1, min(identities, len(present))).round().astype(int)]
    rows = np.isin(labels, shown)
    kept = labels[rows]
    old, new = (unit_rows(as_array(features)[rows].astype(np.float64)) for features in (old, new))
    prototypes = np.stack([old[kept == identity].mean(axis=0) for identity in shown])
    joint = joint_tsne(old, new, prototypes, seed=seed)
    draw_map(ax, joint, kept)
    return joint


def feature_spread(axes: Sequence[Axes], models: Mapping[str, Any], labels: Any) -> Sequence[Axes]:
    """How long the embeddings of each model are, and how tightly each identity holds together.

    Args:
        axes: two axes: lengths, and cosines with the mean of the identity's other images.
        models: name -> embeddings [N, d], not normalised; names as in value_histogram.
        labels: [N]; identities with one image are left out on the right.
    """
    labels = np.unique(as_array(labels), return_inverse=True)[1]
    lengths, cosines = {}, {}
    for name, embeddings in models.items():
        embeddings = as_array(embeddings).astype(np.float64)
        lengths[name] = np.linalg.norm(embeddings, axis=1)
        features = unit_rows(embeddings)
        sums = np.zeros((labels.max() + 1, features.shape[1]))
        np.add.at(sums, labels, features)
        several = np.bincount(labels)[labels] > 1
        others = unit_rows(sums[labels] - features)
        cosines[name] = (features * others).sum(axis=1)[several]
    value_histogram(axes[0], lengths, xlabel="length of an embedding")
    value_histogram(axes[1], cosines, xlabel="cosine to the mean of the identity's other images")
    axes[0].get_legend().remove()  # the right axis has the same one
    return axes


def unequal_widths(old: Any, new: Any) -> str:
    """Why there is no new/old here, as a sentence."""
    return (
        f"no new/old: old features have {old.shape[1]} coordinates,\nnew ones {new.shape[1]}; a cosine needs "
        "equal widths\n(set new_width to the old width)"
    )


def backfill_panels(
    axes: Sequence[Axes],
    curves: Mapping[str, tuple],
    *,
    old_old: float | None = None,
    oracle: float | None = None,
    metric: str = "map",
    titles: Mapping[str, str] | None = None,
) -> Sequence[Axes]:
    """The curves of `backfill_curve` with a panel each, the others thin and grey behind it: for many methods.

    Each title gives the values at both ends of the curve. A curve that starts below half of old/old does not
    set the scale: it enters the picture from below.

    Args:
        axes: axes of one figure that share their scales, at least one a curve; the others are switched off.
        curves: method -> (shares 0..1, values) or (shares, values, low, high), the last two drawn as a band.
        old_old: the value before the upgrade (old queries, old gallery), a blue line.
        oracle: the oracle's self-test, a grey line: what a full backfill with a free new model would give.
        metric: name of the metric, for the axis.
        titles: method -> text above its panel.

    Raises:
        ValueError: "14 curves need as many axes; got 12".
    """
    axes = list(axes)
    if len(axes) < len(curves) or not curves:
        raise ValueError(f"{len(curves)} curves need as many axes; got {len(axes)}")
    drawn = {name: tuple(as_array(part).astype(float) for part in parts) for name, parts in curves.items()}
    columns = axes[0].get_gridspec().ncols
    for place, (ax, (name, (shares, values, *band))) in enumerate(zip(axes, drawn.items(), strict=False)):
        for other in drawn.values():
            ax.plot(*other[:2], color="#C8C8C8", linewidth=0.8, zorder=1)
        colour = method_style(name)["color"]
        ax.plot(shares, values, color=colour, linewidth=2.4, zorder=3)
        if band:
            ax.fill_between(shares, *band, color=colour, alpha=0.2, linewidth=0)
        for value, line in ((old_old, OLD), (oracle, ORACLE)):
            if value is not None:
                ax.axhline(value, color=line, linestyle="--", linewidth=1.2, zorder=2)
        text = (titles or {}).get(name, name)
        ax.set_title(f"{text}\n{values[0]:.2f} to {values[-1]:.2f}", fontsize=9, loc="left")
        ax.set_xticks([0.0, 0.5, 1.0], ["0 %", "50 %", "100 %"])
        # a panel with nothing below it carries the shares, the first of a row the values
        ax.tick_params(labelsize=9, labelbottom=place + columns >= len(drawn), labelleft=place % columns == 0)
    for ax in axes[len(drawn) :]:
        ax.axis("off")
    for ax in axes[: len(drawn)]:
        ax.set_xlim(-0.03, 1.03)
        ax.set_ylim(*_scale(drawn, old_old, oracle))
    figure = axes[0].figure
    figure.supylabel(metric_title(metric), fontsize=11)
    named = {"old/old, before the upgrade": (OLD, old_old), "oracle new/new": (ORACLE, oracle)}
    lines = [
        Line2D([], [], color=c, linestyle="--", label=text) for text, (c, v) in named.items() if v is not None
    ]
    lines.append(Line2D([], [], color="#C8C8C8", linewidth=0.8, label="the other methods"))
    # The label of the shares is the legend's title: a label of the figure would lie upon the legend.
    shares = {"title": "gallery re-embedded by the new model", "title_fontsize": 11}
    figure.legend(handles=lines, loc="outside lower center", ncols=2, **shares)
    return axes


def _scale(
    curves: Mapping[str, tuple[np.ndarray, ...]], old_old: float | None, oracle: float | None
) -> tuple[float, float]:
    """Ends of the vertical axis, from the curves that start at half of old/old or above, if any do."""
    limit = -np.inf if old_old is None else FAR_BELOW * old_old
    near = [values for _, values, *_ in curves.values() if values[0] >= limit]
    near = near or [values for _, values, *_ in curves.values()]
    known = np.concatenate([*near, [value for value in (old_old, oracle) if value is not None]])
    low, high = np.nanmin(known), np.nanmax(known)
    room = max(0.08 * (high - low), 0.01)
    return float(low - room), float(high + room)
