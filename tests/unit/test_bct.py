"""BCT's variants against slow loops, finite differences and their limits."""

import math

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
    slow_cross_entropy,
    slow_means,
    slow_old_logits,
    unit,
)

from compat_lib.losses import build_method
from compat_lib.old_system import OldSystem


def influence(old, step, width=6, **options):
    return build_method("bct", old, make_classifier(width=width), **options).double()(step)["influence"]


@pytest.mark.parametrize("width", [6, 8, 4])
@pytest.mark.parametrize("average", ["raw", "unit"])
@pytest.mark.parametrize("scale", [1.0, 16.0])
def test_prototypes(width, average, scale):
    old = make_old(classifier=False)
    method = build_method("bct", old, make_classifier(width=width), scale=scale, average=average).double()
    step = make_step(old, width, dtype=torch.float64)
    terms = method(step)
    means = slow_means(old, average)
    rows = [
        slow_cross_entropy([scale * dot(unit(p), unit(fitted(n, 6))) for p in means], y)
        for n, y in zip(step.embeddings.tolist(), step.labels.tolist(), strict=True)
    ]
    assert terms["influence"].item() == pytest.approx(sum(rows) / len(rows), abs=1e-5)
    assert check_gradient(method, step)


@pytest.mark.parametrize("width", [6, 8, 4])
@pytest.mark.parametrize("scale", [None, 4.0])
def test_classifier_counts_rows_of_shared_classes_only(width, scale):
    old = make_old(scale=scale)
    method = build_method("bct", old, make_classifier(width=width), variant="classifier").double()
    step = make_step(old, width, batch=12, dtype=torch.float64)
    rows = [
        slow_cross_entropy(slow_old_logits(old, n), old.class_map[y].item())
        for n, y in zip(step.embeddings.tolist(), step.labels.tolist(), strict=True)
        if old.class_map[y] >= 0
    ]
    assert 0 < len(rows) < 12
    assert method(step)["influence"].item() == pytest.approx(sum(rows) / len(rows), abs=1e-5)
    assert check_gradient(method, step)


def test_classifier_is_zero_without_shared_rows():
    old = make_old(class_map="none")
    step = make_step(old)
    term = influence(old, step, variant="classifier")
    assert term.item() == 0
    term.backward()
    assert step.embeddings.grad.eq(0).all()


@pytest.mark.parametrize("width", [6, 8, 4])
def test_all_rows_scores_against_the_means_as_they_are(width):
    old = make_old(classifier=False)
    step = make_step(old, width, dtype=torch.float64)
    means = slow_means(old)
    rows = [
        slow_cross_entropy([dot(p, fitted(n, 6)) for p in means], y)
        for n, y in zip(step.embeddings.tolist(), step.labels.tolist(), strict=True)
    ]
    value = influence(old, step, width, variant="all-rows").item()
    assert value == pytest.approx(sum(rows) / len(rows), rel=1e-5)


def test_lwf_takes_the_old_probabilities_as_targets():
    old = make_old()
    step = make_step(old, dtype=torch.float64)
    rows = []
    for n, o in zip(step.embeddings.tolist(), step.old_features.tolist(), strict=True):
        past = [math.exp(z) for z in slow_old_logits(old, o)]
        new = slow_old_logits(old, n)
        rows.append(sum(p / sum(past) * slow_cross_entropy(new, k) for k, p in enumerate(past)))
    assert influence(old, step, variant="lwf").item() == pytest.approx(sum(rows) / len(rows), abs=1e-5)


@pytest.mark.parametrize("variant", ["all-rows", "lwf"])
@pytest.mark.parametrize("width", [6, 8, 4])
def test_gradient_of_the_other_variants(variant, width):
    old = make_old()
    method = build_method("bct", old, make_classifier(width=width), variant=variant)
    step = make_step(old, width, batch=4, dtype=torch.float64)
    assert check_gradient(method, step)
    (gradient,) = torch.autograd.grad(method(step)["influence"], step.embeddings)
    assert gradient[:, : min(6, width)].ne(0).all()
    assert gradient[:, 6:].eq(0).all()  # what the old table does not see


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), classes=st.integers(2, 30))
def test_published_scale_cannot_fall_below_its_bound(seed, classes):
    old = make_old(seed, classes=classes, per_class=2, class_map="none")
    step = make_step(old, seed=seed)
    bound = math.log(1 + (classes - 1) * math.exp(-2))
    term = build_method("bct", old, make_classifier(classes=classes), scale=1.0)(step)["influence"]
    assert term.item() >= bound - 1e-5


def test_a_needed_class_without_prototype_is_refused():
    prototypes = torch.eye(5, 6)
    prototypes[[1, 3]] = 0
    for labels in ([0, 1, 2, 3, 4], None):
        old = OldSystem.from_arrays(labels=labels, prototypes=prototypes)
        with pytest.raises(ValueError, match="no prototype for 2 classes of the training set: 1, 3"):
            build_method("bct", old, make_classifier())
    build_method("bct", OldSystem.from_arrays(labels=[0, 2, 4], prototypes=prototypes), make_classifier())


PARTS = {
    "prototypes": {"prototypes": torch.eye(5, 6)},
    "classifier": {"classifier_weight": torch.eye(3, 6), "class_map": [0, 1, 2, -1, -1]},
}


@pytest.mark.parametrize(
    ("variant", "there", "lacks"),
    [
        ("prototypes", "prototypes", None),
        ("all-rows", "prototypes", None),
        ("classifier", "classifier", None),
        ("lwf", "classifier", "features"),
        ("prototypes", "classifier", "prototypes"),
        ("classifier", "prototypes", "classifier"),
    ],
)
def test_needs_follow_the_variant(variant, there, lacks):
    old = OldSystem.from_arrays(**PARTS[there])
    if lacks is None:
        assert build_method("bct", old, make_classifier(), variant=variant).needs == {there}
    else:
        with pytest.raises(ValueError, match=f"the old system's {lacks}, but only {there} is there"):
            build_method("bct", old, make_classifier(), variant=variant)


def test_variant_classifier_needs_the_class_map():
    old = OldSystem.from_arrays(classifier_weight=torch.eye(3, 6), num_classes=5)
    with pytest.raises(ValueError, match="needs the class map of the old classifier"):
        build_method("bct", old, make_classifier(), variant="classifier")
