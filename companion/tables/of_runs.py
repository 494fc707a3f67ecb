"""One run beside its oracle, its adapters or its variants."""

from collections.abc import Mapping, Sequence

import pandas as pd

from companion.results import HEADLINE, adapters_of, difference, metric_of, row_of_run, scores
from companion.tables.cells import changed, criterion_words, score_cell
from companion.titles import ADAPTERS, QUERIES
from compat_lib.evaluation.records import PAIRS, PRINTED, metric_for, metric_title, shown
from compat_lib.runs import Run


def run_table(run: Run, oracle: Run) -> pd.DataFrame:
    """Every pair of query and gallery model of a run and of its oracle, by the metrics that papers print."""
    metrics = printed_metrics(run)
    sources = [("/".join(pair), run, pair) for pair in PAIRS]
    if oracle.folder != run.folder:
        sources += [(f"oracle {'/'.join(pair)}", oracle, pair) for pair in PAIRS[1:]]
    lines = [{"query/gallery": name} | _cells(one, *pair, metrics) for name, one, pair in sources]
    return pd.DataFrame(lines)


def adapter_table(run: Run) -> pd.DataFrame:
    """The cross-test of a run before and after each adapter of it; first the bound to beat."""
    metrics = printed_metrics(run)
    rows = [("old/old, the bound to beat", "old", None), ("no adapter", "new", None)]
    titles = QUERIES | {name.removeprefix("adapter/"): title for name, title in ADAPTERS.items()}
    rows += [(titles.get(name, name), "new", name) for name in adapters_of(run)]
    return pd.DataFrame([{"new/old": name} | _cells(run, q, "old", metrics, one) for name, q, one in rows])


def verdict_table(run: Run, oracle: Run, *metrics: str) -> pd.DataFrame:
    """Criterion, update gain and cost to the new model of one run, a row a metric, with paired intervals.

    The intervals are over test identities (95 %): they do not know how another training seed would come out.
    """
    own, *_ = sources = [row_of_run(one) for one in {run.folder: run, oracle.folder: oracle}.values()]
    runs = pd.DataFrame(sources).assign(experiment_id="")
    which = {name: own[name] for name in ("method", "budget", "method_options")}
    lines, protocol = [], run.config.get("protocol", "pairs")
    for metric in dict.fromkeys(metric_for(protocol, metric) for metric in metrics):
        (row,) = (row for row in scores(runs, metric).to_dict("records") if which.items() <= row.items())
        line = {"metric": metric_title(metric), "new/old > old/old": criterion_words(row)}
        line |= {"new/old - old/old": score_cell(row, "margin", signed=True)}
        line |= {"update gain": score_cell(row, "gain", percent=False, digits=2, signed=True)}
        own = "is the oracle" if run.folder == oracle.folder else score_cell(row, "self_change", signed=True)
        lines.append(line | {"new/new minus oracle": own})
    return pd.DataFrame(lines)


def ablation_table(runs: Mapping[str, Run], metric: str = HEADLINE) -> pd.DataFrame:
    """Variants of one method: what was changed -> its run; the first is the run as configured.

    Differences are to the first, paired by bootstrap draw; `metric` is named as for `scores`.
    """
    first = pd.DataFrame([row_of_run(next(iter(runs.values())))])
    metric, lines = metric_of(first, metric), []
    for name, run in runs.items():
        line, own = {"variant": name}, pd.DataFrame([row_of_run(run)])
        for pair in PAIRS[1:]:
            change = changed(difference(own, pair, first, pair, metric)) if lines else ""
            title = "/".join(pair)
            line |= {title: shown(_value(run, *pair, metric)), f"{title} change": change}
        line["epochs"] = f"{_value(run, None, None, 'train/epochs'):.0f}"
        line["images through the network"] = f"{_value(run, None, None, 'train/backbone_images'):,.0f}"
        lines.append(line)
    return pd.DataFrame(lines)


def recorded_values(run: Run, oracle: Run) -> dict[str, float | None]:
    """What the notebooks' tests look at: the three pairs, the oracle's, and adapters when measured."""
    protocol = run.config.get("protocol", "pairs")
    metrics = dict.fromkeys(metric_for(protocol, metric) for metric in ("tar@far=1e-2", "map"))
    asked = [(f"{'_'.join(pair)}/{metric}", *pair, metric) for pair in PAIRS for metric in metrics]
    values = {name: _value(run, *where) for name, *where in asked}
    values |= {f"oracle/{name}": _value(oracle, *where) for name, *where in asked if "new" in where}
    adapted = [one for one in run.metrics.select(query="new", gallery="old", metric="map") if one.adapter]
    values |= {f"adapter/{one.adapter}/new_old/map": one.value for one in adapted}
    return values | {"backbone_images": _value(run, None, None, "train/backbone_images")}


def printed_metrics(run: Run) -> tuple[str, ...]:
    """The metrics that the papers of a run's protocol print, as far as its data set lets them be measured."""
    protocol, known = run.config.get("protocol", "pairs"), {one.metric for one in run.metrics}
    return tuple(name for name in PRINTED[protocol] if protocol == "pairs" or name in known)


def _value(run: Run, query: str | None, gallery: str | None, metric: str) -> float | None:
    one = run.metrics.find(query, gallery, metric)
    return None if one is None else one.value


def _cells(
    run: Run, query: str, gallery: str, metrics: Sequence[str], adapter: str | None = None
) -> dict[str, str]:
    found = [run.metrics.find(query, gallery, name, adapter=adapter) for name in metrics]
    cells = [shown(one.value, one.low, one.high) if one else shown(None) for one in found]
    return dict(zip(map(metric_title, metrics), cells, strict=True))
