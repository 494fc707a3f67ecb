"""A frame of runs, and which of its rows."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from companion.titles import SETTING, plot_name
from compat_lib.config import ExperimentConfig
from compat_lib.losses import METHODS, method_options
from compat_lib.runs import Run, list_runs

GROUP = ("experiment_id", "method", "budget", "method_options")


def collect(*roots: str | Path) -> pd.DataFrame:
    """One row for every complete run below the given folders.

    Args:
        roots: folders of run folders ("runs", "results"); a run that is in several is taken from the first.

    Returns:
        Columns: every field of the configuration (dictionaries as JSON text), "experiment_id", "run_id",
        "test_identities", "folder" and "run" (a `Run`, which is read when it is asked). Old models' runs have
        method "old". Empty, with the columns that the other functions need, when there are no runs.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for run in (run for root in roots for run in list_runs(root)):
        ids = {"experiment_id": run.folder.parent.name, "run_id": run.folder.name}
        rows.setdefault(tuple(ids.values()), ids | row_of_run(run))
    columns = [*GROUP, *SETTING, "run_id", "seed", "old_run", "test_identities", "folder", "run"]
    return pd.DataFrame(list(rows.values())) if rows else pd.DataFrame(columns=columns)


def row_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as a row of `collect`; options that have the default of today are left out.

    A run's name and `method_options` say what differed from the defaults of its day; `made_of` has all.
    """
    # A field that came later had its default in the runs before it.
    row = ExperimentConfig().to_dict() | {"old_run": None} | config
    facts, used = row.pop("facts", {}), row.get("made_of", {}).get("method options", "{}")
    options = json.loads(used) | row["method_options"]
    defaults = method_options(row["method"]) if row["method"] in METHODS else {}
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


def tidy(runs: pd.DataFrame) -> pd.DataFrame:
    """Every number of the runs: one row a number, the columns of `collect` beside those of a `Record`."""
    parts = [
        run.metrics.frame().assign(**{name: row[name] for name in runs.columns if name != "run"})
        for run, row in zip(runs["run"], runs.to_dict("records"), strict=True)
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def select(runs: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The rows in which every named column has the given value, ordered by seed."""
    mask = pd.Series(True, index=runs.index)
    for name, value in values.items():
        mask &= runs[name] == value
    return runs[mask].sort_values("seed")


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
    return sorted({one.adapter for one in run.metrics.select(query="new", gallery="old") if one.adapter})


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

    Args:
        runs: rows of one experiment.
        method: its name.
        budget: "steps" or "passes".
    """
    rows = select(runs, method=method)
    counts = rows["method_options"].value_counts()
    ranked = sorted(counts.index, key=lambda text: (text != "{}", -counts[text], len(text), text))
    return select(rows, method_options=ranked[0] if ranked else "{}", budget=budget)
