"""Classifiers against slow loops, pytorch-metric-learning and finite differences."""

import math

import numpy as np
import pytest
import slow_losses as slow
import torch
import torch.nn.functional as F
from method_steps import make_classifier
from pytorch_metric_learning.losses import ArcFaceLoss, CosFaceLoss

from compat_lib.losses.heads import Classifier, arcface, simplex

KINDS = ("linear", "cosface", "arcface")


def batch(classifier, size=7, seed=3, opposite=2):
    """Random embeddings, of which the first few point away from their class, beyond pi minus the margin."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(size, classifier.width, generator=generator, dtype=torch.float64)
    labels = torch.randint(classifier.num_classes, (size,), generator=generator)
    away = classifier.weight.detach().double()[labels[:opposite]]
    embeddings[:opposite] = -2 * away + 0.02 * embeddings[:opposite]
    return embeddings, labels


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("width", "classes", "size"), [(2, 1, 3), (6, 5, 7), (9, 20, 4)])
def test_loss_and_logits_equal_the_slow_loop(kind, width, classes, size):
    classifier = make_classifier(kind, width, classes, margin=0.4).double()
    embeddings, labels = batch(classifier, size)
    logits = classifier.logits(embeddings, labels).tolist()
    for row, embedding, label in zip(logits, embeddings.tolist(), labels.tolist(), strict=True):
        assert row == pytest.approx(slow.logits(classifier, embedding, label), abs=1e-9)
    expected = slow.classification(classifier, embeddings.tolist(), labels.tolist())
    assert classifier.loss(embeddings, labels).item() == pytest.approx(expected, abs=1e-9)
    single = classifier.float().loss(embeddings.float(), labels)
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(expected, rel=2e-5, abs=1e-5)


@pytest.mark.parametrize("kind", ["cosface", "arcface"])
@pytest.mark.parametrize(("scale", "margin"), [(64.0, 0.5), (32.0, 0.3), (8.0, 0.0)])
def test_loss_equals_pytorch_metric_learning(kind, scale, margin):
    classifier = Classifier(kind, 6, 5, scale=scale, margin=margin, ramp=0.0).double()
    torch.nn.init.normal_(classifier.weight)
    embeddings, labels = batch(classifier, 12)
    theirs, margin = (ArcFaceLoss, np.degrees(margin)) if kind == "arcface" else (CosFaceLoss, margin)
    other = theirs(num_classes=5, embedding_size=6, margin=margin, scale=scale)
    other.W.data = classifier.weight.detach().T.clone()
    assert classifier.loss(embeddings, labels).item() == pytest.approx(
        other(embeddings, labels).item(), rel=1e-9
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_arcface_slope_is_finite_at_one(dtype):
    cosines = torch.tensor([1.0, -1.0, 1 - 1e-7, 1.0000001], dtype=dtype, requires_grad=True)
    shifted = arcface(cosines, 0.5)
    shifted.sum().backward()
    assert cosines.grad.isfinite().all() and shifted.dtype == dtype
    assert shifted[0].item() == pytest.approx(math.cos(0.5), abs=0.07)


def test_margin_grows_with_progress_up_to_the_ramp():
    classifier = Classifier("arcface", 4, 3, margin=0.4, ramp=0.5)
    assert [classifier.margin_at(p) for p in (0.0, 0.25, 0.5, 0.9)] == pytest.approx([0.0, 0.2, 0.4, 0.4])
    assert Classifier("arcface", 4, 3, margin=0.4, ramp=0.0).margin_at(0.0) == 0.4
    embeddings, labels = batch(classifier, opposite=0)
    start = classifier.logits(embeddings, labels, progress=0.0)
    torch.testing.assert_close(start, classifier.logits(embeddings))
    assert classifier.loss(embeddings, labels, 0.0) < classifier.loss(embeddings, labels, 1.0)


def test_label_smoothing_spreads_evenly_over_all_classes():
    classifier = make_classifier("linear", label_smoothing=0.2).double()
    embeddings, labels = batch(classifier)
    rows = []
    for embedding, label in zip(embeddings.tolist(), labels.tolist(), strict=True):
        logits = slow.logits(classifier, embedding)
        losses = [slow.cross_entropy(logits, k) for k in range(5)]
        rows.append(0.8 * losses[label] + 0.2 * sum(losses) / 5)
    assert classifier.loss(embeddings, labels).item() == pytest.approx(sum(rows) / len(rows))


def test_parameters_start_as_specified_and_follow_the_seed():
    torch.manual_seed(5)
    first = Classifier("linear", 64, 500)
    torch.manual_seed(5)
    second = Classifier("linear", 64, 500)
    assert torch.equal(first.weight, second.weight)
    assert first.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert first.bias.eq(0).all()
    assert Classifier("arcface", 4, 3).bias is None


def test_wrong_arguments_are_refused_by_their_name():
    wrong = {"kind": "softmax", "scale": 0.0, "margin": 2.0, "ramp": 1.5, "label_smoothing": 1.5}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=f"{name} (must be|is) .*{value!r}"):
            Classifier(**({"kind": "arcface", "width": 4, "num_classes": 3} | {name: value}))
    with pytest.raises(ValueError, match="margin must be a number between 0 and 1, not 1.2"):
        Classifier("cosface", 4, 3, margin=1.2)


@pytest.mark.parametrize("width", [1, 2, 7, 64])
def test_the_simplex_is_regular(width):
    rows = simplex(width).double()
    expected = torch.full((width + 1, width + 1), -1 / width, dtype=torch.float64).fill_diagonal_(1)
    torch.testing.assert_close(rows @ rows.T, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(rows.sum(0), torch.zeros(width, dtype=torch.float64), atol=1e-5, rtol=0)


def test_a_simplex_scores_by_the_vertices_of_the_classes_and_is_not_trained():
    vertices = torch.tensor([6, 0, 3])
    classifier = Classifier("simplex", 6, 3, vertices=vertices)
    embeddings, labels = torch.randn(5, 6, requires_grad=True), torch.tensor([0, 2, 1, 1, 0])
    rows, losses = simplex(6).tolist(), []
    for x, y in zip(embeddings.tolist(), labels.tolist(), strict=True):
        scores = [sum(a * b for a, b in zip(rows[v], x, strict=True)) for v in vertices.tolist()]
        losses.append(math.log(sum(map(math.exp, scores))) - scores[y])
    loss = classifier.loss(embeddings, labels)
    assert loss.item() == pytest.approx(sum(losses) / 5, rel=1e-5)
    loss.backward()
    assert classifier.weight.grad is None and embeddings.grad.ne(0).any()
    torch.testing.assert_close(classifier._loss_of_part(embeddings, labels, 1.0), loss)
    classifier.deal()
    assert not classifier.weight.requires_grad
    with pytest.raises(ValueError, match="in 4 coordinates has 5 vertices, but 6 are asked for: set the"):
        Classifier("simplex", 4, 6)


@pytest.mark.parametrize("kind", ["linear", "cosface", "arcface"])
def test_the_loss_by_parts_is_the_loss(kind):
    torch.manual_seed(0)
    classifier = Classifier(kind, 4, 9, label_smoothing=0.1).double()
    embeddings = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 8, 3, 3, 5, 1])
    inputs = (embeddings, *classifier.parameters())
    whole = classifier.loss(embeddings, labels, 0.7)
    part = classifier._loss_of_part(embeddings, labels, 0.7)
    torch.testing.assert_close(part, whole)
    torch.testing.assert_close(torch.autograd.grad(part, inputs), torch.autograd.grad(whole, inputs))


def test_a_sample_of_classes_holds_those_of_the_batch_and_gives_their_cross_entropy():
    torch.manual_seed(0)
    classifier = Classifier("linear", 4, 40, sample=0.25)
    torch.nn.init.normal_(classifier.weight)
    embeddings, labels, seen = torch.randn(5, 4), torch.tensor([7, 39, 0, 7, 12]), set()
    for _ in range(20):
        loss = classifier.loss(embeddings, labels)
        (slopes,) = torch.autograd.grad(loss, classifier.bias)
        drawn = slopes.nonzero()[:, 0]
        assert len(drawn) == 10 and set(labels.tolist()) <= set(drawn.tolist())
        logits = embeddings @ classifier.weight[drawn].T
        torch.testing.assert_close(loss, F.cross_entropy(logits, torch.searchsorted(drawn, labels)))
        seen |= set(drawn.tolist())
    assert len(seen) > 35, "others are drawn each time"
