"""The methods of an experiment side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from companion import titles
from companion.results import MERGED, TESTS, by_method, measured, spread
from companion.tables.cells import BEST, MISSING, criterion_words, score_cell, spread_cell
from companion.tables.of_runs import printed_metrics
from companion.titles import CEILINGS, method_title, row_title
from compat_lib.evaluation import upgrade_scores
from compat_lib.evaluation.four_constraints import STATEMENTS
from compat_lib.evaluation.records import metric_title, shown

OLD_QUERY = "with the old query"
LEARNED = "by the method's own uncertainty"  # a column where a method has learnt one
OF_UNRELATED = ", of what two unrelated models have"
# What is looked at closely: caption -> column -> (query, gallery, metric, order), and whether it is a change.
DETAILS: dict[str, dict[str, tuple]] = {
    "Who gets worse": {
        "identities that lose": ("new", "old", "losing"),
        "identities that gain": ("new", "old", "gaining"),
        "right before, wrong now": ("new", "old", "negative_flips"),
        "wrong before, right now": ("new", "old", "positive_flips"),
        f"right before, wrong now{OF_UNRELATED}": ("new", "old", "relative_negative_flips"),
    },
    "Constraints that hold": {
        f"{k}: {statement}": (None, None, f"constraint{k}/share") for k, statement in enumerate(STATEMENTS, 1)
    },
    "Order of backfill": {
        "random order": ("new", "mixed", "area/map", "random"),
        "least certain first": ("new", "mixed", "area_over_random/map", "uncertain"),
        "farthest first": ("new", "mixed", "area_over_random/map", "farthest"),
        LEARNED: ("new", "mixed", "area_over_random/map", "learned"),
    },
}


def overview_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Every experiment in one line: how much of it is there, and which methods are compatible beyond noise.

    Runs are found of expected, adapters not counted.
    """
    lines = []
    for experiment, title in titles.setting_titles(rows).items():
        own = rows[rows["experiment_id"] == experiment]
        runs, seeds = own.loc[~own["method"].str.startswith("adapter/"), ["n", "seeds"]].sum()
        met = "; ".join(own[own["decided"] & (own["margin"] > 0)]["title"]) or "none"
        lines.append([title, f"{runs} of {seeds}", met] if runs else [title, MISSING, MISSING])
    return pd.DataFrame(lines, columns=["experiment", "runs", "new/old > old/old beyond noise"])


def scoreboard(rows: pd.DataFrame, least: int = 5) -> pd.DataFrame:
    """In how many settings each method is above, level with or below the bar and the oracle.

    Beyond the noise of a paired 95 % interval; each by its defaults where they ran.
    Those most often above the bar come first, below them those that ran in fewer than `least` settings.
    """
    rows = rows[(rows["budget"] == "steps") & (rows["method"] != "independent")]
    if rows.empty:
        return pd.DataFrame(columns=["method", "settings"])
    defaults = rows.assign(other=rows["method_options"] != "{}").sort_values("other", kind="stable")
    rows = rows.loc[sorted(defaults.drop_duplicates(["experiment_id", "method"]).index)]
    counts = {"settings": rows["margin_low"].notna()}
    for number, what in (("margin", "bar, new/old"), ("self_change", "oracle, new/new")):
        known = rows[f"{number}_low"].notna()
        above, below = rows[f"{number}_low"] > 0, rows[f"{number}_high"] < 0
        sides = {"above": above, "level with": known & ~above & ~below, "below": below}
        counts |= {f"{how} the {what}": there for how, there in sides.items()}
    methods = rows["method"].map(method_title).rename("method")
    table = pd.DataFrame(counts).groupby(methods, sort=False).sum().query("settings > 0")
    rank = table.iloc[:, 1] / table["settings"] + (table["settings"] >= least)
    return table.loc[rank.sort_values(ascending=False, kind="stable").index].astype(str).reset_index()


def result_table(rows: pd.DataFrame, others: Mapping[str, pd.DataFrame] | None = None) -> pd.DataFrame:
    """What every method of one experiment finds, and what that costs: new/old and new/new, training, query.

    Columns are method; new/old; new/new; both of each other part of the test images (`others`: its name ->
    the same rows by it); new/old - old/old and new/new - oracle, with their paired intervals; time and images
    (of the training, relative to the oracle's); query (what runs then). BEST ends the cells of the best and
    of those that cannot be told from it. The first rows hold what each must be compared with, their number is
    in ``attrs["references"]``.
    """
    measured_on = {name: part for name, part in (others or {}).items() if part["new_old_n"].any()}
    parts = [("", rows), *((f", {name}", part) for name, part in measured_on.items())]
    lines = _references(parts)
    references = len(lines)
    for k, row in enumerate(rows.to_dict("records")):
        line, there = {"method": row["title"], "query": titles.query_cost(row["method"])}, row["n"] > 0
        for end, part in parts:
            one = part.iloc[k].to_dict()
            for test, title in (("new_old", "new/old"), ("new_new", "new/new")):
                cell = score_cell(one, test) + BEST * one[f"{test}_best"]
                line[title + end] = cell if one["n"] else MISSING
        line["new/old - old/old"] = score_cell(row, "margin", signed=True) if there else MISSING
        if not row["method"].startswith("adapter/"):
            change = score_cell(row, "self_change", signed=True)
            change = "is the oracle" if row["method"] == "independent" else change
            line["new/new - oracle"] = change if there and row["oracle_n"] else MISSING
            if there and row["oracle_n"]:
                form = {"percent": False, "digits": 2}
                line |= {"time": shown(row["cost"], **form), "images": shown(row["images"], **form)}
        lines.append(line)
    tests = [title + end for end, _ in parts for title in ("new/old", "new/new")]
    order = ["method", *tests, "new/old - old/old", "new/new - oracle", "time", "images", "query"]
    table = pd.DataFrame(lines).reindex(columns=order).astype(object).fillna("")
    table.attrs["references"] = references
    return table


def _references(parts: Sequence[tuple[str, pd.DataFrame]]) -> list[dict[str, str]]:
    """The bar and the ceilings, a line each."""
    bars = {"old_old": "the bar: old queries, old gallery", **CEILINGS}
    lines = {name: {"method": title} for name, title in bars.items()}
    full = {"method": "full backfill by the oracle"}
    for end, part in parts:
        best = part.loc[part["n"].idxmax()].to_dict()
        for name in bars:
            if np.isfinite(best[name]):
                lines[name][f"new/old{end}"] = score_cell(best, name)
        cell = score_cell(best, "oracle") if best["oracle_n"] else MISSING
        full |= {f"new/old{end}": cell, f"new/new{end}": cell}
    if len(lines["old_old"]) == 1:
        lines["old_old"]["new/old"] = MISSING
    return [line for line in (*lines.values(), full) if len(line) > 1]


def first_day_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Whether each method's upgrade pays on its first day, by how much, and for whom not.

    The update gain is a fraction; "with the old query" is new/old when the old model runs at query time too.
    """
    lines = []
    for row in rows.to_dict("records"):
        gained = score_cell(row, "gain", percent=False, digits=2, signed=True)
        line = {"method": row["title"], "new/old > old/old": criterion_words(row) if row["n"] else MISSING}
        line["update gain"] = gained if row["n"] and row["oracle_n"] else MISSING
        for name, title in (("with_old_query", OLD_QUERY), ("flips", "right before, wrong now")):
            line[title] = score_cell(row, name) if np.isfinite(row[name]) else ""
        lines.append(line)
    table = pd.DataFrame(lines)
    return table if rows["with_old_query"].notna().any() else table.drop(columns=OLD_QUERY)


def needs_table(rows: pd.DataFrame) -> pd.DataFrame:
    """What each method must still have of the old model, and how much of its code is published."""
    own = rows.drop_duplicates("method")
    columns = {"method": own["method"].map(method_title), "needs of the old model": own["needs"]}
    note = own["method"].map(lambda method: "published only in part" * titles.is_reconstruction(method))
    return pd.DataFrame(columns | {"note": note})


def detail_table(runs: pd.DataFrame, experiment_id: str, caption: str) -> pd.DataFrame:
    """A close look at the upgrade by every method of an experiment.

    Empty where nothing of it was measured; below the order of backfill stand two indexes in random order.
    """
    lines, methods = [], by_method(runs, experiment_id)
    for own in methods.values():
        found = {title: measured(own, *key) for title, key in DETAILS[caption].items()}
        if any(found.values()):
            signs = {title: "over_random" in key[2] for title, key in DETAILS[caption].items()}
            cells = {title: spread_cell(spread(one), signed=signs[title]) for title, one in found.items()}
            lines.append({"method": row_title(own.iloc[0])} | cells)
    for title, key in DETAILS[caption].items() if "independent" in methods else ():
        merged = measured(methods["independent"], *key, adapter="rank-merge")
        if merged:
            lines.append({"method": MERGED, title: spread_cell(spread(merged))})
    table = pd.DataFrame(lines).fillna("")
    learned = LEARNED in table and not table[LEARNED].isin(["", shown(None)]).all()
    return table if learned else table.drop(columns=LEARNED, errors="ignore")


def upgrade_score_table(runs: pd.DataFrame, experiment_id: str) -> pd.DataFrame:
    """AdvBCT's P_up, P_comp and P_1, per cent, 50 is neutral: the mean over the seeds that have an oracle."""
    groups = by_method(runs, experiment_id)
    oracle = measured(groups.pop("independent", runs[:0]), "new", "new", "map")
    lines = []
    for own in groups.values():
        new, cross, old = (measured(own, *TESTS[test], "map") for test in ("new_new", "new_old", "old_old"))
        seeds = [seed for seed in oracle if all(seed in side for side in (new, cross, old))]
        found = [upgrade_scores(*(side[seed].value for side in (new, cross, old, oracle))) for seed in seeds]
        line = {"method": row_title(own.iloc[0])}
        for name, title in (("p_up", "P_up"), ("p_comp", "P_comp"), ("p_1", "P_1")):
            known = [one[name] for one in found if one[name] is not None]
            line[title] = shown(np.mean(known) / 100 if known else None)
        lines.append(line)
    return pd.DataFrame(lines)


def printed(name: str, protocol: str) -> pd.DataFrame:
    """What papers print of a data set in a protocol, by a name of compat_lib or, of a folder, the folder's.

    printed.csv holds numbers of others in per cent, each with its source and setting; none of them is ours.
    Columns: source, setting, method, query, gallery, and the protocol's metrics in per cent, nan where the
    source has none.
    """
    rows = pd.read_csv(Path(__file__).parents[1] / "printed.csv")
    return rows[(rows["dataset"] == name) & (rows["protocol"] == protocol)].reset_index(drop=True)


def protocol_table(runs: pd.DataFrame, experiment_id: str) -> pd.DataFrame:
    """An experiment's runs as the papers of its protocol print theirs, then the papers' own rows."""
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
    theirs = printed(titles.data_set(row), row["protocol"]).to_dict("records")
    order = [*TESTS.values(), ("new", "mixed")]  # a mean over the backfill
    for one in sorted(theirs, key=lambda one: order.index((one["query"], one["gallery"]))):
        cells = ["" if pd.isna(one.get(metric)) else shown(one[metric] / 100) for metric in metrics]
        whose = f"as printed by {one['source']}: {one['setting']}"
        lines.append([one["method"], f"{one['query']}/{one['gallery']}", *cells, whose])
    return pd.DataFrame(lines, columns=["method", "query/gallery", *map(metric_title, metrics), "whose"])
