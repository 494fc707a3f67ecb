import numpy as np
import pytest
import torch

from compat_lib.evaluation import compare, criterion
from compat_lib.evaluation.generations import generations
from compat_lib.evaluation.intervals import interval

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
    assert list(measured.cells) == [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
    for i, j in ((1, 0), (2, 0), (2, 1)):
        pair = compare(features[j], features[i], labels, fars=FARS, draws=40, seed=2)
        for metric in METRICS:
            for end in ("", "/low", "/high"):
                assert measured.cells[i, j][metric + end] == pair.metrics[f"new_old/{metric}{end}"]
                assert measured.cells[i, i][metric + end] == pair.metrics[f"new_new/{metric}{end}"]
                assert measured.cells[j, j][metric + end] == pair.metrics[f"old_old/{metric}{end}"]
            assert measured.metrics[f"query{i}_gallery{j}/{metric}"] == pair.metrics[f"new_old/{metric}"]
            assert measured.criteria(metric)[i, j] == criterion(pair.metrics, metric)
            difference = pair.draws[f"new_old/{metric}"] - pair.draws[f"old_old/{metric}"]
            margin = measured.margins(metric)[i, j]
            assert (margin.low, margin.high) == pytest.approx(interval(difference))
            assert margin.value == pytest.approx(
                pair.metrics[f"new_old/{metric}"] - pair.metrics[f"old_old/{metric}"]
            )
    assert measured.identities == 15


def test_matrix_is_a_lower_triangle(measured):
    matrix = measured.matrix("map")
    assert np.isnan(matrix[np.triu_indices(3, 1)]).all()
    for i, j in zip(*np.tril_indices(3), strict=True):
        assert matrix[i, j] == measured.cells[i, j]["map"]
    assert measured.criteria() == {(1, 0): True, (2, 0): True, (2, 1): True}
    assert matrix[0, 0] < matrix[1, 0] < matrix[1, 1] < matrix[2, 2]


def test_sentences_name_the_generations(chain):
    features, labels = chain
    result = generations(features, labels, names=("AlexNet", "VGG", "ViT"), fars=(), draws=20)
    assert result.margins()[2, 1].sentence.startswith("ViT/VGG is better than VGG/VGG: the difference is +")


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
        assert set(plain.cells[pair].values()) == {None}
        assert plain.cells[pair].keys() == plain.cells[0, 0].keys()
        assert np.isnan(plain.draws[pair]["map"]).all()
    assert np.isnan(plain.matrix()[1, 0]) and plain.matrix()[1, 1] > 0

    def cut(new, old):
        assert isinstance(new, torch.Tensor) and isinstance(old, torch.Tensor)
        return new[:, : old.shape[1]], old

    sliced = generations(
        wide, labels, comparable={(1, 0): cut, (2, 1): cut, (2, 0): lambda *_: None}, fars=FARS, draws=5
    )
    expected = compare(wide[0], wide[1][:, :4], labels, fars=FARS, draws=5)
    assert sliced.cells[1, 0]["map"] == expected.metrics["new_old/map"]
    assert sliced.cells[1, 0]["map/low"] == expected.metrics["new_old/map/low"]
    assert sliced.cells[1, 1] == plain.cells[1, 1]  # a self-test is that of the whole features
    assert sliced.criteria()[2, 0] is None and sliced.criteria()[2, 1] is not None
    # The function is told the query first.
    flipped = generations(
        features, labels, comparable={(1, 0): lambda new, old: (old, new)}, fars=(), draws=0
    )
    assert flipped.cells[1, 0]["map"] == pytest.approx(
        compare(features[1], features[0], labels, fars=(), draws=0).metrics["new_old/map"]
    )


def test_input_of_every_kind(chain):
    features, labels = chain
    expected = generations(features, labels, fars=(), draws=0)
    tensors = [torch.tensor(x, requires_grad=True) for x in features]
    assert generations(tensors, torch.tensor(labels), fars=(), draws=0).metrics == expected.metrics
    names = np.array([f"n{x:02d}" for x in labels])[::-1]
    odd = [features[0][::-1], features[1].astype(">f8")[::-1], np.asfortranarray(features[2])[::-1].tolist()]
    turned = generations(odd, names, fars=(), draws=0)
    assert turned.metrics == pytest.approx(expected.metrics)
    assert expected.margins()[1, 0].draws == 0 and expected.metrics["query1_gallery0/map/low"] is None


@pytest.mark.parametrize(
    "features, options, message",
    [
        ([np.ones((4, 2))], {}, "a chain of 1 was given"),
        ([], {}, "a chain of 0 was given"),
        ([np.ones((4, 2)), np.ones((3, 2))], {}, r"generation 1 has features of shape \(3, 2\)"),
        ([np.ones((4, 2))] * 2, {"names": ("a",)}, "there are 1 names for 2 generations"),
        ([np.ones((4, 2))] * 2, {"comparable": {(0, 1): None}}, r"comparable speaks of the pair \(0, 1\)"),
        ([np.ones((4, 2))] * 2, {"comparable": {(1, 1): None}}, r"0 <= gallery < query < 2"),
        ([np.ones((4, 2)), np.full((4, 2), np.nan)], {}, "4 of the 4 rows of the new features"),
    ],
)
def test_bad_input_gets_a_sentence(features, options, message):
    with pytest.raises(ValueError, match=message):
        generations(features, [0, 0, 1, 1], **options)


def test_an_unknown_metric_gets_a_sentence(measured):
    with pytest.raises(ValueError, match="'mAP' was not measured; choose one of tar@far=1e-1, map"):
        measured.matrix("mAP")
