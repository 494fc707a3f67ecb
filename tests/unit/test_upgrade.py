import numpy as np
import pytest
from flat_records import flat
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_rows import grouped

from compat_lib.evaluation.bootstrap import identity_weights, interval
from compat_lib.evaluation.ranking import Retrieval, retrieval
from compat_lib.evaluation.upgrade import changes, upgrade_changes


def make_models(classes=8, images=5, seed=0, noises=(1.2, 0.8)):
    return grouped(classes, images, 10, noises, seed)


def make_result(precision, first):
    precision, first = np.array(precision, float), np.array(first)
    valid = first > 0
    rank = {1: float((first[valid] == 1).mean())}
    return Retrieval(float(np.nanmean(precision)), rank, precision, first, int(valid.sum()), 0)


BEFORE = make_result([1.0, 0.5, 1.0, 0.2, np.nan, 0.5, 0.5], [1, 2, 1, 4, 0, 2, 3])
AFTER = make_result([0.5, 0.6, 1.0, 0.3, np.nan, 0.5, 0.5], [2, 1, 1, 3, 0, 3, 1])
LABELS = ["b", "b", "a", "a", "alone", "c", "c"]


def test_the_table_of_identities_by_hand():
    # b: 0.75 -> 0.55, loses 0.2; a: 0.6 -> 0.65, gains 0.05; c: stays; "alone" has no counted query.
    result = changes(BEFORE, AFTER, LABELS, draws=0)
    table = result.by_identity
    assert table.identities.tolist() == ["b", "c", "a"]  # the greatest loss first
    assert table.queries.tolist() == [2, 2, 2]
    assert table.difference == pytest.approx([-0.2, 0.0, 0.05])
    assert table.precision_before == pytest.approx([0.75, 0.5, 0.6])
    assert table.precision_after == pytest.approx([0.55, 0.5, 0.65])
    assert set(result.intervals.values()) == {None} and flat(result.records)["new_old/gain/low"] is None
    assert "losing 0.3333, gaining 0.3333, forgetting 0.2000, gain 0.0500" in result.summary()


def test_a_difference_of_rounding_is_none():
    result = changes(make_result([0.1 + 0.2], [3]), make_result([0.3], [3]), [0], draws=0)
    assert 0.1 + 0.2 != 0.3 and (result.losing, result.gaining) == (0, 0)


def slow_draw(before, after, labels, weights):
    # One draw: every identity as often as it was drawn, with all of its queries.
    losses, gains, flips, backs, identities, queries, right, wrong = [], [], 0, 0, 0, 0, 0, 0
    for name, times in zip(sorted(set(labels)), weights, strict=True):
        rows = [i for i in range(len(labels)) if labels[i] == name and before.first_match[i] > 0]
        if not rows:
            continue
        change = np.mean([after.average_precision[i] - before.average_precision[i] for i in rows])
        for _ in range(times):
            identities += 1
            queries += len(rows)
            if change < -1e-9:
                losses.append(-change)
            if change > 1e-9:
                gains.append(change)
            for i in rows:
                flips += before.first_match[i] == 1 and after.first_match[i] > 1
                backs += before.first_match[i] > 1 and after.first_match[i] == 1
                right += before.first_match[i] == 1
                wrong += after.first_match[i] > 1
    if not identities:
        return [np.nan] * 7
    means = [np.mean(x) if x else np.nan for x in (losses, gains)]
    relative = flips * queries / (right * wrong) if right * wrong else np.nan
    shares = [len(losses) / identities, len(gains) / identities]
    return [*shares, *means, flips / queries, backs / queries, relative]


@pytest.mark.parametrize("case", ["hand", "features"])
def test_intervals_equal_a_loop_over_the_drawn_identities(case):
    before, after, labels = BEFORE, AFTER, LABELS
    if case == "features":
        old, new, labels = make_models(6, 3, noises=(1.0, 1.0))
        before, after = retrieval(old, labels), retrieval(new, labels)
    names = ("losing", "gaining", "forgetting", "gain", "negative_flips", "positive_flips")
    names += ("relative_negative_flips",)
    result = changes(before, after, labels, draws=50, seed=2)
    once = slow_draw(before, after, labels, [1] * len(set(labels)))
    assert [getattr(result, name) for name in names] == pytest.approx(once)
    weights = identity_weights(labels, 50, 2)
    draws = np.array([slow_draw(before, after, labels, weights[:, b]) for b in range(50)])
    for k, name in enumerate(names):
        assert result.intervals[name] == pytest.approx(interval(draws[:, k]))
        assert flat(result.records)[f"new_old/{name}/low"] == result.intervals[name][0]
        assert flat(result.records)[f"new_old/{name}/high"] == result.intervals[name][1]


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([0.25, 1.0, 8.0]))
def test_an_unchanged_model_changes_nothing(seed, scale):
    old, _, labels = make_models(seed=seed)
    result = upgrade_changes(old, scale * old, labels, draws=5)
    assert (result.losing, result.gaining, result.negative_flips, result.positive_flips) == (0, 0, 0, 0)
    assert result.forgetting is None and result.gain is None and result.intervals["gain"] is None
    assert result.intervals["losing"] == (0, 0)


def test_features_equal_two_retrievals():
    old, new, labels = make_models()
    ids = np.arange(len(labels))
    sides = {"query_ids": ids, "gallery_ids": ids}
    before = retrieval(old, labels)
    expected = changes(before, retrieval(new, labels, old, labels, **sides), labels)
    assert upgrade_changes(old, new, labels) == expected
    # Models of unequal width meet in the forms of the cross-test; old/old stays as it is.
    cross = (new[:, :6], old[:, :6])
    crossed = changes(before, retrieval(cross[0], labels, cross[1], labels, **sides), labels)
    assert upgrade_changes(old, new[:, :8], labels, cross=cross) == crossed


def test_results_of_other_queries_are_refused():
    lacking = make_result([0.5, 0.6, 1.0, 0.3, 0.4, 0.5, 0.5], [2, 1, 1, 3, 2, 3, 1])
    with pytest.raises(ValueError, match="the two results count different queries"):
        changes(BEFORE, lacking, LABELS)
