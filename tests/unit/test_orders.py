import numpy as np
import pytest
import torch
from plain_rows import unit
from scipy.special import softmax

from compat_lib.evaluation.orders import backfill_order, class_distance, margin


def make_features(size=60, classes=7, width=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(size, width)), rng.integers(0, classes, size)


def slow_distance(features, labels):
    rows, distances = unit(features), []
    for i, row in enumerate(rows):
        mean = np.mean([rows[j] for j in range(len(rows)) if labels[j] == labels[i]], axis=0)
        distances.append(1 - row @ mean / np.linalg.norm(mean))
    return distances


def test_distance_equals_a_loop_and_farthest_goes_first():
    features, labels = make_features()
    expected = slow_distance(features, labels)
    for names in (labels, labels * 10 + 3, np.array(list("abcdefg"))[labels], torch.tensor(labels)):
        assert class_distance(features, names) == pytest.approx(expected, abs=1e-6)
    order = backfill_order(features, labels, "farthest")
    assert order.tolist() == np.argsort(expected)[::-1].tolist()
    assert class_distance(torch.tensor(features).float(), labels) == pytest.approx(expected, abs=1e-5)
    assert class_distance([[1.0, 0.0], [-1.0, 0.0]], [0, 0]).tolist() == [1.0, 1.0]  # a mean of zero


def test_ties_are_in_random_order():
    features, labels = make_features()
    tied = backfill_order(features, labels, "uncertain", certainty=np.zeros(60), seed=3)
    assert tied.tolist() == backfill_order(features, labels, seed=3).tolist()
    halves = backfill_order(features, labels, "uncertain", certainty=np.arange(60) // 30, seed=3)
    assert sorted(halves[:30]) == list(range(30)) and halves[:30].tolist() != list(range(30))


def test_an_order_of_the_callers():
    features, labels = make_features(4)
    for kind in (np.array, torch.tensor, list, lambda rows: np.array(rows, np.uint8)):
        assert backfill_order(features, labels, kind([2, 0, 3, 1])).tolist() == [2, 0, 3, 1]


@pytest.mark.parametrize("classes", [2, 9])
def test_margin_equals_scipy(classes):
    for scale in (0.1, 1.0, 30.0, 1e4):
        logits = scale * np.random.default_rng(0).normal(size=(20, classes))
        top = np.sort(softmax(logits, axis=1))
        for form in (logits, torch.tensor(logits), logits[:, ::-1], logits + 100):
            assert margin(form) == pytest.approx(top[:, -1] - top[:, -2], abs=1e-9)


def test_orders_that_cannot_be_are_refused():
    features, labels = make_features()
    for order, certainty, message in (
        ("nearest", None, "the order 'nearest' is not known"),
        ("uncertain", None, "needs certainty"),
        ("uncertain", np.full(60, np.nan), "needs certainty"),
        (np.zeros(60, int), None, "every row number from 0 once"),
    ):
        with pytest.raises(ValueError, match=message):
            backfill_order(features, labels, order, certainty=certainty)
    with pytest.raises(ValueError, match="the logits hold NaN or one class only"):
        margin(np.zeros((3, 1)))
