"""Small charts as SVG text: drawn in a millisecond, where matplotlib takes a third of a second."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import numpy as np

INK, GRID = "#1d2430", "#e3e3e3"
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 10, 8, 40


class Chart:
    """A chart with linear axes; what is added later lies on top.

    Args:
        x, y: ends of the axes.
        size: width and height in pixels where there is room; it shrinks with a narrow page.
        xlabel, ylabel: quantity with its unit.
        title: above the chart.
        alt: what it shows, for those who do not see it.
        xticks: value -> text; round numbers when None.

    >>> chart = Chart((0, 2), (0, 1), xlabel="x", ylabel="y", alt="two bins")
    >>> chart.area([0, 1, 2], [1.0, 0.5], "#000").html().count("<path")
    1
    """

    def __init__(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        *,
        size: tuple[int, int] = (400, 240),
        xlabel: str = "",
        ylabel: str = "",
        title: str = "",
        alt: str = "",
        xticks: dict[float, str] | None = None,
    ):
        self.x, self.y, self.size = x, y, size
        self.title, self.alt, self.labels = title, alt, (xlabel, ylabel)
        self.xticks = {tick: f"{tick:g}" for tick in round_numbers(*x)} if xticks is None else xticks
        self.parts: list[str] = []

    def at(self, xs: Sequence[float], ys: Sequence[float]) -> np.ndarray:
        """Pixels [n, 2] of points."""
        width, height = self.size
        across = (np.asarray(xs, float) - self.x[0]) / (self.x[1] - self.x[0])
        up = (np.asarray(ys, float) - self.y[0]) / (self.y[1] - self.y[0])
        left = _LEFT + across * (width - _LEFT - _RIGHT)
        return np.stack([left, height - _BOTTOM - up * (height - _TOP - _BOTTOM)], axis=-1)

    def area(
        self, edges: Sequence[float], heights: Sequence[float], colour: str, fill: float = 0.28
    ) -> Chart:
        """A histogram: `heights` [B] over the bins between `edges` [B + 1]."""
        lefts, rights = self.at(edges[:-1], heights), self.at(edges[1:], heights)
        floor = self.at([edges[0]], [0])[0]
        steps = "".join(f"V{a[1]:.1f}H{b[0]:.1f}" for a, b in zip(lefts, rights, strict=True))
        path = f"M{floor[0]:.1f} {floor[1]:.1f}{steps}V{floor[1]:.1f}"
        self.parts.append(f'<path d="{path}" fill="{colour}" fill-opacity="{fill}" stroke="{colour}"/>')
        return self

    def line(self, xs: Sequence[float], ys: Sequence[float], colour: str, dash: str = "") -> Chart:
        """A line through points; where y is not a number it is interrupted."""
        points = self.at(xs, ys)
        runs = np.split(points, np.flatnonzero(np.isnan(points[:, 1])))
        runs = [run[~np.isnan(run[:, 1])] for run in runs]
        path = "".join("M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in run) for run in runs if len(run))
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"{dashed}/>')
        return self

    def sticks(self, xs: Sequence[float], ys: Sequence[float], colour: str, width: float) -> Chart:
        """Thin bars from zero."""
        ends, floor = self.at(xs, ys), self.at([self.x[0]], [0])[0, 1]
        path = "".join(f"M{a:.1f} {floor:.1f}V{b:.1f}" for a, b in ends)
        self.parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width:.1f}"/>')
        return self

    def marks(self, xs: Sequence[float], ys: Sequence[float]) -> Chart:
        """A small triangle beyond the end of each bar."""
        for (a, b), value in zip(self.at(xs, ys), ys, strict=True):
            down = 1 if value < 0 else -1
            self.parts.append(f'<path d="M{a:.1f} {b + 2 * down:.1f}l5 {8 * down}h-10z" fill="{INK}"/>')
        return self

    def rule(self, *, x: float | None = None, y: float | None = None) -> Chart:
        """A thin line across the chart at a value, dotted when it is upright."""
        xs, ys = ([x, x], self.y) if y is None else (self.x, [y, y])
        (a, b), (c, d) = self.at(xs, ys)
        dots = ' stroke-dasharray="2 3"' if y is None else ""
        self.parts.append(f'<path d="M{a:.1f} {b:.1f}L{c:.1f} {d:.1f}" stroke="{INK}"{dots}/>')
        return self

    def html(self) -> str:
        """The chart with its title."""
        width, height = self.size
        title = f"<p>{html.escape(self.title)}</p>" if self.title else ""
        return (
            f'<div class="cx-chart" style="width:{width}px">{title}<svg viewBox="0 0 {width} {height}" '
            f'role="img" aria-label="{html.escape(self.alt or self.title)}" font-size="12" fill="{INK}">'
            f"{self._frame()}{''.join(self.parts)}</svg></div>"
        )

    def _frame(self) -> str:
        width, height = self.size
        bottom, middle = height - _BOTTOM, (width + _LEFT - _RIGHT) / 2
        parts = []
        for tick, text in self.xticks.items():
            a = self.at([tick], [self.y[0]])[0, 0]
            parts.append(
                f'<text x="{a:.1f}" y="{bottom + 15}" text-anchor="middle">{html.escape(text)}</text>'
            )
        for tick in round_numbers(*self.y):
            b = self.at([self.x[0]], [tick])[0, 1]
            parts.append(
                f'<line x1="{_LEFT}" x2="{width - _RIGHT}" y1="{b:.1f}" y2="{b:.1f}" stroke="{GRID}"/>'
            )
            parts.append(f'<text x="{_LEFT - 5}" y="{b + 4:.1f}" text-anchor="end">{tick:g}</text>')
        xlabel, ylabel = (html.escape(text) for text in self.labels)
        upright = f'transform="translate(12 {(bottom + _TOP) / 2:.0f}) rotate(-90)"'
        parts.append(f'<line x1="{_LEFT}" x2="{width - _RIGHT}" y1="{bottom}" y2="{bottom}" stroke="{INK}"/>')
        parts.append(f'<text x="{middle:.0f}" y="{height - 6}" text-anchor="middle">{xlabel}</text>')
        parts.append(f'<text {upright} text-anchor="middle">{ylabel}</text>')
        return "".join(parts)


def round_numbers(low: float, high: float, wanted: int = 5) -> list[float]:
    """About so many round numbers between two ends.

    >>> round_numbers(0, 130), round_numbers(-0.3, 0.3)
    ([0.0, 50.0, 100.0], [-0.2, 0.0, 0.2])
    """
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * size for size in (1, 2, 5, 10) if power * size >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) + 0.0 for k in range(first, math.floor(high / step + 1e-9) + 1)]


def side_by_side(charts: Sequence[Chart]) -> str:
    """Charts in a row, wrapped where the page is narrow."""
    return f'<div class="cx-charts">{"".join(chart.html() for chart in charts)}</div>'
