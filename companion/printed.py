"""Runs of one protocol in the columns of its papers, beside what the papers print.

printed.csv holds numbers of others in per cent, each with its source and setting; none of them is ours.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from companion.results import TESTS, by_method, measured, spread
from companion.tables import printed_metrics, spread_cell
from companion.titles import row_title
from compat_lib.evaluation.records import metric_title, shown


def printed(data_set: str, protocol: str) -> pd.DataFrame:
    """What papers print of a data set in a protocol, by a name of compat_lib or, of a folder, the folder's.

    Returns:
        Columns: source, setting, method, query, gallery, and the protocol's metrics in per cent, nan where
        the source has none.
    """
    rows = _numbers()
    return rows[(rows["dataset"] == data_set) & (rows["protocol"] == protocol)].reset_index(drop=True)


@cache
def _numbers() -> pd.DataFrame:
    return pd.read_csv(Path(__file__).with_name("printed.csv"))


def data_set_of(row: Mapping[str, Any]) -> str:
    """The data set of a row of `results.collect`; that of a folder is the folder's name."""
    options = json.loads(row["dataset_options"]) if isinstance(row["dataset_options"], str) else {}
    return Path(options["path"]).name if row["dataset"] == "folder" and "path" in options else row["dataset"]


def protocol_table(runs: pd.DataFrame, experiment_id: str) -> pd.DataFrame:
    """An experiment's runs as the papers of its protocol print theirs, then the papers' own rows.

    Returns:
        Columns: method, query/gallery, one for each metric (per cent), whose numbers these are and in which
        setting.
    """
    methods = by_method(runs, experiment_id)
    row = next(iter(methods.values())).iloc[0]
    protocol, metrics = row["protocol"], printed_metrics(row["run"])
    ours = (
        f"ours: {row['old_backbone']} of {row['old_epochs']} epochs to {row['new_backbone']} of "
        f"{row['epochs']} epochs, {row['scenario']}"
    )
    lines = []
    for test, pair in TESTS.items():
        for own in methods.values() if test != "old_old" else list(methods.values())[:1]:
            name = "old" if test == "old_old" else row_title(own.iloc[0])
            cells = {m: spread_cell(spread(measured(own, *pair, m))) for m in metrics}
            lines.append(_line(name, pair, cells, ours))
    theirs = printed(data_set_of(row), protocol).to_dict("records")
    order = [*TESTS.values(), ("new", "mixed")]  # a mean over the backfill
    for one in sorted(theirs, key=lambda one: order.index((one["query"], one["gallery"]))):
        cells = {m: "" if pd.isna(one.get(m, np.nan)) else shown(one[m] / 100) for m in metrics}
        pair = one["query"], one["gallery"]
        lines.append(_line(one["method"], pair, cells, f"as printed by {one['source']}: {one['setting']}"))
    return pd.DataFrame(lines)


def _line(method: str, pair: tuple[str, str], cells: Mapping[str, str], whose: str) -> dict[str, str]:
    columns = {metric_title(metric): text for metric, text in cells.items()}
    return {"method": method, "query/gallery": "/".join(pair)} | columns | {"whose": whose}
