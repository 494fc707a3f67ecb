"""What the history says of the validation images while a model trains."""

from __future__ import annotations

import torch
from torch import Tensor

from compat_lib.evaluation.compatibility import tar_name
from compat_lib.evaluation.four_constraints import constraints
from compat_lib.evaluation.tar import FARS, verification
from compat_lib.losses.base import CompatibilityLoss
from compat_lib.trained_model import compared

MOST = 1000  # images that are looked at: enough for a curve, and much faster


def whole_identities(labels: Tensor, most: int = MOST) -> Tensor:
    """Rows, int64, of identities with all their images, about `most`; two at least, those with pairs first.

    >>> whole_identities(torch.tensor([0, 1, 1, 2, 2, 2]), most=5).tolist()
    [1, 2, 3, 4, 5]
    """
    images = torch.bincount(labels)
    order = (images < 2).long().argsort(stable=True)  # those without a pair last
    shown = order[images[order].cumsum(0) <= most]
    # Two at least: without pairs of different identities nothing can be measured.
    return torch.isin(labels, torch.cat([order[:2], shown])).nonzero()[:, 0]


def validate(
    method: CompatibilityLoss, features: Tensor, labels: Tensor, old: Tensor | None
) -> dict[str, float]:
    """Verification of new/new and new/old, and the shares of the four constraints that hold, by name.

    Args:
        method: says how new and old features are compared.
        features: float32 [N, d], stored features of the new model.
        labels: int64 [N].
        old: float32 [N, d_o], old features of the same images; None for an old model's training.
    """
    tests = {"new_new": verification(features, labels, fars=FARS[:2])}
    cross = None if old is None else compared(method, features, old)
    if cross is not None:
        ids = dict.fromkeys(("query_ids", "gallery_ids"), torch.arange(len(labels)))
        query, gallery = cross
        tests["new_old"] = verification(query, labels, gallery, labels, **ids, fars=FARS[:2])
    values = {
        f"{pair}/{tar_name(far)}": tar
        for pair, test in tests.items()
        for far, tar in zip(test.fars, test.tar, strict=True)
    }
    if cross is not None:
        held = constraints(old, features, labels, cross=cross)
        values |= {f"constraint{k}/share": share for k, share in enumerate(held.share, start=1)}
    return values
