"""NCCL against slow loops over its formulas, and its queue: ring, empty slots, resuming, credible rows."""

import dataclasses
import math

import pytest
import slow_losses as slow
import torch
from method_steps import make_classifier, make_old, make_step

from compat_lib.losses import build_method, nccl
from compat_lib.old_system import OldSystem


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


def slow_credible(features, labels, classes):
    rows = [slow.unit(row) for row in features.double().tolist()]
    members = {k: [i for i, y in enumerate(labels.tolist()) if y == k] for k in range(classes)}
    members = {k: own for k, own in members.items() if own}
    means = {
        k: [sum(rows[i][x] for i in own) / len(own) for x in range(len(rows[0]))]
        for k, own in members.items()
    }
    variances = {}
    for k, own in members.items():
        distances = [math.dist(rows[i], means[k]) for i in own]
        variances[k] = sum((d - sum(distances) / len(own)) ** 2 for d in distances) / len(own)
    measured = [variances[k] for k, own in members.items() if len(own) >= 3]
    kept = []
    for row in rows:
        logits = []
        for k, own in members.items():
            spread = variances[k] if len(own) >= 3 else sum(measured) / len(measured)
            logits.append(-math.dist(row, means[k]) / spread)
        total = sum(math.exp(z - max(logits)) for z in logits)
        shares = [math.exp(z - max(logits)) / total for z in logits]
        kept.append(-sum(p * math.log(p) for p in shares if p > 0) <= 0.5 * math.log(len(members)))
    return kept


def test_credible_rows_equal_the_slow_loop(monkeypatch):
    monkeypatch.setattr(nccl, "SCORES_AT_ONCE", 50)  # blocks of a few rows
    counts = torch.tensor([9, 1, 2, 0, 12, 7])  # two classes too small for a variance, one without rows
    shares = []
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(6).repeat_interleave(counts)[torch.randperm(31, generator=generator)]
        centres = torch.randn(6, 2, generator=generator)
        features = 5 * (centres[labels] + torch.randn(31, 2, generator=generator))
        found = nccl.credible_by_entropy(features, labels, 6)
        assert found.tolist() == slow_credible(features, labels, 6)
        shares.append(found.float().mean().item())
    assert min(shares) < 1 == max(shares)


def two_classes(between=2):
    """Rows of two classes, of each the last `between` halfway to the other class."""
    angles = torch.tensor([[0.0, 0.05, -0.05, 0.1][: 6 - between] + [math.pi / 4] * between])
    angles = torch.cat([angles, math.pi / 2 - angles]).double()
    features = torch.stack([angles.cos(), angles.sin()], dim=2).reshape(-1, 2)
    return OldSystem.from_arrays(features.float(), torch.arange(2).repeat_interleave(len(features) // 2))


def test_rows_that_are_not_credible_take_no_part():
    old = two_classes()
    mask = nccl.credible_by_entropy(old.features, old.labels, 2)
    assert mask.tolist() == [True, True, True, True, False, False] * 2
    step = make_step(old, width=2, rows=torch.arange(12), dtype=torch.float64)
    options = {"credible": "entropy", "temperature": 1.0}
    method = build_method("nccl", old, make_classifier(width=2, classes=2), **options).double()
    terms = method(step)
    fields = ("rows", "labels", "embeddings", "old_features")
    kept = dataclasses.replace(step, **{name: getattr(step, name)[mask] for name in fields})
    expected = slow_contrasts(kept, method.classifier.weight, SlowRing(20))
    assert terms["feature_contrast"].item() == pytest.approx(expected[0].item())
    assert terms["logit_contrast"].item() == pytest.approx(expected[1].item())
    assert method.queue_progress.tolist() == [0, 0, 8]
    assert "credible" not in method.state_dict()
    (gradient,) = torch.autograd.grad(terms["feature_contrast"], step.embeddings, retain_graph=True)
    assert torch.equal(gradient.abs().sum(dim=1) > 0, mask)


def test_a_batch_without_credible_rows_has_zero_contrasts():
    old = two_classes()
    method = build_method("nccl", old, make_classifier(width=2, classes=2), credible="entropy")
    step = make_step(old, width=2, rows=torch.tensor([4, 5, 10]))
    terms = method(step)
    assert terms["feature_contrast"].item() == terms["logit_contrast"].item() == 0
    (terms["feature_contrast"] + terms["logit_contrast"]).backward()
    assert step.embeddings.grad.eq(0).all()
    assert method.queue_labels.eq(-1).all()
    later = dataclasses.replace(make_step(old, width=2, rows=torch.arange(12)), epoch=1)
    assert method(later)["feature_contrast"].item() > 0


def test_old_features_of_which_none_is_credible_are_refused():
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [-1.0, 0.2]])
    old = OldSystem.from_arrays(rows.repeat(2, 1), [0] * 4 + [1] * 4)  # two classes that are one
    with pytest.raises(ValueError, match="credible='entropy' leaves none of the 8 old features"):
        build_method("nccl", old, make_classifier(width=2, classes=2), credible="entropy")
