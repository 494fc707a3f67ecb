"""The pictures of a compatibility check's report, as bytes.

matplotlib is loaded when a picture is drawn; reading this module needs the core alone.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from compat_lib.deploy.check.result import CompatibilityCheck
from compat_lib.deploy.check.words import metric_far, title
from compat_lib.evaluation.counting import PER_UNIT, Counts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 256  # of a histogram over [-1, 1]
POINTS = 400  # of a ROC curve
SIZE = (4.8, 3.9)  # inches; read at this width on a telephone, two or three side by side on a desk


def require_pictures() -> None:
    """Load what the pictures need.

    Raises:
        ModuleNotFoundError: "the report needs matplotlib, which is not installed ...".
    """
    try:
        importlib.import_module("matplotlib.figure")
        importlib.import_module("companion.plots")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the report needs {error.name}, which is not installed; install it with "
            "pip install compat_lib[workflow], or leave --report out"
        ) from error


def pictures(result: CompatibilityCheck) -> Iterator[tuple[bytes, str]]:
    """Yield PNG pictures and their captions.

    Raises:
        ModuleNotFoundError: "the report needs matplotlib, which is not installed ...".
    """
    require_pictures()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from companion import plots

    drawings: list[tuple[Callable[[Axes, CompatibilityCheck], None], str]] = [
        (
            _ways,
            "What each way to go on gives, with its 95 % interval: right of the blue line is better than "
            "keeping the old model.",
        ),
        (
            _backfill,
            "While the gallery is embedded again in random order; 0 % is new/old, 100 % new/new.",
        ),
        (_roc, "The share of the pairs of one identity that are accepted, at every rate of false accepts."),
    ]
    drawings += [
        (
            partial(_cosines, pair=pair),
            f"Cosines of {plots.PAIR_TITLES[pair]}. The less the two overlap, the better a threshold tells "
            "them apart.",
        )
        for pair in result.pictured.counts
    ]
    for draw, caption in drawings:
        with mpl.rc_context():  # the caller's style stays
            plots.use_style()
            figure = Figure(figsize=SIZE)
            draw(figure.add_subplot(), result)
            data = io.BytesIO()
            figure.savefig(data, format="png", dpi=150, metadata={"Software": None})
        yield data.getvalue(), caption


def _ways(ax: Axes, result: CompatibilityCheck) -> None:
    from companion import plots

    known = {  # test -> what stands beside its row, its colour
        "new_old": ("new/old", plots.CROSS),
        "adapter/ridge/new_old": ("ridge\nadapter", plots.ADAPTED),
        "adapter/procrustes/new_old": ("Procrustes\nadapter", plots.ADAPTED),
        "new_new": ("new/new,\nfull backfill", plots.NEW),
    }
    known = {test: look for test, look in known.items() if test in result.tests}
    ends = {"cross": "", "cross_low": "/low", "cross_high": "/high"}
    points = {
        test: {key: result.metrics[f"{test}/{result.metric}{end}"] for key, end in ends.items()}
        for test in known
    }
    plots.cross_test_dots(
        ax,
        points,
        old_old=result.metrics[f"old_old/{result.metric}"],
        metric=result.metric,
        titles={test: text for test, (text, _) in known.items()},
    )
    for (point, caps, bars), (_, colour) in zip(ax.containers, known.values(), strict=True):
        point.set_marker("o")
        for line in (point, *caps):
            line.set(color=colour, markeredgecolor=colour)
        for bar in bars:
            bar.set_color(colour)
    ax.set_xlabel(title(result.metric))
    plots.legend_below(ax)


def _backfill(ax: Axes, result: CompatibilityCheck) -> None:
    from companion import plots

    plots.backfill_curve(
        ax,
        {"new": (result.pictured.shares, result.pictured.curve)},
        old_old=result.metrics[f"old_old/{result.metric}"],
        metric=result.metric,
        titles={"new": "new queries"},
    )
    ax.lines[0].set(color=plots.NEW, marker="o")
    ax.set_ylim(bottom=0)
    plots.legend_below(ax)


def _roc(ax: Axes, result: CompatibilityCheck) -> None:
    from companion import plots

    verified = result.pictured.verified
    lowest = max(1e-6, min(0.1, 1 / min(each.negatives for each in verified.values())))
    grid = np.geomspace(lowest, 1, POINTS)
    curves = {}
    for pair, each in verified.items():  # the highest TAR whose FAR is not above the grid's
        place = np.searchsorted(each.roc.far, grid, "right") - 1
        curves[pair] = grid, each.roc.tar[place]
    plots.roc_curves(ax, curves, lowest=lowest)
    far = metric_far(result.metric)
    if far is not None:
        ax.axvline(far, color="#222222", linewidth=1, linestyle=":", label=_operating(result.metric))
    plots.legend_below(ax, columns=4)


def _operating(metric: str) -> str:
    return title(metric).removeprefix("TAR at ")


def _cosines(ax: Axes, result: CompatibilityCheck, pair: str) -> None:
    from companion import plots

    histograms = {name: histogram(counts) for name, counts in result.pictured.counts.items()}
    edges = histograms[pair][0]
    used = np.flatnonzero(sum(_visible(side) for _, *sides in histograms.values() for side in sides))
    low, high = used[0], used[-1] + 1  # the same range in the three pictures
    _, same, different = histograms[pair]
    far = metric_far(result.metric)
    each = result.pictured.verified[pair]
    thresholds = None if far is None else {pair: each.thresholds[each.fars.index(far)]}
    plots.cosine_row(
        [ax],
        {pair: (edges[low : high + 1], same[low:high], different[low:high])},
        thresholds,
        threshold_label=f"threshold at {_operating(result.metric)}",
    )
    for legend in list(ax.figure.legends):  # too wide for a figure of one axis
        legend.remove()
    plots.legend_below(ax)


def histogram(counts: Counts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return edges [BINS + 1] over [-1, 1] and the counts of same and different identities, int64 [BINS]."""
    sides = []
    for fine in (counts.same, counts.different):
        inside = fine[PER_UNIT : 3 * PER_UNIT].reshape(BINS, -1).sum(1)
        inside[-1] += fine[3 * PER_UNIT]  # cosines of exactly 1
        sides.append(inside)
    return np.linspace(-1, 1, BINS + 1), *sides


def _visible(counts: np.ndarray) -> np.ndarray:
    # What is more than a hair above the axis.
    return (counts > 0.002 * counts.max()).astype(int)
