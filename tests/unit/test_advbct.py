"""AdvBCT against slow loops, a discriminator differentiated by hand, and its limits."""

import dataclasses
import math

import pytest
import slow_losses as slow
import torch
import torch.nn.functional as F
from method_steps import make_classifier, make_clusters, make_near_step, make_old, make_step

from compat_lib.losses import build_method
from compat_lib.losses.advbct import kept_extent


def build(old, width=6, seed=3, **options):
    classifier = make_classifier(width=width, classes=old.num_classes)
    torch.manual_seed(seed)
    return build_method("advbct", old, classifier, **options)


def slow_regions(old):
    """Centre, radius and number of kept samples of each class, one class at a time."""
    centres = slow.means(old, "unit")
    distances = [[math.dist(slow.unit(f), c) for f in slow.samples(old, y)] for y, c in enumerate(centres)]
    return [(centre, *slow.kept(own)) for centre, own in zip(centres, distances, strict=True)]


def slow_boundary(old, v, target, embeddings, labels):
    regions, beyond = slow_regions(old), []
    for n, y in zip(embeddings, labels, strict=True):
        centre, radius, kept = regions[y]
        delta = abs(radius - target) / (1 + math.exp(-v[y]))
        elastic = radius + delta if radius < target else radius - delta
        excess = math.dist(slow.unit(n), centre) - elastic
        if kept > 1 and excess > 0:
            beyond.append(excess)
    return slow.mean(beyond)


def plain_adversarial(method, step):
    """The cross-entropies of the discriminator, which sees new and old rows in a batch of their own."""
    first, norm, _, last = method.discriminator
    total = 0.0
    for kind, side in enumerate((step.embeddings, step.old_features)):
        rows = F.linear(F.normalize(side), first.weight, first.bias)
        rows = F.batch_norm(rows, None, None, norm.weight, norm.bias, training=True).relu()
        total = total - F.linear(rows, last.weight, last.bias).log_softmax(dim=1)[:, kind].mean()
    return (step.epochs - step.epoch + 1) / step.epochs * total


@pytest.mark.parametrize("target", [0.0, 0.4, 1.0])
@pytest.mark.parametrize(("width", "per_class", "hidden"), [(2, 7, 3), (6, 2, 100), (6, 12, 5), (16, 5, 1)])
def test_values(width, per_class, hidden, target):
    old = make_clusters(per_class, width)
    weights = {"boundary_weight": 2.0, "adversarial_weight": 3.0}
    method = build(old, width, target_radius=target, hidden=hidden, **weights).double()
    step = dataclasses.replace(make_near_step(old, width, 9), epoch=2, epochs=5)
    terms, n, labels = method(step), step.embeddings.tolist(), step.labels.tolist()
    v = method.elasticity.tolist()
    assert terms["boundary"].item() == pytest.approx(slow_boundary(old, v, target, n, labels), abs=1e-6)
    torch.testing.assert_close(terms["adversarial"], plain_adversarial(method, step))
    assert method.weights == {"classification": 1.0, "boundary": 2.0, "adversarial": 3.0}
    lone = make_step(old, width, rows=torch.tensor([0, 0]), dtype=torch.float64)
    assert method(lone)["boundary"].item() == 0  # one sample has no extent


@pytest.mark.parametrize("progress", [0.0, 0.03, 0.5, 0.99])
def test_gradient_is_reversed_before_the_discriminator_and_not_inside(progress):
    """The sign on each side, against the same term without any reversal."""
    old = make_old()
    method = build(old).double()
    step = make_step(old, dtype=torch.float64, progress=progress)
    parameters = list(method.discriminator.parameters())
    fooled = torch.autograd.grad(method(step)["adversarial"], (step.embeddings, *parameters))
    plain = torch.autograd.grad(plain_adversarial(method, step), (step.embeddings, *parameters))
    strength = 2 / (1 + math.exp(-10 * progress)) - 1
    torch.testing.assert_close(fooled[0], -strength * plain[0])
    for ours, theirs in zip(fooled[1:], plain[1:], strict=True):
        torch.testing.assert_close(ours, theirs)
    assert plain[0].abs().max() > 1e-4
    assert fooled[0].eq(0).all() == (progress == 0)


@pytest.mark.parametrize(
    ("distances", "extent", "count"),
    [
        ([1.0, 2.0, 3.0, 100.0], 100.0, 4),  # the third quartile of four is the largest itself
        ([1.0, 2.0, 3.0, 4.0, 100.0], 4.0, 4),  # q1 = 2, q3 = 4, fences -1 and 7
        ([1.0, 2.0, 3.0, 4.0, 7.0], 7.0, 5),  # on the fence is kept
        ([-50.0, 2.0, 3.0, 4.0, 5.0], 5.0, 4),  # too near is an outlier too
        ([1.0, 1.0, 1.0, 1.0, 1.5], 1.0, 4),  # no spread at all: only ties are kept
        ([1.0, 2.0, 100.0], 100.0, 3),  # three are too few for quartiles
        ([5.0], 5.0, 1),
        ([], 0.0, 0),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_outlier_rule_by_hand(distances, extent, count, seed):
    """The class in question stands in any order among rows of another one."""
    order = torch.randperm(len(distances) + 6, generator=torch.Generator().manual_seed(seed))
    labels = torch.tensor([1] * len(distances) + [0] * 6)[order]
    found = kept_extent(torch.tensor(distances + [9.0] * 6)[order], labels, 3)
    assert found[0].tolist() == [9.0, extent, 0.0] and found[1].tolist() == [6, count, 0]
