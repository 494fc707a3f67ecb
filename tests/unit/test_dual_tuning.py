"""Dual-Tuning's terms and variants against slow loops and finite differences."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
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
from compat_lib.losses.metric import circle_loss
from compat_lib.losses.mixing import RunningCentres
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
    assert method.weights == {"classification": 1.0, "prototype": 10.0, "old_to_new": 0.2, "new_to_old": 0.2}
    assert method.reconstruction
    published = build_method("dual_tuning", make_old(), make_classifier(), **METHODS["dual_tuning"].published)
    assert published.weights["prototype"] == 0.1


TERMS = ("prototype", "old_to_new", "new_to_old", "n2o_triplet", "centre_triplet", "triplet", "circle")
ALL = {f"{term}_weight": 0.5 for term in ("n2o_triplet", "centre_triplet", "triplet", "circle")}


def test_formulas_name_every_term_in_order():
    old = make_old()
    method = build_method("dual_tuning", old, make_classifier(), **ALL)
    assert tuple(METHODS["dual_tuning"].formulas) == ("classification", *TERMS) == tuple(method.weights)
    assert tuple(method(make_step(old))) == tuple(method.weights)


@pytest.mark.parametrize("term", TERMS)
def test_a_term_without_weight_is_not_there_and_costs_nothing(term):
    option = "structure_weight" if term in ("old_to_new", "new_to_old") else f"{term}_weight"
    gone = {"old_to_new", "new_to_old"} if option == "structure_weight" else {term}
    old = make_old()
    method = build_method("dual_tuning", old, make_classifier(), **ALL | {option: 0})
    for one in gone:
        setattr(method, f"_{one}", None)  # calling it would fail
    terms = method(make_step(old))
    assert set(terms) == set(method.weights) == {"classification", *TERMS} - gone


@pytest.mark.parametrize(("factor", "expected"), [(1, 0.4), (0.25, 0.1), (0, None)])
def test_new_to_old_weighs_as_much_as_told_beside_old_to_new(factor, expected):
    options = {"structure_weight": 0.4, "new_to_old_factor": factor}
    weights = build_method("dual_tuning", make_old(), make_classifier(), **options).weights
    assert (weights["old_to_new"], weights.get("new_to_old")) == (0.4, expected)


def test_a_factor_of_zero_needs_no_old_classifier():
    old = make_old(classifier=False)
    terms = build_method("dual_tuning", old, make_classifier(), new_to_old_factor=0)(make_step(old))
    assert list(terms) == ["classification", "prototype", "old_to_new"]


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


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    kind=st.sampled_from(["linear", "cosface", "arcface"]),
    batch=st.integers(1, 12),
    options=st.fixed_dictionaries(
        {
            "o2n_rows": st.sampled_from(["all", "shared"]),
            "divisor": st.sampled_from(["rows", "nonzero"]),
            "average": st.sampled_from(["raw", "unit"]),
        },
        optional={"label_smoothing": st.floats(0, 0.9)},
    ),
)
def test_both_structural_terms_agree_when_the_models_are_the_same(seed, kind, batch, options):
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
    method = build_method("dual_tuning", old, classifier, **options)
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
        for o, y in zip(step.old_features.double().tolist(), step.labels.tolist(), strict=True)
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
    old = make_old(classifier=False)
    with pytest.raises(ValueError, match="needs the old classifier, because 2 classes are shared"):
        build_method("dual_tuning", old, make_classifier())
    without = build_method("dual_tuning", old, make_classifier(), new_to_old=False)(make_step(old))
    assert without["new_to_old"] == 0
    without = build_method("dual_tuning", old, make_classifier(), structure_weight=0)(make_step(old))
    assert list(without) == ["classification", "prototype"]


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
        ({"structure_weight": -1}, "structure_weight must be a number of at least 0, not -1"),
        ({"new_to_old_factor": -1}, "new_to_old_factor must be a number of at least 0, not -1"),
        ({"n2o_triplet_weight": math.nan}, "n2o_triplet_weight must be a number of at least 0, not nan"),
        ({"centre_triplet_weight": -1}, "centre_triplet_weight must be a number of at least 0"),
        ({"triplet_weight": True}, "triplet_weight must be a number of at least 0, not True"),
        ({"circle_weight": "1"}, "circle_weight must be a number of at least 0, not '1'"),
        ({"adaptive_smoothing": 1}, "adaptive_smoothing must be a number between 0 and 0.999, not 1"),
        ({"label_smoothing": 0.1, "adaptive_smoothing": 0.2}, "but a row has one epsilon. Set one of them"),
        ({"divisor": "batch"}, "divisor must be one of 'rows', 'nonzero', not 'batch'"),
        ({"prototype_features": "bn"}, "prototype_features must be one of 'embeddings', 'pooled', not 'bn'"),
        ({"n2o_features": "bn"}, "n2o_features must be one of"),
        ({"metric_features": "bn"}, "metric_features must be one of"),
        ({"new_centre_share": 1.1}, "new_centre_share must be a number between 0 and 1, not 1.1"),
        ({"eta": -0.1}, "eta must be a number between 0 and 1"),
        ({"queue": 0.5}, "queue must be a whole number of at least 0, not 0.5"),
        ({"queue": -1}, "queue must be a number of at least 0, not -1"),
        ({"n2o_two_way": 1}, "n2o_two_way must be one of True, False, not 1"),
        ({"triplet_margin": -0.3}, "triplet_margin must be a number of at least 0, not -0.3"),
        ({"mining": "easy"}, "mining must be one of 'hard', 'soft', not 'easy'"),
        ({"circle_margin": 2}, "circle_margin must be a number between 0 and 1, not 2"),
        ({"circle_gamma": 0}, "circle_gamma must be a number of at least 1e-06, not 0"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_method("dual_tuning", make_old(), make_classifier(), **options)


# -- optional terms ------------------------------------------------------------------------------


def distance(a, b):
    return math.sqrt(max(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)), 1e-12))


def slow_triplet(anchors, labels, candidates, candidate_labels, margin, mining):
    """Mean over anchors, with the hardest pairs or with means that the softmax of the distance weighs."""
    losses = []
    for anchor, label in zip(anchors, labels, strict=True):
        pairs = [(distance(anchor, one), y) for one, y in zip(candidates, candidate_labels, strict=True)]
        near = [d for d, y in pairs if y == label]
        far = [d for d, y in pairs if y != label]
        if mining == "hard":
            gap = max(near) - min(far)
        else:
            gap = sum(math.exp(d) * d for d in near) / sum(math.exp(d) for d in near)
            gap -= sum(math.exp(-d) * d for d in far) / sum(math.exp(-d) for d in far)
        losses.append(max(0.0, gap + margin) if margin > 0 else math.log(1 + math.exp(gap)))
    return mean(losses)


def features_of(step, kind):
    return (step.pooled if kind == "pooled" else step.embeddings).tolist()


@pytest.mark.parametrize("width", [6, 8, 4])
@pytest.mark.parametrize("two_way", [True, False])
@pytest.mark.parametrize(
    ("mining", "margin", "features"),
    [
        ("hard", 0.3, "embeddings"),
        ("soft", 0.3, "pooled"),
        ("hard", 0.0, "pooled"),
        ("soft", 9.0, "embeddings"),
    ],
)
def test_n2o_triplet_equals_the_slow_loop(width, two_way, mining, margin, features):
    old = make_old()
    method = build_method(
        "dual_tuning",
        old,
        make_classifier(width=width),
        n2o_triplet_weight=1,
        n2o_two_way=two_way,
        n2o_features=features,
        mining=mining,
        triplet_margin=margin,
    ).double()
    assert method.wants_pooled == (features == "pooled")
    step = make_step(old, width, batch=12, dtype=torch.float64)
    shared = min(6, width)
    new = [row[:shared] for row in features_of(step, features)]
    past = [row[:shared] for row in step.old_features.double().tolist()]
    labels = step.labels.tolist()
    ways = [slow_triplet(new, labels, past, labels, margin, mining)]
    if two_way:
        ways.append(slow_triplet(past, labels, new, labels, margin, mining))
    assert mean(ways) > 0
    assert method(step)["n2o_triplet"].item() == pytest.approx(mean(ways), rel=1e-6)


@pytest.mark.parametrize("width", [6, 8, 4])
@pytest.mark.parametrize("features", ["embeddings", "pooled"])
@pytest.mark.parametrize(("margin", "mining"), [(0.3, "hard"), (0.0, "soft")])
def test_centre_triplet_equals_the_slow_loop(width, features, margin, mining):
    old = make_old()
    method = build_method(
        "dual_tuning",
        old,
        make_classifier(width=width),
        centre_triplet_weight=1,
        prototype_features=features,
        triplet_margin=margin,
        mining=mining,  # does not matter here: negatives are always weighted
    ).double()
    step = make_step(old, width, batch=12, dtype=torch.float64)
    shared = min(6, width)
    new = [row[:shared] for row in features_of(step, features)]
    centres = [row[:shared] for row in slow_means(old)]
    expected = slow_triplet(new, step.labels.tolist(), centres, range(5), margin, "soft")
    assert method(step)["centre_triplet"].item() == pytest.approx(expected, rel=1e-6)


def test_a_class_without_images_is_no_negative_of_the_centre_triplet():
    features = make_old().features
    labels = torch.arange(20) % 4  # class 4 has no image, its centre is a row of zeros
    old = OldSystem.from_arrays(features, labels, num_classes=5)
    fewer = OldSystem.from_arrays(features, labels)
    values = [
        build_method("dual_tuning", one, make_classifier(classes=count), centre_triplet_weight=1)(
            make_step(one)
        )["centre_triplet"]
        for one, count in ((old, 5), (fewer, 4))
    ]
    torch.testing.assert_close(*values)


@pytest.mark.parametrize("features", ["pooled", "embeddings"])
@pytest.mark.parametrize("mining", ["hard", "soft"])
def test_the_tasks_triplet_and_circle_see_the_new_features_alone(features, mining):
    old = make_old()
    method = build_method(
        "dual_tuning",
        old,
        make_classifier(),
        triplet_weight=1,
        circle_weight=2,
        metric_features=features,
        mining=mining,
        circle_margin=0.4,
        circle_gamma=16,
    ).double()
    assert method.wants_pooled == (features == "pooled")
    step = make_step(old, batch=12, dtype=torch.float64)
    terms, labels = method(step), step.labels.tolist()
    new = features_of(step, features)
    assert terms["triplet"].item() == pytest.approx(slow_triplet(new, labels, new, labels, 0.3, mining))
    expected = circle_loss(torch.tensor(new, dtype=torch.float64), step.labels, margin=0.4, gamma=16)
    assert terms["circle"].item() == pytest.approx(expected.item())
    assert list(method.weights.items())[-2:] == [("triplet", 1.0), ("circle", 2.0)]
    source, other = (step.pooled, step.embeddings)[:: 1 if features == "pooled" else -1]
    for term in ("triplet", "circle"):
        ours, theirs = torch.autograd.grad(terms[term], (source, other), retain_graph=True, allow_unused=True)
        assert ours.abs().sum() > 0 and theirs is None


@pytest.mark.parametrize(("width", "mining"), [(6, "hard"), (8, "soft"), (4, "hard"), (4, "soft")])
def test_gradient_of_the_triplets_equals_finite_differences(width, mining):
    old = make_old()
    method = build_method(
        "dual_tuning",
        old,
        make_classifier(width=width),
        structure_weight=0,
        prototype_features="pooled",
        n2o_triplet_weight=1,
        centre_triplet_weight=1,
        triplet_weight=1,
        metric_features="embeddings",
        triplet_margin=20,
        mining=mining,
    ).double()
    step = make_step(old, width, batch=4, dtype=torch.float64)

    def total(embeddings, pooled):
        terms = method(dataclasses.replace(step, embeddings=embeddings, pooled=pooled))
        return sum(terms[term] for term in ("prototype", "n2o_triplet", "centre_triplet", "triplet"))

    assert torch.autograd.gradcheck(total, (step.embeddings, step.pooled))


def test_optional_terms_leave_the_old_side_and_the_classifier_alone():
    old = make_old()
    method = build_method("dual_tuning", old, make_classifier(), **ALL, new_centre_share=0.5)
    step = make_step(old, batch=12)
    terms = method(step)
    for term in ("prototype", "n2o_triplet", "centre_triplet", "triplet", "circle"):
        (gradient,) = torch.autograd.grad(
            terms[term], method.classifier.weight, retain_graph=True, allow_unused=True
        )
        assert gradient is None
    sum(terms.values()).backward()
    assert step.old_features.grad is None and old.features.grad is None
    assert all(not buffer.requires_grad for buffer in method.buffers())


def test_a_batch_of_one_class_costs_no_triplet_and_no_circle():
    old = make_old()
    method = build_method("dual_tuning", old, make_classifier(), **ALL)
    step = make_step(old, rows=torch.arange(0, 20, 5))
    assert step.labels.unique().tolist() == [0]
    terms = method(step)
    assert terms["n2o_triplet"] == terms["triplet"] == terms["circle"] == 0
    sum(terms.values()).backward()
    assert step.embeddings.grad.isfinite().all() and step.pooled.grad.isfinite().all()


# -- variants of the three terms -----------------------------------------------------------------


@pytest.mark.parametrize("width", [6, 8, 4])
@pytest.mark.parametrize("logits", ["cosine", "dot"])
def test_the_prototype_term_on_pooled_features(width, logits):
    old = make_old()
    method = build_method(
        "dual_tuning", old, make_classifier(width=width), prototype_features="pooled", logits=logits
    ).double()
    assert method.wants_pooled
    step = make_step(old, width, batch=12, dtype=torch.float64)
    losses = []
    for n, y in zip(step.pooled.tolist(), step.labels.tolist(), strict=True):
        n = fitted(n, 6)
        scores = [16.0 * dot(unit(p), unit(n)) if logits == "cosine" else dot(p, n) for p in slow_means(old)]
        losses.append(slow_cross_entropy(scores, y))
    term = method(step)["prototype"]
    assert term.item() == pytest.approx(mean(losses), rel=1e-5)
    ours, theirs = torch.autograd.grad(term, (step.pooled, step.embeddings), allow_unused=True)
    assert ours.abs().sum() > 0 and theirs is None


@pytest.mark.parametrize("average", ["raw", "unit"])
def test_class_means_of_raw_and_of_unit_features(average):
    old = make_old()
    options = {"average": average, "logits": "dot", "centre_triplet_weight": 1}
    method = build_method("dual_tuning", old, make_classifier(), **options).double()
    step = make_step(old, dtype=torch.float64)
    means, labels = slow_means(old, average), step.labels.tolist()
    rows = [
        slow_cross_entropy([dot(p, n) for p in means], y)
        for n, y in zip(step.embeddings.tolist(), labels, strict=True)
    ]
    terms = method(step)
    assert terms["prototype"].item() == pytest.approx(mean(rows), rel=1e-5)
    expected = slow_triplet(step.embeddings.tolist(), labels, means, range(5), 0.3, "soft")
    assert terms["centre_triplet"].item() == pytest.approx(expected, rel=1e-5)


def test_embeddings_are_enough_by_default():
    old = make_old()
    method = build_method("dual_tuning", old, make_classifier())
    assert not method.wants_pooled
    method(dataclasses.replace(make_step(old), pooled=None))
    method = build_method("dual_tuning", old, make_classifier(), prototype_features="pooled")
    with pytest.raises(ValueError, match="dual_tuning needs the embeddings before the batch normalisation"):
        method(dataclasses.replace(make_step(old), pooled=None))


@pytest.mark.parametrize("divisor", ["rows", "nonzero"])
def test_adaptive_smoothing_in_all_three_terms(divisor):
    old = make_old()
    method = build_method(
        "dual_tuning", old, make_classifier(), adaptive_smoothing=0.2, divisor=divisor
    ).double()
    step = make_step(old, batch=12, dtype=torch.float64)
    prototype, old_to_new, new_to_old = [], [], []

    def row(scores, y):
        share = math.exp(scores[y]) / sum(math.exp(z) for z in scores)
        return slow_cross_entropy(scores, y, 0.2 * share)

    for n, o, y in zip(
        step.embeddings.tolist(), step.old_features.double().tolist(), step.labels.tolist(), strict=True
    ):
        prototype.append(row([16.0 * dot(unit(p), unit(n)) for p in slow_means(old)], y))
        old_to_new.append(row(slow_logits(method.classifier, o, y), y))
        if old.class_map[y] >= 0:
            new_to_old.append(row(slow_old_logits(old, n), old.class_map[y].item()))
    terms = method(step)
    assert terms["prototype"].item() == pytest.approx(mean(prototype), rel=1e-5)
    assert terms["old_to_new"].item() == pytest.approx(mean(old_to_new), rel=1e-5)
    assert terms["new_to_old"].item() == pytest.approx(mean(new_to_old), rel=1e-5)


def test_rows_that_cost_nothing_leave_the_published_divisor():
    old = make_old(width=64)
    values, certain = {}, 0
    for divisor in ("rows", "nonzero"):
        method = build_method("dual_tuning", old, make_classifier(width=64), logits="dot", divisor=divisor)
        step = make_step(old, 64, batch=12)
        new = torch.cat([old.prototypes()[step.labels[:6]], step.embeddings.detach()[6:]])
        values[divisor] = method(dataclasses.replace(step, embeddings=new))["prototype"].item()
        rows = F.cross_entropy(new @ old.prototypes().T, step.labels, reduction="none")
        certain = int((rows == 0).sum())
    assert 0 < certain < 12
    assert values["nonzero"] == pytest.approx(values["rows"] * 12 / (12 - certain))


@pytest.mark.parametrize("logits", ["cosine", "dot"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_class_without_images_is_no_candidate_of_the_prototype_term(logits, share):
    full = make_old(classes=4, classifier=False, class_map=None)
    labels = torch.tensor([0, 1, 3, 4])[full.labels]  # class 2 of five has no image
    gap = OldSystem.from_arrays(full.features, labels, num_classes=5)
    step = make_step(full)
    expected = build_method("dual_tuning", full, make_classifier(classes=4), logits=logits)(step)
    method = build_method("dual_tuning", gap, make_classifier(), logits=logits, new_centre_share=share)
    value = method(dataclasses.replace(step, labels=labels[step.rows]))["prototype"]
    torch.testing.assert_close(value, expected["prototype"])


# -- MixCenter -----------------------------------------------------------------------------------


class SlowCentres:
    """Running centres and their queue, row by row with Python lists."""

    def __init__(self, start, eta, size):
        self.running, self.eta, self.size, self.queue = [list(row) for row in start], eta, size, []

    def update(self, features, labels):
        batch = list(zip(features, labels, strict=True))
        self.queue = (self.queue + batch)[-self.size :] if self.size else batch
        for label in set(labels):
            mine = [f for f, y in self.queue if y == label]
            for k in range(len(self.running[label]) if mine else 0):
                recent = sum(f[k] for f in mine) / len(mine)
                self.running[label][k] = self.eta * self.running[label][k] + (1 - self.eta) * recent


@pytest.mark.parametrize("size", [0, 3, 8, 20, 4096])
@pytest.mark.parametrize("eta", [0.7, 0.0, 1.0])
def test_running_centres_equal_the_slow_loop(size, eta):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    ours, slow = RunningCentres(start, eta=eta, queue=size), SlowCentres(start.tolist(), eta, size)
    for _ in range(7):
        features = torch.randn(5, 3, generator=generator, dtype=torch.float64)
        labels = torch.randint(0, 5, (5,), generator=generator)  # class 5 never comes
        ours.update(features, labels)
        slow.update(features.tolist(), labels.tolist())
        torch.testing.assert_close(ours.running, torch.tensor(slow.running, dtype=torch.float64))
    assert torch.equal(ours.running[5], start[5])
    assert torch.equal(ours.running, start) == (eta == 1)


def test_the_drawn_share_is_exact_uniform_and_follows_the_generator():
    centres = RunningCentres(torch.zeros(10, 2), eta=0.7, queue=4)
    fixed, generator = torch.ones(10, 2), torch.Generator().manual_seed(0)
    times = torch.zeros(10)
    for _ in range(2000):
        drawn = centres.mixed(fixed, 0.3, generator)[:, 0] == 0
        assert int(drawn.sum()) == 3
        times += drawn
    assert ((times - 600).abs() < 5 * math.sqrt(2000 * 0.3 * 0.7)).all()
    assert (
        centres.mixed(fixed, 0.0, generator).eq(1).all() and centres.mixed(fixed, 1.0, generator).eq(0).all()
    )
    many = RunningCentres(torch.zeros(100, 2), eta=0.7, queue=4).mixed(torch.ones(100, 2), 0.29, generator)
    assert int(many[:, 0].eq(0).sum()) == 29  # 0.29 * 100 is 28.999999999999996
    one, two, other = (centres.mixed(fixed, 0.5, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, other)


def slow_mixed_term(method, old, step, centres, logits):
    """The prototype term with the drawn classes' running centres; the draw is repeated from the seed."""
    generator = torch.Generator().manual_seed(7)
    drawn = torch.randperm(5, generator=generator)[:2].tolist()  # floor(0.5 x 5)
    table = [centres[c] if c in drawn else p for c, p in enumerate(slow_means(old))]
    losses = []
    for n, y in zip(step.embeddings.tolist(), step.labels.tolist(), strict=True):
        n = fitted(n, 6)
        scores = [16.0 * dot(unit(p), unit(n)) if logits == "cosine" else dot(p, n) for p in table]
        losses.append(slow_cross_entropy(scores, y))
    return mean(losses)


def seeded(step):
    return dataclasses.replace(step, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("width", [6, 8, 4])
@pytest.mark.parametrize("logits", ["cosine", "dot"])
@pytest.mark.parametrize("queue", [0, 10, 4096])
def test_mixed_centres_equal_the_slow_loop_over_several_steps(width, logits, queue):
    old = make_old()
    method = build_method(
        "dual_tuning", old, make_classifier(width=width), new_centre_share=0.5, queue=queue, logits=logits
    ).double()
    slow = SlowCentres(slow_means(old), 0.7, queue)
    for seed in range(3):
        step = seeded(make_step(old, width, seed=seed, dtype=torch.float64))
        expected = slow_mixed_term(method, old, step, slow.running, logits)
        assert method(step)["prototype"].item() == pytest.approx(expected, rel=1e-5)
        slow.update([fitted(row, 6) for row in step.embeddings.tolist()], step.labels.tolist())
    torch.testing.assert_close(
        method.centres.running, torch.tensor(slow.running, dtype=torch.float64), rtol=1e-5, atol=1e-6
    )


def test_mixed_centres_stand_still_outside_the_training_and_have_the_right_gradient():
    old = make_old()
    method = build_method("dual_tuning", old, make_classifier(), new_centre_share=0.5)
    method(seeded(make_step(old)))
    before = method.centres.running.clone()
    assert not torch.equal(before, old.prototypes())
    method.eval().double()
    step = make_step(old, batch=4, seed=3, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda embeddings: method(seeded(dataclasses.replace(step, embeddings=embeddings)))["prototype"],
        (step.embeddings,),
    )
    assert torch.equal(method.centres.running, before.double())


def test_the_share_of_new_centres_changes_nothing_at_first_and_a_resumed_run_goes_on_alike():
    old = make_old()
    options = {"new_centre_share": 0.5, "queue": 20}
    plain = build_method("dual_tuning", old, make_classifier())
    method = build_method("dual_tuning", old, make_classifier(), **options)
    first = make_step(old)
    state = first.generator.get_state()
    assert torch.equal(plain(first)["prototype"], method(seeded(first))["prototype"])
    assert torch.equal(first.generator.get_state(), state)  # without a share nothing is drawn
    resumed = build_method("dual_tuning", old, make_classifier(), **options)
    resumed.load_state_dict(method.state_dict())
    for seed in (3, 4):
        step = make_step(old, seed=seed)
        one, two = method(seeded(step)), resumed(seeded(step))
        assert torch.equal(one["prototype"], two["prototype"])
    kept = resumed.state_dict()
    assert all(torch.equal(value, kept[key]) for key, value in method.state_dict().items())
    assert torch.equal(method.centres.queue_labels, resumed.centres.queue_labels)
    fresh = build_method("dual_tuning", old, make_classifier(), **options)
    assert not torch.equal(fresh(seeded(step))["prototype"], one["prototype"])
    assert not any(word in key for key in method.state_dict() for word in ("old", "prototype", "credible"))
    assert set(plain.state_dict()) == {"classifier.weight"}


def test_running_centres_of_unit_means_follow_unit_features():
    old = make_old()
    method = build_method(
        "dual_tuning", old, make_classifier(), average="unit", new_centre_share=0.5, eta=0.0, queue=0
    )
    step = seeded(make_step(old, rows=torch.arange(5)))
    method(step)
    torch.testing.assert_close(method.centres.running, F.normalize(step.embeddings.detach(), dim=1))


# -- comparison ----------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [6, 8, 4])
def test_new_features_take_the_old_width_in_the_cross_test(width):
    method = build_method("dual_tuning", make_old(), make_classifier(width=width))
    new, past = torch.randn(3, width), torch.randn(4, 6)
    queries, gallery = method.comparable(new, past)
    assert queries.tolist() == [pytest.approx(fitted(row, 6)) for row in new.tolist()]
    assert gallery is past
