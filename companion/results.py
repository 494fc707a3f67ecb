"""What runs have left behind: a frame of runs, their numbers side by side, and differences between them.

    runs = collect("runs", "results")       # one row a run
    tidy(runs)                              # one row a number, to pivot as you like
    scores(runs, "map")                     # self-test, cross-test, criterion, gain and cost of every method

Nothing here trains; a run that is expected and not there has a row all the same, with n = 0.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from companion.titles import ADAPTERS, needs_of, plot_name, row_title
from compat_lib.config import ExperimentConfig
from compat_lib.evaluation import gain_interval, paired_comparison, update_gain
from compat_lib.evaluation.compatibility import HEADLINE
from compat_lib.evaluation.paired import PairedComparison
from compat_lib.evaluation.records import Record, metric_for
from compat_lib.runs import Run, list_runs

MERGED = "two indexes, rank merge"
GROUP = ("experiment_id", "method", "budget", "method_options")
SETTING = (
    *("dataset", "old_dataset", "scenario", "old_strength", "old_loss", "new_loss"),
    *("old_backbone", "new_backbone", "protocol"),
    *("dataset_options", "old_dataset_options", "old_features"),
)
TESTS = {"old_old": ("old", "old"), "new_old": ("new", "old"), "new_new": ("new", "new")}


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
        rows.setdefault(tuple(ids.values()), ids | row_of(run))
    columns = [*GROUP, *SETTING, "run_id", "seed", "old_run", "test_identities", "folder", "run"]
    return pd.DataFrame(list(rows.values())) if rows else pd.DataFrame(columns=columns)


def row_of(run: Run) -> dict[str, Any]:
    """The configuration of a run, and the run itself, as a row of `collect`."""
    config = {"budget": "steps", "method_options": {}, "old_run": None, "seed": 0} | run.config
    config = {"protocol": "pairs"} | config
    facts = config.pop("facts", {})
    nested = dict | list
    fields = {key: json.dumps(v, sort_keys=True) if isinstance(v, nested) else v for key, v in config.items()}
    identities = facts.get("classes", {}).get("test")
    return fields | {"test_identities": identities, "folder": str(run.folder), "run": run}


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


# -- numbers of several seeds ----------------------------------------------------------------------


def measured(
    runs: pd.DataFrame,
    query: str | None,
    gallery: str | None,
    metric: str,
    order: str | None = None,
    adapter: str | None = None,
) -> dict[int, Record]:
    """A number of every run that has it, seed -> record without draws; of an adapter's row the adapter's."""
    found = {}
    for seed, method, run in zip(runs["seed"], runs["method"], runs["run"], strict=True):
        through = adapter or _adapter(method, query, gallery)
        one = run.metrics.find(query, gallery, metric, adapter=through, order=order)
        if one is not None and one.value is not None:
            found[seed] = one
    return found


def with_old_query(runs: pd.DataFrame, metric: str) -> dict[int, Record]:
    """new/old when the old model runs at query time too, as `measured`; of an adapter's row nothing."""
    found = {}
    for seed, method, run in zip(runs["seed"], runs["method"], runs["run"], strict=True):
        adapter = "procrustes-slerp" if method == "independent" else "with-old-query"
        one = run.metrics.find("new", "old", metric, adapter=adapter)
        if one is not None and one.value is not None and not method.startswith("adapter/"):
            found[seed] = one
    return found


def _adapter(method: str, query: str | None, gallery: str | None) -> str | None:
    adapted = method.startswith("adapter/") and (query, gallery) == ("new", "old")
    return method.removeprefix("adapter/") if adapted else None


def _draws(runs: pd.DataFrame, seeds: Iterable[int], query: str, gallery: str, metric: str) -> list | None:
    """Bootstrap draws of these seeds' runs, or None where one has kept none."""
    rows = dict(zip(runs["seed"], zip(runs["run"], runs["method"], strict=True), strict=True))
    drawn = [
        run.draws(query, gallery, metric, _adapter(method, query, gallery))
        for run, method in (rows[seed] for seed in seeds)
    ]
    return None if any(draws is None for draws in drawn) else drawn


def spread(found: Mapping[int, Record]) -> tuple[float, float, float, float]:
    """Mean, low, high and deviation over the seeds.

    Low and high are, with several seeds, the mean minus and plus the deviation; with one its own interval.
    """
    values = np.array([one.value for one in found.values()], dtype=float)
    if len(values) > 1:
        mean, deviation = float(values.mean()), float(values.std(ddof=1))
        return mean, mean - deviation, mean + deviation, deviation
    (one,) = found.values() or (Record(None, None, "", np.nan),)
    return float(one.value), *(np.nan if end is None else float(end) for end in (one.low, one.high)), np.nan


def metric_of(runs: pd.DataFrame, metric: str = HEADLINE) -> str:
    """What stands for a metric of all pairs in the protocol by which runs of one experiment were measured."""
    return metric_for(runs["protocol"].iloc[0], metric) if len(runs) else metric


def difference(
    a: pd.DataFrame, test_a: tuple[str, str], b: pd.DataFrame, test_b: tuple[str, str], metric: str
) -> PairedComparison:
    """A metric of runs ``a`` minus that of runs ``b``, seed by seed: see `evaluation.paired_comparison`.

    Args:
        a, b: rows of `collect`, at most one a seed; they may be the same rows with two tests.
        test_a, test_b: (query, gallery).

    Returns:
        Without a seed that both have: value, low and high nan, and seeds 0.
    """
    left, right = measured(a, *test_a, metric), measured(b, *test_b, metric)
    seeds = [seed for seed in left if seed in right]
    if not seeds:
        return PairedComparison(np.nan, np.nan, np.nan, 0)
    drawn = [_draws(a, seeds, *test_a, metric), _draws(b, seeds, *test_b, metric)]
    lengths = {None} if None in drawn else {len(draws) for side in drawn for draws in side}
    known = len(lengths) == 1 and None not in lengths
    sides = {"draws_a": np.array(drawn[0]), "draws_b": np.array(drawn[1])} if known else {}
    values = ([side[seed].value for seed in seeds] for side in (left, right))
    return paired_comparison(*values, **sides)


def gain(runs: pd.DataFrame, oracle: pd.DataFrame, metric: str) -> tuple[float, float, float, float]:
    """Update gain (new/old - old/old) / (oracle's new/new - old/old), paired by seed, as `spread` gives it.

    Source: BCT (Shen et al., CVPR 2020). Undefined, nan, where the oracle does not beat the old model.
    """
    sides = [(runs, TESTS["new_old"]), (runs, TESTS["old_old"]), (oracle, TESTS["new_new"])]
    values = [measured(side, *test, metric) for side, test in sides]
    seeds = [seed for seed in values[0] if all(seed in one for one in values)]
    gains = {seed: update_gain(*(one[seed].value for one in values)) for seed in seeds}
    gains = {seed: Record(None, None, "gain", value) for seed, value in gains.items() if value is not None}
    if len(gains) == 1:
        drawn = [_draws(side, gains, *test, metric) for side, test in sides]
        ends = None if None in drawn else gain_interval(*(draws[0] for draws in drawn))
        gains = {
            seed: replace(one, low=ends[0], high=ends[1]) for seed, one in gains.items() if ends
        } or gains
    return spread(gains)


def scores(
    runs: pd.DataFrame, metric: str = HEADLINE, expected: Iterable[ExperimentConfig] | None = None
) -> pd.DataFrame:
    """Self-test, cross-test, criterion, update gain and cost of every method in every experiment.

    With several seeds a number is the mean over them, and "…_low" and "…_high" are that mean minus and plus
    the deviation. With one seed they are the 95 % bootstrap interval over test identities. The old model,
    the new model and the oracle are paired by seed and by bootstrap draw.

    Args:
        metric: its name among those of all pairs; an experiment of another protocol is scored by the metric
            that stands in its place (`records.metric_for`).
        expected: configurations that should have run (a preset's experiments): they say which rows their
            experiments have, in which order, and what is not there has n = 0. None: what is there.

    Returns:
        One row for each experiment, method, budget and method_options, adapters last in their experiment.
        Columns: the group, the setting's fields, seeds (expected), n and oracle_n (found); old_old, new_old,
        new_new, oracle, gain, flips (share of the queries that were answered right before and are not now)
        and with_old_query (new/old when the old model runs at query time too), each with _low, _high and
        _deviation; margin (new/old - old/old) and self_change (new/new minus
        the oracle's) with _low and _high, always the 95 % interval of the paired difference; criterion (share
        of the seeds in which new/old > old/old; nan when not measurable); decided (whether the margin's
        interval leaves out zero); cost and images (training time, and images that went through the network,
        relative to the oracle's); metric; title; needs.
    """
    runs = with_adapters(runs[runs["method"] != "old"])
    rows = []
    for group, (fields, seeds) in _groups(runs, expected).items():
        own = select(runs, **dict(zip(GROUP, group, strict=True)))
        own = own[own["seed"].isin(seeds)]
        oracle = select(runs, experiment_id=group[0], method="independent", budget="steps")
        oracle = oracle[oracle["seed"].isin(seeds)]
        counts = {"seeds": len(seeds), "n": len(own), "oracle_n": len(oracle)}
        asked = metric_for(fields["protocol"], metric)
        rows.append(fields | counts | {"metric": asked} | _compared(own, oracle, asked))
    columns = [*GROUP, *SETTING, "metric", "title", "needs", "n", "seeds"]
    return pd.DataFrame(rows, columns=None if rows else columns)


def _groups(
    runs: pd.DataFrame, expected: Iterable[ExperimentConfig] | None
) -> dict[tuple, tuple[dict[str, Any], set[int]]]:
    """What makes a row, in the order of the table: group -> (its fields, its seeds)."""
    sources = []
    for config in expected or ():
        options = json.dumps(config.method_options, sort_keys=True)
        source = config.to_dict() | {"experiment_id": config.experiment_id, "method_options": options}
        sources.append(source)
        if config.method == "independent":
            there = select(runs, experiment_id=config.experiment_id, seed=config.seed)["method"]
            names = [name for name in there if name.startswith("adapter/")]
            sources += [source | {"method": name} for name in names or ADAPTERS]
    known = {source["experiment_id"] for source in sources}
    others = [row for row in runs.to_dict("records") if row["experiment_id"] not in known]
    others.sort(key=lambda row: (row["method"] != "independent", row["method"], row["budget"] != "steps"))
    sources += others
    order = list(dict.fromkeys(source["experiment_id"] for source in sources))
    sources.sort(key=lambda row: (order.index(row["experiment_id"]), row["method"].startswith("adapter/")))
    groups: dict[tuple, tuple[dict[str, Any], set[int]]] = {}
    for source in sources:
        fields = {name: source.get(name) for name in (*GROUP, *SETTING)}
        fields |= {"title": row_title(source), "needs": needs_of(source["method"])}
        groups.setdefault(tuple(source[name] for name in GROUP), (fields, set()))[1].add(source["seed"])
    return groups


def _compared(runs: pd.DataFrame, oracle: pd.DataFrame, metric: str) -> dict[str, Any]:
    old, cross, own = (measured(runs, *test, metric) for test in TESTS.values())
    spreads = {name: spread(found) for name, found in zip(TESTS, (old, cross, own), strict=True)}
    spreads["oracle"] = spread(measured(oracle, "new", "new", metric))
    spreads["gain"] = gain(runs, oracle, metric)
    spreads["flips"] = spread(measured(runs, "new", "old", "negative_flips"))
    spreads["with_old_query"] = spread(with_old_query(runs, metric))
    row: dict[str, Any] = {
        name + end: value
        for name, values in spreads.items()
        for end, value in zip(("", "_low", "_high", "_deviation"), values, strict=True)
    }
    margin = difference(runs, TESTS["new_old"], runs, TESTS["old_old"], metric)
    change = difference(runs, TESTS["new_new"], oracle, TESTS["new_new"], metric)
    for name, one in (("margin", margin), ("self_change", change)):
        row |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
    held = [cross[seed].value > old[seed].value for seed in cross if seed in old]
    row["criterion"] = float(np.mean(held)) if held else np.nan
    row["decided"] = margin.decided
    # Processor time where both have it: other work on the machine hardly moves it.
    times = [_ratio(runs, oracle, f"train/{name}") for name in ("processor_seconds", "seconds")]
    row["cost"] = next((time for time in times if np.isfinite(time)), np.nan)
    row["images"] = _ratio(runs, oracle, "train/backbone_images")
    return row


def _ratio(runs: pd.DataFrame, oracle: pd.DataFrame, metric: str) -> float:
    ours, theirs = (measured(side, None, None, metric) for side in (runs, oracle))
    ratios = [ours[seed].value / theirs[seed].value for seed in ours if seed in theirs]
    return float(np.mean(ratios)) if ratios else np.nan


# -- what the pictures take ------------------------------------------------------------------------


def points(rows: pd.DataFrame, experiment_id: str) -> dict[str, dict[str, Any]]:
    """Rows of one experiment as the plots take them (self_cross_scatter, gain_dots).

    Returns:
        plot name -> self, cross, gain, each with _low and _high (None where there is no number), criterion
        (True when it holds in every seed), and title.
    """
    found = {}
    for row in rows[rows["experiment_id"] == experiment_id].to_dict("records"):
        numbers = {
            name + end: None if pd.isna(row[source + end]) else float(row[source + end])
            for name, source in (("self", "new_new"), ("cross", "new_old"), ("gain", "gain"))
            for end in ("", "_low", "_high")
        }
        found[plot_name(row)] = numbers | {"criterion": row["criterion"] == 1.0, "title": row["title"]}
    return found


def bounds(rows: pd.DataFrame, experiment_id: str) -> dict[str, float | None]:
    """What an experiment's methods are compared with: keywords "old_old" and "oracle" of the plots."""
    best = rows[rows["experiment_id"] == experiment_id].sort_values("n", kind="stable").tail(1)
    return {
        name: float(best[name].iloc[0]) if best[name].notna().any() else None
        for name in ("old_old", "oracle")
    }


def backfill(
    run: Run, metric: str = "map", order: str = "random", adapter: str | None = None
) -> tuple[list[float], list[float | None]]:
    """The mixed-gallery curve of a run: shares re-embedded, and the metric at each.

    Args:
        adapter: "rank-merge" of an independent run: two indexes, each asked by its own model.
    """
    found = [
        one
        for one in run.metrics.select(gallery="mixed", metric=metric, order=order, adapter=adapter)
        if one.share is not None
    ]
    found.sort(key=lambda one: one.share)
    return [one.share for one in found], [one.value for one in found]


def backfill_curves(runs: pd.DataFrame, experiment_id: str, metric: str = "map") -> dict[str, tuple]:
    """The mixed-gallery curve of every method of an experiment that has one, and of two indexes (MERGED).

    Returns:
        plot name -> (shares, means over the seeds), and with several seeds two lists more, mean minus and
        plus the deviation.
    """
    curves, methods = {}, by_method(runs, experiment_id)
    sources = [(name, own, None) for name, own in methods.items()]
    sources += [(MERGED, methods[name], "rank-merge") for name in methods if name == "independent"]
    for name, own, adapter in sources:
        found = [backfill(run, metric, adapter=adapter) for run in own["run"]]
        found = [
            (shares, np.array(values, float)) for shares, values in found if shares and None not in values
        ]
        if found:
            values = np.stack([values for _, values in found])
            mean = values.mean(axis=0)
            deviation = values.std(axis=0, ddof=1) if len(values) > 1 else None
            curves[name] = (found[0][0], mean)
            curves[name] += () if deviation is None else (mean - deviation, mean + deviation)
    return curves


def histories(runs: pd.DataFrame, experiment_id: str) -> dict[str, list[dict[str, float]]]:
    """Every method's history.csv, each number the mean over the seeds; methods without one are left out."""
    found = {}
    for name, own in by_method(runs, experiment_id).items():
        tables = [pd.DataFrame(run.history) for run in own["run"] if (run.folder / "history.csv").is_file()]
        if tables:
            mean = pd.concat(tables).groupby("epoch", as_index=False).mean().to_dict("records")
            found[name] = [{key: value for key, value in row.items() if not pd.isna(value)} for row in mean]
    return found
