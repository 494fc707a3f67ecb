"""Run folders in, data frames out: what the master notebook shows.

Nothing here trains; a run that is expected and not there is shown as missing, never left out.
"""

from .differences import Difference, paired_difference, paired_gain, t_interval
from .frames import backfill, collect, summary, with_adapters
from .rows import method_title, needs_of, points, select, self_cross
from .single import ablation_table, adapter_table, flatness, run_table, title_of, verdict
from .text import CAPTION, experiment_titles, self_cross_table, styled

__all__ = [
    "CAPTION",
    "Difference",
    "ablation_table",
    "adapter_table",
    "backfill",
    "collect",
    "experiment_titles",
    "flatness",
    "method_title",
    "needs_of",
    "paired_difference",
    "paired_gain",
    "points",
    "run_table",
    "select",
    "self_cross",
    "self_cross_table",
    "styled",
    "summary",
    "t_interval",
    "title_of",
    "verdict",
    "with_adapters",
]
