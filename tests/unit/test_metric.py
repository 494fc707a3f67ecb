"""Metric losses against slow float64 loops, scikit-learn, pytorch-metric-learning and finite differences."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning import losses, miners, reducers
from pytorch_metric_learning.distances import CosineSimilarity, LpDistance
from sklearn.metrics import pairwise_distances as sklearn_distances

from compat_lib.losses.metric import (
    circle_loss,
    pairwise_distances,
    smoothed_cross_entropy,
    triplet_loss,
)


def rows(count, width=5, seed=0, scale=2.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(count, width, generator=generator, dtype=torch.float64).to(dtype)


def slow_distance(a, b, distance):
    if distance == "cosine":
        lengths = [max(math.sqrt(sum(x * x for x in v)), 1e-12) for v in (a, b)]
        return 2 - 2 * sum(x * y for x, y in zip(a, b, strict=True)) / (lengths[0] * lengths[1])
    return math.sqrt(max(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)), 1e-12))


def slow_triplet(anchors, labels, candidates, candidate_labels, margin, mining, distance):
    """One anchor after the other, straight from the definition."""
    total = 0.0
    for anchor, label in zip(anchors.tolist(), labels.tolist(), strict=True):
        near, far = [], []
        for candidate, other in zip(candidates.tolist(), candidate_labels.tolist(), strict=True):
            (near if other == label else far).append(slow_distance(anchor, candidate, distance))
        if not near or not far:
            continue
        if mining == "hard":
            gap = max(near) - min(far)
        else:
            weights = [math.exp(d) for d in near]
            gap = sum(w * d for w, d in zip(weights, near, strict=True)) / sum(weights)
            weights = [math.exp(-d) for d in far]
            gap -= sum(w * d for w, d in zip(weights, far, strict=True)) / sum(weights)
        total += max(0.0, gap + margin) if margin > 0 else math.log(1 + math.exp(gap))
    return total / len(anchors)


LABELS = torch.tensor([0, 1, 0, 2, 1, 0, 4])  # 2 and 4 once
OTHERS = torch.tensor([1, 0, 0, 2, 3])  # nothing of 4, and a 3 that no anchor has


@pytest.mark.parametrize("mining", ["hard", "soft"])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("margin", [0.3, 2.0, 0.0])
@pytest.mark.parametrize("width", [1, 5])
def test_triplet_equals_the_slow_loop(mining, distance, margin, width):
    options = {"margin": margin, "mining": mining, "distance": distance}
    anchors, candidates = rows(7, width), rows(5, width, seed=1)
    for sides in ((anchors, LABELS, anchors, LABELS), (anchors, LABELS, candidates, OTHERS)):
        expected = slow_triplet(*sides, **options)
        assert expected > 0
        assert triplet_loss(*sides, **options).item() == pytest.approx(expected, rel=1e-6)
        single = [side.float() if side.is_floating_point() else side for side in sides]
        result = triplet_loss(*single, **options)
        assert result.dtype == torch.float32 and result.shape == ()
        assert result.item() == pytest.approx(expected, rel=1e-4)


def test_triplet_by_hand():
    # anchors at 0 and 10, candidates at 1 (same), 4 (other): 1 - 4 + m and 9 - 6 + m
    anchors, candidates = torch.tensor([[0.0], [10.0]]), torch.tensor([[1.0], [4.0]])
    sides = anchors, torch.tensor([5, 5]), candidates, torch.tensor([5, 8])
    assert triplet_loss(*sides, margin=1.0).item() == pytest.approx((0 + 4) / 2)
    assert triplet_loss(*sides, margin=3.5).item() == pytest.approx((0.5 + 6.5) / 2)
    soft = (math.log(1 + math.exp(-3)) + math.log(1 + math.exp(3))) / 2
    assert triplet_loss(*sides, margin=0).item() == pytest.approx(soft, rel=1e-6)


@pytest.mark.parametrize("mining", ["hard", "soft"])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("margin", [5.0, 0.0])
def test_triplet_gradient_equals_finite_differences(mining, distance, margin):
    options = {"margin": margin, "mining": mining, "distance": distance}
    anchors, candidates = rows(7).requires_grad_(), rows(5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a, c: triplet_loss(a, LABELS, c, OTHERS, **options), (anchors, candidates)
    )
    assert torch.autograd.gradcheck(lambda a: triplet_loss(a, LABELS, a, LABELS, **options), (anchors,))


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize(("margin", "smooth"), [(0.3, False), (0.0, True)])
@pytest.mark.parametrize("across", [False, True])
def test_hard_triplet_equals_pytorch_metric_learning(distance, margin, smooth, across):
    # every class twice or more: there the farthest positive is the same with and without the anchor itself
    labels = torch.arange(12) % 4
    features, candidates = rows(12), rows(12, seed=1)
    if distance == "euclidean":
        theirs_distance = LpDistance(normalize_embeddings=False)
    else:
        theirs_distance = LpDistance(normalize_embeddings=True, power=2)  # |a - b|^2 = 2 - 2 cos
    theirs = losses.TripletMarginLoss(
        margin=margin, smooth_loss=smooth, distance=theirs_distance, reducer=reducers.MeanReducer()
    )
    miner = miners.BatchHardMiner(distance=theirs_distance)
    ours_features, theirs_features = (features.clone().requires_grad_() for _ in range(2))
    if across:
        reference = candidates, labels.clone()
        ours = triplet_loss(ours_features, labels, *reference, margin=margin, distance=distance)
        mined = miner(theirs_features, labels, *reference)
        expected = theirs(theirs_features, labels, mined, *reference)
    else:
        sides = ours_features, labels, ours_features, labels
        ours = triplet_loss(*sides, margin=margin, distance=distance)
        expected = theirs(theirs_features, labels, miner(theirs_features, labels))
    assert expected.item() > 0
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-9)
    ours.backward()
    expected.backward()
    torch.testing.assert_close(ours_features.grad, theirs_features.grad, rtol=1e-5, atol=1e-8)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    order=st.permutations(range(7)),
    distance=st.sampled_from(["euclidean", "cosine"]),
)
def test_triplet_invariants(seed, order, distance):
    order = torch.tensor(order)
    features = rows(7, seed=seed)
    hard, soft, permuted, renamed = (
        triplet_loss(x, y, x, y, mining=mining, distance=distance, margin=1.0).item()
        for x, y, mining in (
            (features, LABELS, "hard"),
            (features, LABELS, "soft"),
            (features[order], LABELS[order], "hard"),
            (features, 100 - 7 * LABELS, "hard"),
        )
    )
    assert hard == pytest.approx(permuted) == pytest.approx(renamed)
    assert soft <= hard + 1e-9  # means lie between the extremes
    lengths = torch.linspace(0.1, 9, 7, dtype=torch.float64)[:, None]
    stretched = triplet_loss(lengths * features, LABELS, features, LABELS, distance="cosine", margin=1.0)
    plain = triplet_loss(features, LABELS, features, LABELS, distance="cosine", margin=1.0)
    assert stretched.item() == pytest.approx(plain.item())


@pytest.mark.parametrize("mining", ["hard", "soft"])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("margin", [0.3, 0.0])
@pytest.mark.parametrize(
    ("labels", "others"),
    [
        ([0, 0, 0], [0, 0]),  # no negative
        ([0, 0, 0], [1, 2]),  # no positive
        ([0, 0, 0], []),
        ([], [0, 1]),
        ([], []),
    ],
)
def test_triplet_of_rows_without_a_pair_is_zero(mining, distance, margin, labels, others):
    anchors = rows(len(labels), dtype=torch.float32).requires_grad_()
    candidates = rows(len(others), seed=1, dtype=torch.float32).requires_grad_()
    labels, others = (torch.tensor(x, dtype=torch.int64) for x in (labels, others))
    loss = triplet_loss(anchors, labels, candidates, others, margin=margin, mining=mining, distance=distance)
    assert loss.item() == 0
    loss.backward()
    assert anchors.grad.eq(0).all() and candidates.grad.eq(0).all()


@pytest.mark.parametrize("mining", ["hard", "soft"])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("margin", [0.3, 0.0])
@pytest.mark.parametrize("value", [0.0, 1.0, 1e3])
def test_equal_rows_have_a_finite_gradient(mining, distance, margin, value):
    features = torch.full((4, 3), value, requires_grad=True)
    labels = torch.tensor([0, 0, 1, 1])
    loss = triplet_loss(features, labels, features, labels, margin=margin, mining=mining, distance=distance)
    loss.backward()
    assert loss.item() == pytest.approx(margin if margin > 0 else math.log(2), abs=1e-5)
    assert features.grad.isfinite().all()
    if distance == "euclidean":
        assert features.grad.eq(0).all()


def test_the_soft_margin_does_not_overflow():
    features = torch.tensor([[0.0], [500.0], [10.0]], requires_grad=True)
    labels = torch.tensor([0, 0, 1])
    loss = triplet_loss(features, labels, features, labels, margin=0)
    # gaps: 500 - 10, 500 - 490, and 0 - 10 for the row that is alone in its class
    gaps = 490 + math.log(1 + math.exp(10)) + math.log(1 + math.exp(-10))
    assert loss.item() == pytest.approx(gaps / 3, rel=1e-5)
    loss.backward()
    assert features.grad.isfinite().all()


def test_soft_mining_of_far_rows_keeps_their_distance():
    # exp(-100) is lost beside the 1e-6 of the published code, whose negatives would be at distance zero
    anchors, candidates = torch.zeros(1, 1), torch.tensor([[1.0], [100.0], [-100.0]])
    sides = anchors, torch.tensor([0]), candidates, torch.tensor([0, 1, 2])
    assert triplet_loss(*sides, margin=0.3, mining="soft").item() == 0
    assert triplet_loss(*sides, margin=99.5, mining="soft").item() == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (6, 9, 3), (40, 30, 64)])
def test_distances_equal_scikit_learn(metric, shape):
    anchors, candidates = rows(shape[0], shape[2]), rows(shape[1], shape[2], seed=1)
    expected = sklearn_distances(anchors.numpy(), candidates.numpy(), metric=metric)
    expected = torch.from_numpy(expected) * (2 if metric == "cosine" else 1)
    torch.testing.assert_close(
        pairwise_distances(anchors, candidates, metric), expected, rtol=1e-7, atol=1e-7
    )
    single = pairwise_distances(anchors.float(), candidates.float(), metric)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=1e-5, atol=1e-5)


def test_distances_far_from_zero_keep_their_digits():
    anchors, candidates = rows(20, 8), rows(30, 8, seed=1)
    exact = torch.cdist(anchors, candidates)
    moved = pairwise_distances((anchors + 1000).float(), (candidates + 1000).float())
    torch.testing.assert_close(
        moved.double(), exact, rtol=0, atol=1e-3
    )  # a^2 + b^2 - 2ab alone is wrong by 1


def test_the_distance_of_a_row_to_itself_is_zero_and_has_no_slope():
    features = (rows(50, 64) + 3).float().requires_grad_()
    distances = pairwise_distances(features, features)
    assert distances.diagonal().eq(distances.diagonal()[0]).all()
    assert distances[0, 0].item() == pytest.approx(1e-6)
    distances.diagonal().sum().backward()
    assert features.grad.eq(0).all()


@pytest.mark.parametrize("mining", ["hard", "soft"])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("margin", [0.3, 0.0])
def test_what_is_no_number_is_seen_in_the_loss(mining, distance, margin):
    features = rows(7)
    features[3, 0] = math.nan
    options = {"margin": margin, "mining": mining, "distance": distance}
    assert pairwise_distances(features, features[:2], distance)[3].isnan().all()
    assert triplet_loss(features, LABELS, rows(5, seed=1), OTHERS, **options).isnan()
    assert triplet_loss(rows(5, seed=1), OTHERS, features, LABELS, **options).isnan()
    assert circle_loss(features, LABELS).isnan()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_low_precision_and_autocast_compute_in_float32(kind):
    features, labels = rows(7, dtype=torch.float32).to(kind), LABELS
    expected = triplet_loss(features.float(), labels, features.float(), labels)
    assert torch.equal(triplet_loss(features, labels, features, labels), expected)
    circle = circle_loss(features.float(), labels)
    assert torch.equal(circle_loss(features, labels), circle)
    mixed = triplet_loss(features, labels, features.double(), labels)
    assert mixed.dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wide = features.float()
        assert torch.equal(triplet_loss(wide, labels, wide, labels), expected)
        assert torch.equal(circle_loss(wide, labels), circle)


# -- circle --------------------------------------------------------------------------------------


def slow_circle(features, labels, margin, gamma):
    """Value and gradient by the cosines, with the factors in brackets held fixed."""
    count = len(labels)
    unit = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in features.tolist()]
    labels = labels.tolist()
    total, slopes = 0.0, [[0.0] * count for _ in range(count)]
    for i in range(count):
        positive, negative = {}, {}
        for j in range(count):
            s = sum(x * y for x, y in zip(unit[i], unit[j], strict=True))
            if labels[i] == labels[j] and i != j:
                factor = max(0.0, 1 + margin - s)
                positive[j] = (math.exp(-gamma * factor * (s - (1 - margin))), -gamma * factor)
            elif labels[i] != labels[j]:
                factor = max(0.0, s + margin)
                negative[j] = (math.exp(gamma * factor * (s - margin)), gamma * factor)
        if not positive or not negative:
            continue
        left = sum(term for term, _ in positive.values())
        right = sum(term for term, _ in negative.values())
        total += math.log(1 + left * right)
        for terms, rest in ((positive, right), (negative, left)):
            for j, (term, slope) in terms.items():
                slopes[i][j] = term * slope * rest / (1 + left * right) / count
    return total / count, torch.tensor(slopes, dtype=torch.float64)


@pytest.mark.parametrize(
    ("margin", "gamma"), [(0.25, 16.0), (0.25, 128.0), (0.4, 8.0), (0.0, 4.0), (1.0, 2.0)]
)
@pytest.mark.parametrize("width", [2, 5])
def test_circle_equals_the_slow_loop(margin, gamma, width):
    features = rows(7, width).requires_grad_()
    value, slopes = slow_circle(features.detach(), LABELS, margin, gamma)
    loss = circle_loss(features, LABELS, margin=margin, gamma=gamma)
    assert loss.item() == pytest.approx(value, rel=1e-9)
    loss.backward()
    ours, features.grad = features.grad, None
    unit = F.normalize(features, dim=1)
    (slopes * (unit @ unit.T)).sum().backward()
    torch.testing.assert_close(ours, features.grad, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(("margin", "gamma"), [(0.25, 128.0), (0.4, 80.0)])
def test_circle_equals_pytorch_metric_learning(margin, gamma):
    features = [rows(16).requires_grad_() for _ in range(2)]
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 4, 5, 5, 6, 6])
    ours = circle_loss(features[0], labels, margin=margin, gamma=gamma)
    theirs = losses.CircleLoss(
        m=margin, gamma=gamma, distance=CosineSimilarity(), reducer=reducers.MeanReducer()
    )(features[1], labels)
    torch.testing.assert_close(ours, theirs)
    ours.backward()
    theirs.backward()
    torch.testing.assert_close(features[0].grad, features[1].grad, rtol=1e-6, atol=1e-9)


def test_circle_has_the_published_defaults():
    features = rows(7)
    named = circle_loss(features, LABELS, margin=0.25, gamma=128)
    assert circle_loss(features, LABELS).item() == named.item()


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [3], []])
def test_circle_of_rows_without_a_pair_is_zero(labels):
    features = rows(len(labels), dtype=torch.float32).requires_grad_()
    loss = circle_loss(features, torch.tensor(labels, dtype=torch.int64))
    assert loss.item() == 0
    loss.backward()
    assert features.grad.eq(0).all()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_circle_of_equal_rows_is_finite(value):
    features = torch.full((4, 3), value, requires_grad=True)
    loss = circle_loss(features, torch.tensor([0, 0, 1, 1]))
    loss.backward()
    assert loss.isfinite() and features.grad.isfinite().all()


# -- cross-entropy -------------------------------------------------------------------------------


def soft_targets(targets, epsilon, classes):
    """[N, C]: 1 - epsilon on the target, the rest shared by the others."""
    table = (epsilon / (classes - 1)).expand(-1, classes).clone()
    return table.scatter_(1, targets[:, None], 1 - epsilon)


@pytest.mark.parametrize("options", [{}, {"smoothing": 0.1}, {"adaptive": 0.2}, {"adaptive": 0.9}])
def test_smoothed_cross_entropy_is_that_of_soft_targets(options):
    logits = rows(6, 4).requires_grad_()
    targets = torch.tensor([0, 3, 1, 1, 2, 0])
    if "adaptive" in options:
        own = logits.detach().softmax(dim=1).gather(1, targets[:, None])
        epsilon = options["adaptive"] * own
    else:
        epsilon = torch.full((6, 1), options.get("smoothing", 0.0), dtype=torch.float64)
    expected = F.cross_entropy(logits, soft_targets(targets, epsilon, 4))
    for divisor in ("rows", "nonzero"):
        loss = smoothed_cross_entropy(logits, targets, divisor=divisor, **options)
        torch.testing.assert_close(loss, expected)
    ours, theirs = (torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (loss, expected))
    torch.testing.assert_close(ours, theirs)  # epsilon is constant for differentiation


@pytest.mark.parametrize("options", [{}, {"smoothing": 0.1}, {"adaptive": 0.2}])
@pytest.mark.parametrize("divisor", ["rows", "nonzero"])
def test_rows_without_a_target_and_absent_classes_do_not_count(options, divisor):
    logits = rows(6, 4)
    targets = torch.tensor([0, 3, -1, 1, -1, 0])
    kept = targets >= 0
    expected = smoothed_cross_entropy(logits[kept], targets[kept], divisor=divisor, **options)
    some = smoothed_cross_entropy(logits, targets, divisor=divisor, **options)
    assert some.item() == pytest.approx(expected.item())
    absent = torch.cat([torch.full((6, 1), -math.inf), logits], dim=1).requires_grad_()
    shifted = targets.where(targets < 0, targets + 1)
    loss = smoothed_cross_entropy(absent, shifted, divisor=divisor, **options)
    assert loss.item() == pytest.approx(expected.item())
    loss.backward()
    assert absent.grad.isfinite().all() and absent.grad[:, 0].eq(0).all()
    nothing = smoothed_cross_entropy(absent, torch.full((6,), -1), divisor=divisor, **options)
    assert nothing.item() == 0


def test_rows_that_are_certain_leave_the_divisor():
    logits = torch.tensor([[0.0, 0.0, 0.0], [100.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 500.0, 0.0]])
    targets = torch.tensor([1, 0, 2, 1])
    total = math.log(3) + math.log(2 + math.e) - 1
    assert smoothed_cross_entropy(logits, targets).item() == pytest.approx(total / 4)
    assert smoothed_cross_entropy(logits, targets, divisor="nonzero").item() == pytest.approx(total / 2)


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"anchors": np.zeros((4, 2))}, "anchors and their labels must be tensors, not ndarray and Tensor"),
        ({"candidate_labels": [0, 1, 2]}, "candidates and their labels must be tensors, not Tensor and list"),
        ({"anchors": torch.zeros(4)}, r"anchors must be a matrix of floating point numbers.*float32 \[4\]"),
        ({"candidates": torch.zeros(3, 2).long()}, "candidates must be a matrix.*int64"),
        ({"candidates": torch.zeros(3, 3)}, r"one width, not \[4, 2\] and \[3, 3\]. Cut the wider side"),
        ({"anchor_labels": torch.zeros(3)}, r"There are 4 anchors, which need as many labels.*\[3\]"),
        ({"candidate_labels": torch.zeros(3, 1)}, r"There are 3 candidates.*\[3, 1\]"),
        ({"margin": -0.1}, "margin must be a number of at least 0, not -0.1"),
        ({"margin": math.nan}, "margin must be a number of at least 0, not nan"),
        ({"mining": "easy"}, "mining must be one of 'hard', 'soft', not 'easy'"),
        ({"distance": "cos"}, "distance must be one of 'euclidean', 'cosine', not 'cos'"),
    ],
)
def test_what_triplet_cannot_use_is_said(change, sentence):
    arguments = {
        "anchors": torch.zeros(4, 2),
        "anchor_labels": torch.zeros(4),
        "candidates": torch.zeros(3, 2),
        "candidate_labels": torch.zeros(3),
        **change,
    }
    with pytest.raises(ValueError, match=sentence):
        triplet_loss(**arguments)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"margin": 2}, "margin must be a number between 0 and 1, not 2"),
        ({"gamma": 0}, "gamma must be a number of at least 1e-06, not 0"),
        ({"labels": torch.zeros(3)}, "There are 4 features, which need as many labels"),
    ],
)
def test_what_circle_cannot_use_is_said(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        circle_loss(torch.zeros(4, 2), arguments.pop("labels", torch.zeros(4)), **arguments)
