"""How many verdicts of results/ would other bootstrap draws turn, of as many as were kept?

    python benchmarks/draws_are_enough.py [results]

200 draws place an end of an interval to a fifth of its deviation. Every difference of a method from the bar,
the oracle and the best of its setting is compared again with draws that are drawn from its own: the share of
these in which the verdict is another is its doubt. Prints those with a doubt of 5 % or more.
"""

import argparse
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd

from companion import results
from companion.results import seeds
from compat_lib.evaluation import paired_comparison

AGAIN = 100
NEAR = 0.2  # of the interval's width: an end that is farther from zero does not move across it


def doubt(*values: np.ndarray, draws_a: np.ndarray, draws_b: np.ndarray) -> tuple[float, ...]:
    """Seeds, difference and interval in points, and the share of resampled draws that turn its verdict."""
    found = paired_comparison(*values, draws_a=draws_a, draws_b=draws_b)
    share, near = 0.0, min(abs(found.low), abs(found.high)) < NEAR * (found.high - found.low)
    if near:
        generator, (a, b) = np.random.default_rng(0), map(np.atleast_2d, (draws_a, draws_b))
        drawn = generator.integers(0, a.shape[1], (AGAIN, a.shape[1]))
        again = [paired_comparison(*values, draws_a=a[:, one], draws_b=b[:, one]).verdict for one in drawn]
        share = float(np.mean([verdict != found.verdict for verdict in again]))
    return found.seeds, 100 * found.value, 100 * found.low, 100 * found.high, share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="?", default=Path("results"))
    folder = parser.parse_args().results
    runs = results.collect(folder, folder / "blind")
    runs = runs[runs["method"] != "old"]
    with patch.object(seeds, "paired_comparison", wraps=paired_comparison) as compared:
        for setting in results.distinct(runs):
            results.scores(results.select(runs, experiment_id=setting))
    known = [call for call in compared.call_args_list if call.kwargs]
    rows = [doubt(*call.args, **call.kwargs) for call in known]
    table = pd.DataFrame(rows, columns=["seeds", "difference", "low", "high", "doubt"])
    doubtful = table[table["doubt"] >= 0.05].sort_values("doubt", ascending=False)
    print(doubtful.to_string(index=False, float_format="%.2f"))
    print(f"{len(doubtful)} of {len(table)}; {(table['doubt'] >= 0.2).sum()} with a doubt of 20 % or more")


if __name__ == "__main__":
    main()
