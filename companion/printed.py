"""Runs of one protocol in the columns of its papers, beside what the papers print.

printed.csv holds numbers of others in per cent, each with its source and setting; none of them is ours.
"""

from pathlib import Path

import pandas as pd

from companion.results import TESTS, by_method, measured, spread
from companion.tables import printed_metrics, spread_cell
from companion.titles import data_set, row_title
from compat_lib.evaluation.records import metric_title, shown


def printed(name: str, protocol: str) -> pd.DataFrame:
    """What papers print of a data set in a protocol, by a name of compat_lib or, of a folder, the folder's.

    Returns:
        Columns: source, setting, method, query, gallery, and the protocol's metrics in per cent, nan where
        the source has none.
    """
    rows = pd.read_csv(Path(__file__).with_name("printed.csv"))
    return rows[(rows["dataset"] == name) & (rows["protocol"] == protocol)].reset_index(drop=True)


def protocol_table(runs: pd.DataFrame, experiment_id: str) -> pd.DataFrame:
    """An experiment's runs as the papers of its protocol print theirs, then the papers' own rows.

    Returns:
        Columns: method, query/gallery, one for each metric (per cent), whose numbers these are and in which
        setting.
    """
    methods = by_method(runs, experiment_id)
    row = next(iter(methods.values())).iloc[0]
    metrics = printed_metrics(row["run"])
    ours = (
        f"ours: {row['old_backbone']} of {row['old_epochs']} epochs to {row['new_backbone']} of "
        f"{row['epochs']} epochs, {row['scenario']}"
    )
    lines = []
    for test, pair in TESTS.items():
        for own in methods.values() if test != "old_old" else list(methods.values())[:1]:
            name = "old" if test == "old_old" else row_title(own.iloc[0])
            cells = [spread_cell(spread(measured(own, *pair, metric))) for metric in metrics]
            lines.append([name, "/".join(pair), *cells, ours])
    theirs = printed(data_set(row), row["protocol"]).to_dict("records")
    order = [*TESTS.values(), ("new", "mixed")]  # a mean over the backfill
    for one in sorted(theirs, key=lambda one: order.index((one["query"], one["gallery"]))):
        cells = ["" if pd.isna(one.get(metric)) else shown(one[metric] / 100) for metric in metrics]
        whose = f"as printed by {one['source']}: {one['setting']}"
        lines.append([one["method"], f"{one['query']}/{one['gallery']}", *cells, whose])
    return pd.DataFrame(lines, columns=["method", "query/gallery", *map(metric_title, metrics), "whose"])
