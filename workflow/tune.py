"""The search for the methods' options: one line a training in results/tuning/<dataset>.csv (make tune).

    python workflow/tune.py [--search FILE] [--results FOLDER] [--runs-root FOLDER] [--data-root FOLDER]

configs/tuning/search.yml declares it; docs/choosing_options.md, which `make readme` writes, states its rule
and shows what was found. Give the same command after an interruption: finished trials are skipped, and a
training goes on at its last checkpoint. No test image is looked at: validation images take the place of the
test images throughout. A trial's run folder is removed once its line is written.
"""

import argparse
import datetime
import json
import random
import shutil
import sys
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from compat_lib.config import ExperimentConfig
from compat_lib.data.images import Splits
from compat_lib.evaluation.tar import verification
from compat_lib.experiment import Experiment
from compat_lib.files import write_text
from compat_lib.finite import NotFiniteError
from compat_lib.losses import method_options
from compat_lib.runs import environment

ROOT = Path(__file__).resolve().parents[1]
FAR = 1e-3
SAME_MACHINE = ["processor", "threads"]
MEASURED = ["new_old", "new_new", "old_old", "oracle"]
COLUMNS = [
    *("method", "trial", "options", "dataset", "seed", "run", *MEASURED),
    *("failure", "epochs", "processor_seconds", "commit", *SAME_MACHINE, "date"),
]
SECTIONS = ("description", "trials", "finalists", "seeds", "defaults", "datasets", "methods")


@dataclass(frozen=True)
class Search:
    """What is declared: how many trials, on which data and seeds, from which ranges."""

    trials: int  # draws a method, beside trial 0: the defaults of the day of the declaration
    finalists: int  # how many of the draws, and trial 0, are trained with the further seeds as well
    ranges: dict[str, dict[str, tuple[float, float, float]]]  # method, option: low, default then, high
    cells: list[ExperimentConfig]  # settings of the trials, one a data set and seed

    @property
    def first(self) -> list[ExperimentConfig]:
        """The cells of the first seed, in which every trial is trained."""
        return [cell for cell in self.cells if cell.seed == self.cells[0].seed]

    @property
    def planned_each(self) -> int:
        """How many trainings a method has, if it has options."""
        further = len(self.cells) - len(self.first)
        return len(self.first) * (1 + self.trials) + further * (1 + self.finalists)

    def options(self, method: str) -> list[dict[str, float]]:
        """Options of the trials 0, 1, 2, ... of a method, the same on every machine, three digits.

        Each range is cut into as many parts as there are draws, equal in the logarithm; every draw comes
        from another part, in an order of its own for each option (a Latin hypercube), because a few free
        draws leave half of a range empty. The method's name seeds the generator.
        """
        generator, trials = random.Random(f"options of {method}"), [{} for _ in range(1 + self.trials)]
        for name, (low, default, high) in self.ranges[method].items():
            parts = generator.sample(range(self.trials), self.trials)
            places = [(part + generator.random()) / self.trials for part in parts]
            drawn = [float(f"{low * (high / low) ** place:.3g}") for place in places]
            for trial, value in zip(trials, (default, *drawn), strict=True):
                trial[name] = min(high, max(low, value))
        return trials

    def table(self, lines: pd.DataFrame) -> pd.DataFrame:
        """The trainings that are settled, in the order of running, and what their lines say.

        These are all trials with the first seed, trial by trial through all methods that have options; and
        with the further seeds trial 0 and the draws with the highest score, of the methods of which all
        trainings with the first seed are there.

        Columns: method, trial, config, run, first (seed), there (whether it has a line), and in points gain
        (in the cross-test, new/old minus old/old), price (in the self-test, new/new minus the oracle's) and
        score, half of their sum; nan where there is no line or the training failed.
        """
        drawn = {method: self.options(method) for method, ranges in self.ranges.items() if ranges}
        rows = [
            (method, trial, cell.changed(method=method, method_options=drawn[method][trial]))
            for cell in sorted(self.cells, key=lambda cell: cell not in self.first)
            for trial in range(1 + self.trials)
            for method in drawn
        ]
        table = pd.DataFrame(rows, columns=["method", "trial", "config"], dtype=object)
        table["run"] = [config.run_id for config in table["config"]]
        table["first"] = [config.seed == self.cells[0].seed for config in table["config"]]
        table["there"] = table["run"].isin(lines["run"])
        known = lines.drop_duplicates("run").set_index("run").reindex(table["run"])[MEASURED]
        new_old, new_new, old_old, oracle = known.to_numpy(float).T
        table["gain"], table["price"] = 100 * (new_old - old_old), 100 * (new_new - oracle)
        table["score"] = (table["gain"] + table["price"]) / 2

        stage = table[table["first"]].groupby(["method", "trial"], sort=False)
        whole = stage["there"].all().groupby("method").transform("all")
        draws = stage["score"].agg(_mean)[whole].drop(0, level="trial", errors="ignore")
        best = draws.groupby("method").rank(ascending=False, method="first") <= self.finalists
        last = {*best.index[best], *((method, 0) for method, _ in whole.index[whole])}
        settled = [trial in last for trial in zip(table["method"], table["trial"], strict=True)]
        return table[table["first"] | np.array(settled)].reset_index(drop=True)


def scores(own: pd.DataFrame) -> pd.DataFrame:
    """Gain, price and score of the trials of one method, its rows of `Search.table`, in points, by trial.

    They are means over the cells, whose number is in "cells": those of the first seed once all trials have
    been trained there, and of finalists all once these have been trained with the further seeds. A trial that
    failed in one of them has no number.
    """
    whole = own.groupby("first")["there"].transform("all")
    trials = own[whole].groupby("trial")
    found = trials[["gain", "price", "score"]].agg(_mean).assign(cells=trials.size())
    return found.reindex(own["trial"].unique()).fillna({"cells": 0}).astype({"cells": int})


def _mean(values: pd.Series) -> float:
    return values.mean(skipna=False)


def read_search(path: str | Path, **overrides: Any) -> Search:
    """The search that a file like configs/tuning/search.yml declares; overrides are fields of all runs."""
    content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    if sorted(content) != sorted(SECTIONS):
        raise ValueError(f"{path} has the sections {', '.join(content)}; needed are {', '.join(SECTIONS)}")
    for method, options in content["methods"].items():
        known = method_options(method)
        for name, triple in options.items():
            if name not in known:
                raise ValueError(f"{path}: {method} has no option {name!r}; options: {', '.join(known)}")
            right = isinstance(triple, list) and len(triple) == 3
            if not right or not 0 < triple[0] <= triple[1] <= triple[2]:
                form = "[low, default, high] in this order, above 0"
                raise ValueError(f"{path}: {method}, {name} must be {form}; got {triple}")
    fields = content["defaults"] | overrides
    fields.setdefault("validate_every", fields.get("epochs", ExperimentConfig.epochs))
    cells = [
        ExperimentConfig.from_dict(fields | dataset | {"seed": seed})
        for dataset in content["datasets"]
        for seed in content["seeds"]
    ]
    return Search(content["trials"], content["finalists"], content["methods"], cells)


def read_lines(search: Search, folder: str | Path) -> dict[Path, pd.DataFrame]:
    """What was trained on each data set, by the file that holds it or will; an absent one has no lines."""
    files = dict.fromkeys(Path(folder) / f"{cell.dataset}.csv" for cell in search.cells)
    kinds = {"failure": str, "commit": str}
    return {
        path: pd.read_csv(path, dtype=kinds) if path.is_file() else pd.DataFrame(columns=COLUMNS)
        for path in files
    }


class Blind(Experiment):
    """An experiment whose test images are its validation images: it cannot look at the others."""

    @cached_property
    def data(self) -> Splits:
        splits = super().data
        return replace(splits, test=splits.val)


def look(experiment: Experiment) -> dict[str, float]:
    """TAR at FAR 1e-3 on validation images: (new, old), (new, new), (old, old), and the oracle with itself.

    What is missing is trained.
    """
    new, labels = experiment.train(), experiment.data.val.labels
    ids, (query, gallery) = list(range(len(labels))), experiment.cross
    cross = verification(query, labels, gallery, labels, query_ids=ids, gallery_ids=ids, fars=[FAR])
    own = {"new_new": new.test, "old_old": experiment.old.test, "oracle": experiment.oracle.train().test}
    found = {name: verification(features, labels, fars=[FAR]).tar[0] for name, features in own.items()}
    return {"new_old": cross.tar[0]} | found


def run(number: int, config: ExperimentConfig) -> dict[str, object]:
    """The line of a trial, trained here; its run folder is removed.

    A loss that stops being a number is an outcome: the line says so and holds no values.
    """
    line = {name: getattr(config, name) for name in ("method", "dataset", "seed", "epochs")}
    line |= {"trial": number, "options": json.dumps(config.method_options), "run": config.run_id}
    line |= {"failure": "", "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"}
    line |= {name: environment()[name] for name in ("commit", *SAME_MACHINE)}
    experiment = Blind(config, say=lambda line: None)
    try:
        line |= {name: round(value, 6) for name, value in look(experiment).items()}
        line["processor_seconds"] = round(sum(row["processor_seconds"] for row in experiment.new.history), 2)
    except NotFiniteError as error:
        line["failure"] = str(error)
    shutil.rmtree(config.run_folder, ignore_errors=True)
    return line


def refuse_other_machine(lines: pd.DataFrame, path: Path) -> None:
    """ValueError for lines of another machine, which differ by up to two points for that alone."""
    here = {name: environment()[name] for name in SAME_MACHINE}
    others = [one for one in lines[SAME_MACHINE].drop_duplicates().to_dict("records") if one != here]
    if others:
        words = ["{processor} with {threads} threads".format(**one) for one in (others[0], here)]
        raise ValueError(
            f"{path} holds trials of {words[0]}, this is {words[1]}: go on there, give another --results, or "
            f"add --other-machine to mix them; the columns {' and '.join(SAME_MACHINE)} tell them apart"
        )


def tune(search: Search, results: Path, *, other_machine: bool = False) -> None:
    """Train what is missing, and append a line a trial; ValueError: see `refuse_other_machine`."""
    lines = read_lines(search, results)
    if not other_machine:
        for path, there in lines.items():
            refuse_other_machine(there, path)

    def missing() -> pd.DataFrame:
        table = search.table(pd.concat(lines.values()))
        return table[~table["there"]]

    while len(trials := missing()):  # the second time those of the finalists, which the first ones settle
        for done, (number, config) in enumerate(zip(trials["trial"], trials["config"], strict=True), 1):
            path = results / f"{config.dataset}.csv"
            line = pd.DataFrame([run(number, config)], columns=COLUMNS)
            lines[path] = line if lines[path].empty else pd.concat([lines[path], line])
            write_text(path, lines[path].to_csv(index=False))
            shown = line.iloc[0]
            values = shown["failure"] or f"new/old {shown['new_old']:.3f}, new/new {shown['new_new']:.3f}"
            trial = f"{config.dataset} seed {config.seed}, {config.method} {number} {shown['options']}"
            print(f"{done}/{len(trials)} {trial}: {values}, {shown['processor_seconds']} s", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--search", default=ROOT / "configs/tuning/search.yml", help="the declaration")
    parser.add_argument("--results", type=Path, default=ROOT / "results/tuning", help="folder of the lines")
    parser.add_argument("--runs-root", default="runs/tuning", help="where models are kept meanwhile")
    parser.add_argument("--data-root", help="where the data sets are (default: COMPAT_DATA, then ./data)")
    parser.add_argument("--other-machine", action="store_true", help="append to lines of another machine")
    given = parser.parse_args()
    try:
        search = read_search(given.search, runs_root=given.runs_root, data_root=given.data_root)
        tune(search, given.results, other_machine=given.other_machine)
    except (OSError, ValueError) as error:
        print(f"make tune: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from here.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
