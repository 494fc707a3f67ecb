"""Differences between two models that were measured on the same images, with an honest interval."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

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
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
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
    low, high, used = _percentiles(draws[0] - draws[1])
    return Difference(mean, low, high, 1, used)


def paired_gain(runs: pd.DataFrame, oracle: pd.DataFrame, metric: str) -> dict[str, float]:
    """Update gain (new/old - old/old) / (oracle's new/new - old/old), paired by seed.

    Source: BCT (Shen et al., CVPR 2020). Undefined where the oracle does not beat the old model.

    Returns:
        gain, gain_deviation over seeds, and gain_low and gain_high: with several seeds mean minus and plus
        the deviation, with one seed the 95 % paired bootstrap over test identities.
    """
    columns = [(runs, f"new_old/{metric}"), (runs, f"old_old/{metric}"), (oracle, f"new_new/{metric}")]
    values = pd.concat([_by_seed(*column) for column in columns], axis=1, join="inner").dropna()
    gains = _gain(*(values.iloc[:, i].to_numpy(float) for i in range(3)))
    seeds = values.index[np.isfinite(gains)]
    gains = gains[np.isfinite(gains)]
    result = dict.fromkeys(("gain", "gain_low", "gain_high", "gain_deviation"), np.nan)
    if len(gains) > 1:
        mean, deviation = float(gains.mean()), float(gains.std(ddof=1))
        result = {"gain": mean, "gain_low": mean - deviation, "gain_high": mean + deviation}
        result["gain_deviation"] = deviation
    elif len(gains) == 1:
        result["gain"] = float(gains[0])
        draws = [draws_of(frame, seeds[0], column) for frame, column in columns]
        if all(draw is not None for draw in draws) and len({len(draw) for draw in draws}) == 1:
            result["gain_low"], result["gain_high"], _ = _percentiles(_gain(*draws))
    return result


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


def _gain(cross: np.ndarray, old: np.ndarray, oracle: np.ndarray) -> np.ndarray:
    room = oracle - old
    return np.divide(cross - old, room, out=np.full_like(room, np.nan), where=room > 0)


def _percentiles(draws: np.ndarray) -> tuple[float, float, int]:
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return np.nan, np.nan, 0
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high), len(draws)
