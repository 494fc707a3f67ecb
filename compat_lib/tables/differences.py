"""Differences between two models that were measured on the same images, with an honest interval."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit  # scipy.stats would take seconds to import

from compat_lib.evaluation.compatibility import gain_interval, update_gain
from compat_lib.evaluation.intervals import interval
from compat_lib.runs import Run


@dataclass(frozen=True)
class Difference:
    """A paired difference and its 95 % interval.

    Args:
        value: mean over the seeds that both sides have; nan when there is none.
        low, high: the interval; nan when it cannot be had.
        seeds: number of seeds that both sides have.
        draws: bootstrap draws over test identities behind the interval; 0 when it comes from the seeds.
    """

    value: float
    low: float
    high: float
    seeds: int
    draws: int = 0

    @property
    def decided(self) -> bool:
        """Whether the interval leaves out zero."""
        return bool(self.low > 0 or self.high < 0)


def t_interval(values: Any, level: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean of a few values, such as differences of seeds.

    Args:
        values: n numbers, n >= 2.
        level: coverage, 0..1.

    >>> low, high = t_interval([1.0, 2.0, 3.0])           # 2 +- 4.303 / sqrt(3)
    >>> round(low, 3), round(high, 3)
    (-0.484, 4.484)
    """
    values = np.asarray(values, dtype=float)
    half = stdtrit(len(values) - 1, (1 + level) / 2) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def paired_difference(a: pd.DataFrame, column_a: str, b: pd.DataFrame, column_b: str) -> Difference:
    """Metric of runs ``a`` minus metric of runs ``b``, seed by seed.

    With two seeds or more the interval is Student's over the seeds' differences: it holds the noise of
    training and leaves the test identities as they are. With one seed it is the paired bootstrap over test
    identities of draws.json: it knows nothing of how another seed would have come out.

    Args:
        a, b: rows of collect(), at most one a seed; they may be the same rows with two columns.
        column_a, column_b: metric names.
    """
    values = pd.concat([_by_seed(a, column_a), _by_seed(b, column_b)], axis=1, join="inner").dropna()
    differences = (values.iloc[:, 0] - values.iloc[:, 1]).to_numpy(float)
    if not len(differences):
        return Difference(np.nan, np.nan, np.nan, 0)
    mean = float(differences.mean())
    if len(differences) > 1:
        return Difference(mean, *t_interval(differences), len(differences))
    seed = values.index[0]
    draws = draws_of(a, seed, column_a), draws_of(b, seed, column_b)
    if any(draw is None for draw in draws) or len(draws[0]) != len(draws[1]):
        return Difference(mean, np.nan, np.nan, 1)
    low, high = interval(draws[0] - draws[1]) or (np.nan, np.nan)
    return Difference(mean, low, high, 1, len(draws[0]))


def paired_gain(runs: pd.DataFrame, oracle: pd.DataFrame, metric: str) -> dict[str, float]:
    """Update gain (new/old - old/old) / (oracle's new/new - old/old), paired by seed.

    Source: BCT (Shen et al., CVPR 2020). Undefined where the oracle does not beat the old model.

    Returns:
        gain, gain_deviation over seeds, and gain_low and gain_high: with several seeds mean minus and plus
        the deviation, with one seed the 95 % paired bootstrap over test identities. nan where undefined.
    """
    columns = [(runs, f"new_old/{metric}"), (runs, f"old_old/{metric}"), (oracle, f"new_new/{metric}")]
    values = pd.concat([_by_seed(*column) for column in columns], axis=1, join="inner").dropna()
    gains = pd.Series(
        {seed: update_gain(*row) for seed, row in zip(values.index, values.to_numpy(), strict=True)}
    )
    gains = gains.astype(float).dropna()
    mean, deviation = (float(gains.mean()), float(gains.std(ddof=1))) if len(gains) else (np.nan, np.nan)
    low, high = mean - deviation, mean + deviation
    if len(gains) == 1:
        draws = [draws_of(frame, gains.index[0], column) for frame, column in columns]
        if all(draw is not None for draw in draws):
            low, high = gain_interval(*draws) or (np.nan, np.nan)
    return {"gain": mean, "gain_low": low, "gain_high": high, "gain_deviation": deviation}


def draws_of(runs: pd.DataFrame, seed: Any, column: str) -> np.ndarray | None:
    """Bootstrap draws of a metric of the run with this seed, or None when they were not kept."""
    row = runs[runs["seed"] == seed].iloc[0]
    name = column
    if row["method"].startswith("adapter/") and column.startswith("new_old/"):
        name = f"{row['method']}/{column}"
    draws = Run(Path(row["folder"])).draws.get(name)
    return None if not draws else np.array([np.nan if draw is None else draw for draw in draws], dtype=float)


def _by_seed(runs: pd.DataFrame, column: str) -> pd.Series:
    values = runs[column] if column in runs else pd.Series(np.nan, index=runs.index)
    return pd.Series(pd.to_numeric(values).to_numpy(float), index=runs["seed"].to_numpy())
