"""L2 regression against a slow loop, finite differences and its bounds."""

import math

import pytest
import slow_losses as slow
import torch
from method_steps import check_gradient, make_classifier, make_old, make_step

from compat_lib.losses import build_method
from compat_lib.losses.l2 import feature_distances


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("width", [2, 6])
def test_value_and_gradient(width, batch):
    old = make_old(width=width)
    method = build_method("l2", old, make_classifier(width=width), weight=3.0).double()
    step = make_step(old, width, batch, dtype=torch.float64)
    terms = method(step)
    expected = slow.excess(step.embeddings.tolist(), step.old_features.tolist())
    assert terms["distance"].item() == pytest.approx(expected, abs=1e-6)
    assert method.weights == {"classification": 1.0, "distance": 3.0}
    assert check_gradient(method, step)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_row_of_zeros_is_one_away_and_no_number_stays_none(dtype):
    new = torch.tensor([[0.0, 0.0], [math.nan, 1.0], [2.0, 0.0]], dtype=dtype, requires_grad=True)
    distances = feature_distances(new, torch.tensor([[0.0, 3.0]] * 2 + [[1.0, 0.0]], dtype=dtype))
    assert distances[0].item() == 1 and distances[2].item() == 0
    distances[2].backward()
    assert new.grad[2].eq(0).all()  # of equal features
    assert distances[1].isnan()  # a network that diverged must not look perfect
    with_old = feature_distances(torch.ones(1, 2), torch.tensor([[1.0, math.nan]]))
    assert with_old.isnan().all()
