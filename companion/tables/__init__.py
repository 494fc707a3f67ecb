"""Run folders in, data frames out: what the master notebook shows.

Nothing here trains; a run that is expected and not there is shown as missing, never left out.
"""

from .details import changes_table, constraint_table, order_table, upgrade_score_table
from .differences import paired_difference, paired_gain
from .frames import backfill, collect, summary, with_adapters
from .narrow import (
    cost_table,
    judgement_table,
    marked_title,
    needs_table,
    overview_table,
    score_table,
    setting_title,
    setting_titles,
    side_by_side,
)
from .reading import AUTHORS, YOURS, Reading, mixed_code, provenance_table, read_runs
from .rows import (
    bounds,
    main_variant,
    method_title,
    needs_of,
    plot_name,
    points,
    select,
    self_cross,
    variant_title,
)
from .series import backfill_curves, flat_table, histories, too_short
from .single import ablation_table, adapter_table, flatness, recorded_values, run_table, title_of, verdict
from .text import CAPTION, experiment_titles, self_cross_table, styled

__all__ = [
    "AUTHORS",
    "CAPTION",
    "YOURS",
    "Reading",
    "ablation_table",
    "adapter_table",
    "backfill",
    "backfill_curves",
    "bounds",
    "changes_table",
    "collect",
    "constraint_table",
    "cost_table",
    "experiment_titles",
    "flat_table",
    "flatness",
    "histories",
    "judgement_table",
    "main_variant",
    "marked_title",
    "method_title",
    "mixed_code",
    "needs_of",
    "needs_table",
    "order_table",
    "overview_table",
    "paired_difference",
    "paired_gain",
    "plot_name",
    "points",
    "provenance_table",
    "read_runs",
    "recorded_values",
    "run_table",
    "score_table",
    "select",
    "self_cross",
    "self_cross_table",
    "setting_title",
    "setting_titles",
    "side_by_side",
    "styled",
    "summary",
    "title_of",
    "too_short",
    "upgrade_score_table",
    "variant_title",
    "verdict",
    "with_adapters",
]
