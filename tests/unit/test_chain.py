import numpy as np
import pytest
import torch
from flat_records import flat
from plain_rows import grouped

from compat_lib.evaluation import compare
from compat_lib.evaluation.chain import average_accuracy, average_compatibility, generations, matrix

FARS = (0.1,)
METRICS = ("map", "rank1", "rank5", "tar@far=1e-1")
NAMES = ["generation 0", "generation 1", "generation 2"]


@pytest.fixture(scope="module")
def chain():
    # Three generations in one space, each with less noise than the one before.
    *features, labels = grouped(15, 4, 12, (1.3, 0.8, 0.4))
    return features, labels


@pytest.fixture(scope="module")
def measured(chain):
    return generations(*chain, fars=FARS, draws=40, seed=2)


def test_cells_equal_the_comparisons_of_two_models(chain, measured):
    features, labels = chain
    models = (("old", "old"), ("new", "old"), ("new", "new"))
    for i, j in ((1, 0), (2, 0), (2, 1)):
        pair = compare(features[j], features[i], labels, fars=FARS, draws=40, seed=2)
        for metric in METRICS:
            for (a, b), names in zip(((j, j), (i, j), (i, i)), models, strict=True):
                cell, expected = measured.get(NAMES[a], NAMES[b], metric), pair.records.get(*names, metric)
                assert (cell.value, cell.low, cell.high) == (expected.value, expected.low, expected.high)
                assert np.array_equal(cell.draws, expected.draws, equal_nan=True)


def test_unequal_widths_are_compared_where_a_function_says_how(chain):
    features, labels = chain
    wide = [features[0][:, :4], features[1][:, :8], features[2]]
    plain = generations(wide, labels, fars=FARS, draws=5)
    values = matrix(plain)
    assert np.isnan(values[np.tril_indices(3, -1)]).all() and np.isfinite(np.diag(values)).all()

    def cut(new, old):
        assert isinstance(new, torch.Tensor) and isinstance(old, torch.Tensor)
        return new[:, : old.shape[1]], old

    how = {(1, 0): cut, (2, 1): cut, (2, 0): lambda *_: None}
    sliced = generations(wide, labels, comparable=how, fars=FARS, draws=5)
    expected = compare(wide[0], wide[1][:, :4], labels, fars=FARS, draws=5)
    assert matrix(sliced)[1, 0] == flat(expected.records)["new_old/map"]
    assert np.array_equal(np.diag(matrix(sliced)), np.diag(values))  # self-tests are of the whole features
    assert np.isnan(matrix(sliced)[2, 0]) and np.isfinite(matrix(sliced)[2, 1])
    # The function is told the query first.
    how = {(1, 0): lambda new, old: (old, new)}
    flipped = generations(features, labels, comparable=how, fars=(), draws=0)
    swapped = compare(features[1], features[0], labels, fars=(), draws=0).records
    assert matrix(flipped)[1, 0] == pytest.approx(swapped.value("new", "old", "map"))


# What the repository of arXiv 2405.02581, miccunifi/iamcl2r, prints of seven generations in
# notebooks/iamcl2r_hoc.ipynb and, of the baseline, notebooks/eval.ipynb: CIFAR-10, its test part the gallery.
PRINTED = {
    (0.95, 68.899): """0.58892
        0.597   0.6156
        0.6305  0.65276 0.69314
        0.63336 0.65298 0.70626 0.72374
        0.65006 0.67872 0.70754 0.72114 0.73828
        0.6408  0.67188 0.71166 0.72712 0.74704 0.76194
        0.6314  0.6635  0.72096 0.73496 0.75232 0.76652 0.77164""",
    (0.00, 35.179): """0.6342
        0.61556 0.63092
        0.11708 0.1123  0.72734
        0.1143  0.1053  0.69232 0.703
        0.0908  0.07756 0.09296 0.08552 0.74464
        0.08512 0.07364 0.10338 0.09524 0.7226  0.72312
        0.09718 0.08578 0.0975  0.09748 0.70352 0.7063  0.71544""",
}


@pytest.mark.parametrize(("expected", "text"), PRINTED.items(), ids=["hoc", "baseline"])
def test_average_compatibility_and_accuracy_are_those_that_were_printed(expected, text):
    lines = [[float(value) for value in line.split()] for line in text.splitlines()]
    printed = np.array([line + [np.nan] * (7 - len(line)) for line in lines])
    assert round(average_compatibility(printed), 2) == expected[0]
    assert round(100 * average_accuracy(printed), 3) == expected[1]


def test_averages_know_what_was_not_measured(chain):
    features, labels = chain
    apart = matrix(generations([features[0][:, :4], features[1]], labels, fars=(), draws=0))
    assert average_compatibility(apart) is None and average_accuracy(apart) is None
    alone = matrix(generations(features[:1], labels, fars=(), draws=0))
    assert average_compatibility(alone) is None and average_accuracy(alone) == alone[0, 0]
