"""Evaluation of features: arrays in, records and small frozen dataclasses out.

What holds for every call, unless it says otherwise:

- features are real numbers [N, D], NumPy or torch, rows of any length, computed where the tensor lies. A row
  of zeros has cosine 0 with everything;
- labels, identities, cameras, subjects and image ids are whole numbers or names [N], alike on both sides.
  Pairs with equal image ids are excluded; without ids nothing is;
- FARs, FPIRs and shares are fractions, k counts from 1;
- `draws` are those of a bootstrap over identities (0: no intervals), paired by `seed`;
- NaN, lengths or widths that do not fit and levels out of range are a ValueError of one sentence.

The main calls stand here; everything else is imported from its file.
"""

# ruff: noqa: F401 (the names are for users)

from compat_lib.evaluation.backfill import backfill_orders, mixed_gallery_curve
from compat_lib.evaluation.chain import generations
from compat_lib.evaluation.compatibility import (
    Queries,
    compare,
    criterion,
    gain_interval,
    update_gain,
    upgrade_scores,
)
from compat_lib.evaluation.four_constraints import constraints
from compat_lib.evaluation.orders import backfill_order, margin
from compat_lib.evaluation.paired import paired_comparison, paired_scores
from compat_lib.evaluation.protocols.landmarks import landmark_map, revisited
from compat_lib.evaluation.protocols.reid import reid
from compat_lib.evaluation.protocols.templates import (
    Templates,
    identification_1_to_n,
    pool_templates,
    verification_1_to_1,
)
from compat_lib.evaluation.rank_merge import merged_indexes_curve
from compat_lib.evaluation.ranking import retrieval, top_k
from compat_lib.evaluation.records import tar_name
from compat_lib.evaluation.tar import cosine_histograms, verification
from compat_lib.evaluation.upgrade import changes, upgrade_changes
