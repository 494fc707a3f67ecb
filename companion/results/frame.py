"""A frame of runs, which of its rows, and what the pictures take of them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from companion.results.seeds import ENDS
from companion.titles import SETTING, plot_name
from compat_lib.config import ONE_RUN_ONLY, WHERE, ExperimentConfig
from compat_lib.losses import METHODS, method_options
from compat_lib.runs import Run, list_runs

MERGED = "two indexes, rank merge"
GROUP = ("experiment_id", "method", "budget", "method_options")


def collect(*roots: str | Path) -> pd.DataFrame:
    """One row for every complete run below folders of run folders; one in several is that of the first.

    Columns are every field of the configuration (dictionaries as JSON text), "experiment_id", "run_id",
    "test_identities", "folder" and "run" (a `Run`). Old models' runs have method "old".
    """
    rows = [
        {"experiment_id": run.folder.parent.name, "run_id": run.folder.name} | row_of_run(run)
        for root in roots
        for run in list_runs(root)
    ]
    rows.sort(key=lambda row: Path(row["folder"]).name != row["run_id"])  # a renamed copy comes last
    columns = [*GROUP, *SETTING, "run_id", "seed", "old_run", "test_identities", "folder", "run"]
    found = pd.DataFrame(rows, columns=None if rows else columns)
    return found.drop_duplicates(["experiment_id", "run_id"], ignore_index=True)


def row_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as a row of `collect`; options that have the default of today are left out.

    A run's name and `method_options` say what differed from the defaults of its day; `made_of` has all.
    """
    # A field that came later had its default in the runs before it.
    row = ExperimentConfig().to_dict() | {"old_run": None} | config
    facts, used = row.pop("facts", {}), row.get("made_of", {}).get("method options", "{}")
    options = json.loads(used) | row["method_options"]
    method = row["method"]
    defaults = METHODS[method].dropped | method_options(method) if method in METHODS else {}
    row["method_options"] = {name: value for name, value in options.items() if value != defaults.get(name)}
    nested = {name: value for name, value in row.items() if isinstance(value, dict | list)}
    row |= {name: json.dumps(value, sort_keys=True) for name, value in nested.items()}
    return row | {"test_identities": facts.get("classes", {}).get("test")}


def row_of_run(run: Run) -> dict[str, Any]:
    """A run as a row of `collect`."""
    return row_of(run.config) | {"folder": str(run.folder), "run": run}


def parts(runs: pd.DataFrame) -> list[str]:
    """The other parts of test images that some of the runs were measured on, such as "in-domain"."""
    return list(dict.fromkeys(part for run in runs["run"] for part in run.parts))


def on(runs: pd.DataFrame, part: str) -> pd.DataFrame:
    """The same runs as another part of their test images shows them."""
    return runs.assign(run=[run.on(part) for run in runs["run"]])


def distinct(runs: pd.DataFrame) -> list[str]:
    """The experiments without those whose models and first test another one has, with as many runs or more.

    Portraits' test_pose and test_light change the second test alone.
    """
    defaults, found = ExperimentConfig().to_dict(), {}
    for experiment in runs["experiment_id"].value_counts().index:
        config = select(runs, experiment_id=experiment)["run"].iloc[0].config
        options = config["dataset_options"].items()
        seen = {name: value for name, value in options if name not in ("test_pose", "test_light")}
        own = {
            name: v for name, v in (config | {"dataset_options": seen}).items() if v != defaults.get(name, v)
        }
        shared = {name: v for name, v in own.items() if name not in (*ONE_RUN_ONLY, *WHERE, "seed")}
        found.setdefault(json.dumps(shared, sort_keys=True), experiment)
    return list(found.values())


def select(runs: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The rows in which every named column has the given value, ordered by seed."""
    there = [runs[name] == value for name, value in values.items()]
    return runs[np.logical_and.reduce(there)].sort_values("seed")


def with_adapters(runs: pd.DataFrame) -> pd.DataFrame:
    """The frame with one row more, of method "adapter/NAME", for every adapter of an independent run.

    The adapter's cross-test takes the place of the independent model's; self-test and cost are the same.
    """
    extra = [
        row | {"method": f"adapter/{adapter}"}
        for row in runs[runs["method"] == "independent"].to_dict("records")
        for adapter in adapters_of(row["run"])
    ]
    return pd.concat([runs, pd.DataFrame(extra)], ignore_index=True) if extra else runs


def adapters_of(run: Run) -> list[str]:
    """The adapters through which a run's new/old was measured, by name."""
    crossed = (one.adapter for one in run.metrics if (one.query, one.gallery) == ("new", "old"))
    return sorted(set(filter(None, crossed)))


def by_method(runs: pd.DataFrame, experiment_id: str) -> dict[str, pd.DataFrame]:
    """Runs of an experiment without its old models, by plot name, the independent model first."""
    own = runs[(runs["experiment_id"] == experiment_id) & (runs["method"] != "old")]
    names = pd.Series([plot_name(row) for row in own.to_dict("records")], index=own.index, dtype=object)
    ordered = sorted(set(names), key=lambda name: (name != "independent", name))
    return {name: own[names == name].sort_values("seed") for name in ordered}


def main_variant(runs: pd.DataFrame, method: str, budget: str = "steps") -> pd.DataFrame:
    """Runs of a method in one experiment that stand for it where methods are compared.

    These are the runs by its defaults. Only where there are none, those whose options most of its runs have
    (then the fewest options): older runs by other defaults, say. An ablation never stands for its method.
    """
    rows = select(runs, method=method)
    counts = rows["method_options"].value_counts()
    ranked = sorted(counts.index, key=lambda text: (text != "{}", -counts[text], len(text), text))
    return select(rows, method_options=ranked[0] if ranked else "{}", budget=budget)


def points(rows: pd.DataFrame, experiment_id: str) -> dict[str, dict[str, Any]]:
    """Rows of one experiment as the plots take them (self_cross_scatter, gain_dots), by plot name.

    Each has self, cross, gain and asked (new/old with the old query too), with _low and _high, None where
    there is no number; criterion (True when it holds in every seed), and title.
    """
    columns = {"self": "new_new", "cross": "new_old", "gain": "gain", "asked": "with_old_query"}
    found = {}
    for row in rows[rows["experiment_id"] == experiment_id].to_dict("records"):
        numbers = {name + end: row[column + end] for name, column in columns.items() for end in ENDS[:3]}
        numbers = {name: None if pd.isna(value) else float(value) for name, value in numbers.items()}
        found[plot_name(row)] = numbers | {"criterion": row["criterion"] == 1.0, "title": row["title"]}
    return found


def bounds(rows: pd.DataFrame, experiment_id: str) -> dict[str, float | None]:
    """What an experiment's methods are compared with: keywords "old_old" and "oracle" of the plots."""
    best = rows[rows["experiment_id"] == experiment_id].nlargest(1, "n", keep="last")
    means = {name: best[name].dropna() for name in ("old_old", "oracle")}
    return {name: float(values.iloc[0]) if len(values) else None for name, values in means.items()}


def backfill(
    run: Run, metric: str = "map", adapter: str | None = None
) -> tuple[list[float], list[float | None]]:
    """The mixed-gallery curve of a run in random order: shares re-embedded, and the metric at each.

    The adapter "rank-merge" of an independent run are two indexes, each asked by its own model.
    """
    found = run.metrics.select(gallery="mixed", metric=metric, order="random", adapter=adapter)
    curve = sorted((one.share, one.value) for one in found if one.share is not None)
    return [share for share, _ in curve], [value for _, value in curve]


def backfill_curves(runs: pd.DataFrame, experiment_id: str, metric: str = "map") -> dict[str, tuple]:
    """The mixed-gallery curve of every method of an experiment that has one, and of two indexes (MERGED).

    Plot name -> (shares, means over the seeds), and with several seeds mean minus and plus the deviation.
    """
    curves, methods = {}, by_method(runs, experiment_id)
    sources = [(name, own, None) for name, own in methods.items()]
    sources += [(MERGED, own, "rank-merge") for name, own in methods.items() if name == "independent"]
    for name, own, adapter in sources:
        found = [backfill(run, metric, adapter=adapter) for run in own["run"]]
        found = [pd.Series(values, shares) for shares, values in found if shares and None not in values]
        if found:
            seeds = pd.concat(found, axis=1)
            mean, deviation = seeds.mean(axis=1).to_numpy(), seeds.std(axis=1).to_numpy()
            band = (mean - deviation, mean + deviation) if len(found) > 1 else ()
            curves[name] = (seeds.index.tolist(), mean, *band)
    return curves


def histories(runs: pd.DataFrame, experiment_id: str) -> dict[str, pd.DataFrame]:
    """Every method's history.csv, each number the mean over the seeds; methods without one are left out."""
    found = {}
    for name, own in by_method(runs, experiment_id).items():
        tables = [pd.DataFrame(run.history) for run in own["run"] if (run.folder / "history.csv").is_file()]
        if tables:
            found[name] = pd.concat(tables).groupby("epoch", as_index=False).mean()
    return found
