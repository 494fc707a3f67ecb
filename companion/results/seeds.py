"""Numbers of several seeds: spread, paired differences, update gain."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from compat_lib.evaluation import gain_interval, paired_comparison, update_gain
from compat_lib.evaluation.compatibility import HEADLINE
from compat_lib.evaluation.paired import PairedComparison
from compat_lib.evaluation.records import Record, metric_for

TESTS = {"old_old": ("old", "old"), "new_old": ("new", "old"), "new_new": ("new", "new")}
WITH_OLD_QUERY = "with-old-query"


class Spread(NamedTuple):
    """A number over seeds; low and high are mean -+ deviation of several, or the interval of one."""

    value: float = np.nan
    low: float = np.nan
    high: float = np.nan
    deviation: float = np.nan  # of several seeds
    n: int = 0


ENDS = ("", "_low", "_high", "_deviation", "_n")  # of the names of a spread's columns


def measured(
    runs: pd.DataFrame,
    query: str | None,
    gallery: str | None,
    metric: str,
    order: str | None = None,
    adapter: str | None = None,
) -> dict[int, Record]:
    """A number of every run that has it, seed -> record; of an adapter's row the adapter's.

    `adapter` is that of another row; WITH_OLD_QUERY is new/old when the old model runs at query time too.
    """
    found = {}
    for seed, method, run in zip(runs["seed"], runs["method"], runs["run"], strict=True):
        through = _through(method, query, gallery, adapter)
        found[seed] = run.metrics.find(query, gallery, metric, adapter=through, order=order)
    return {seed: one for seed, one in found.items() if one is not None and one.value is not None}


def _through(method: str, query: str | None, gallery: str | None, adapter: str | None = None) -> str | None:
    if method.startswith("adapter/") and (query, gallery) == ("new", "old"):
        return "none" if adapter else method.removeprefix("adapter/")
    return "procrustes-slerp" if (method, adapter) == ("independent", WITH_OLD_QUERY) else adapter


def spread(found: Mapping[int, Record]) -> Spread:
    """Mean, ends, deviation and number of the seeds' values."""
    if len(found) > 1:
        values = np.array([one.value for one in found.values()], dtype=float)
        mean, deviation = float(values.mean()), float(values.std(ddof=1))
        return Spread(mean, mean - deviation, mean + deviation, deviation, len(values))
    for one in found.values():
        return Spread(*np.array([one.value, one.low, one.high], dtype=float).tolist(), n=1)
    return Spread()


def metric_of(runs: pd.DataFrame, metric: str = HEADLINE) -> str:
    """What stands for a metric of all pairs in the protocol by which runs of one experiment were measured."""
    return metric_for(runs["protocol"].iloc[0], metric) if len(runs) else metric


def _draws(runs: pd.DataFrame, seeds: list[int], query: str, gallery: str, metric: str) -> np.ndarray | None:
    """Bootstrap draws [seeds, draws] of these seeds' runs, or None where one has kept none, or fewer."""
    of = dict(zip(runs["seed"], zip(runs["method"], runs["run"], strict=True), strict=True))
    rows = [of[seed] for seed in seeds]
    drawn = [run.draws(query, gallery, metric, _through(method, query, gallery)) for method, run in rows]
    lengths = {None if one is None else len(one) for one in drawn}
    return np.array(drawn) if len(lengths) == 1 and None not in lengths else None


def difference(
    a: pd.DataFrame, test_a: tuple[str, str], b: pd.DataFrame, test_b: tuple[str, str], metric: str
) -> PairedComparison:
    """A metric of runs ``a`` minus that of runs ``b``, seed by seed: see `evaluation.paired_comparison`.

    Both are rows of `collect`, at most one a seed, and may be the same with two tests (query, gallery).
    Without a seed that both have, value, low and high are nan, and seeds 0.
    """
    sides = ((a, test_a), (b, test_b))
    left, right = (measured(side, *test, metric) for side, test in sides)
    seeds = [seed for seed in left if seed in right]
    drawn = [_draws(side, seeds, *test, metric) for side, test in sides]
    known = all(one is not None for one in drawn) and drawn[0].shape == drawn[1].shape
    return paired(left, right, **({"draws_a": drawn[0], "draws_b": drawn[1]} if known else {}))


def paired(left: Mapping[int, Record], right: Mapping[int, Record], **draws: np.ndarray) -> PairedComparison:
    """The numbers of the seeds that both have, one side minus the other."""
    seeds = [seed for seed in left if seed in right]
    if not seeds:
        return PairedComparison(np.nan, np.nan, np.nan, 0)
    return paired_comparison(*([side[seed].value for seed in seeds] for side in (left, right)), **draws)


def gain(runs: pd.DataFrame, oracle: pd.DataFrame, metric: str) -> dict[int, Record]:
    """Update gain (new/old - old/old) / (oracle's new/new - old/old) of each seed, with its interval.

    Source: BCT (Shen et al., CVPR 2020). Undefined, and left out, where the oracle does not beat the old
    model.
    """
    sides = [(runs, TESTS["new_old"]), (runs, TESTS["old_old"]), (oracle, TESTS["new_new"])]
    values = [measured(side, *test, metric) for side, test in sides]
    gains = {}
    for seed in (seed for seed in values[0] if all(seed in one for one in values)):
        drawn = [_draws(side, [seed], *test, metric) for side, test in sides]
        ends = None if any(one is None for one in drawn) else gain_interval(*(one[0] for one in drawn))
        value = update_gain(*(one[seed].value for one in values))
        gains[seed] = Record(None, None, "gain", value, *(ends or ()))
    return {seed: one for seed, one in gains.items() if one.value is not None}


def relative_costs(runs: pd.DataFrame, oracle: pd.DataFrame) -> tuple[dict[int, Record], dict[int, Record]]:
    """Training time of each seed, and images through the network, relative to the oracle's.

    Processor time where both have it: other work on the machine hardly moves it.
    """
    found = {}
    for name in ("processor_seconds", "seconds", "backbone_images"):
        ours, theirs = (measured(side, None, None, f"train/{name}") for side in (runs, oracle))
        ratios = {seed: ours[seed].value / theirs[seed].value for seed in ours if seed in theirs}
        found[name] = {seed: Record(None, None, name, value) for seed, value in ratios.items()}
    return found["processor_seconds"] or found["seconds"], found["backbone_images"]
