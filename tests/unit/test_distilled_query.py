"""Distilled query against SciPy's Procrustes and a slow interpolation."""

import math

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
    losses = []
    for row, new in zip(step.rows.tolist(), step.embeddings.tolist(), strict=True):
        target = arc(past[row], turned[row], alpha)
        losses.append(max(0.0, math.dist(slow.unit(new), target) - 0.4))
    assert method(step)["distance"].item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert check_gradient(method, step)
