import math

import numpy as np
import pytest
import torch
import verification_speed as benchmark
from plain_rows import best_tar, grouped
from sklearn.metrics import roc_curve as sklearn_roc

from compat_lib.evaluation import cosine_histograms, counting, inputs, verification
from compat_lib.evaluation import pairs as pairs_module
from compat_lib.evaluation.pairs import PairScores


def make_features(classes, images, width=8, noise=0.7, seed=0):
    return grouped(classes, images, width, (noise,), seed)


def slow_pairs(query, query_labels, gallery=None, gallery_labels=None, query_ids=None, gallery_ids=None):
    # Every pair in a plain loop, float64.
    same, cosines = [], []
    inside = gallery is None
    if inside:
        gallery, gallery_labels = query, query_labels
    for i, a in enumerate(query):
        for j, b in enumerate(gallery):
            if (inside and j <= i) or (query_ids is not None and query_ids[i] == gallery_ids[j]):
                continue
            cosines.append(float(a @ b) / math.sqrt(float(a @ a) * float(b @ b)))
            same.append(bool(query_labels[i] == gallery_labels[j]))
    return np.array(same), np.array(cosines)


def tile_scores(features, labels):
    # The same floats that the library counts.
    pairs = PairScores(inputs.unit_rows(features, "query"), labels)
    same, values = [], []
    for tile in pairs.tiles():
        own = torch.zeros(tile.scores.numel(), dtype=torch.bool)
        own[tile.genuine] = True
        counted = tile.scores.reshape(-1) >= -1
        same.append(own[counted].numpy())
        values.append(tile.scores.reshape(-1)[counted].numpy())
    return np.concatenate(same), np.concatenate(values)


FARS = (0.5, 0.1, 0.03, 0.01)


@pytest.mark.parametrize("sides", ["one set", "two sets", "two sets with ids"])
def test_rates_and_thresholds_equal_the_definition(sides):
    features, labels = make_features(8, 6)
    arguments, ids = (features, labels), {}
    if sides != "one set":
        arguments = features[:20], labels[:20], features[10:], labels[10:]
    if sides == "two sets with ids":
        ids = {"query_ids": np.arange(20), "gallery_ids": np.arange(10, 48)}
    result = verification(*arguments, fars=FARS, **ids)
    same, cosines = slow_pairs(*arguments, **ids)
    assert (result.positives, result.negatives) == (same.sum(), (~same).sum())
    assert result.tar == pytest.approx([best_tar(same, cosines, far) for far in FARS], abs=1e-12)
    if sides == "one set":  # the thresholds are exact for these floats
        same, cosines = tile_scores(features, labels)
        for tar, far, threshold in zip(result.tar, FARS, result.thresholds, strict=True):
            assert (cosines[same] >= threshold).mean() == pytest.approx(tar)
            assert (cosines[~same] >= threshold).mean() <= far
    else:
        assert result.excluded == (10 if ids else 0)


@pytest.mark.parametrize(("tile", "images"), [((3, 5), 4), ((8, 4), 4), ((256, 1024), 100)])
def test_many_tiles_equal_scikit_learn(monkeypatch, tile, images):
    monkeypatch.setitem(pairs_module.TILES, "cpu", tile)
    features, labels = make_features(15, images)
    same, values = tile_scores(features, labels)
    assert len(same) == 15 * images * (15 * images - 1) // 2
    far, tar, thresholds = sklearn_roc(same, values, drop_intermediate=False)
    result = verification(features, labels, fars=FARS)
    assert result.tar == tuple(tar[np.searchsorted(far, f, "right") - 1] for f in FARS)
    place = np.searchsorted(-thresholds, -result.roc.thresholds, "right") - 1
    assert np.array_equal(far[place], result.roc.far) and np.array_equal(tar[place], result.roc.tar)


def test_refinement_by_passes_is_exact_for_scores_crowded_near_zero(monkeypatch):
    # Cosines of about 1e-8: the bin at zero holds a thousand million floats and takes several passes.
    monkeypatch.setattr(counting, "TABLE", 64)
    rng = np.random.default_rng(0)
    query = np.c_[np.ones(12), np.zeros(12)]
    gallery = np.c_[1e-8 * rng.normal(size=14), np.ones(14)]
    labels, other = rng.integers(0, 3, 12), rng.integers(0, 3, 14)
    result = verification(query, labels, gallery, other, fars=FARS)
    same, cosines = slow_pairs(query, labels, gallery, other)
    cosines = cosines.astype(np.float32)
    assert result.tar == pytest.approx([best_tar(same, cosines, far) for far in FARS], abs=1e-12)


def test_unresolved_far_is_not_measurable():
    features, labels = make_features(5, 2)  # 40 impostor pairs
    result = verification(features, labels, fars=(1 / 40, 1 / 41))
    assert result.measurable == (True, False)
    assert math.isnan(result.tar[1]) and math.isnan(result.thresholds[1])
    assert "n/a" in result.summary()


def test_tie_is_accepted_or_refused_as_a_whole():
    # Cosines with the query: right 1, right 0.6, wrong 0.6, wrong 0. One of two impostors may pass: 0.6 may.
    gallery = [[1.0, 0.0], [0.6, 0.8], [0.6, 0.8], [0.0, 1.0]]
    result = verification([[2.0, 0.0]], [0], gallery, [0, 0, 1, 1], fars=(1.0, 0.5, 0.49))
    assert result.tar[:2] == (1.0, 1.0) and not result.measurable[2]
    doubled = verification([[2.0, 0.0]] * 2, [0, 0], gallery, [0, 0, 1, 1], fars=(0.49, 0.25))
    assert doubled.tar == (0.5, 0.5)  # one of four may pass, but the two at 0.6 are tied


def test_histograms_equal_numpy():
    features, labels = make_features(12, 5)
    same, cosines = slow_pairs(features, labels)
    edges, right, wrong = cosine_histograms(features, labels, bins=37)
    assert np.array_equal(right, np.histogram(cosines[same], edges)[0])
    assert np.array_equal(wrong, np.histogram(cosines[~same], edges)[0])
    assert cosine_histograms(np.ones((3, 2)), [0, 0, 0], bins=4)[1].tolist() == [0, 0, 0, 3]


def test_rows_taken_piece_by_piece_are_those_of_the_whole(monkeypatch):
    features = make_features(9, 5)[0]
    features[7] = 0
    expected = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    whole = inputs.unit_rows(features, "query")
    assert whole.dtype == torch.float32 and np.abs(whole.numpy() - expected).max() < 1e-7
    monkeypatch.setattr(inputs, "ENTRIES", 20)  # two rows at a time
    order = torch.from_numpy(np.random.default_rng(0).permutation(45)[:31])
    rows = inputs.UnitRows(features, "query")
    assert rows.shape == (45, 8) and len(rows) == 45 and rows.device.type == "cpu"
    assert torch.equal(rows[order], whole[order])
    features[[3, 30, 31], 2] = np.inf, np.nan, -np.inf
    with pytest.raises(ValueError, match="3 of the 45 rows of the gallery features hold NaN or infinite"):
        inputs.UnitRows(features, "gallery")


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint16, np.float16, np.longdouble])
def test_every_type_of_number_is_taken(dtype):
    values = np.array([[1, 0], [1, 1], [0, 0]], dtype)
    expected = np.array([[1, 0], [0.5**0.5] * 2, [0, 0]])
    assert inputs.unit_rows(values, "query").numpy() == pytest.approx(expected)


@pytest.mark.parametrize(
    "arguments, options, message",
    [
        (([[1.0], [2.0]], [0, 1]), {}, "no genuine pair"),
        (([[1.0], [2.0]], [0, 0]), {}, "no impostor pair"),
        (([[1.0]], [0], [[1.0, 2.0]], [0]), {}, "1 columns and the gallery features 2"),
        (([[1.0]], [0], [[1.0]], ["a"]), {}, "names and the other"),
        (([[1.0]], [0], [[1.0]]), {}, "without gallery_labels"),
        (([[1.0]], [0]), {"query_ids": [0]}, "without gallery features"),
        (([[1.0]], [0], [[1.0]], [0]), {"query_ids": [0]}, "only one of query_ids"),
        (([[1.0]], [0]), {"fars": [10]}, "a FAR of 10 was given; it is a fraction"),
        (([[1.0]], [0]), {"fars": [0]}, "a FAR of 0 was given"),
    ],
)
def test_bad_input_gets_a_sentence(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        verification(*arguments, **options)


def test_benchmark_compares_the_same_scores():
    size = {"classes": 40, "images": 5, "width": 8}
    ours = benchmark.measure_ours(**size)
    theirs = benchmark.measure_sklearn(**size, roc=ours["result"].roc)
    assert theirs["curve"] <= 1e-6
    assert ours["result"].tar[:2] == pytest.approx(theirs["tar"][:2], abs=1e-6)


@pytest.mark.parametrize("chosen", ["highest", "high", "medium"])
def test_products_stay_in_float32_whatever_training_chose(monkeypatch, chosen):
    backends = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    seen, multiply = [], torch.mm

    def watched(*sides):
        seen.append([backend.fp32_precision for backend in backends])
        return multiply(*sides)

    before = torch.get_float32_matmul_precision()
    monkeypatch.setattr(torch, "mm", watched)
    try:
        torch.set_float32_matmul_precision(chosen)
        settings = [backend.fp32_precision for backend in backends]
        verification([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]], [0, 0, 1])
        assert seen and all(precision == ["ieee", "ieee"] for precision in seen)
        assert [backend.fp32_precision for backend in backends] == settings
        assert torch.get_float32_matmul_precision() == chosen
    finally:
        torch.set_float32_matmul_precision(before)
