"""What the pictures take: points and bounds of the methods, curves over a backfill, histories."""

from typing import Any

import pandas as pd

from companion.results.frame import by_method
from companion.titles import plot_name
from compat_lib.runs import Run

MERGED = "two indexes, rank merge"
_ENDS = ("", "_low", "_high")


def points(rows: pd.DataFrame, experiment_id: str) -> dict[str, dict[str, Any]]:
    """Rows of one experiment as the plots take them (self_cross_scatter, gain_dots).

    Returns:
        plot name -> self, cross, gain, each with _low and _high, and asked (new/old with the old query too;
        all None where there is no number), criterion (True when it holds in every seed), and title.
    """
    columns = {"self": "new_new", "cross": "new_old", "gain": "gain", "asked": "with_old_query"}
    found = {}
    for row in rows[rows["experiment_id"] == experiment_id].to_dict("records"):
        numbers = {name + end: row[column + end] for name, column in columns.items() for end in _ENDS}
        numbers = {name: None if pd.isna(value) else float(value) for name, value in numbers.items()}
        found[plot_name(row)] = numbers | {"criterion": row["criterion"] == 1.0, "title": row["title"]}
    return found


def bounds(rows: pd.DataFrame, experiment_id: str) -> dict[str, float | None]:
    """What an experiment's methods are compared with: keywords "old_old" and "oracle" of the plots."""
    best = rows[rows["experiment_id"] == experiment_id].nlargest(1, "n", keep="last")
    means = {name: best[name].dropna() for name in ("old_old", "oracle")}
    return {name: float(values.iloc[0]) if len(values) else None for name, values in means.items()}


def backfill(
    run: Run, metric: str = "map", order: str = "random", adapter: str | None = None
) -> tuple[list[float], list[float | None]]:
    """The mixed-gallery curve of a run: shares re-embedded, and the metric at each.

    Args:
        adapter: "rank-merge" of an independent run: two indexes, each asked by its own model.
    """
    found = run.metrics.select(gallery="mixed", metric=metric, order=order, adapter=adapter)
    curve = sorted((one.share, one.value) for one in found if one.share is not None)
    return [share for share, _ in curve], [value for _, value in curve]


def backfill_curves(runs: pd.DataFrame, experiment_id: str, metric: str = "map") -> dict[str, tuple]:
    """The mixed-gallery curve of every method of an experiment that has one, and of two indexes (MERGED).

    Returns:
        plot name -> (shares, means over the seeds), and with several seeds two arrays more, mean minus and
        plus the deviation.
    """
    curves, methods = {}, by_method(runs, experiment_id)
    sources = [(name, own, None) for name, own in methods.items()]
    sources += [(MERGED, own, "rank-merge") for name, own in methods.items() if name == "independent"]
    for name, own, adapter in sources:
        found = [backfill(run, metric, adapter=adapter) for run in own["run"]]
        found = [pd.Series(values, shares) for shares, values in found if shares and None not in values]
        if found:
            seeds = pd.concat(found, axis=1)
            mean, deviation = seeds.mean(axis=1).to_numpy(), seeds.std(axis=1).to_numpy()
            band = (mean - deviation, mean + deviation) if len(found) > 1 else ()
            curves[name] = (seeds.index.tolist(), mean, *band)
    return curves


def histories(runs: pd.DataFrame, experiment_id: str) -> dict[str, list[dict[str, float]]]:
    """Every method's history.csv, each number the mean over the seeds; methods without one are left out."""
    found = {}
    for name, own in by_method(runs, experiment_id).items():
        tables = [pd.DataFrame(run.history) for run in own["run"] if (run.folder / "history.csv").is_file()]
        if tables:
            mean = pd.concat(tables).groupby("epoch", as_index=False).mean()
            found[name] = [row.dropna().to_dict() for _, row in mean.iterrows()]
    return found
