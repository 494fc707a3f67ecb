"""Self-test, cross-test, criterion, gain and cost of every method, as numbers."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from companion.tables.differences import paired_difference, paired_gain
from companion.tables.frames import GROUP, options_text, with_adapters
from compat_lib.config import ExperimentConfig
from compat_lib.losses import METHODS

ADAPTERS = {
    "adapter/procrustes": "Procrustes adapter, gallery to new",
    "adapter/procrustes-query": "Procrustes adapter, query to old",
    "adapter/ridge": "ridge adapter, gallery to new",
    "adapter/ridge-query": "ridge adapter, query to old",
}
_SETTING = ("dataset", "scenario", "old_strength", "old_loss", "new_loss", "old_backbone", "new_backbone")


def method_title(method: str, budget: str = "steps", options: str = "{}") -> str:
    """A method's name for people, with what sets the run apart: its budget and its options.

    >>> method_title("mixbct", "passes"), method_title("mixbct", options='{"mix_ratio": 0.2}')
    ('MixBCT, equal backbone passes', 'MixBCT (mix_ratio=0.2)')
    """
    title = ADAPTERS.get(method) or getattr(METHODS.get(method), "title", method)
    chosen = ", ".join(f"{name}={value}" for name, value in json.loads(options).items())
    return (
        title + (", equal backbone passes" if budget == "passes" else "") + (f" ({chosen})" if chosen else "")
    )


def needs_of(method: str) -> str:
    """What a method must still have of the old model, for a table.

    >>> needs_of("mixbct"), needs_of("independent")
    ('features', 'nothing')
    """
    needs = {"features"} if method.startswith("adapter/") else getattr(METHODS.get(method), "needs", ())
    return ", ".join(sorted(needs)) or "nothing"


def select(frame: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The rows in which every named column has the given value, ordered by seed."""
    mask = pd.Series(True, index=frame.index)
    for name, value in values.items():
        mask &= frame[name] == value
    return frame[mask].sort_values("seed")


def main_variant(runs: pd.DataFrame, method: str, budget: str = "steps") -> pd.DataFrame:
    """Runs of a method in one experiment that stand for it where methods are compared.

    These are the runs by its defaults. Only where there are none, those whose options most of its runs have
    (then the fewest options): older runs by other defaults, say. An ablation never stands for its method.

    Args:
        runs: rows of one experiment, from collect.
        method: its name.
        budget: "steps" or "passes".
    """
    rows = select(runs, method=method)
    counts = rows["method_options"].value_counts()
    ranked = sorted(counts.index, key=lambda text: (text != "{}", -counts[text], len(text), text))
    return select(rows, method_options=ranked[0] if ranked else "{}", budget=budget)


def variant_title(runs: pd.DataFrame, method: str) -> str:
    """The name of a method, with the options of its runs where they are not its defaults."""
    return method_title(method, options=runs["method_options"].iloc[0] if len(runs) else "{}")


def self_cross(
    frame: pd.DataFrame,
    metric: str = "tar@far=1e-3",
    expected: Iterable[ExperimentConfig] | None = None,
) -> pd.DataFrame:
    """Self-test, cross-test, criterion, update gain and cost of every method in every experiment.

    With several seeds a number is the mean over them, and "…_low" and "…_high" are that mean minus and plus
    the deviation. With one seed they are the 95 % bootstrap interval over test identities. The old model,
    the new model and the oracle are paired by seed and by bootstrap draw.

    Args:
        frame: from collect.
        metric: name without the pair.
        expected: configurations that should have run (a preset's experiments); their rows come in this
            order, and what is not in the frame is there with n = 0. None: what is in the frame.

    Returns:
        One row for each experiment, method, budget and method_options, adapters last in their experiment.
        Columns: the group, the setting's fields, seeds (expected), n and oracle_n (found); old_old, new_old,
        new_new, oracle and gain, each with _low, _high and _deviation; margin (new/old - old/old) with _low
        and _high, always the 95 % interval of the paired difference; criterion (share of the seeds in which
        new/old > old/old; nan when not measurable); decided (whether the margin's interval leaves out zero);
        cost and images (training time, and images that went through the network, relative to the oracle's);
        self_change (new/new minus the oracle's) with _low and _high, again the paired 95 % interval; needs;
        reconstruction.
    """
    frame = with_adapters(frame[frame["method"] != "old"])
    rows = []
    for group, (fields, seeds) in _groups(frame, expected).items():
        runs = select(frame, **dict(zip(GROUP, group, strict=True)))
        runs = runs[runs["seed"].isin(seeds)]
        oracle = select(frame, experiment_id=group[0], method="independent", budget="steps")
        oracle = oracle[oracle["seed"].isin(seeds)]
        rows.append(fields | {"seeds": len(seeds), "n": len(runs)} | _measure(runs, oracle, metric, group[1]))
    return pd.DataFrame(rows)


def _groups(
    frame: pd.DataFrame, expected: Iterable[ExperimentConfig] | None
) -> dict[tuple, tuple[dict[str, Any], set[int]]]:
    """What makes a row, in the order of the table: group -> (its fields, its seeds)."""
    sources = frame.to_dict("records") if expected is None else []
    sources.sort(key=lambda row: (row["method"] != "independent", row["method"], row["budget"] != "steps"))
    for config in expected or ():
        source = config.to_dict() | {"experiment_id": config.experiment_id}
        source["method_options"] = options_text(config.method_options)
        sources.append(source)
        if config.method == "independent":
            there = select(frame, experiment_id=config.experiment_id, seed=config.seed)["method"]
            names = [name for name in there if name.startswith("adapter/")]
            sources += [source | {"method": name} for name in names or ADAPTERS]
    order = list(dict.fromkeys(source["experiment_id"] for source in sources))
    sources.sort(key=lambda row: (order.index(row["experiment_id"]), row["method"].startswith("adapter/")))
    groups: dict[tuple, tuple[dict[str, Any], set[int]]] = {}
    for source in sources:
        fields = {name: source.get(name) for name in (*GROUP, *_SETTING)}
        groups.setdefault(tuple(source[name] for name in GROUP), (fields, set()))[1].add(source["seed"])
    return groups


def _measure(runs: pd.DataFrame, oracle: pd.DataFrame, metric: str, method: str) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for pair in ("old_old", "new_old", "new_new"):
        row |= _with_spread(pair, runs, f"{pair}/{metric}")
    row |= _with_spread("oracle", oracle, f"new_new/{metric}") | {"oracle_n": len(oracle)}
    margin = paired_difference(runs, f"new_old/{metric}", runs, f"old_old/{metric}")
    row |= {"margin": margin.value, "margin_low": margin.low, "margin_high": margin.high}
    margins = _numbers(runs, f"new_old/{metric}") - _numbers(runs, f"old_old/{metric}")
    margins = margins[np.isfinite(margins)]
    row["criterion"] = float((margins > 0).mean()) if len(margins) else np.nan
    row["decided"] = margin.decided
    row |= paired_gain(runs, oracle, metric)
    change = paired_difference(runs, f"new_new/{metric}", oracle, f"new_new/{metric}")
    row |= {"self_change": change.value, "self_change_low": change.low, "self_change_high": change.high}
    row["cost"] = _cost(runs, oracle)
    row["images"] = float((_images(runs) / _images(oracle)).mean())
    row["needs"] = needs_of(method)
    row["reconstruction"] = bool(getattr(METHODS.get(method), "reconstruction", False))
    return row


def _with_spread(name: str, runs: pd.DataFrame, column: str) -> dict[str, float]:
    values = _numbers(runs, column)
    kept = values[np.isfinite(values)]
    mean = float(kept.mean()) if len(kept) else np.nan
    deviation = float(kept.std(ddof=1)) if len(kept) > 1 else np.nan
    low, high = mean - deviation, mean + deviation
    if len(kept) == 1:
        at = int(np.flatnonzero(np.isfinite(values))[0])
        low, high = (float(_numbers(runs, f"{column}/{end}")[at]) for end in ("low", "high"))
    return {name: mean, f"{name}_low": low, f"{name}_high": high, f"{name}_deviation": deviation}


def _numbers(runs: pd.DataFrame, column: str) -> np.ndarray:
    values = runs[column] if column in runs else pd.Series(np.nan, index=runs.index)
    return pd.to_numeric(values).to_numpy(float)


def _cost(runs: pd.DataFrame, oracle: pd.DataFrame) -> float:
    """Training time of all epochs beside the oracle's of the same seed, nan where unknown.

    Processor time where both have it: other work on the machine hardly moves it.
    """
    for column in ("train/processor_seconds", "train/seconds"):
        times = [
            pd.Series(_numbers(side, column), index=side["seed"].to_numpy(), dtype=float)
            for side in (runs, oracle)
        ]
        ratio = (times[0] / times[1]).mean()
        if np.isfinite(ratio):
            return float(ratio)
    return np.nan


def _images(runs: pd.DataFrame) -> pd.Series:
    values = _numbers(runs, "train/backbone_images")
    return pd.Series(values, index=runs["seed"].to_numpy(), dtype=float)


def points(rows: pd.DataFrame, experiment_id: str) -> dict[str, dict[str, Any]]:
    """Rows of one experiment as the plots take them (self_cross_scatter, gain_dots).

    Args:
        rows: from self_cross.
        experiment_id: which experiment.

    Returns:
        method (with what sets it apart in brackets) -> self, cross, gain, each with _low and _high, and
        criterion (True when it holds in every seed); None where there is no number.
    """
    result = {}
    for row in select_rows(rows, experiment_id):
        point = {}
        for name, source in (("self", "new_new"), ("cross", "new_old"), ("gain", "gain")):
            for end in ("", "_low", "_high"):
                value = row[source + end]
                point[name + end] = None if pd.isna(value) else float(value)
        result[plot_name(row)] = point | {"criterion": row["criterion"] == 1.0, "title": row_title(row)}
    return result


def bounds(rows: pd.DataFrame, experiment_id: str) -> dict[str, float | None]:
    """What an experiment's methods are compared with: keywords "old_old" and "oracle" of the plots."""
    known = [row for row in select_rows(rows, experiment_id) if row["n"] > 0]
    if not known:
        return {"old_old": None, "oracle": None}
    best = max(known, key=lambda row: row["n"])
    return {name: None if pd.isna(best[name]) else float(best[name]) for name in ("old_old", "oracle")}


def plot_name(row: Mapping[str, Any]) -> str:
    """A method's name for the plots, with what sets it apart in brackets.

    >>> plot_name({"method": "mixbct", "budget": "passes", "method_options": "{}"})
    'mixbct (equal passes)'
    """
    marks = (["equal passes"] if row["budget"] == "passes" else []) + [
        f"{name}={value}" for name, value in json.loads(row["method_options"]).items()
    ]
    return row["method"] + (f" ({', '.join(marks)})" if marks else "")


def select_rows(rows: pd.DataFrame, experiment_id: str) -> list[Mapping[str, Any]]:
    return rows[rows["experiment_id"] == experiment_id].to_dict("records")


def row_title(row: Mapping[str, Any]) -> str:
    """Title of the method of a row of self_cross."""
    return method_title(row["method"], row["budget"], row["method_options"])
