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


def slow_revisited(query, gallery, right, junk):
    # The protocol, item by item: junk is struck from the ranking, then the trapezia are added.
    found = {name: [] for name in NAMES}
    for similar, own, ignored in zip(cosines(query, gallery), right, junk, strict=True):
        ranking = [j for j in np.argsort(-similar, kind="stable") if j not in set(ignored)]
        own = set(own)
        area, hits, last = 0.0, 0, 0
        for rank, item in enumerate(ranking):
            if item in own:
                before = hits / rank if rank else 1.0
                hits, last = hits + 1, rank + 1
                area += (before + hits / (rank + 1)) / 2 / len(own)
        found["map"].append(area if own else math.nan)
        for k in (1, 5, 10):
            most = min(k, last)
            found[f"mp@{k}"].append(len(own.intersection(ranking[:most])) / most if own else math.nan)
    return found


@pytest.mark.parametrize("k", [1, 7, 60, 100])
@pytest.mark.parametrize("size", [3, 20])
def test_landmark_map_equals_the_definition(k, size):
    query, gallery = make_features(seed=size)
    (relevant,) = make_lists(8, 60, [size], seed=k)
    relevant[3] = []
    expected = slow_landmarks(query, gallery, relevant, k)
    assert landmark_map(query, gallery, relevant, k=k) == pytest.approx(expected, abs=1e-12)


def test_tensors_and_sets_equal_lists():
    query, gallery = make_features(seed=2)
    (relevant,) = make_lists(8, 60, [9], seed=2)
    relevant[0] = []
    expected = landmark_map(query, gallery, relevant)
    tensors = [torch.as_tensor(x) for x in (query, gallery)]
    mixed = [torch.as_tensor(x, dtype=torch.int64) if i % 2 else set(x) for i, x in enumerate(relevant)]
    assert np.array_equal(landmark_map(*tensors, mixed), expected)


@pytest.mark.parametrize("lists", [[[60]], [[3, 3]], [[-1]], [[1], [2]]])
def test_items_that_are_not_there_or_there_twice_are_refused(lists):
    query, gallery = make_features(queries=1)
    with pytest.raises(ValueError, match="items"):
        landmark_map(query, gallery, lists)
    with pytest.raises(ValueError, match="items"):
        revisited(query, gallery, [[1]], lists, [[1]])
    with pytest.raises(ValueError, match="judged items of query 0"):
        revisited(query, gallery, [[1]], [[2]], [[1]])


NAMES = ("map", "mp@1", "mp@5", "mp@10")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tile", [(256, 1024), (3, 7)])
def test_revisited_equals_the_protocol(monkeypatch, seed, tile):
    monkeypatch.setitem(pairs.TILES, "cpu", tile)
    query, gallery = make_features(seed=seed)
    easy, hard, junk = make_lists(8, 60, [3, 5, 12], seed=seed)
    result = revisited(query, gallery, easy, hard, junk)
    kinds = {"easy/": ([easy], [junk, hard]), "": ([easy, hard], [junk]), "hard/": ([hard], [junk, easy])}
    assert set(result) == {kind + name for kind in kinds for name in NAMES}
    for kind, lists in kinds.items():
        right, ignored = ([np.concatenate(rows) for rows in zip(*k, strict=True)] for k in lists)
        for name, values in slow_revisited(query, gallery, right, ignored).items():
            assert result[kind + name] == pytest.approx(values, abs=1e-12, nan_ok=True)


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), values=st.integers(1, 4))
def test_ties_rank_by_gallery_row(seed, values):
    rng = np.random.default_rng(seed)
    query, gallery = (np.eye(values)[rng.integers(0, values, size)] for size in (3, 25))
    (easy, hard, junk) = make_lists(3, 25, [3, 4, 5], seed=seed)
    result = revisited(query, gallery, easy, hard, junk)
    right = [np.concatenate(rows) for rows in zip(easy, hard, strict=True)]
    for name, values in slow_revisited(query, gallery, right, junk).items():
        assert result[name] == pytest.approx(values, nan_ok=True)
