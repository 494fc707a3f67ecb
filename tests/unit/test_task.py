"""The task's own loss against slow loops, and how it joins every method."""

import math
import subprocess
import sys

import pytest
import slow_losses as slow
import torch
from method_steps import make_classifier, make_old, make_step

from compat_lib.losses import METHODS, build_method
from compat_lib.losses.task import task_loss

LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 2, 3])  # the last row is alone in its class


def rows(count=8, width=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator, dtype=torch.float64).requires_grad_()


def slow_triplet(embeddings, labels, margin):
    """Farthest positive and nearest negative of each row that has both."""
    hinges = []
    for i, anchor in enumerate(embeddings):
        near = [math.dist(anchor, e) for j, e in enumerate(embeddings) if labels[j] == labels[i] and j != i]
        far = [math.dist(anchor, e) for j, e in enumerate(embeddings) if labels[j] != labels[i]]
        if near and far:
            hinges.append(max(0.0, max(near) - min(far) + margin))
    return sum(hinges) / len(hinges) if hinges else 0.0


def slow_circle(embeddings, labels, margin, gamma):
    unit_rows, losses = [slow.unit(e) for e in embeddings], []
    for i, anchor in enumerate(unit_rows):
        attract, repel = 0.0, 0.0
        for j, other in enumerate(unit_rows):
            s = slow.dot(anchor, other)
            if labels[j] != labels[i]:
                repel += math.exp(gamma * max(0.0, s + margin) * (s - margin))
            elif i != j:
                attract += math.exp(-gamma * max(0.0, 1 + margin - s) * (s - (1 - margin)))
        losses.append(math.log(1 + attract * repel))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("width", [1, 5])
def test_triplet_equals_the_slow_loop(width):
    embeddings = rows(width=width)
    loss = task_loss("triplet")
    expected = slow_triplet(embeddings.tolist(), LABELS.tolist(), 0.3)
    assert loss(embeddings, LABELS).item() == pytest.approx(expected, rel=1e-6)
    assert torch.autograd.gradcheck(lambda x: loss(x, LABELS), embeddings)


def test_circle_equals_the_slow_loop():
    embeddings = rows()
    loss = task_loss("circle")(embeddings, LABELS)
    expected = slow_circle(embeddings.tolist(), LABELS.tolist(), 0.25, 128)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, embeddings)
    assert gradient.isfinite().all() and gradient[:7].ne(0).any(dim=1).all()


@pytest.mark.parametrize("kind", ["triplet", "circle"])
@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]])
def test_a_batch_without_pairs_costs_nothing(kind, labels):
    embeddings = rows(3)
    loss = task_loss(kind)(embeddings, torch.tensor(labels))
    loss.backward()
    assert loss.item() == 0 and embeddings.grad.eq(0).all()


@pytest.mark.parametrize("kind", ["triplet", "circle"])
@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_takes_it_on_what_it_classifies(name, kind):
    old, results = make_old(), []
    for chosen in ("none", kind):
        method = build_method(name, old, make_classifier(), task_loss=chosen)
        chosen_rows = torch.arange(12)
        labels = old.labels[chosen_rows]
        embedded = method.rows_to_embed(chosen_rows, labels, torch.Generator().manual_seed(0))
        step = make_step(old, method.model_width(6, 6), embedded=embedded, rows=chosen_rows)
        torch.manual_seed(0)
        results.append(method(step))
    without, with_task = results
    assert "task" not in without and list(with_task) == [*without, "task"] == list(method.weights)
    assert method.weights["task"] == 1
    if not METHODS[name].learns:  # else the start is drawn
        assert all(torch.equal(without[term], with_task[term]) for term in without)
    seen = method.classified(step.embeddings)
    labels = labels if embedded is None else labels[embedded]
    torch.testing.assert_close(with_task["task"], task_loss(kind)(seen, labels))
    (gradient,) = torch.autograd.grad(with_task["task"], step.embeddings)
    assert gradient.ne(0).any()


def test_wrong_choices_are_refused():
    with pytest.raises(ValueError, match="task_loss is 'x'; choose one of none, triplet, circle"):
        build_method("independent", None, make_classifier(), task_loss="x")


def test_the_library_is_imported_only_when_it_is_used():
    code = (
        "import sys; from compat_lib.losses import Classifier, build_method\n"
        "build_method('independent', None, Classifier('linear', 2, 2))\n"
        "sys.exit('pytorch_metric_learning' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
