"""What a compatibility check returns: a verdict in a sentence, records, two tables, and a page."""

import re
import textwrap
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from compat_lib import __version__
from compat_lib.adapters import LinearMap
from compat_lib.deploy.check_pictures import MAPS, pictures, title
from compat_lib.evaluation.compatibility import PairTest
from compat_lib.evaluation.four_constraints import STATEMENTS
from compat_lib.evaluation.records import Record, Records, metric_title, shown

VERDICTS = {  # and their colours
    "compatible": "#117733",
    "undecided": "#9C8A5A",
    "not compatible": "#b3261e",
    "undecided without labels": "#9C8A5A",
}
COMPATIBLE, _, NOT_COMPATIBLE, UNLABELLED = VERDICTS
CHANGED = {
    "negative_flips": "queries right at rank 1 before and wrong now",
    "relative_negative_flips": "right before and wrong now, of what two unrelated models have",
    "positive_flips": "queries wrong at rank 1 before and right now",
    "losing": "{} whose mAP falls",
    "gaining": "{} whose mAP rises",
} | {f"constraint{k}/share": f"pairs of {text}" for k, text in enumerate(STATEMENTS, 1)}
STEPS = {  # what to try by what is still there, and the rows that tell what it is worth
    "If the old model still runs when queries come, ask with both, interpolated": ("midpoint", "slerp"),
    "If pairs of old and new features are all there is, map one side (--save-adapter)": MAPS,
    "If a map may be trained on such pairs with labels (orthogonal_adapter.fit_orthogonal)": (
        "lambda-orthogonal-query",
        "lambda-orthogonal",
    ),
    "If the images can be embedded again, backfill, those first that gain most (evaluation.backfill_order)": (
        None,
    ),
    "If the new model was trained to be cut or padded, give the features so": ("cut", "pad"),
}
LINE = 97  # characters of a terminal's line

Names = tuple[str, str, str | None]  # query model, gallery model, adapter


@dataclass(frozen=True, eq=False)
class CompatibilityCheck:
    """The answer and its numbers.

    ``records`` holds every test (query and gallery model, adapter) in every metric; ``gain/METRIC``, the test
    minus old/old, and ``over_swap/METRIC``, the test minus new/old, both paired draw by draw; the gallery
    "mixed" during a backfill in random order, with the adapter "rank-merge" that of two indexes; who changes
    (``negative_flips``, ``losing``, ...); MixBCT's four constraints (``constraint1/share``); what a random
    ranking gives (``chance/METRIC``); the old threshold's ``strangers`` and, for every test, the
    ``threshold`` that as many of them reach and the share of genuine pairs ``accepted`` there; and
    ``group=NAME/METRIC``.
    """

    verdict: str  # "compatible", "not compatible", "undecided" or "undecided without labels"
    reason: str  # of the verdict, as the end of a sentence
    metric: str  # in which the verdict was found
    records: Records = field(repr=False)
    notes: tuple[str, ...]  # what was left out or drawn at random, and what to be careful with
    basis: dict[str, int]  # images, identities, queries, identities that ask, draws, seed
    tests: dict[Names, PairTest] = field(repr=False)  # histograms and ROC curves, for pictures
    how: str = "identities"  # by which it was measured; or "relevance", or "neighbours" without both
    groups: tuple[dict[str, Any], ...] = ()  # group, queries, asking, verdict
    adapter: LinearMap | None = field(default=None, repr=False)  # the best one, fitted to all images
    doubtful: bool = False  # rows of other images than their labels say, or one vector for most: not noise
    files: tuple[dict[str, Any], ...] = ()  # where they were: side, name, rows, width, bytes, sha256

    @property
    def compatible(self) -> bool:
        """Whether new/old is above old/old beyond the noise."""
        return self.verdict == COMPATIBLE

    @property
    def above(self) -> bool:
        """Whether new/old is above old/old at all: BCT's criterion as published, which knows no noise.

        False where the features themselves are in doubt, see `doubtful`.
        """
        against = self.verdict in (NOT_COMPATIBLE, UNLABELLED) or self.doubtful
        return not against and self._gain is not None and self._gain.value > 0

    @property
    def sentence(self) -> str:
        """The verdict with the numbers that decided, in one sentence."""
        verdict, unit = self.verdict.capitalize(), " %"
        if self._gain is None:
            return f"{verdict}: {self.reason}."
        old, new = (self._shown(self.records.get(m, "old", self.metric)) + unit for m in ("old", "new"))
        gain = self._shown(self._gain, signed=True)
        said = f"in the old gallery new queries reach {new} in {metric_title(self.metric)}, old queries {old}"
        if self.verdict == UNLABELLED:
            k = self.metric.partition("@")[2]
            said = f"of the {k} images that the new model itself finds nearest, new queries find {new} in "
            said += f"the old gallery, and old queries {old}"
        return f"{verdict}: {said}, a difference of {gain}; {self.reason}."

    @property
    def threshold(self) -> str:
        """What becomes of the old system's threshold, in a sentence; "" without pairs of strangers."""
        if (strangers := self.records.find("old", "old", "strangers")) is None:
            return ""
        said = []
        for query in ("old", "new"):
            found = [self.records.find(query, "old", name) for name in ("threshold", "accepted")]
            said += [] if None in found else [f"{found[0].value:.3f}", f"{100 * found[1].value:.1f} %"]
        text = f"Your old threshold {said[0]} accepts {100 * strangers.value:.3g} % of strangers"
        if len(said) == 4:
            text += f"; for new/old the same rate is {said[2]}"
        return f"{text}. Of the pairs of one identity they accept {' and '.join(said[1::2])}."

    @property
    def next_steps(self) -> list[str]:
        """After "not compatible": what to try, by what the user still has, and what it is worth here."""
        if self.verdict != NOT_COMPATIBLE:
            return []
        steps = []
        for text, adapters in STEPS.items():
            rows = [one for one in self.tests if one[2] in adapters and (one[2] or one[:2] == ("new", "new"))]
            some = [self.records.get(q, g, self.metric, adapter=adapter) for q, g, adapter in rows]
            some = [one for one in some if one.value is not None]
            if some and self.how == "neighbours":  # to find what the new model finds is no gain
                steps.append(f"{text}; labels would tell what it is worth.")
            elif some:
                best = max(some, key=lambda one: one.value)
                names = best.query, best.gallery, f"gain/{self.metric}"
                gain = self.records.find(*names, adapter=best.adapter)
                worth = f"{self._shown(best)} %, {self._shown(gain, signed=True)} against old/old"
                worth += "" if gain is not None and gain.value > 0 else ", which is no gain"
                steps.append(f"{text}: {title(best.query, best.gallery, best.adapter)}, reaches {worth}.")
        wide = "" if ("new", "old", None) in self.tests else ", in the old width"
        retrain = "If the new model can be trained again, use one of the compatible methods"
        measured = "docs/which_method.md says how often each beat the old system where it was measured"
        return [*steps, f"{retrain}{wide}: {measured}."]

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
            own = self.records.find(*pair, "threshold", adapter=adapter) if metric == self.metric else None
            rows[title(*pair, adapter)] = [*cells, "" if own is None else f"{own.value:.3f}"]
        for one in self.records.select(gallery="mixed", metric=metric):
            if one.share not in (0, 1):
                what = "new/mixed" if one.adapter is None else "two indexes, merged"
                rows[f"{what}, {100 * one.share:.0f} % backfilled"] = [self._shown(one), "", "", ""]
        for one in self.records.select(metric=f"chance/{metric}"):
            rows["a random ranking"] = [self._shown(one), "", "", ""]
        columns = [f"{metric_title(metric)} (%)", "minus old/old", "minus new/old", "threshold"]
        frame = pd.DataFrame.from_dict(rows, "index", columns=columns)
        return frame.loc[:, (frame != "").any()]

    def changed(self) -> pd.DataFrame:
        """Who gets worse and who better by the swap, and which pairs meet the constraints, in per cent."""
        who = "identities" if self.how == "identities" else "queries"
        found = [one for one in self.records if one.metric in CHANGED and self.how != "neighbours"]
        rows = {CHANGED[one.metric].format(who): [self._shown(one)] for one in found}
        return pd.DataFrame.from_dict(rows, "index", columns=["share (%)"])

    def by_group(self) -> pd.DataFrame:
        """The verdict of each group's queries, which ask the whole gallery, in per cent."""
        rows = {}
        for one in self.groups:
            names = [f"group={one['group']}/{what}{self.metric}" for what in ("", "", "gain/")]
            there = map(self.records.find, ("old", "new", "new"), ("old",) * 3, names)
            cells = [self._shown(x, signed=n == 2) for n, x in enumerate(there)]
            rows[one["group"]] = [one["queries"], one["asking"], *cells, one["verdict"]]
        columns = ["queries", "asking", "old/old", "new/old", "difference", "verdict"]
        return pd.DataFrame.from_dict(rows, "index", columns=columns)

    def plain(self) -> dict[str, Any]:
        """Everything but the pictures, for JSON."""
        names = "verdict metric how sentence threshold next_steps notes basis groups files"
        record = {name: getattr(self, name) for name in names.split()}
        return record | {"version": __version__, "records": self.records.plain()}

    def measured_on(self) -> str:
        """What the numbers were measured on, in a sentence."""
        images, queries = self.basis["images"], self.basis["queries"]
        drawn = "" if self.how == "relevance" else ", drawn at random,"
        asked = "each a query" if queries == images else f"{queries:,} of them{drawn} as queries"
        people = self.how == "identities"
        of = f" of {self.basis['identities']:,} identities" if people else ""
        over = f"{'identities' if people else 'queries'} ({self.basis['draws']:,} draws"
        return (
            f"Measured on {images:,} images{of}, {asked}; brackets are 95 % intervals over {over}, seed "
            f"{self.basis['seed']})."
        )

    def summary(self) -> str:
        """The sentence, the tables, and what they were measured on, for a terminal."""
        tables = [frame.to_string() for frame in self.tables()]
        steps = [f"Next: {step}" for step in self.next_steps]
        notes = [self.measured_on(), *(f"Note: {note}" for note in self.notes)]
        said = [[self.sentence], [self.threshold] if self.threshold else [], steps, notes]
        first, *others, last = ["\n".join(textwrap.fill(one, LINE) for one in part) for part in said]
        return "\n\n".join([first, *filter(None, others), *tables, last])

    def tables(self) -> list[pd.DataFrame]:
        """The tests, who changes, and the groups, as far as there are any."""
        return [frame for frame in (self.table(), self.changed(), self.by_group()) if len(frame)]

    def page(self) -> str:
        """One HTML file with its pictures inside, which loads nothing."""
        text = Path(__file__).with_name("check_page.html").read_text(encoding="utf-8")
        measured = [one.metric for one in self.tests["old", "old", None].records if one.metric != self.metric]
        return jinja2.Template(text, autoescape=True, undefined=jinja2.StrictUndefined).render(
            result=self,
            colour=VERDICTS[self.verdict],
            tables=[_html(table) for table in self.tables()],
            others=[_html(self.table(name)) for name in measured],
            pictures=pictures(self),
            version=__version__,
            date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )


def _html(table: pd.DataFrame) -> str:
    return re.sub(r" (\[[^]]*\])", r"<br>\1", table.to_html(border=0))  # intervals below their numbers
