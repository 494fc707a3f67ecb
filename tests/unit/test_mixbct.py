"""MixBCT against a slow loop, and its promises about rows, gradients and randomness."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_steps import (
    check_gradient,
    fitted,
    make_classifier,
    make_old,
    make_step,
    slow_classification,
    slow_cross_entropy,
    slow_logits,
)

from compat_lib.losses import build_method


def method_and_draw(old, batch=16, seed=0, rows=None, width=6, **options):
    method = build_method("mixbct", old, make_classifier(width=width), **options)
    rows = torch.arange(batch) if rows is None else rows
    generator = torch.Generator().manual_seed(seed)
    return method, rows, method.rows_to_embed(rows, old.labels[rows], generator)


@pytest.mark.parametrize(("width", "pad"), [(6, "refuse"), (9, "zero")])
def test_value_equals_the_slow_loop_in_batch_order(width, pad):
    old = make_old()
    method, rows, embedded = method_and_draw(old, mix_ratio=0.4, width=width, pad=pad)
    method.double()
    step = make_step(old, width, embedded=embedded, rows=rows, dtype=torch.float64)
    fresh = iter(step.embeddings.tolist())
    mixed = [
        next(fresh) if keep else fitted(past, width)
        for keep, past in zip(embedded.tolist(), step.old_features.tolist(), strict=True)
    ]
    terms = method(step)
    assert list(terms) == ["classification"]
    expected = slow_classification(method.classifier, mixed, step.labels.tolist())
    assert terms["classification"].item() == pytest.approx(expected, rel=1e-6)
    assert check_gradient(method, step)


@pytest.mark.parametrize("ratio", [0.4, 1.0])
@pytest.mark.parametrize("kind", ["arcface", "cosface", "linear"])
def test_old_rows_with_a_margin_and_a_scale_of_their_own(kind, ratio):
    old = make_old()
    options = {"mix_ratio": ratio, "credible_share": 1.0, "old_margin_factor": 0.2, "old_scale_factor": 0.5}
    method = build_method("mixbct", old, make_classifier(kind), **options)
    rows = torch.arange(16)
    embedded = method.rows_to_embed(rows, old.labels[rows], torch.Generator().manual_seed(0))
    step = make_step(old, embedded=embedded, rows=rows, dtype=torch.float64)
    method.double()
    fresh, classifier, losses = iter(step.embeddings.tolist()), method.classifier, []
    for keep, past, label in zip(
        embedded.tolist(), step.old_features.tolist(), step.labels.tolist(), strict=True
    ):
        if keep:
            logits = slow_logits(classifier, next(fresh), label)
        else:
            cosine = kind != "linear"
            logits = slow_logits(classifier, past, label, 0.2 * classifier.margin)
            logits = [(0.5 if cosine else 1) * score for score in logits]
        losses.append(slow_cross_entropy(logits, label))
    assert method(step)["classification"].item() == pytest.approx(sum(losses) / 16, rel=1e-6)
    assert ratio == 1 or check_gradient(method, step)


def test_backbone_gradient_is_zero_for_replaced_rows_and_real_for_the_others():
    old = make_old()
    method, rows, embedded = method_and_draw(old)
    pixels = torch.randn(16, 6, generator=torch.Generator().manual_seed(5), requires_grad=True)
    embeddings = 2.0 * pixels[embedded]
    step = dataclasses.replace(make_step(old, embedded=embedded, rows=rows), embeddings=embeddings)
    before = old.features.clone()
    method(step)["classification"].backward()
    moved = pixels.grad.abs().sum(dim=1) > 0
    assert torch.equal(moved, embedded)
    assert method.classifier.weight.grad.abs().sum() > 0
    assert step.old_features.grad is None
    assert torch.equal(old.features, before)


def test_everything_replaced_trains_the_classifier_alone():
    old = make_old()
    method, rows, embedded = method_and_draw(old, mix_ratio=1.0, credible_share=1.0)
    assert not embedded.any()
    step = make_step(old, embedded=embedded, rows=rows)
    assert step.embeddings.shape == (0, 6)
    method(step)["classification"].backward()
    assert step.embeddings.grad.numel() == 0
    assert method.classifier.weight.grad.abs().sum() > 0
    assert method.embedded_share == 0.0


@pytest.mark.parametrize("kind", ["linear", "arcface"])
def test_ratio_zero_is_independent_training_to_the_bit(kind):
    old = make_old()
    results = []
    for name, options in (("independent", {}), ("mixbct", {"mix_ratio": 0.0})):
        method = build_method(name, old, make_classifier(kind), **options)
        step = make_step(old)
        before = step.generator.get_state()
        assert method.rows_to_embed(step.rows, step.labels, step.generator) is None
        assert torch.equal(step.generator.get_state(), before)
        term = method(step)["classification"]
        term.backward()
        assert torch.equal(step.generator.get_state(), before)
        results.append((term, step.embeddings.grad, method.classifier.weight.grad))
        assert method.embedded_share == 1.0
    for plain, mixed in zip(*results, strict=True):
        assert torch.equal(plain, mixed)


@settings(max_examples=60)
@given(ratio=st.floats(0, 1), share=st.floats(0, 1), batch=st.integers(1, 20), seed=st.integers(0, 1000))
def test_replaced_rows_are_credible_and_as_many_as_asked_for_where_there_are_enough(
    ratio, share, batch, seed
):
    old = make_old()
    rows = torch.randperm(20, generator=torch.Generator().manual_seed(seed))[:batch]
    method, rows, embedded = method_and_draw(old, rows=rows, seed=seed, mix_ratio=ratio, credible_share=share)
    credible = old.credible(share)[rows]
    asked = math.floor(ratio * batch + 1e-9)
    expected = min(asked, int(credible.sum()))
    if expected == 0:
        assert embedded is None
    else:
        assert int((~embedded).sum()) == expected
        assert credible[~embedded].all()
    assert int(method.short_batches) == int(credible.sum() < asked)


def test_draw_is_uniform_over_credible_rows():
    old = make_old(per_class=2)
    method = build_method("mixbct", old, make_classifier(), mix_ratio=0.3, credible_share=1.0)
    rows, count = torch.arange(10), torch.zeros(10)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3000):
        count += ~method.rows_to_embed(rows, old.labels[rows], generator)
    deviation = math.sqrt(3000 * 0.3 * 0.7)
    assert ((count - 900).abs() < 5 * deviation).all()


def test_ratio_is_not_cut_by_rounding():
    old = make_old(classes=20, per_class=5, class_map="none")
    method = build_method("mixbct", old, make_classifier(classes=20), mix_ratio=0.29, credible_share=1.0)
    embedded = method.rows_to_embed(torch.arange(100), old.labels, torch.Generator().manual_seed(0))
    assert int((~embedded).sum()) == 29  # 0.29 * 100 is 28.999999999999996


def test_narrow_old_features_are_padded_in_the_cross_test():
    method = build_method("mixbct", make_old(), make_classifier(width=8), pad="zero")
    new, past = torch.randn(3, 8), torch.randn(4, 6)
    queries, gallery = method.comparable(new, past)
    assert queries is new
    assert gallery.tolist() == [pytest.approx(fitted(row, 8)) for row in past.tolist()]


@pytest.mark.parametrize(("ratio", "share", "expected"), [(0.3, 0.5, 0.7), (0.9, 0.5, 0.5), (0.3, 0.0, 1.0)])
def test_share_that_is_embedded_is_bounded_by_ratio_and_credible_rows(ratio, share, expected):
    method = build_method("mixbct", make_old(), make_classifier(), mix_ratio=ratio, credible_share=share)
    assert method.embedded_share == pytest.approx(expected)


def test_widths():
    with pytest.raises(ValueError, match=r"not 6 \(old\) and 8 \(new\).*or pass pad='zero'"):
        build_method("mixbct", make_old(), make_classifier(width=8))
    for pad in ("refuse", "zero"):
        with pytest.raises(ValueError, match=r"not 6 \(old\) and 4 \(new\)"):
            build_method("mixbct", make_old(), make_classifier(width=4), pad=pad)
