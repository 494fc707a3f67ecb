"""What to trust: which trainings were long enough, and who made the runs."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from companion.plots.curves import VALIDATION, History, history_series
from companion.results import by_method, histories
from companion.titles import row_title
from compat_lib.evaluation.records import shown

FLAT = 0.02  # absolute: two points of the metric


def last_third(history: History) -> tuple[int, int, float] | None:
    """First and last epoch of the last third of a training, and how far the self-test moved between them.

    None with fewer than two epochs that have it.

    >>> last_third([{"epoch": epoch, VALIDATION: epoch / 12} for epoch in (3, 6, 9)])
    (6, 9, 0.25)
    """
    epochs, values = history_series(history, VALIDATION)
    if len(epochs) < 2:
        return None
    start = abs(epochs[:-1] - 2 * epochs[-1] / 3).argmin()
    return int(epochs[start]), int(epochs[-1]), float(values[-1] - values[start])


def flatness(history: History) -> str:
    """Whether the self-test on validation identities still moves in the last third, as a sentence."""
    third = last_third(history)
    if third is None:
        return "Fewer than two looks at the validation identities: nothing can be said about flatness."
    start, last, change = third
    flat = abs(change) <= FLAT
    words = "flat enough to be judged" if flat else "still moving, so train longer before judging"
    return f"From epoch {start} to {last} it moved by {shown(change, signed=True)} points: {words}."


def flat_table(runs: pd.DataFrame, titles: Mapping[str, str]) -> pd.DataFrame:
    """Whose self-test on validation identities still moved in the last third of the training, in points."""
    lines = []
    for experiment, title in titles.items():
        flat, moving, methods = [], [], by_method(runs, experiment)
        for name, history in histories(runs, experiment).items():
            if third := last_third(history):
                words = f"{row_title(methods[name].iloc[0])} ({shown(third[2], signed=True)})"
                (flat if abs(third[2]) <= FLAT else moving).append(words)
        empty = "none" if flat + moving else "not recorded"
        lines.append([title, ", ".join(flat) or empty, ", ".join(moving) or empty])
    return pd.DataFrame(lines, columns=["experiment", "flat", "still moving"])


def oracle_moved(runs: pd.DataFrame, experiment_id: str) -> str:
    """By how many points a setting's oracle moved in its last third; empty where that is flat."""
    oracle = runs[runs["method"] == "independent"]
    third = last_third(histories(oracle, experiment_id).get("independent", ()))
    return shown(third[2], signed=True) if third and abs(third[2]) > FLAT else ""


def too_short(runs: pd.DataFrame, titles: Mapping[str, str]) -> str:
    """Which settings were not trained long enough to judge a claim, or the empty text.

    Those whose oracle still moved: every gain is measured against it.
    """
    moved = {title: oracle_moved(runs, experiment) for experiment, title in titles.items()}
    said = [
        f"{title} (its oracle still moved by {points} points)" for title, points in moved.items() if points
    ]
    return f"**Not trained long enough to judge:** {'; '.join(said)}." if said else ""


def provenance_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Who made the runs: one row for each place, hardware, software and commit, old models among them."""
    lines = []
    for place, run in zip(runs["place"], runs["run"], strict=True):
        made, seconds = run.environment, run.metrics.find(None, None, "train/seconds")
        cores = f"{made.get('cores', '?')} cores, threads used: {made.get('threads', '?')}"
        processor = f"{made.get('processor', 'not recorded')}, {cores}"
        hardware = made.get("accelerator") if made.get("device", "cpu") != "cpu" else processor
        software = f"Python {made.get('python', '?')}, torch {made.get('torch', '?')}"
        software += f", {made['precision']}" if "precision" in made else ""
        minutes = np.nan if seconds is None or seconds.value is None else seconds.value / 60
        finished = (made.get("finished") or "")[:10]
        lines.append([place, hardware, software, made.get("commit") or "unknown", minutes, finished])
    names = ["whose", "hardware", "software", "commit", "minutes", "finished"]
    groups = pd.DataFrame(lines, columns=names).groupby(names[:4], sort=False, dropna=False)
    table = groups.agg(
        runs=("minutes", "size"),
        minutes=("minutes", lambda minutes: f"{minutes.sum():,.1f}" if minutes.notna().any() else "not kept"),
        days=("finished", lambda days: " to ".join(sorted({min(days), max(days)} - {""}))),
    )
    return table.rename(columns={"minutes": "minutes of training"}).reset_index().astype(str)


def mixed_code(runs: pd.DataFrame) -> str:
    """Warnings where runs of one experiment come from several commits or precisions, or the empty text.

    Runs are reused by what their configuration says: it does not know the code, nor what the precision "auto"
    meant on the processor that made them.
    """
    made = pd.DataFrame([run.environment for run in runs["run"]], columns=["commit", "precision"])
    made["commit"] = made["commit"].str.split("+").str[0]
    counts = made.groupby(runs["experiment_id"].to_numpy(), sort=False).nunique()
    code = [f"{experiment} ({n} commits)" for experiment, n in counts["commit"].items() if n > 1]
    said = {
        "Made by more than one version of the code: {}. Where the versions differ in what they compute, such "
        "runs must not be compared: delete the experiment's folder and run it again.": code,
        "Made in more than one precision: {}. Such runs differ by more than their seeds: set `precision` and "
        "run it again.": counts.index[counts["precision"] > 1],
    }
    return " ".join(text.format("; ".join(found)) for text, found in said.items() if len(found))
