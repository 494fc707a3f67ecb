"""Dual-Tuning's terms and variants against slow loops and finite differences."""

import pytest
import slow_losses as slow
import torch
from method_steps import check_gradient, make_classifier, make_old, make_step

from compat_lib.losses import METHODS, build_method


@pytest.mark.parametrize("kind", ["linear", "cosface", "arcface"])
@pytest.mark.parametrize("width", [6, 8, 4])
@pytest.mark.parametrize("logits", ["cosine", "dot"])
def test_every_term_equals_the_slow_loop(kind, width, logits):
    old = make_old()
    method = build_method("dual_tuning", old, make_classifier(kind, width), logits=logits).double()
    method.classifier.ramp = 0.5  # both sides meet half of the margin
    step = make_step(old, width, batch=12, dtype=torch.float64, progress=0.25)
    margin = 0.5 * method.classifier.margin
    means, terms = slow.means(old), method(step)
    expected = {name: [] for name in ("classification", "prototype", "old_to_new", "new_to_old")}
    for n, o, y in slow.rows_of(step):
        own, shared = slow.fitted(n, 6), old.class_map[y].item()
        scores = slow.cosines(means, own, 16.0) if logits == "cosine" else [slow.dot(p, own) for p in means]
        past = slow.logits(method.classifier, slow.fitted(o, width), y, margin)
        expected["classification"].append(slow.cross_entropy(slow.logits(method.classifier, n, y, margin), y))
        expected["prototype"].append(slow.cross_entropy(scores, y))
        expected["old_to_new"].append(slow.cross_entropy(past, y))
        if shared >= 0:
            expected["new_to_old"].append(slow.cross_entropy(slow.old_logits(old, n), shared))
    assert 0 < len(expected["new_to_old"]) < 12
    means = {name: slow.mean(losses) for name, losses in expected.items()}
    assert list(terms) == list(means)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(means, rel=1e-5, abs=1e-5)
    if kind == "arcface" and width == 6:
        assert check_gradient(method, make_step(old, batch=4, dtype=torch.float64))


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({}, {"prototype": 10.0, "old_to_new": 0.2, "new_to_old": 0.2}),
        (METHODS["dual_tuning"].published, {"prototype": 0.1, "old_to_new": 0.2, "new_to_old": 0.2}),
        ({"prototype_weight": 0}, {"old_to_new": 0.2, "new_to_old": 0.2}),
        ({"structure_weight": 0}, {"prototype": 10.0}),
        ({"new_to_old_factor": 0}, {"prototype": 10.0, "old_to_new": 0.2}),
        ({"structure_weight": 4, "new_to_old_factor": 0}, {"prototype": 10.0, "old_to_new": 4}),
        ({"prototype_weight": 0, "new_to_old_factor": 5.0}, {"old_to_new": 0.2, "new_to_old": 1.0}),
    ],
)
def test_a_term_has_its_weight_and_without_one_it_is_not_there(options, weights):
    old = make_old()
    method = build_method("dual_tuning", old, make_classifier(), **options)
    assert method.weights == {"classification": 1.0} | weights
    assert list(method(make_step(old))) == list(method.weights)


@pytest.mark.parametrize("with_map", [True, False])
def test_features_alone_are_enough_when_no_class_is_shared(with_map):
    old = make_old(classifier=False, class_map="none" if with_map else None)
    step = make_step(old)
    terms = build_method("dual_tuning", old, make_classifier())(step)
    assert terms["new_to_old"].item() == 0
    assert terms["old_to_new"].item() > 0
    sum(terms.values()).backward()
    assert step.embeddings.grad.isfinite().all()


def test_shared_classes_without_the_old_classifier_are_refused_unless_switched_off():
    with pytest.raises(ValueError, match="needs the class map of the old classifier"):
        build_method("dual_tuning", make_old(class_map=None), make_classifier())
    old = make_old(classifier=False)
    with pytest.raises(ValueError, match="needs the old classifier, because 2 classes are shared"):
        build_method("dual_tuning", old, make_classifier())
    for off in ("new_to_old_factor", "structure_weight"):
        terms = build_method("dual_tuning", old, make_classifier(), **{off: 0})(make_step(old))
        assert "new_to_old" not in terms and "prototype" in terms
