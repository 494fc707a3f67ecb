"""FastFill: its loss by hand row by row, the fit, and the order in which it backfills."""

import math

import pytest
import slow_losses as slow
import torch
from method_steps import make_classifier, make_old

from compat_lib.losses import build_method
from compat_lib.losses.heads import FrozenClassifier
from compat_lib.old_system import OldSystem


@pytest.mark.parametrize("kind", ["linear", "arcface"])
def test_the_loss_equals_a_loop_over_rows(kind):
    old, classifier = make_old(), make_classifier(kind)
    method = build_method("fastfill", old, classifier, discrimination=0.7, uncertainty=0.3)
    estimates, new, s = torch.randn(4, 6), torch.randn(4, 6), torch.randn(4)
    labels = torch.tensor([0, 4, 2, 2])
    scale = None if kind == "linear" else classifier.scale
    frozen = FrozenClassifier(classifier.weight, classifier.bias, scale)
    total = 0.0
    sides = (estimates.tolist(), new.tolist(), s.tolist(), labels.tolist())
    for f, n, log_variance, y in zip(*sides, strict=True):
        squares = sum((a - b) ** 2 for a, b in zip(f, n, strict=True)) / 6
        # torch spreads the smoothing over all classes, the right one too
        logits = slow.logits(classifier, f)
        wrong = 0.9 * slow.cross_entropy(logits, y)
        wrong += sum(0.1 / 5 * slow.cross_entropy(logits, k) for k in range(5))
        total += 0.5 * math.exp(-log_variance) * (squares + 0.7 * wrong) + 0.3 * log_variance
    found = method.fit_loss(estimates, s, new, frozen, labels)
    assert found.item() == pytest.approx(total / 4, rel=1e-5)


def test_entries_that_the_transformation_cannot_know_come_first():
    """New features follow old ones, but those of one half of the space are noise."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(600, 4, generator=generator)
    labels = torch.arange(600) % 5
    noisy = features[:, 0] > 0
    new = features @ torch.randn(4, 6, generator=generator)
    new[noisy] = torch.randn(int(noisy.sum()), 6, generator=generator)
    old = OldSystem.from_arrays(features, labels)
    method = build_method("fastfill", old, make_classifier(width=6), discrimination=0.0, fit_lr=5e-3)
    assert method.backfill_order(features) is None and method.comparable(new, features) is None
    weight = method.classifier.weight.clone()
    method.finish(lambda: new)
    order = method.backfill_order(features)
    assert sorted(order.tolist()) == list(range(600))
    assert noisy[order[:200]].float().mean() > 0.9 > 0.1 > noisy[order[-200:]].float().mean()
    assert torch.equal(method.classifier.weight, weight) and method.classifier.weight.grad is None
    query, gallery = method.comparable(new, features)
    assert query is new and gallery.shape == new.shape
    fit = torch.cosine_similarity(gallery, new)
    assert fit[~noisy].mean() > 0.8
