"""The papers' claims as data (claims.yml), and one judge for all of them.

A claim is tried in every setting that ran, by paired differences with 95 % intervals that know seeds and test
identities. One seed decides nothing: what it leans to is said beside the verdict. A difference below the
tolerance, one point of the metric, counts as none.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from companion import results
from companion.results import HEADLINE, TESTS
from companion.tables import changed
from companion.titles import method_title, options_of, setting_titles
from compat_lib.config import project_path
from compat_lib.evaluation.paired import PairedComparison
from compat_lib.losses import METHODS
from compat_lib.presets import load_preset

HOLDS = "holds"
DOES_NOT_HOLD = "does not hold at this scale"
NOT_DECIDABLE = "not decidable"
NOT_RUN = "not run"
SEVERITY = (DOES_NOT_HOLD, NOT_DECIDABLE, HOLDS)
TOLERANCE = 0.01  # absolute: one point of TAR or mAP, or a hundredth of the oracle's training time
_WORDS = {"new/new": "self-test", "new/old": "cross-test", "time": "training time"}


@dataclass(frozen=True)
class Comparison:
    """ "who > against in TESTS", as claims.yml says."""

    who: str
    against: str
    tests: tuple[str, ...]
    better: bool  # False: not worse

    @classmethod
    def read(cls, text: str) -> "Comparison":
        """
        >>> Comparison.read("mixbct >= independent in new/new")
        Comparison(who='mixbct', against='independent', tests=('new/new',), better=False)
        """
        who, sign, against, tests = re.fullmatch(r"(.+?) (>=?) (.+) in (.+)", text).groups()
        return cls(who, against, tuple(tests.split(" and ")), sign == ">")


CLAIMS: tuple[dict[str, Any], ...] = tuple(
    row | {"decides": [Comparison.read(text) for text in row["decides"]]}
    for row in yaml.safe_load(Path(__file__).with_name("claims.yml").read_text(encoding="utf-8"))
)


@dataclass(frozen=True)
class Verdict:
    """A claim, what the runs say of it, and why."""

    claim: Mapping[str, Any]
    evidence: pd.DataFrame  # setting, comparison, difference (PairedComparison), seeds, verdict; worst first
    missing: tuple[str, ...]

    @property
    def leaning(self) -> str:
        """What the differences say if one seed were enough: one refuted part refutes, an absent one leaves
        the claim not run, and so does a kind of setting that it needs."""
        found = set(self.evidence["verdict"])
        if {need["kind"] for need in self.claim.get("needs", ())} & set(self.missing):
            return NOT_RUN
        refuted = DOES_NOT_HOLD in found
        return NOT_RUN if not refuted and (self.missing or not found) else min(found, key=SEVERITY.index)

    @property
    def seeds(self) -> int:
        """On which the leaning rests: a claim holds by its weakest part and fails by its strongest."""
        seeds = self.evidence.loc[self.evidence["verdict"] == self.leaning, "seeds"]
        return 0 if seeds.empty else int(seeds.min() if self.leaning == HOLDS else seeds.max())

    @property
    def verdict(self) -> str:
        """The leaning, unless it rests on one seed."""
        return NOT_DECIDABLE if self.leaning in (HOLDS, DOES_NOT_HOLD) and self.seeds == 1 else self.leaning

    @property
    def label(self) -> str:
        """The verdict for a table, with the number of seeds and with what one seed leans to."""
        if self.verdict == NOT_RUN:
            return NOT_RUN
        seeds = f"{self.seeds} seed{'s' * (self.seeds != 1)}"
        if self.verdict in (HOLDS, DOES_NOT_HOLD):
            found = (self.evidence["verdict"] == self.verdict) & (self.evidence["seeds"] > 1)
            settings = found.groupby(self.evidence["setting"]).any()
            where = "test" if self.claim.get("every_part") else "setting"
            share = f"in {settings.sum()} of " if self.verdict == DOES_NOT_HOLD else ""
            seeds += f", {share}{len(settings)} {where}{'s' * (len(settings) != 1)}"
        if self.verdict != NOT_DECIDABLE:
            return f"{self.verdict} ({seeds})"
        lean = f"; on this one it {self.leaning.split(' at')[0]}" if self.leaning != NOT_DECIDABLE else ""
        return f"{NOT_DECIDABLE} with {seeds}{lean}"

    @property
    def why(self) -> str:
        """What was tried and the likely reason, where the claim seems not to hold."""
        return self.claim["failing"].strip() if self.leaning == DOES_NOT_HOLD else ""

    @property
    def table(self) -> pd.DataFrame:
        """The evidence as text; one seed decides nothing."""
        verdicts = self.evidence["verdict"].where(self.evidence["seeds"] > 1, NOT_DECIDABLE)
        differences = self.evidence["difference"].map(changed)
        return self.evidence.assign(difference=differences, verdict=verdicts).astype(str)


def judge(differences: Sequence[PairedComparison], *, better: bool) -> str:
    """What differences say of "better than", or of "not worse than".

    Not worse: holds when a loss of the tolerance is ruled out; does not when the interval lies below minus
    the tolerance. Better: holds when one interval lies above zero and no test is worse; does not when a test
    is worse, or when a lead of the tolerance is ruled out in all. Otherwise not decidable.

    >>> lead = PairedComparison(0.05, 0.02, 0.08, seeds=3)
    >>> nothing = PairedComparison(-0.002, -0.005, 0.001, seeds=3)
    >>> judge([lead], better=True), judge([nothing], better=False)
    ('holds', 'holds')
    """
    not_worse = all(one.low > -TOLERANCE for one in differences)  # nan, no interval, compares false
    if any(one.high < -TOLERANCE for one in differences):
        return DOES_NOT_HOLD
    if not better:
        return HOLDS if not_worse else NOT_DECIDABLE
    if all(one.high < TOLERANCE and not one.low > 0 for one in differences):
        return DOES_NOT_HOLD
    return HOLDS if not_worse and any(one.low > 0 for one in differences) else NOT_DECIDABLE


def try_claim(
    claim: Mapping[str, Any], runs: pd.DataFrame, metric: str = HEADLINE, *, budget: str = "steps"
) -> Verdict:
    """The verdict on a claim, of CLAIMS or your own, from every setting of which it speaks.

    With the budget "passes" by runs at equal backbone passes, where a method that embeds every row has none
    of its own because its runs at equal steps are just that.
    """
    runs = runs[runs["method"] != "old"]
    titles = setting_titles(runs)
    runs = runs.loc[[_fits(row, claim.get("where", {})) for row in runs.to_dict("records")]]
    declared = decided_by(claim)
    decisive = [run in declared for run in zip(runs["experiment_id"], runs["seed"], strict=True)]
    runs = runs.loc[decisive] if any(decisive) else runs  # what is there, where its presets have not run
    rows, tried, missing = [], [], [] if titles else ["every run"]
    for setting in runs.drop_duplicates("experiment_id").to_dict("records"):
        experiment = setting["experiment_id"]
        own, title = results.select(runs, experiment_id=experiment), titles[experiment]
        looks = {title: own}
        others = results.parts(own) if claim.get("every_part") else ()
        looks |= {f"{title}, {part}": results.on(own, part) for part in others}
        for title, look in looks.items():
            lacking: list[str] = []
            for comparison in claim["decides"]:
                found, absent = compared(comparison, look, metric, budget)
                lacking += absent
                verdict = judge(list(found.values()), better=comparison.better) if found else None
                rows += [(title, what, one, one.seeds, verdict) for what, one in found.items()]
                tried += [setting] * bool(found)
            missing += [f"{', '.join(dict.fromkeys(lacking))} in {title}"] * bool(lacking)
    missing += [need["kind"] for need in claim.get("needs", ()) if not _met(need, tried)]
    table = pd.DataFrame(rows, columns=["setting", "comparison", "difference", "seeds", "verdict"])
    worst = [(SEVERITY.index(row[-1]), row[2].low) for row in rows]
    table = table.loc[sorted(table.index, key=lambda k: worst[k])].reset_index(drop=True)
    return Verdict(claim, table, tuple(dict.fromkeys(missing)))


def decided_by(claim: Mapping[str, Any]) -> set[tuple[str, int]]:
    """Experiment and seed of the runs in the presets that decide a claim."""
    paths = [project_path("configs") / f"{name}.yml" for name in claim["presets"]]
    there = [load_preset(path).experiments for path in paths if path.is_file()]
    return {(config.experiment_id, config.seed) for experiments in there for config in experiments}


def _fits(row: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Whether a run has these fields; a list stands for any of its values, "outliers" for any kind."""
    known = row | options_of(row, "dataset_options")
    known["outliers"] = any((value or 0) > 0 for name, value in known.items() if name.endswith("outliers"))
    asked = {name: value if isinstance(value, list) else [value] for name, value in where.items()}
    return all(known.get(name) in values for name, values in asked.items())


def _met(need: Mapping[str, Any], tried: Sequence[Mapping[str, Any]]) -> bool:
    where = {name: value for name, value in need.items() if name not in ("kind", "differ", "pairs")}
    a, b = need.get("differ", ("experiment_id", ""))
    pairs = {(row[a], row.get(b)) for row in tried if _fits(row, where) and row[a] != row.get(b)}
    return len(pairs) >= need.get("pairs", 1)


def compared(
    comparison: Comparison, runs: pd.DataFrame, metric: str = HEADLINE, budget: str = "steps"
) -> tuple[dict[str, PairedComparison], list[str]]:
    """What is compared -> its difference in one setting; and what is not there."""
    metric = results.metric_of(runs, metric)
    names = [name for name in (comparison.who, comparison.against) if name != "old/old"]
    sides = [pick(runs, name, budget) for name in names]
    absent = [titled(name) for name, side in zip(names, sides, strict=True) if side.empty]
    if absent:
        return {}, absent
    titles = [method_title(*side.iloc[0][["method", "budget", "method_options"]]) for side in sides]
    found = {}
    for test in comparison.tests:
        pair = TESTS.get(test.replace("/", "_"))
        if test == "time":
            oracle = results.main_variant(runs, "independent")
            one = results.paired(*(results.relative_costs(side, oracle)[0] for side in sides))
        elif len(sides) == 1:
            one = results.difference(sides[0], pair, sides[0], TESTS["old_old"], metric)
        else:
            one = results.difference(sides[0], pair, sides[1], pair, metric)
        found[f"{_WORDS[test]} {' - '.join([*titles, 'old/old'][:2])}"] = one
    if any(one.seeds == 0 for one in found.values()):
        measure = metric if "time" not in comparison.tests else "training time"
        return {}, [f"{' and '.join(map(titled, names))} with {measure} measured on a common seed"]
    return found, []


def pick(runs: pd.DataFrame, name: str, budget: str = "steps") -> pd.DataFrame:
    """The runs of one setting that a name of claims.yml means: those of a method."""
    method, options, passes = parsed(name)
    if options is not None:
        return results.select(runs, method=method, budget=budget, method_options=options)
    if passes or budget == "passes":
        own = results.main_variant(runs, method, "passes")
        if passes or len(own):
            return own
    steps = results.main_variant(runs, method)
    if budget == "steps":
        return steps
    images = results.relative_costs(steps, results.main_variant(runs, "independent"))[1].values()
    return steps if min((one.value for one in images), default=0) > 0.99 else steps[:0]  # embeds every row


def parsed(name: str) -> tuple[str, str | None, bool]:
    """Method, options as `results` keeps them, and whether its runs at equal passes are meant."""
    method, options, passes = re.fullmatch(r"([\w/-]+)(?:\((.+)\))?(, equal passes)?", name).groups()
    if options is not None:
        values = yaml.safe_load(f"{{{options.replace('=', ': ')}}}")
        options = results.row_of({"method": method, "method_options": values})["method_options"]
    return method, options, bool(passes)


def titled(name: str) -> str:
    """A name of claims.yml for reading."""
    method, options, passes = parsed(name)
    return method_title(method, "passes" if passes else "steps", options or "{}")


def verdict_table(found: Mapping[str, Sequence[Verdict]]) -> pd.DataFrame:
    """Every claim and its verdict in a few words, one column a budget: "steps" and perhaps "passes"."""
    first = next(iter(found.values()))
    rows = [(one.claim["id"], METHODS[one.claim["method"]].title, one.claim["claim"]) for one in first]
    table = pd.DataFrame(rows, columns=["id", "paper", "claim"])
    table["decided by"] = [", ".join(one.claim["presets"]) for one in first]
    return table.assign(**{budget: [one.label for one in verdicts] for budget, verdicts in found.items()})
