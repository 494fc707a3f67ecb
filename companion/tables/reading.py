"""What the master notebook reads: the user's own runs, and the committed runs of the authors."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from companion.tables.frames import collect
from companion.tables.rows import self_cross
from compat_lib.config import ExperimentConfig
from compat_lib.runs import Run

YOURS, AUTHORS = "your runs", "the authors' runs"


@dataclass(frozen=True)
class Reading:
    """Runs from two places, never mixed within one experiment.

    Args:
        frame: as from collect, with a column "place" (YOURS or AUTHORS).
        expected: configurations that should have run, or None: whatever is there.
        left_out: number of the user's complete runs that were not expected.
    """

    frame: pd.DataFrame
    expected: tuple[ExperimentConfig, ...] | None
    left_out: int

    @property
    def experiments(self) -> list[str]:
        """Identifiers of the expected experiments, then of those that are there besides."""
        names = [config.experiment_id for config in self.expected or ()]
        return list(dict.fromkeys([*names, *self.frame["experiment_id"]]))

    def rows(self, metric: str) -> pd.DataFrame:
        """Rows of self_cross for every experiment, missing runs of expected experiments among them.

        Raises:
            ValueError: "no run has the metric '…'; there are …".
        """
        known = dict.fromkeys(
            name.removeprefix("new_new/") for name in self.frame if name.startswith("new_new/")
        )
        known = [name for name in known if "/" not in name]
        if known and metric not in known:
            raise ValueError(f"no run has the metric {metric!r}; there are {', '.join(known)}")
        if self.expected is None:
            return self_cross(self.frame, metric)
        known = self.frame["experiment_id"].isin({config.experiment_id for config in self.expected})
        parts = [self_cross(self.frame[known], metric, self.expected), self_cross(self.frame[~known], metric)]
        parts = [part for part in parts if len(part)]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def place(self, experiment_id: str) -> str | None:
        """Where the runs of an experiment come from; None when there is none."""
        places = self.frame.loc[self.frame["experiment_id"] == experiment_id, "place"]
        return None if places.empty else str(places.iloc[0])

    def count(self, place: str) -> int:
        """Number of complete runs from a place, without old models."""
        return int(((self.frame["place"] == place) & (self.frame["method"] != "old")).sum())

    def note(self, experiment_id: str) -> str:
        """Whose runs an experiment's tables show, of which networks, on how many test identities."""
        runs = self.frame[(self.frame["experiment_id"] == experiment_id) & (self.frame["method"] != "old")]
        if runs.empty:
            return f"Not run: {experiment_id}."
        row = runs.iloc[0]
        place = str(row["place"])
        identities = (
            "" if pd.isna(row["test_identities"]) else f"; {row['test_identities']:.0f} test identities"
        )
        return (
            f"{place[0].upper()}{place[1:]}; {row['old_backbone']} of {row['old_epochs']} epochs to "
            f"{row['new_backbone']} of {row['epochs']} epochs{identities}; `{experiment_id}`."
        )

    def summary(self, command: str) -> str:
        """What was found, in a few sentences; with nothing to show, what to do.

        Args:
            command: what makes the runs.
        """
        if self.frame.empty:
            return (
                f"There is nothing to show yet: no complete run is in your runs folder or among the authors' "
                f"results. Run `{command}`, then run this notebook again."
            )
        sentences = []
        if self.expected is not None:
            there = len(self.expected) - self.missing
            sentences.append(
                f"{there} of the preset's {len(self.expected)} runs are there, {self.missing} missing"
            )
            if self.missing:
                sentences[0] += f" (`{command}` makes what is missing and nothing else)"
        sentences.append(
            f"Runs shown: {self.count(YOURS)} of your own, {self.count(AUTHORS)} made by the authors (folder "
            "results); an experiment is taken from one of the two, never from both"
        )
        if self.left_out:
            runs = (
                "complete run of yours that is" if self.left_out == 1 else "complete runs of yours that are"
            )
            sentences.append(f"Left out: {self.left_out} {runs} not in the preset")
        return ". ".join(sentences) + "."

    @property
    def missing(self) -> int:
        """Number of expected runs that are in neither place."""
        there = set(zip(self.frame["experiment_id"], self.frame["run_id"], strict=True))
        return sum((config.experiment_id, config.run_id) not in there for config in self.expected or ())


def read_runs(
    runs_root: str | Path,
    results_root: str | Path | None = None,
    expected: Iterable[ExperimentConfig] | None = None,
) -> Reading:
    """The user's runs, and those of the authors for every experiment that the user has not begun.

    An experiment is taken from one place only: a gain that sets a model of one machine against an oracle of
    another would be paired with another old model.

    Args:
        runs_root: folder of the user's run folders; it may be absent.
        results_root: folder of committed run folders, or None.
        expected: the experiments of a preset; other runs of the user are counted and left out. None: all.
    """
    expected = None if expected is None else tuple(expected)
    yours, left_out = collect(runs_root), 0
    if expected is not None:
        wanted = {(config.experiment_id, config.run_id) for config in expected}
        wanted |= {(config.experiment_id, config.old_folder.name) for config in expected}
        pairs = zip(yours["experiment_id"], yours["run_id"], strict=True)
        mask = pd.Series([pair in wanted for pair in pairs], index=yours.index, dtype=bool)
        left_out = int((~mask & (yours["method"] != "old")).sum())
        yours = yours[mask]
    begun = set(yours.loc[yours["method"] != "old", "experiment_id"])
    yours = yours[yours["experiment_id"].isin(begun)]  # an old model alone has nothing to compare
    authors = collect() if results_root is None else collect(results_root)
    authors = authors[~authors["experiment_id"].isin(begun)]
    parts = [part.assign(place=name) for part, name in ((yours, YOURS), (authors, AUTHORS)) if len(part)]
    frame = pd.concat(parts, ignore_index=True) if parts else collect().assign(place=[])
    return Reading(frame, expected, left_out)


def provenance_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Who made the runs: one row for each place, hardware, software and commit.

    Args:
        frame: of a Reading.

    Returns:
        Text columns "runs" (whose and how many, old models among them, the minutes that they trained together
        as far as they are kept, and the days on which they ended), "hardware" and "software".
    """
    groups: dict[tuple[str, str, str], list[tuple[float | None, str]]] = {}
    for row in frame.to_dict("records"):
        environment = Run(Path(row["folder"])).environment
        key = (row["place"], _hardware(environment), _software(environment))
        seconds = row.get("train/seconds")
        item = (None if pd.isna(seconds) else float(seconds), str(environment.get("finished") or "")[:10])
        groups.setdefault(key, []).append(item)
    lines = []
    for (place, hardware, software), items in groups.items():
        days = sorted({day for _, day in items if day})
        when = "\n" + (days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}") if days else ""
        when = when.replace("-", "\u2011")  # a date stays on one line however narrow the page is
        runs = f"{place}: {len(items)}\n{_time_of_training([seconds for seconds, _ in items])}{when}"
        lines.append({"runs": runs, "hardware": hardware, "software": software})
    return pd.DataFrame(lines, columns=["runs", "hardware", "software"])


def _time_of_training(seconds: list[float | None]) -> str:
    """The time of several runs together; of those that have kept theirs."""
    kept = [one for one in seconds if one is not None]
    if not kept:
        return "time of training not kept"
    lost = f" ({len(seconds) - len(kept)} of {len(seconds)} not kept)" if len(kept) < len(seconds) else ""
    return f"{sum(kept) / 60:,.1f} minutes of training{lost}"


def mixed_code(frame: pd.DataFrame) -> str:
    """A warning where runs of one experiment come from several commits, or the empty text.

    Runs are reused by what their configuration says, and a configuration does not know the code.
    """
    mixed = []
    for experiment, runs in frame.groupby("experiment_id", sort=False):
        environments = [Run(Path(folder)).environment for folder in runs["folder"]]
        commits = {str(item.get("commit")).split("+")[0] for item in environments if item.get("commit")}
        mixed += [f"{experiment} ({len(commits)} commits)"] if len(commits) > 1 else []
    if not mixed:
        return ""
    return (
        f"Made by more than one version of the code: {'; '.join(mixed)}. Where the versions differ in what "
        "they compute, such runs must not be compared: delete the experiment's folder and run it again."
    )


def _hardware(environment: Mapping[str, Any]) -> str:
    if not environment:
        return "not recorded"
    device = str(environment.get("device") or "cpu")
    if device != "cpu" and environment.get("accelerator"):
        return str(environment["accelerator"])
    cores, threads = environment.get("cores", "?"), environment.get("threads", "?")
    return f"{environment.get('processor', 'unknown processor')}, {cores} cores, threads used: {threads}"


def _software(environment: Mapping[str, Any]) -> str:
    if not environment:
        return "not recorded"
    commit = str(environment.get("commit") or "unknown").replace("+changes", "\nwith uncommitted changes")
    python, torch = environment.get("python", "?"), environment.get("torch", "?")
    return f"Python {python}\ntorch {torch}\ncommit {commit}"
