"""Weakened L2 against a slow loop, finite differences, L2 and its bounds."""

import dataclasses
import math

import pytest
import slow_losses as slow
import torch
from method_steps import check_gradient, make_classifier, make_old, make_step

from compat_lib.losses import build_method


def distance_term(old, step, name="weakened_l2", **options):
    return build_method(name, old, make_classifier(), **options).double()(step)["distance"]


@pytest.mark.parametrize("threshold", [0.0, 0.2, 1.3])
def test_value_and_gradient(threshold):
    old = make_old()
    method = build_method("weakened_l2", old, make_classifier(), threshold=threshold).double()
    step = make_step(old, dtype=torch.float64)
    terms = method(step)
    pairs = [(slow.unit(new), slow.unit(past)) for new, past, _ in slow.rows_of(step)]
    expected = slow.mean([max(0.0, math.dist(*pair) - threshold) for pair in pairs])
    assert terms["distance"].item() == pytest.approx(expected, abs=1e-6)
    assert method.weights == {"classification": 1.0, "distance": 10.0}
    assert check_gradient(method, step)


def test_rows_inside_the_threshold_are_free_and_the_others_pulled_as_by_l2():
    old = make_old()
    step = make_step(old, batch=6, dtype=torch.float64)
    past = torch.nn.functional.normalize(step.old_features, dim=1)
    embeddings = past.clone()
    embeddings[:3] *= -1  # three rows at distance 2, three at distance 0
    gradients = []
    for name in ("l2", "weakened_l2"):
        nearby = embeddings.clone() + 0.01 * torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
        nearby.requires_grad_()
        distance_term(old, dataclasses.replace(step, embeddings=nearby), name).backward()
        gradients.append(nearby.grad)
    torch.testing.assert_close(gradients[1][:3], gradients[0][:3])
    assert gradients[0][3:].ne(0).any(dim=1).all()
    assert gradients[1][3:].eq(0).all()
