"""What runs have left behind: a frame of runs, their numbers side by side, and differences between them.

    runs = collect("runs", "results")       # one row a run
    tidy(runs)                              # one row a number, to pivot as you like
    scores(runs, "map")                     # self-test, cross-test, criterion, gain and cost of every method

Nothing here trains; a run that is expected and not there has a row all the same, with n = 0.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from companion.titles import ADAPTERS, CEILINGS, SETTING, asks_alone, needs_of, plot_name, row_title
from compat_lib.config import ExperimentConfig
from compat_lib.evaluation import gain_interval, paired_comparison, update_gain
from compat_lib.evaluation.compatibility import HEADLINE
from compat_lib.evaluation.paired import PairedComparison
from compat_lib.evaluation.records import Record, metric_for
from compat_lib.losses import METHODS, method_options
from compat_lib.runs import Run, list_runs

MERGED = "two indexes, rank merge"
WITH_OLD_QUERY = "with-old-query"
_ENDS = ("", "_low", "_high")
GROUP = ("experiment_id", "method", "budget", "method_options")
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
        rows.setdefault(tuple(ids.values()), ids | row_of_run(run))
    columns = [*GROUP, *SETTING, "run_id", "seed", "old_run", "test_identities", "folder", "run"]
    return pd.DataFrame(list(rows.values())) if rows else pd.DataFrame(columns=columns)


def row_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as a row of `collect`; options that have the default of today are left out.

    A run's name and `method_options` say what differed from the defaults of its day; `made_of` has all.
    """
    row = {"budget": "steps", "method_options": {}, "old_run": None, "seed": 0, "protocol": "pairs"} | config
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


# -- numbers of several seeds ----------------------------------------------------------------------


class Spread(NamedTuple):
    """A number over seeds; low and high are mean -+ deviation of several, or the interval of one."""

    value: float = np.nan
    low: float = np.nan
    high: float = np.nan
    deviation: float = np.nan  # of several seeds
    n: int = 0


def measured(
    runs: pd.DataFrame,
    query: str | None,
    gallery: str | None,
    metric: str,
    order: str | None = None,
    adapter: str | None = None,
) -> dict[int, Record]:
    """A number of every run that has it, seed -> record; of an adapter's row the adapter's.

    Args:
        adapter: of another row; WITH_OLD_QUERY is new/old when the old model runs at query time too.
    """
    found = {}
    for seed, method, run in zip(runs["seed"], runs["method"], runs["run"], strict=True):
        through = _through(method, query, gallery, adapter)
        one = run.metrics.find(query, gallery, metric, adapter=through, order=order)
        if one is not None and one.value is not None:
            found[seed] = one
    return found


def _through(method: str, query: str | None, gallery: str | None, adapter: str | None = None) -> str | None:
    if method.startswith("adapter/") and (query, gallery) == ("new", "old"):
        return "none" if adapter else method.removeprefix("adapter/")
    return "procrustes-slerp" if (method, adapter) == ("independent", WITH_OLD_QUERY) else adapter


def spread(found: Mapping[int, Record]) -> Spread:
    """Mean, ends, deviation and number of the seeds' values."""
    values = np.array([one.value for one in found.values()], dtype=float)
    if len(values) > 1:
        mean, deviation = float(values.mean()), float(values.std(ddof=1))
        return Spread(mean, mean - deviation, mean + deviation, deviation, len(values))
    ends = ((one.value, one.low, one.high) for one in found.values())
    return next((Spread(*(np.nan if x is None else float(x) for x in one), n=1) for one in ends), Spread())


def metric_of(runs: pd.DataFrame, metric: str = HEADLINE) -> str:
    """What stands for a metric of all pairs in the protocol by which runs of one experiment were measured."""
    return metric_for(runs["protocol"].iloc[0], metric) if len(runs) else metric


def _draws(runs: pd.DataFrame, seeds: list[int], query: str, gallery: str, metric: str) -> np.ndarray | None:
    """Bootstrap draws [seeds, draws] of these seeds' runs, or None where one has kept none, or fewer."""
    of = {
        seed: run.draws(query, gallery, metric, _through(method, query, gallery))
        for seed, method, run in zip(runs["seed"], runs["method"], runs["run"], strict=True)
        if seed in seeds
    }
    drawn = [of[seed] for seed in seeds]
    whole = None not in [None if one is None else len(one) for one in drawn]
    return np.array(drawn) if whole and len({len(one) for one in drawn}) == 1 else None


def difference(
    a: pd.DataFrame,
    test_a: tuple[str, str],
    b: pd.DataFrame,
    test_b: tuple[str, str],
    metric: str,
) -> PairedComparison:
    """A metric of runs ``a`` minus that of runs ``b``, seed by seed: see `evaluation.paired_comparison`.

    Args:
        a, b: rows of `collect`, at most one a seed; they may be the same rows with two tests.
        test_a, test_b: (query, gallery).

    Returns:
        Without a seed that both have: value, low and high nan, and seeds 0.
    """
    sides = ((a, test_a), (b, test_b))
    left, right = (measured(side, *test, metric) for side, test in sides)
    seeds = [seed for seed in left if seed in right]
    if not seeds:
        return PairedComparison(np.nan, np.nan, np.nan, 0)
    drawn = [_draws(side, seeds, *test, metric) for side, test in sides]
    known = all(one is not None for one in drawn) and drawn[0].shape == drawn[1].shape
    draws = {"draws_a": drawn[0], "draws_b": drawn[1]} if known else {}
    return paired_comparison(*([side[seed].value for seed in seeds] for side in (left, right)), **draws)


def gain(runs: pd.DataFrame, oracle: pd.DataFrame, metric: str) -> dict[int, Record]:
    """Update gain (new/old - old/old) / (oracle's new/new - old/old) of each seed, with its interval.

    Source: BCT (Shen et al., CVPR 2020). Undefined, and left out, where the oracle does not beat the old
    model.
    """
    sides = [(runs, TESTS["new_old"]), (runs, TESTS["old_old"]), (oracle, TESTS["new_new"])]
    values = [measured(side, *test, metric) for side, test in sides]
    gains = {}
    for seed in (seed for seed in values[0] if all(seed in one for one in values)):
        drawn = [_draws(side, [seed], *test, metric) for side, test in sides]
        ends = None if any(one is None for one in drawn) else gain_interval(*(one[0] for one in drawn))
        value = update_gain(*(one[seed].value for one in values))
        gains[seed] = Record(None, None, "gain", value, *(ends or ()))
    return {seed: one for seed, one in gains.items() if one.value is not None}


def scores(
    runs: pd.DataFrame,
    metric: str = HEADLINE,
    expected: Iterable[ExperimentConfig] | None = None,
) -> pd.DataFrame:
    """Self-test, cross-test, criterion, update gain and cost of every method in every experiment.

    Each number has columns "…_low", "…_high", "…_deviation" and "…_n", see `Spread`. The old model, the new
    model and the oracle are paired by seed and by bootstrap draw.

    Args:
        metric: its name among those of all pairs; an experiment of another protocol is scored by the metric
            that stands in its place (`records.metric_for`).
        expected: configurations that should have run (a preset's experiments): they say which rows their
            experiments have, in which order, and what is not there has n = 0. None: what is there.

    Returns:
        One row for each experiment, method, budget and method_options, adapters last in their experiment.
        Columns: the group, the setting's fields, seeds (expected), n and oracle_n (found); old_old, new_old,
        new_new, oracle, gain, flips (share of the queries that were answered right before and are not now),
        with_old_query (new/old when the old model runs at query time too) and those of CEILINGS; margin
        (new/old - old/old) and self_change (new/new minus the oracle's) with _low and _high, always the 95 %
        interval of the paired difference; criterion (share of the seeds in which new/old > old/old; nan when
        not measurable); decided (whether the margin's interval leaves out zero); new_old_best and
        new_new_best (the best of those that ask alike, or not to be told from it by the paired difference);
        cost and images (training time, and images that went through the network, relative to the oracle's);
        metric; title; needs.
    """
    runs = with_adapters(runs[runs["method"] != "old"])
    rows, sides = [], []
    for group, (fields, seeds) in _groups(runs, expected).items():
        own = select(runs, **dict(zip(GROUP, group, strict=True)))
        own = own[own["seed"].isin(seeds)]
        oracle = select(runs, experiment_id=group[0], method="independent", budget="steps")
        oracle = oracle[oracle["seed"].isin(seeds)]
        counts = {"seeds": len(seeds), "n": len(own), "oracle_n": len(oracle)}
        asked = metric_for(fields["protocol"], metric)
        rows.append(fields | counts | {"metric": asked} | _compared(own, oracle, asked))
        sides.append(own)
    columns = [*GROUP, *SETTING, "metric", "title", "needs", "n", "seeds"]
    table = pd.DataFrame(rows, columns=None if rows else columns)
    for test in ("new_old", "new_new"):
        best = {k for _, own in table.groupby("experiment_id") for k in _best(own, sides, test)}
        table[f"{test}_best"] = table.index.isin(best)
    return table


def _best(rows: pd.DataFrame, sides: list[pd.DataFrame], test: str) -> list[int]:
    """Places of the best row of an experiment and of those that the paired difference cannot tell from it."""
    asks = rows["method"].map(lambda name: asks_alone(name) if test == "new_old" else "/" not in name)
    rows = rows[asks & rows[test].notna()]
    if len(rows) < 2:
        return []
    best = rows[test].idxmax()
    pair, metric = TESTS[test], rows["metric"].iloc[0]
    apart = {k: difference(sides[best], pair, sides[k], pair, metric) for k in rows.index if k != best}
    tied = [k for k, one in apart.items() if np.isfinite(one.low) and not one.decided]
    return [best, *tied] if any(np.isfinite(one.low) for one in apart.values()) else []


def _groups(
    runs: pd.DataFrame, expected: Iterable[ExperimentConfig] | None
) -> dict[tuple, tuple[dict[str, Any], set[int]]]:
    """What makes a row, in the order of the table: group -> (its fields, its seeds)."""
    sources = []
    for config in expected or ():
        source = row_of(config.to_dict()) | {"experiment_id": config.experiment_id}
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
    found = {name: measured(runs, *test, metric) for name, test in TESTS.items()}
    old, cross = found["old_old"], found["new_old"]
    found["oracle"] = measured(oracle, *TESTS["new_new"], metric)
    found["gain"] = gain(runs, oracle, metric)
    found["flips"] = measured(runs, *TESTS["new_old"], "negative_flips")
    found["with_old_query"] = measured(runs, *TESTS["new_old"], metric, adapter=WITH_OLD_QUERY)
    found |= {name: measured(oracle, *TESTS["old_old"], metric, adapter=name) for name in CEILINGS}
    row: dict[str, Any] = {}
    for name, one in found.items():
        low, high, deviation, n = (f"{name}_{end}" for end in Spread._fields[1:])
        row |= dict(zip((name, low, high, deviation, n), spread(one), strict=True))
    margin = difference(runs, TESTS["new_old"], runs, TESTS["old_old"], metric)
    change = difference(runs, TESTS["new_new"], oracle, TESTS["new_new"], metric)
    for name, one in (("margin", margin), ("self_change", change)):
        row |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
    held = [cross[seed].value > old[seed].value for seed in cross if seed in old]
    row["criterion"] = float(np.mean(held)) if held else np.nan
    row["decided"] = margin.decided
    row["cost"], row["images"] = (spread(one).value for one in relative_costs(runs, oracle))
    return row


def relative_costs(runs: pd.DataFrame, oracle: pd.DataFrame) -> tuple[dict[int, Record], dict[int, Record]]:
    """Training time of each seed, and images through the network, relative to the oracle's.

    Processor time where both have it: other work on the machine hardly moves it.
    """
    found = {}
    for name in ("processor_seconds", "seconds", "backbone_images"):
        ours, theirs = (measured(side, None, None, f"train/{name}") for side in (runs, oracle))
        ratios = {seed: ours[seed].value / theirs[seed].value for seed in ours if seed in theirs}
        found[name] = {seed: Record(None, None, name, value) for seed, value in ratios.items()}
    return found["processor_seconds"] or found["seconds"], found["backbone_images"]


# -- what the pictures take ------------------------------------------------------------------------


def points(rows: pd.DataFrame, experiment_id: str) -> dict[str, dict[str, Any]]:
    """Rows of one experiment as the plots take them (self_cross_scatter, gain_dots).

    Returns:
        plot name -> self, cross, gain, each with _low and _high, and asked (new/old with the old query too;
        all None where there is no number), criterion (True when it holds in every seed), and title.
    """
    columns = {"self": "new_new", "cross": "new_old", "gain": "gain", "asked": "with_old_query"}
    found = {}
    for row in rows[rows["experiment_id"] == experiment_id].to_dict("records"):
        numbers = {name + end: row[column + end] for name, column in columns.items() for end in _ENDS}
        numbers = {name: None if pd.isna(value) else float(value) for name, value in numbers.items()}
        found[plot_name(row)] = numbers | {"criterion": row["criterion"] == 1.0, "title": row["title"]}
    return found


def bounds(rows: pd.DataFrame, experiment_id: str) -> dict[str, float | None]:
    """What an experiment's methods are compared with: keywords "old_old" and "oracle" of the plots."""
    best = rows[rows["experiment_id"] == experiment_id].nlargest(1, "n", keep="last")
    means = {name: best[name].dropna() for name in ("old_old", "oracle")}
    return {name: float(values.iloc[0]) if len(values) else None for name, values in means.items()}


def backfill(
    run: Run, metric: str = "map", order: str = "random", adapter: str | None = None
) -> tuple[list[float], list[float | None]]:
    """The mixed-gallery curve of a run: shares re-embedded, and the metric at each.

    Args:
        adapter: "rank-merge" of an independent run: two indexes, each asked by its own model.
    """
    found = run.metrics.select(gallery="mixed", metric=metric, order=order, adapter=adapter)
    curve = sorted((one.share, one.value) for one in found if one.share is not None)
    return [share for share, _ in curve], [value for _, value in curve]


def backfill_curves(runs: pd.DataFrame, experiment_id: str, metric: str = "map") -> dict[str, tuple]:
    """The mixed-gallery curve of every method of an experiment that has one, and of two indexes (MERGED).

    Returns:
        plot name -> (shares, means over the seeds), and with several seeds two arrays more, mean minus and
        plus the deviation.
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


def histories(runs: pd.DataFrame, experiment_id: str) -> dict[str, list[dict[str, float]]]:
    """Every method's history.csv, each number the mean over the seeds; methods without one are left out."""
    found = {}
    for name, own in by_method(runs, experiment_id).items():
        tables = [pd.DataFrame(run.history) for run in own["run"] if (run.folder / "history.csv").is_file()]
        if tables:
            mean = pd.concat(tables).groupby("epoch", as_index=False).mean()
            found[name] = [row.dropna().to_dict() for _, row in mean.iterrows()]
    return found
