"""What a compatibility check returns: a verdict in a sentence, records, two tables, and a page."""

from __future__ import annotations

import base64
import io
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from compat_lib import __version__
from compat_lib.deploy.check_inputs import metric_far
from compat_lib.evaluation.compatibility import PairTest
from compat_lib.evaluation.counting import PER_UNIT
from compat_lib.evaluation.four_constraints import STATEMENTS
from compat_lib.evaluation.records import Record, Records, metric_title, shown

VERDICTS = {  # and their colours
    "compatible": "#117733",
    "undecided": "#9C8A5A",
    "not compatible": "#b3261e",
    "not comparable as they are": "#b3261e",
}
COMPATIBLE, _, NOT_COMPATIBLE, NOT_COMPARABLE = VERDICTS
CHANGED = {
    "negative_flips": "queries right at rank 1 before and wrong now",
    "positive_flips": "queries wrong at rank 1 before and right now",
    "losing": "identities whose mAP falls",
    "gaining": "identities whose mAP rises",
} | {f"constraint{k}/share": f"pairs of {text}" for k, text in enumerate(STATEMENTS, 1)}
LINE = 97  # characters of a terminal's line
OLD, NEW, CROSS, ADAPTED = "#0072B2", "#E8740C", "#8E4A9E", "#9C8A5A"  # as in every figure of this project
COLOURS = {("old", "old", None): OLD, ("new", "old", None): CROSS, ("new", "new", None): NEW}
SIZE = (4.8, 3.9)  # inches; read at this width on a telephone, two or three side by side on a desk
BINS = 64  # of a histogram of cosines, in a unit

Names = tuple[str, str, str | None]  # query model, gallery model, adapter


@dataclass(frozen=True, eq=False)
class CompatibilityCheck:
    """The answer and its numbers.

    ``records`` holds every test (query and gallery model, adapter) in every metric; ``gain/METRIC``, the test
    minus old/old, and ``over_swap/METRIC``, the test minus new/old, both paired draw by draw; the gallery
    "mixed" during a backfill in random order; who changes (``negative_flips``, ``losing``, ...); MixBCT's
    four constraints (``constraint1/share``); and what a random ranking gives (``chance/METRIC``).
    """

    verdict: str  # "compatible", "not compatible", "undecided" or "not comparable as they are"
    reason: str  # of the verdict, as the end of a sentence
    metric: str  # in which the verdict was found
    records: Records = field(repr=False)
    notes: tuple[str, ...]  # what was left out or drawn at random, and what to be careful with
    basis: dict[str, int]  # images, identities, queries, identities that ask, draws, seed
    tests: dict[Names, PairTest] = field(repr=False)  # histograms and ROC curves, for pictures
    files: tuple[dict[str, Any], ...] = ()  # where they were: side, name, rows, width, bytes, sha256

    @property
    def compatible(self) -> bool:
        """Whether new/old is above old/old beyond the noise."""
        return self.verdict == COMPATIBLE

    @property
    def above(self) -> bool:
        """Whether new/old is above old/old at all: BCT's criterion as published, which knows no noise."""
        return self.verdict != NOT_COMPATIBLE and self._gain is not None and self._gain.value > 0

    @property
    def sentence(self) -> str:
        """The verdict with the numbers that decided, in one sentence."""
        if self.verdict == NOT_COMPARABLE:
            return f"{self.verdict.capitalize()}: {self.reason}."
        old, new = (self._shown(self.records.get(model, "old", self.metric)) for model in ("old", "new"))
        return (
            f"{self.verdict.capitalize()}: in the old gallery new queries reach {new} % in "
            f"{metric_title(self.metric)}, old queries {old} %, a difference of "
            f"{self._shown(self._gain, signed=True)}; {self.reason}."
        )

    @property
    def _gain(self) -> Record | None:
        return self.records.find("new", "old", f"gain/{self.metric}")

    def _shown(self, one: Record | None, *, signed: bool = False) -> str:
        # More digits than one where an end of the deciding interval would look like zero and is not.
        ends = (self._gain.value, self._gain.low, self._gain.high) if self._gain else ()
        digits = next((n for n in (1, 2, 3) if all(round(100 * x, n) for x in ends if x)), 4)
        return "" if one is None else shown(one.value, one.low, one.high, digits=digits, signed=signed)

    def table(self, metric: str | None = None) -> pd.DataFrame:
        """The tests in one metric, against today's system and against the plain swap, as text in per cent."""
        metric = metric or self.metric
        rows = {}
        for *pair, adapter in self.tests:
            names = (f"{what}{metric}" for what in ("", "gain/", "over_swap/"))
            test, *differences = (self.records.find(*pair, name, adapter=adapter) for name in names)
            cells = [self._shown(test), *(self._shown(one, signed=True) for one in differences)]
            rows[title(*pair, adapter)] = cells
        for one in self.records.select(gallery="mixed", metric=metric):
            if one.share not in (0, 1):
                rows[f"new/mixed, {100 * one.share:.0f} % backfilled"] = [self._shown(one), "", ""]
        for one in self.records.select(metric=f"chance/{metric}"):
            rows["a random ranking"] = [self._shown(one), "", ""]
        columns = [f"{metric_title(metric)} (%)", "minus old/old", "minus new/old"]
        frame = pd.DataFrame.from_dict(rows, "index", columns=columns)
        return frame.loc[:, (frame != "").any()]

    def changed(self) -> pd.DataFrame:
        """Who gets worse and who better by the swap, and which pairs meet the constraints, in per cent."""
        rows = {CHANGED[one.metric]: [self._shown(one)] for one in self.records if one.metric in CHANGED}
        return pd.DataFrame.from_dict(rows, "index", columns=["share (%)"])

    def plain(self) -> dict[str, Any]:
        """Everything but the pictures, for JSON."""
        names = ("verdict", "metric", "sentence", "notes", "basis", "files")
        record = {name: getattr(self, name) for name in names}
        return record | {"version": __version__, "records": self.records.plain()}

    def measured_on(self) -> str:
        """What the numbers were measured on, in a sentence."""
        images, queries = self.basis["images"], self.basis["queries"]
        asked = "each a query" if queries == images else f"{queries:,} of them, drawn at random, as queries"
        return (
            f"Measured on {images:,} images of {self.basis['identities']:,} identities, {asked}; brackets "
            f"are 95 % intervals over identities ({self.basis['draws']:,} draws, seed {self.basis['seed']})."
        )

    def summary(self) -> str:
        """The sentence, the tables, and what they were measured on, for a terminal."""
        tables = [frame.to_string() for frame in (self.table(), self.changed()) if len(frame)]
        notes = [self.measured_on(), *(f"Note: {note}" for note in self.notes)]
        wrapped = "\n".join(textwrap.fill(note, LINE) for note in notes)
        return "\n\n".join([textwrap.fill(self.sentence, LINE), *tables, wrapped])

    def page(self) -> str:
        """One HTML file with its pictures inside, which loads nothing."""
        text = Path(__file__).with_name("check_page.html").read_text(encoding="utf-8")
        measured = [one.metric for one in self.tests["old", "old", None].records if one.metric != self.metric]
        return jinja2.Template(text, autoescape=True, undefined=jinja2.StrictUndefined).render(
            result=self,
            colour=VERDICTS[self.verdict],
            tables=[_html(table) for table in (self.table(), self.changed()) if len(table)],
            others=[_html(self.table(name)) for name in measured],
            pictures=pictures(self),
            version=__version__,
            date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )


def title(query: str, gallery: str, adapter: str | None = None) -> str:
    """The name of a test for reading.

    >>> title("new", "new"), title("new", "old", "ridge-query")
    ('new/new, full backfill', 'new/old, ridge on the query')
    """
    if adapter is None:
        return f"{query}/{gallery}" + (", full backfill" if (query, gallery) == ("new", "new") else "")
    name, _, side = adapter.partition("-")
    return f"{query}/{gallery}, {name.replace('pro', 'Pro')} on the {side or 'gallery'}"


def _html(table: pd.DataFrame) -> str:
    return re.sub(r" (\[[^]]*\])", r"<br>\1", table.to_html(border=0))  # intervals below their numbers


def pictures(result: CompatibilityCheck) -> Iterator[tuple[str, str]]:
    """Yield PNG pictures in base64 and their captions."""
    far, there = metric_far(result.metric), [names for names in COLOURS if names in result.tests]
    drawings = {
        "What each way to go on gives: right of the blue line is better than the old model.": (draw_ways,),
        "The gallery is embedded again in random order; 0 % is new/old, 100 % new/new.": (draw_backfill,),
        "Accepted pairs of one identity, at every rate of false accepts.": (draw_roc, there, far),
    }
    for names in there:
        text = f"Cosines of {'/'.join(names[:2])}: the less they overlap, the better a threshold works."
        drawings[text] = (draw_cosines, names, far)
    for caption, (draw, *arguments) in drawings.items():
        if draw is draw_backfill and ("new", "old", None) not in there:
            continue
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
    ax.set_yticks(range(len(names)), [re.sub(r", | (?=on )", "\n", title(*one)) for one in names])
    ax.set_xlabel(f"{metric_title(result.metric)} (%)")
    ax.margins(y=0.15)


def draw_backfill(ax: Axes, result: CompatibilityCheck) -> None:
    """Draw the metric while the gallery is embedded again."""
    curve = result.records.select(gallery="mixed").frame()
    ax.plot(100 * curve["share"], 100 * curve["value"], "o-", color=NEW, label="new queries")
    ax.axhline(100 * result.records.value("old", "old", result.metric), color=OLD, label="old/old")
    ax.set(xlabel="gallery embedded again (%)", ylabel=f"{metric_title(result.metric)} (%)")
    ax.set_ylim(bottom=0)


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
