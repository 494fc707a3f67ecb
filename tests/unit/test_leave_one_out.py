import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_rows import grouped, unit
from sklearn.metrics import average_precision_score

from compat_lib.evaluation.protocols.leave_one_out import leave_one_out


def make_models(classes=7, images=5, width=6, noise=0.8, seed=0):
    # New and old features of the same images.
    return grouped(classes, images, width, (noise, noise), seed)


def slow_protocol(query, labels, gallery):
    # The L2 distance of normalised rows, one query after another; the same position is removed.
    sides = unit(query), unit(gallery)
    first, precision = [], []
    for i in range(len(labels)):
        others = [j for j in range(len(labels)) if j != i]
        distance = np.array([np.sqrt(((sides[0][i] - sides[1][j]) ** 2).sum()) for j in others])
        right = labels[others] == labels[i]
        first.append(1 + int(np.flatnonzero(right[np.argsort(distance)])[0]))
        precision.append(average_precision_score(right, -distance))
    return np.array(first), np.array(precision)


@pytest.mark.parametrize("seed, width", [(0, 6), (1, 2), (2, 33)])
def test_cross_and_self_test_equal_the_plain_loop(seed, width):
    new, old, labels = make_models(seed=seed, width=width)
    for query, gallery, given_gallery in ((new, old, old), (old, new, new), (new, new, None)):
        first, precision = slow_protocol(query, labels, gallery)
        result = leave_one_out(query, labels, given_gallery)
        assert np.array_equal(result.first_match, first)
        assert result.average_precision == pytest.approx(precision, abs=1e-12)
        assert result.map == pytest.approx(precision.mean())
        assert result.rank == {k: (first <= k).mean() for k in (1, 5)}
        assert result.excluded == 35


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), more=st.integers(1, 9), wide=st.booleans())
def test_cut_keeps_the_first_coordinates_and_then_normalises(seed, more, wide):
    new, old, labels = make_models(seed=seed)
    extra = 50 * np.random.default_rng(seed).normal(size=(len(labels), more))
    sides = (np.c_[new, extra], old) if wide else (new, np.c_[old, extra])
    result, expected = leave_one_out(sides[0], labels, sides[1], cut=True), leave_one_out(new, labels, old)
    assert result.map == expected.map and np.array_equal(result.first_match, expected.first_match)
