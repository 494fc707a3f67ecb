"""Old and new features in one map; pointing at a point shows its image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from companion.explore.features import NO_CROSS, OUTCOMES, RIGHT, WRONG, Upgrade
from companion.explore.show import View
from companion.plots.style import INK, NEW, OLD
from compat_lib.evaluation.inputs import unit_rows

MOST = 1000  # images in a t-SNE: each gives two points, and its time grows faster than their number
NAMED = 40  # up to so many identities have their names in the map
NEIGHBOURS = 10
OUTCOME_COLOURS = ("#9AA3AE", WRONG, RIGHT, "#222222")  # in the order of OUTCOMES
PALE = {"old": "#BFD9EA", "new": "#F8D8B8"}
MANY = ("#332288", "#117733", "#882255", "#AA4499", "#2A9D8F", "#999933", "#661100", "#5F6B8A", "#222222")


@dataclass(frozen=True)
class Layout:
    """Places of old features, new features and prototypes in one plane."""

    rows: np.ndarray  # int [M], images that have a place
    old: np.ndarray  # float [M, 2]
    new: np.ndarray  # float [M, 2]
    stars: np.ndarray  # float [K, 2]
    agreement: float  # share of a point's NEIGHBOURS nearest points that are its nearest in the map as well
    note: str  # what the map keeps


def layout(upgrade: Upgrade, projection: str, identities: Sequence[int]) -> Layout:
    """Places of the images of some identities ("PCA"), or of at most MOST of all ("t-SNE", kept for later).

    Old features, new features and prototypes are placed *together*: two maps made apart cannot be compared.
    """
    tsne = projection == "t-SNE"
    labels = upgrade.identities if tsne else np.asarray(identities)
    key = (projection, *(() if tsne else labels.tolist()))
    if key in upgrade.kept:
        return upgrade.kept[key]
    rows = np.flatnonzero(np.isin(upgrade.labels, labels))
    if tsne:
        each = max(1, MOST // len(labels))
        rows = np.sort(np.concatenate([np.flatnonzero(upgrade.labels == one)[:each] for one in labels]))
    query, gallery = upgrade.cross
    means = upgrade.means[np.searchsorted(upgrade.identities, labels)]
    points = np.concatenate([gallery[rows], query[rows], means]).astype(np.float64)
    if tsne:  # one thread keeps the order of summation, and the map the same
        perplexity = min(20, (len(points) - 1) / 3)
        flat = TSNE(perplexity=perplexity, init="pca", random_state=0, n_jobs=1).fit_transform(points)
        note = "t-SNE of all identities: distances between groups mean nothing"
    else:
        pca = PCA(2)
        flat = pca.fit_transform(points)
        kept = pca.explained_variance_ratio_.sum()
        note = f"PCA of the shown identities: the plane keeps {kept:.0%} of the variance"
    parts = np.split(flat, [len(rows), 2 * len(rows)])
    upgrade.kept[key] = Layout(rows, *parts, agreement(points, flat), note)
    return upgrade.kept[key]


def agreement(points: np.ndarray, flat: np.ndarray) -> float:
    """Mean share of every point's nearest neighbours [N, D] that are also nearest in the map [N, 2].

    >>> agreement(np.eye(4), np.eye(4)[:, :2])
    1.0
    """
    k = min(NEIGHBOURS, len(points) - 1)
    tables = (np.ascontiguousarray(table, np.float32) for table in (points, flat))
    near = [faiss.knn(table, table, k + 1, metric=faiss.METRIC_L2)[1] for table in tables]
    shared = (near[0][:, :, None] == near[1][:, None, :]).sum((1, 2))  # each point itself among them
    return float(np.clip(shared - 1, 0, k).mean() / k)


def map_view(
    upgrade: Upgrade, identities: int | Sequence[int] = 12, *, colour: str = "model", projection: str = "PCA"
) -> View:
    """Old features, new features and prototypes of some identities in one map, with images to point at.

    Args:
        identities: how many, evenly spaced over all; or labels.
        colour: "model" (old blue, new orange), "identity" (new features are diamonds), or "first answer":
            what happens to each image's first answer when new queries meet the old gallery.
        projection: see `layout`; in a t-SNE the identities that are not chosen stay in the picture, pale.
    """
    if upgrade.cross is None:
        return View(NO_CROSS)
    chosen = upgrade.picked(identities)
    places = layout(upgrade, projection, chosen)
    before, now = nearest_star(upgrade)
    total, images = len(upgrade.identities), np.isin(upgrade.labels[places.rows], chosen).sum()
    text = (
        f"{upgrade.title}: {len(chosen)} of {total} identities, {images} images, each with an old and a new "
        f"feature. {places.note}; {NEIGHBOURS * places.agreement:.1f} of a point's {NEIGHBOURS} nearest ones "
        f"are its nearest in the map too. Before any flattening, the nearest of all {total} stars is the own "
        f"one for {before:.0%} of the old features and {now:.0%} of the new ones (itself left out)."
    )
    given = (upgrade, places, chosen, colour)
    return View(text, [lambda: still_map(*given)], lambda: live_map(*given))


def paints(upgrade: Upgrade, rows: np.ndarray, chosen: np.ndarray, side: str, colour: str) -> tuple:
    """The colour of each image's feature of a side, pale where not chosen; and text -> colour of the key."""
    if colour == "identity":
        colours, key = np.array(MANY)[upgrade.places[rows] % len(MANY)], {f"{side} feature": "#555555"}
    elif (colour, side) == ("first answer", "new"):
        counts = np.bincount(upgrade.outcome, minlength=len(OUTCOMES))
        colours = np.array(OUTCOME_COLOURS)[upgrade.outcome[rows]]
        key = {f"{OUTCOMES[k]} ({count})": OUTCOME_COLOURS[k] for k, count in enumerate(counts)}
    else:
        colours = PALE["old"] if colour == "first answer" else {"old": OLD, "new": NEW}[side]
        key = {f"{side} feature": colours}
    return np.where(np.isin(upgrade.labels[rows], chosen), colours, PALE[side]), key


def lines(upgrade: Upgrade, places: Layout, chosen: np.ndarray) -> np.ndarray:
    """From each chosen star to the middle of the same identity's new features, [K, 2 ends, 2]."""
    labels = upgrade.labels[places.rows]
    stars = places.stars[np.searchsorted(np.unique(labels), chosen)]
    return np.stack([stars, [places.new[labels == label].mean(0) for label in chosen]], axis=1)


def still_map(upgrade: Upgrade, places: Layout, chosen: np.ndarray, colour: str) -> Figure:
    """The map by matplotlib."""
    figure = Figure((7, 5.6), layout="constrained")
    axis = figure.subplots()
    axis.axis("off")
    for side, points in (("old", places.old), ("new", places.new)):
        colours, key = paints(upgrade, places.rows, chosen, side, colour)
        marker = "D" if (colour, side) == ("identity", "new") else "o"
        axis.scatter(*points.T, s=22, c=colours, marker=marker, linewidths=0)
        for text, paint in key.items():
            axis.scatter([], [], s=22, color=paint, marker=marker, label=text)
    ends = lines(upgrade, places, chosen)
    axis.plot(*ends.transpose(2, 1, 0), color=INK, linewidth=0.8, alpha=0.6)
    axis.scatter(*ends[:, 0].T, marker="*", s=150, c=OLD, edgecolors="white", zorder=3, label="prototype")
    for label, star in zip(chosen[:NAMED], ends[:, 0], strict=False):
        axis.annotate(upgrade.name(label), star, (6, 3), textcoords="offset points", fontsize=8)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


TIP = """<div style="width: 160px"><img src="@picture" width="96" style="image-rendering: pixelated"><br>
<b>@name</b>, image @row<br>{side} feature, cosine to its star @{side}_cosine{{0.00}}<br>@outcome</div>"""


def live_map(upgrade: Upgrade, places: Layout, chosen: np.ndarray, colour: str) -> Any:
    """The map by Bokeh: the image of a point stands beside the pointer."""
    from bokeh.models import ColumnDataSource, HoverTool
    from bokeh.plotting import figure

    look = {"height": 560, "sizing_mode": "stretch_width", "match_aspect": True, "toolbar_location": "above"}
    plane = figure(**look, tools="pan,wheel_zoom,reset")
    plane.toolbar.logo = None
    plane.axis.visible = plane.grid.visible = False
    source = ColumnDataSource(tips(upgrade, places.rows))  # one for both: an image is in the page once
    for side, points in (("old", places.old), ("new", places.new)):
        colours, key = paints(upgrade, places.rows, chosen, side, colour)
        for name, values in zip(("x", "y", "colour"), (*points.T, colours), strict=True):
            source.add(values, f"{side}_{name}")
        marker = {"size": 8, "marker": "diamond" if (colour, side) == ("identity", "new") else "circle"}
        dots = plane.scatter(f"{side}_x", f"{side}_y", source=source, color=f"{side}_colour", **marker)
        plane.add_tools(HoverTool(renderers=[dots], tooltips=TIP.format(side=side), limit=2))
        for text, paint in key.items():
            plane.scatter([np.nan], [np.nan], color=paint, legend_label=text, **marker)  # for the key alone
    ends = lines(upgrade, places, chosen)
    plane.multi_line(*ends.transpose(2, 0, 1).tolist(), color=INK, alpha=0.6)
    plane.scatter(
        *ends[:, 0].T, marker="star", size=20, color=OLD, line_color="white", legend_label="prototype"
    )
    names = [upgrade.name(label) if len(chosen) <= NAMED else "" for label in chosen]
    plane.text(*ends[:, 0].T, text=names, x_offset=9, y_offset=-3, text_font_size="12px")
    plane.add_layout(plane.legend[0], "below")
    plane.legend.ncols = 2
    return plane


def tips(upgrade: Upgrade, rows: np.ndarray) -> dict[str, Any]:
    """What stands beside the pointer at each image."""
    own = upgrade.prototypes[upgrade.places[rows]]
    return {
        "picture": [upgrade.pictures[row] for row in rows],
        "name": [upgrade.name(label) for label in upgrade.labels[rows]],
        "outcome": [OUTCOMES[outcome] for outcome in upgrade.outcome[rows]],
        "row": rows,
        "old_cosine": (upgrade.cross[1][rows] * own).sum(1),
        "new_cosine": (upgrade.cross[0][rows] * own).sum(1),
    }


def nearest_star(upgrade: Upgrade) -> tuple[float, float]:
    """Share of the images whose old, and whose new feature lies nearest to its own identity's prototype.

    An image's own old feature is left out of its prototype, or it would vote for itself.

    >>> picture = np.zeros((4, 1, 8, 8), np.uint8)
    >>> old = [[1.0, 0.1], [1.0, -0.1], [0.1, 1.0], [-0.1, 1.0]]
    >>> nearest_star(Upgrade(old, old[2:] + old[:2], [0, 0, 1, 1], picture))
    (1.0, 0.0)
    """
    query, gallery = upgrade.cross
    own, shares = upgrade.places, []
    others = unit_rows(upgrade.means[own] * np.bincount(own)[own, None] - gallery, "other").numpy()
    for features in (gallery, query):
        scores = features @ upgrade.prototypes.T
        scores[np.arange(len(own)), own] = (features * others).sum(1)
        shares.append(float((scores.argmax(1) == own).mean()))
    return tuple(shares)
