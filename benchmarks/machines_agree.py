"""How far the same runs come out alike on two machines, or in two precisions: differences in points.

    python benchmarks/machines_agree.py runs [results]

Compares what both folders of run folders hold under one name: the same configuration and seed. Bits differ
where processors add in another order, and "auto" is another precision with and without bfloat16 instructions.
"""

import argparse
from itertools import product
from pathlib import Path

import pandas as pd

from compat_lib.evaluation.records import PAIRS, metric_title
from compat_lib.runs import list_runs

METRICS = ("tar@far=1e-3", "map")


def differences(first: Path, second: Path) -> pd.DataFrame:
    """One row for each number of a new model that both folders hold: run, test, metric, points."""
    sides = [{run.folder.parts[-2:]: run for run in list_runs(folder)} for folder in (first, second)]
    rows = []
    for name in sorted(set(sides[0]) & set(sides[1])):
        a, b = (side[name] for side in sides)
        if a.config["method"] == "old":
            continue
        for pair, metric in product(PAIRS, METRICS):
            values = [one.value if one else None for one in (x.metrics.find(*pair, metric) for x in (a, b))]
            if None not in values:
                points = 100 * (values[0] - values[1])
                row = {"run": "/".join(name), "test": "/".join(pair), "metric": metric_title(metric)}
                rows.append(row | {"points": points})
    return pd.DataFrame(rows, columns=["run", "test", "metric", "points"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path, nargs="?", default=Path("results"))
    given = parser.parse_args()
    found = differences(given.first, given.second)
    points = found.groupby(["test", "metric"], sort=False)["points"]
    table = {"runs": points.size(), "rms": points.agg(lambda x: (x**2).mean() ** 0.5), "mean": points.mean()}
    largest = points.agg(lambda x: x.abs().max())
    print(pd.DataFrame(table | {"largest": largest}).round(2).to_string())


if __name__ == "__main__":
    main()
