"""What a compatibility check returns: a verdict in one sentence, tidy records, and two small tables."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from compat_lib.evaluation.compatibility import PairTest
from compat_lib.evaluation.records import Records, metric_title, shown

COMPATIBLE, NOT_COMPATIBLE, UNDECIDED = "compatible", "not compatible", "undecided"
NOT_COMPARABLE = "not comparable as they are"
LINE = 97  # characters of a terminal's line

Names = tuple[str, str, str | None]  # query model, gallery model, adapter


@dataclass(frozen=True, eq=False)
class CompatibilityCheck:
    """The answer and its numbers.

    ``records`` holds every test (query and gallery model, adapter) in every metric; ``gain/METRIC``, the test
    minus old/old, and ``over_swap/METRIC``, the test minus new/old, both paired draw by draw; the gallery
    "mixed" during a backfill in random order; who changes (``negative_flips``, ``losing``, ...); and what a
    random ranking gives (``chance/METRIC``).
    """

    verdict: str  # "compatible", "not compatible", "undecided" or "not comparable as they are"
    reason: str  # of the verdict, as the end of a sentence
    metric: str  # in which the verdict was found
    records: Records = field(repr=False)
    notes: tuple[str, ...]  # what was left out or drawn at random, and what to be careful with
    basis: dict[str, int]  # images, identities, queries, identities that ask, draws, seed
    tests: dict[Names, PairTest] = field(repr=False)  # histograms and ROC curves, for pictures

    @property
    def compatible(self) -> bool:
        """Whether new/old is above old/old beyond the noise."""
        return self.verdict == COMPATIBLE

    @property
    def above(self) -> bool:
        """Whether new/old is above old/old at all: BCT's criterion as published, which knows no noise."""
        if self.verdict in (NOT_COMPATIBLE, NOT_COMPARABLE):
            return False
        return self.records.value("new", "old", f"gain/{self.metric}") > 0

    @property
    def sentence(self) -> str:
        """The verdict with the numbers that decided, in one sentence."""
        if self.verdict == NOT_COMPARABLE:
            return f"{self.verdict.capitalize()}: {self.reason}."
        old, cross = (self.shown(model, "old", self.metric) for model in ("old", "new"))
        gain = self.shown("new", "old", f"gain/{self.metric}", signed=True)
        return (
            f"{self.verdict.capitalize()}: in the old gallery new queries reach {cross} % in "
            f"{metric_title(self.metric)}, old queries {old} %, a difference of {gain}; {self.reason}."
        )

    def shown(self, query: str, gallery: str, metric: str, *, signed: bool = False, **where: Any) -> str:
        """A number of the records with its interval, in per cent; empty where there is none."""
        one = self.records.find(query, gallery, metric, **where)
        return "" if one is None else shown(one.value, one.low, one.high, digits=self._digits, signed=signed)

    @property
    def _digits(self) -> int:
        # More than one where an end of the deciding interval would look like zero and is not.
        gain = self.records.find("new", "old", f"gain/{self.metric}")
        ends = [100 * x for x in (gain.value, gain.low, gain.high) if x] if gain else []
        return next((digits for digits in (1, 2, 3) if all(round(x, digits) for x in ends)), 4)

    def table(self, metric: str | None = None) -> pd.DataFrame:
        """The tests in one metric, against today's system and against the plain swap, as text in per cent."""
        metric = metric or self.metric
        rows = {
            title(*names): [
                self.shown(*names[:2], metric, adapter=names[2]),
                self.shown(*names[:2], f"gain/{metric}", adapter=names[2], signed=True),
                self.shown(*names[:2], f"over_swap/{metric}", adapter=names[2], signed=True),
            ]
            for names in self.tests
        }
        for one in self.records.select(gallery="mixed", metric=metric):
            if one.share not in (0, 1):
                rows[f"new/mixed, {100 * one.share:.0f} % backfilled"] = [shown(one.value), "", ""]
        if metric == self.metric:
            rows["a random ranking"] = [self.shown(None, None, f"chance/{metric}"), "", ""]
        columns = [f"{metric_title(metric)} (%)", "minus old/old", "minus new/old"]
        frame = pd.DataFrame.from_dict(rows, "index", columns=columns)
        return frame.loc[:, (frame != "").any()]

    def changed(self) -> pd.DataFrame:
        """Who gets worse and who better when new queries meet the old gallery, as text in per cent."""
        what = {
            "negative_flips": "queries right at rank 1 before and wrong now",
            "positive_flips": "queries wrong at rank 1 before and right now",
            "losing": "identities whose mAP falls",
            "gaining": "identities whose mAP rises",
        }
        there = {name: self.shown("new", "old", name) for name in what}
        rows = {what[name]: [number] for name, number in there.items() if number}
        return pd.DataFrame.from_dict(rows, "index", columns=["share (%)"])

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


def title(query: str, gallery: str, adapter: str | None = None) -> str:
    """The name of a test for reading.

    >>> title("new", "new"), title("new", "old", "ridge-query")
    ('new/new, full backfill', 'new/old, ridge on the query')
    """
    if adapter is None:
        return f"{query}/{gallery}" + (", full backfill" if (query, gallery) == ("new", "new") else "")
    name, _, side = adapter.partition("-")
    return f"{query}/{gallery}, {name.replace('pro', 'Pro')} on the {side or 'gallery'}"
