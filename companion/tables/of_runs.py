"""One run beside its oracle, its adapters or its variants."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from companion.results import HEADLINE, TESTS, adapters_of, difference, row_of_run, scores
from companion.tables.cells import changed, score_cell
from companion.tables.of_methods import criterion_words
from companion.titles import ADAPTERS, QUERIES
from compat_lib.evaluation.records import PRINTED, metric_for, metric_title, shown
from compat_lib.runs import Run


def run_table(run: Run, oracle: Run) -> pd.DataFrame:
    """Every pair of query and gallery model of a run and of its oracle, by the metrics that papers print."""
    metrics = printed_metrics(run)
    sources = [(test.replace("_", "/"), run, pair) for test, pair in TESTS.items()]
    if oracle.folder != run.folder:
        sources += [
            (f"oracle {test.replace('_', '/')}", oracle, TESTS[test]) for test in ("new_old", "new_new")
        ]
    return pd.DataFrame(
        [{"query/gallery": name} | _metrics(one, *pair, metrics) for name, one, pair in sources]
    )


def adapter_table(run: Run) -> pd.DataFrame:
    """The cross-test of a run before and after each adapter of it; first the bound to beat."""
    metrics = printed_metrics(run)
    rows = [("old/old, the bound to beat", "old", None), ("no adapter", "new", None)]
    titles = QUERIES | {name.removeprefix("adapter/"): title for name, title in ADAPTERS.items()}
    rows += [(titles.get(name, name), "new", name) for name in adapters_of(run)]
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
        line |= {"new/old - old/old": score_cell(row, "margin", signed=True)}
        line |= {"update gain": score_cell(row, "gain", percent=False, digits=2, signed=True)}
        own = "is the oracle" if run.folder == oracle.folder else score_cell(row, "self_change", signed=True)
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
