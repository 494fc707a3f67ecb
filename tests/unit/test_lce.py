"""LCE against a slow loop with plain arc cosines, finite differences and its limits."""

import dataclasses
import math

import pytest
import slow_losses as slow
import torch
from method_steps import check_gradient, make_classifier, make_clusters, make_near_step, make_step

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
def test_value_and_gradient(monkeypatch, kind, width, per_class):
    monkeypatch.setattr("compat_lib.losses.advbct.ROWS_AT_ONCE", 7)
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
    lone = make_step(old, width, rows=torch.tensor([0]), dtype=torch.float64)  # one sample has no cone
    terms = method(lone)
    assert terms["boundary"].item() == terms["alignment"].item() == 0
    (terms["boundary"] + terms["alignment"]).backward()
    assert lone.embeddings.grad.eq(0).all()


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
