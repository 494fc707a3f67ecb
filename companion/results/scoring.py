"""Every method of every experiment in a row of scores."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from companion.results.frame import GROUP, row_of, select, with_adapters
from companion.results.seeds import (
    ENDS,
    TESTS,
    WITH_OLD_QUERY,
    difference,
    gain,
    measured,
    relative_costs,
    spread,
)
from companion.titles import ADAPTERS, CEILINGS, SETTING, asks_alone, needs_of, row_title
from compat_lib.config import ExperimentConfig
from compat_lib.evaluation.compatibility import HEADLINE
from compat_lib.evaluation.records import metric_for


def scores(
    runs: pd.DataFrame, metric: str = HEADLINE, expected: Iterable[ExperimentConfig] | None = None
) -> pd.DataFrame:
    """Self-test, cross-test, criterion, update gain and cost of every method in every experiment.

    Each number has columns "…_low", "…_high", "…_deviation" and "…_n" (ENDS). The old model, the new
    model and the oracle are paired by seed and by bootstrap draw.

    Args:
        metric: its name among those of all pairs; another protocol's stands in its place (`metric_for`).
        expected: configurations that should have run (a preset's experiments): they say which rows their
            experiments have, in which order, and what is not there has n = 0. None: what is there.

    Returns one row for each experiment, method, budget and method_options, adapters last in their experiment.
    Columns: the group, the setting's fields, metric, title, needs, seeds (expected), n and oracle_n (found);
    old_old, new_old, new_new, oracle, gain, flips (share of the queries that were answered right before and
    are not now), with_old_query (new/old when the old model runs at query time too) and those of CEILINGS;
    margin (new/old - old/old) and self_change (new/new minus the oracle's) with the ends of the paired
    difference's 95 % interval and its "…_seeds"; criterion (share of the seeds in which new/old > old/old);
    decided (whether the margin's interval leaves out zero); new_old_best and new_new_best (of those that ask
    alike, or not to be told from it); cost and images (of the training, relative to the oracle's).
    """
    runs = with_adapters(runs[runs["method"] != "old"])
    rows, sides, groups = [], [], _groups(runs, expected)
    runs = runs[[*GROUP, "seed", "run"]]
    for group, (fields, seeds) in groups.items():
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
        row |= {name + end: part for end, part in zip(ENDS, spread(one), strict=True)}
    margin = difference(runs, TESTS["new_old"], runs, TESTS["old_old"], metric)
    change = difference(runs, TESTS["new_new"], oracle, TESTS["new_new"], metric)
    for name, one in (("margin", margin), ("self_change", change)):
        row |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high, f"{name}_seeds": one.seeds}
    held = [cross[seed].value > old[seed].value for seed in cross if seed in old]
    row["criterion"] = float(np.mean(held)) if held else np.nan
    row["decided"] = margin.decided
    row["cost"], row["images"] = (spread(one).value for one in relative_costs(runs, oracle))
    return row
