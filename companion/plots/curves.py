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

from . import style
from .methods import FAR_BELOW
from .style import Bound, Titles, in_percent, legend_below, legend_outside, method_style, say_instead, wrapped

# the cross-test beside the old model, then the new model beside the cross-test; full lines: one identity
CONSTRAINT_LOOKS = ((style.CROSS, "-"), (style.CROSS, "--"), (style.NEW, "-"), (style.NEW, "--"))
TERM_COLOURS = [style.INK, "#CC6677", "#2A9D8F", "#999933", "#332288", "#882255"]
SHARE = "gallery re-embedded by the new model (%)"
OTHERS = "#C8C8C8"
VALIDATION = "val/new_new/tar@far=1e-2"
Curves = Mapping[str, tuple]
History = pd.DataFrame | Sequence[Mapping[str, Any]]  # history.csv, or its rows


def _references(old_old: Bound, oracle: Bound) -> dict[str, tuple[float, str]]:
    """What an upgrade is compared with, as far as it is known: label -> value and colour."""
    lines = {"old/old, before the upgrade": (old_old, style.OLD), "oracle new/new": (oracle, style.ORACLE)}
    return {label: line for label, line in lines.items() if line[0] is not None and np.isfinite(line[0])}


def backfill_curve(
    ax: Axes, curves: Curves, *, old_old: Bound = None, oracle: Bound = None, titles: Titles = None
) -> Axes:
    """New queries against a gallery of which a growing share was re-embedded by the new model.

    `curves` are method -> (shares 0..1, values) or (shares, values, low, high), the last two drawn as a band.
    """
    for name, (shares, *values) in curves.items():
        look, (mean, *band) = method_style(name), np.array(values, float)
        ax.plot(shares, mean, label=(titles or {}).get(name, name), **look)
        if band:
            ax.fill_between(shares, *band, color=look["color"], alpha=0.15, linewidth=0)
    for label, (value, colour) in _references(old_old, oracle).items():
        ax.axhline(value, color=colour, linestyle="--", linewidth=1.4, label=label, zorder=1)
    ax.set(xlim=(-0.02, 1.02), xlabel=SHARE, ylabel="mAP (%)")
    in_percent(ax.xaxis, ax.yaxis)
    legend_outside(ax)
    return ax


def first_day(ax: Axes, independent: tuple, compatible: tuple, old_old: float, *, title: str) -> Axes:
    """What an upgrade loses or gains in mAP on its first day, by a free new model and by a compatible one.

    Both are (shares 0..1, values) of a backfill; `title` is the name of the compatible method.
    """
    for (shares, values, *_), colour, words in (
        (independent, style.ORACLE, "new model, trained independently"),
        (compatible, style.NEW, f"new model, trained with {title}"),
    ):
        label = f"{words}:\n{shown(values[0] - old_old, signed=True)} points on the first day"
        ax.plot(shares, values, color=colour, linewidth=2.8, marker="o", label=label)
        look = {"arrowstyle": "-|>", "color": colour, "linewidth": 2}
        ax.annotate("", (0, values[0]), (0, old_old), arrowprops=look)
    ax.axhline(old_old, color=style.OLD, linewidth=2.8, label="old system, no upgrade")
    ax.set(xlim=(-0.02, 1.02), ylim=(0, None), xlabel=SHARE, ylabel="mAP of new queries (%)")
    in_percent(ax.xaxis, ax.yaxis)
    legend_below(ax)
    return ax


def backfill_panels(
    curves: Curves, *, old_old: Bound = None, oracle: Bound = None, metric: str = "map", titles: Titles = None
) -> Figure:
    """The curves of `backfill_curve` with a panel each, for many methods: its own in front, the others grey.

    Each title gives the values at both ends. A curve that starts below half of old/old does not set the
    scale: it comes in through the lower edge.
    """
    frames = {
        name: pd.DataFrame(dict(zip(("x", "y", "low", "high"), parts, strict=False)), dtype=float)
        for name, parts in curves.items()
    }
    ends = {name: " to ".join(shown(y) for y in own["y"].iloc[[0, -1]]) for name, own in frames.items()}
    lines = _references(old_old, oracle)
    figure = _panels(frames, ends, titles, lines, SHARE, f"{metric_title(metric)} (%)")
    values = [frame["y"] for frame in frames.values()]
    near = [y for y in values if y.iloc[0] >= FAR_BELOW * (old_old or 0)] or values
    known = np.concatenate([*near, [value for value, _ in lines.values()]])
    room = max(0.08 * np.ptp(known), 0.01)
    for ax in figure.axes:
        ax.set(xlim=(-0.03, 1.03), ylim=(known.min() - room, known.max() + room), xticks=[0, 0.5, 1])
        in_percent(ax.xaxis)
    return figure


def validation_panels(histories: Mapping[str, History], *, titles: Titles = None) -> Figure:
    """The curves of `validation_curves` with a panel each; each title gives the last value."""
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
    titles: Titles,
    lines: Mapping[str, tuple[float, str]],
    xlabel: str,
    ylabel: str,
) -> Figure:
    """Small multiples: one curve in front, all behind it."""
    columns = min(4, len(frames))
    rows = -(-len(frames) // columns)
    size = (2.2 * columns, 2.2 * rows + 0.9)
    fig, axes = plt.subplots(rows, columns, sharex=True, sharey=True, squeeze=False, figsize=size)
    names = wrapped(titles or {}, 24)
    behind = [frame[["x", "y"]].to_numpy(float) for frame in frames.values()]
    for (name, own), ax in zip(frames.items(), axes.flat, strict=False):
        colour = method_style(name)["color"]
        # One artist for all: a line each would be drawn once a method and panel.
        ax.add_collection(LineCollection(behind, colors=OTHERS, linewidths=0.8, zorder=1))
        ax.plot(own["x"], own["y"], color=colour, linewidth=2.6, zorder=5)
        if "low" in own:
            ax.fill_between(own["x"], own["low"], own["high"], color=colour, alpha=0.2, linewidth=0)
        for value, line in lines.values():
            ax.axhline(value, color=line, linestyle="--", linewidth=1.2, zorder=2)
        ax.set_title(f"{names.get(name, name)}\n{ends[name]}", fontsize=9, loc="left")
        ax.tick_params(labelsize=9)
    in_percent(axes[0, 0].yaxis)
    for k in range(len(frames), axes.size):  # the panel above an empty place is the lowest of its column
        axes.flat[k].remove()
        axes.flat[k - columns].tick_params(labelbottom=True)
    fig.supylabel(ylabel, fontsize=11)
    keys = [Line2D([], [], color=colour, linestyle="--", label=text) for text, (_, colour) in lines.items()]
    keys.append(Line2D([], [], color=OTHERS, linewidth=0.8, label="the other methods"))
    # The label of the positions is the legend's title: a label of the figure would lie upon the legend.
    fig.legend(handles=keys, loc="outside lower center", ncols=3, title=xlabel, title_fontsize=11)
    return fig


def history_series(history: History, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and values of one column of a history, where it has a value."""
    return tuple(pd.DataFrame(history, columns=["epoch", name], dtype=float).dropna().to_numpy().T)


def _over_epochs(ax: Axes, ylabel: str) -> None:
    ax.set(xlabel="epoch", ylabel=ylabel)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def loss_curves(ax: Axes, history: History) -> Axes:
    """Loss terms of one run over its epochs, unweighted as they are logged: a line a column "loss/<term>"."""
    terms = [name for name in (history[0] if history else {}) if name.startswith("loss/")]
    if len(terms) == 2:  # one term: the total is the same line
        terms = [name for name in terms if name != "loss/total"]
    for term, colour in zip(terms, TERM_COLOURS * 2, strict=False):
        label = term.removeprefix("loss/").replace("_", " ")
        ax.plot(*history_series(history, term), color=colour, label=label)
    _over_epochs(ax, "loss term, unweighted (nats)")
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    legend_outside(ax)
    return ax


def validation_curves(
    ax: Axes, histories: Mapping[str, History], metric: str = VALIDATION, *, titles: Titles = None
) -> Axes:
    """A validation metric (a column of the histories) over the epochs: is the training long enough?"""
    for name, history in histories.items():
        ax.plot(*history_series(history, metric), label=(titles or {}).get(name, name), **method_style(name))
    _over_epochs(ax, _validation_title(metric))
    in_percent(ax.yaxis)
    legend_outside(ax)
    return ax


def _validation_title(metric: str) -> str:
    pair, name = metric.removeprefix("val/").split("/", 1)
    return f"{pair.replace('_', '/')} {metric_title(name)},\nvalidation (%)"


def constraint_curves(ax: Axes, history: History) -> Axes:
    """Share of held-out pairs that satisfy each of MixBCT's four constraints."""
    shares = [history_series(history, f"val/constraint{k}/share") for k in (1, 2, 3, 4)]
    if not any(len(epochs) for epochs, _ in shares):
        return say_instead(ax, "no constraints: new and old features cannot be compared while it trains")
    for k, ((epochs, known), (colour, line)) in enumerate(zip(shares, CONSTRAINT_LOOKS, strict=True)):
        label = f"{k + 1}: {STATEMENTS[k]} ({known[-1]:.0%})"
        ax.plot(epochs, known, color=colour, linestyle=line, label=label)
    _over_epochs(ax, "share of validation pairs (%)")
    ax.set_ylim(0.0, 1.02)
    in_percent(ax.yaxis)
    legend_below(ax, columns=1)
    return ax


def roc_curves(ax: Axes, curves: Mapping[str, tuple[Any, Any]], *, lowest: float = 1e-4) -> Axes:
    """True-accept rate over false-accept rate, the latter on a logarithmic axis from `lowest` on.

    `curves` are pair of query and gallery model, such as "old_old" -> (far, tar), fractions.
    """
    for name, (far, tar) in curves.items():
        far, tar, pair = np.asarray(far), np.asarray(tar), name.replace("_", "/")
        look = {"color": style.PAIR_COLOURS[pair], "label": pair, "drawstyle": "steps-post"}
        ax.plot(far[far > 0], tar[far > 0], **look)
    ax.set(xscale="log", xlim=(lowest, 1.0), ylim=(0.0, 1.02))
    ax.set(xlabel="false-accept rate (FAR, fraction)", ylabel="true-accept rate (TAR, %)")
    in_percent(ax.yaxis)
    legend_outside(ax)
    return ax
