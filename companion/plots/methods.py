"""All methods in one picture, with what is uncertain about them. Numbers are fractions, axes per cent."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from compat_lib.evaluation.compatibility import HEADLINE
from compat_lib.evaluation.records import metric_title, shown

from .style import INK, OLD, ORACLE, Bound, Titles, in_percent, legend_outside, method_style

# What lies farther off stands as a number at the edge of the picture: on one scale with the other methods it
# would press them into a corner, the independent model above all.
FAR_BELOW = 0.5  # of old/old, for a cross-test
FAR_LEFT = -0.5  # for an update gain
BOUND = {"color": OLD, "linestyle": "--", "linewidth": 1.4, "label": "old/old: the bound to beat"}

Points = Mapping[str, Mapping[str, Any]]


def self_cross_scatter(
    ax: Axes, points: Points, *, old_old: Bound = None, metric: str = HEADLINE, titles: Titles = None
) -> Axes:
    """Self-test against cross-test, one point a method: up is compatible, right is a good new model.

    A grey staircase joins the methods that no other one beats in both. The same method with the old model at
    query time too is an open marker, straight above its own. A cross-test below half of old/old, the bound of
    the compatibility criterion, is written at the lower edge.

    `points` are method -> {"self", "cross"} and, for error bars, {"self_low", "self_high", "cross_low",
    "cross_high"}, and "asked", new/old with the old query too; those without both values are left out.
    """
    known = _frame(points).dropna(subset=["self", "cross"])
    far = _outside(known["cross"], -np.inf if old_old is None else FAR_BELOW * old_old)
    near = known.drop(index=far)
    heights = near[["cross", "cross_low", "cross_high", "asked"]].assign(bar=old_old).astype(float)
    low, high = (heights.min(axis=None), heights.max(axis=None)) if len(near) else (0.0, 1.0)
    room = max(high - low, 0.05)
    bottom, top = low - (0.25 if len(far) else 0.1) * room, high + 0.1 * room
    for name, point in known.iterrows():
        style, title, outside = method_style(name), (titles or {}).get(name, name), name in far
        x, y = point["self"], bottom + 0.04 * (top - bottom) if outside else point["cross"]
        look = {"color": style["color"], "markeredgecolor": "white", "markersize": 9, "elinewidth": 1.2}
        look |= {"fmt": "v" if outside else style["marker"]}
        label = title + (f": {shown(point['cross'])}, far below" if outside else "")
        bars = {"xerr": _bars(point, "self"), "yerr": None if outside else _bars(point, "cross")}
        # the bars of a dozen methods shall not hide their markers
        ax.errorbar(x, y, **bars, **look, ecolor=(style["color"], 0.5), label=label)
        if np.isfinite(point["asked"]):
            ax.plot([x, x], [y, point["asked"]], color=style["color"], linewidth=0.7, linestyle=":")
            ax.plot(x, point["asked"], **style, markerfacecolor="white", markersize=7, linestyle="")
    front = near.sort_values(["self", "cross"], ascending=False)
    front = front[front["cross"] > front["cross"].shift().cummax().fillna(-1)]
    if len(front) > 1:
        stairs = {"color": "#B5B5B5", "linewidth": 1.6, "zorder": 0}
        ax.step(front["self"], front["cross"], where="pre", **stairs, label="beaten by none in both")
    if "independent" in known.index:
        look = {"color": ORACLE, "linestyle": "--", "linewidth": 1.2, "zorder": 1}
        ax.axvline(known.loc["independent", "self"], **look, label="oracle new/new")
    if old_old is not None:
        ax.axhline(old_old, **BOUND)
        ax.axhspan(bottom, old_old, color=OLD, alpha=0.07, linewidth=0, zorder=0)
    ax.set(ylim=(bottom, top), xlabel=f"self-test new/new, {metric_title(metric)} (%)")
    ax.set_ylabel(f"cross-test new/old, {metric_title(metric)} (%)")
    in_percent(ax.xaxis, ax.yaxis)
    if known["asked"].notna().any():
        look = {"color": INK, "marker": "o", "markerfacecolor": "white", "linestyle": ""}
        ax.plot([], [], **look, label="open: with the old query too")
    legend_outside(ax)
    return ax


def cross_test_dots(
    ax: Axes,
    points: Points,
    *,
    old_old: Bound = None,
    oracle: Bound = None,
    metric: str = HEADLINE,
    titles: Titles = None,
) -> Axes:
    """Cross-test of several ways to query the old gallery, one row each, between old system and oracle.

    `points` are name -> {"cross"} and, for error bars, {"cross_low", "cross_high"}; None is "missing". A blue
    line is the bound of the compatibility criterion, a grey one the oracle's self-test.
    """
    for row, (name, point) in enumerate(_frame(points).iterrows()):
        value, style = point["cross"], method_style(name)
        if not np.isfinite(value):
            ax.text(0.0, row, "missing", va="center", fontsize=10, color="#777777")
            continue
        look = {"fmt": style["marker"], "color": style["color"], "markersize": 9, "capsize": 3}
        ax.errorbar(value, row, xerr=_bars(point, "cross"), **look)
        ax.annotate(shown(value), (value, row), (0, 9), textcoords="offset points", ha="center", fontsize=9)
    known = [value for value in (old_old, oracle) if value is not None]
    ax.set_xlim(-0.04, max([ax.get_xlim()[1], *(1.05 * value for value in known)]))
    if old_old is not None:
        ax.axvline(old_old, **BOUND)
        ax.axvspan(-0.04, old_old, color=OLD, alpha=0.07, linewidth=0, zorder=0)
    if oracle is not None:
        ax.axvline(oracle, color=ORACLE, linestyle="--", linewidth=1.4, label="oracle new/new")
    in_percent(ax.xaxis)
    _rows(ax, points, titles, f"cross-test new/old, {metric_title(metric)} (%)")
    ax.set_ylim(len(points) - 0.5, -0.7)
    if known:
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return ax


def gain_dots(ax: Axes, gains: Points, *, titles: Titles = None, metric: str = HEADLINE) -> Axes:
    """Update gain of every method with its interval: 0 is the old system, 1 is the oracle with full backfill.

    `gains` are method -> {"gain", "gain_low", "gain_high", "criterion"}; a filled marker where the criterion
    holds (True), an open one where it does not; None is "missing". A gain below -0.5 is written at the left
    edge.
    """
    frame = _frame(gains)
    far = _outside(frame["gain"], FAR_LEFT)
    near = frame.loc[frame.index.difference(far), ["gain", "gain_low", "gain_high"]]
    left, right = np.nanmin([near.min(axis=None) - 0.05, -0.1]), np.nanmax([near.max(axis=None) + 0.05, 1.1])
    for row, (name, point) in enumerate(frame.iterrows()):
        value, style = point["gain"], method_style(name)
        if not np.isfinite(value) or name in far:
            ends = shown(value, point["gain_low"], point["gain_high"], percent=False, digits=2)
            white = {"facecolor": "white", "edgecolor": "none", "pad": 2}
            look = {"va": "center", "fontsize": 10, "color": INK, "bbox": white, "zorder": 5}
            ax.text(left + 0.01, row, f"◂ {ends}" if name in far else "missing", **look)
            continue
        look = {"fmt": style["marker"], "color": style["color"], "markersize": 9, "elinewidth": 1.6}
        look["markerfacecolor"] = style["color"] if point["criterion"] is True else "white"
        ax.errorbar(value, row, xerr=_bars(point, "gain"), **look, capsize=3)
    ax.axvline(0.0, color=OLD, linestyle="--", linewidth=1.4)
    ax.axvline(1.0, color=ORACLE, linestyle="--", linewidth=1.4)
    ax.set_xlim(left, right)
    ax.set_title("filled: criterion new/old > old/old holds\nopen: it does not", loc="left")
    about = "(0: old system, 1: oracle with full backfill)"
    _rows(ax, gains, titles, f"update gain, {metric_title(metric)}\n{about}")
    return ax


def _rows(ax: Axes, points: Points, titles: Titles, xlabel: str) -> None:
    ax.set_yticks(range(len(points)), [(titles or {}).get(name, name) for name in points])
    ax.set_ylim(len(points) - 0.5, -0.5)
    ax.set_xlabel(xlabel)
    ax.grid(axis="y", visible=False)


def _frame(points: Points) -> pd.DataFrame:
    """One row a point, nan where there is no number."""
    numbers = [name + end for name in ("self", "cross", "gain", "asked") for end in ("", "_low", "_high")]
    frame = pd.DataFrame([dict(point) for point in points.values()], index=list(points), dtype=object)
    return frame.reindex(columns=[*numbers, "criterion"]).astype(dict.fromkeys(numbers, float))


def _bars(point: pd.Series, name: str) -> np.ndarray | None:
    """Distances below and above the value [2, 1], or None where there is no interval."""
    ends = np.array([[point[name] - point[f"{name}_low"]], [point[f"{name}_high"] - point[name]]])
    return ends.clip(0) if np.isfinite(ends).all() else None


def _outside(values: pd.Series, limit: float) -> pd.Index:
    """Points whose value lies below the limit; none where all do, because nothing is pressed then."""
    below = values.index[values < limit]
    return below if len(below) < values.notna().sum() else below[:0]
