"""The pictures of a compatibility check's page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from compat_lib.deploy.check_inputs import metric_far
from compat_lib.evaluation.counting import PER_UNIT
from compat_lib.evaluation.records import metric_title

if TYPE_CHECKING:
    from compat_lib.deploy.check_result import CompatibilityCheck, Names

OLD, NEW, CROSS, ADAPTED = "#0072B2", "#E8740C", "#8E4A9E", "#9C8A5A"  # as in every figure of this project
COLOURS = {("old", "old", None): OLD, ("new", "old", None): CROSS, ("new", "new", None): NEW}
SIZE = (4.8, 3.9)  # inches; read at this width on a telephone, two or three side by side on a desk
BINS = 64  # of a histogram of cosines, in a unit
MAPS = ("procrustes-query", "procrustes", "ridge-query", "ridge")  # of the queries, or of the gallery
ALONE = {  # rows that are no closed-form map of one side
    "midpoint": "new and old/old, midpoint",
    "slerp": "new and old/old, SLERP",
    "lambda-orthogonal-query": "new/old, λ-orthogonal on the query",
    "lambda-orthogonal": "new/old, λ-orthogonal on both",
    "cut": "new/old, cut",
    "pad": "new/old, padded",
}


def title(query: str, gallery: str, adapter: str | None = None) -> str:
    """The name of a test for reading.

    >>> title("new", "new"), title("new", "old", "ridge-query"), title("new", "old", "slerp")
    ('new/new, full backfill', 'new/old, ridge on the query', 'new and old/old, SLERP')
    """
    if adapter is None:
        return f"{query}/{gallery}" + (", full backfill" if (query, gallery) == ("new", "new") else "")
    if adapter in ALONE:
        return ALONE[adapter]
    name, _, side = adapter.partition("-")
    return f"{query}/{gallery}, {name.replace('pro', 'Pro')} on the {side or 'gallery'}"


def pictures(result: CompatibilityCheck) -> Iterator[tuple[str, str]]:
    """Yield PNG pictures in base64 and their captions."""
    far, there = metric_far(result.metric), [names for names in COLOURS if names in result.tests]
    ways = "What each way to go on gives: right of the blue line is better than the old model."
    curve = "The gallery is embedded again in random order; 0 % is new/old, 100 % new/new."
    rates = "Accepted pairs of one identity, at every rate of false accepts."
    cosines = "Cosines of {}/{}: the less they overlap, the better a threshold works."
    drawings = [(ways, draw_ways)]
    if ("new", "old", None) in there:
        drawings.append((curve, draw_backfill))
    if result.how == "identities":
        drawings.append((rates, draw_roc, there, far))
        drawings += [(cosines.format(*names), draw_cosines, names, far) for names in there]
    for caption, draw, *arguments in drawings:
        with seaborn.axes_style("whitegrid"), seaborn.plotting_context("notebook", font_scale=0.85):
            figure = Figure(figsize=SIZE, layout="constrained")
            ax = figure.add_subplot()
            draw(ax, result, *arguments)
            seaborn.despine(ax=ax)
            figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
            figure.savefig(data := io.BytesIO(), format="png", dpi=150, metadata={"Software": None})
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
    labels = [title(*one).removeprefix("new/old, ").replace(", ", "\n") for one in names]
    ax.set_yticks(range(len(names)), labels)
    ax.figure.set_figheight(max(SIZE[1], 1.2 + 0.36 * len(names)))  # two lines of a label
    ax.set_xlabel(f"{metric_title(result.metric)} (%)")
    ax.margins(y=0.15)


def draw_backfill(ax: Axes, result: CompatibilityCheck) -> None:
    """Draw the metric while the gallery is embedded again."""
    for adapter, colour, label in ((None, NEW, "new queries"), ("rank-merge", ADAPTED, "two indexes")):
        curve = result.records.select(gallery="mixed", adapter=adapter).frame()
        ax.plot(100 * curve["share"], 100 * curve["value"], "o-", color=colour, label=label)
    ax.axhline(100 * result.records.value("old", "old", result.metric), color=OLD, label="old/old")
    ax.set(xlabel="gallery embedded again (%)", ylabel=f"{metric_title(result.metric)} (%)", ylim=(0, None))


def draw_roc(ax: Axes, result: CompatibilityCheck, there: list[Names], far: float | None) -> None:
    """Draw TAR against FAR of the pairs of models, and the rate that decides."""
    for names in there:
        roc, label = result.tests[names].verification.roc, "/".join(names[:2])
        ax.step(100 * roc.far[1:], 100 * roc.tar[1:], where="post", color=COLOURS[names], label=label)
    if far is not None:
        ax.axvline(100 * far, color="#222222", linestyle=":", label=f"FAR={far:g}")
    fewest = min(result.tests[names].verification.negatives for names in there)
    ax.set(xscale="log", xlim=(100 * max(1e-6, 1 / fewest), 100), ylim=(0, 100))
    ax.set(xlabel="false accept rate (%)", ylabel="true accept rate (%)")


def draw_cosines(ax: Axes, result: CompatibilityCheck, names: Names, far: float | None) -> None:
    """Draw the cosines of one and of different identities, and the threshold that decides."""
    test, edges = result.tests[names], np.linspace(-1, 1, 2 * BINS + 1)
    used = np.zeros(2 * BINS, bool)
    for counts, label, style in (
        (test.counts.same, "same identity", {"fill": True, "alpha": 0.5}),
        (test.counts.different, "different identities", {"linestyle": "--"}),
    ):
        inside = counts[PER_UNIT : 3 * PER_UNIT].reshape(2 * BINS, -1).sum(1).astype(float)
        inside[-1] += counts[3 * PER_UNIT]  # cosines of exactly 1
        density = inside / inside.sum() * BINS
        ax.stairs(density, edges, color=COLOURS[names], label=label, **style)
        used |= density > 0.002 * density.max()
    ax.set_xlim(edges[:-1][used][0], edges[1:][used][-1])
    if far is not None:
        threshold = test.verification.thresholds[test.verification.fars.index(far)]
        ax.axvline(threshold, color="#222222", linestyle=":", label=f"threshold at FAR={far:g}")
    ax.set(xlabel="cosine", ylabel="density", title="/".join(names[:2]))
