"""How a claim is tried: comparisons in every setting, and one verdict from all of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from companion.tables import (
    main_variant,
    method_title,
    paired_difference,
    select,
    setting_titles,
    variant_title,
)
from compat_lib.evaluation.paired import PairedComparison

SHOWS = "shows"
DOES_NOT_SHOW = "does not show"
NOT_DECIDABLE = "not decidable within the seeds' noise"
NOT_RUN = "not run"
TOLERANCE = 0.01  # absolute: one point of TAR or mAP
_PAIRS = {"new_new": "self-test", "new_old": "cross-test"}
_SEVERITY = {DOES_NOT_SHOW: 0, NOT_DECIDABLE: 1, SHOWS: 2}


@dataclass(frozen=True)
class Part:
    """One comparison in one setting, in one metric or two."""

    experiment_id: str
    setting: str
    differences: dict[str, PairedComparison]  # "MixBCT's new/old minus old/old" -> its difference
    verdict: str

    @property
    def seeds(self) -> int:
        return min(difference.seeds for difference in self.differences.values())

    @property
    def sentence(self) -> str:
        """The comparison with its numbers."""
        texts = []
        for what, d in self.differences.items():
            noise = f"{d.seeds} seed{'s' if d.seeds > 1 else ''}"
            noise += f", {d.draws} draws over identities" if d.draws else ""
            interval = f"[{d.low:+.3f}, {d.high:+.3f}]" if np.isfinite(d.low) else "(no interval)"
            texts.append(f"{what} {d.value:+.3f} {interval} (n = {noise})")
        return f"{self.setting}: {'; '.join(texts)}: {self.verdict.split(' within')[0]}"


@dataclass(frozen=True)
class Verdict:
    """A claim, what the runs say of it, and why."""

    claim: str
    paper: str
    verdict: str  # SHOWS, DOES_NOT_SHOW, NOT_DECIDABLE or NOT_RUN
    sentences: tuple[str, ...]  # why, the least favourable comparisons first
    parts: tuple[Part, ...]
    missing: tuple[str, ...]

    @property
    def evidence(self) -> str:
        """The sentences as one text."""
        return ". ".join(self.sentences) + "."

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


def judge(difference: PairedComparison, *, better: bool, tolerance: float = TOLERANCE) -> str:
    """What a difference says of "better than" or of "not worse than".

    Better: shows when the interval lies above zero; does not show when a lead of the tolerance is ruled out.
    Not worse: shows when a loss of the tolerance is ruled out; does not show when the interval lies below
    minus the tolerance. Otherwise, and without an interval, not decidable.

    >>> judge(PairedComparison(0.05, 0.02, 0.08, seeds=3), better=True)
    'shows'
    >>> nothing = PairedComparison(-0.002, -0.005, 0.001, seeds=3)
    >>> judge(nothing, better=False), judge(nothing, better=True)
    ('shows', 'does not show')
    """
    if not np.isfinite([difference.low, difference.high]).all():
        return NOT_DECIDABLE
    if better:
        shown, refuted = difference.low > 0, difference.high < tolerance
    else:
        shown, refuted = difference.low > -tolerance, difference.high < -tolerance
    return SHOWS if shown else DOES_NOT_SHOW if refuted else NOT_DECIDABLE


def judge_overall(differences: list[PairedComparison], *, tolerance: float = TOLERANCE) -> str:
    """ "Better" in several metrics at once: better in one of them, and not worse in any.

    >>> lead = PairedComparison(0.05, 0.02, 0.08, seeds=3)
    >>> loss = PairedComparison(-0.05, -0.08, -0.02, seeds=3)
    >>> judge_overall([lead, loss]), judge_overall([lead, lead])
    ('does not show', 'shows')
    """
    better = [judge(difference, better=True, tolerance=tolerance) for difference in differences]
    not_worse = [judge(difference, better=False, tolerance=tolerance) for difference in differences]
    if DOES_NOT_SHOW in not_worse or set(better) == {DOES_NOT_SHOW}:
        return DOES_NOT_SHOW
    return SHOWS if SHOWS in better and set(not_worse) == {SHOWS} else NOT_DECIDABLE


class Trial:
    """The comparisons of one claim, collected setting by setting.

    Args:
        frame: from tables.collect.
        metric: name without the pair.
        budget: "steps", or "passes": runs at equal backbone passes, where a method that embeds every row
            has none of its own because its runs at equal steps are just that.
        tolerance: absolute difference that counts as none.
    """

    def __init__(self, frame: pd.DataFrame, metric: str, budget: str, tolerance: float) -> None:
        self.frame = frame[frame["method"] != "old"]
        self.metric, self.budget, self.tolerance = metric, budget, tolerance
        self.titles = setting_titles(self.frame)
        self.parts: list[Part] = []
        self.missing: list[str] = []
        if not self.titles:
            self.missing.append("every run")

    def settings(self, **fields: Any) -> list[str]:
        """Experiments that ran, those with the given configuration fields."""
        if self.frame.empty:  # it has no columns for the fields
            return []
        return list(dict.fromkeys(select(self.frame, **fields)["experiment_id"]))

    def tested(self) -> list[Mapping[str, Any]]:
        """The configuration of every setting in which a comparison was possible."""
        names = {part.experiment_id for part in self.parts}
        return [select(self.frame, experiment_id=name).iloc[0].to_dict() for name in names]

    def require(self, words: str, there: bool) -> None:
        """Note a kind of setting that the claim speaks of and that did not run."""
        if not there:
            self.missing.append(words)

    def runs(self, experiment: str, method: str) -> pd.DataFrame:
        """Runs of a method's main variant in one setting, at the trial's budget."""
        own = self.frame[self.frame["experiment_id"] == experiment]
        steps, passes = (main_variant(own, method, budget) for budget in ("steps", "passes"))
        if self.budget == "steps":
            return steps
        return steps if passes.empty and self._embeds_every_row(steps) else passes

    def _embeds_every_row(self, runs: pd.DataFrame) -> bool:
        if runs.empty or "train/backbone_images" not in runs:
            return False
        oracle = select(self.frame, experiment_id=runs["experiment_id"].iloc[0], method="independent")
        images = oracle["train/backbone_images"].max()
        return bool((runs["train/backbone_images"] > 0.99 * images).all())

    def criterion(self, experiment: str, method: str) -> None:
        """Compare a method's new/old with old/old."""
        runs = self.runs(experiment, method)
        difference = paired_difference(runs, f"new_old/{self.metric}", runs, f"old_old/{self.metric}")
        what = f"{variant_title(runs, method)} new/old - old/old"
        if self._there(experiment, {method: runs}, {what: difference}):
            self._add(
                experiment, {what: difference}, judge(difference, better=True, tolerance=self.tolerance)
            )

    def compare(self, experiment: str, a: str, b: str, pair: str, *, better: bool) -> None:
        """Compare two methods in one pair: is a better than b (or, with better=False, not worse)."""
        differences = self._differences(experiment, a, b, (pair,))
        for difference in differences.values():
            verdict = judge(difference, better=better, tolerance=self.tolerance)
            self._add(experiment, differences, verdict)

    def compare_overall(self, experiment: str, a: str, b: str) -> None:
        """Compare two methods in self-test and cross-test at once."""
        differences = self._differences(experiment, a, b, ("new_new", "new_old"))
        if differences:
            verdict = judge_overall(list(differences.values()), tolerance=self.tolerance)
            self._add(experiment, differences, verdict)

    def _differences(
        self, experiment: str, a: str, b: str, pairs: tuple[str, ...]
    ) -> dict[str, PairedComparison]:
        runs = {name: self.runs(experiment, name) for name in (a, b)}
        result = {}
        for pair in pairs:
            what = f"{_PAIRS[pair]} {variant_title(runs[a], a)} - {variant_title(runs[b], b)}"
            column = f"{pair}/{self.metric}"
            result[what] = paired_difference(runs[a], column, runs[b], column)
        return result if self._there(experiment, runs, result) else {}

    def _there(
        self, experiment: str, runs: Mapping[str, pd.DataFrame], differences: Mapping[str, PairedComparison]
    ) -> bool:
        absent = [method_title(name) for name, rows in runs.items() if rows.empty]
        if absent:
            self.missing += [f"{name} in {self.titles[experiment]}" for name in absent]
            return False
        if any(difference.seeds == 0 for difference in differences.values()):
            names = " and ".join(method_title(name) for name in runs)
            self.missing.append(
                f"{names} with {self.metric} measured on a common seed in {self.titles[experiment]}"
            )
            return False
        return True

    def _add(self, experiment: str, differences: dict[str, PairedComparison], verdict: str) -> None:
        self.parts.append(Part(experiment, self.titles[experiment], differences, verdict))

    def verdict(self, claim: str, paper: str) -> Verdict:
        """The verdict of all parts: one refuted part refutes the claim, an absent one leaves it not run."""
        found = [part.verdict for part in self.parts]
        missing = tuple(dict.fromkeys(self.missing))
        if DOES_NOT_SHOW in found:
            verdict = DOES_NOT_SHOW
        elif missing or not found:
            verdict = NOT_RUN
        else:
            verdict = NOT_DECIDABLE if NOT_DECIDABLE in found else SHOWS
        return Verdict(claim, paper, verdict, self._evidence(missing), tuple(self.parts), missing)

    def _evidence(self, missing: tuple[str, ...]) -> tuple[str, ...]:
        sentences = []
        if self.parts:
            budget = "steps" if self.budget == "steps" else "backbone passes"
            counts = [
                f"{sum(part.verdict == verdict for part in self.parts)} {verdict.split(' within')[0]}"
                for verdict in (SHOWS, DOES_NOT_SHOW, NOT_DECIDABLE)
            ]
            sentences.append(
                f"{self.metric} at equal {budget}; {len(self.parts)} comparisons: {', '.join(counts)}"
            )
            parts = sorted(
                self.parts,
                key=lambda part: (_SEVERITY[part.verdict], min(d.low for d in part.differences.values())),
            )
            sentences += [part.sentence for part in parts[:4]]
            if len(parts) > 4:
                sentences.append(f"{len(parts) - 4} comparisons more, none less favourable")
            if any(part.seeds == 1 for part in self.parts):
                sentences.append(
                    "Where n is 1 seed the training was not repeated: the interval holds the noise of the "
                    "test identities only, and the result is indicative at the most"
                )
        if missing:
            sentences.append(f"Not run: {'; '.join(missing)}")
        return tuple(sentences)
