"""The papers' claims one by one, each with a verdict computed from the runs.

A claim is tried in every setting that ran, by paired differences with 95 % intervals: over seeds where there
are two or more, and over the test identities of one run where there is one seed, which is then said to be
indicative at the most. A difference below the tolerance, one point of the metric, counts as none.
"""

from .claims import (
    CLAIMS,
    all_verdicts,
    dual_tuning_compatible,
    dual_tuning_without_cost,
    mixbct_beats_prototypes,
    mixbct_unified,
    mixbct_without_cost,
    overview,
    verdict_table,
    verdict_text,
)
from .findings import findings
from .trial import (
    DOES_NOT_SHOW,
    NOT_DECIDABLE,
    NOT_RUN,
    SHOWS,
    TOLERANCE,
    Part,
    Trial,
    Verdict,
    judge,
    judge_overall,
)

__all__ = [
    "CLAIMS",
    "DOES_NOT_SHOW",
    "NOT_DECIDABLE",
    "NOT_RUN",
    "SHOWS",
    "TOLERANCE",
    "Part",
    "Trial",
    "Verdict",
    "all_verdicts",
    "dual_tuning_compatible",
    "dual_tuning_without_cost",
    "findings",
    "judge",
    "judge_overall",
    "mixbct_beats_prototypes",
    "mixbct_unified",
    "mixbct_without_cost",
    "overview",
    "verdict_table",
    "verdict_text",
]
