"""In which order a gallery is embedded again, and what the order is made from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from compat_lib.evaluation.inputs import as_tensor, codes, table, unit_rows

ORDERS = ("random", "uncertain", "farthest")


def backfill_order(
    old: Any, labels: Any, order: str | Sequence[int] = "random", *, certainty: Any = None, seed: int = 0
) -> np.ndarray:
    """Return the gallery's rows in the order in which they are embedded again, int64 [N].

    Source: least certain first as in hot-refresh model upgrades (RACT, arXiv 2201.09724) and FastFill
    (arXiv 2303.04766, whose uncertainty is learnt); farthest first is ours. Arguments as in
    `mixed_gallery_curve`.

    >>> backfill_order([[1.0], [1.0], [1.0]], [0, 0, 0], "uncertain", certainty=[0.5, 0.1, 0.9]).tolist()
    [1, 0, 2]
    """
    size = len(table(old, "old features"))
    shuffled = np.random.default_rng(seed).permutation(size)
    if not isinstance(order, str):
        given = np.asarray(order)
        if not np.array_equal(np.sort(given), np.arange(size)):
            raise ValueError(f"the order is none of all {size} rows; give every row number from 0 once")
        return given.astype(np.int64)
    if order == "random":
        return shuffled
    if order == "uncertain":
        key = np.asarray(np.nan if certainty is None else certainty, np.float64)
        if key.shape != (size,) or np.isnan(key).any():
            raise ValueError(
                f"the order 'uncertain' needs certainty, one number for each of {size} images, such as "
                "margin(logits)"
            )
    elif order == "farthest":
        key = -class_distance(old, labels)
    else:
        raise ValueError(
            f"the order {order!r} is not known; choose one of {', '.join(ORDERS)}, or give the row numbers"
        )
    return shuffled[np.argsort(key[shuffled], kind="stable")]


def class_distance(features: Any, labels: Any) -> np.ndarray:
    """Return how far each feature [N, D] lies from the mean of its class, 1 - cosine, float64 [N], 0 to 2.

    The mean is that of the unit features of the class. The distance to a mean of zero is 1.

    >>> class_distance([[1.0, 0.0], [0.0, 1.0], [-5.0, 0.0]], [0, 0, 1]).round(3).tolist()
    [0.293, 0.293, 0.0]
    """
    unit = unit_rows(features, "old")
    number = codes(labels, None, (len(unit), 0), "labels")[0]
    place = torch.from_numpy(number).to(unit.device)
    sums = torch.zeros(int(number.max()) + 1, unit.shape[1], dtype=torch.float64, device=unit.device)
    sums.index_add_(0, place, unit.double())
    means = torch.nn.functional.normalize(sums, dim=1)
    return 1 - (unit * means[place]).sum(1).cpu().numpy()


def margin(logits: Any) -> np.ndarray:
    """Return how much more likely the first class is than the second, float64 [N]; 1 is certain.

    By the softmax of the old classifier's logits [N, K] with their scale.

    >>> margin([[0.0, 0.0, -1000.0], [1000.0, 0.0, 0.0]]).tolist()
    [0.0, 1.0]
    """
    logits = as_tensor(logits, "logits").double()
    if logits.shape[1] < 2 or not torch.isfinite(logits).all():
        raise ValueError("the logits hold NaN or one class only; give [N, K] finite numbers, K at least 2")
    top = torch.softmax(logits, 1).topk(2, dim=1).values
    return (top[:, 0] - top[:, 1]).cpu().numpy()
