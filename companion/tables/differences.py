"""Differences between two models that were measured on the same images, with an honest interval."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from compat_lib.evaluation.compatibility import gain_interval, update_gain
from compat_lib.evaluation.paired import PairedComparison, paired_comparison
from compat_lib.runs import Run


def paired_difference(a: pd.DataFrame, column_a: str, b: pd.DataFrame, column_b: str) -> PairedComparison:
    """Metric of runs ``a`` minus metric of runs ``b``, seed by seed, with what both sources of noise allow.

    See ``compat_lib.evaluation.paired_comparison``: the interval holds the noise of training (with two seeds
    or more) and that of the test identities (where every run kept its bootstrap draws).

    Args:
        a, b: rows of collect(), at most one a seed; they may be the same rows with two columns.
        column_a, column_b: metric names.

    Returns:
        Without a seed that both have: value, low and high nan, and seeds 0.
    """
    values = pd.concat([_by_seed(a, column_a), _by_seed(b, column_b)], axis=1, join="inner").dropna()
    if values.empty:
        return PairedComparison(np.nan, np.nan, np.nan, 0)
    drawn = [
        [draws_of(runs, seed, column) for seed in values.index]
        for runs, column in ((a, column_a), (b, column_b))
    ]
    lengths = {None if draws is None else len(draws) for side in drawn for draws in side}
    known = len(lengths) == 1 and None not in lengths
    draws_a, draws_b = (np.array(side) for side in drawn) if known else (None, None)
    return paired_comparison(
        values.iloc[:, 0].to_numpy(float),
        values.iloc[:, 1].to_numpy(float),
        draws_a=draws_a,
        draws_b=draws_b,
    )


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
