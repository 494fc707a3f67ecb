"""Weakened L2 against a slow loop and finite differences."""

import pytest
import slow_losses as slow
import torch
from method_steps import check_gradient, make_classifier, make_old, make_step

from compat_lib.losses import build_method


@pytest.mark.parametrize("threshold", [0.0, 0.2, 1.3])
def test_value_and_gradient(threshold):
    old = make_old()
    method = build_method("weakened_l2", old, make_classifier(), threshold=threshold).double()
    step = make_step(old, dtype=torch.float64)
    terms = method(step)
    expected = slow.excess(step.embeddings.tolist(), step.old_features.tolist(), threshold)
    assert terms["distance"].item() == pytest.approx(expected, abs=1e-6)
    assert method.weights == {"classification": 1.0, "distance": 10.0}
    assert check_gradient(method, step)
