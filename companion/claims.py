"""The papers' claims as data, one judge for all of them, and questions that no claim asks.

A claim is tried in every setting that ran, by paired differences with 95 % intervals: over seeds where there
are two or more, and over the test identities of one run where there is one seed, which is then said to be
indicative at the most. A difference below the tolerance, one point of the metric, counts as none.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from companion.results import (
    HEADLINE,
    TESTS,
    difference,
    main_variant,
    measured,
    metric_of,
    select,
    with_adapters,
)
from companion.tables import changed
from companion.titles import method_title, setting_titles
from compat_lib.evaluation.paired import PairedComparison
from compat_lib.losses import METHODS

SHOWS = "shows"
DOES_NOT_SHOW = "does not show"
NOT_DECIDABLE = "not decidable within the seeds' noise"
NOT_RUN = "not run"
TOLERANCE = 0.01  # absolute: one point of TAR or mAP
WEAK = {"old_strength": "weak"}
_WORDS = {"new_new": "self-test", "new_old": "cross-test"}


@dataclass(frozen=True)
class Comparison:
    """Who is compared with whom.

    Args:
        who: method, or a way to choose one, such as "best trained".
        against: likewise; None: with the old model's own test, which is the compatibility criterion.
        tests: "new_new" or "new_old", or both: better in one of them, and not worse in the other.
        better: whether `who` must be better; False: not worse.
    """

    who: str
    against: str | None = None
    tests: tuple[str, ...] = ("new_old",)
    better: bool = True


@dataclass(frozen=True)
class Claim:
    """What a paper says, and the comparisons that decide it.

    Args:
        method: whose paper.
        text: the claim for people.
        comparisons: each is made in every setting.
        where: fields of the settings in which it is tried; {}: all.
        kinds: words for a kind of setting of which the claim speaks -> whether a setting is of that kind.
    """

    method: str
    text: str
    comparisons: tuple[Comparison, ...]
    where: Mapping[str, str]
    kinds: Mapping[str, Callable[[Mapping[str, Any]], bool]]


CLAIMS = (
    Claim(
        "mixbct",
        "unified over old models of varying quality",
        (Comparison("mixbct"),),
        {},
        {
            "a normal old model": lambda row: row["old_strength"] == "normal",
            "a weak old model": lambda row: row["old_strength"] == "weak",
            "an old model trained with softmax": lambda row: row["old_loss"] == "softmax",
            "an old model trained with ArcFace": lambda row: row["old_loss"] == "arcface",
        },
    ),
    Claim(
        "mixbct",
        "better than prototype methods when the old model is weak",
        tuple(Comparison("mixbct", other, ("new_new", "new_old")) for other in ("bct", "dual_tuning")),
        WEAK,
        {"a weak old model": lambda row: row["old_strength"] == "weak"},
    ),
    Claim(
        "mixbct",
        "without L2's cost to the new model",
        (
            Comparison("independent", "l2", ("new_new",)),
            Comparison("mixbct", "independent", ("new_new",), better=False),
        ),
        {},
        {},
    ),
    Claim(
        "dual_tuning",
        "compatible across networks and losses (reconstruction)",
        (Comparison("dual_tuning"),),
        {},
        {
            "two different networks": lambda row: row["old_backbone"] != row["new_backbone"],
            "two different losses": lambda row: row["old_loss"] != row["new_loss"],
        },
    ),
    Claim(
        "dual_tuning",
        "without sacrificing performance (reconstruction)",
        (Comparison("dual_tuning", "independent", ("new_new",), better=False),),
        {},
        {},
    ),
)
# Beyond the claims: what the runs say anyway.
QUESTIONS = (
    Comparison("best trained", "best adapter"),
    Comparison("mixbct", "bct"),
    Comparison("dual_tuning", "bct"),
    Comparison("bct", "independent", ("new_new",)),
    Comparison("l2", "independent", ("new_new",)),
    Comparison("mixbct, equal passes", "mixbct"),
    Comparison("mixbct, equal passes", "mixbct", ("new_new",)),
)


@dataclass(frozen=True)
class Part:
    """One comparison in one setting, in one test or two."""

    setting: str
    differences: dict[str, PairedComparison]  # "self-test MixBCT - BCT" -> its difference
    verdict: str

    @property
    def seeds(self) -> int:
        return min(one.seeds for one in self.differences.values())


@dataclass(frozen=True)
class Verdict:
    """A claim, what the runs say of it, and why."""

    claim: Claim
    verdict: str  # SHOWS, DOES_NOT_SHOW, NOT_DECIDABLE or NOT_RUN
    parts: tuple[Part, ...]  # the least favourable first
    missing: tuple[str, ...]

    @property
    def indicative(self) -> bool:
        """Whether the verdict rests on a setting that ran with one seed only.

        A claim shows when every part does, so one such part is enough; it is refuted or left open by any of
        its parts, so one part with repeated seeds is enough for the verdict to stand.
        """
        seeds = [part.seeds for part in self.parts if part.verdict == self.verdict]
        return bool(seeds) and (min(seeds) if self.verdict == SHOWS else max(seeds)) == 1

    @property
    def label(self) -> str:
        """The verdict for a table; with one seed it carries its limit in its own words."""
        if not self.indicative:
            return self.verdict
        if self.verdict == NOT_DECIDABLE:
            return "not decidable: one seed, and within the noise of the test identities"
        where = "on one seed" if all(part.seeds == 1 for part in self.parts) else "in part on one seed"
        return f"{self.verdict}, {where}: indicative only, the seeds' noise is unknown"

    @property
    def evidence(self) -> pd.DataFrame:
        """Every comparison, the least favourable first: setting, comparison, difference, seeds, verdict."""
        return pd.DataFrame(
            [
                {
                    "setting": part.setting,
                    "comparison": what,
                    "difference": changed(one),
                    "seeds": str(one.seeds),
                    "verdict": part.verdict.split(" within")[0],
                }
                for part in self.parts
                for what, one in part.differences.items()
            ],
            columns=["setting", "comparison", "difference", "seeds", "verdict"],
        )


def judge(differences: Sequence[PairedComparison], *, better: bool) -> str:
    """What differences say of "better than", or of "not worse than".

    Not worse: shows when a loss of the tolerance is ruled out; does not show when the interval lies below
    minus the tolerance. Better: shows when one interval lies above zero and no test is worse; does not show
    when a test is worse, or when a lead of the tolerance is ruled out in all. Otherwise not decidable.

    >>> lead = PairedComparison(0.05, 0.02, 0.08, seeds=3)
    >>> nothing = PairedComparison(-0.002, -0.005, 0.001, seeds=3)
    >>> judge([lead], better=True), judge([nothing], better=True), judge([nothing], better=False)
    ('shows', 'does not show', 'shows')
    """
    not_worse = all(one.low > -TOLERANCE for one in differences)  # nan, no interval, compares false
    if any(one.high < -TOLERANCE for one in differences):
        return DOES_NOT_SHOW
    if not better:
        return SHOWS if not_worse else NOT_DECIDABLE
    if all(one.high < TOLERANCE and not one.low > 0 for one in differences):
        return DOES_NOT_SHOW
    return SHOWS if not_worse and any(one.low > 0 for one in differences) else NOT_DECIDABLE


def try_claim(
    claim: Claim,
    runs: pd.DataFrame,
    metric: str = HEADLINE,
    *,
    budget: str = "steps",
) -> Verdict:
    """The verdict on a claim: one refuted part refutes it, an absent one leaves it not run.

    Args:
        claim: of CLAIMS, or your own.
        budget: "steps", or "passes": runs at equal backbone passes, where a method that embeds every row
            has none of its own because its runs at equal steps are just that.
    """
    runs = runs[runs["method"] != "old"]
    titles = setting_titles(runs)
    parts, tried, missing = [], [], [] if titles else ["every run"]
    for setting in dict.fromkeys(select(runs, **claim.where)["experiment_id"]):
        own = runs[runs["experiment_id"] == setting]
        for comparison in claim.comparisons:
            found, absent = _differences(comparison, own, metric, budget)
            if absent:
                missing += [f"{name} in {titles[setting]}" for name in absent]
            else:
                verdict = judge(list(found.values()), better=comparison.better)
                parts.append(Part(titles[setting], found, verdict))
                tried.append(own.iloc[0])
    missing += [words for words, kind in claim.kinds.items() if not any(kind(row) for row in tried)]
    severity = (DOES_NOT_SHOW, NOT_DECIDABLE, SHOWS)
    parts.sort(key=lambda part: (severity.index(part.verdict), min(d.low for d in part.differences.values())))
    verdicts = [part.verdict for part in parts]
    if DOES_NOT_SHOW in verdicts:
        verdict = DOES_NOT_SHOW
    elif missing or not parts:
        verdict = NOT_RUN
    else:
        verdict = NOT_DECIDABLE if NOT_DECIDABLE in verdicts else SHOWS
    return Verdict(claim, verdict, tuple(parts), tuple(dict.fromkeys(missing)))


def _differences(
    comparison: Comparison, runs: pd.DataFrame, metric: str, budget: str = "steps"
) -> tuple[dict[str, PairedComparison], list[str]]:
    """What is compared -> its difference in one setting; and what is not there."""
    metric = metric_of(runs, metric)
    who = _pick(runs, comparison.who, comparison.tests[0], metric, budget)
    other = _pick(runs, comparison.against or comparison.who, comparison.tests[0], metric, budget)
    sides = {comparison.who: who} | ({comparison.against: other} if comparison.against else {})
    absent = [method_title(name) for name, side in sides.items() if side.empty]
    if absent:
        return {}, absent
    found = {}
    for test in comparison.tests:
        if comparison.against is None:
            what, bound = f"{_title(who)} new/old - old/old", TESTS["old_old"]
        else:
            what, bound = f"{_WORDS[test]} {_title(who)} - {_title(other)}", TESTS[test]
        found[what] = difference(who, TESTS[test], other, bound, metric)
    if any(one.seeds == 0 for one in found.values()):
        return {}, [f"{' and '.join(map(method_title, sides))} with {metric} measured on a common seed"]
    return found, []


def _pick(runs: pd.DataFrame, name: str, test: str, metric: str, budget: str) -> pd.DataFrame:
    """The runs of one setting that stand for a method, or for the best of a kind by the score compared."""
    if name.startswith("best "):
        adapters = name == "best adapter"
        methods = [m for m in dict.fromkeys(runs["method"]) if m.startswith("adapter/") == adapters]
        variants = [main_variant(runs, m) for m in methods if m != "independent"]
        means = [
            np.mean([one.value for one in measured(v, *TESTS[test], metric).values()] or [-1])
            for v in variants
        ]
        return variants[int(np.argmax(means))] if variants and max(means) >= 0 else runs[:0]
    method, *passes = name.split(", equal ")
    steps = main_variant(runs, method)
    if passes:
        return main_variant(runs, method, "passes")
    if budget == "steps":
        return steps
    embeds_all = (
        not steps.empty and _images(steps).min() > 0.99 * _images(select(runs, method="independent")).max()
    )
    own = main_variant(runs, method, "passes")
    return steps if own.empty and embeds_all else own


def _images(runs: pd.DataFrame) -> pd.Series:
    return pd.Series(
        [one.value for one in measured(runs, None, None, "train/backbone_images").values()], dtype=float
    )


def _title(runs: pd.DataFrame) -> str:
    row = runs.iloc[0]
    return method_title(row["method"], row["budget"], row["method_options"])


def verdict_table(found: Mapping[str, Sequence[Verdict]]) -> pd.DataFrame:
    """Every claim and its verdict in a few words, one column a budget.

    Args:
        found: "steps" and perhaps "passes" -> verdicts of the same claims in the same order.
    """
    first, *_ = found.values()
    table = pd.DataFrame({"paper": [METHODS[one.claim.method].title for one in first]})
    table["claim"] = [one.claim.text for one in first]
    for budget, verdicts in found.items():
        table[budget] = [one.label for one in verdicts]
    return table


def findings_table(runs: pd.DataFrame, metric: str = HEADLINE) -> pd.DataFrame:
    """What the runs say of questions that no claim asks: one line for each with a setting that answers it.

    Returns:
        Columns: question; settings in which the difference is above zero, below, and not decided; the least
        and the largest difference, with its setting and who was chosen.
    """
    runs = with_adapters(runs[runs["method"] != "old"])
    lines = []
    for question in QUESTIONS:
        found = {}
        for setting, title in setting_titles(runs).items():
            own, _ = _differences(question, runs[runs["experiment_id"] == setting], metric)
            for what, one in own.items():
                found[f"{what.split(' ', 1)[1]}; {title}"] = one
        if found:
            values = sorted(found.items(), key=lambda item: item[1].value)
            above = sum(one.low > 0 for one in found.values())
            below = sum(one.high < 0 for one in found.values())
            asked = f"{_WORDS[question.tests[0]]}, {_named(question.who)} minus {_named(question.against)}"
            line = {"question": asked, "above zero": above, "below": below}
            line["not decided"] = len(found) - above - below
            for end, (where, one) in (("least", values[0]), ("most", values[-1])):
                line[end] = f"{changed(one)}\n{where}"
            lines.append({name: str(value) for name, value in line.items()})
    return pd.DataFrame(lines)


def _named(name: str) -> str:
    method, *passes = name.split(", equal ")
    return method_title(method, "passes" if passes else "steps")
