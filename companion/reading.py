"""Whose runs are shown: the user's own, and the committed runs of the authors, never mixed."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from companion.results import HEADLINE, collect, on, scores
from compat_lib.config import ExperimentConfig
from compat_lib.deploy.check_inputs import FEWEST
from compat_lib.evaluation.records import metric_title

ROUNDING = 1e-4  # mAP of one model on two machines differs by less
YOURS, AUTHORS = "your runs", "the authors' runs"


@dataclass(frozen=True)
class Reading:
    """Runs from two places, never mixed within one experiment."""

    runs: pd.DataFrame  # as from collect, with a column "place" (YOURS or AUTHORS)
    expected: tuple[ExperimentConfig, ...] | None  # what should have run; None: whatever is there
    left_out: int  # complete runs of the user's that were not expected

    def rows(self, metric: str = HEADLINE, part: str | None = None) -> pd.DataFrame:
        """Rows of `scores` for every experiment, missing runs of expected experiments among them.

        They may be by another part of the test images, see `results.parts`. A metric that no run has is a
        ValueError.
        """
        pairs = self.runs.loc[self.runs["protocol"] == "pairs", "run"]  # the others have metrics of their own
        known = {one.metric for run in pairs for one in run.metrics.select(query="new", gallery="new")}
        if known and metric not in known:
            raise ValueError(f"no run has the metric {metric!r}; there are {', '.join(sorted(known))}")
        return scores(on(self.runs, part) if part else self.runs, metric, self.expected)

    def place(self, experiment_id: str) -> str | None:
        """Where the runs of an experiment come from; None when there is none."""
        places = self.runs.loc[self.runs["experiment_id"] == experiment_id, "place"]
        return None if places.empty else str(places.iloc[0])

    def count(self, place: str) -> int:
        """Number of complete runs from a place, without old models."""
        return int(((self.runs["place"] == place) & (self.runs["method"] != "old")).sum())

    @property
    def missing(self) -> int:
        """Number of expected runs that are in neither place."""
        there = set(zip(self.runs["experiment_id"], self.runs["run_id"], strict=True))
        return sum((config.experiment_id, config.run_id) not in there for config in self.expected or ())

    @property
    def mixed(self) -> list[str]:
        """Experiments whose runs of one seed differ in old/old, and so had several old models."""
        bars = [run.metrics.find("old", "old", "map") for run in self.runs["run"]]
        bars = pd.Series([one.value if one else None for one in bars], self.runs.index, dtype=float)
        groups = bars.groupby([self.runs["experiment_id"], self.runs["seed"]])
        apart = groups.max() - groups.min() > ROUNDING
        return sorted({experiment for experiment, _ in apart[apart].index})

    def note(self, experiment_id: str) -> str:
        """Whose runs an experiment's tables show, of which networks, on how many test identities."""
        own = self.runs[(self.runs["experiment_id"] == experiment_id) & (self.runs["method"] != "old")]
        if own.empty:
            return f"Not run: {experiment_id}."
        row = own.iloc[0]
        old = f"{row['old_backbone']} of {row['old_epochs']} epochs"
        if isinstance(row.get("old_features"), str):
            old = f"the features of {Path(row['old_features']).name}"
        new = f"{row['new_backbone']} of {row['epochs']} epochs; {row['test_identities']} test identities"
        return f"{row['place'].capitalize()}; {old} to {new}; `{experiment_id}`."

    def summary(self, command: str) -> str:
        """What was found, in a few sentences; with nothing to show, the command that makes runs."""
        if self.runs.empty:
            return f"There is nothing to show yet: run `{command}`, then run this notebook again."
        text = (
            f"Runs shown: {self.count(YOURS)} of your own, {self.count(AUTHORS)} made by the authors "
            "(folder results); an experiment is taken from one of the two, never from both."
        )
        if self.missing:
            text += f" Missing: {self.missing} of the preset's {len(self.expected)} (`{command}` makes them)."
        if self.left_out:
            text += f" Left out, because not in the preset: {self.left_out} of yours."
        small = self.runs[(self.runs["protocol"] == "pairs") & (self.runs["test_identities"] < FEWEST)]
        if len(small):
            text += (
                f" Too few test identities for {metric_title(HEADLINE)}, which needs {FEWEST}: "
                f"{', '.join(dict.fromkeys(small['experiment_id']))}. Look at mAP (of a preset's pages: "
                "`notebooks: {metric: map}`)."
            )
        if self.mixed:
            text += (
                f" Not to be compared: the runs of {', '.join(self.mixed)}, whose old/old differs: they "
                "had several old models, as runs of two machines have; delete those of one, and run it again."
            )
        return text

    def without_chains(self) -> "Reading":
        """The same without the runs of chains: their old model is an upgrade already, not a first model."""
        later = {config.experiment_id for config in self.expected or () if config.old_run}
        chained = self.runs["experiment_id"].isin(later) | self.runs["old_run"].notna()
        first = None if self.expected is None else tuple(c for c in self.expected if not c.old_run)
        return replace(self, runs=self.runs[~chained].reset_index(drop=True), expected=first)


def read_runs(
    runs_root: str | Path,
    results_root: str | Path | None = None,
    expected: Iterable[ExperimentConfig] | None = None,
) -> Reading:
    """The user's runs, and those of the authors for every experiment that the user has not begun.

    An experiment is taken from one place only: a gain that sets a model of one machine against an oracle of
    another would be paired with another old model. Either folder may be absent, results_root only as None.
    With `expected`, the experiments of a preset, other runs of the user are counted and left out.
    """
    if results_root and not Path(results_root).is_dir():
        raise FileNotFoundError(f"results_root is {results_root}, which is no folder; None leaves it out")
    expected = None if expected is None else tuple(expected)
    yours, left_out = collect(runs_root), 0
    if expected is not None:
        wanted = {(one.experiment_id, run) for one in expected for run in (one.run_id, one.old_folder.name)}
        pairs = zip(yours["experiment_id"], yours["run_id"], strict=True)
        mask = pd.Series([pair in wanted for pair in pairs], index=yours.index, dtype=bool)
        left_out = int((~mask & (yours["method"] != "old")).sum())
        yours = yours[mask]
    begun = set(yours.loc[yours["method"] != "old", "experiment_id"])
    yours = yours[yours["experiment_id"].isin(begun)]  # an old model alone has nothing to compare
    authors = collect(results_root) if results_root else collect()
    authors = authors[~authors["experiment_id"].isin(begun)]
    parts = [part.assign(place=name) for part, name in ((yours, YOURS), (authors, AUTHORS)) if len(part)]
    runs = pd.concat(parts, ignore_index=True) if parts else collect().assign(place=[])
    return Reading(runs, expected, left_out)
