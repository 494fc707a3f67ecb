"""Class means and credible rows against slow loops and their invariants."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compat_lib import old_statistics
from compat_lib.old_statistics import class_means, credible_rows


def draw(seed, rows=40, width=5, classes=6):
    generator = np.random.default_rng(seed)
    features = 3 * generator.normal(size=(rows, width)) + 0.5
    return torch.tensor(features, dtype=torch.float32), torch.tensor(generator.integers(0, classes, rows))


def slow_distances(features, labels, columns):
    unit = np.stack([row / np.linalg.norm(row) for row in features.double().numpy()])
    if columns:
        for j in range(unit.shape[1]):
            unit[:, j] = unit[:, j] / math.sqrt(sum(value**2 for value in unit[:, j]))
    distances = np.empty(len(unit))
    for i, label in enumerate(labels.tolist()):
        own = [unit[k] for k in range(len(unit)) if labels[k] == label]
        distances[i] = np.linalg.norm(unit[i] - sum(own) / len(own))
    return distances


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("block", [7, 65_536])
def test_means_equal_the_slow_loop_in_any_block_size(unit, block, monkeypatch):
    monkeypatch.setattr(old_statistics, "ROWS_AT_ONCE", block)
    features, labels = draw(0)
    means = class_means(features, labels, 8, unit=unit)
    for label in range(8):
        own = [
            row / np.linalg.norm(row) if unit else row for row in features[labels == label].double().numpy()
        ]
        expected = sum(own) / len(own) if own else np.zeros(5)
        np.testing.assert_allclose(means[label].numpy(), expected, rtol=1e-6, atol=1e-7)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000))
def test_order_of_the_rows_does_not_matter(seed):
    features, labels = draw(seed)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        class_means(features[order], labels[order], 6), class_means(features, labels, 6)
    )
    mask = credible_rows(features, labels, 6, 0.55)  # two rows of one class always tie: keep both of them
    assert torch.equal(credible_rows(features[order], labels[order], 6, 0.55), mask[order])


@pytest.mark.parametrize("columns", [True, False])
@pytest.mark.parametrize("share", [0.3, 0.55, 0.9])
@pytest.mark.parametrize("block", [7, 65_536])
def test_credible_rows_equal_the_slow_loop(columns, share, block, monkeypatch):
    monkeypatch.setattr(old_statistics, "ROWS_AT_ONCE", block)
    features, labels = draw(1, rows=60)
    distances = slow_distances(features, labels, columns)
    mask = credible_rows(features, labels, 6, share, columns).tolist()
    for label in range(6):
        own = [i for i in range(60) if labels[i] == label]
        kept = sorted(own, key=lambda i: distances[i])[: math.ceil(round(share * len(own), 9))]
        assert {i for i in own if mask[i]} == set(kept)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1000), percent=st.integers(0, 100), columns=st.booleans())
def test_kept_count_of_each_class_is_the_ceiling(seed, percent, columns):
    features, labels = draw(seed)
    mask = credible_rows(features, labels, 6, percent / 100, columns)
    for label in range(6):
        size = int((labels == label).sum())
        assert int(mask[labels == label].sum()) == -(-percent * size // 100)


def test_share_one_keeps_all_share_zero_nothing_and_a_single_row_is_kept():
    features, labels = draw(0)
    assert credible_rows(features, labels, 6, 1.0).all()
    assert not credible_rows(features, labels, 6, 0.0).any()
    assert credible_rows(features[:3], torch.tensor([2, 0, 5]), 6, 0.01).all()


def test_count_is_not_raised_by_rounding():
    features, _ = draw(0, rows=100)
    assert credible_rows(features, torch.zeros(100).long(), 1, 0.55).sum() == 55  # 0.55 * 100 > 55


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), powers=st.lists(st.integers(-8, 8), min_size=40, max_size=40))
def test_length_of_a_row_does_not_matter(seed, powers):
    features, labels = draw(seed)
    scaled = features * torch.tensor([2.0**power for power in powers])[:, None]
    for columns in (True, False):
        mask = credible_rows(features, labels, 6, 0.5, columns)
        assert torch.equal(credible_rows(scaled, labels, 6, 0.5, columns), mask)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), powers=st.lists(st.integers(-4, 4), min_size=5, max_size=5))
def test_with_columns_the_scale_of_a_column_does_not_matter(seed, powers):
    features, labels = draw(seed)
    scales = 2.0 ** torch.tensor(powers, dtype=torch.float64)
    real = torch.nn.functional.normalize

    def normalise_and_scale(rows, dim):  # the scale is applied after the rows were normalised
        return real(rows, dim=dim) * scales

    mask = credible_rows(features, labels, 6, 0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(old_statistics.F, "normalize", normalise_and_scale)
        assert torch.equal(credible_rows(features, labels, 6, 0.5), mask)


def test_a_column_of_zeros_is_harmless():
    features, labels = draw(0)
    features[:, 2] = 0
    mask = credible_rows(features, labels, 6, 0.5)
    assert torch.equal(mask, credible_rows(features[:, [0, 1, 3, 4]], labels, 6, 0.5))


def test_of_equal_distances_the_earlier_row_is_kept():
    features = torch.tensor([[1.0, 1.0], [1.0, -1.0], [1.0, 1.0], [1.0, -1.0]])
    mask = credible_rows(features, torch.zeros(4).long(), 1, 0.5, columns=False)
    assert mask.tolist() == [True, True, False, False]


@settings(deadline=None)
@given(seed=st.integers(0, 1000))
def test_two_rows_of_a_class_are_equally_far_from_their_mean(seed):
    features, _ = draw(seed, rows=2)
    assert credible_rows(features, torch.zeros(2).long(), 1, 0.5).tolist() == [True, False]
