import dataclasses
import math

import numpy as np
import pytest
from flat_records import draws as draws_of
from flat_records import flat
from plain_rows import grouped

from compat_lib.evaluation import compare, criterion, gain_interval, retrieval, update_gain, verification
from compat_lib.evaluation.bootstrap import bootstrap_mean, identity_weights, interval
from compat_lib.evaluation.compatibility import Queries, upgrade_scores
from compat_lib.evaluation.records import Record, Records

FARS = (0.1, 0.02)
PAIRS = ("old_old", "new_old", "new_new")
METRICS = ("tar@far=1e-1", "tar@far=2e-2", "map", "rank1", "rank5")


@pytest.fixture(scope="module")
def models():
    # The new model sees the same centres with less noise; an unrelated one lives in another space.
    old, new, labels = grouped(20, 5, 16, (1.2, 0.5))
    return old, new, new @ np.linalg.qr(np.random.default_rng(1).normal(size=(16, 16)))[0], labels


@pytest.fixture(scope="module")
def compared(models):
    old, new, _, labels = models
    return compare(old, new, labels, fars=FARS, draws=60)


def test_without_old_features_and_with_unequal_widths(models, compared):
    old, new, _, labels = models
    alone = flat(compare(None, new, labels, fars=FARS, draws=60).records)
    narrow = compare(old[:, :8], new, labels, fars=FARS, draws=0)
    for metric in ("map", "tar@far=1e-1", "map/low"):
        assert alone[f"old_old/{metric}"] is None and alone[f"new_old/{metric}"] is None
        assert alone[f"new_new/{metric}"] == flat(compared.records)[f"new_new/{metric}"]
        assert flat(narrow.records)[f"new_old/{metric}"] is None
    assert narrow.records.value("old", "old", "map") > 0
    assert criterion(narrow.records, "map") is None


def test_no_draws_give_no_intervals_and_an_unresolved_far_is_none(models):
    old, new, _, labels = models
    result = compare(old, new, labels, fars=(1e-5,), draws=0)
    assert result.records.value("new", "new", "tar@far=1e-5") is None
    plain = result.records.get("new", "new", "map")
    assert plain.low is None and plain.draws.shape == (0,)
    measured = compare(old, new, labels, fars=(1e-5,), draws=5)
    assert measured.records.get("new", "new", "tar@far=1e-5").high is None


def test_update_gain():
    assert update_gain(0.4, 0.4, 0.9) == 0  # the old model itself
    assert update_gain(0.9, 0.4, 0.9) == 1  # an ideal swap
    assert update_gain(0.3, 0.4, 0.8) == pytest.approx(-0.25)
    assert update_gain(0.6, 0.5, 0.5) is None and update_gain(0.6, 0.5, 0.4) is None
    assert update_gain(None, 0.4, 0.9) is None and update_gain(0.4, 0.4, None) is None
    nan = float("nan")  # how files and frames say "not measured"
    assert update_gain(nan, 0.4, 0.9) is update_gain(0.5, nan, 0.9) is update_gain(0.5, 0.4, nan) is None
    judged = {(nan, 0.5): None, (0.5, nan): None, (None, 0.5): None, (0.5, 0.5): False, (0.4, 0.5): True}
    for values, expected in judged.items():  # equal is not better
        sides = zip(("old", "new"), values, strict=True)
        assert criterion(Records(Record(query, "old", "map", x) for query, x in sides), "map") is expected


def test_gain_interval_uses_the_draws_in_pairs():
    rng = np.random.default_rng(0)
    old = rng.random(200)  # a common fate moves all three: the gain is certain all the same
    assert gain_interval(old + 0.1, old, old + 0.4) == pytest.approx((0.25, 0.25))
    assert gain_interval(old, old, old + 0.4) == (0, 0)
    room = np.where(np.arange(200) < 20, -0.1, 0.4)
    assert gain_interval(old, old, old + room) is None
    assert gain_interval(*[np.empty(0)] * 3) is None


def apart(models):
    # Queries of some identities against a gallery that lacks three of them and holds others; images in both.
    old, new, _, labels = models
    query, gallery = np.flatnonzero(labels >= 8), np.flatnonzero(labels < 17)[::-1]
    queries = Queries(old[query], new[query], labels[query], query)
    return queries, (old[gallery], new[gallery], labels[gallery]), gallery


def test_cross_sides_replace_the_new_and_the_old_features(models, compared):
    old, new, unrelated, labels = models
    ids = np.arange(100)
    same = compare(old, new, labels, cross=(new, old), fars=FARS, draws=60)
    assert flat(same.records) == flat(compared.records)
    cut = compare(old[:, :8], new, labels, cross=(new[:, :8], old[:, :8]), fars=FARS, draws=0)
    ranked = retrieval(new[:, :8], labels, old[:, :8], labels, query_ids=ids, gallery_ids=ids)
    assert cut.records.value("new", "old", "map") == ranked.map
    assert cut.records.value("new", "new", "map") == compared.records.value("new", "new", "map")
    own = retrieval(old[:, :8], labels).map
    assert cut.records.value("old", "old", "map") == own
    # Without old features the cross-test alone is known; a gallery carried over exactly is a self-test.
    alone = flat(compare(None, unrelated, labels, cross=(unrelated, unrelated), fars=FARS, draws=0).records)
    assert alone["old_old/map"] is None and alone["new_old/map"] == alone["new_new/map"]


def test_cross_sides_of_queries_and_gallery(models):
    queries, gallery, ids = apart(models)
    options = {"queries": queries, "ids": ids, "fars": FARS, "draws": 4}
    plain = flat(compare(*gallery, **options).records)
    swapped = flat(compare(*gallery, cross=(queries.new, gallery[1]), **options).records)
    assert swapped["new_old/map"] == plain["new_new/map"] and swapped["old_old/map"] == plain["old_old/map"]
    blind = flat(compare(*gallery, **(options | {"queries": dataclasses.replace(queries, old=None)})).records)
    assert blind["old_old/map"] is None and blind["new_old/map"] == plain["new_old/map"]


def one_set(models):
    old, new, _, labels = models
    return Queries(old, new, labels, np.arange(100)), (old, new, labels), np.arange(100)


@pytest.mark.parametrize("case", ["one set", "apart", "apart, without ids"])
def test_metrics_and_draws_equal_the_single_functions(models, case):
    queries, gallery, ids = one_set(models) if case == "one set" else apart(models)
    if case == "apart, without ids":
        queries, ids = dataclasses.replace(queries, ids=None), None
    asked = {} if case == "one set" else {"queries": queries, "ids": ids}
    result = compare(*gallery, fars=FARS, draws=15, **asked)
    found, draws = flat(result.records), draws_of(result.records)
    weights = identity_weights(np.r_[queries.labels, gallery[2]], 15)  # identities of both sets together
    for pair in PAIRS:
        query = queries.old if pair == "old_old" else queries.new
        arguments = query, queries.labels, gallery[pair == "new_new"], gallery[2]
        sides = {"query_ids": queries.ids, "gallery_ids": ids}
        if case == "one set" and pair != "new_old":  # unordered pairs
            arguments, sides = arguments[:2], {}
        ranked = retrieval(*arguments, **sides)
        expected = *verification(*arguments, fars=FARS, **sides).tar, ranked.map, *ranked.rank.values()
        assert [found[f"{pair}/{metric}"] for metric in METRICS] == list(expected)
        hits = {f"rank{k}": np.where(ranked.first_match, ranked.first_match <= k, np.nan) for k in (1, 5)}
        for metric, values in (hits | {"map": ranked.average_precision}).items():
            expected = bootstrap_mean(values, queries.labels, weights[queries.labels.min() :])
            assert draws[f"{pair}/{metric}"] == pytest.approx(expected)
    for name, drawn in draws.items():
        assert (found[f"{name}/low"], found[f"{name}/high"]) == interval(drawn)
    assert "new/old: tar@far=1e-1" in result.summary()


@pytest.mark.parametrize(
    "arguments, options, message",
    [
        ((slice(1, None), slice(None), slice(None)), {}, "99 old features for 100 new ones"),
        ((slice(None), slice(None), slice(1, None)), {}, "each of 100 rows"),
        ((slice(None),) * 3, {"fars": [2]}, "a FAR of 2 was given"),
        ((slice(None),) * 3, {"ids": range(100)}, "ids were given without queries"),
        ((slice(None),) * 3, {"cross": (np.ones((100, 3)), np.ones((100, 4)))}, "need equal widths"),
        ((slice(None),) * 3, {"cross": (np.ones((99, 3)), np.ones((100, 3)))}, "each of 99 rows"),
    ],
)
def test_what_does_not_fit_is_refused(models, arguments, options, message):
    old, new, _, labels = models
    with pytest.raises(ValueError, match=message):
        compare(*(x[part] for x, part in zip((old, new, labels), arguments, strict=True)), **options)


def test_equal_ids_and_unequal_labels_are_refused(models):
    queries, gallery, ids = apart(models)
    with pytest.raises(ValueError, match="45 pairs of a query and a gallery image have"):
        compare(*gallery[:2], gallery[2] + 1, queries=queries, ids=ids)
    with pytest.raises(KeyError, match="no 'rank9' of new/old"):
        criterion(Records([Record("new", "old", "map", 0.1)]), "rank9")


# AdvBCT's table of results (arXiv 2305.02610, picture in its repository), more classes, mAP in per cent:
# self-test and cross-test on RParis, ROxford and GLDv2; then P_up, P_comp and P_1 as printed.
OLD, ORACLE = (74.29, 54.34, 11.43), (81.15, 63.85, 16.48)
PRINTED = {
    "BCT": ((79.45, 58.94, 14.79), (76.13, 53.43, 12.26), (48.33, 52.79, 50.41)),
    "LCE": ((81.26, 60.49, 16.07), (76.78, 54.29, 12.04), (49.37, 53.95, 51.51)),
    "UniBCT": ((76.92, 59.07, 14.80), (74.55, 57.82, 12.31), (48.09, 54.78, 51.17)),
    "Hot-refresh": ((78.93, 60.31, 14.0), (75.33, 51.68, 10.41), (48.06, 47.26, 47.57)),
    "AdvBCT": ((82.05, 64.51, 16.44), (77.16, 54.82, 12.05), (50.16, 54.87, 52.35)),
    "independent": ((81.15, 63.85, 16.48), (4.93, 1.29, 0.2), (50.0, 3.38, None)),
}


@pytest.mark.parametrize("method", PRINTED)
@pytest.mark.parametrize("unit", [1.0, 0.01], ids=["per cent", "fractions"])
def test_rows_of_the_published_table(method, unit):
    new_self, cross, printed = PRINTED[method]
    rows = [[unit * x for x in row] for row in zip(new_self, cross, OLD, ORACLE, strict=True)]
    found = [upgrade_scores(*row) for row in rows]
    for name, expected in zip(("p_up", "p_comp", "p_1"), printed, strict=True):
        if expected is not None:
            assert np.mean([scores[name] for scores in found]) == pytest.approx(expected, abs=0.01)


def test_scores_by_hand_and_what_cannot_be_scored():
    # The self-test loses a tenth of the oracle; the cross-test brings a half of the possible gain.
    up, comp = 100 / (1 + math.exp(0.1)), 100 / (1 + math.exp(-0.5))
    expected = {"p_up": up, "p_comp": comp, "p_1": 2 / (1 / up + 1 / comp)}
    assert upgrade_scores(0.81, 0.7, 0.5, 0.9) == pytest.approx(expected)
    assert upgrade_scores(0.8, None, 0.5, 0.9)["p_comp"] is None
    weak = upgrade_scores(0.8, 0.6, 0.5, 0.5)  # the oracle is not better than the old model: no gain
    assert weak["p_up"] is not None and weak["p_comp"] is None and weak["p_1"] is None
    assert set(upgrade_scores(0.0, 0.0, 0.0, 0.0).values()) == {None}
    assert upgrade_scores(0.5, 0.0, 0.5, 0.5 + 1e-6)["p_comp"] == pytest.approx(0.0)  # no overflow


def test_a_far_that_is_given_twice_moves_no_interval(models):
    old, new, _, labels = models
    once, twice = (compare(old, new, labels, fars=fars, draws=20).records for fars in ([0.1], [0.1, 1e-1]))
    for one, other in zip(once, twice, strict=True):
        assert one == other and np.array_equal(one.draws, other.draws, equal_nan=True)
