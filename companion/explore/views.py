"""What a user sees (neighbours), what a pair of images does (cosines, constraints), and who gets worse."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from companion.explore.features import NO_CROSS, RIGHT, WRONG, Upgrade, spaced
from companion.explore.show import View
from companion.plots.style import INK

QUERIES = 150  # more of them do not change a histogram that one can read
ANSWERS = 8  # images in a strip
EACH = 2  # queries of an identity that changed


def nearest(
    upgrade: Upgrade, query: int, share: float | None, *, order: str = "random"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The nearest gallery images of one query, itself left out; see `neighbour_view`; share None: all is old.

    Returns cosines float [k], falling; rows int [k]; and bool [k], which of them are new entries.

    >>> picture = np.zeros((3, 1, 8, 8), np.uint8)
    >>> toy = Upgrade([[1, 0], [1, 1], [0, 1]], [[1, 0], [0, 1], [1, 1]], [0, 0, 1], picture)
    >>> [nearest(toy, 0, share)[1].tolist() for share in (None, 0.0, 1.0)]
    [[1, 2], [1, 2], [2, 1]]
    """
    fresh = np.zeros(len(upgrade), bool)
    if share is None:
        scores = upgrade.old @ upgrade.old[query]
    else:
        # An entry that is backfilled meets the query as it is, the others in the forms of the cross-test.
        fresh[upgrade.order(order)[: round(share * len(upgrade))]] = True
        asked, gallery = upgrade.cross
        scores = np.where(fresh, upgrade.new @ upgrade.new[query], gallery @ asked[query])
    rows = np.argsort(-scores, kind="stable")
    rows = rows[rows != query][:ANSWERS]
    return scores[rows], rows, fresh[rows]


def neighbour_view(upgrade: Upgrade, query: int, share: float = 0.5, *, order: str = "random") -> View:
    """Nearest images of a query: before the upgrade, on its first day, and while the gallery is backfilled.

    Args:
        query: row of the image that is searched; all other images are the gallery.
        share: fraction of the gallery, 0 to 1, that the new model has embedded again.
        order: which images were embedded first: "random", or "farthest" from the mean of their class.
    """
    found = {"Before: old query, old gallery": nearest(upgrade, query, None)}
    if upgrade.cross is not None:
        later = f"Later: new query, {share:.0%} of the gallery embedded again"
        found["First day: new query, old gallery"] = nearest(upgrade, query, 0.0)
        found[later] = nearest(upgrade, query, share, order=order)
    name = upgrade.name(upgrade.labels[query])
    parts, said = [strip(upgrade, f"Query: image {query}, {name}", [query], [""], [INK])], []
    for title, (scores, rows, fresh) in found.items():
        words = ["new" if new else "old" for new in fresh]
        parts.append(strip(upgrade, title, rows, *judged(upgrade, query, rows, scores, words)))
        right = (upgrade.labels[rows] == upgrade.labels[query]).sum()
        said.append(f"{title.split(':')[0].lower()} {right} ({fresh.sum()} new entries)")
    text = (
        f"{upgrade.title}: right images among the first {ANSWERS}: {', '.join(said)}. The gallery holds "
        f"{(upgrade.labels == upgrade.labels[query]).sum() - 1} other images of {name}."
    )
    return View(text if upgrade.cross else f"{text} {NO_CROSS}", parts)


def judged(
    upgrade: Upgrade, query: int, rows: Any, scores: Any, words: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Captions of answers to a query (their cosine and a word), and frames that say right or wrong."""
    right = upgrade.labels[rows] == upgrade.labels[query]
    told = zip(right, scores, words, strict=True)
    captions = [f"{'✓' if ok else '✗'} {score:.2f} {word}" for ok, score, word in told]
    return captions, [RIGHT if ok else WRONG for ok in right]


_FIGURE = "display: inline-block; width: 84px; margin: 2px; vertical-align: top; text-align: center"


def strip(upgrade: Upgrade, title: str, rows: Any, captions: Sequence[str], frames: Sequence[str]) -> str:
    """Images side by side, a frame and a caption each; they wrap where the page is narrow."""
    names = [html.escape(upgrade.name(label)) for label in upgrade.labels[np.array(rows, int)]]
    figures = [
        f'<figure style="{_FIGURE}"><img src="{upgrade.pictures[row]}" alt="{name}" '
        f'style="width: 68px; image-rendering: pixelated; border: 4px solid {frame}">'
        f'<figcaption style="font-size: 12px">{html.escape(caption)}</figcaption></figure>'
        for row, name, caption, frame in zip(rows, names, captions, frames, strict=True)
    ]
    return f"<p><b>{html.escape(title)}</b></p><div>{''.join(figures)}</div>"


def pair_cosines(upgrade: Upgrade, rows: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Cosines of some queries (rows int [n]) with every image [n, N]; which pairs are same, which unlike."""
    query, gallery = upgrade.cross
    sides = {"old/old": (upgrade.old,) * 2, "new/old": (query, gallery), "new/new": (upgrade.new,) * 2}
    same = upgrade.labels[rows][:, None] == upgrade.labels[None]
    different = ~same
    same[np.arange(len(rows)), rows] = False  # no image is compared with itself
    return {name: a[rows] @ b.T for name, (a, b) in sides.items()}, same, different


def slack(upgrade: Upgrade, rows: np.ndarray) -> list[np.ndarray]:
    """The slack of every pair of these queries (rows, int [n]) with another image, an array a constraint.

    Source: MixBCT (arXiv 2308.06948); the numbers behind the shares of `compat_lib.evaluation.constraints`.
    Positive is satisfied; 1 and 3 hold the pairs of one identity, 2 and 4 the others.
    """
    cosines, same, different = pair_cosines(upgrade, rows)
    before, across, after = cosines.values()
    nearer, closer = across - before, after - across
    return [nearer[same], -nearer[different], closer[same], -closer[different]]


def queries_of(upgrade: Upgrade, identities: int | Sequence[int] | None) -> np.ndarray:
    """At most QUERIES images of the chosen identities, evenly spaced, rows int [n]; see `Upgrade.picked`."""
    rows = np.flatnonzero(np.isin(upgrade.labels, upgrade.picked(identities)))
    return rows[spaced(len(rows), QUERIES)]


def flips(upgrade: Upgrade, label: int | None = None, *, who: str = "lose") -> np.ndarray:
    """Queries whose first answer turned from right to wrong ("lose") or the other way ("gain"), rows int [n].

    Those of one identity, or of all, where the identities that change most come first.

    >>> picture = np.zeros((4, 1, 8, 8), np.uint8)
    >>> old = [[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]
    >>> turned = [[0.0, 1.0], *old[1:]]  # the new model puts image 0 beside 2 and 3
    >>> flips(Upgrade(old, turned, [0, 0, 1, 1], picture)).tolist()
    [0]
    """
    found = np.flatnonzero(upgrade.outcome == {"lose": 1, "gain": 2}[who])
    if label is not None:
        return found[upgrade.labels[found] == label]
    table = upgrade.changes.by_identity  # sorted by the change
    places = dict(zip(table.identities.tolist(), range(len(table.identities)), strict=True))
    sign = 1 if who == "lose" else -1
    return np.array(sorted(found, key=lambda row: sign * places[upgrade.labels[row]]), dtype=np.int64)


def change_view(upgrade: Upgrade, who: str = "lose", count: int = 3) -> View:
    """The change of every identity on the first day; queries of the `count` that "lose" or "gain" most."""
    if upgrade.cross is None:
        return View(NO_CROSS)
    changes, sign = upgrade.changes, {"lose": -1, "gain": 1}[who]
    table = changes.by_identity
    places = np.argsort(-sign * table.difference, kind="stable")[:count]
    places = places[sign * table.difference[places] > 0]
    text = (
        f"{upgrade.title}: of {len(table.identities)} identities {changes.losing:.0%} lose and "
        f"{changes.gaining:.0%} gain mean AP. Of all queries {changes.negative_flips:.1%} had a right first "
        f"answer and have a wrong one now; {changes.positive_flips:.1%} went the other way."
    )
    if not len(places):
        text += f" No identity {who}s."
    parts = [lambda: change_figure(table.difference, places)]
    parts += [flipped(upgrade, place, who) for place in places.tolist()]
    return View(text, parts, lambda: live_changes(upgrade, places))


AXES = ("identities, from the greatest loss to the greatest gain", "mean AP now - before")


def change_figure(difference: np.ndarray, marked: np.ndarray) -> Figure:
    """A bar an identity, the greatest loss on the left; the marked ones with a triangle."""
    figure = Figure((8, 2.8), layout="constrained")
    axis = figure.subplots()
    axis.bar(np.arange(len(difference)), difference, color=np.where(difference < 0, WRONG, RIGHT))
    axis.plot(marked, difference[marked] * 1.08, "v", color=INK, markersize=6)
    axis.set(xlabel=AXES[0], ylabel=AXES[1])
    return figure


def live_changes(upgrade: Upgrade, marked: np.ndarray) -> Any:
    """The same bars by Bokeh; each shows an image of its identity, a flipped query where there is one."""
    from bokeh.models import ColumnDataSource
    from bokeh.plotting import figure

    table, turned = upgrade.changes.by_identity, upgrade.outcome % 3 > 0
    shown = [int(np.lexsort((~turned, upgrade.labels != label))[0]) for label in table.identities]
    columns = {
        "place": np.arange(len(shown)),
        "difference": table.difference,
        "before": table.precision_before,
        "now": table.precision_after,
        "colour": np.where(table.difference < 0, WRONG, RIGHT),
        "picture": [upgrade.pictures[row] for row in shown],
        "name": [upgrade.name(label) for label in table.identities],
    }
    tip = (
        '<img src="@picture" width="96" style="image-rendering: pixelated"><br><b>@name</b><br>'
        "mean AP @before{0.00}, now @now{0.00}"
    )
    look = {"height": 280, "sizing_mode": "stretch_width", "toolbar_location": None, "tools": "hover"}
    bars = figure(**look, tooltips=tip, x_axis_label=AXES[0], y_axis_label=AXES[1])
    bars.vbar("place", width=0.8, top="difference", color="colour", source=ColumnDataSource(columns))
    bars.scatter(marked, 1.08 * table.difference[marked], marker="inverted_triangle", size=9, color=INK)
    return bars


def flipped(upgrade: Upgrade, place: int, who: str) -> str:
    """Some queries of an identity whose first answer flipped: the query, and its answer before and now."""
    table = upgrade.changes.by_identity
    label = int(table.identities[place])
    rows = flips(upgrade, label, who=who)
    title = (
        f"{upgrade.name(label)}: mean AP {table.precision_before[place]:.2f} → "
        f"{table.precision_after[place]:.2f}; {len(rows)} of {table.queries[place]} "
        f"first answers turn {'from right to wrong' if who == 'lose' else 'from wrong to right'}"
    )
    if not len(rows):
        title += ": right images moved further down the list"
    shown, captions, frames = [], [], []
    for query in rows[:EACH]:
        scores, best = np.array([[part[query] for part in parts] for parts in upgrade.first.values()]).T
        told, colours = judged(upgrade, query, best.astype(int), scores, ["before", "now"])
        shown += [query, *best.astype(int)]
        captions += ["query", *told]
        frames += [INK, *colours]
    return strip(upgrade, title, shown, captions, frames)
