"""Rank merge of two indexes against loops over every query's list, and its ends."""

import numpy as np
import pytest
from plain_rows import average_precision, grouped, unit

from compat_lib.evaluation import retrieval, verification
from compat_lib.evaluation.rank_merge import merged_indexes_curve


def models(seed=0):
    return grouped(12, 4, (5, 8), (1.1, 0.7), seed)


def slow_scale(features, labels):
    rows, scores = unit(features), []
    for i in range(len(rows)):
        scores += [rows[i] @ rows[j] for j in range(len(rows)) if labels[i] != labels[j]]
    centre = np.median(scores)
    return centre, np.quantile(scores, 0.99) - centre


def slow_map(old, new, labels, refreshed):
    """Mean average precision of answers merged by score, each on its model's scale, query by query."""
    sides = [(unit(side), *slow_scale(side, labels)) for side in (old, new)]
    found = []
    for i in range(len(labels)):
        answers = []
        for j in range(len(labels)):
            rows, centre, spread = sides[j in refreshed]
            if i != j:
                answers.append(((rows[i] @ rows[j] - centre) / spread, labels[i] == labels[j]))
        found.append(average_precision([right for _, right in sorted(answers, reverse=True)]))
    return np.mean(found)


def test_equals_a_loop_over_merged_lists():
    old, new, labels = models()
    order = np.random.default_rng(3).permutation(len(labels))
    curve = merged_indexes_curve(old, new, labels, shares=(0, 0.3, 0.75, 1), seed=3, fars=())
    for share, value in zip(curve.shares, curve.values("map"), strict=True):
        refreshed = set(order[: round(share * len(labels))].tolist())
        assert value == pytest.approx(slow_map(old, new, labels, refreshed), abs=1e-6)


def test_it_goes_from_the_old_system_to_the_new_one_whatever_the_spaces():
    old, new, labels = models(1)
    curve = merged_indexes_curve(old, 3 * new, labels, shares=(0, 0.5, 1), fars=(0.1,))
    for place, side in ((0, old), (2, new)):
        assert curve.points[place]["map"] == pytest.approx(retrieval(side, labels).map, abs=1e-6)
        (tar,) = verification(side, labels, fars=(0.1,)).tar
        assert curve.points[place]["tar@far=1e-1"] == pytest.approx(tar, abs=1e-6)
    assert curve.area("map") > curve.points[0]["map"]
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(8, 8)))[0]
    turned = merged_indexes_curve(old, new @ rotation, labels, shares=(0, 0.5, 1), fars=())
    assert turned.values("map") == pytest.approx(curve.values("map"), abs=1e-6)


def test_one_label_shows_no_scale():
    with pytest.raises(ValueError, match="all images have one label"):
        merged_indexes_curve([[1.0, 0.0]] * 3, [[1.0, 0.0]] * 3, [4, 4, 4])
