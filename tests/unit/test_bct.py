"""BCT's variants against slow loops, finite differences, and what each needs."""

import pytest
import slow_losses as slow
import torch
from method_steps import check_gradient, make_classifier, make_old, make_step

from compat_lib.losses import build_method
from compat_lib.old_system import OldSystem

VARIANTS = [
    *(("prototypes", None, {"scale": s, "average": a}) for s in (1.0, 16.0) for a in ("raw", "unit")),
    *(("classifier", scale, {}) for scale in (None, 4.0)),
]


def slow_influence(old, step, variant, scale=1.0, average="raw"):
    means, losses = slow.means(old, average), []
    for n, _, y in slow.rows_of(step):
        if variant == "prototypes":
            losses.append(slow.cross_entropy(slow.cosines(means, slow.fitted(n, 6), scale), y))
        elif old.class_map[y] >= 0:  # rows of shared classes only
            losses.append(slow.cross_entropy(slow.old_logits(old, n), old.class_map[y].item()))
    assert losses and (len(losses) < len(step.labels)) == (variant == "classifier")
    return slow.mean(losses)


@pytest.mark.parametrize("width", [6, 8, 4])
@pytest.mark.parametrize(("variant", "old_scale", "options"), VARIANTS)
def test_value_and_gradient(variant, old_scale, options, width):
    old = make_old(scale=old_scale)
    method = build_method("bct", old, make_classifier(width=width), variant=variant, **options).double()
    step = make_step(old, width, dtype=torch.float64)
    term = method(step)["influence"]
    assert term.item() == pytest.approx(slow_influence(old, step, variant, **options), rel=1e-5, abs=1e-5)
    assert check_gradient(method, step)
    (gradient,) = torch.autograd.grad(term, step.embeddings)
    assert gradient[:, 6:].eq(0).all()  # what the old table does not see


def test_classifier_is_zero_without_shared_rows():
    old = make_old(class_map="none")
    step = make_step(old)
    term = build_method("bct", old, make_classifier(), variant="classifier")(step)["influence"]
    assert term.item() == 0
    term.backward()
    assert step.embeddings.grad.eq(0).all()


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


@pytest.mark.parametrize(("variant", "other"), [tuple(PARTS), tuple(PARTS)[::-1]])
def test_needs_follow_the_variant(variant, other):
    old, lacking = (OldSystem.from_arrays(**PARTS[there]) for there in (variant, other))
    assert build_method("bct", old, make_classifier(), variant=variant).needs == {variant}
    with pytest.raises(ValueError, match=f"the old system's {variant}, but only {other} is there"):
        build_method("bct", lacking, make_classifier(), variant=variant)


def test_variant_classifier_needs_the_class_map():
    old = OldSystem.from_arrays(classifier_weight=torch.eye(3, 6), num_classes=5)
    with pytest.raises(ValueError, match="needs the class map of the old classifier"):
        build_method("bct", old, make_classifier(), variant="classifier")
