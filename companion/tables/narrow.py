"""The tables of one experiment, each narrow enough for a telephone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.line_breaks import in_lines
from companion.tables.rows import needs_of, row_title
from companion.tables.text import MISSING, NOT_MEASURABLE

DATASETS = {
    "portraits": "Portraits",
    "omniglot": "Omniglot",
    "cifar100": "CIFAR-100",
    "folder": "Image folder",
}
LOSS_TITLES = {"softmax": "softmax", "cosface": "CosFace", "arcface": "ArcFace"}


def setting_title(row: Mapping[str, Any]) -> str:
    """An experiment for people: data set, scenario, losses, and a weak old model where it is one.

    >>> setting_title({"dataset": "portraits", "scenario": "open-class", "old_loss": "softmax",
    ...                "new_loss": "arcface", "old_strength": "weak"})
    'Portraits, open-class, softmax to ArcFace, weak old model'
    """
    losses = [LOSS_TITLES.get(row[name], str(row[name])) for name in ("old_loss", "new_loss")]
    title = f"{DATASETS.get(row['dataset'], row['dataset'])}, {row['scenario']}, {losses[0]} to {losses[1]}"
    return title + (", weak old model" if row.get("old_strength") == "weak" else "")


def setting_titles(rows: pd.DataFrame) -> dict[str, str]:
    """Title of every experiment in rows of self_cross, with the hash where titles would be equal."""
    if rows.empty:
        return {}
    titles = {row["experiment_id"]: setting_title(row) for row in rows.to_dict("records")}
    named = list(titles.values())
    return {
        name: title if named.count(title) == 1 else f"{title} ({name.rsplit('-', 1)[-1]})"
        for name, title in titles.items()
    }


def overview_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Every experiment in one line: how much of it is there, and which methods are compatible beyond noise.

    Args:
        rows: of self_cross.

    Returns:
        Text columns: experiment, runs (found of expected, adapters not counted), compatible.
    """
    lines = []
    for experiment, title in setting_titles(rows).items():
        own = rows[rows["experiment_id"] == experiment].to_dict("records")
        trained = [row for row in own if not row["method"].startswith("adapter/")]
        found, wanted = (sum(row[name] for row in trained) for name in ("n", "seeds"))
        met = [row_title(row) for row in own if row["decided"] and row["margin"] > 0]
        compatible = "; ".join(met) or "none"
        runs = f"{found} of {wanted}"
        line = {"experiment": title, "runs": runs if found else MISSING}
        lines.append(line | {"new/old > old/old beyond noise": compatible if found else MISSING})
    return pd.DataFrame(lines)


def score_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Cross-test and self-test of every method, below a first row with what each must be compared with.

    Args:
        rows: of self_cross, those of one experiment.

    Returns:
        Text columns: method, n (seeds found, "1/3" where two of three are missing), new/old, new/new. The
        first row holds old/old under new/old, and the oracle's new/new under new/new.
    """
    best = max(rows.to_dict("records"), key=lambda row: row["n"])
    lines = [
        {
            "method": "compare with",
            "n": "",
            "new/old": f"old/old\n{_cell(best, 'old_old') if best['n'] else MISSING}",
            "new/new": f"oracle\n{_cell(best, 'oracle') if best['oracle_n'] else MISSING}",
        }
    ]
    for row in rows.to_dict("records"):
        found = row["n"] > 0
        counted = f"{row['n']}" if row["n"] == row["seeds"] else f"{row['n']}/{row['seeds']}"
        line = {"method": marked_title(row), "n": counted if found else "0"}
        for name, pair in (("new/old", "new_old"), ("new/new", "new_new")):
            line[name] = _cell(row, pair) if found else MISSING
        lines.append(line)
    return pd.DataFrame(lines)


def judgement_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Whether each method meets the compatibility criterion, by how much, and its update gain, as text."""
    lines = []
    for row in rows.to_dict("records"):
        found, both = row["n"] > 0, row["n"] > 0 and row["oracle_n"] > 0
        margin = f"{_criterion(row)}\n{_signed(row, 'margin')}" if found else MISSING
        gain = _cell(row, "gain", 2) if both else MISSING
        lines.append({"method": marked_title(row), "new/old > old/old": margin, "update gain": gain})
    return pd.DataFrame(lines)


def cost_table(rows: pd.DataFrame) -> pd.DataFrame:
    """What each trained method costs beside the oracle: self-test, training time and images, as text."""
    lines = []
    for row in rows.to_dict("records"):
        if row["method"].startswith("adapter/"):
            continue
        both = row["n"] > 0 and row["oracle_n"] > 0
        oracle = row["method"] == "independent"
        change = "is the oracle" if oracle else _signed(row, "self_change")
        line = {"method": marked_title(row), "new/new minus oracle": change if both else MISSING}
        for name, title in (("cost", "time"), ("images", "images")):
            line[title] = (NOT_MEASURABLE if pd.isna(row[name]) else f"{row[name]:.2f}") if both else ""
        lines.append(line)
    return pd.DataFrame(lines)


def needs_table(rows: pd.DataFrame) -> pd.DataFrame:
    """What each method must still have of the old model, and how much of its code is published."""
    lines: dict[str, dict[str, str]] = {}
    for row in rows.to_dict("records"):
        title = row_title(row | {"budget": "steps", "method_options": "{}"})
        status = "reconstruction: published only in part" if row["reconstruction"] else ""
        lines[row["method"]] = {
            "method": title,
            "needs of the old model": needs_of(row["method"]),
            "note": status,
        }
    return pd.DataFrame(list(lines.values()))


def marked_title(row: Mapping[str, Any]) -> str:
    """A method's title, with "reconstruction" where its publication leaves details open."""
    lines = in_lines(row_title(row), 19) + (["(reconstruction)"] if row["reconstruction"] else [])
    return "\n".join(lines)


def side_by_side(tables: Sequence[Any]) -> str:
    """Several styled tables as HTML: beside each other where there is room, below each other elsewhere."""
    parts = "".join(
        f'<div style="max-width: 100%; overflow-x: auto;">{table.to_html()}</div>' for table in tables
    )
    return (
        f'<div style="display: flex; flex-wrap: wrap; align-items: flex-start; gap: 0 1.2em;">{parts}</div>'
    )


def _cell(row: Mapping[str, Any], name: str, digits: int = 3) -> str:
    """A value, and below it its deviation or its interval."""
    value, deviation = row[name], row[f"{name}_deviation"]
    if pd.isna(value):
        return NOT_MEASURABLE
    if np.isfinite(deviation):
        return f"{value:.{digits}f}\n± {deviation:.{digits}f}"
    return f"{value:.{digits}f}{_interval(row, name, f'.{digits}f')}"


def _signed(row: Mapping[str, Any], name: str) -> str:
    return NOT_MEASURABLE if pd.isna(row[name]) else f"{row[name]:+.3f}{_interval(row, name, '+.3f')}"


def _interval(row: Mapping[str, Any], name: str, form: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    # No-break spaces: an interval stays on one line however narrow the page is.
    return f"\n[{low:{form}},\u00a0{high:{form}}]" if np.isfinite([low, high]).all() else ""


def _criterion(row: Mapping[str, Any]) -> str:
    if pd.isna(row["criterion"]):
        return NOT_MEASURABLE
    held = round(row["criterion"] * row["n"])
    word = {1.0: "yes", 0.0: "no"}.get(row["criterion"], f"in {held} of {row['n']} seeds")
    return word if row["decided"] or not np.isfinite(row["margin_low"]) else f"{word}, within noise"
