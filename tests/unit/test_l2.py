"""L2 regression against a slow loop, finite differences and its bounds."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_steps import check_gradient, make_classifier, make_old, make_step, slow_classification, unit

from compat_lib.losses import build_method


def distance_term(old, step, **options):
    return build_method("l2", old, make_classifier(), **options).double()(step)["distance"]


@pytest.mark.parametrize("threshold", [0.0, 0.2, 1.3])
def test_value_and_gradient(threshold):
    old = make_old()
    method = build_method("l2", old, make_classifier(), threshold=threshold).double()
    step = make_step(old, dtype=torch.float64)
    terms = method(step)
    rows = []
    for new, past in zip(step.embeddings.tolist(), step.old_features.double().tolist(), strict=True):
        squares = sum((a - b) ** 2 for a, b in zip(unit(new), unit(past), strict=True))
        rows.append(max(0.0, math.sqrt(squares) - threshold))
    assert terms["distance"].item() == pytest.approx(sum(rows) / len(rows), abs=1e-6)
    assert terms["classification"].item() == pytest.approx(
        slow_classification(method.classifier, step.embeddings.tolist(), step.labels.tolist())
    )
    assert method.weights == {"classification": 1.0, "distance": 10.0}
    assert check_gradient(method, dataclasses.replace(step, old_features=step.old_features.double()))


def test_equal_features_have_zero_loss_and_zero_gradient():
    old = make_old()
    step = make_step(old)
    embeddings = step.old_features.clone().requires_grad_()
    method = build_method("l2", old, make_classifier())
    term = method(dataclasses.replace(step, embeddings=embeddings))["distance"]
    term.backward()
    assert term.item() == 0
    assert embeddings.grad.eq(0).all()


def test_gradient_does_not_fade_near_the_old_feature():
    old = make_old()
    step = make_step(old, dtype=torch.float64)
    past = torch.nn.functional.normalize(step.old_features.double(), dim=1)
    sideways = torch.randn(past.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sideways -= (sideways * past).sum(1, keepdim=True) * past
    embeddings = (past + 1e-6 * sideways).requires_grad_()
    nearby = dataclasses.replace(step, embeddings=embeddings, old_features=past)
    distance_term(old, nearby).backward()
    lengths = embeddings.grad.norm(dim=1) * len(past)
    torch.testing.assert_close(lengths, torch.ones(len(past), dtype=torch.float64), rtol=1e-4, atol=0)


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), threshold=st.floats(0, 2), factor=st.floats(1e-3, 1e3))
def test_bounds_and_invariance_to_length(seed, threshold, factor):
    old = make_old(seed)
    step = make_step(old, seed=seed, dtype=torch.float64)
    plain, weakened = distance_term(old, step), distance_term(old, step, threshold=threshold)
    assert 0 <= weakened <= plain <= 2 + 1e-6
    longer = dataclasses.replace(
        step, embeddings=factor * step.embeddings, old_features=factor * step.old_features.double()
    )
    assert distance_term(old, longer).item() == pytest.approx(plain.item(), rel=1e-6)


def test_threshold_two_gives_zero():
    old = make_old()
    step = make_step(old)
    opposite = dataclasses.replace(step, embeddings=-step.old_features)
    assert distance_term(old, opposite, threshold=2.0).item() == pytest.approx(0, abs=1e-6)
    assert distance_term(old, opposite).item() == pytest.approx(2, abs=1e-6)


def test_other_widths_and_options_are_refused():
    with pytest.raises(ValueError, match=r"l2 needs old and new .* not 6 \(old\) and 8 \(new\)"):
        build_method("l2", make_old(), make_classifier(width=8))
    with pytest.raises(ValueError, match="threshold must be a number between 0 and 2, not 3"):
        build_method("l2", make_old(), make_classifier(), threshold=3)
    with pytest.raises(ValueError, match="weight must be a number of at least 0, not -1"):
        build_method("l2", make_old(), make_classifier(), weight=-1)
