"""Distributions: cosines of pairs, any number per sample, and how features lie to the prototypes."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from compat_lib.evaluation.inputs import plain_array
from compat_lib.evaluation.tar import cosine_histograms, verification

from .style import INK, NEW, OLD, ORACLE, PAIR_COLOURS, legend_outside, say_instead, unit_rows


def cosine_row(
    axes: Sequence[Axes],
    histograms: Mapping[str, tuple[Any, Any, Any]],
    thresholds: Mapping[str, float] | None = None,
) -> Sequence[Axes]:
    """Cosine histograms of pairs of the same and of different identities, one axis a query/gallery pair.

    Each title gives the overlap: the common area of the two densities, 1 when they coincide.

    Args:
        histograms: pair -> (edges [B+1], counts of same [B], counts of different [B]); counts are drawn as
            densities, because pairs of different identities are hundreds of times more numerous. What
            follows a comma only goes into the title: "new/old, MixBCT" has the colour of "new/old".
        thresholds: pair -> the cosine from which a pair is accepted at FAR 1e-3, drawn as a line.
    """
    ends = np.array([(min(edges), max(edges)) for edges, _, _ in histograms.values()], float)
    for ax, (pair, parts) in zip(axes, histograms.items(), strict=True):
        name, (edges, same, different) = pair.replace("_", "/"), (np.asarray(part, float) for part in parts)
        shares = [counts / max(counts.sum(), 1.0) for counts in (same, different)]
        filled = {"color": PAIR_COLOURS.get(name.split(",")[0], INK), "alpha": 0.35, "linestyle": "-"}
        outline = {"color": INK, "fill": False, "linestyle": "--"}
        look = {"x": (edges[:-1] + edges[1:]) / 2, "bins": edges.tolist(), "stat": "density"}
        for counts, style in ((same, filled), (different, outline)):
            if counts.sum():
                sns.histplot(weights=counts, element="step", ax=ax, **style, **look)
        if thresholds and pair in thresholds:
            ax.axvline(thresholds[pair], color=INK, linewidth=1.0, linestyle=":")
        ax.set_title(f"{name.replace(', ', chr(10))}\noverlap {np.minimum(*shares).sum():.1%}")
        ax.set(xlabel="cosine", ylabel="", yticks=[], xlim=(ends.min(), ends.max()))
    axes[0].set_ylabel("density of pairs")
    # One legend for the row, in neutral ink: the fill has another colour in every axis.
    keys = [Patch(facecolor="#BBBBBB", edgecolor=INK, label="same identity")]
    lines = {"different identities": "--"} | ({"threshold at FAR 1e-3": ":"} if thresholds else {})
    keys += [Line2D([], [], color=INK, linestyle=line, label=label) for label, line in lines.items()]
    axes[0].figure.legend(handles=keys, loc="outside upper center", ncols=len(keys))
    return axes


def model_cosines(
    axes: Sequence[Axes], old: Any, new: Any, labels: Any, *, cross: tuple[Any, Any] | None = None
) -> Sequence[Axes]:
    """Cosine histograms of old/old, new/old and new/new with the threshold at FAR 1e-3, on three axes.

    Args:
        old, new: [N, d_o], [N, d_n], embeddings of the same images, normalised here. Where the widths differ
            the middle axis says so.
        cross: (query, gallery) of new/old, [N, d] each; None: `new` and `old` themselves.
    """
    ids = np.arange(len(old))
    query, gallery = cross or (new, old)
    across = {"gallery": gallery, "gallery_labels": labels, "query_ids": ids, "gallery_ids": ids}
    pairs = {"old/old": (old, {}), "new/old": (query, across), "new/new": (new, {})}
    placed = dict(zip(pairs, axes, strict=True))
    if gallery.shape[1] != query.shape[1]:
        say_instead(placed.pop("new/old"), unequal_widths(gallery, query))
    pairs = {pair: pairs[pair] for pair in placed}
    histograms = {pair: cosine_histograms(side, labels, **o, bins=100) for pair, (side, o) in pairs.items()}
    found = {pair: verification(side, labels, **o, fars=(1e-3,)) for pair, (side, o) in pairs.items()}
    thresholds = {p: one.thresholds[0] for p, one in found.items() if np.isfinite(one.thresholds[0])}
    cosine_row(list(placed.values()), histograms, thresholds)
    return axes


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
        groups: name -> values; names whose first word is "old" are blue, "new" orange, "oracle" or
            "independent" grey, or as `colours` says. nan is left out.
    """
    spare = iter(["#332288", "#CC6677", "#2A9D8F", "#999933"])
    fixed = {"old": OLD, "new": NEW, "oracle": ORACLE, "independent": ORACLE} | dict(colours or {})
    parts, palette = [], {}
    for name, group in groups.items():
        # Rounded: between values that rounding alone tells apart there is no room for bins.
        values = pd.Series(plain_array(group).astype(float).ravel()).dropna().round(9)
        named = f"{name} (n = {len(values)})"
        palette[named] = fixed.get(name) or fixed.get(re.split(r"[ ,(]", name)[0]) or next(spare, INK)
        parts.append(pd.DataFrame({"value": values, "group": named}))
    data = pd.concat(parts, ignore_index=True)
    if len(data):
        look = {"stat": "probability", "common_norm": False, "element": "step", "alpha": 0.25}
        sns.histplot(data, x="value", hue="group", palette=palette, bins=bins, legend=False, ax=ax, **look)
    keys = [Patch(facecolor=(colour, 0.25), edgecolor=colour, label=name) for name, colour in palette.items()]
    ax.set(xlabel=xlabel, ylabel="share of the group")
    legend_outside(ax, handles=keys)
    return ax


def feature_spread(axes: Sequence[Axes], models: Mapping[str, Any], labels: Any) -> Sequence[Axes]:
    """How long the embeddings of each model are, and how tightly each identity holds together, on two axes.

    The latter is the cosine with the mean of the identity's other images, if it has any. `models` are
    name -> embeddings [N, d], not normalised; names as in value_histogram.
    """
    labels = np.unique(plain_array(labels), return_inverse=True)[1]
    lengths, cosines = {}, {}
    for name, embeddings in models.items():
        lengths[name] = np.linalg.norm(plain_array(embeddings).astype(float), axis=1)
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


def prototype_heatmap(
    ax: Axes, prototypes: Any, vectors: Any, *, vectors_label: str = "new class mean"
) -> Axes:
    """Heat map of the cosines between old prototypes and new class means or classifier rows [C, D].

    A bright diagonal on a pale ground: every new class points where its old prototype points. The first 12
    classes are shown.
    """
    cosines = unit_rows(prototypes[:12]) @ unit_rows(vectors[:12]).T
    look = {"cmap": "PuOr_r", "vmin": -1, "vmax": 1, "square": True, "cbar_kws": {"label": "cosine"}}
    sns.heatmap(cosines, ax=ax, **look)
    ax.set(xlabel=f"{vectors_label} of class", ylabel="old prototype of class")
    others = cosines[~np.eye(len(cosines), dtype=bool)]
    rest = f", others {others.mean():.2f}" if others.size else ""
    ax.set_title(f"own class {np.diag(cosines).mean():.2f}{rest}")
    return ax


def prototype_alignment(
    ax: Axes, prototypes: Any, groups: Mapping[str, Any], *, colours: Mapping[str, str] | None = None
) -> Axes:
    """Histogram over all classes of the cosine between a class's old prototype and its new vector.

    `prototypes` [C, D] and of each model [C, D] class means or classifier rows; classes whose prototype or
    vector is zero (no samples) are left out.
    """
    own, values = unit_rows(prototypes), {}
    for name, vectors in groups.items():
        vectors = unit_rows(vectors)
        values[name] = (own * vectors).sum(axis=1)[own.any(axis=1) & vectors.any(axis=1)]
    xlabel = "cosine to the old prototype of the same class"
    return value_histogram(ax, values, xlabel=xlabel, colours=colours)


def unequal_widths(old: Any, new: Any) -> str:
    """Why there is no new/old here, as a sentence."""
    return (
        f"no new/old: old features have {old.shape[1]} coordinates,\nnew ones {new.shape[1]}; a cosine needs "
        "equal widths\n(set new_width to the old width)"
    )
