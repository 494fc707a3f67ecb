"""LCE against a slow loop with plain arc cosines, finite differences and its limits."""

import dataclasses
import math

import pytest
import slow_losses as slow
import torch
from method_steps import check_gradient, make_classifier, make_clusters, make_near_step, make_old, make_step

from compat_lib.losses import build_method
from compat_lib.losses.lce import angles_between
from compat_lib.old_system import OldSystem


def slow_cones(old):
    """Axis, angle and number of kept samples of each class, one class at a time."""
    axes = [slow.unit(mean) for mean in slow.means(old, "unit")]
    angles = [
        [math.acos(min(1.0, slow.dot(axis, slow.unit(row)))) for row in slow.samples(old, y)]
        for y, axis in enumerate(axes)
    ]
    return [(axis, *slow.kept(own)) for axis, own in zip(axes, angles, strict=True)]


def slow_terms(old, classifier, embeddings, labels):
    cones = slow_cones(old)
    rows = classifier.weight.detach().double().tolist()
    outside, apart = [], []
    for n, y in zip(embeddings, labels, strict=True):
        axis, angle, kept = cones[y]
        if kept > 1:
            outside.append(max(0.0, math.acos(slow.dot(axis, slow.unit(n))) - angle))
            apart.append(1 - slow.dot(axis, slow.unit(rows[y])))
    return slow.mean(outside), slow.mean(apart)


@pytest.mark.parametrize("kind", ["linear", "cosface", "arcface"])
@pytest.mark.parametrize(("width", "per_class"), [(2, 7), (6, 2), (6, 12), (16, 5)])
def test_value_and_gradient(kind, width, per_class):
    old = make_clusters(per_class, width)
    weights = {"boundary_weight": 2.0, "alignment_weight": 3.0}
    method = build_method("lce", old, make_classifier(kind, width), **weights).double()
    step = make_near_step(old, width, 8)
    terms, n = method(step), step.embeddings.tolist()
    boundary, alignment = slow_terms(old, method.classifier, n, step.labels.tolist())
    assert boundary > 0
    assert terms["boundary"].item() == pytest.approx(boundary, abs=1e-6)
    assert terms["alignment"].item() == pytest.approx(alignment, abs=1e-6)
    assert method.weights == {"classification": 1.0, "boundary": 2.0, "alignment": 3.0}
    assert check_gradient(method, step)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gradient_is_finite_at_both_ends_of_the_arc_cosine(sign):
    axes = torch.eye(6)[:5]
    tilted = torch.stack([axes + 0.5 * axes.roll(1, 0), axes - 0.5 * axes.roll(1, 0)])  # the mean is exact
    old = OldSystem.from_arrays(tilted.flatten(0, 1), torch.arange(10) % 5)
    method = build_method("lce", old, make_classifier())
    assert torch.equal(method.old_centres, axes)
    embeddings = sign * 3 * axes
    embeddings[0] = 0
    embeddings.requires_grad_()
    step = dataclasses.replace(make_step(old, rows=torch.arange(5)), embeddings=embeddings)
    term = method(step)["boundary"]
    term.backward()
    assert term.isfinite() and embeddings.grad.isfinite().all()
    angles = angles_between(embeddings, axes)
    assert angles[0].item() == pytest.approx(math.pi / 2)
    smallest = math.acos(1 - 1e-6)
    ends = torch.full((4,), smallest if sign > 0 else math.pi - smallest)
    torch.testing.assert_close(angles[1:], ends, atol=5e-5, rtol=0)


def test_classes_with_one_kept_sample_are_left_out_of_both_means():
    full = make_old(classes=3, per_class=4, class_map=None, classifier=False)
    keep = (full.labels != 1) | (torch.arange(12) == 1)  # class 1 keeps one sample
    old = OldSystem.from_arrays(full.features[keep], full.labels[keep])
    rows = torch.arange(len(old.labels))
    step = make_step(old, rows=rows, dtype=torch.float64)
    method = build_method("lce", old, make_classifier(classes=3)).double()
    terms = method(step)
    boundary, alignment = slow_terms(old, method.classifier, step.embeddings.tolist(), old.labels.tolist())
    assert terms["boundary"].item() == pytest.approx(boundary, abs=1e-6)
    assert terms["alignment"].item() == pytest.approx(alignment, abs=1e-6)
    alone = make_step(old, rows=(old.labels == 1).nonzero()[:, 0])
    terms = method(alone)
    assert terms["boundary"].item() == terms["alignment"].item() == 0
    (terms["boundary"] + terms["alignment"]).backward()
    assert alone.embeddings.grad.eq(0).all()


def test_the_angles_do_not_depend_on_the_order_or_the_block_of_the_rows(monkeypatch):
    old = make_old(per_class=9)
    order = torch.randperm(45, generator=torch.Generator().manual_seed(3))
    shuffled = OldSystem.from_arrays(old.features[order], old.labels[order])
    plain = build_method("lce", old, make_classifier())
    monkeypatch.setattr("compat_lib.losses.advbct.ROWS_AT_ONCE", 7)
    for other in (old, shuffled):
        method = build_method("lce", other, make_classifier())
        torch.testing.assert_close(method.old_angles, plain.old_angles, atol=1e-5, rtol=0)
        assert torch.equal(method.old_known, plain.old_known)
