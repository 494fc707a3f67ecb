"""Cells and how tables look: numbers with their spread as text; HTML and markdown."""

import html
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from companion.results import ENDS, Spread
from compat_lib.evaluation.paired import PairedComparison
from compat_lib.evaluation.records import shown

MISSING = "missing"
BEST = " ★"  # ends a cell of the best, and of those that the paired test cannot tell from it
_CELL = "text-align: left; vertical-align: top; padding: 3px 6px;"
_STYLE = [
    {"selector": "", "props": "border-collapse: collapse; font-size: 85%; line-height: 1.35;"},
    {"selector": "caption", "props": "text-align: left; color: #444; padding: 4px 0;"},
    {"selector": "th", "props": f"{_CELL} border-bottom: 1.5px solid #444;"},
    {"selector": "td", "props": f"{_CELL} border-bottom: 1px solid #ddd;"},
]


def changed(one: PairedComparison) -> str:
    """A paired difference in points: "+3.1 [+1.9, +4.3]", with "within noise" where its interval holds zero.

    >>> changed(PairedComparison(0.031, -0.01, 0.043, seeds=1))
    '+3.1 [-1.0, +4.3], within noise'
    """
    noise = ", within noise" if np.isfinite(one.low) and not one.decided else ""
    return shown(one.value, one.low, one.high, signed=True) + noise


def score_cell(row: Mapping[str, Any], name: str, **form: Any) -> str:
    """A number of a row of scores; n is said with several seeds, and where some of them are missing."""
    value, low, high, deviation, n = (row.get(f"{name}{end}", np.nan) for end in ENDS)
    return spread_cell(Spread(value, low, high, deviation, int(np.nan_to_num(n))), row["seeds"], **form)


def spread_cell(values: Spread, seeds: int = 1, **form: Any) -> str:
    """Mean ± deviation (n) of several seeds, or the value of one with its interval; of how many is said.

    >>> spread_cell(Spread(0.5, 0.49, 0.51, 0.01, 3)), spread_cell(Spread(0.5, 0.49, 0.51, n=1), 2)
    ('50.0 ± 1.0 (3)', '50.0 [49.0, 51.0] (1 of 2)')
    """
    text = shown(values.value, values.low, values.high, **form)
    if values.n > 1:
        text = f"{shown(values.value, **form)} ± {shown(values.deviation, **form | {'signed': False})}"
    missing = f" of {seeds}" * (values.n < seeds)
    return text + f" ({values.n}{missing})" * (values.n > 1 or bool(values.n and missing))


def criterion_words(row: Mapping[str, Any]) -> str:
    """Whether new/old > old/old holds, as a row of scores says it: "yes", "no, within noise", "n/a"."""
    if pd.isna(row["criterion"]):
        return shown(None)
    held = round(row["criterion"] * row["n"])
    word = {1.0: "yes", 0.0: "no"}.get(row["criterion"], f"in {held} of {row['n']} seeds")
    return word if row["decided"] or not np.isfinite(row["margin_low"]) else f"{word}, within noise"


def styled(table: pd.DataFrame, caption: str = "") -> Styler:
    """A table of text as plain HTML without scripts, the same bytes for the same table.

    Cells that end with BEST are bold. The first ``table.attrs["references"]`` rows are tinted: what the
    others are compared with.
    """
    whole = table.reset_index(drop=True)
    # Two tables on one page must not share names, nor may a table change its name from run to run.
    digest = f"{zlib.crc32((caption + whole.to_csv()).encode()):08x}"
    style = whole.style.hide(axis="index").set_caption(caption).set_uuid(digest).set_table_styles(_STYLE)
    if references := table.attrs.get("references", 0):
        tint = {"background-color": "#e4edf6"}
        style = style.set_properties(subset=pd.IndexSlice[: references - 1, :], **tint)
    return style.map(_look).format(lambda cell: html.escape(str(cell).removesuffix(BEST)))


def _look(cell: Any) -> str:
    """Grey for what is not there; an interval stays on one line however narrow the page is."""
    if cell in (MISSING, shown(None)):
        return "color: #999"
    whole = isinstance(cell, str) and re.search(r"\[.*\]|±", cell) and "\n" not in cell and len(cell) < 40
    bold = "font-weight: bold; " * (isinstance(cell, str) and cell.endswith(BEST))
    return bold + ("white-space: nowrap" if whole else "white-space: pre-line")


def side_by_side(tables: Sequence[Styler]) -> str:
    """Several styled tables as HTML: beside each other where there is room, below each other elsewhere."""
    place = '<div style="max-width: 100%; overflow-x: auto;">'
    parts = "".join(f"{place}{table.to_html()}</div>" for table in tables)
    row = "display: flex; flex-wrap: wrap; align-items: flex-start; gap: 0 1.2em;"
    return f'<div style="{row}">{parts}</div>'


def markdown(table: pd.DataFrame, left: int = 1) -> str:
    """A table of text as markdown; columns after the first `left` are set to the right.

    >>> print(markdown(pd.DataFrame({"a": ["x"], "b": ["1.0"]})))
    | a | b |
    | --- | ---: |
    | x | 1.0 |
    """
    rules = ["---"] * left + ["---:"] * (len(table.columns) - left)
    bold = table.astype(str).replace(rf"^(.*){BEST}$", r"**\1**", regex=True)
    lines = [list(table.columns), rules, *bold.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
