"""Many methods, one small panel each: its own curve in front, the others thin and grey behind it.

Fourteen lines in one axis are a tangle in which nobody finds theirs.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from .comparisons import FAR_BELOW
from .curves import history_series
from .style import OLD, ORACLE, as_array, method_style, metric_title

OTHERS = "#C8C8C8"


def panel_grid(count: int, width: float = 6.4) -> tuple[Figure, Sequence[Axes]]:
    """A figure with room for `count` panels of one scale, at most three in a row.

    Args:
        count: panels, at least 1.
        width: of the figure, inches.

    Returns:
        The figure and its axes, row by row; some of the last row may be left over.
    """
    across = min(3, count)
    down = -(-count // across)
    size = (width, 1.4 + 1.45 * down)
    fig, axes = plt.subplots(down, across, figsize=size, sharex=True, sharey=True, squeeze=False)
    return fig, list(axes.flat)


def backfill_panels(
    axes: Sequence[Axes],
    curves: Mapping[str, tuple],
    *,
    old_old: float | None = None,
    oracle: float | None = None,
    metric: str = "map",
    titles: Mapping[str, str] | None = None,
) -> Sequence[Axes]:
    """The curves of `backfill_curve` with a panel each, for many methods.

    Each title gives the values at both ends of the curve. A curve that starts below half of old/old does not
    set the scale: it enters the picture from below, where a small arrow and its first value say so.

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
    drawn = {name: tuple(as_array(part).astype(float) for part in parts) for name, parts in curves.items()}
    ends = {name: f"{values[0]:.2f} to {values[-1]:.2f}" for name, (_, values, *_) in drawn.items()}
    lines = {"old/old, before the upgrade": (OLD, old_old), "oracle new/new": (ORACLE, oracle)}
    _draw(
        axes, drawn, ends, titles or {}, metric_title(metric), lines, "gallery re-embedded by the new model"
    )
    for ax in axes[: len(drawn)]:
        ax.set_xticks([0.0, 0.5, 1.0], ["0 %", "50 %", "100 %"])
        ax.set_xlim(-0.03, 1.03)
        ax.set_ylim(*_scale(drawn, old_old, oracle))
    for ax, (name, (shares, values, *_)) in zip(axes, drawn.items(), strict=False):
        _say_where_it_starts(ax, shares, values, method_style(name)["color"])
    return axes


def _say_where_it_starts(ax: Axes, shares: np.ndarray, values: np.ndarray, colour: str) -> None:
    """A mark on the lower edge where a curve comes in that starts below it; nothing for other curves."""
    bottom = ax.get_ylim()[0]
    inside = np.flatnonzero(values >= bottom)
    if values[0] >= bottom or not len(inside):
        return
    after = inside[0]
    x = np.interp(bottom, values[after - 1 : after + 1], shares[after - 1 : after + 1])
    place = ax.get_xaxis_transform()  # heights from 0, the lower edge, to 1
    mark = {"marker": "^", "markersize": 7, "markeredgecolor": "white", "linestyle": "none"}
    ax.plot(x, 0.05, color=colour, transform=place, zorder=3, **mark)
    side = (
        -1 if x > 0.4 else 1
    )  # left of the curve, which rises to the right, where there is room for the words
    words = ax.annotate(
        f"from {values[0]:.2f}",
        (x, 0.05),
        (7 * side, 0),
        xycoords=place,
        textcoords="offset points",
        ha="right" if side < 0 else "left",
        va="center",
        fontsize=8,
        zorder=4,
    )
    words.set_path_effects([withStroke(linewidth=2.5, foreground="white")])  # above the grey curves


def validation_panels(
    axes: Sequence[Axes],
    histories: Mapping[str, Sequence[Mapping[str, Any]]],
    metric: str = "val/new_new/tar@far=1e-2",
    *,
    titles: Mapping[str, str] | None = None,
) -> Sequence[Axes]:
    """The curves of `validation_curves` with a panel each, for many methods; each title gives the last value.

    Args:
        axes: axes of one figure that share their scales, at least one a method; the others are switched off.
        histories: method -> rows of its history.csv; epochs without the metric are skipped.
        metric: column of the history.
        titles: method -> text above its panel.

    Raises:
        ValueError: "14 curves need as many axes; got 12".
    """
    drawn = {name: history_series(history, metric) for name, history in histories.items()}
    drawn = {name: series for name, series in drawn.items() if len(series[0])}
    ends = {name: f"{values[-1]:.2f}" for name, (_, values) in drawn.items()}
    named = metric_title(metric.removeprefix("val/")) + ", validation"
    _draw(axes, drawn, ends, titles or {}, named, {}, "epoch")
    for ax in axes[: len(drawn)]:
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    return axes


def _draw(
    axes: Sequence[Axes],
    drawn: Mapping[str, tuple[np.ndarray, ...]],
    ends: Mapping[str, str],
    titles: Mapping[str, str],
    values_are: str,
    lines: Mapping[str, tuple[str, float | None]],
    positions_are: str,
) -> None:
    """The panels, the figure's label and its legend, titled with what the positions are."""
    axes = list(axes)
    if len(axes) < len(drawn) or not drawn:
        raise ValueError(f"{len(drawn)} curves need as many axes; got {len(axes)}")
    columns = axes[0].get_gridspec().ncols
    lines = {text: (colour, value) for text, (colour, value) in lines.items() if value is not None}
    for place, (ax, (name, (positions, values, *band))) in enumerate(zip(axes, drawn.items(), strict=False)):
        for other in drawn.values():
            ax.plot(*other[:2], color=OTHERS, linewidth=0.8, zorder=1)
        colour = method_style(name)["color"]
        ax.plot(positions, values, color=colour, linewidth=2.4, zorder=3)
        if band:
            ax.fill_between(positions, *band, color=colour, alpha=0.2, linewidth=0)
        for line, value in lines.values():
            ax.axhline(value, color=line, linestyle="--", linewidth=1.2, zorder=2)
        ax.set_title(f"{titles.get(name, name)}\n{ends[name]}", fontsize=9, loc="left")
        # a panel with nothing below it carries the positions, the first of a row the values
        ax.tick_params(labelsize=9, labelbottom=place + columns >= len(drawn), labelleft=place % columns == 0)
    for ax in axes[len(drawn) :]:
        ax.axis("off")
    figure = axes[0].figure
    figure.supylabel(values_are, fontsize=11)
    keys = [Line2D([], [], color=colour, linestyle="--", label=text) for text, (colour, _) in lines.items()]
    keys.append(Line2D([], [], color=OTHERS, linewidth=0.8, label="the other methods"))
    # The label of the positions is the legend's title: a label of the figure would lie upon the legend.
    figure.legend(handles=keys, loc="outside lower center", ncols=2, title=positions_are, title_fontsize=11)


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
