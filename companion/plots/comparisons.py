"""All methods in one picture, with what is uncertain about them."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from .style import INK, OLD, ORACLE, legend_outside, method_style, metric_title

# What lies farther off than this is drawn at the edge of the picture, because on one scale with the other
# methods it would press them into a corner: the independent model, above all.
FAR_BELOW = 0.5  # of old/old, for a cross-test
FAR_LEFT = -0.5  # for an update gain
EQUAL = (
    5e-4  # points nearer than this in both directions lie upon each other: one marker would hide the other
)


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _bars(point: Mapping[str, Any], name: str) -> np.ndarray | None:
    """Distances below and above the value [2, 1], or None where there is no interval."""
    value, low, high = (_number(point.get(key)) for key in (name, f"{name}_low", f"{name}_high"))
    if not np.isfinite([low, high]).all():
        return None
    return np.array([[max(value - low, 0.0)], [max(high - value, 0.0)]])


def _far_off(points: Mapping[str, Mapping[str, Any]], name: str, limit: float) -> list[str]:
    """Points whose value lies below the limit; none where all do, because nothing is pressed then."""
    known = {key: value for key in points if np.isfinite(value := _number(points[key].get(name)))}
    below = [key for key, value in known.items() if value < limit]
    return below if len(below) < len(known) else []


def _reach(
    points: Mapping[str, Mapping[str, Any]], name: str, without: Collection[str], *others: float | None
) -> tuple[float, float]:
    """Lowest and highest end of a value with its bars, over the points that are drawn where they are."""
    ends = [
        _number(point.get(key))
        for method, point in points.items()
        for key in (name, f"{name}_low", f"{name}_high")
        if method not in without
    ]
    known = [end for end in (*ends, *map(_number, others)) if np.isfinite(end)]
    return (min(known), max(known)) if known else (0.0, 1.0)


def _off_the_axis(
    points: Mapping[str, Mapping[str, Any]],
    name: str,
    limit: float,
    ends: Callable[[float, float, bool], tuple[float, float]],
    *others: float | None,
) -> tuple[list[str], float, float]:
    """Points for which the axis has no room, and both ends of the axis.

    Args:
        ends: gives the ends of the axis from those of what is drawn at its place, and whether a point is not.
    """
    strangers = _far_off(points, name, limit)
    while True:
        low, high = ends(*_reach(points, name, strangers, *others), bool(strangers))
        outside = [key for key in strangers if _number(points[key].get(name)) < low]
        if len(outside) == len(strangers):
            return strangers, low, high
        strangers = outside


def _met(points: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """The first of the points that lie upon each other -> all of them, itself included."""
    groups: dict[str, list[str]] = {}
    for name, point in points.items():
        place = np.array([point["self"], point["cross"]])
        for first, names in groups.items():
            if (np.abs(place - [points[first]["self"], points[first]["cross"]]) < EQUAL).all():
                names.append(name)
                break
        else:
            groups[name] = [name]
    return groups


def self_cross_scatter(
    ax: Axes,
    points: Mapping[str, Mapping[str, Any]],
    *,
    old_old: float | None = None,
    metric: str = "tar@far=1e-3",
    titles: Mapping[str, str] | None = None,
) -> Axes:
    """Self-test against cross-test, one point a method: up is compatible, right is a good new model.

    A cross-test below half of old/old is drawn at the lower edge, with an arrow and its value, unless the
    axis has room for it anyway. Methods that give the same point share one marker, whose text in the legend
    names them all.

    Args:
        ax: axis to draw on.
        points: method -> {"self", "cross"} and, for error bars, {"self_low", "self_high", "cross_low",
            "cross_high"}; points without both values are left out.
        old_old: the bound of the compatibility criterion, a blue line with the ground below it shaded.
        metric: name of the metric, for the axes.
        titles: method -> text of the legend.
    """
    known = {
        name: point
        for name, point in points.items()
        if np.isfinite([_number(point.get("self")), _number(point.get("cross"))]).all()
    }

    def ends(low: float, high: float, beyond: bool) -> tuple[float, float]:
        room = max(high - low, 0.05)
        return (low - 0.3 * room if beyond else min(low - 0.05 * room, -0.02)), high + 0.1 * room

    limit = -np.inf if old_old is None else FAR_BELOW * old_old
    strangers, bottom, top = _off_the_axis(known, "cross", limit, ends, old_old)
    edge = bottom + 0.07 * (top - bottom)
    drawn = _met(known)
    for name, met in drawn.items():
        point, style = known[name], method_style(name)
        ax.errorbar(
            point["self"],
            edge if name in strangers else point["cross"],
            xerr=_bars(point, "self"),
            yerr=None if name in strangers else _bars(point, "cross"),
            fmt=style["marker"],
            color=style["color"],
            ecolor=(style["color"], 0.5),  # the bars of a dozen methods shall not hide their markers
            markeredgecolor="white",
            markersize=9,
            elinewidth=1.2,
            zorder=3 if style["marker"] in "PX*" else 2,  # thin ones above, where a neighbour would hide them
            label="\n= ".join((titles or {}).get(one, one) for one in met),
        )
    if "independent" in known:
        oracle = known["independent"]["self"]
        ax.axvline(oracle, color=ORACLE, linestyle="--", linewidth=1.2, zorder=1, label="oracle new/new")
    ax.set_ylim(bottom, top)
    left, right = ax.get_xlim()
    margin = max(0.0, 0.1 - (right - left) / 2)  # methods a hair apart shall look a hair apart
    ax.set_xlim(left - margin, right + margin)
    for row, name in enumerate(one for one in strangers if one in drawn):
        x = _number(known[name]["self"])
        side = -1 if x > sum(ax.get_xlim()) / 2 else 1  # where there is room for the text
        ax.annotate("", (x, bottom), (x, edge), arrowprops={"arrowstyle": "-|>", "color": INK}, zorder=5)
        ax.annotate(
            f"{_number(known[name]['cross']):.3f}, far below",
            (x, edge),
            (12 * side, 5 + 12 * row),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            fontsize=9,
        )
    if old_old is not None:
        ax.axhline(old_old, color=OLD, linestyle="--", linewidth=1.4, label="old/old: the bound to beat")
        ax.axhspan(bottom, old_old, color=OLD, alpha=0.07, linewidth=0, zorder=0)
    ax.set_xlabel(f"self-test new/new, {metric_title(metric)}")
    ax.set_ylabel(f"cross-test new/old, {metric_title(metric)}")
    legend_outside(ax)
    return ax


def cross_test_dots(
    ax: Axes,
    points: Mapping[str, Mapping[str, Any]],
    *,
    old_old: float | None = None,
    oracle: float | None = None,
    metric: str = "tar@far=1e-3",
    titles: Mapping[str, str] | None = None,
) -> Axes:
    """Cross-test of several ways to query the old gallery, one row each, between old system and oracle.

    Args:
        ax: axis to draw on.
        points: name -> {"cross"} and, for error bars, {"cross_low", "cross_high"}; values that are None are
            written as "missing".
        old_old: the bound of the compatibility criterion, a blue line with the ground left of it shaded.
        oracle: the oracle's self-test, a grey line.
        metric: name of the metric, for the axis.
        titles: name -> text beside its row.
    """
    for row, (name, point) in enumerate(points.items()):
        value, style = _number(point.get("cross")), method_style(name)
        if not np.isfinite(value):
            ax.text(0.0, row, "missing", va="center", fontsize=10, color="#777777")
            continue
        bars = _bars(point, "cross")
        ax.errorbar(value, row, xerr=bars, fmt=style["marker"], color=style["color"], markersize=9, capsize=3)
        ax.annotate(f"{value:.3f}", (value, row), (0, 9), textcoords="offset points", ha="center", fontsize=9)
    known = [value for value in (old_old, oracle) if value is not None]
    ax.set_xlim(-0.04, max([ax.get_xlim()[1], *(1.05 * value for value in known)]))
    if old_old is not None:
        ax.axvline(old_old, color=OLD, linestyle="--", linewidth=1.4, label="old/old: the bound to beat")
        ax.axvspan(-0.04, old_old, color=OLD, alpha=0.07, linewidth=0, zorder=0)
    if oracle is not None:
        ax.axvline(oracle, color=ORACLE, linestyle="--", linewidth=1.4, label="oracle new/new")
    ax.set_yticks(range(len(points)), [(titles or {}).get(name, name) for name in points])
    ax.set_ylim(len(points) - 0.5, -0.7)
    ax.set_xlabel(f"cross-test new/old, {metric_title(metric)}")
    ax.grid(axis="y", visible=False)
    if known:
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return ax


def gain_dots(
    ax: Axes,
    gains: Mapping[str, Mapping[str, Any]],
    *,
    titles: Mapping[str, str] | None = None,
    metric: str = "tar@far=1e-3",
) -> Axes:
    """Update gain of every method with its interval: 0 is the old system, 1 is the oracle with full backfill.

    A gain below -0.5 is drawn at the left edge, with an arrow, its value and its interval, unless the axis
    has room for it anyway.

    Args:
        ax: axis to draw on.
        gains: method -> {"gain", "gain_low", "gain_high", "criterion"}; a filled marker where the criterion
            holds (True), an open one where it does not. A gain of None is written as "missing".
        titles: method -> text beside its row.
        metric: name of the metric, for the axis.
    """

    def ends(low: float, high: float, beyond: bool) -> tuple[float, float]:
        left, right = min(low - 0.05, -0.1), max(high + 0.05, 1.1)
        return (left - 0.1 * (right - left) if beyond else left), right

    strangers, left, right = _off_the_axis(gains, "gain", FAR_LEFT, ends)
    edge = left + 0.06 * (right - left)
    for row, (name, point) in enumerate(gains.items()):
        value = _number(point.get("gain"))
        if not np.isfinite(value):
            ax.text(0.02, row, "missing", va="center", fontsize=10, color="#777777")
            continue
        style, stranger = method_style(name), name in strangers
        ax.errorbar(
            edge if stranger else value,
            row,
            xerr=None if stranger else _bars(point, "gain"),
            fmt=style["marker"],
            color=style["color"],
            markerfacecolor=style["color"] if point.get("criterion") else "white",
            markersize=9,
            elinewidth=1.6,
            capsize=3,
        )
        if stranger:
            ends = _number(point.get("gain_low")), _number(point.get("gain_high"))
            interval = f" [{ends[0]:.2f}, {ends[1]:.2f}]" if np.isfinite(ends).all() else ""
            ax.annotate("", (left, row), (edge, row), arrowprops={"arrowstyle": "-|>", "color": INK})
            ax.annotate(
                f"{value:.2f}{interval}",
                (edge, row),
                (10, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
                # Wide enough that the dashes of the line at zero do not read as part of a letter.
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 4},
                zorder=5,
            )
    ax.axvline(0.0, color=OLD, linestyle="--", linewidth=1.4)
    ax.axvline(1.0, color=ORACLE, linestyle="--", linewidth=1.4)
    ax.set_yticks(range(len(gains)), [(titles or {}).get(name, name) for name in gains])
    ax.set_ylim(len(gains) - 0.5, -0.5)
    ax.set_xlim(left, right)
    ax.set_xlabel(f"update gain, {metric_title(metric)}\n(0: old system, 1: oracle with full backfill)")
    ax.set_title("filled: criterion new/old > old/old holds; open: it does not", loc="left")
    ax.grid(axis="y", visible=False)
    return ax
