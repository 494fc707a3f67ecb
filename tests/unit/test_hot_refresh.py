"""Hot refresh (RACT) against slow loops over sorted negatives, finite differences and its limits."""

import math

import pytest
import slow_losses as slow
import torch
from method_steps import check_gradient, make_classifier, make_old, make_step

from compat_lib.losses import build_method


def slow_contrast(new, old, labels, temperature, count):
    """One row at a time: sort the negatives of each kind, keep the hardest, sum exponentials."""
    new, old = [slow.unit(row) for row in new], [slow.unit(row) for row in old]
    losses = []
    for i, anchor in enumerate(new):
        others = [j for j, label in enumerate(labels) if label != labels[i]]
        positive = slow.dot(anchor, old[i])
        kinds = [[slow.dot(anchor, side[j]) for j in others] for side in (old, new)]
        kinds = [sorted(kind)[-count:] for kind in kinds]
        # relative to the positive pair, so that nothing overflows at a temperature of 0.01
        total = 1.0 + sum(math.exp((c - positive) / temperature) for cosines in kinds for c in cosines)
        losses.append(math.log(total))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.01, 0.3])
@pytest.mark.parametrize(("width", "batch", "negatives"), [(2, 5, 1), (6, 9, 3), (4, 6, 10), (8, 1, 10)])
def test_value_and_gradient(temperature, width, batch, negatives):
    old = make_old(classes=4, per_class=6, width=width)
    options = {"temperature": temperature, "negatives": negatives, "weight": 3.0}
    method = build_method("hot_refresh", old, make_classifier(width=width, classes=4), **options).double()
    step = make_step(old, width, batch, dtype=torch.float64)
    terms = method(step)
    expected = slow_contrast(*zip(*slow.rows_of(step), strict=True), temperature, negatives)
    assert terms["contrast"].item() == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert (expected > 0) == (batch > 1)
    assert method.weights == {"classification": 1.0, "contrast": 3.0}
    if batch <= 6:  # hundreds of evaluations each
        assert check_gradient(method, step)
