import numpy as np
import pytest
import torch
from flat_records import flat

from compat_lib.evaluation import compare, criterion
from compat_lib.evaluation.bootstrap import interval
from compat_lib.evaluation.chain import generations

FARS = (0.1,)
METRICS = ("map", "rank1", "rank5", "tar@far=1e-1")


@pytest.fixture(scope="module")
def chain():
    # Three generations in one space, each with less noise than the one before.
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(15), 4))
    centres = rng.normal(size=(15, 12))
    return [centres[labels] + noise * rng.normal(size=(60, 12)) for noise in (1.3, 0.8, 0.4)], labels


@pytest.fixture(scope="module")
def measured(chain):
    return generations(*chain, fars=FARS, draws=40, seed=2)


def test_cells_equal_the_comparisons_of_two_models(chain, measured):
    features, labels = chain
    models = (("old", "old"), ("new", "old"), ("new", "new"))
    for i, j in ((1, 0), (2, 0), (2, 1)):
        pair = compare(features[j], features[i], labels, fars=FARS, draws=40, seed=2)
        for metric in METRICS:
            cells = (measured.get(j, j, metric), measured.get(i, j, metric), measured.get(i, i, metric))
            for cell, names in zip(cells, models, strict=True):
                expected = pair.records.get(*names, metric)
                assert (cell.value, cell.low, cell.high) == (expected.value, expected.low, expected.high)
            bar, cross, _ = cells
            assert measured.criteria(metric)[i, j] == criterion(pair.records, metric)
            margin = measured.margins(metric)[i, j]
            assert (margin.low, margin.high) == pytest.approx(interval(cross.draws - bar.draws))
            assert margin.value == pytest.approx(cross.value - bar.value)


def test_matrix_is_a_lower_triangle(measured):
    matrix = measured.matrix("map")
    assert np.isnan(matrix[np.triu_indices(3, 1)]).all()
    for i, j in zip(*np.tril_indices(3), strict=True):
        assert matrix[i, j] == measured.get(i, j).value
    assert measured.criteria() == {(1, 0): True, (2, 0): True, (2, 1): True}
    assert matrix[0, 0] < matrix[1, 0] < matrix[1, 1] < matrix[2, 2]


def test_equal_generations_neither_gain_nor_lose(chain):
    features, labels = chain
    result = generations([features[0]] * 4, labels, fars=FARS, draws=10)
    for metric in METRICS:
        matrix = result.matrix(metric)
        assert len(set(matrix[np.tril_indices(4)])) == 1
        assert set(result.criteria(metric).values()) == {False}
        assert {(m.value, m.low, m.high) for m in result.margins(metric).values()} == {(0, 0, 0)}


def test_unequal_widths_are_compared_where_a_function_says_how(chain):
    features, labels = chain
    wide = [features[0][:, :4], features[1][:, :8], features[2]]
    plain = generations(wide, labels, fars=FARS, draws=5)
    for pair in ((1, 0), (2, 0), (2, 1)):
        assert plain.criteria()[pair] is None and pair not in plain.margins()
        assert {plain.get(*pair, metric).value for metric in METRICS} == {None}
    assert np.isnan(plain.matrix()[1, 0]) and plain.matrix()[1, 1] > 0

    def cut(new, old):
        assert isinstance(new, torch.Tensor) and isinstance(old, torch.Tensor)
        return new[:, : old.shape[1]], old

    sliced = generations(
        wide, labels, comparable={(1, 0): cut, (2, 1): cut, (2, 0): lambda *_: None}, fars=FARS, draws=5
    )
    expected = compare(wide[0], wide[1][:, :4], labels, fars=FARS, draws=5)
    assert sliced.get(1, 0).value == flat(expected.records)["new_old/map"]
    assert sliced.get(1, 1) == plain.get(1, 1)  # a self-test is that of the whole features
    assert sliced.criteria()[2, 0] is None and sliced.criteria()[2, 1] is not None
    # The function is told the query first.
    flipped = generations(
        features, labels, comparable={(1, 0): lambda new, old: (old, new)}, fars=(), draws=0
    )
    assert flipped.get(1, 0).value == pytest.approx(
        compare(features[1], features[0], labels, fars=(), draws=0).records.value("new", "old", "map")
    )
