"""The tables as people read them: data frames of text, per cent with 95 % intervals unless a title says so.

`runs` is a frame of `results.collect`, `rows` one of `results.scores`; `styled` shows any table. A cell of
several seeds is mean ± deviation (n), one of a single seed its value with the interval over identities.
"""

import html
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from companion import results
from companion.results import (
    HEADLINE,
    TESTS,
    Spread,
    by_method,
    difference,
    measured,
    row_of_run,
    scores,
    spread,
)
from companion.titles import (
    ADAPTERS,
    CEILINGS,
    QUERIES,
    is_reconstruction,
    method_title,
    query_cost,
    row_title,
    setting_titles,
)
from compat_lib.evaluation import upgrade_scores
from compat_lib.evaluation.four_constraints import STATEMENTS
from compat_lib.evaluation.paired import PairedComparison
from compat_lib.evaluation.records import PRINTED, metric_for, metric_title, shown
from compat_lib.runs import Run

MISSING = "missing"
BEST = " ★"  # ends a cell of the best, and of those that the paired test cannot tell from it
OLD_QUERY = "with the old query"
VALIDATION = "val/new_new/tar@far=1e-2"
FLAT = 0.02  # absolute: two points of the metric
LEARNED = "by the method's own uncertainty"  # a column where a method has learnt one
# What is looked at closely: caption -> column -> (query, gallery, metric, order), and whether it is a change.
DETAILS: dict[str, dict[str, tuple]] = {
    "Who gets worse": {
        "identities that lose": ("new", "old", "losing"),
        "identities that gain": ("new", "old", "gaining"),
        "right before, wrong now": ("new", "old", "negative_flips"),
        "wrong before, right now": ("new", "old", "positive_flips"),
        "right before, wrong now, of what two unrelated models have": (
            *("new", "old", "relative_negative_flips"),
        ),
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


# -- one experiment --------------------------------------------------------------------------------


def overview_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Every experiment in one line: how much of it is there, and which methods are compatible beyond noise.

    Returns:
        Columns: experiment, runs (found of expected, adapters not counted), compatible.
    """
    lines = []
    for experiment, title in setting_titles(rows).items():
        own = rows[rows["experiment_id"] == experiment]
        trained = own[~own["method"].str.startswith("adapter/")]
        met = "; ".join(own[own["decided"] & (own["margin"] > 0)]["title"]) or "none"
        there = trained["n"].sum() > 0
        runs = f"{trained['n'].sum()} of {trained['seeds'].sum()}"
        line = {"experiment": title, "runs": runs if there else MISSING}
        lines.append(line | {"new/old > old/old beyond noise": met if there else MISSING})
    return pd.DataFrame(lines)


def result_table(rows: pd.DataFrame, others: Mapping[str, pd.DataFrame] | None = None) -> pd.DataFrame:
    """What every method of one experiment finds, and what that costs: new/old and new/new, training, query.

    Args:
        rows: of scores, those of one experiment.
        others: part of the test images, such as "in-domain" -> the same rows by it, for columns of its own.

    Returns:
        Columns: method; new/old; new/new; both of each other part; new/old - old/old and new/new - oracle,
        with their paired intervals; time and images (of the training, relative to the oracle's); query (what
        runs then). BEST ends the cells of the best and of those that cannot be told from it. The first rows
        hold what each must be compared with, their number is in ``attrs["references"]``.
    """
    measured_on = {name: part for name, part in (others or {}).items() if part["new_old_n"].any()}
    parts = [("", rows), *((f", {name}", part) for name, part in measured_on.items())]
    lines = _references(parts)
    references = len(lines)
    for k, row in enumerate(rows.to_dict("records")):
        line, oracle = {"method": row["title"]}, row["method"] == "independent"
        for test, title in (("new_old", "new/old"), ("new_new", "new/new")):
            for end, part in parts:
                one = part.iloc[k].to_dict()
                line[title + end] = _cell(one, test) + BEST * one[f"{test}_best"] if one["n"] else MISSING
        line["new/old - old/old"] = _cell(row, "margin", signed=True) if row["n"] else MISSING
        if not row["method"].startswith("adapter/"):
            there = row["n"] and row["oracle_n"]
            change = "is the oracle" if oracle else _cell(row, "self_change", signed=True)
            line["new/new - oracle"] = change if there else MISSING
            costs = (("cost", "time"), ("images", "images")) if there else ()
            line |= {title: shown(row[name], percent=False, digits=2) for name, title in costs}
        lines.append(line | {"query": query_cost(row["method"])})
    tests = [title + end for end, _ in parts for title in ("new/old", "new/new")]
    order = ["method", *tests, "new/old - old/old", "new/new - oracle", "time", "images", "query"]
    table = pd.DataFrame(lines).reindex(columns=order).astype(object).fillna("")
    table.attrs["references"] = references
    return table


def _references(parts: Sequence[tuple[str, pd.DataFrame]]) -> list[dict[str, str]]:
    """The bar and the ceilings, a line each."""
    titles = {"old_old": "the bar: old queries, old gallery", **CEILINGS}
    titles = {name: {"method": title} for name, title in titles.items()}
    full = {"method": "full backfill by the oracle"}
    for end, part in parts:
        best = part.loc[part["n"].idxmax()].to_dict()
        for name, line in titles.items():
            if np.isfinite(best[name]):
                line[f"new/old{end}"] = _cell(best, name)
        full |= {
            f"{test}{end}": _cell(best, "oracle") if best["oracle_n"] else MISSING
            for test in ("new/old", "new/new")
        }
    if len(titles["old_old"]) == 1:
        titles["old_old"]["new/old"] = MISSING
    return [line for line in (*titles.values(), full) if len(line) > 1]


def first_day_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Whether each method's upgrade pays on its first day, by how much, and for whom not.

    Returns:
        Columns: method; new/old > old/old (whether it holds); update gain (a fraction); with the old query
        (new/old when the old model runs at query time too, where a run has it); right before, wrong now.
    """
    lines = []
    for row in rows.to_dict("records"):
        gained = _cell(row, "gain", percent=False, digits=2, signed=True)
        line = {"method": row["title"], "new/old > old/old": criterion_words(row) if row["n"] else MISSING}
        line["update gain"] = gained if row["n"] and row["oracle_n"] else MISSING
        for name, title in (("with_old_query", OLD_QUERY), ("flips", "right before, wrong now")):
            line[title] = _cell(row, name) if np.isfinite(row[name]) else ""
        lines.append(line)
    table = pd.DataFrame(lines)
    return table if rows["with_old_query"].notna().any() else table.drop(columns=OLD_QUERY)


def needs_table(rows: pd.DataFrame) -> pd.DataFrame:
    """What each method must still have of the old model, and how much of its code is published."""
    own = rows.drop_duplicates("method")
    columns = {"method": own["method"].map(method_title), "needs of the old model": own["needs"]}
    note = own["method"].map(lambda method: "published only in part" * is_reconstruction(method))
    return pd.DataFrame(columns | {"note": note})


def criterion_words(row: Mapping[str, Any]) -> str:
    """Whether new/old > old/old holds, as a row of scores says it: "yes", "no, within noise", "n/a"."""
    if pd.isna(row["criterion"]):
        return shown(None)
    held = round(row["criterion"] * row["n"])
    word = {1.0: "yes", 0.0: "no"}.get(row["criterion"], f"in {held} of {row['n']} seeds")
    return word if row["decided"] or not np.isfinite(row["margin_low"]) else f"{word}, within noise"


def detail_table(runs: pd.DataFrame, experiment_id: str, caption: str) -> pd.DataFrame:
    """A close look at the upgrade by every method of an experiment.

    Args:
        caption: key of DETAILS.

    Returns:
        Columns: method, and those of DETAILS[caption]; empty where nothing of it was measured. Beside the
        orders of backfill stand two indexes in random order.
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
            lines.append({"method": results.MERGED, title: spread_cell(spread(merged))})
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


# -- long enough? who made them? -------------------------------------------------------------------


def last_third(
    history: Sequence[Mapping[str, Any]], metric: str = VALIDATION
) -> tuple[int, int, float] | None:
    """First and last epoch of the last third of a training, and how far a metric moved between them.

    Returns:
        None with fewer than two epochs that have the metric.

    >>> looks = [{"epoch": 3, "val/x": 0.5}, {"epoch": 6, "val/x": 0.75}, {"epoch": 9, "val/x": 1.0}]
    >>> last_third(looks, "val/x")
    (6, 9, 0.25)
    """
    known = [(int(row["epoch"]), row[metric]) for row in history if row.get(metric) is not None]
    if len(known) < 2:
        return None
    last, end = known[-1]
    start, value = min(known[:-1], key=lambda point: abs(point[0] - 2 * last / 3))
    return start, last, end - value


def flatness(history: Sequence[Mapping[str, Any]], metric: str = VALIDATION) -> str:
    """Whether a validation metric still moves in the last third of the training, as a sentence."""
    third = last_third(history, metric)
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
        for name, history in results.histories(runs, experiment).items():
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
        third = last_third(results.histories(runs, experiment).get("independent", []))
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


# -- one run beside its oracle ---------------------------------------------------------------------


def run_table(run: Run, oracle: Run | None = None, metrics: Sequence[str] = ()) -> pd.DataFrame:
    """Every pair of query and gallery model of one run, and of its oracle, value and interval in a cell.

    Args:
        run, oracle: complete runs.
        metrics: their names; none: those that the protocol's papers print.
    """
    metrics = metrics or printed_metrics(run)
    sources = [(test.replace("_", "/"), run, pair) for test, pair in TESTS.items()]
    if oracle is not None and oracle.folder != run.folder:
        sources += [
            (f"oracle {test.replace('_', '/')}", oracle, TESTS[test]) for test in ("new_old", "new_new")
        ]
    return pd.DataFrame(
        [{"query/gallery": name} | _metrics(one, *pair, metrics) for name, one, pair in sources]
    )


def adapter_table(run: Run, metrics: Sequence[str] = ()) -> pd.DataFrame:
    """The cross-test of a run before and after each adapter of it; first the bound to beat."""
    metrics = metrics or printed_metrics(run)
    rows = [("old/old, the bound to beat", "old", None), ("no adapter", "new", None)]
    titles = QUERIES | {name.removeprefix("adapter/"): title for name, title in ADAPTERS.items()}
    rows += [(titles.get(name, name), "new", name) for name in results.adapters_of(run)]
    return pd.DataFrame(
        [{"new/old": name} | _metrics(run, query, "old", metrics, adapter) for name, query, adapter in rows]
    )


def verdict_table(run: Run, oracle: Run, *metrics: str) -> pd.DataFrame:
    """Criterion, update gain and cost to the new model of one run, a row a metric, with paired intervals.

    The intervals are over test identities (95 %): they do not know how another training seed would come out.
    """
    runs = pd.DataFrame(
        [row_of_run(one) | {"experiment_id": ""} for one in {run.folder: run, oracle.folder: oracle}.values()]
    )
    lines, protocol = [], run.config.get("protocol", "pairs")
    for metric in dict.fromkeys(metric_for(protocol, metric) for metric in metrics):
        (row,) = (row for row in scores(runs, metric).to_dict("records") if _is(row, run))
        line = {"metric": metric_title(metric), "new/old > old/old": criterion_words(row)}
        line |= {"new/old - old/old": _cell(row, "margin", signed=True)}
        line |= {"update gain": _cell(row, "gain", percent=False, digits=2, signed=True)}
        own = "is the oracle" if run.folder == oracle.folder else _cell(row, "self_change", signed=True)
        lines.append(line | {"new/new minus oracle": own})
    return pd.DataFrame(lines)


def _is(row: Mapping[str, Any], run: Run) -> bool:
    own = row_of_run(run)
    return all(row[name] == own[name] for name in ("method", "budget", "method_options"))


def ablation_table(runs: Mapping[str, Run], metric: str = HEADLINE) -> pd.DataFrame:
    """Variants of one method; differences are to the first, paired by bootstrap draw.

    Args:
        runs: what was changed -> its run; the first is the run as configured.
        metric: its name among those of all pairs, as for `scores`.
    """
    metric = metric_for(next(iter(runs.values())).config.get("protocol", "pairs"), metric)
    frames = {name: pd.DataFrame([row_of_run(run)]) for name, run in runs.items()}
    first = next(iter(frames.values()))
    lines = []
    for name, run in runs.items():
        line = {"variant": name}
        for title, pair in (("new/old", TESTS["new_old"]), ("new/new", TESTS["new_new"])):
            change = (
                "" if frames[name] is first else changed(difference(frames[name], pair, first, pair, metric))
            )
            line |= {title: shown(_value(run, *pair, metric)), f"{title} change": change}
        line["epochs"] = f"{_value(run, None, None, 'train/epochs'):.0f}"
        line["images through the network"] = f"{_value(run, None, None, 'train/backbone_images'):,.0f}"
        lines.append(line)
    return pd.DataFrame(lines)


def recorded_values(run: Run, oracle: Run) -> dict[str, float | None]:
    """What the notebooks' tests look at: the three pairs, the oracle's, and adapters when measured."""
    protocol = run.config.get("protocol", "pairs")
    metrics = dict.fromkeys(metric_for(protocol, metric) for metric in ("tar@far=1e-2", "map"))
    names = {(test, metric): TESTS[test] for test in TESTS for metric in metrics}
    values = {f"{test}/{metric}": _value(run, *pair, metric) for (test, metric), pair in names.items()}
    values |= {
        f"oracle/{t}/{m}": _value(oracle, *pair, m) for (t, m), pair in names.items() if t != "old_old"
    }
    adapted = [one for one in run.metrics.select(query="new", gallery="old", metric="map") if one.adapter]
    values |= {f"adapter/{one.adapter}/new_old/map": one.value for one in adapted}
    return values | {"backbone_images": _value(run, None, None, "train/backbone_images")}


def printed_metrics(run: Run) -> tuple[str, ...]:
    """The metrics that the papers of a run's protocol print, as far as its data set lets them be measured."""
    names = PRINTED[run.config.get("protocol", "pairs")]
    if names == PRINTED["pairs"]:
        return names
    known = {one.metric for one in run.metrics}
    return tuple(name for name in names if name in known)


def _value(run: Run, query: str | None, gallery: str | None, metric: str) -> float | None:
    one = run.metrics.find(query, gallery, metric)
    return None if one is None else one.value


def _metrics(
    run: Run, query: str, gallery: str, metrics: Sequence[str], adapter: str | None = None
) -> dict[str, str]:
    found = {name: run.metrics.find(query, gallery, name, adapter=adapter) for name in metrics}
    return {
        metric_title(n): shown(one and one.value, one and one.low, one and one.high)
        for n, one in found.items()
    }


# -- cells and how they look -----------------------------------------------------------------------


def changed(one: PairedComparison) -> str:
    """A paired difference in points: "+3.1 [+1.9, +4.3]", with "within noise" where its interval holds zero.

    >>> changed(PairedComparison(0.031, -0.01, 0.043, seeds=1))
    '+3.1 [-1.0, +4.3], within noise'
    """
    noise = ", within noise" if np.isfinite(one.low) and not one.decided else ""
    return shown(one.value, one.low, one.high, signed=True) + noise


def _cell(row: Mapping[str, Any], name: str, **form: Any) -> str:
    """A number of a row of scores; n is said with several seeds, and where some of them are missing."""
    known = (row.get(end and f"{name}_{end}" or name, np.nan) for end in ("", *Spread._fields[1:]))
    value = Spread(*known)
    return spread_cell(value._replace(n=0 if np.isnan(value.n) else int(value.n)), row["seeds"], **form)


def spread_cell(values: Spread, seeds: int = 1, **form: Any) -> str:
    """Mean ± deviation (n) of several seeds, or the value of one with its interval.

    Args:
        seeds: how many there should be.

    >>> spread_cell(Spread(0.5, 0.49, 0.51, 0.01, 3)), spread_cell(Spread(0.5, 0.49, 0.51, n=1), 2)
    ('50.0 ± 1.0 (3)', '50.0 [49.0, 51.0] (1 of 2)')
    """
    text = shown(values.value, values.low, values.high, **form)
    if values.n > 1:
        text = f"{shown(values.value, **form)} ± {shown(values.deviation, **(form | {'signed': False}))}"
    missing = f" of {seeds}" * (values.n < seeds)
    return text + (f" ({values.n}{missing})" if values.n and (values.n > 1 or missing) else "")


_CELL = "text-align: left; vertical-align: top; padding: 3px 6px;"
_STYLE = [
    {"selector": "", "props": "border-collapse: collapse; font-size: 85%; line-height: 1.35;"},
    {"selector": "caption", "props": "text-align: left; color: #444; padding: 4px 0;"},
    {"selector": "th", "props": f"{_CELL} border-bottom: 1.5px solid #444;"},
    {"selector": "td", "props": f"{_CELL} border-bottom: 1px solid #ddd;"},
]


def styled(table: pd.DataFrame, caption: str = "") -> Styler:
    """A table of text as plain HTML without scripts, the same bytes for the same table.

    Cells that end with BEST are bold. The first ``table.attrs["references"]`` rows are tinted: what the
    others are compared with.

    Args:
        table: any of this module, or your own.
        caption: above the table.

    Returns:
        A Styler: a notebook shows it by itself, ``.to_html()`` gives the text.
    """
    shown_table = table.reset_index(drop=True)
    # Two tables on one page must not share names, nor may a table change its name from run to run.
    digest = f"{zlib.crc32((caption + shown_table.to_csv()).encode()):08x}"
    style = (
        shown_table.style.hide(axis="index").set_caption(caption).set_uuid(digest).set_table_styles(_STYLE)
    )
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
    parts = "".join(
        f'<div style="max-width: 100%; overflow-x: auto;">{table.to_html()}</div>' for table in tables
    )
    return (
        f'<div style="display: flex; flex-wrap: wrap; align-items: flex-start; gap: 0 1.2em;">{parts}</div>'
    )


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
