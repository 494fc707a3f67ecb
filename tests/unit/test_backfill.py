import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_rows import average_precision, cosines, grouped

from compat_lib.evaluation import compare, mixed_gallery_curve, retrieval, verification
from compat_lib.evaluation.backfill import BackfillCurve, backfill_orders
from compat_lib.evaluation.bootstrap import bootstrap_mean, identity_weights, interval
from compat_lib.evaluation.orders import backfill_order

FARS = (0.1, 0.02)
IDS = np.arange(100)
METRICS = ("map", "rank1", "rank5", "tar@far=1e-1", "tar@far=2e-2")


@pytest.fixture(scope="module")
def models():
    # The new model sees the same centres with less noise.
    return grouped(20, 5, 16, (1.2, 0.5))


@pytest.mark.parametrize("order", ["random", "farthest", "uncertain", "given"])
def test_equals_a_gallery_mixed_by_hand(models, order):
    # One order for all shares: what is new at 0.2 is new at 0.29.
    old, new, labels = models
    certainty = np.random.default_rng(3).random(100)
    expected = {"random": np.random.default_rng(5).permutation(100), "given": IDS[::-1]}
    expected |= {"farthest": backfill_order(old, labels, "farthest"), "uncertain": np.argsort(certainty)}
    expected = expected[order]
    options = {"certainty": certainty if order == "uncertain" else None, "seed": 5, "fars": FARS}
    options |= {"order": expected if order == "given" else order}
    shares = (0, 0.2, 0.29, 1)  # the cross-test and the self-test too; 0.29 * 100 is a little less than 29
    curve = mixed_gallery_curve(old, new, labels, shares=shares, **options)
    assert curve.order == order and curve.average_precision.shape == (4, 100)
    for k, (share, point) in enumerate(zip(curve.shares, curve.points, strict=True)):
        chosen = np.isin(IDS, expected[: round(share * 100)])
        gallery = np.where(chosen[:, None], new, old)
        result = retrieval(new, labels, gallery, labels, query_ids=IDS, gallery_ids=IDS)
        verified = verification(new, labels, gallery, labels, query_ids=IDS, gallery_ids=IDS, fars=FARS)
        expected_point = result.map, *result.rank.values(), *verified.tar
        assert [point[metric] for metric in METRICS] == list(expected_point)
        assert np.array_equal(curve.average_precision[k], result.average_precision)


def test_the_rate_is_exact_where_nearly_all_scores_lie_in_one_bin():
    rng = np.random.default_rng(0)
    labels = np.arange(40) // 4
    old, new = (np.c_[np.ones(40), rng.normal(scale=4e-3, size=(40, 3))].astype(np.float32) for _ in "on")
    ids = dict.fromkeys(("query_ids", "gallery_ids"), np.arange(40))
    order = rng.permutation(40)
    curve = mixed_gallery_curve(old, new, labels, order=order, shares=(0.3, 0.6), fars=(0.05,))
    for share, point in zip(curve.shares, curve.points, strict=True):
        gallery = np.where(np.isin(np.arange(40), order[: round(share * 40)])[:, None], new, old)
        verified = verification(new, labels, gallery, labels, **ids, fars=(0.05,))
        assert point["tar@far=5e-2"] == verified.tar[0]


def test_new_codes_tie_beside_old_features_that_are_no_codes():
    # Small whole numbers have many equal cosines; the old features of the same images are real numbers.
    rng = np.random.default_rng(2)
    labels, new = np.arange(40) // 4, rng.integers(-2, 3, (40, 3))
    new[(new == 0).all(1)] = 1
    old, order = rng.normal(size=(40, 3)).astype(np.float32), rng.permutation(40)
    curve = mixed_gallery_curve(old, new, labels, order=order, shares=(0.5, 1), fars=())
    for share, point in zip(curve.shares, curve.points, strict=True):
        chosen = np.isin(np.arange(40), order[: round(share * 40)])  # wrong items first where scores tie
        scores = np.where(chosen, cosines(new, new), cosines(new, old)).round(9)
        expected = []
        for row, score in enumerate(scores):
            others = np.flatnonzero(np.arange(40) != row)
            right = labels[others] == labels[row]
            expected.append(average_precision(right[np.lexsort((right, -score[others]))]))
        assert curve.average_precision[curve.shares.index(share)] == pytest.approx(expected, abs=1e-9)
        assert point["map"] == pytest.approx(np.mean(expected), abs=1e-9)
    assert np.array_equal(curve.average_precision[1], retrieval(new, labels).average_precision)


def test_area_is_the_mean_height_of_the_curve():
    # From 0 to 0.25 at 0.4 on average, from 0.25 to 1 at 0.65: the shares may stand in any order.
    points = ({"map": 0.8, "tar": 1.0}, {"map": 0.3, "tar": None}, {"map": 0.5, "tar": 0.0})
    curve = BackfillCurve((1.0, 0.0, 0.25), points, "farthest")
    assert curve.area("map") == pytest.approx(0.25 * 0.4 + 0.75 * 0.65)
    assert curve.area("tar") is None and np.isnan(curve.values("tar")[1])
    half = BackfillCurve((0.5, 1.0), ({"map": 0.2}, {"map": 0.4}))
    assert half.area("map") == pytest.approx(0.3)  # normalised by the shares that it spans


@settings(max_examples=8)
@given(seed=st.integers(0, 10**6))
def test_area_by_query_has_the_area_as_its_mean(seed):
    rng = np.random.default_rng(seed)
    labels = np.r_[rng.integers(0, 5, 29), 99]  # the last query has no right item
    old, new = rng.normal(size=(2, 30, 4))
    curve = mixed_gallery_curve(old, new, labels, seed=seed, shares=(0, 0.3, 0.4, 1), fars=())
    assert np.isnan(curve.area_by_query[29])
    assert np.nanmean(curve.area_by_query) == pytest.approx(curve.area("map"))
    # A model that did not change has a flat curve in every order, at the height of its self-test.
    flat = mixed_gallery_curve(old, old, labels, order="farthest", shares=(0, 0.5, 1), fars=())
    assert flat.values("map").tolist() == [retrieval(old, labels).map] * 3


def test_forms_that_are_the_features_themselves_change_nothing(models):
    old, new, labels = models
    expected = mixed_gallery_curve(old, new, labels, shares=(0, 0.4, 1))
    assert mixed_gallery_curve(old, new, labels, shares=(0, 0.4, 1), cross=(2 * new, old)) == expected
    # The old features may be any: what is compared are the forms.
    assert mixed_gallery_curve(old[:, :3], new, labels, shares=(0, 0.4, 1), cross=(new, old)) == expected
    # A query form of its own counts, of the same width and with an unchanged gallery too.
    own = mixed_gallery_curve(new, new, labels, shares=(0,), fars=(), cross=(old, new))
    expected = retrieval(old, labels, new, labels, query_ids=IDS, gallery_ids=IDS)
    assert own.points[0]["map"] == pytest.approx(expected.map) != retrieval(new, labels).map


def test_forms_of_the_cross_test_for_models_of_unequal_width(models):
    # Score by score: a query meets an old item in the forms of the cross-test, a new item as it is.
    old, new, labels = models
    old = old[:, :6]
    cross = (new[:, :6], old)
    options = {"cross": cross, "shares": (0, 0.4, 1), "seed": 1, "fars": (0.1,)}
    curve = mixed_gallery_curve(old, new, labels, **options)
    order = np.random.default_rng(1).permutation(100)
    for share, precision in zip(curve.shares, curve.average_precision, strict=True):
        chosen = np.isin(IDS, order[: round(share * 100)])
        scores = np.where(chosen, cosines(new, new), cosines(*cross))
        for i in range(len(scores)):
            kept = IDS[i != IDS]
            right = labels[kept[np.argsort(-scores[i, kept])]] == labels[i]
            assert precision[i] == pytest.approx(average_precision(right))
    crossed = compare(cross[1], cross[0], labels, fars=(0.1,), draws=0).records
    own = compare(None, new, labels, fars=(0.1,), draws=0).records
    for metric in ("map", "tar@far=1e-1"):
        assert curve.points[0][metric] == pytest.approx(crossed.value("new", "old", metric))
        assert curve.points[2][metric] == pytest.approx(own.value("new", "new", metric))


def test_orders_are_compared_with_the_random_one(models):
    old, new, labels = models
    certainty = -np.linalg.norm(old - new, axis=1)  # what changes most first: a good order
    options = {"certainty": certainty, "orders": {"best kept": np.argsort(-certainty)}}
    result = backfill_orders(old, new, labels, shares=(0, 0.5, 1), draws=100, seed=3, **options)
    assert list(result.curves) == ["random", "uncertain", "farthest", "best kept"]
    assert list(result.over_random) == ["uncertain", "farthest", "best kept"]
    weights = identity_weights(labels, 100, 3)
    base = result.curves["random"].area_by_query
    for order, found in result.over_random.items():
        curve = result.curves[order]
        assert found.value == pytest.approx(curve.area("map") - result.curves["random"].area("map"))
        draws = bootstrap_mean(curve.area_by_query - base, labels, weights)
        assert (found.low, found.high) == pytest.approx(interval(draws))
        one = result.records.get("new", "mixed", "area_over_random/map", order=order)
        assert (one.value, one.low, one.high) == (found.value, found.low, found.high)
        assert result.records.value("new", "mixed", "area/map", order=order) == curve.area("map")
    middle = result.records.value("new", "mixed", "map", order="random", share=0.5)
    assert middle == result.curves["random"].points[1]["map"]
    alone = mixed_gallery_curve(old, new, labels, shares=(0, 0.5, 1), seed=3)
    assert result.curves["random"] == alone  # the seed is also that of the random order
    assert result.over_random["uncertain"].value > 0 > result.over_random["best kept"].value
    assert result.over_random["best kept"].verdict == "worse"
    assert "order best kept: hurts" in result.summary()  # a finding, not hidden


def test_orders_without_certainty_draws_or_area(models):
    old, new, labels = models
    result = backfill_orders(old, new, labels, shares=(0, 1), fars=(), draws=0)
    assert list(result.curves) == ["random", "farthest"]
    assert result.records.get("new", "mixed", "area_over_random/map", order="farthest").low is None
    assert result.over_random["farthest"].value == 0  # both ends are the same galleries
    assert backfill_orders(old, new, labels, shares=(0.5,), fars=()).over_random == {}


def test_what_does_not_fit_is_refused(models):
    old, new, labels = models
    for options, message in (
        ({"shares": (10,)}, "fractions of the gallery"),
        ({"cross": (np.ones((99, 4)), np.ones((100, 4)))}, "the same images"),
        ({"cross": (np.ones((100, 4)), np.ones((100, 5)))}, "equal widths"),
    ):
        with pytest.raises(ValueError, match=message):
            mixed_gallery_curve(old, new, labels, **options)
