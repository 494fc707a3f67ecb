"""What runs have left behind: a frame of runs, their numbers side by side, and differences between them.

    runs = collect("runs", "results")       # one row a run
    scores(runs, "map")                     # self-test, cross-test, criterion, gain and cost of every method

Nothing here trains; a run that is expected and not there has a row all the same, with n = 0.
"""

# ruff: noqa: F401 (the names are for notebooks)

from compat_lib.evaluation.compatibility import HEADLINE

from .frame import (
    MERGED,
    adapters_of,
    backfill,
    backfill_curves,
    bounds,
    by_method,
    collect,
    distinct,
    histories,
    main_variant,
    on,
    parts,
    points,
    row_of,
    row_of_run,
    select,
    with_adapters,
)
from .scoring import scores
from .seeds import ENDS, TESTS, Spread, difference, measured, metric_of, paired, relative_costs, spread
