import million_scale as benchmark
import numpy as np
import pytest

from compat_lib.evaluation import ranking
from compat_lib.evaluation.ranking import top_k


def make_features(queries=13, gallery=40, width=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(queries, width)), rng.normal(size=(gallery, width))


def slow_top_k(query, gallery, k, query_ids=None, gallery_ids=None):
    # One query at a time, float64, sorted by (falling cosine, index); cosines nearer than 1e-6 are ties.
    found = np.full((len(query), k), -1)
    values = np.full((len(query), k), -np.inf)
    for i, a in enumerate(query):
        row = []
        for j, b in enumerate(gallery):
            if query_ids is not None and query_ids[i] == gallery_ids[j]:
                continue
            length = np.sqrt(float(a @ a) * float(b @ b))
            row.append((round(float(a @ b) / length if length else 0.0, 6), j))
        row.sort(key=lambda one: (-one[0], one[1]))
        for place, (value, j) in enumerate(row[:k]):
            found[i, place], values[i, place] = j, value
    return values, found


def small_tiles(monkeypatch):
    monkeypatch.setattr(ranking, "BLOCK", 66)  # eleven rows of width 6
    monkeypatch.setattr(ranking, "SPARE", 1)


@pytest.mark.parametrize("k", [1, 3, 9, 40])
@pytest.mark.parametrize("tiled", [False, True])
def test_it_equals_the_definition(monkeypatch, k, tiled):
    if tiled:
        small_tiles(monkeypatch)
    query, gallery = make_features()
    values, indices = top_k(query, gallery, k)
    expected = slow_top_k(query, gallery, k)
    assert values.dtype == np.float32 and indices.dtype == np.int64
    assert np.array_equal(indices, expected[1])
    assert np.abs(values - expected[0]).max() < 2e-6


def test_what_cannot_be_searched_is_refused():
    query, gallery = make_features()
    with pytest.raises(ValueError, match="k is 0; give a whole number of at least 1"):
        top_k(query, gallery, 0)
    with pytest.raises(ValueError, match="query features have 5 columns and the gallery features 6; cos"):
        top_k(query[:, :5], gallery, 1)


@pytest.mark.parametrize("tiled", [False, True])
def test_ties_go_to_the_first_item(monkeypatch, tiled):
    if tiled:
        small_tiles(monkeypatch)
    query, gallery = make_features(9, 10)
    gallery = np.concatenate([gallery, 4 * gallery, gallery[::-1]])  # each cosine three times
    values, indices = top_k(query, gallery, 30)
    assert np.array_equal(indices, slow_top_k(query, gallery, 30)[1])
    assert np.array_equal(values[:, ::3], values[:, 1::3]) and np.array_equal(values[:, ::3], values[:, 2::3])
    assert np.array_equal(top_k(query, gallery, 4)[1], indices[:, :4])
    assert top_k(np.ones((2, 3)), np.ones((50, 3)), 20)[1].tolist() == [list(range(20))] * 2
    opposed = np.repeat([[1.0, 0.0], [-1.0, 0.0]], 25, axis=0)
    assert top_k([[-1.0, 0.0]], opposed, 50)[1].tolist() == [[*range(25, 50), *range(25)]]


@pytest.mark.parametrize("tiled", [False, True])
def test_equal_ids_are_left_out_and_missing_places_are_marked(monkeypatch, tiled):
    if tiled:
        small_tiles(monkeypatch)
    query, gallery = make_features()
    ids = {"query_ids": np.arange(13) % 5, "gallery_ids": np.arange(40) % 7}
    for k in (5, 40):
        values, indices = top_k(query, gallery, k, **ids)
        expected = slow_top_k(query, gallery, k, **ids)
        assert np.array_equal(indices, expected[1])
        assert np.array_equal(values == -np.inf, indices == -1)
    names = {side: [f"image {i}" for i in values] for side, values in ids.items()}
    assert np.array_equal(top_k(query, gallery, 40, **names)[1], indices)
    assert top_k([[1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]], 4)[1].tolist() == [[1, 0, -1, -1]]
    assert (top_k(query, gallery[:3], 2, query_ids=[0] * 13, gallery_ids=[0] * 3)[1] == -1).all()


def test_rows_of_zeros_have_cosine_zero():
    values, indices = top_k([[0.0, 0.0], [1.0, 0.0]], [[-1.0, 0.0], [0.0, 0.0], [0.0, 1.0]], 3)
    assert indices.tolist() == [[0, 1, 2], [1, 2, 0]]
    assert values.tolist() == [[0.0, 0.0, 0.0], [0.0, 0.0, -1.0]]


def test_benchmark_of_a_million_runs_small():
    size = {"queries": 30, "gallery": 600, "width": 16, "images": 6}
    found, faiss_found = (f(**size, k=10) for f in (benchmark.measure_search, benchmark.measure_faiss))
    assert found["rank1"] == faiss_found["rank1"] > 0.3
    table = benchmark.measure_table(**size)
    assert table["metrics"]["new_new/rank1"] == pytest.approx(found["rank1"])
    assert set(found) >= {"seconds", "cpu_seconds", "peak_mb"} <= set(table)


def test_codes_of_equal_cosine_tie():
    # Products of rounded unit rows add up in another order for each of these.
    assert top_k([[-1, -1]], [[-1, 1], [1, -1]], 2)[1].tolist() == [[0, 1]]
    codes = np.random.default_rng(0).choice([-1, 1], (50, 12))
    expected = np.argsort(-(codes @ codes.T), axis=1, kind="stable")
    assert np.array_equal(top_k(codes, codes, 50)[1], expected)
    counts = np.random.default_rng(1).integers(0, 3, (40, 6)) + np.eye(40, 6, dtype=int)
    assert np.array_equal(top_k(counts, 3 * counts, 40)[1], slow_top_k(counts, 3 * counts, 40)[1])
