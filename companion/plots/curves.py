"""Curves over a share, an epoch or a false-accept rate. Numbers are fractions, axes per cent."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from compat_lib.evaluation.four_constraints import STATEMENTS
from compat_lib.evaluation.records import metric_title, shown

from .methods import FAR_BELOW
from .style import (
    CROSS,
    INK,
    NEW,
    OLD,
    ORACLE,
    PAIR_COLOURS,
    as_array,
    in_percent,
    legend_below,
    legend_outside,
    method_style,
    say_instead,
    wrapped,
)

# the cross-test beside the old model, then the new model beside the cross-test; full lines: one identity
CONSTRAINT_LOOKS = ((CROSS, "-"), (CROSS, "--"), (NEW, "-"), (NEW, "--"))
SHARE = "gallery re-embedded by the new model (%)"
OTHERS = "#C8C8C8"
VALIDATION = "val/new_new/tar@far=1e-2"
Curves = Mapping[str, tuple]
History = Sequence[Mapping[str, Any]]


def backfill_curve(
    ax: Axes,
    curves: Curves,
    *,
    old_old: float | None = None,
    oracle: float | None = None,
    titles: Mapping[str, str] | None = None,
) -> Axes:
    """New queries against a gallery of which a growing share was re-embedded by the new model.

    Args:
        curves: method -> (shares 0..1, values) or (shares, values, low, high), the last two drawn as a band.
        old_old: the value before the upgrade (old queries, old gallery), a blue line.
        oracle: the oracle's self-test, a grey line: what a full backfill with a free new model would give.
    """
    for name, (shares, values, *band) in curves.items():
        style = method_style(name)
        ax.plot(as_array(shares), as_array(values), label=(titles or {}).get(name, name), **style)
        if band:
            low, high = (as_array(edge).astype(float) for edge in band)
            ax.fill_between(as_array(shares), low, high, color=style["color"], alpha=0.15, linewidth=0)
    lines = ((old_old, OLD, "old/old, before the upgrade"), (oracle, ORACLE, "oracle new/new"))
    for value, colour, label in lines:
        if value is not None and np.isfinite(value):
            ax.axhline(value, color=colour, linestyle="--", linewidth=1.4, label=label, zorder=1)
    ax.set(xlim=(-0.02, 1.02), xlabel=SHARE, ylabel="mAP (%)")
    in_percent(ax.xaxis)
    in_percent(ax.yaxis)
    legend_outside(ax)
    return ax


def first_day(
    ax: Axes, independent: tuple, compatible: tuple, old_old: float, *, title: str, metric: str = "map"
) -> Axes:
    """What an upgrade loses or gains on its first day: a free new model and a compatible one, three curves.

    Args:
        independent, compatible: (shares 0..1, values) of the backfill with each model.
        old_old: the value before the upgrade.
        title: name of the compatible method.
    """
    for (shares, values, *_), colour, words in (
        (independent, ORACLE, "new model, trained independently"),
        (compatible, NEW, f"new model, trained with {title}"),
    ):
        change = float(as_array(values)[0]) - old_old
        label = f"{words}:\n{shown(change, signed=True)} points on the first day"
        ax.plot(as_array(shares), as_array(values), color=colour, linewidth=2.8, marker="o", label=label)
        look = {"arrowstyle": "-|>", "color": colour, "linewidth": 2}
        ax.annotate("", (0, old_old + change), (0, old_old), arrowprops=look)
    ax.axhline(old_old, color=OLD, linewidth=2.8, label="old system, no upgrade")
    ax.set(
        xlim=(-0.02, 1.02), ylim=(0, None), xlabel=SHARE, ylabel=f"{metric_title(metric)} of new queries (%)"
    )
    in_percent(ax.xaxis)
    in_percent(ax.yaxis)
    legend_below(ax, columns=2)
    return ax


def backfill_panels(
    curves: Curves,
    *,
    old_old: float | None = None,
    oracle: float | None = None,
    metric: str = "map",
    titles: Mapping[str, str] | None = None,
) -> Figure:
    """The curves of `backfill_curve` with a panel each, for many methods: its own in front, the others grey.

    Each title gives the values at both ends. A curve that starts below half of old/old does not set the
    scale: it comes in through the lower edge.

    Args: as in `backfill_curve`.
    """
    frames = {
        name: pd.DataFrame(dict(zip(("x", "y", "low", "high"), map(as_array, parts), strict=False))).astype(
            float
        )
        for name, parts in curves.items()
    }
    ends = {
        name: f"{shown(frame['y'].iloc[0])} to {shown(frame['y'].iloc[-1])}" for name, frame in frames.items()
    }
    lines = {"old/old, before the upgrade": (OLD, old_old), "oracle new/new": (ORACLE, oracle)}
    figure = _panels(frames, ends, titles, lines, SHARE, f"{metric_title(metric)} (%)")
    near = [frame["y"] for frame in frames.values() if frame["y"].iloc[0] >= FAR_BELOW * (old_old or 0)]
    known = [*(near or [frame["y"] for frame in frames.values()])]
    known = pd.concat(
        [*known, pd.Series([value for value in (old_old, oracle) if value is not None], dtype=float)]
    )
    room = max(0.08 * (known.max() - known.min()), 0.01)
    for ax in figure.axes:
        ax.set(xlim=(-0.03, 1.03), ylim=(known.min() - room, known.max() + room), xticks=[0, 0.5, 1])
        in_percent(ax.xaxis)
    return figure


def validation_panels(histories: Mapping[str, History], *, titles: Mapping[str, str] | None = None) -> Figure:
    """The curves of `validation_curves` with a panel each, for many methods; each title gives the last value.

    Args: as in `validation_curves`.
    """
    series = {name: history_series(history, VALIDATION) for name, history in histories.items()}
    frames = {name: pd.DataFrame({"x": x, "y": y}) for name, (x, y) in series.items() if len(x)}
    if not frames:
        figure = plt.figure(figsize=(6, 0.6))
        figure.text(0, 0.5, "Too few validation images: no look could measure TAR@FAR=1e-2.")
        return figure
    ends = {name: shown(frame["y"].iloc[-1]) for name, frame in frames.items()}
    figure = _panels(frames, ends, titles, {}, "epoch", _validation_title(VALIDATION))
    for ax in figure.axes:
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    return figure


def _panels(
    frames: Mapping[str, pd.DataFrame],
    ends: Mapping[str, str],
    titles: Mapping[str, str] | None,
    lines: Mapping[str, tuple[str, float | None]],
    xlabel: str,
    ylabel: str,
) -> Figure:
    """Small multiples: one curve in front, all behind it."""
    columns = min(4, len(frames))
    rows = -(-len(frames) // columns)
    fig, axes = plt.subplots(
        rows, columns, sharex=True, sharey=True, squeeze=False, figsize=(2.2 * columns, 2.2 * rows + 0.9)
    )
    names = wrapped(titles or {}, 24)
    lines = {text: (colour, value) for text, (colour, value) in lines.items() if value is not None}
    behind = [frame[["x", "y"]].to_numpy(float) for frame in frames.values()]
    for (name, own), ax in zip(frames.items(), axes.flat, strict=False):
        colour = method_style(name)["color"]
        # One artist for all: a line each would be drawn once a method and panel.
        ax.add_collection(LineCollection(behind, colors=OTHERS, linewidths=0.8, zorder=1))
        ax.plot(own["x"], own["y"], color=colour, linewidth=2.6, zorder=5)
        if "low" in own:
            ax.fill_between(own["x"], own["low"], own["high"], color=colour, alpha=0.2, linewidth=0)
        for line, value in lines.values():
            ax.axhline(value, color=line, linestyle="--", linewidth=1.2, zorder=2)
        ax.set_title(f"{names.get(name, name)}\n{ends[name]}", fontsize=9, loc="left")
        ax.tick_params(labelsize=9)
    in_percent(axes[0, 0].yaxis)
    for k in range(len(frames), axes.size):  # the panel above an empty place is the lowest of its column
        axes.flat[k].remove()
        axes.flat[k - columns].tick_params(labelbottom=True)
    fig.supylabel(ylabel, fontsize=11)
    keys = [Line2D([], [], color=colour, linestyle="--", label=text) for text, (colour, _) in lines.items()]
    keys.append(Line2D([], [], color=OTHERS, linewidth=0.8, label="the other methods"))
    # The label of the positions is the legend's title: a label of the figure would lie upon the legend.
    fig.legend(handles=keys, loc="outside lower center", ncols=3, title=xlabel, title_fontsize=11)
    return fig


def history_series(history: History, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs, counted from one, and values of one column of a history, where it has a value."""
    values = np.array([np.nan if row.get(name) in (None, "") else float(row[name]) for row in history])
    epochs = np.array([float(row["epoch"]) for row in history])
    known = np.isfinite(values)
    # the value behind an epoch is known when it has ended
    return (epochs + (1 if len(epochs) and epochs[0] == 0 else 0))[known], values[known]


def loss_curves(ax: Axes, history: History) -> Axes:
    """Loss terms of one run over its epochs, unweighted as they are logged.

    Args:
        history: rows of history.csv; every column "loss/<term>" becomes a line.
    """
    terms = [name for name in (history[0] if history else {}) if name.startswith("loss/")]
    if len(terms) == 2:  # one term: the total is the same line
        terms = [name for name in terms if name != "loss/total"]
    for term, colour in zip(
        terms, [INK, "#CC6677", "#2A9D8F", "#999933", "#332288", "#882255"] * 2, strict=False
    ):
        label = term.removeprefix("loss/").replace("_", " ")
        ax.plot(*history_series(history, term), color=colour, label=label)
    ax.set(xlabel="epoch", ylabel="loss term, unweighted (nats)")
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_outside(ax)
    return ax


def validation_curves(
    ax: Axes,
    histories: Mapping[str, History],
    metric: str = VALIDATION,
    *,
    titles: Mapping[str, str] | None = None,
) -> Axes:
    """A validation metric over the epochs, one line a method: is the training long enough to be judged?

    Args:
        histories: method -> rows of its history.csv; epochs without the metric are skipped.
        metric: column of the history.
    """
    for name, history in histories.items():
        ax.plot(*history_series(history, metric), label=(titles or {}).get(name, name), **method_style(name))
    ax.set(xlabel="epoch", ylabel=_validation_title(metric))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    in_percent(ax.yaxis)
    legend_outside(ax)
    return ax


def _validation_title(metric: str) -> str:
    pair, name = metric.removeprefix("val/").split("/", 1)
    return f"{pair.replace('_', '/')} {metric_title(name)},\nvalidation (%)"


def constraint_curves(ax: Axes, history: History) -> Axes:
    """Share of held-out pairs that satisfy each of MixBCT's four constraints, over the epochs.

    Args:
        ax: where the history has no such columns (features that cannot be compared) it says so.
        history: rows of history.csv with "val/constraint1/share" to "val/constraint4/share".
    """
    shares = [history_series(history, f"val/constraint{k}/share") for k in (1, 2, 3, 4)]
    if not any(len(epochs) for epochs, _ in shares):
        return say_instead(ax, "no constraints: new and old features cannot be compared while it trains")
    for k, ((epochs, known), (colour, line)) in enumerate(zip(shares, CONSTRAINT_LOOKS, strict=True)):
        label = f"{k + 1}: {STATEMENTS[k]} ({known[-1]:.0%})"
        ax.plot(epochs, known, color=colour, linestyle=line, label=label)
    ax.set(xlabel="epoch", ylabel="share of validation pairs (%)", ylim=(0.0, 1.02))
    in_percent(ax.yaxis)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(ax, columns=1)
    return ax


def roc_curves(
    ax: Axes,
    curves: Mapping[str, tuple[Any, Any]],
    *,
    lowest: float = 1e-4,
) -> Axes:
    """True-accept rate over false-accept rate, the latter on a logarithmic axis.

    Args:
        curves: pair ("old/old", …) or method -> (far, tar), fractions.
        lowest: left end; choose what the number of impostor pairs can resolve.
    """
    for name, (far, tar) in curves.items():
        far, tar = as_array(far), as_array(tar)
        pair = name.replace("_", "/")
        colour = PAIR_COLOURS.get(pair) or method_style(name)["color"]
        label = pair if pair in PAIR_COLOURS else name
        ax.plot(far[far > 0], tar[far > 0], color=colour, label=label, drawstyle="steps-post")
    ax.set(xscale="log", xlim=(lowest, 1.0), ylim=(0.0, 1.02))
    ax.set(xlabel="false-accept rate (FAR, fraction)", ylabel="true-accept rate (TAR, %)")
    in_percent(ax.yaxis)
    legend_outside(ax)
    return ax
