"""Rows without training: interpolations row by row in float64, weights of validation images, flips."""

import numpy as np
import pytest
import torch
from plain_rows import interpolated, unit

from compat_lib.adapters import ALPHAS
from compat_lib.data.images import ImageSet
from compat_lib.evaluation.protocols.measure import measure_adapters, one_test
from compat_lib.measuring import with_old_query, without_training


def models(seed, people=12, images=5, old=6, new=6, turn=None):
    """Features of the same images by an old and a better new model, and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(people).repeat_interleave(images)
    centres = torch.randn(people, max(old, new), generator=generator)[labels]
    sides = [
        centres[:, :width] + noise * torch.randn(len(labels), width, generator=generator)
        for width, noise in ((old, 0.9), (new, 0.5))
    ]
    return sides[0], sides[1] if turn is None else sides[1] @ turn, labels


def slow_query(old, new, alpha, rotation=None):
    return interpolated(old, new if rotation is None else unit(new) @ rotation, alpha)


def slow_recall(query, gallery, labels):
    hits = 0
    for i, row in enumerate(query):
        scores = [(row @ other, labels[j] == labels[i]) for j, other in enumerate(unit(gallery)) if j != i]
        hits += max(scores)[1]
    return hits / len(query)


def best(old, new, labels, rotation=None):
    """The weight that finds most; of equal ones the nearest to one half."""
    found = {a: slow_recall(slow_query(old, new, a, rotation), old, labels.tolist()) for a in ALPHAS}
    return min(found, key=lambda a: (-found[a], abs(a - 0.5)))


def test_a_trained_method_with_the_old_query():
    val, test = models(0), models(1)
    found = with_old_query(val, (test[1], test[0]))
    assert list(found) == ["with-old-query", "midpoint"]
    alpha = best(*val)
    assert found["with-old-query"].alpha == alpha and found["midpoint"].alpha is None
    for name, weight in (("with-old-query", alpha), ("midpoint", 0.5)):
        np.testing.assert_allclose(found[name].query, slow_query(*test[:2], weight), atol=2e-6)
        assert found[name].gallery is test[0]
    middle = unit(unit(test[0]) + unit(test[1]))
    np.testing.assert_allclose(found["midpoint"].query, middle, atol=2e-6)
    # other test images, the same weight
    assert with_old_query(val, models(2)[1::-1])["with-old-query"].alpha == alpha


@pytest.mark.parametrize("widths", [(6, 6), (4, 6), (6, 4)])
def test_an_independent_model_through_maps_of_the_training_set(widths):
    turn = torch.linalg.qr(torch.randn(widths[1], widths[1], generator=torch.Generator().manual_seed(3)))[0]
    train, val, test = (models(s, old=widths[0], new=widths[1], turn=turn) for s in (4, 5, 6))
    found = without_training(train, val, test[:2])
    left, _, right = np.linalg.svd(unit(train[1]).T @ unit(train[0]), full_matrices=False)
    rotation = left @ right
    if widths[0] < widths[1]:  # the paper's square rotation, of the old features padded with zeros
        padded = np.hstack([unit(train[0]), np.zeros((len(train[0]), widths[1] - widths[0]))])
        whole = np.linalg.svd(unit(train[1]).T @ padded)
        rotation = whole[0] @ whole[2]
    alpha = best(*val, rotation)
    assert found["procrustes-slerp"].alpha == alpha
    for name, weight in (("procrustes-slerp", alpha), ("procrustes-midpoint", 0.5)):
        np.testing.assert_allclose(found[name].query, slow_query(*test[:2], weight, rotation), atol=5e-6)
    turned_query = unit((unit(test[1]) @ rotation)[:, : widths[0]])
    np.testing.assert_allclose(found["procrustes-query"].query, turned_query, atol=5e-6)
    assert found["ridge"].gallery.shape == test[1].shape and found["ridge"].query is test[1]
    narrow = min(widths)
    for name in ("lambda-orthogonal", "lambda-orthogonal-query"):
        assert found[name].query.shape == found[name].gallery.shape == (len(test[0]), narrow)
    np.testing.assert_allclose(found["lambda-orthogonal-query"].gallery, unit(test[0][:, :narrow]), atol=1e-6)
    assert found["ridge-query"].query.shape == test[0].shape and found["ridge-query"].gallery is test[0]


@pytest.mark.parametrize("protocol", ["pairs", "leave-one-out"])
def test_records_are_those_of_one_test_and_flips_of_a_loop(protocol):
    old, new, labels = models(7, people=8)
    images = ImageSet(torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8), labels, tuple("abcdefgh"))
    found = measure_adapters(protocol, old, {"one": (new, old), "two": (old, new)}, images, {}, draws=8)
    wanted, _ = one_test(protocol, new, old, images, {}, draws=8)
    mine = found.select(adapter="one")
    assert list(wanted.changed(query="new", gallery="old", adapter="one")) == list(mine)[: len(wanted)]
    before = [[slow_hit(a, b, labels, i) for i in range(len(labels))] for a, b in ((old, old), (new, old))]
    worse = np.mean([was and not now for was, now in zip(*before, strict=True)])
    right, wrong = np.mean(before[0]), 1 - np.mean(before[1])
    value = {one.metric: one.value for one in mine}
    assert value["negative_flips"] == pytest.approx(worse) and worse > 0
    assert value["relative_negative_flips"] == pytest.approx(worse / (right * wrong))
    assert not any(one.metric in ("losing", "gain") for one in found)


def slow_hit(query, gallery, labels, i):
    scores = unit(query)[i] @ unit(gallery).T
    scores[i] = -2
    return bool(labels[int(scores.argmax())] == labels[i])
