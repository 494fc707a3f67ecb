"""Blended L2 against a slow loop and finite differences."""

import pytest
import slow_losses as slow
import torch
from method_steps import check_gradient, make_classifier, make_old, make_step

from compat_lib.losses import build_method


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_value_and_gradient(share):
    old = make_old()
    method = build_method("blended_l2", old, make_classifier(), share=share).double()
    step = make_step(old, dtype=torch.float64)
    means, targets = slow.means(old), []
    for _, past, label in slow.rows_of(step):
        pairs = zip(slow.unit(past), slow.unit(means[label]), strict=True)
        targets.append([(1 - share) * own + share * mean for own, mean in pairs])
    expected = slow.excess(step.embeddings.tolist(), targets, 0.4)
    assert method(step)["distance"].item() == pytest.approx(expected, rel=1e-6)
    assert method.weights == {"classification": 1.0, "distance": 10.0}
    assert check_gradient(method, step)
