import numpy as np
import pytest
import torch
from flat_records import flat
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_rows import grouped

from compat_lib.evaluation import pairs
from compat_lib.evaluation.bootstrap import identity_weights, interval
from compat_lib.evaluation.four_constraints import constraints


def make_models(classes=6, images=5, widths=(8, 8), seed=0):
    return grouped(classes, images, widths, (1.0, 0.6), seed)


def slow_constraints(old, new, labels, cross=None):
    # Float64, pair by pair: (slack of constraint k, query) of every pair it speaks of.
    query, gallery = (new, old) if cross is None else cross

    def d(a, b):
        a, b = (np.asarray(x, np.float64) / max(np.linalg.norm(x), 1e-300) for x in (a, b))
        return 1 - a @ b

    slacks = {1: [], 2: [], 3: [], 4: []}
    for i in range(len(labels)):
        for j in range(len(labels)):
            if i == j:
                continue
            crossed = d(query[i], gallery[j])
            before, after = d(old[i], old[j]), d(new[i], new[j])
            if labels[i] == labels[j]:
                slacks[1].append((before - crossed, i))
                slacks[3].append((crossed - after, i))
            else:
                slacks[2].append((crossed - before, i))
                slacks[4].append((after - crossed, i))
    return slacks


def check(result, slacks):
    for k in range(4):
        values = np.array([slack for slack, _ in slacks[k + 1]])
        if not len(values):
            assert result.share[k] is None and result.slack[k] is None
            continue
        assert result.share[k] == pytest.approx((values >= 0).mean(), abs=1e-12)
        assert result.slack[k] == pytest.approx(values.mean(), abs=1e-6)
    assert (result.positives, result.negatives) == (len(slacks[1]), len(slacks[2]))


@pytest.mark.parametrize("tile", [None, (3, 4), (7, 16)])
@pytest.mark.parametrize("classes, images", [(6, 5), (2, 2), (1, 4), (7, 1), (3, 11)])
def test_equals_a_loop_over_the_pairs(monkeypatch, classes, images, tile):
    monkeypatch.setitem(pairs.TILES, "cpu", tile or pairs.TILES["cpu"])
    old, new, labels = make_models(classes, images)
    check(constraints(old, new, labels), slow_constraints(old, new, labels))


def test_forms_of_the_cross_test_for_unequal_widths():
    old, new, labels = make_models(widths=(4, 9))
    cross = (new[:, :4], old @ np.random.default_rng(1).normal(size=(4, 4)))
    result = constraints(old, new, labels, cross=cross)
    check(result, slow_constraints(old, new, labels, cross))
    with pytest.raises(ValueError, match="need equal widths"):
        constraints(old, new, labels)


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e3), dtype=st.sampled_from(["f4", "f8"]))
def test_an_unchanged_model_satisfies_all_four_with_equality(seed, scale, dtype):
    old, _, labels = make_models(seed=seed)
    old = old.astype(dtype)
    result = constraints(old, (scale * old).astype(dtype), labels)
    assert result.share == (1.0, 1.0, 1.0, 1.0)
    assert result.slack == pytest.approx((0, 0, 0, 0), abs=1e-6)


def test_intervals_equal_drawing_the_queries_identities():
    old, new, labels = make_models()
    labels = np.array(["f", "b", "c", "a", "e", "d"])[labels]
    result = constraints(old, new, labels, draws=40, seed=3)
    weights, names = identity_weights(labels, 40, 3), sorted(set(labels))
    slacks = slow_constraints(old, new, labels)
    for k in range(4):
        held, rows = (np.array(column) for column in zip(*slacks[k + 1], strict=True))
        times = weights[[names.index(labels[i]) for i in rows]]
        draws = [np.mean(np.repeat(held >= 0, times[:, b])) for b in range(40)]
        assert result.intervals[k] == pytest.approx(interval(np.array(draws)))
        one = result.records.get(None, None, f"constraint{k + 1}/share")
        assert (one.low, one.high) == result.intervals[k] and one.low <= one.value <= one.high
        assert result.records.value(None, None, f"constraint{k + 1}/slack") == result.slack[k]
    plain = constraints(old, new, labels)
    assert plain.share == result.share and plain.intervals == (None,) * 4
    assert flat(plain.records)["constraint1/share/low"] is None


def test_low_precision_and_rows_of_zeros():
    old, new, labels = make_models()
    expected = constraints(old.astype("f4"), new.astype("f4"), labels)
    half = constraints(torch.tensor(old).half(), torch.tensor(new).half(), labels)
    assert half.slack == pytest.approx(expected.slack, abs=2e-3)
    zeros = constraints(np.zeros((30, 4)), np.zeros((30, 4)), labels)  # every cosine is 0
    assert zeros.share == (1.0,) * 4 and zeros.slack == (0.0,) * 4


def test_one_identity_or_only_single_images_leave_a_kind_out():
    old, new, _ = make_models()
    one = constraints(old, new, np.zeros(30, int), draws=5)
    assert one.share[1] is None and one.slack[3] is None and one.intervals[1] is None
    assert "constraint2/share n/a" in one.summary() and one.negatives == 0
    single = constraints(old, new, np.arange(30), draws=5)
    assert single.share[0] is None and flat(single.records)["constraint3/slack"] is None
    assert single.positives == 0 and single.share[1] is not None
