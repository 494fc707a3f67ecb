"""The marks of a map as HTML: dots and stars with an image that a style sheet shows, without any script."""

from __future__ import annotations

import html
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from companion.explore.layout import Layout
from companion.explore.looks import MAP
from companion.explore.markup import RIGHT, WRONG, key, legend, sprite
from companion.explore.upgrade import OUTCOMES, Upgrade

COLOURS = ("model", "identity", "first answer")
WIDTH, HEIGHT = 1000, 700  # of the plane, in its own units
NAMED = 40  # up to so many identities have their names in the map
_PALETTE = (
    *("#332288", "#117733", "#882255", "#AA4499", "#2A9D8F"),
    *("#999933", "#661100", "#5F6B8A", "#CC6677", "#222222"),
)
_OUTCOME_COLOURS = ("#9AA3AE", WRONG, RIGHT, "#222222")  # in the order of OUTCOMES
_PALE = {"old": "#BFD9EA", "new": "#F8D8B8"}
_STAR = "M0-10 2.4-3.2 9.5-3.1 3.8 1.2 5.9 8.1 0 4-5.9 8.1-3.8 1.2-9.5-3.1-2.4-3.2Z"


def map_legend(colour: str, upgrade: Upgrade) -> str:
    """What colours and shapes mean, with counts where the colour tells what happened."""
    from companion.plots.style import NEW, OLD

    star = f'<svg viewBox="-11 -11 22 22" aria-hidden="true"><path fill="{OLD}" d="{_STAR}"/></svg> '
    keys = [f"{star}prototype: mean of an identity's old features; its line leads to that of the new ones"]
    if colour == "model":
        keys = [key(OLD, "old feature"), key(NEW, "new feature"), *keys]
    elif colour == "identity":
        keys = [key("#555", "old feature"), key("#555", "new feature", ring=True), *keys]
    else:
        counts = np.bincount(upgrade.outcome, minlength=len(OUTCOMES))
        named = zip(_OUTCOME_COLOURS, OUTCOMES, counts, strict=True)
        total = len(upgrade)
        keys = [
            key(_PALE["old"], "old feature"),
            *(key(c, f"{a} ({n} of {total})") for c, a, n in named),
            *keys,
        ]
    return legend(keys)


class Plane:
    """The plane with its marks.

    Args:
        upgrade: the features and images.
        places: where everything lies.
        labels: the identities that are chosen.
        colour: one of COLOURS.
    """

    def __init__(self, upgrade: Upgrade, places: Layout, labels: np.ndarray, colour: str):
        self.upgrade, self.labels, self.colour = upgrade, labels, colour
        self.rows, self.star_labels = places.rows, places.labels
        self.row_labels = upgrade.labels[places.rows]
        self.chosen = np.flatnonzero(np.isin(self.row_labels, labels))
        self.names = {label: html.escape(upgrade.name(label)) for label in labels.tolist()}
        self.points = _in_plane(places)
        address, self.columns, rows = sprite(upgrade.thumbnails[self.rows[self.chosen]])
        self.name = f"cx-m{zlib.crc32(address.encode()):08x}"  # two maps on one page have two pictures
        self.style = (
            f".{self.name}{{--columns:{self.columns};--rows:{rows}}}"
            f".{self.name} i:hover::before,.{self.name} i:focus::before{{background-image:url({address})}}"
        )

    def html(self) -> str:
        """The plane as one piece of HTML with its own style."""
        what = f"Map of {len(self.chosen)} images of {len(self.labels)} identities; the numbers stand below."
        marks = "".join([*self._dots(), *self._stars()])
        return (
            f"<style>{MAP}{self.style}</style>"
            f'<div class="cx-plane {self.name}" role="group" aria-label="{what}">'
            f"{self._ground()}{marks}</div>"
        )

    def _ground(self) -> str:
        """Pale dots of the identities that are not chosen, and a line from each star to its new features."""
        others = np.setdiff1d(np.arange(len(self.rows)), self.chosen)
        paths = [
            f'<path stroke="{pale}" stroke-width="7" stroke-linecap="round" d="'
            + "".join(f"M{x:.0f} {y:.0f}h0" for x, y in self.points[side][others])
            + '"/>'
            for side, pale in _PALE.items()
            if len(others)
        ]
        lines = ""
        for label in self.labels:
            x, y = self._star(label)
            end = self.points["new"][self.row_labels == label].mean(0)
            lines += f"M{x:.0f} {y:.0f}L{end[0]:.0f} {end[1]:.0f}"
        paths.append(f'<path stroke="#222" stroke-width="1.2" opacity=".5" d="{lines}"/>')
        return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" fill="none" aria-hidden="true">{"".join(paths)}</svg>'

    def _star(self, label: int) -> np.ndarray:
        return self.points["stars"][np.searchsorted(self.star_labels, label)]

    def _dots(self) -> Iterator[str]:
        upgrade, chosen = self.upgrade, self.chosen
        own = upgrade.prototypes[np.searchsorted(upgrade.identities, upgrade.labels)]
        names = [self.names[label] for label in self.row_labels[chosen].tolist()]
        rows = self.rows[chosen].tolist()
        ends = [""] * len(rows)
        if self.colour == "first answer":
            ends = [f"\n{OUTCOMES[outcome]}" for outcome in upgrade.outcome[rows].tolist()]
        for side, form in (("old", upgrade.cross[1]), ("new", upgrade.cross[0])):
            cosines = (form[rows] * own[rows]).sum(1).tolist()
            points = self.points[side][chosen].tolist()
            paints, ring = self._paints(side)
            told = zip(points, names, rows, cosines, ends, paints, strict=True)
            for place, (point, name, row, cosine, end, paint) in enumerate(told):
                said = f"{name}, image {row}\n{side} feature\ncosine to its star {cosine:.2f}{end}"
                yield self._mark(point, place, said, paint, "h" if ring else "") + "</i>"

    def _stars(self) -> Iterator[str]:
        from companion.plots.style import OLD

        upgrade, gallery = self.upgrade, self.upgrade.cross[1]
        for place, label in enumerate(self.labels.tolist()):
            own = np.flatnonzero(self.row_labels[self.chosen] == label)
            prototype = upgrade.prototypes[np.searchsorted(upgrade.identities, label)]
            cosines = gallery[self.rows[self.chosen[own]]] @ prototype
            said = f"{self.names[label]}\nthe image nearest to its star, cosine {cosines.max():.2f}"
            colour = OLD if self.colour != "identity" else _PALETTE[place % len(_PALETTE)]
            shape = f'<path d="{_STAR}" fill="{colour}" stroke="#fff" stroke-width="1"/>'
            name = f"<b>{self.names[label]}</b>" if len(self.labels) <= NAMED else ""
            svg = f'<svg viewBox="-11 -11 22 22" aria-hidden="true">{shape}</svg>'
            mark = self._mark(self._star(label), int(own[cosines.argmax()]), said, "", "s")
            yield mark + svg + name + "</i>"

    def _mark(self, point: Sequence[float], place: int, said: str, paint: str, kind: str) -> str:
        """An opened mark; its image opens towards the middle, where there is room. `said` is escaped."""
        x, y = 100 * point[0] / WIDTH, 100 * point[1] / HEIGHT
        kinds = f"{kind}{' l' if x > 50 else ''}{' u' if y > 50 else ''}"
        # A thousand stops of the tabulator key would be a trap: dots take the focus by a click only.
        reached = f'tabindex="0" role="img" aria-label="{said}"' if kind == "s" else 'tabindex="-1"'
        return (
            f'<i class="{kinds}" {reached} style="left:{x:.2f}%;top:{y:.2f}%;{paint}'
            f'--x:{place % self.columns};--y:{place // self.columns}" data-t="{said}">'
        )

    def _paints(self, side: str) -> tuple[list[str], bool]:
        """The colour of every chosen dot of a side as its style, and whether they are rings."""
        from companion.plots.style import NEW, OLD

        if self.colour == "identity":
            places = np.searchsorted(self.labels, self.row_labels[self.chosen])
            colours = [_PALETTE[place % len(_PALETTE)] for place in places.tolist()]
            ring = side == "new"
            return [
                f"background:{c};border-color:{c};" if ring else f"background:{c};" for c in colours
            ], ring
        colours = [{"old": OLD, "new": NEW}[side]] * len(self.chosen)
        if self.colour == "first answer":
            outcomes = self.upgrade.outcome[self.rows[self.chosen]].tolist()
            colours = [_PALE["old"] if side == "old" else _OUTCOME_COLOURS[outcome] for outcome in outcomes]
        return [f"background:{colour};" for colour in colours], False


def _in_plane(places: Layout) -> dict[str, np.ndarray]:
    """Places in units of the plane, one scale for both directions."""
    parts = {"old": places.old, "new": places.new, "stars": places.stars}
    every = np.concatenate(list(parts.values()))
    low, high = every.min(0), every.max(0)
    scale = 0.92 * min(WIDTH / max(high[0] - low[0], 1e-9), HEIGHT / max(high[1] - low[1], 1e-9))
    turned = np.array([scale, -scale])  # upwards on a page is downwards in its numbers
    return {
        name: (part - (low + high) / 2) * turned + (WIDTH / 2, HEIGHT / 2) for name, part in parts.items()
    }
