"""Everything that a run's metrics say of one old and one new model on the same test images."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from compat_lib.evaluation.backfill import backfill_orders, mixed_gallery_curve
from compat_lib.evaluation.changes import upgrade_changes
from compat_lib.evaluation.compatibility import compare, criterion
from compat_lib.evaluation.constraints import constraints

FARS = (1e-2, 1e-3, 1e-4)
HEADLINE = "tar@far=1e-3"  # the metric of the criterion and of the update gain
QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)  # the shares at which the published code of hot refresh measures


def measure(
    old: Tensor,
    new: Tensor,
    labels: Tensor,
    *,
    cross: tuple[Tensor, Tensor] | None,
    certainty: Any = None,
    draws: int = 200,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The metrics of an upgrade under flat names, and the bootstrap draws behind those that have some.

    Args:
        old, new: ``[N, d_o]``, ``[N, d_n]`` features of the same test images.
        labels: ``[N]``.
        cross: (query side, gallery side) as the method compares them; None where it cannot, and then only
            the self-tests are measured.
        certainty: ``[N]``, how sure the old classifier is of each gallery image, or None.
        draws: bootstrap draws over identities.

    Returns:
        metrics: the three pairs of ``compare``, "criterion", "mixed/..." (backfill curves and the area under
        them by order), "constraint1/share" and so on, "changes/..." (who loses, who gains); and draws.
    """
    result = compare(old, new, labels, cross=cross, fars=FARS, draws=draws)
    metrics = dict(result.metrics)
    metrics["criterion"] = criterion(metrics, HEADLINE)
    if cross is None:
        return metrics, dict(result.draws)
    metrics |= mixed_gallery_curve(old, new, labels, cross=cross).metrics
    # The orders are compared at the same few shares, and by retrieval alone: half of the time.
    metrics |= backfill_orders(
        old, new, labels, cross=cross, certainty=certainty, shares=QUARTERS, fars=(), draws=draws
    ).metrics
    metrics |= constraints(old, new, labels, cross=cross, draws=draws).metrics
    metrics |= upgrade_changes(old, new, labels, cross=cross, draws=draws).metrics
    return metrics, dict(result.draws)
