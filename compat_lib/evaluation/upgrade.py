"""Everything that a run says of one old and one new model on the same test images."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from compat_lib.evaluation.backfill import backfill_orders, mixed_gallery_curve
from compat_lib.evaluation.changes import upgrade_changes
from compat_lib.evaluation.compatibility import HEADLINE as HEADLINE
from compat_lib.evaluation.compatibility import compare
from compat_lib.evaluation.constraints import constraints
from compat_lib.evaluation.pairs import FARS
from compat_lib.evaluation.records import Records

QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)  # the shares at which the published code of hot refresh measures


def measure(
    old: Tensor,
    new: Tensor,
    labels: Tensor,
    *,
    cross: tuple[Tensor, Tensor] | None,
    certainty: Any = None,
    draws: int = 200,
) -> Records:
    """All metrics of an upgrade, with intervals, and the draws behind those of the three pairs of models.

    Args:
        old, new: ``[N, d_o]``, ``[N, d_n]`` features of the same test images.
        labels: ``[N]``.
        cross: (query side, gallery side) as the method compares them; None where it cannot, and then only
            the self-tests are measured.
        certainty: ``[N]``, how sure the old classifier is of each gallery image, or None.
        draws: bootstrap draws over identities.

    Returns:
        the records of `compare`, of the backfill (gallery "mixed": curves and the area under them by order),
        of `constraints` and of `upgrade_changes`.
    """
    found = compare(old, new, labels, cross=cross, fars=FARS, draws=draws).records
    if cross is None:
        return found
    # The orders are compared at the same few shares, and by retrieval alone: half of the time.
    orders = backfill_orders(
        old, new, labels, cross=cross, certainty=certainty, shares=QUARTERS, fars=(), draws=draws
    ).records
    curve = [
        one
        for one in mixed_gallery_curve(old, new, labels, cross=cross).records
        if orders.find("new", "mixed", one.metric, order=one.order, share=one.share) is None
    ]
    held = constraints(old, new, labels, cross=cross, draws=draws).records
    changed = upgrade_changes(old, new, labels, cross=cross, draws=draws).records
    return found + curve + orders + held + changed
