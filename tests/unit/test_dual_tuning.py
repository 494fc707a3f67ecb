"""Dual-Tuning's four terms against slow loops and finite differences."""

import dataclasses

import pytest
import torch
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

from compat_lib.losses import build_method
from compat_lib.old_system import OldSystem


def mean(values):
    return sum(values) / len(values) if values else 0.0


@pytest.mark.parametrize("kind", ["linear", "cosface", "arcface"])
@pytest.mark.parametrize("width", [6, 8, 4])
@pytest.mark.parametrize(
    ("logits", "o2n_rows", "smoothing"),
    [("cosine", "all", 0.0), ("dot", "shared", 0.0), ("cosine", "shared", 0.1)],
)
def test_every_term_equals_the_slow_loop(kind, width, logits, o2n_rows, smoothing):
    old = make_old()
    method = build_method(
        "dual_tuning",
        old,
        make_classifier(kind, width),
        logits=logits,
        o2n_rows=o2n_rows,
        label_smoothing=smoothing,
    ).double()
    step = make_step(old, width, batch=12, dtype=torch.float64)
    terms = method(step)

    means = slow_means(old)
    prototype, old_to_new, new_to_old = [], [], []
    for n, o, y in zip(
        step.embeddings.tolist(), step.old_features.double().tolist(), step.labels.tolist(), strict=True
    ):
        if logits == "cosine":
            scores = [16.0 * dot(unit(p), unit(fitted(n, 6))) for p in means]
        else:
            scores = [dot(p, fitted(n, 6)) for p in means]
        prototype.append(slow_cross_entropy(scores, y, smoothing))
        shared = old.class_map[y].item() >= 0
        if shared or o2n_rows == "all":
            scores = slow_logits(method.classifier, fitted(o, width), y)
            old_to_new.append(slow_cross_entropy(scores, y, smoothing))
        if shared:
            new_to_old.append(slow_cross_entropy(slow_old_logits(old, n), old.class_map[y].item(), smoothing))
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


def test_weights_are_the_published_ones():
    method = build_method("dual_tuning", make_old(), make_classifier())
    assert method.weights == {"classification": 1.0, "prototype": 1.0, "old_to_new": 0.2, "new_to_old": 0.2}
    assert method.reconstruction
    changed = build_method(
        "dual_tuning", make_old(), make_classifier(), prototype_weight=1, structure_weight=0
    )
    assert changed.weights == {"classification": 1.0, "prototype": 1.0, "old_to_new": 0.0, "new_to_old": 0.0}


@pytest.mark.parametrize("logits", ["cosine", "dot"])
def test_gradient_equals_finite_differences(logits):
    old = make_old()
    method = build_method("dual_tuning", old, make_classifier(), logits=logits, label_smoothing=0.1)
    step = make_step(old, batch=4, dtype=torch.float64)
    assert check_gradient(method, dataclasses.replace(step, old_features=step.old_features.double()))


def test_old_to_new_teaches_the_classifier_only():
    old = make_old()
    method = build_method("dual_tuning", old, make_classifier())
    step = make_step(old)
    before = old.features.clone()
    terms = method(step)
    (gradient,) = torch.autograd.grad(terms["old_to_new"], step.embeddings, allow_unused=True)
    assert gradient is None
    terms["old_to_new"].backward()
    assert method.classifier.weight.grad.abs().sum() > 0
    assert step.old_features.grad is None
    assert torch.equal(old.features, before)


def test_prototype_and_new_to_old_teach_the_embeddings_only():
    old = make_old()
    method = build_method("dual_tuning", old, make_classifier())
    step = make_step(old, batch=12)
    for name in ("prototype", "new_to_old"):
        term = method(step)[name]
        ours, classifier = torch.autograd.grad(
            term, (step.embeddings, method.classifier.weight), allow_unused=True
        )
        assert ours.abs().sum() > 0
        assert classifier is None


def test_both_structural_terms_agree_when_the_models_are_the_same():
    classifier = make_classifier("linear")
    features = make_old().features
    labels = torch.arange(20) % 5
    old = OldSystem.from_arrays(
        features,
        labels,
        classifier_weight=classifier.weight.detach().clone(),
        classifier_bias=classifier.bias.detach().clone(),
        class_map=torch.arange(5),
    )
    method = build_method("dual_tuning", old, classifier)
    step = make_step(old)
    terms = method(dataclasses.replace(step, embeddings=step.old_features.clone()))
    torch.testing.assert_close(terms["old_to_new"], terms["new_to_old"])


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
    old = make_old(classifier=False)
    with pytest.raises(ValueError, match="needs the old classifier, because 2 classes are shared"):
        build_method("dual_tuning", old, make_classifier())
    for options in ({"new_to_old": False}, {"structure_weight": 0}):
        assert (
            build_method("dual_tuning", old, make_classifier(), **options)(make_step(old))["new_to_old"] == 0
        )


def test_a_classifier_without_class_map_is_refused():
    old = make_old(class_map=None)
    with pytest.raises(ValueError, match="needs the class map of the old classifier"):
        build_method("dual_tuning", old, make_classifier())


def test_prototypes_without_features_are_refused():
    old = OldSystem.from_arrays(prototypes=torch.eye(5, 6))
    with pytest.raises(ValueError, match="needs the old system's features, but only prototypes is there"):
        build_method("dual_tuning", old, make_classifier())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"logits": "euclid"}, "logits must be one of 'cosine', 'dot', not 'euclid'"),
        ({"o2n_rows": "some"}, "o2n_rows must be one of 'all', 'shared'"),
        ({"kappa": 0}, "kappa must be a number of at least"),
        ({"label_smoothing": 1}, "label_smoothing must be a number between 0 and 0.999"),
        ({"prototype_weight": "0.1"}, "prototype_weight must be a number of at least 0, not '0.1'"),
        ({"new_to_old": 1}, "new_to_old must be one of True, False, not 1"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_method("dual_tuning", make_old(), make_classifier(), **options)
