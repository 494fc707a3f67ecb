import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_rows import cosines

from compat_lib.evaluation import pairs
from compat_lib.evaluation.protocols.landmarks import landmark_map, revisited


def make_features(queries=8, items=60, width=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(queries, width)), rng.normal(size=(items, width))


def make_lists(queries, items, sizes, seed=0):
    # For each query, disjoint lists of gallery rows; some are empty.
    rng = np.random.default_rng(seed)
    kinds = [[] for _ in sizes]
    for _ in range(queries):
        rows = rng.permutation(items)
        for kind, size in zip(kinds, sizes, strict=True):
            taken, rows = np.split(rows, [rng.integers(0, size + 1)])
            kind.append(taken)
    return kinds


def slow_landmarks(query, gallery, relevant, k):
    # The definition, item by item; ties by gallery row.
    values = []
    for similar, items in zip(cosines(query, gallery), relevant, strict=True):
        found, total = 0, 0.0
        for place, item in enumerate(np.argsort(-similar, kind="stable")[:k], start=1):
            if item in items:
                found += 1
                total += found / place
        values.append(total / min(len(items), k) if len(items) else 0.0)
    return values


def slow_revisited(query, gallery, right, junk, ks):
    # The protocol, item by item: junk is struck from the ranking, then the trapezia are added.
    values, rates = [], []
    for similar, own, ignored in zip(cosines(query, gallery), right, junk, strict=True):
        ranking = [j for j in np.argsort(-similar, kind="stable") if j not in set(ignored)]
        own = set(own)
        if not own:
            values.append(math.nan)
            continue
        area, found = 0.0, 0
        for rank, item in enumerate(ranking):
            if item in own:
                before = found / rank if rank else 1.0
                found += 1
                area += (before + found / (rank + 1)) / 2 / len(own)
        values.append(area)
        last = max(place for place, item in enumerate(ranking, start=1) if item in own)
        rates.append([len(own.intersection(ranking[: min(k, last)])) / min(k, last) for k in ks])
    return values, np.mean(rates, axis=0)


@pytest.mark.parametrize("k", [1, 7, 60, 100])
@pytest.mark.parametrize("size", [3, 20])
def test_landmark_map_equals_the_definition(k, size):
    query, gallery = make_features(seed=size)
    (relevant,) = make_lists(8, 60, [size], seed=k)
    relevant[3] = []
    result = landmark_map(query, gallery, relevant, k=k)
    expected = slow_landmarks(query, gallery, relevant, k)
    assert result.average_precision == pytest.approx(expected, abs=1e-12)
    assert result.map == pytest.approx(np.mean(expected)) and result.k == k
    assert result.empty == sum(len(items) == 0 for items in relevant)
    assert f"map {result.map:.4f} (the first {k} items; 8 queries, {result.empty} without" in result.summary()


def test_ties_of_landmark_map_go_to_the_first_item():
    assert landmark_map(np.ones((1, 2)), np.ones((5, 2)), [[1, 4]], k=4).map == pytest.approx((1 / 2) / 2)


def test_tensors_and_sets_equal_lists():
    query, gallery = make_features(seed=2)
    (relevant,) = make_lists(8, 60, [9], seed=2)
    relevant[0] = []
    expected = landmark_map(query, gallery, relevant).average_precision
    tensors = [torch.as_tensor(x) for x in (query, gallery)]
    mixed = [torch.as_tensor(x, dtype=torch.int64) if i % 2 else set(x) for i, x in enumerate(relevant)]
    assert np.array_equal(landmark_map(*tensors, mixed).average_precision, expected)


@pytest.mark.parametrize("lists", [[[60]], [[3, 3]], [[-1]], [[1], [2]]])
def test_items_that_are_not_there_or_there_twice_are_refused(lists):
    query, gallery = make_features(queries=1)
    with pytest.raises(ValueError, match="items"):
        landmark_map(query, gallery, lists)
    with pytest.raises(ValueError, match="items"):
        revisited(query, gallery, [[1]], lists, [[1]])
    with pytest.raises(ValueError, match="judged items of query 0"):
        revisited(query, gallery, [[1]], [[2]], [[1]])


KS = (1, 3, 10)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tile", [(256, 1024), (3, 7)])
def test_revisited_equals_the_protocol(monkeypatch, seed, tile):
    monkeypatch.setitem(pairs.TILES, "cpu", tile)
    query, gallery = make_features(seed=seed)
    easy, hard, junk = make_lists(8, 60, [3, 5, 12], seed=seed)
    result = revisited(query, gallery, easy, hard, junk, ks=KS)
    kinds = ([easy], [junk, hard]), ([easy, hard], [junk]), ([hard], [junk, easy])
    for found, (right, ignored) in zip((result.easy, result.medium, result.hard), kinds, strict=True):
        right, ignored = ([np.concatenate(rows) for rows in zip(*k, strict=True)] for k in (right, ignored))
        values, rates = slow_revisited(query, gallery, right, ignored, KS)
        assert found.average_precision == pytest.approx(values, abs=1e-12, nan_ok=True)
        assert found.map == pytest.approx(np.nanmean(values))
        assert list(found.precision.values()) == pytest.approx(list(rates)) and tuple(found.precision) == KS
        assert found.queries == np.isfinite(values).sum()
    assert f"map {result.medium.map:.4f}, easy/map" in result.summary()


def test_queries_without_right_items_are_skipped_by_protocol():
    query, gallery = make_features(queries=3, seed=4)
    result = revisited(query, gallery, [[1], [], []], [[], [], [2, 3]], [[], [4], [5]])
    assert (result.easy.queries, result.medium.queries, result.hard.queries) == (1, 2, 1)
    assert np.isnan(result.medium.average_precision).tolist() == [False, True, False]
    nothing = revisited(query, gallery, [[]] * 3, [[]] * 3, [[]] * 3)
    assert math.isnan(nothing.easy.map) and math.isnan(nothing.hard.precision[5])
    assert nothing.medium.queries == 0 and "map n/a" in nothing.summary()


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), values=st.integers(1, 4))
def test_ties_rank_by_gallery_row(seed, values):
    rng = np.random.default_rng(seed)
    query, gallery = (np.eye(values)[rng.integers(0, values, size)] for size in (3, 25))
    (easy, hard, junk) = make_lists(3, 25, [3, 4, 5], seed=seed)
    easy[0] = easy[0] if len(easy[0]) else np.setdiff1d(np.arange(25), np.r_[hard[0], junk[0]])[:1]
    result = revisited(query, gallery, easy, hard, junk, ks=KS).medium
    right = [np.concatenate(rows) for rows in zip(easy, hard, strict=True)]
    expected, rates = slow_revisited(query, gallery, right, junk, KS)
    assert result.average_precision == pytest.approx(expected, nan_ok=True)
    assert list(result.precision.values()) == pytest.approx(list(rates))
