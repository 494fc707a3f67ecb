import numpy as np
import pytest
import ranking_speed as benchmark
from plain_rows import average_precision, cosines, grouped
from sklearn.metrics import average_precision_score

from compat_lib.evaluation import pairs, ranking, retrieval
from compat_lib.evaluation.backfill import mixed_gallery_curve
from compat_lib.evaluation.rank_merge import merged_indexes_curve


def make_features(classes=8, images=5, width=6, noise=0.8, seed=0):
    return grouped(classes, images, width, (noise,), seed)


def test_leave_one_out_equals_scikit_learn():
    features, labels = make_features()
    result = retrieval(features, labels)
    similar = cosines(features, features)
    for i in range(len(labels)):
        others = np.arange(len(labels)) != i
        expected = average_precision_score(labels[others] == labels[i], similar[i, others])
        assert result.average_precision[i] == pytest.approx(expected, abs=1e-12)
        ranked = labels[others][np.argsort(-similar[i, others])]
        assert result.first_match[i] == 1 + np.flatnonzero(ranked == labels[i])[0]
    assert result.map == pytest.approx(result.average_precision.mean())
    assert result.rank == {k: (result.first_match <= k).mean() for k in (1, 5)}
    assert (result.queries, result.excluded) == (40, 40)
    same = {"query_ids": np.arange(40), "gallery_ids": np.arange(40)}  # no image meets itself
    told = retrieval(features, labels, features, labels, **same)
    assert np.array_equal(told.average_precision, result.average_precision) and told.rank == result.rank


@pytest.mark.parametrize("noise", [0.1, 1.0, 20.0])
@pytest.mark.parametrize("tile", [(256, 1024), (7, 16)])  # equal rows score equally in these
@pytest.mark.parametrize("matches", [ranking.MATCHES, 300])  # the latter: fewer rows at a time than in a tile
def test_few_and_large_classes_near_and_far_equal_scikit_learn(monkeypatch, noise, tile, matches):
    # Few right items are compared with all scores, many by sorting these; classes of 1, 3 and 120 images.
    monkeypatch.setitem(pairs.TILES, "cpu", tile)
    monkeypatch.setattr(ranking, "MATCHES", matches)
    rng = np.random.default_rng(1)
    labels = np.r_[np.repeat(0, 120), np.repeat(np.arange(1, 20), 3), np.arange(20, 40)]
    centres = rng.normal(size=(41, 12))
    gallery = (centres[labels] + noise * rng.normal(size=(len(labels), 12))).astype(np.float32)
    other = np.array([0, 0, 1, 7, 25, 40, 19, 0, 12])
    query = (centres[other] + noise * rng.normal(size=(9, 12))).astype(np.float32)
    gallery[5:8] = gallery[130]  # ties of right and wrong items
    ids = np.arange(9), np.r_[np.arange(9)[::-1], np.arange(100, 100 + len(labels) - 9)]
    result = retrieval(query, other, gallery, labels, query_ids=ids[0], gallery_ids=ids[1])
    similar = cosines(query.astype(float), gallery.astype(float))
    for i in range(9):
        counted = ids[1] != ids[0][i]
        right = (labels == other[i])[counted]
        if not right.any():
            assert np.isnan(result.average_precision[i]) and result.first_match[i] == 0
            continue
        # Sorted by cosine, wrong ones first among ties.
        order = np.lexsort((right, -similar[i, counted].round(9)))
        assert result.average_precision[i] == pytest.approx(average_precision(right[order]), abs=1e-12)
        assert result.first_match[i] == 1 + np.argmax(right[order])


@pytest.mark.parametrize("size", [1, 6**-0.5, 1e300, 1e-300])
def test_codes_of_any_size_tie_in_every_metric(size):
    rng = np.random.default_rng(0)
    codes, labels = rng.choice([-1.0, 0.0, 1.0], (40, 6)), np.repeat(np.arange(10), 4)
    codes[3] = 0
    lengths = np.maximum(np.linalg.norm(codes, axis=1), 1)  # a row of zeros stays one, at cosine 0
    similar = (codes @ codes.T / np.outer(lengths, lengths)).round(9)
    expected = []
    for row, line in enumerate(similar):
        others = np.arange(40) != row
        right = (labels == labels[row])[others]
        expected.append(average_precision(right[np.lexsort((right, -line[others]))]))  # wrong ones first
    features, ids = codes * size * rng.uniform(1, 2, (40, 1)), np.arange(40)
    people = {"query_ids": ids, "gallery_ids": ids}
    found = [
        retrieval(features, labels, features, labels, **people).average_precision,
        mixed_gallery_curve(features, -features, labels, shares=(0,), fars=(), cross=(features, features)),
        merged_indexes_curve(features, features, labels, shares=(0.5,), fars=()),
    ]
    for one in found:
        precision = one if isinstance(one, np.ndarray) else one.average_precision[0]
        np.testing.assert_allclose(precision, expected, atol=1e-12)


def test_query_without_match_is_skipped_and_counted():
    result = retrieval(make_features(2, 3)[0], [0, 0, 1, 1, 1, 9])
    assert result.queries == 5 and "5 of 6 queries" in result.summary()
    assert np.isnan(result.average_precision[5]) and result.first_match[5] == 0
    assert result.map == pytest.approx(np.nanmean(result.average_precision))


def test_large_labels_of_two_types_stay_apart():
    labels = np.array([2**60, 2**60 + 1])  # equal in float64
    query, gallery = [[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.1], [0.1, 1.0]]
    result = retrieval(query, labels.astype(np.uint64), gallery, labels[::-1])
    assert result.first_match.tolist() == [2, 2]


def test_benchmark_ranks_alike():
    size = {"queries": 60, "gallery": 90, "width": 8, "images": 5}
    ours = benchmark.measure_ours(**size)
    for search in benchmark.SEARCHES:
        assert benchmark.measure_theirs(search, **size)["map"] == pytest.approx(ours["map"], abs=1e-6)
