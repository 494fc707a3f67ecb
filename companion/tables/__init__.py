"""The tables as people read them: data frames of text, per cent with 95 % intervals unless a title says so.

`runs` is a frame of `results.collect`, `rows` one of `results.scores`; `styled` shows any table. A cell of
several seeds is mean ± deviation (n), one of a single seed its value with the interval over identities.
"""

# ruff: noqa: F401 (the names are for notebooks)

from .cells import changed, markdown, side_by_side, styled
from .of_methods import (
    DETAILS,
    OLD_QUERY,
    detail_table,
    first_day_table,
    needs_table,
    overview_table,
    printed,
    protocol_table,
    result_table,
    scoreboard,
    upgrade_score_table,
)
from .of_runs import ablation_table, adapter_table, printed_metrics, recorded_values, run_table, verdict_table
from .trust import flat_table, flatness, mixed_code, oracle_moved, provenance_table, too_short
