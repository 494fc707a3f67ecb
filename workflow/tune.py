"""Train the trials of configs/tuning/search.yml, one line each in results/tuning/<dataset>.csv (make tune).

    python workflow/tune.py [--search FILE] [--results FOLDER] [--runs-root FOLDER] [--data-root FOLDER]

Give the same command after an interruption: finished trials are skipped, and a training goes on at its last
checkpoint. No test image is looked at: validation images take the place of the test images throughout. A
trial's run folder is removed once its line is written.
"""

import argparse
import datetime
import json
import shutil
import sys
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from companion.tuning import COLUMNS, Search, Trial, finished, read_lines, read_search
from compat_lib.data.images import Splits
from compat_lib.evaluation.tar import verification
from compat_lib.experiment import Experiment
from compat_lib.files import write_text
from compat_lib.runs import environment
from compat_lib.training import NotFiniteError

ROOT = Path(__file__).resolve().parents[1]
FAR = 1e-3
SAME_MACHINE = ("processor", "threads")


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


def run(trial: Trial) -> dict[str, object]:
    """The line of a trial, trained here; its run folder is removed.

    A loss that stops being a number is an outcome: the line says so and holds no values.
    """
    config = trial.config
    line = {name: getattr(config, name) for name in ("method", "dataset", "seed", "epochs")}
    line |= {"trial": trial.number, "options": json.dumps(config.method_options), "run": config.run_id}
    line |= {"failure": "", "processor_seconds": float("nan")}
    line |= {"date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"}
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
    here = environment()
    there = lines[list(SAME_MACHINE)].drop_duplicates().to_dict("records")
    others = [one for one in there if any(one[name] != here[name] for name in SAME_MACHINE)]
    if others:
        words = [f"{one['processor']} with {one['threads']} threads" for one in (others[0], here)]
        raise ValueError(
            f"{path} holds trials of {words[0]}, this is {words[1]}: go on there, give another --results, or "
            f"add --other-machine to mix them; the columns {' and '.join(SAME_MACHINE)} tell them apart"
        )


def tune(search: Search, results: Path, *, other_machine: bool = False) -> None:
    """Train what is missing, and append a line a trial; ValueError: see `refuse_other_machine`."""
    files = {cell.dataset: results / f"{cell.dataset}.csv" for cell in search.cells}
    lines = {dataset: read_lines(results, dataset) for dataset in files}
    if not other_machine:
        for dataset, path in files.items():
            refuse_other_machine(lines[dataset], path)

    def missing() -> list[Trial]:
        there = pd.concat(lines.values())
        return [trial for trial in search.plan(there) if trial.config.run_id not in set(there["run"])]

    while trials := missing():  # the second time those of the finalists, which the first ones settle
        for trial in trials:
            dataset = trial.config.dataset
            line = pd.DataFrame([run(trial)], columns=list(COLUMNS))
            lines[dataset] = line if lines[dataset].empty else pd.concat([lines[dataset], line])
            write_text(files[dataset], lines[dataset].to_csv(index=False))
            shown = line.iloc[0]
            values = shown["failure"] or f"new/old {shown['new_old']:.3f}, new/new {shown['new_new']:.3f}"
            print(
                f"{len(finished(search, results))}/{search.planned} {dataset} seed {trial.config.seed}, "
                f"{trial.method} {trial.number} {shown['options']}: {values}, "
                f"{shown['processor_seconds']} s",
                flush=True,
            )


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
