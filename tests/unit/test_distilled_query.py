"""Distilled query against SciPy's Procrustes and a slow interpolation."""

import pytest
import slow_losses as slow
import torch
from method_steps import check_gradient, make_classifier, make_old, make_step
from plain_rows import arc, unit
from scipy.linalg import orthogonal_procrustes

from compat_lib.losses import build_method


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_value_and_gradient(alpha):
    old = make_old()
    method = build_method("distilled_query", old, make_classifier(), alpha=alpha, threshold=0.4).double()
    step = make_step(old, dtype=torch.float64)
    past, oracle = unit(old.features), unit(old.oracle_features)
    turned = oracle @ orthogonal_procrustes(oracle, past)[0]
    expected = slow.excess(
        step.embeddings.tolist(), [arc(past[row], turned[row], alpha) for row in step.rows], 0.4
    )
    assert method(step)["distance"].item() == pytest.approx(expected, rel=1e-5)
    assert check_gradient(method, step)
