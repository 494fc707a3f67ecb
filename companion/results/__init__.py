"""What runs have left behind: a frame of runs, their numbers side by side, and differences between them.

    runs = collect("runs", "results")       # one row a run
    tidy(runs)                              # one row a number, to pivot as you like
    scores(runs, "map")                     # self-test, cross-test, criterion, gain and cost of every method

Nothing here trains; a run that is expected and not there has a row all the same, with n = 0.
"""

# ruff: noqa: F401 (the names are for notebooks)

from compat_lib.evaluation.compatibility import HEADLINE

from .frame import (
    adapters_of,
    by_method,
    collect,
    main_variant,
    on,
    parts,
    row_of,
    row_of_run,
    select,
    tidy,
    with_adapters,
)
from .pictured import MERGED, backfill, backfill_curves, bounds, histories, points
from .scoring import scores
from .seeds import TESTS, Spread, difference, gain, measured, metric_of, relative_costs, spread
