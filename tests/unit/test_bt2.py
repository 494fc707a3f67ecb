"""BT2 against slow loops over one row at a time, numpy's inverse, finite differences and its invariants."""

import dataclasses
import math

import numpy as np
import pytest
import slow_losses as slow
import torch
from method_steps import check_gradient, make_classifier, make_old, make_step

from compat_lib.losses import build_method
from compat_lib.losses.bt2 import Rotation
from compat_lib.old_system import OldSystem


def build(old_width=6, width=6, kind="arcface", turned=True, **options):
    old = make_old(width=old_width, oracle_width=width)
    method = build_method("bt2", old, make_classifier(kind, width), **options)
    if turned:  # away from the identity
        for rotation in (method.head.inner, method.head.outer):
            torch.nn.init.normal_(rotation.angles)
    return old, method


def slow_rotation(rotation):
    """((I - A/4)^-1 (I + A/4))^2 with the entries written one by one."""
    d, angles = rotation.width, iter(rotation.angles.tolist())
    quarter = np.zeros((d, d))
    for i in range(d):
        for j in range(i + 1, d):
            quarter[i, j] = next(angles) / 4
            quarter[j, i] = -quarter[i, j]
    root = np.linalg.inv(np.eye(d) - quarter) @ (np.eye(d) + quarter)
    return (root @ root).tolist()


def slow_stored(head, outputs):
    """New part and stored features of one row."""
    new = slow.unit(outputs[: head.new_width])
    rectified = [max(0.0, value) for value in outputs]
    extra = slow.unit(slow.linear(head.project.weight, head.project.bias, rectified))
    inner, outer = slow_rotation(head.inner), slow_rotation(head.outer)
    basis = extra + [slow.dot(row, [head.stretch * value for value in new]) for row in inner]
    return new, [slow.dot(row, basis[: head.width]) for row in outer] + basis[head.width :]


@pytest.mark.parametrize("kind", ["linear", "cosface", "arcface"])
@pytest.mark.parametrize(
    ("old_width", "width", "extra", "stretch", "scale"),
    [(6, 6, 2, 2.0, 16), (4, 6, 3, 2.0, 1), (7, 5, 2, 0.5, 3), (5, 3, 9, 2.0, 16), (2, 6, 1, 2.0, 1)],
)
def test_value_and_gradient(old_width, width, extra, stretch, scale, kind):
    old, method = build(old_width, width, kind, extra=extra, stretch=stretch, scale=scale)
    method.double()
    step = make_step(old, old_width + width, batch=5, dtype=torch.float64)
    terms, labels = method(step), step.labels.tolist()
    parts = [slow_stored(method.head, outputs) for outputs in step.embeddings.tolist()]
    new, backward = [f for f, _ in parts], [slow.unit(stored[:old_width]) for _, stored in parts]
    means = slow.means(old, "unit")
    logits = [[scale * slow.dot(p, b) for p in means] for b in backward]
    likeness = {
        name: slow.mean([slow.dot(own, slow.unit(o)) for own, o in zip(side, given.tolist(), strict=True)])
        for name, side, given in (("old", backward, step.old_features), ("oracle", new, step.oracle_features))
    }
    expected = {
        "classification": slow.classification(method.classifier, new, labels),
        "influence": slow.mean([slow.cross_entropy(row, y) for row, y in zip(logits, labels, strict=True)]),
        "old_similarity": 1 - likeness["old"],
        "oracle_similarity": 1 - likeness["oracle"],
    }
    assert list(terms) == list(expected)
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, abs=1e-5), name
    stored = method.head(step.embeddings)
    torch.testing.assert_close(stored, torch.tensor([s for _, s in parts], dtype=torch.float64))
    assert stored.shape[1] == width + min(extra, old_width)
    query, gallery = method.comparable(stored, old.features)
    assert torch.equal(query, stored[:, :old_width]) and gallery is old.features
    assert list(method.weights.values()) == [1.0, 10.0, 5.0, 1.0]
    if kind == "arcface" and old_width == 4:
        assert check_gradient(method, step)


@pytest.mark.parametrize("seed", [0, 1, None])
def test_training_finds_a_hidden_rotation(seed):
    generator = torch.Generator().manual_seed(seed or 0)
    hidden = torch.linalg.qr(torch.randn(8, 8, generator=generator))[0]
    hidden[0] *= torch.linalg.det(hidden).sign()
    if seed is None:  # half a turn in four planes at once, with a hint of where to
        hidden = -torch.linalg.matrix_exp(0.2 * (hidden - hidden.T))
    rows = torch.nn.functional.normalize(torch.randn(64, 8, generator=generator))
    rotation = Rotation(8)
    assert rotation.angles.ndim == 1  # the training loop decays matrices only, which would hold it back
    optimiser = torch.optim.SGD([rotation.angles], lr=0.1, momentum=0.9, nesterov=True)
    for _ in range(500):
        optimiser.zero_grad()
        (1 - (rotation(rows) * (rows @ hidden.T)).sum(dim=1).mean()).backward()
        optimiser.step()
    torch.testing.assert_close(rotation.matrix().detach(), hidden, atol=0.05, rtol=0)


def test_what_each_term_moves():
    old, method = build(extra=2)
    step = make_step(old, 12)
    moved = {"classification": (True, False, False, True), "oracle_similarity": (False, False, False, True)}
    moved |= dict.fromkeys(("influence", "old_similarity"), (False, True, True, True))
    head = method.head
    watched = (method.classifier.weight, head.inner.angles, head.outer.angles, step.embeddings)
    for name, term in method(step).items():
        gradients = torch.autograd.grad(term, watched, allow_unused=True, retain_graph=True)
        assert tuple(g is not None and bool(g.ne(0).any()) for g in gradients) == moved[name], name


def test_a_class_without_samples_is_no_candidate():
    full = make_old(classes=4, class_map=None, classifier=False)
    labels = torch.tensor([0, 1, 3, 4])[full.labels]
    old = OldSystem.from_arrays(full.features, labels, num_classes=5).with_oracle(full.oracle_features)
    method, step = build_method("bt2", old, make_classifier()), make_step(full, 12)
    sum(method(dataclasses.replace(step, labels=labels[step.rows])).values()).backward()
    assert step.embeddings.grad.isfinite().all()
    assert method.old_classifier(torch.ones(1, 6))[0, 2] == -math.inf


def test_widths_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"at most 4 \+ 2 .*not 8. Raise .* extra to at least 4"):
        build(8, 4, extra=2)
    build(6, 4, extra=2)
    with pytest.raises(ValueError, match="oracle's features have width 5, the new model's 6. Train the"):
        build_method("bt2", make_old(oracle_width=5), make_classifier())
