"""The search for the methods' options: its trials, and what its lines say.

The declaration is configs/tuning/search.yml, a line of results/tuning/<dataset>.csv is one trained trial.
`workflow/tune.py` trains, `workflow/readme.py` writes docs/choosing_options.md.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from compat_lib.config import ExperimentConfig
from compat_lib.losses import METHODS, method_options

COLUMNS = (
    *("method", "trial", "options", "dataset", "seed", "run", "new_old", "new_new", "old_old", "oracle"),
    *("failure", "epochs", "processor_seconds", "commit", "processor", "threads", "date"),
)
MEASURED = ("new_old", "new_new", "old_old", "oracle")
SECTIONS = ("description", "trials", "finalists", "seeds", "defaults", "datasets", "methods")


@dataclass(frozen=True)
class Trial:
    """One training of the search; number 0 has the defaults of the day when the search was declared."""

    method: str
    number: int
    config: ExperimentConfig


@dataclass(frozen=True)
class Search:
    """What is declared: how many trials, on which data and seeds, from which ranges."""

    path: Path
    trials: int  # draws a method
    finalists: int  # how many of them, beside the default, are trained with the further seeds as well
    ranges: dict[str, dict[str, tuple[float, float, float]]]  # method, option: low, default then, high
    cells: list[ExperimentConfig]  # settings of the trials, one a data set and seed, in the order of running

    @property
    def first(self) -> list[ExperimentConfig]:
        """The cells of the first seed, in which every trial is trained."""
        return [cell for cell in self.cells if cell.seed == self.cells[0].seed]

    @property
    def further(self) -> list[ExperimentConfig]:
        """The cells of the other seeds, in which the default and the finalists are."""
        return [cell for cell in self.cells if cell not in self.first]

    @property
    def planned_each(self) -> int:
        """How many trainings a method has, if it has options."""
        return len(self.first) * (1 + self.trials) + len(self.further) * (1 + self.finalists)

    @property
    def planned(self) -> int:
        """How many trainings the whole search has."""
        return self.planned_each * len(self.searched)

    @property
    def searched(self) -> list[str]:
        """The methods that have options."""
        return [method for method, options in self.ranges.items() if options]

    def draws(self, method: str) -> list[dict[str, float]]:
        """Options of the trials 1, 2, ... of a method, the same on every machine, three digits.

        Each range is cut into as many parts as there are trials, equal in the logarithm; every trial draws
        from another part, in an order of its own for each option (a Latin hypercube), because a few free
        draws leave half of a range empty. The method's name seeds the generator.
        """
        generator, columns = random.Random(f"options of {method}"), {}
        for name, (low, _, high) in self.ranges[method].items():
            parts = generator.sample(range(self.trials), self.trials)
            places = [(part + generator.random()) / self.trials for part in parts]
            drawn = [low * (high / low) ** place for place in places]
            columns[name] = [min(high, max(low, float(f"{value:.3g}"))) for value in drawn]
        return [{name: column[k] for name, column in columns.items()} for k in range(self.trials)]

    def of(self, method: str) -> list[dict[str, float]]:
        """Options of all trials of a method that has some, number 0 first."""
        return [{name: one[1] for name, one in self.ranges[method].items()}, *self.draws(method)]

    def trial(self, method: str, number: int, cell: ExperimentConfig) -> Trial:
        return Trial(method, number, cell.changed(method=method, method_options=self.of(method)[number]))

    def plan(self, lines: pd.DataFrame | None = None) -> list[Trial]:
        """The trainings that are settled, in the order of running: trial by trial through all methods.

        A method's finalists are settled by lines of `finished` once its first stage is whole.
        """
        all_trials = [(method, number) for number in range(self.trials + 1) for method in self.searched]
        plan = [self.trial(*one, cell) for cell in self.first for one in all_trials]
        if lines is not None:
            last = [(method, number) for method in self.searched for number in finalists(self, lines, method)]
            plan += [self.trial(*one, cell) for cell in self.further for one in last]
        return plan


def read_search(path: str | Path, **overrides: Any) -> Search:
    """The search that a YAML file like configs/tuning/search.yml declares; overrides are fields of all runs.

    An unknown section, method or option, or a range that is none is a ValueError that names it.
    """
    path = Path(path)
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if sorted(content) != sorted(SECTIONS):
        raise ValueError(f"{path} has the sections {', '.join(content)}; needed are {', '.join(SECTIONS)}")
    for method, options in content["methods"].items():
        if method not in METHODS:
            raise ValueError(f"{path}: there is no method {method!r}; methods: {', '.join(sorted(METHODS))}")
        for name, triple in options.items():
            if name not in method_options(method):
                known = ", ".join(method_options(method)) or "none"
                raise ValueError(f"{path}: {method} has no option {name!r}; options: {known}")
            right = isinstance(triple, list) and len(triple) == 3
            if not right or not 0 < triple[0] <= triple[1] <= triple[2]:
                raise ValueError(
                    f"{path}: {method}, {name} must be [low, default, high] in this order, above 0; "
                    f"got {triple}"
                )
    fields = content["defaults"] | overrides
    fields.setdefault("validate_every", fields.get("epochs", ExperimentConfig.epochs))
    cells = [
        ExperimentConfig.from_dict(fields | dataset | {"seed": seed})
        for dataset in content["datasets"]
        for seed in content["seeds"]
    ]
    return Search(path, content["trials"], content["finalists"], content["methods"], cells)


def read_lines(folder: str | Path, dataset: str) -> pd.DataFrame:
    """What was trained on a data set; an absent file has no lines."""
    path = Path(folder) / f"{dataset}.csv"
    if not path.is_file():
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.read_csv(path, dtype={"failure": str, "commit": str})


def finished(search: Search, folder: str | Path) -> pd.DataFrame:
    """The lines of the declared trials, one each; lines of other declarations are left out."""
    datasets = dict.fromkeys(cell.dataset for cell in search.cells)
    lines = pd.concat([read_lines(folder, one) for one in datasets]).drop_duplicates("run")
    declared = {trial.config.run_id for trial in search.plan(lines)}
    return lines[lines["run"].isin(declared)].reset_index(drop=True)


def _whole(search: Search, lines: pd.DataFrame, method: str, cells: list, numbers: list[int]) -> pd.DataFrame:
    """The lines of these trials of a method in those of the cells in which all of them are there."""
    wanted = [{search.trial(method, number, cell).config.run_id for number in numbers} for cell in cells]
    there = set(lines["run"])
    return lines[lines["run"].isin(set().union(*(runs for runs in wanted if runs <= there)))]


def _means(lines: pd.DataFrame) -> pd.DataFrame:
    """Gain, price and score in points, a row a trial; nothing where a trial failed in one of the cells."""
    values = lines[["trial", *MEASURED]].astype(float)
    gain, price = values["new_old"] - values["old_old"], values["new_new"] - values["oracle"]
    points = pd.DataFrame({"gain": 100 * gain, "price": 100 * price, "score": 50 * (gain + price)})
    return points.groupby(values["trial"].astype(int)).agg(lambda column: column.mean(skipna=False))


def finalists(search: Search, lines: pd.DataFrame, method: str) -> list[int]:
    """Numbers of the trials that the further seeds have: the default, then the best of the first seed.

    None while a training of the method's first stage is missing.
    """
    numbers = list(range(search.trials + 1))
    first = _whole(search, lines, method, search.first, numbers)
    if len(first) < len(numbers) * len(search.first):
        return []
    ranked = _means(first)["score"].drop(0).dropna().sort_values(ascending=False, kind="stable")
    return [0, *ranked.index[: search.finalists]]


def scores(search: Search, lines: pd.DataFrame) -> pd.DataFrame:
    """One row a method and trial: the score, which the rule maximises, and what it is the mean of.

    In each cell (a data set and seed) a trial has the gain in the cross-test, new/old minus old/old, and the
    price in the self-test, new/new minus the oracle's. The score is half of their sum, and the mean over the
    cells in which all trials of the method are there, or all its finalists, so that trials are compared on
    the same cells. A trial that failed in one of them has no score.

    Columns: method, trial, options (JSON), gain, price and score in points, and cells (how many).
    """
    rows = []
    for method in search.searched:
        options = search.of(method)
        first = _whole(search, lines, method, search.first, list(range(len(options))))
        last = finalists(search, lines, method)
        both = pd.concat([first, _whole(search, lines, method, search.further, last)])
        for number, one in enumerate(options):
            own = (both if number in last else first).query("trial == @number")
            means = _means(own).reindex([number]).to_dict("records")[0]  # nan where nothing is known
            row = {"method": method, "trial": number, "options": json.dumps(one)}
            rows.append(row | means | {"cells": len(own)})
    return pd.DataFrame(rows)


def best(scored: pd.DataFrame, method: str) -> pd.Series | None:
    """The trial of a method with the highest score, number 0 among them; None while none has a score.

    Once finalists have been trained with further seeds, one of them.
    """
    own = scored[(scored["method"] == method) & scored["score"].notna()]
    own = own[own["cells"] == own["cells"].max()]
    return None if own.empty else own.loc[own["score"].idxmax()]
