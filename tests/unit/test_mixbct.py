"""MixBCT against a slow loop, and its promises about rows, gradients and randomness."""

import math

import pytest
import slow_losses as slow
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_steps import check_gradient, make_classifier, make_old, make_step

from compat_lib.losses import build_method


def method_and_draw(old, batch=16, seed=0, rows=None, kind="arcface", width=6, **options):
    method = build_method("mixbct", old, make_classifier(kind, width), **options)
    rows = torch.arange(batch) if rows is None else rows
    generator = torch.Generator().manual_seed(seed)
    return method, rows, method.rows_to_embed(rows, old.labels[rows], generator)


MIXED = [("arcface", 0.4, 6, {}), ("arcface", 0.4, 9, {"pad": "zero"})]  # kind, ratio, width, options
OWN = {"old_margin_factor": 0.2, "old_scale_factor": 0.5}  # what old rows have of the margin and the scale
MIXED += [(kind, ratio, 6, OWN) for kind in ("arcface", "cosface", "linear") for ratio in (0.4, 1.0)]


@pytest.mark.parametrize(("kind", "ratio", "width", "options"), MIXED)
def test_value_equals_the_slow_loop_in_batch_order(kind, ratio, width, options):
    old = make_old()
    options = {"mix_ratio": ratio, "credible_share": 1.0} | options
    method, rows, embedded = method_and_draw(old, kind=kind, width=width, **options)
    method.double()
    step = make_step(old, width, embedded=embedded, rows=rows, dtype=torch.float64)
    fresh, classifier, losses = iter(step.embeddings.tolist()), method.classifier, []
    margin, scale = (options.get(f"old_{part}_factor", 1) for part in ("margin", "scale"))
    sides = (embedded.tolist(), step.old_features.tolist(), step.labels.tolist())
    for keep, past, y in zip(*sides, strict=True):
        if keep:
            logits = slow.logits(classifier, next(fresh), y)
        else:
            logits = slow.logits(classifier, slow.fitted(past, width), y, margin * classifier.margin)
            logits = [(1 if kind == "linear" else scale) * score for score in logits]
        losses.append(slow.cross_entropy(logits, y))
    terms = method(step)
    assert list(terms) == ["classification"]
    assert terms["classification"].item() == pytest.approx(slow.mean(losses), rel=1e-6)
    if ratio < 1:
        assert check_gradient(method, step)
    else:  # the classifier alone is trained
        terms["classification"].backward()
        assert step.embeddings.shape == (0, 6) and classifier.weight.grad.abs().sum() > 0


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


def test_ratio_is_not_cut_by_rounding():
    old = make_old(classes=20, per_class=5, class_map="none")
    method = build_method("mixbct", old, make_classifier(classes=20), mix_ratio=0.29, credible_share=1.0)
    embedded = method.rows_to_embed(torch.arange(100), old.labels, torch.Generator().manual_seed(0))
    assert int((~embedded).sum()) == 29  # 0.29 * 100 is 28.999999999999996


def test_narrow_old_features_are_padded_in_the_cross_test_and_wide_ones_refused():
    method = build_method("mixbct", make_old(), make_classifier(width=8), pad="zero")
    new, past = torch.randn(3, 8), torch.randn(4, 6)
    queries, gallery = method.comparable(new, past)
    assert queries is new
    assert gallery.tolist() == [pytest.approx(slow.fitted(row, 8)) for row in past.tolist()]
    for width, pad in ((8, "refuse"), (4, "refuse"), (4, "zero")):
        said = rf"not 6 \(old\) and {width} \(new\)" + (".*or pass pad='zero'" if width == 8 else "")
        with pytest.raises(ValueError, match=said):
            build_method("mixbct", make_old(), make_classifier(width=width), pad=pad)


def test_share_that_is_embedded_is_bounded_by_ratio_and_credible_rows():
    for ratio, share, expected in ((0.3, 0.5, 0.7), (0.9, 0.5, 0.5), (0.3, 0.0, 1.0), (1.0, 1.0, 0.0)):
        method = build_method("mixbct", make_old(), make_classifier(), mix_ratio=ratio, credible_share=share)
        assert method.embedded_share == pytest.approx(expected)
