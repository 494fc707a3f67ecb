"""Dual-Tuning's terms and variants against slow loops and finite differences."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_steps import (
    check_gradient,
    dot,
    fitted,
    make_classifier,
    make_old,
    make_step,
    slow_classification,
    slow_cross_entropy,
    slow_logits,
    slow_means,
    slow_old_logits,
    unit,
)

from compat_lib.losses import METHODS, build_method
from compat_lib.old_system import OldSystem


def mean(values):
    return sum(values) / len(values) if values else 0.0


@pytest.mark.parametrize("kind", ["linear", "cosface", "arcface"])
@pytest.mark.parametrize("width", [6, 8, 4])
@pytest.mark.parametrize(("logits", "o2n_rows"), [("cosine", "all"), ("dot", "shared"), ("cosine", "shared")])
def test_every_term_equals_the_slow_loop(kind, width, logits, o2n_rows):
    old = make_old()
    method = build_method(
        "dual_tuning",
        old,
        make_classifier(kind, width),
        logits=logits,
        o2n_rows=o2n_rows,
    ).double()
    step = make_step(old, width, batch=12, dtype=torch.float64)
    terms = method(step)

    means = slow_means(old)
    prototype, old_to_new, new_to_old = [], [], []
    sides = (step.embeddings.tolist(), step.old_features.tolist(), step.labels.tolist())
    for n, o, y in zip(*sides, strict=True):
        if logits == "cosine":
            scores = [16.0 * dot(unit(p), unit(fitted(n, 6))) for p in means]
        else:
            scores = [dot(p, fitted(n, 6)) for p in means]
        prototype.append(slow_cross_entropy(scores, y))
        shared = old.class_map[y].item() >= 0
        if shared or o2n_rows == "all":
            scores = slow_logits(method.classifier, fitted(o, width), y)
            old_to_new.append(slow_cross_entropy(scores, y))
        if shared:
            new_to_old.append(slow_cross_entropy(slow_old_logits(old, n), old.class_map[y].item()))
    assert 0 < len(new_to_old) < 12

    expected = {
        "classification": slow_classification(
            method.classifier, step.embeddings.tolist(), step.labels.tolist()
        ),
        "prototype": mean(prototype),
        "old_to_new": mean(old_to_new),
        "new_to_old": mean(new_to_old),
    }
    assert list(terms) == list(expected)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({}, {"prototype": 10.0, "old_to_new": 0.2, "new_to_old": 0.2}),
        (METHODS["dual_tuning"].published, {"prototype": 0.1, "old_to_new": 0.2, "new_to_old": 0.2}),
        ({"prototype_weight": 0}, {"old_to_new": 0.2, "new_to_old": 0.2}),
        ({"structure_weight": 0}, {"prototype": 10.0}),
        (
            {"structure_weight": 0.4, "new_to_old_factor": 0.25},
            {"prototype": 10.0, "old_to_new": 0.4, "new_to_old": 0.1},
        ),
        ({"new_to_old_factor": 0}, {"prototype": 10.0, "old_to_new": 0.2}),
    ],
)
def test_a_term_has_its_weight_and_without_one_it_is_not_there(options, weights):
    old = make_old()
    method = build_method("dual_tuning", old, make_classifier(), **options)
    assert method.weights == {"classification": 1.0} | weights
    assert list(method(make_step(old))) == list(method.weights)


@pytest.mark.parametrize("logits", ["cosine", "dot"])
def test_gradient_equals_finite_differences(logits):
    old = make_old()
    method = build_method("dual_tuning", old, make_classifier(), logits=logits)
    step = make_step(old, batch=4, dtype=torch.float64)
    assert check_gradient(method, step)


def test_what_each_term_teaches():
    """old_to_new only the classifier, the other two only the embeddings, none the old features."""
    old = make_old()
    method = build_method("dual_tuning", old, make_classifier())
    step = make_step(old, batch=12)
    moved = {"prototype": (True, False), "old_to_new": (False, True), "new_to_old": (True, False)}
    for name, expected in moved.items():
        sides = (step.embeddings, method.classifier.weight)
        gradients = torch.autograd.grad(method(step)[name], sides, allow_unused=True)
        assert tuple(g is not None and bool(g.ne(0).any()) for g in gradients) == expected, name
    assert not step.old_features.requires_grad


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    kind=st.sampled_from(["linear", "cosface", "arcface"]),
    batch=st.integers(1, 12),
    o2n_rows=st.sampled_from(["all", "shared"]),
)
def test_both_structural_terms_agree_when_the_models_are_the_same(seed, kind, batch, o2n_rows):
    classifier = make_classifier(kind, seed=seed, margin=0.0)
    past = make_old(seed, class_map=None, classifier=False)
    old = OldSystem.from_arrays(
        past.features,
        past.labels,
        classifier_weight=classifier.weight.detach().clone(),
        classifier_bias=classifier.bias.detach().clone() if kind == "linear" else None,
        classifier_scale=None if kind == "linear" else 8.0,
        class_map=torch.arange(5),
    )
    method = build_method("dual_tuning", old, classifier, o2n_rows=o2n_rows)
    step = make_step(old, batch=batch, seed=seed)
    terms = method(dataclasses.replace(step, embeddings=step.old_features.clone()))
    torch.testing.assert_close(terms["old_to_new"], terms["new_to_old"], rtol=1e-4, atol=1e-5)
    assert terms["old_to_new"] > 0


@pytest.mark.parametrize("progress", [0.0, 0.25, 1.0])
def test_old_features_meet_the_margin_of_the_moment(progress):
    old = make_old()
    method = build_method("dual_tuning", old, make_classifier(margin=0.4)).double()
    method.classifier.ramp = 0.5
    step = make_step(old, dtype=torch.float64, progress=progress)
    margin = 0.4 * min(1, 2 * progress)
    rows = [
        slow_cross_entropy(slow_logits(method.classifier, o, y, margin), y)
        for o, y in zip(step.old_features.tolist(), step.labels.tolist(), strict=True)
    ]
    assert method(step)["old_to_new"].item() == pytest.approx(mean(rows))


@pytest.mark.parametrize("with_map", [True, False])
def test_features_alone_are_enough_when_no_class_is_shared(with_map):
    old = make_old(classifier=False, class_map="none" if with_map else None)
    step = make_step(old)
    terms = build_method("dual_tuning", old, make_classifier())(step)
    assert terms["new_to_old"].item() == 0
    assert terms["old_to_new"].item() > 0
    terms = build_method("dual_tuning", old, make_classifier(), o2n_rows="shared")(step)
    assert terms["old_to_new"].item() == 0
    sum(terms.values()).backward()
    assert step.embeddings.grad.isfinite().all()


def test_shared_classes_without_the_old_classifier_are_refused_unless_switched_off():
    with pytest.raises(ValueError, match="needs the class map of the old classifier"):
        build_method("dual_tuning", make_old(class_map=None), make_classifier())
    old = make_old(classifier=False)
    with pytest.raises(ValueError, match="needs the old classifier, because 2 classes are shared"):
        build_method("dual_tuning", old, make_classifier())
    without = build_method("dual_tuning", old, make_classifier(), new_to_old_factor=0)(make_step(old))
    assert list(without) == ["classification", "prototype", "old_to_new"]
    without = build_method("dual_tuning", old, make_classifier(), structure_weight=0)(make_step(old))
    assert list(without) == ["classification", "prototype"]
