"""What the runs of an experiment draw: curves over epochs and over a gallery's share, means of the seeds."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from companion.tables.frames import backfill
from companion.tables.rows import plot_name, row_title
from companion.tables.single import FLAT, last_third
from compat_lib.runs import Run


def backfill_curves(frame: pd.DataFrame, experiment_id: str, metric: str = "map") -> dict[str, tuple]:
    """The mixed-gallery curve of every method of an experiment.

    Args:
        frame: from collect.
        experiment_id: which experiment.
        metric: "map", "rank1" or "tar@far=1e-2".

    Returns:
        name as in points() -> (shares, means over the seeds), and with several seeds two lists more, mean
        minus and plus the deviation.
    """
    curves = {}
    for name, runs in by_method(frame, experiment_id).items():
        found = [backfill(row, metric) for row in runs.to_dict("records")]
        found = [(shares, np.array(values, dtype=float)) for shares, values in found if shares]
        found = [(shares, values) for shares, values in found if np.isfinite(values).all()]
        if not found:
            continue
        shares, stacked = found[0][0], np.stack([values for _, values in found])
        mean = stacked.mean(axis=0)
        curves[name] = (shares, mean)
        if len(stacked) > 1:
            deviation = stacked.std(axis=0, ddof=1)
            curves[name] += (mean - deviation, mean + deviation)
    return curves


def histories(frame: pd.DataFrame, experiment_id: str) -> dict[str, list[dict[str, float]]]:
    """Every method's history.csv, each number the mean over the seeds; methods without one are left out."""
    found = {name: _mean_history(runs) for name, runs in by_method(frame, experiment_id).items()}
    return {name: history for name, history in found.items() if history}


def _mean_history(runs: pd.DataFrame) -> list[dict[str, float]]:
    folders = [Path(folder) for folder in runs["folder"]]
    tables = [pd.DataFrame(Run(folder).history) for folder in folders if (folder / "history.csv").is_file()]
    if not tables:
        return []
    rows = pd.concat(tables).groupby("epoch", as_index=False).mean().to_dict("records")
    return [{key: value for key, value in row.items() if not pd.isna(value)} for row in rows]


def flat_table(frame: pd.DataFrame, titles: Mapping[str, str]) -> pd.DataFrame:
    """Which methods' self-tests on the validation identities still moved in the last third of the training.

    Args:
        frame: from collect.
        titles: experiment identifier -> its title.

    Returns:
        Text columns: experiment, flat, still moving; in brackets how far each moved.
    """
    lines = []
    for experiment, title in titles.items():
        columns: dict[str, list[str]] = {"flat": [], "still moving": []}
        for runs in by_method(frame, experiment).values():
            third = last_third(_mean_history(runs))
            if third is not None:
                column = "flat" if abs(third[2]) <= FLAT else "still moving"
                columns[column].append(f"{row_title(runs.iloc[0])} ({third[2]:+.3f})")
        words = {column: ", ".join(found) or "none" for column, found in columns.items()}
        unknown = {column: "not recorded" for column in columns}
        lines.append({"experiment": title} | (words if any(columns.values()) else unknown))
    return pd.DataFrame(lines, columns=["experiment", "flat", "still moving"])


def too_short(frame: pd.DataFrame, titles: Mapping[str, str]) -> str:
    """Which settings were not trained long enough to judge a claim, or the empty text.

    Those whose oracle still moved, by the rule of flat_table: every gain is measured against it.

    Args:
        frame: from collect.
        titles: experiment identifier -> its title.
    """
    moving = []
    for experiment, title in titles.items():
        third = last_third(_mean_history(by_method(frame, experiment).get("independent", frame.iloc[:0])))
        if third is not None and abs(third[2]) > FLAT:
            moving.append(f"{title} (its oracle still moved by {third[2]:+.3f} in the last third)")
    if not moving:
        return ""
    return (
        f"**Not trained long enough to judge:** {'; '.join(moving)}. What rests on such a setting says "
        "little, although the verdicts below count it."
    )


def by_method(frame: pd.DataFrame, experiment_id: str) -> dict[str, pd.DataFrame]:
    """Runs of an experiment without its old models, by plot name, the independent model first."""
    rows = frame[(frame["experiment_id"] == experiment_id) & (frame["method"] != "old")]
    groups: dict[str, list[int]] = {}
    for index, row in rows.iterrows():
        groups.setdefault(plot_name(row), []).append(index)
    ordered = sorted(groups, key=lambda name: (name != "independent", name))
    return {name: rows.loc[groups[name]] for name in ordered}
