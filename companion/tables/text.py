"""The tables as people read them."""

import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from companion.tables.rows import row_title, self_cross
from compat_lib.config import ExperimentConfig

MISSING = "missing"
NOT_MEASURABLE = "n/a"
CAPTION = (
    "Query model / gallery model. With one seed: value [95 % bootstrap interval over test identities]; with "
    "several: mean ± standard deviation over the seeds. 'within noise': the 95 % interval of new/old minus "
    "old/old holds zero. Update gain: (new/old - old/old) / (oracle new/new - old/old). Cost: training time "
    "relative to the oracle's. Methods train for equal steps unless a row says 'equal backbone passes'. "
    "n/a: not measurable with so few pairs, or the gain's denominator is not above zero."
)
# Cells may wrap and may hold line breaks, so that a table fits a narrow page as far as its words allow.
_CELL = (
    "text-align: left; vertical-align: top; white-space: pre-line; overflow-wrap: normal; padding: 3px 6px;"
)
_STYLE = [
    {"selector": "", "props": "border-collapse: collapse; font-size: 85%; line-height: 1.35;"},
    {"selector": "caption", "props": "text-align: left; color: #444; padding: 4px 0; max-width: 60em;"},
    {"selector": "th", "props": f"{_CELL} border-bottom: 1.5px solid #444;"},
    {"selector": "td", "props": f"{_CELL} border-bottom: 1px solid #ddd;"},
]
_REFERENCE = {"background-color": "#e4edf6"}


def self_cross_table(
    frame: pd.DataFrame,
    metric: str = "tar@far=1e-3",
    expected: Iterable[ExperimentConfig] | None = None,
) -> pd.DataFrame:
    """The main table as text: every method of every expected experiment, what is not there as "missing".

    Args:
        frame: from collect.
        metric: name without the pair.
        expected: configurations that should have run, or None for what is in the frame.

    Returns:
        Columns: experiment, method, seeds, old/old, new/old, new/new, oracle new/new, criterion, update gain,
        cost, needs of the old model, note. How to read a cell is said in CAPTION.
    """
    rows = self_cross(frame, metric, expected).to_dict("records")
    titles = experiment_titles(row["experiment_id"] for row in rows)
    return pd.DataFrame([_line(row, titles[row["experiment_id"]]) for row in rows])


def experiment_titles(experiment_ids: Iterable[str]) -> dict[str, str]:
    """Experiment identifiers for people: without the hash where the name alone tells them apart.

    >>> experiment_titles(["portraits-open-class-softmax-to-arcface-1f3a9c"])
    {'portraits-open-class-softmax-to-arcface-1f3a9c': 'portraits-open-class-softmax-to-arcface'}
    """
    ids = list(dict.fromkeys(experiment_ids))
    short = [name.rsplit("-", 1)[0] for name in ids]
    return {name: s if short.count(s) == 1 else name for name, s in zip(ids, short, strict=True)}


def _line(row: Mapping[str, Any], experiment: str) -> dict[str, str]:
    def cell(text: str, *counts: str) -> str:
        """The text, or "missing" where one of the sides was not run."""
        return text if all(row[count] > 0 for count in counts) else MISSING

    notes = ["reconstruction"] if row["reconstruction"] else []
    if 0 < row["n"] < row["seeds"]:
        notes.append(f"{row['seeds'] - row['n']} of {row['seeds']} seeds missing")
    return {
        "experiment": experiment,
        "method": row_title(row),
        "seeds": cell(str(row["n"]), "n"),
        "old/old": cell(_cell(row, "old_old"), "n"),
        "new/old": cell(_cell(row, "new_old"), "n"),
        "new/new": cell(_cell(row, "new_new"), "n"),
        "oracle new/new": cell(_cell(row, "oracle"), "oracle_n"),
        "new/old > old/old": cell(_criterion(row), "n"),
        "update gain": cell(_cell(row, "gain", digits=2), "n", "oracle_n"),
        "cost": cell(NOT_MEASURABLE if _empty(row, "cost") else f"{row['cost']:.2f}", "n", "oracle_n"),
        "needs of the old model": row["needs"],
        "note": ", ".join(notes),
    }


def _empty(row: Mapping[str, Any], name: str) -> bool:
    return bool(pd.isna(row[name]))


def _cell(row: Mapping[str, Any], name: str, digits: int = 3) -> str:
    if _empty(row, name):
        return NOT_MEASURABLE
    text = f"{row[name]:.{digits}f}"
    if np.isfinite(row[f"{name}_deviation"]):
        return f"{text} ± {row[f'{name}_deviation']:.{digits}f}"
    if np.isfinite(row[f"{name}_low"]):
        return f"{text} [{row[f'{name}_low']:.{digits}f}, {row[f'{name}_high']:.{digits}f}]"
    return text


def _criterion(row: Mapping[str, Any]) -> str:
    if _empty(row, "criterion"):
        return NOT_MEASURABLE
    share = row["criterion"]
    word = {1.0: "yes", 0.0: "no"}.get(share, f"in {share:.0%} of the seeds")
    return word if row["decided"] or not np.isfinite(row["margin_low"]) else f"{word}, within noise"


def styled(table: pd.DataFrame, caption: str = CAPTION, references: int = 0) -> Styler:
    """A table of text as plain HTML without scripts, the same bytes for the same table.

    Args:
        table: from self_cross_table or verdict_table.
        caption: above the table.
        references: number of first rows that the others are compared with; they are tinted.

    Returns:
        A Styler: a notebook shows it by itself, ``.to_html()`` gives the text. Missing runs are grey, and a
        value of the first column is written once where rows repeat it.
    """
    shown = table.reset_index(drop=True)
    if len(shown.columns):
        first = shown.columns[0]
        shown[first] = shown[first].where(shown[first] != shown[first].shift(), "")
    # Two tables on one page must not share names, nor may a table change its name from run to run.
    digest = f"{zlib.crc32(shown.to_csv().encode()):08x}"
    style = shown.style.hide(axis="index").set_caption(caption).set_uuid(digest).set_table_styles(_STYLE)
    if references:
        style = style.set_properties(subset=pd.IndexSlice[: references - 1, :], **_REFERENCE)
    return style.map(lambda cell: "color: #999" if cell in (MISSING, NOT_MEASURABLE) else "").format(
        escape="html"
    )
