"""Curves over a share, an epoch or a false-accept rate."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from .style import (
    CROSS,
    NEW,
    OLD,
    ORACLE,
    PAIR_COLOURS,
    PAIR_TITLES,
    as_array,
    legend_below,
    legend_outside,
    method_style,
    metric_title,
    say_instead,
)

# the cross-test beside the old model, then the new model beside the cross-test; full lines: one identity
CONSTRAINTS = {
    1: ("same, new/old nearer than old/old", CROSS, "-"),
    2: ("different, new/old farther than old/old", CROSS, "--"),
    3: ("same, new/new nearer than new/old", NEW, "-"),
    4: ("different, new/new farther than new/old", NEW, "--"),
}


def backfill_curve(
    ax: Axes,
    curves: Mapping[str, tuple],
    *,
    old_old: float | None = None,
    oracle: float | None = None,
    metric: str = "map",
    titles: Mapping[str, str] | None = None,
) -> Axes:
    """New queries against a gallery of which a growing share was re-embedded by the new model.

    Args:
        ax: axis to draw on.
        curves: method -> (shares 0..1, values) or (shares, values, low, high), the last two drawn as a band.
        old_old: the value before the upgrade (old queries, old gallery), a blue line.
        oracle: the oracle's self-test, a grey line: what a full backfill with a free new model would give.
        metric: name of the metric, for the axis.
        titles: method -> text of the legend.
    """
    for name, (shares, values, *band) in curves.items():
        style = method_style(name)
        ax.plot(as_array(shares), as_array(values), label=(titles or {}).get(name, name), **style)
        if band:
            low, high = (as_array(edge).astype(float) for edge in band)
            ax.fill_between(as_array(shares), low, high, color=style["color"], alpha=0.15, linewidth=0)
    _reference(ax, old_old, OLD, "old/old, before the upgrade")
    _reference(ax, oracle, ORACLE, "oracle new/new")
    ax.set_xlim(-0.02, 1.02)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    ax.set_xlabel("gallery re-embedded by the new model")
    ax.set_ylabel(metric_title(metric))
    legend_outside(ax)
    return ax


def _reference(ax: Axes, value: float | None, colour: str, label: str) -> None:
    if value is not None and np.isfinite(value):
        ax.axhline(value, color=colour, linestyle="--", linewidth=1.4, label=label, zorder=1)


def _column(history: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    # A history that was read from CSV holds text, and nothing where an epoch was not evaluated.
    cells = [row.get(name) for row in history]
    return np.array([np.nan if cell in (None, "") else float(cell) for cell in cells])


def _epochs(history: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Epochs counted from one: the value behind an epoch is known when it has ended."""
    epochs = _column(history, "epoch")
    return epochs + 1 if len(epochs) and epochs[0] == 0 else epochs


def history_series(history: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs, counted from one, and values of one column of a history, where it has a value."""
    values = _column(history, name)
    known = np.isfinite(values)
    return _epochs(history)[known], values[known]


def loss_curves(ax: Axes, history: Sequence[Mapping[str, Any]]) -> Axes:
    """Loss terms of one run over its epochs, unweighted as they are logged.

    Args:
        ax: axis to draw on.
        history: rows of history.csv; every column "loss/<term>" becomes a line.

    Raises:
        ValueError: "no column 'loss/...' in the history; it has …".
    """
    terms = [name for name in (history[0] if history else {}) if name.startswith("loss/")]
    if len(terms) == 2:  # one term: the total is the same line
        terms = [name for name in terms if name != "loss/total"]
    if not terms:
        raise ValueError(f"no column 'loss/...' in the history; it has {list(history[0] if history else [])}")
    colours = ["#222222", "#CC6677", "#2A9D8F", "#999933", "#332288", "#882255"]
    for i, term in enumerate(terms):
        label = term.removeprefix("loss/").replace("_", " ")
        ax.plot(_epochs(history), _column(history, term), color=colours[i % len(colours)], label=label)
    ax.set_xlabel("epoch")
    ax.set_ylabel("loss term, unweighted (nats)")
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_outside(ax)
    return ax


def validation_curves(
    ax: Axes,
    histories: Mapping[str, Sequence[Mapping[str, Any]]],
    metric: str = "val/new_new/tar@far=1e-2",
    *,
    titles: Mapping[str, str] | None = None,
) -> Axes:
    """A validation metric over the epochs, one line a method: is the training long enough to be judged?

    Args:
        ax: axis to draw on.
        histories: method -> rows of its history.csv; epochs without the metric are skipped.
        metric: column of the history.
        titles: method -> text of the legend.
    """
    for name, history in histories.items():
        series = history_series(history, metric)
        ax.plot(*series, label=(titles or {}).get(name, name), **method_style(name))
    ax.set_xlabel("epoch")
    ax.set_ylabel(metric_title(metric.removeprefix("val/")) + ", validation")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_outside(ax)
    return ax


def constraint_curves(ax: Axes, history: Sequence[Mapping[str, Any]]) -> Axes:
    """Share of held-out pairs that satisfy each of MixBCT's four constraints, over the epochs.

    Args:
        ax: axis to draw on; where the history has no such columns (features that cannot be compared) it says
            so.
        history: rows of history.csv with "val/constraint1/share" to "val/constraint4/share".
    """
    shares = {k: history_series(history, f"val/constraint{k}/share") for k in CONSTRAINTS}
    if not any(len(epochs) for epochs, _ in shares.values()):
        return say_instead(ax, "no constraints: new and old features cannot be compared while it trains")
    for k, (label, colour, line) in CONSTRAINTS.items():
        epochs, known = shares[k]
        ax.plot(epochs, known, color=colour, linestyle=line, label=f"{k}: {label} ({known[-1]:.0%})")
    ax.set_xlabel("epoch")
    ax.set_ylabel("share of validation pairs")
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.set_ylim(0.0, 1.02)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(ax, columns=1)
    return ax


def roc_curves(
    ax: Axes,
    curves: Mapping[str, tuple[Any, Any]],
    *,
    lowest: float = 1e-4,
    titles: Mapping[str, str] | None = None,
) -> Axes:
    """True-accept rate over false-accept rate, the latter on a logarithmic axis.

    Args:
        ax: axis to draw on.
        curves: pair ("old_old", …) or method -> (far, tar), fractions.
        lowest: left end; choose what the number of impostor pairs can resolve.
        titles: name -> text of the legend.
    """
    for name, (far, tar) in curves.items():
        far, tar = as_array(far), as_array(tar)
        kept = far > 0
        colour = PAIR_COLOURS.get(name) or method_style(name)["color"]
        label = (titles or {}).get(name, PAIR_TITLES.get(name, name))
        ax.plot(far[kept], tar[kept], color=colour, label=label, drawstyle="steps-post")
    ax.set_xscale("log")
    ax.set_xlim(lowest, 1.0)
    ax.set_ylim(0.0, 1.02)
    ax.set_xlabel("false-accept rate (FAR)")
    ax.set_ylabel("true-accept rate (TAR)")
    legend_outside(ax)
    return ax
