"""Two indexes during a backfill: each is asked by its own model, and both answers are merged by score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compat_lib.evaluation.backfill import SHARES, BackfillCurve, all_pairs, curve_of
from compat_lib.evaluation.inputs import codes, full_precision, unit_rows
from compat_lib.evaluation.orders import backfill_order

PASSED = 0.01  # the share of strangers whose scores lie one unit or more above their median
SAMPLED = 2_000  # images by which the scale of a model's scores is found


def merged_indexes_curve(
    old: Any,
    new: Any,
    labels: Any,
    *,
    shares: Sequence[float] = SHARES,
    seed: int = 0,
    fars: Sequence[float] = (1e-2,),
) -> BackfillCurve:
    """Return the metrics while a gallery moves from an old index to a new one, in random order.

    Source: rank merge for online backfilling (Seo et al., WACV 2025, arXiv 2301.03767), of which the abstract
    alone was read. An old entry answers the old query and a new entry the new one, so that both models run at
    query time and neither need be compatible. Scores are brought onto one scale by those of strangers: 0 is
    their median, 1 is passed by one in a hundred, as in `deploy.gallery.score_scale`. Queries and gallery are
    the same images; arguments as in `mixed_gallery_curve`.

    >>> old = [[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.8, 0.6]]
    >>> new = [[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]
    >>> curve = merged_indexes_curve(old, new, [0, 0, 1, 1], shares=(0, 1), fars=())
    >>> curve.values("rank1").tolist()
    [0.0, 1.0]
    """
    places = backfill_order(old, labels, "random", seed=seed)
    number = codes(labels, None, (len(places), 0), "labels")[0]
    before, after = unit_rows(old, "old"), unit_rows(new, "new")
    queries, galleries = merged_sides(before, after.to(before.device), number)
    return curve_of(all_pairs(queries, *galleries, labels), places, shares, fars)


def scale_of_strangers(unit: Tensor, number: np.ndarray) -> tuple[float, float]:
    """Median of the cosines of two people, and how far above it the highest hundredth begins."""
    rows = np.linspace(0, len(unit) - 1, min(len(unit), SAMPLED)).astype(np.int64)
    some, who = unit[torch.from_numpy(rows).to(unit.device)], number[rows]
    with full_precision(unit.device):
        scores = (some @ some.T).cpu().numpy()[who[:, None] != who]
    if not len(scores):
        raise ValueError("all images have one label: strangers show on which scale a model scores")
    centre, high = np.quantile(scores, [0.5, 1 - PASSED])
    return float(centre), float(max(high - centre, np.finfo(np.float32).eps))


def merged_sides(old: Tensor, new: Tensor, number: np.ndarray) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Queries, and the gallery's rows before and after: their products are one multiple of the scores.

    Args:
        old, new: [N, d_old], [N, d_new] unit rows of the same images, on one device.
        number: int64 [N], identities.
    """
    scales = [scale_of_strangers(side, number) for side in (old, new)]
    one, none = old.new_ones(len(old), 1), old.new_zeros(len(old), 1)
    (centre_old, spread_old), (centre_new, spread_new) = scales
    offsets = -centre_old / spread_old * one, -centre_new / spread_new * one
    before = torch.cat([old, torch.zeros_like(new), one, none], 1)
    after = torch.cat([torch.zeros_like(old), new, none, one], 1)
    queries = torch.cat([old / spread_old, new / spread_new, *offsets], 1)
    # All rows of a side are of one length, so that unit rows have the same order of scores.
    length = float(np.sqrt(sum((1 + centre**2) / spread**2 for centre, spread in scales)))
    return queries / length, (before / 2**0.5, after / 2**0.5)
