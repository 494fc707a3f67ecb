"""The page of a compatibility check: one HTML file with its pictures inside, which loads nothing."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from compat_lib import __version__
from compat_lib.deploy.check_measures import metric_far
from compat_lib.deploy.check_result import CompatibilityCheck, title
from compat_lib.evaluation.counting import PER_UNIT
from compat_lib.evaluation.records import metric_title

OLD, NEW, CROSS, ADAPTED = "#0072B2", "#E8740C", "#8E4A9E", "#9C8A5A"  # as in every figure of this project
COLOURS = {("old", "old", None): OLD, ("new", "old", None): CROSS, ("new", "new", None): NEW}
VERDICTS = {"compatible": "#117733", "undecided": "#9C8A5A"}  # anything else is red
SIZE = (4.8, 3.9)  # inches; read at this width on a telephone, two or three side by side on a desk
BINS = 64  # of a histogram of cosines, in a unit


def page(result: CompatibilityCheck, files: Sequence[Mapping[str, Any]] = ()) -> str:
    """Return the page.

    Args:
        result: of `check_compatibility`.
        files: for the record, each side, name, rows, width, bytes and sha256; leave them out for arrays.
    """
    measured = [one.metric for one in result.tests["old", "old", None].records]
    others = [name for name in dict.fromkeys(["map", "rank1", *measured]) if name != result.metric]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("check_page.html").render(
        result=result,
        colour=VERDICTS.get(result.verdict, "#b3261e"),
        tables=[_html(table) for table in (result.table(), result.changed()) if len(table)],
        others=[_html(result.table(name)) for name in others],
        pictures=list(pictures(result)),
        files=files,
        version=__version__,
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _html(table: pd.DataFrame) -> str:
    return re.sub(r" (\[[^]]*\])", r"<br>\1", table.to_html(border=0))  # intervals below their numbers


def pictures(result: CompatibilityCheck) -> Iterator[tuple[str, str]]:
    """Yield PNG pictures in base64 and their captions."""
    there = [names for names in COLOURS if names in result.tests]
    drawings = [
        (draw_ways, "What each way to go on gives: right of the blue line is better than the old model.")
    ]
    if ("new", "old", None) in there:
        caption = "While the gallery is embedded again in random order; 0 % is new/old, 100 % new/new."
        drawings.append((draw_backfill, caption))
    drawings.append((draw_roc, "Accepted pairs of one identity, at every rate of false accepts."))
    for names in there:
        caption = f"Cosines of {'/'.join(names[:2])}: the less they overlap, the better a threshold works."
        drawings.append((partial(draw_cosines, names=names), caption))
    for draw, caption in drawings:
        with seaborn.axes_style("whitegrid"), seaborn.plotting_context("notebook", font_scale=0.85):
            figure = Figure(figsize=SIZE, layout="constrained")
            ax = figure.add_subplot()
            draw(ax, result)
            seaborn.despine(ax=ax)
            data = io.BytesIO()
            figure.savefig(data, format="png", dpi=150, metadata={"Software": None})
        yield base64.b64encode(data.getvalue()).decode(), caption


def draw_ways(ax: Axes, result: CompatibilityCheck) -> None:
    """Draw every test of new queries with its interval, beside old/old."""
    names = [one for one in result.tests if one[0] == "new"][::-1]
    for row, (query, gallery, adapter) in enumerate(names):
        one = result.records.get(query, gallery, result.metric, adapter=adapter)
        colour = ADAPTED if adapter else COLOURS[query, gallery, None]
        ax.plot(100 * one.value, row, "o", color=colour)
        if one.low is not None:
            ax.plot([100 * one.low, 100 * one.high], [row, row], "|-", color=colour)
    ax.axvline(100 * result.records.value("old", "old", result.metric), color=OLD, label="old/old")
    ax.set_yticks(range(len(names)), [re.sub(r", | (?=on )", "\n", title(*one)) for one in names])
    ax.set_xlabel(f"{metric_title(result.metric)} (%)")
    ax.margins(y=0.15)
    _legend(ax)


def draw_backfill(ax: Axes, result: CompatibilityCheck) -> None:
    """Draw the metric while the gallery is embedded again."""
    curve = result.records.select(gallery="mixed", metric=result.metric)
    ax.plot(
        [100 * one.share for one in curve],
        [100 * one.value for one in curve],
        "o-",
        color=NEW,
        label="new queries",
    )
    ax.axhline(100 * result.records.value("old", "old", result.metric), color=OLD, label="old/old")
    ax.set(xlabel="gallery embedded again (%)", ylabel=f"{metric_title(result.metric)} (%)")
    ax.set_ylim(bottom=0)
    _legend(ax)


def draw_roc(ax: Axes, result: CompatibilityCheck) -> None:
    """Draw TAR against FAR of the pairs of models, and the rate that decides."""
    there = {names: result.tests[names].verification for names in COLOURS if names in result.tests}
    for names, found in there.items():
        roc = found.roc
        ax.step(
            100 * roc.far[1:],
            100 * roc.tar[1:],
            where="post",
            color=COLOURS[names],
            label="/".join(names[:2]),
        )
    far = metric_far(result.metric)
    if far is not None:
        ax.axvline(100 * far, color="#222222", linestyle=":", label=f"FAR={far:g}")
    lowest = max(1e-6, 1 / min(found.negatives for found in there.values()))
    ax.set(xscale="log", xlim=(100 * lowest, 100), ylim=(0, 100))
    ax.set(xlabel="false accept rate (%)", ylabel="true accept rate (%)")
    _legend(ax)


def draw_cosines(ax: Axes, result: CompatibilityCheck, names: tuple[str, str, None]) -> None:
    """Draw the cosines of one and of different identities, and the threshold that decides."""
    test, colour = result.tests[names], COLOURS[names]
    shown = []
    for counts, style in (
        (test.counts.same, {"fill": True, "alpha": 0.5}),
        (test.counts.different, {"linestyle": "--"}),
    ):
        inside = counts[PER_UNIT : 3 * PER_UNIT].reshape(2 * BINS, -1).sum(1).astype(float)
        inside[-1] += counts[3 * PER_UNIT]  # cosines of exactly 1
        density = inside / inside.sum() * BINS
        label = "different identities" if shown else "same identity"
        ax.stairs(density, np.linspace(-1, 1, 2 * BINS + 1), color=colour, label=label, **style)
        shown.append(density > 0.002 * density.max())
    used = np.flatnonzero(shown[0] | shown[1])
    ax.set_xlim(used[0] / BINS - 1, (used[-1] + 1) / BINS - 1)
    far = metric_far(result.metric)
    if far is not None:
        threshold = test.verification.thresholds[test.verification.fars.index(far)]
        ax.axvline(threshold, color="#222222", linestyle=":", label=f"threshold at FAR={far:g}")
    ax.set(xlabel="cosine", ylabel="density", title="/".join(names[:2]))
    _legend(ax)


def _legend(ax: Axes) -> None:
    ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
