"""All methods in one picture, with what is uncertain about them. Numbers are fractions, axes per cent."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from compat_lib.evaluation.records import metric_title, shown

from .style import INK, OLD, ORACLE, in_percent, legend_outside, method_style

# What lies farther off stands as a number at the edge of the picture: on one scale with the other methods it
# would press them into a corner, the independent model above all.
FAR_BELOW = 0.5  # of old/old, for a cross-test
FAR_LEFT = -0.5  # for an update gain

Points = Mapping[str, Mapping[str, Any]]


def self_cross_scatter(
    ax: Axes,
    points: Points,
    *,
    old_old: float | None = None,
    metric: str = "tar@far=1e-3",
    titles: Mapping[str, str] | None = None,
) -> Axes:
    """Self-test against cross-test, one point a method: up is compatible, right is a good new model.

    Args:
        points: method -> {"self", "cross"} and, for error bars, {"self_low", "self_high", "cross_low",
            "cross_high"}; points without both values are left out. A cross-test below half of old/old is
            written at the lower edge.
        old_old: the bound of the compatibility criterion, a blue line with the ground below it shaded.
    """
    known = {name: p for name, p in points.items() if np.isfinite(_number(p, "self") + _number(p, "cross"))}
    far = _outside(known, "cross", -np.inf if old_old is None else FAR_BELOW * old_old)
    low, high = _reach({name: p for name, p in known.items() if name not in far}, "cross", old_old)
    room = max(high - low, 0.05)
    bottom, top = low - (0.25 if far else 0.1) * room, high + 0.1 * room
    for name, point in known.items():
        style, title = method_style(name), (titles or {}).get(name, name)
        outside = name in far
        ax.errorbar(
            point["self"],
            bottom + 0.04 * (top - bottom) if outside else point["cross"],
            xerr=_bars(point, "self"),
            yerr=None if outside else _bars(point, "cross"),
            fmt="v" if outside else style["marker"],
            color=style["color"],
            ecolor=(style["color"], 0.5),  # the bars of a dozen methods shall not hide their markers
            markeredgecolor="white",
            markersize=9,
            elinewidth=1.2,
            label=title + (f": {shown(point['cross'])}, far below" if outside else ""),
        )
    if "independent" in known:
        oracle = known["independent"]["self"]
        ax.axvline(oracle, color=ORACLE, linestyle="--", linewidth=1.2, zorder=1, label="oracle new/new")
    if old_old is not None:
        ax.axhline(old_old, color=OLD, linestyle="--", linewidth=1.4, label="old/old: the bound to beat")
        ax.axhspan(bottom, old_old, color=OLD, alpha=0.07, linewidth=0, zorder=0)
    ax.set_ylim(bottom, top)
    ax.set_xlabel(f"self-test new/new, {metric_title(metric)} (%)")
    ax.set_ylabel(f"cross-test new/old, {metric_title(metric)} (%)")
    in_percent(ax.xaxis)
    in_percent(ax.yaxis)
    legend_outside(ax)
    return ax


def cross_test_dots(
    ax: Axes,
    points: Points,
    *,
    old_old: float | None = None,
    oracle: float | None = None,
    metric: str = "tar@far=1e-3",
    titles: Mapping[str, str] | None = None,
) -> Axes:
    """Cross-test of several ways to query the old gallery, one row each, between old system and oracle.

    Args:
        points: name -> {"cross"} and, for error bars, {"cross_low", "cross_high"}; None is "missing".
        old_old: the bound of the compatibility criterion, a blue line with the ground left of it shaded.
        oracle: the oracle's self-test, a grey line.
    """
    for row, (name, point) in enumerate(points.items()):
        value, style = _number(point, "cross"), method_style(name)
        if not np.isfinite(value):
            ax.text(0.0, row, "missing", va="center", fontsize=10, color="#777777")
            continue
        bars = _bars(point, "cross")
        ax.errorbar(value, row, xerr=bars, fmt=style["marker"], color=style["color"], markersize=9, capsize=3)
        ax.annotate(shown(value), (value, row), (0, 9), textcoords="offset points", ha="center", fontsize=9)
    known = [value for value in (old_old, oracle) if value is not None]
    ax.set_xlim(-0.04, max([ax.get_xlim()[1], *(1.05 * value for value in known)]))
    if old_old is not None:
        ax.axvline(old_old, color=OLD, linestyle="--", linewidth=1.4, label="old/old: the bound to beat")
        ax.axvspan(-0.04, old_old, color=OLD, alpha=0.07, linewidth=0, zorder=0)
    if oracle is not None:
        ax.axvline(oracle, color=ORACLE, linestyle="--", linewidth=1.4, label="oracle new/new")
    in_percent(ax.xaxis)
    _rows(ax, points, titles, f"cross-test new/old, {metric_title(metric)} (%)")
    ax.set_ylim(len(points) - 0.5, -0.7)
    if known:
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return ax


def gain_dots(
    ax: Axes,
    gains: Points,
    *,
    titles: Mapping[str, str] | None = None,
    metric: str = "tar@far=1e-3",
) -> Axes:
    """Update gain of every method with its interval: 0 is the old system, 1 is the oracle with full backfill.

    Args:
        gains: method -> {"gain", "gain_low", "gain_high", "criterion"}; a filled marker where the criterion
            holds (True), an open one where it does not; None is "missing". A gain below -0.5 is written at
            the left edge.
    """
    far = _outside(gains, "gain", FAR_LEFT)
    low, high = _reach({name: point for name, point in gains.items() if name not in far}, "gain")
    left, right = min(low - 0.05, -0.1), max(high + 0.05, 1.1)
    for row, (name, point) in enumerate(gains.items()):
        value, style = _number(point, "gain"), method_style(name)
        if not np.isfinite(value) or name in far:
            ends = (_number(point, "gain"), _number(point, "gain_low"), _number(point, "gain_high"))
            text = f"◂ {shown(*ends, percent=False, digits=2)}" if name in far else "missing"
            white = {"facecolor": "white", "edgecolor": "none", "pad": 2}
            ax.text(left + 0.01, row, text, va="center", fontsize=10, color=INK, bbox=white, zorder=5)
            continue
        ax.errorbar(
            value,
            row,
            xerr=_bars(point, "gain"),
            fmt=style["marker"],
            color=style["color"],
            markerfacecolor=style["color"] if point.get("criterion") else "white",
            markersize=9,
            elinewidth=1.6,
            capsize=3,
        )
    ax.axvline(0.0, color=OLD, linestyle="--", linewidth=1.4)
    ax.axvline(1.0, color=ORACLE, linestyle="--", linewidth=1.4)
    ax.set_xlim(left, right)
    ax.set_title("filled: criterion new/old > old/old holds; open: it does not", loc="left")
    _rows(
        ax,
        gains,
        titles,
        f"update gain, {metric_title(metric)}\n(0: old system, 1: oracle with full backfill)",
    )
    return ax


def _rows(ax: Axes, points: Points, titles: Mapping[str, str] | None, xlabel: str) -> None:
    ax.set_yticks(range(len(points)), [(titles or {}).get(name, name) for name in points])
    ax.set_ylim(len(points) - 0.5, -0.5)
    ax.set_xlabel(xlabel)
    ax.grid(axis="y", visible=False)


def _number(point: Mapping[str, Any], name: str) -> float:
    value = point.get(name)
    return float("nan") if value is None else float(value)


def _bars(point: Mapping[str, Any], name: str) -> np.ndarray | None:
    """Distances below and above the value [2, 1], or None where there is no interval."""
    value, low, high = (_number(point, name + end) for end in ("", "_low", "_high"))
    return np.array([[max(value - low, 0)], [max(high - value, 0)]]) if np.isfinite(high - low) else None


def _outside(points: Points, name: str, limit: float) -> set[str]:
    """Points whose value lies below the limit; none where all do, because nothing is pressed then."""
    below = {key for key, point in points.items() if _number(point, name) < limit}
    return (
        below if len(below) < sum(np.isfinite(_number(point, name)) for point in points.values()) else set()
    )


def _reach(points: Points, name: str, *others: float | None) -> tuple[float, float]:
    """Lowest and highest end of a value with its bars."""
    ends = [_number(point, name + end) for point in points.values() for end in ("", "_low", "_high")]
    known = [end for end in (*ends, *(o for o in others if o is not None)) if np.isfinite(end)]
    return (min(known), max(known)) if known else (0.0, 1.0)
