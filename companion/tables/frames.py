"""Run folders as one data frame, and means over seeds."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from compat_lib.runs import list_runs

GROUP = ("experiment_id", "method", "budget", "method_options")


def collect(*roots: str | Path) -> pd.DataFrame:
    """One row for every complete run below the given folders.

    Args:
        roots: folders of run folders ("runs", "results"); a run that is in several is taken from the first.

    Returns:
        Columns: every field of the configuration (dictionaries as JSON text), "experiment_id", "run_id",
        "test_identities", every metric by its name, and "folder". Old models' runs have method "old".
        Empty, with the columns that the other functions need, when there are no runs.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for root in roots:
        for run in list_runs(root):
            config = {"experiment_id": run.folder.parent.name, "run_id": run.folder.name} | run.config
            facts = config.pop("facts", {})
            fields = {key: _plain(value) for key, value in config.items()}
            fields["test_identities"] = facts.get("classes", {}).get("test")
            row = {"budget": "steps", "method_options": "{}"} | fields | run.metrics
            rows.setdefault((row["experiment_id"], row["run_id"]), row | {"folder": str(run.folder)})
    return pd.DataFrame(list(rows.values()), columns=None if rows else [*GROUP, "run_id", "seed", "folder"])


def _plain(value: Any) -> Any:
    return options_text(value) if isinstance(value, dict) else value


def options_text(options: Mapping[str, Any]) -> str:
    """A dictionary as the text that stands in the frame.

    >>> options_text({"b": 1, "a": 0.5})
    '{"a": 0.5, "b": 1}'
    """
    return json.dumps(options, sort_keys=True)


def summary(frame: pd.DataFrame, metrics: Sequence[str], by: Sequence[str] = GROUP) -> pd.DataFrame:
    """Mean, standard deviation (n - 1 in the denominator) and n of metrics over seeds.

    Args:
        frame: from collect.
        metrics: columns; one that no run has gives n = 0.
        by: columns that make a group.

    Returns:
        One row a group in the order of the frame; columns (metric, "mean" | "deviation" | "n"). A run
        without the metric does not count; the deviation of one run is nan.
    """
    values = frame.reindex(columns=list(metrics)).apply(pd.to_numeric)
    groups = frame[list(by)].join(values).groupby(list(by), sort=False, dropna=False)[list(metrics)]
    return groups.agg(["mean", "std", "count"]).rename(columns={"std": "deviation", "count": "n"}, level=1)


def with_adapters(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with one row more for every post-hoc adapter that was measured on an independent run.

    The adapter's cross-test takes the place of the independent model's; self-test and cost are the same.
    """
    extra = []
    prefixes = sorted(
        {match.group() for match in map(re.compile("adapter/[^/]+").match, frame.columns) if match}
    )
    for row in frame[frame["method"] == "independent"].to_dict("records"):
        own = {key: value for key, value in row.items() if not key.startswith(("adapter/", "new_old/"))}
        own.pop("criterion", None)
        for name in prefixes:
            cross = {key.removeprefix(f"{name}/"): row[key] for key in row if key.startswith(f"{name}/")}
            if any(not pd.isna(value) for value in cross.values()):
                extra.append(own | cross | {"method": name})
    return pd.concat([frame, pd.DataFrame(extra)], ignore_index=True) if extra else frame


def backfill(metrics: Mapping[str, Any], metric: str = "map") -> tuple[list[float], list[float | None]]:
    """The mixed-gallery curve of a run: shares re-embedded and the metric at each.

    Args:
        metrics: a run's metrics, or a row of collect().
        metric: "map", "rank1" or "tar@far=1e-2".

    >>> backfill({"mixed/share=0.10/map": 0.5, "mixed/share=0.00/map": 0.4, "new_new/map": 0.9})
    ([0.0, 0.1], [0.4, 0.5])
    """
    pattern = re.compile(rf"mixed/share=([0-9.]+)/{re.escape(metric)}")
    items = dict(metrics).items()
    found = sorted((float(match[1]), value) for name, value in items if (match := pattern.fullmatch(name)))
    return [share for share, _ in found], [value for _, value in found]
