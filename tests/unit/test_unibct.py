"""UniBCT's refinement against explicit inverses, its schedule, and what a resumed run needs."""

import dataclasses
import math

import pytest
import slow_losses as slow
import torch
from method_steps import check_gradient, make_classifier, make_old, make_step

from compat_lib.losses import build_method
from compat_lib.losses.unibct import refine_prototypes


def slow_refined(new, old, labels, num_classes, propagation=0.9, temperature=0.05):
    """One class at a time: transitions entry by entry, an explicit inverse, the mean of all rows."""
    prototypes = []
    for label in range(num_classes):
        chosen = [i for i, y in enumerate(labels) if y == label]
        n, width = len(chosen), len(old[0])
        if n == 0:
            prototypes.append([0.0] * width)
            continue
        news, olds = [slow.unit(new[i]) for i in chosen], [slow.unit(old[i]) for i in chosen]
        steps = torch.zeros(n, n, dtype=torch.float64)
        for i in range(n):
            likeness = [math.exp(slow.dot(news[i], news[k]) / temperature) for k in range(n)]
            for j in range(n):
                if n == 1:
                    steps[i, j] = 1.0
                elif i != j:
                    steps[i, j] = likeness[j] / sum(likeness[:i] + likeness[i + 1 :])
        inverse = torch.linalg.inv(torch.eye(n, dtype=torch.float64) - propagation * steps)
        propagated = (1 - propagation) * inverse @ torch.tensor(olds, dtype=torch.float64)
        prototypes.append(propagated.mean(dim=0).tolist())
    return torch.tensor(prototypes, dtype=torch.float64)


def draw(sizes, new_width=5, old_width=5, seed=0, spread=1.0):
    """New and old features and shuffled labels of classes of these sizes, each around its own direction."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    sides = []
    for width in (new_width, old_width):
        middles = 2 * torch.randn(len(sizes), width, generator=generator)
        sides.append(middles[labels] + spread * torch.randn(len(labels), width, generator=generator))
    return *sides, labels


SIZES = [[1], [2], [3], [1, 0, 7, 2, 0, 33, 4, 4], [0, 0, 5], [17] * 6 + [0]]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("propagation", "temperature"), [(0.9, 0.05), (0.3, 1.0), (0.999, 0.2)])
def test_refinement_against_explicit_inverses(sizes, propagation, temperature):
    new, old, labels = draw(sizes, new_width=4, old_width=6)
    options = {"propagation": propagation, "temperature": temperature}
    rows = (side.double().tolist() for side in (new, old))
    expected = slow_refined(*rows, labels.tolist(), len(sizes), **options)
    refined = refine_prototypes(new, old, labels, len(sizes), **options)
    assert refined.dtype == torch.float32 and refined.shape == (len(sizes), 6)
    torch.testing.assert_close(refined.double(), expected, atol=2e-6, rtol=0)


# -- the method ----------------------------------------------------------------------------------


def refreshed(old, embeddings, width=6, **options):
    """The method after its first refinement."""
    method = build_method("unibct", old, make_classifier(width=width, classes=old.num_classes), **options)
    method.start_epoch(0, 1, lambda: embeddings)
    return method


@pytest.mark.parametrize("scale", [1.0, 16.0])
@pytest.mark.parametrize("width", [2, 6])
def test_value_and_gradient(width, scale):
    old = make_old(width=width, classifier=False)
    embeddings = torch.randn(20, width, generator=torch.Generator().manual_seed(5))
    options = {"scale": scale, "weight": 3.0, "propagation": 0.9, "temperature": 0.05}
    method = refreshed(old, embeddings, width, **options).double()
    step = make_step(old, width, dtype=torch.float64)
    terms = method(step)
    rows = (side.double().tolist() for side in (embeddings, old.features))
    prototypes = slow_refined(*rows, old.labels.tolist(), 5).tolist()
    losses = [slow.cross_entropy(slow.cosines(prototypes, n, scale), y) for n, _, y in slow.rows_of(step)]
    assert terms["prototype"].item() == pytest.approx(slow.mean(losses), abs=1e-5)
    assert method.weights == {"classification": 1.0, "prototype": 3.0}
    assert check_gradient(method, step)


@pytest.mark.parametrize(
    ("epochs", "refreshes"), [(35, [10, 20]), (20, [6, 11]), (7, [2, 4]), (3, [1, 2]), (2, [1]), (1, [0])]
)
def test_schedule(epochs, refreshes):
    """Zero before the first refinement; refined at the published epochs of 35 and nearby in shorter runs."""
    old = make_old()
    method = build_method("unibct", old, make_classifier())
    asked = []

    def embed():
        asked.append(epoch)
        return torch.randn(20, 6, generator=torch.Generator().manual_seed(epoch))

    tables = []
    for epoch in range(epochs):
        method.start_epoch(epoch, epochs, embed)
        step = dataclasses.replace(make_step(old), epoch=epoch, epochs=epochs)
        term = method(step)["prototype"]
        assert (term.item() == 0) == (epoch < refreshes[0])
        assert term.requires_grad == (epoch >= refreshes[0])
        tables.append(method.refined.weight.clone())
    assert asked == refreshes
    changed = [e for e in range(1, epochs) if not torch.equal(tables[e], tables[e - 1])]
    assert changed == [e for e in refreshes if e > 0]


@pytest.mark.parametrize(
    ("share", "epochs", "refused"),
    [(0.49, 1, False), (0.5, 1, True), (0.9, 1, True), (1.0, 1, False), (0.7, 2, False), (0.75, 2, True)],
)
def test_a_start_after_the_last_epoch_is_refused(share, epochs, refused):
    method = build_method("unibct", make_old(), make_classifier(), start_share=share, refresh_share=1.0)
    if refused:
        with pytest.raises(ValueError, match=f"start_share is {share}, .* of {epochs} none is left"):
            method.start_epoch(0, epochs, lambda: torch.ones(20, 6))
    else:
        method.start_epoch(0, epochs, lambda: torch.ones(20, 6))
