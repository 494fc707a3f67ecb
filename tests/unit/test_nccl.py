"""NCCL against slow loops over its formulas, and its queue: ring, empty slots, resuming."""

import dataclasses

import pytest
import torch
from method_steps import make_classifier, make_old, make_step

from compat_lib.losses import build_method


def steps_of(old, count, batch=8, dtype=torch.float64, **options):
    """Consecutive steps of one epoch with rows of their own."""
    for number in range(count):
        step = make_step(old, batch=batch, seed=10 + number, dtype=dtype, **options)
        yield dataclasses.replace(step, batch=number, batches=count)


class SlowRing:
    """A queue as a list that takes one row after the other; None is an empty slot."""

    def __init__(self, size):
        self.slots, self.entered = [None] * size, 0

    def enter(self, old, labels):
        for row, label in zip(old, labels.tolist(), strict=True):
            self.slots[self.entered % len(self.slots)] = (row / row.norm(), label)
            self.entered += 1


def slow_contrasts(step, weight, ring, temperature=1.0):
    """Both contrasts by loops over anchors and rows, differentiable in float64; the batch enters first."""
    classes = weight / weight.norm(dim=1, keepdim=True)
    old_features = step.old_features
    ring.enter(old_features, step.labels)
    rows = [slot for slot in ring.slots if slot is not None]
    totals = [0.0, 0.0]
    for new, old, label in zip(step.embeddings, old_features, step.labels.tolist(), strict=True):
        new, old = new / new.norm(), old / old.norm()
        b = classes @ new
        scores = [[], []]
        for row, _ in rows:
            scores[0].append((new @ row) / temperature)
            scores[1].append((b @ (classes @ row).detach()) / temperature)
        own = [j for j, (_, other) in enumerate(rows) if other == label]
        for k in (0, 1):
            largest = max(score.item() for score in scores[k])
            total = sum((score - largest).exp() for score in scores[k])
            for j in own:
                w = (1 + old @ rows[j][0]) / 2
                totals[k] = totals[k] - w * (scores[k][j] - largest - total.log()) / len(own)
    return [total / len(step.labels) for total in totals]


@pytest.mark.parametrize(
    ("size", "batch", "temperature"),
    [(50, 8, 1.0), (40, 8, 0.7), (19, 8, 0.004), (6, 10, 0.004), (1, 4, 1.0)],
)
@pytest.mark.parametrize("kind", ["arcface", "linear"])
def test_values_and_gradients_equal_the_slow_loop_step_after_step(size, batch, temperature, kind):
    old = make_old()
    method = build_method("nccl", old, make_classifier(kind), queue=size, temperature=temperature).double()
    ring = SlowRing(size)
    weight = method.classifier.weight
    for step in steps_of(old, 3, batch):
        slow = slow_contrasts(step, weight, ring, temperature)
        terms = method(step)
        found = [terms["feature_contrast"], terms["logit_contrast"]]
        torch.testing.assert_close(torch.stack(found), torch.stack(slow), rtol=1e-9, atol=1e-9)
        gradients = (
            torch.autograd.grad(1.3 * a + b + 0 * weight.sum(), (step.embeddings, weight))
            for a, b in (found, slow)
        )
        for ours, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)
        labels = [-1 if slot is None else slot[1] for slot in ring.slots]
        assert method.queue_labels.tolist() == labels
        weight.data += 0.3 * torch.randn_like(weight)
    assert method.queue_progress.tolist() == [2, 2 * batch, 3 * batch]


def test_backward_may_come_after_the_next_step():
    old = make_old()
    method = build_method("nccl", old, make_classifier(), queue=8)
    first, second = steps_of(old, 2, dtype=torch.float32)
    terms = method(first)
    expected = torch.autograd.grad(sum(terms.values()), first.embeddings, retain_graph=True)
    method(second)
    assert torch.equal(torch.autograd.grad(sum(terms.values()), first.embeddings)[0], expected[0])
