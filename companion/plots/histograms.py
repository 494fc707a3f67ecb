"""Distributions: cosines of pairs, any number per sample, and how features lie to the prototypes."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from .style import INK, NEW, OLD, ORACLE, PAIR_COLOURS, PAIR_TITLES, as_array, legend_outside, unit_rows


def cosine_row(
    axes: Sequence[Axes],
    histograms: Mapping[str, tuple[Any, Any, Any]],
    thresholds: Mapping[str, float] | None = None,
    *,
    threshold_label: str = "threshold",
) -> Sequence[Axes]:
    """Cosine histograms of pairs of the same and of different identities, one axis a query/gallery pair.

    Args:
        axes: as many axes as histograms (three for old/old, new/old, new/new).
        histograms: pair name -> (edges [B+1], counts of same [B], counts of different [B]); counts are drawn
            as densities, because pairs of different identities are hundreds of times more numerous. What
            follows a comma only goes into the title: "new_old, MixBCT" has the colour of "new_old".
        thresholds: pair name -> cosine of an operating point, drawn as a line.
        threshold_label: what that operating point is ("threshold at FAR 1e-3").

    Returns:
        The axes. Each title gives the overlap: the common area of the two densities, 1 when they coincide.
    """
    low = min(float(as_array(edges)[0]) for edges, _, _ in histograms.values())
    high = max(float(as_array(edges)[-1]) for edges, _, _ in histograms.values())
    for ax, (pair, (edges, same, different)) in zip(axes, histograms.items(), strict=True):
        edges = as_array(edges).astype(np.float64)
        same, different = _density(edges, same), _density(edges, different)
        overlap = float((np.minimum(same, different) * np.diff(edges)).sum())
        base, *which = pair.split(", ")
        colour = PAIR_COLOURS.get(base, INK)
        ax.stairs(different, edges, color=INK, linewidth=1.2, linestyle="--", label="different identities")
        ax.stairs(same, edges, color=colour, fill=True, alpha=0.35)
        ax.stairs(same, edges, color=colour, linewidth=1.6, label="same identity")
        if thresholds and thresholds.get(pair) is not None:
            ax.axvline(thresholds[pair], color=INK, linewidth=1.0, linestyle=":", label=threshold_label)
        title = ", ".join([PAIR_TITLES.get(base, base), *which])
        ax.set_title(f"{title}, overlap {overlap:.1%}" if not which else f"{title}\noverlap {overlap:.1%}")
        ax.set_xlabel("cosine")
        ax.set_xlim(low, high)
        ax.set_yticks([])
    axes[0].set_ylabel("density of pairs")
    # One legend for the row, in neutral ink: the fill has another colour in every axis.
    figure = axes[0].figure
    handles = {}
    for ax in axes:
        handles |= {name: handle for handle, name in zip(*ax.get_legend_handles_labels(), strict=True)}
    handles["same identity"] = Patch(facecolor="#BBBBBB", edgecolor=INK)
    for previous in list(figure.legends):
        previous.remove()
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=len(handles))
    return axes


def _density(edges: np.ndarray, counts: Any) -> np.ndarray:
    counts = as_array(counts).astype(np.float64)
    total = counts.sum()
    return counts / (total * np.diff(edges)) if total else counts


def value_histogram(
    ax: Axes,
    groups: Mapping[str, Any],
    *,
    xlabel: str,
    bins: int = 40,
    colours: Mapping[str, str] | None = None,
) -> Axes:
    """Histograms of one number per sample, one outline a group, as shares of the group.

    Args:
        ax: axis to draw on.
        groups: name -> values; names whose first word is "old" are blue, "new" orange, "oracle" or
            "independent" grey. nan is left out.
        xlabel: the quantity with its unit.
        bins: number of equal bins over all groups.
        colours: name -> colour, where the rule above does not fit.
    """
    values = {name: as_array(group).astype(np.float64).ravel() for name, group in groups.items()}
    values = {name: group[np.isfinite(group)] for name, group in values.items()}
    filled = [group for group in values.values() if len(group)]
    edges = np.histogram_bin_edges(np.concatenate(filled) if filled else [0.0, 1.0], bins)
    spare = iter(["#332288", "#CC6677", "#2A9D8F", "#999933"])
    fixed = {"old": OLD, "new": NEW, "oracle": ORACLE, "independent": ORACLE} | dict(colours or {})
    for name, group in values.items():
        colour = fixed.get(name) or fixed.get(re.split(r"[ ,(]", name)[0]) or next(spare, INK)
        share = np.histogram(group, edges)[0] / max(len(group), 1)
        ax.stairs(share, edges, color=colour, fill=True, alpha=0.25)
        ax.stairs(share, edges, color=colour, linewidth=1.6, label=f"{name} (n = {len(group)})")
    ax.set_xlabel(xlabel)
    ax.set_ylabel("share of the group")
    legend_outside(ax)
    return ax


def _cosines(rows: Any, columns: Any) -> np.ndarray:
    rows, columns = as_array(rows).astype(np.float64), as_array(columns).astype(np.float64)
    if rows.shape[1] != columns.shape[1]:
        raise ValueError(
            f"prototypes have width {rows.shape[1]}, the other vectors {columns.shape[1]}: "
            "cosines need one feature space; map them to the same width first"
        )
    return unit_rows(rows) @ unit_rows(columns).T


def prototype_heatmap(
    ax: Axes,
    prototypes: Any,
    vectors: Any,
    *,
    classes: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    vectors_label: str = "new class mean",
) -> Axes:
    """Heat map of the cosines between old prototypes and new class means or classifier rows.

    A bright diagonal on a pale ground: every new class points where its old prototype points.

    Args:
        ax: axis to draw on.
        prototypes: [C, D].  vectors: [C, D], the same classes in the same order.
        classes: rows to show; the first 12 when None.
        names: tick text of the shown classes; their indices when None.
        vectors_label: what the columns are.
    """
    classes = list(range(min(12, len(as_array(prototypes))))) if classes is None else list(classes)
    cosines = _cosines(as_array(prototypes)[classes], as_array(vectors)[classes])
    names = [str(c) for c in classes] if names is None else list(names)
    image = ax.imshow(cosines, cmap="PuOr_r", vmin=-1, vmax=1)
    ax.set_xticks(range(len(classes)), names, rotation=90 if max(map(len, names)) > 3 else 0)
    ax.set_yticks(range(len(classes)), names)
    ax.grid(False)
    ax.set_xlabel(f"{vectors_label} of class")
    ax.set_ylabel("old prototype of class")
    diagonal = float(np.diag(cosines).mean())
    others = cosines[~np.eye(len(classes), dtype=bool)]
    ax.set_title(f"own class {diagonal:.2f}" + (f", others {others.mean():.2f}" if others.size else ""))
    ax.figure.colorbar(image, ax=ax, label="cosine")
    return ax


def prototype_alignment(
    ax: Axes,
    prototypes: Any,
    groups: Mapping[str, Any],
    *,
    bins: int = 40,
    colours: Mapping[str, str] | None = None,
) -> Axes:
    """Histogram over all classes of the cosine between a class's old prototype and its new vector.

    Args:
        ax: axis to draw on.
        prototypes: [C, D].
        groups: name -> [C, D] class means or classifier rows, one group a model; classes whose prototype or
            vector is zero (no samples) are left out.
        bins: number of bins.
        colours: name -> colour, as in value_histogram.
    """
    kept = np.linalg.norm(as_array(prototypes), axis=1) > 0
    values = {}
    for name, vectors in groups.items():
        rows = kept & (np.linalg.norm(as_array(vectors), axis=1) > 0)
        values[name] = np.diag(_cosines(as_array(prototypes)[rows], as_array(vectors)[rows]))
    xlabel = "cosine to the old prototype of the same class"
    return value_histogram(ax, values, xlabel=xlabel, bins=bins, colours=colours)
