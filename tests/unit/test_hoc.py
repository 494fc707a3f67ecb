"""HOC against a slow loop and finite differences."""

import math

import pytest
import slow_losses as slow
import torch
from method_steps import check_gradient, make_classifier, make_old, make_step

from compat_lib.losses import build_method


def slow_contrast(new, old, labels, scale):
    new, old = [slow.unit(row) for row in new], [slow.unit(row) for row in old]
    losses = []
    for i, anchor in enumerate(new):
        total = 0.0
        for j, label in enumerate(labels):
            if label != labels[i] or j == i:
                total += math.exp(scale * slow.dot(anchor, old[j]))
        losses.append(-scale * slow.dot(anchor, old[i]) + math.log(total))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("scale", [1.0, 10.0])
@pytest.mark.parametrize(("width", "batch"), [(2, 5), (6, 9), (8, 1)])
def test_value_and_gradient(width, batch, scale):
    old = make_old(classes=4, per_class=6, width=width)
    method = build_method("hoc", old, make_classifier(width=width, classes=4), scale=scale, weight=3.0)
    method = method.double()
    step = make_step(old, width, batch, dtype=torch.float64)
    terms = method(step)
    expected = slow_contrast(*zip(*slow.rows_of(step), strict=True), scale)
    assert terms["contrast"].item() == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert (expected > 0) == (batch > 1)
    assert method.weights == {"classification": 1.0, "contrast": 3.0}
    if batch <= 5:
        assert check_gradient(method, step)
