"""What to trust: which trainings were long enough, and who made the runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.results import by_method, histories
from companion.titles import row_title
from compat_lib.evaluation.records import shown

VALIDATION = "val/new_new/tar@far=1e-2"
FLAT = 0.02  # absolute: two points of the metric


def last_third(history: Sequence[Mapping[str, Any]]) -> tuple[int, int, float] | None:
    """First and last epoch of the last third of a training, and how far the self-test moved between them.

    Returns:
        None with fewer than two epochs that have it.

    >>> last_third([{"epoch": epoch, VALIDATION: epoch / 12} for epoch in (3, 6, 9)])
    (6, 9, 0.25)
    """
    known = [(int(row["epoch"]), row[VALIDATION]) for row in history if row.get(VALIDATION) is not None]
    if len(known) < 2:
        return None
    last, end = known[-1]
    start, value = min(known[:-1], key=lambda point: abs(point[0] - 2 * last / 3))
    return start, last, end - value


def flatness(history: Sequence[Mapping[str, Any]]) -> str:
    """Whether the self-test on validation identities still moves in the last third, as a sentence."""
    third = last_third(history)
    if third is None:
        return "Fewer than two looks at the validation identities: nothing can be said about flatness."
    start, last, change = third
    words = (
        "flat enough to be judged" if abs(change) <= FLAT else "still moving, so train longer before judging"
    )
    return f"From epoch {start} to {last} it moved by {shown(change, signed=True)} points: {words}."


def flat_table(runs: pd.DataFrame, titles: Mapping[str, str]) -> pd.DataFrame:
    """Which methods' self-tests on the validation identities still moved in the last third of the training.

    Args:
        titles: experiment identifier -> its title.

    Returns:
        Columns: experiment, flat, still moving; in brackets how far each moved, in points.
    """
    lines = []
    for experiment, title in titles.items():
        columns: dict[str, list[str]] = {"flat": [], "still moving": []}
        methods = by_method(runs, experiment)
        for name, history in histories(runs, experiment).items():
            if third := last_third(history):
                column = "flat" if abs(third[2]) <= FLAT else "still moving"
                columns[column].append(f"{row_title(methods[name].iloc[0])} ({shown(third[2], signed=True)})")
        empty = "none" if any(columns.values()) else "not recorded"
        lines.append(
            {"experiment": title} | {name: ", ".join(found) or empty for name, found in columns.items()}
        )
    return pd.DataFrame(lines, columns=["experiment", "flat", "still moving"])


def too_short(runs: pd.DataFrame, titles: Mapping[str, str]) -> str:
    """Which settings were not trained long enough to judge a claim, or the empty text.

    Those whose oracle still moved, by the rule of flat_table: every gain is measured against it.
    """
    moving = []
    for experiment, title in titles.items():
        third = last_third(histories(runs, experiment).get("independent", []))
        if third and abs(third[2]) > FLAT:
            moving.append(f"{title} (its oracle still moved by {shown(third[2], signed=True)} points)")
    return f"**Not trained long enough to judge:** {'; '.join(moving)}." if moving else ""


def provenance_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Who made the runs: one row for each place, hardware, software and commit, old models among them."""
    lines = []
    for row in runs.to_dict("records"):
        made = row["run"].environment
        cores = f"{made.get('cores', '?')} cores, threads used: {made.get('threads', '?')}"
        cores = f"{made.get('processor', 'not recorded')}, {cores}"
        seconds = row["run"].metrics.find(None, None, "train/seconds")
        lines.append(
            {
                "whose": row["place"],
                "hardware": made.get("accelerator") if made.get("device", "cpu") != "cpu" else cores,
                "software": f"Python {made.get('python', '?')}, torch {made.get('torch', '?')}",
                "commit": made.get("commit") or "unknown",
                "minutes": np.nan if seconds is None or seconds.value is None else seconds.value / 60,
                "finished": (made.get("finished") or "")[:10],
            }
        )
    names = ["whose", "hardware", "software", "commit", "minutes", "finished"]
    groups = pd.DataFrame(lines, columns=names).groupby(names[:4], sort=False, dropna=False)
    table = groups.agg(
        runs=("minutes", "size"),
        minutes=("minutes", lambda minutes: f"{minutes.sum():,.1f}" if minutes.notna().any() else "not kept"),
        days=("finished", lambda days: " to ".join(sorted({min(days), max(days)} - {""}))),
    )
    return table.rename(columns={"minutes": "minutes of training"}).reset_index().astype(str)


def mixed_code(runs: pd.DataFrame) -> str:
    """A warning where runs of one experiment come from several commits, or the empty text.

    Runs are reused by what their configuration says, and a configuration does not know the code.
    """
    mixed = []
    for experiment, own in runs.groupby("experiment_id", sort=False):
        commits = {
            str(run.environment["commit"]).split("+")[0]
            for run in own["run"]
            if run.environment.get("commit")
        }
        mixed += [f"{experiment} ({len(commits)} commits)"] if len(commits) > 1 else []
    if not mixed:
        return ""
    return (
        f"Made by more than one version of the code: {'; '.join(mixed)}. Where the versions differ in what "
        "they compute, such runs must not be compared: delete the experiment's folder and run it again."
    )
