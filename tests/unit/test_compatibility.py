import math

import numpy as np
import pytest
from flat_records import draws as draws_of
from flat_records import flat
from plain_rows import grouped

from compat_lib.evaluation import (
    compare,
    criterion,
    gain_interval,
    retrieval,
    tar_name,
    update_gain,
    verification,
)
from compat_lib.evaluation.bootstrap import bootstrap_mean, identity_weights
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


def test_metrics_equal_the_single_functions(models, compared):
    old, new, _, labels = models
    ids = np.arange(100)
    sides = {"query_ids": ids, "gallery_ids": ids}
    cases = {"old_old": (old, labels), "new_old": (new, labels, old, labels), "new_new": (new, labels)}
    found = flat(compared.records)
    for pair, arguments in cases.items():
        options = sides if pair == "new_old" else {}
        ranked = retrieval(*arguments, **options)
        expected = *verification(*arguments, fars=FARS, **options).tar, ranked.map, *ranked.rank.values()
        assert [found[f"{pair}/{metric}"] for metric in METRICS] == list(expected)


def test_draws_of_the_ranks_count_the_hits_of_the_drawn_identities(models, compared):
    old, new, _, labels = models
    weights = identity_weights(labels, 60)[labels]  # by query: the labels are 0..19
    for pair, features in (("old_old", old), ("new_new", new)):
        first = retrieval(features, labels).first_match
        for k in (1, 5):
            expected = ((first <= k) @ weights) / weights.sum(0)
            assert draws_of(compared.records)[f"{pair}/rank{k}"] == pytest.approx(expected)


def test_names_types_and_order_of_the_intervals(compared):
    found = flat(compared.records)
    expected = {f"{p}/{n}{end}" for p in PAIRS for n in METRICS for end in ("", "/low", "/high")}
    assert set(found) == expected and {type(value) for value in found.values()} == {float}
    for name, draws in draws_of(compared.records).items():
        assert draws.shape == (60,)
        assert found[name + "/low"] <= np.median(draws) <= found[name + "/high"]
    assert "new/old: tar@far=1e-1" in compared.summary()


def test_tar_name():
    names = {1e-2: "1e-2", 1e-4: "1e-4", 0.05: "5e-2", 1.0: "1e0", 1e-10: "1e-10"}
    assert {far: tar_name(far) for far in names} == {far: f"tar@far={x}" for far, x in names.items()}


def test_identical_models_have_cross_equal_to_self(models):
    _, new, _, labels = models
    result = compare(new, new, labels, fars=FARS, draws=20)
    for name, value in flat(result.records).items():
        pair, metric = name.split("/", 1)
        assert value == flat(result.records)[f"new_new/{metric}"], pair
    assert criterion(result.records, "map") is False  # strictly better, not equal


def test_unrelated_model_is_not_compatible_and_a_better_one_in_the_same_space_is(models, compared):
    old, _, unrelated, labels = models
    assert criterion(compared.records, "tar@far=1e-1") is True
    assert criterion(compare(old, unrelated, labels, fars=FARS, draws=0).records, "tar@far=1e-1") is False


def test_draws_are_paired_across_models_of_the_same_labels(models, compared):
    old, _, unrelated, labels = models
    other = compare(old, unrelated, labels, fars=FARS, draws=60)
    for name in ("old_old/map", "old_old/tar@far=1e-1"):
        assert np.array_equal(draws_of(other.records)[name], draws_of(compared.records)[name])
    # A rotation changes no self-test, in no draw.
    turned, plain = (draws_of(one.records)["new_new/map"] for one in (other, compared))
    assert turned == pytest.approx(plain, abs=1e-9)


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
    for values in ((nan, 0.5), (0.5, nan), (None, 0.5)):
        sides = zip(("old", "new"), values, strict=True)
        assert criterion(Records(Record(query, "old", "map", x) for query, x in sides), "map") is None


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


@pytest.mark.parametrize("with_ids", [False, True])
def test_queries_against_a_gallery_equal_the_single_functions(models, with_ids):
    queries, gallery, ids = apart(models)
    if not with_ids:
        queries, ids = Queries(queries.old, queries.new, queries.labels), None
    result = compare(*gallery, queries=queries, ids=ids, fars=FARS, draws=15)
    sides = {"query_ids": queries.ids, "gallery_ids": ids}
    features = {"old": (queries.old, gallery[0]), "new": (queries.new, gallery[1])}
    found, draws = flat(result.records), draws_of(result.records)
    for pair in PAIRS:
        asked, stored = pair.split("_")
        arguments = features[asked][0], queries.labels, features[stored][1], gallery[2]
        verified = verification(*arguments, fars=FARS, **sides)
        ranked = retrieval(*arguments, **sides)
        expected = *verified.tar, ranked.map, *ranked.rank.values()
        assert [found[f"{pair}/{metric}"] for metric in METRICS] == list(expected)
        # A query counts as often as its identity was drawn from those of both sets together.
        weights = identity_weights(np.r_[queries.labels, gallery[2]], 15)
        expected = bootstrap_mean(ranked.average_precision, queries.labels, weights[8:])
        assert np.array_equal(draws[f"{pair}/map"], expected)
        assert found[f"{pair}/map/low"] <= ranked.map <= found[f"{pair}/map/high"]


def test_queries_that_are_the_gallery_give_the_metrics_of_one_set(models, compared):
    old, new, _, labels = models
    ids = np.arange(100)
    result = compare(old, new, labels, queries=Queries(old, new, labels, ids), ids=ids, fars=FARS, draws=60)
    assert flat(result.records).keys() == flat(compared.records).keys()
    for name, value in flat(result.records).items():
        if name.startswith("new_old/") or "tar" not in name:
            assert value == flat(compared.records)[name]
        elif name.count("/") == 1:  # ordered instead of unordered pairs
            assert value == pytest.approx(flat(compared.records)[name])


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
    plain = compare(*gallery, **options)
    assert flat(compare(*gallery, cross=(queries.new, gallery[0]), **options).records) == flat(plain.records)
    swapped = flat(compare(*gallery, cross=(queries.new, gallery[1]), **options).records)
    assert swapped["new_old/map"] == flat(plain.records)["new_new/map"]
    assert swapped["old_old/map"] == flat(plain.records)["old_old/map"]
    blind = Queries(None, queries.new, queries.labels, queries.ids)
    result = flat(compare(*gallery, **(options | {"queries": blind})).records)
    assert result["old_old/map"] is None and result["new_old/map"] == flat(plain.records)["new_old/map"]


@pytest.mark.parametrize(
    "arguments, options, message",
    [
        ((slice(1, None), slice(None), slice(None)), {}, "99 old and 100 new features"),
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


# AdvBCT's table of results (arXiv 2305.02610, picture in its repository), mAP in per cent: self-test and
# cross-test on RParis, ROxford and GLDv2; then P_up, P_comp and P_1 as printed.
PRINTED = {
    "ext-data": (
        (75.45, 49.15, 10.03),
        (81.15, 63.85, 16.48),
        {
            "BCT": ((80.58, 56.34, 14.61), (77.37, 49.66, 11.30), (48.02, 54.71, 51.13)),
            "UniBCT": ((80.93, 57.24, 16.06), (78.30, 50.97, 13.25), (48.90, 59.19, 53.52)),
            "Hot-refresh": ((79.57, 58.15, 13.88), (76.53, 50.05, 10.35), (47.78, 52.50, 50.03)),
            "AdvBCT": ((82.78, 62.13, 15.71), (78.55, 52.31, 11.49), (49.55, 58.09, 53.45)),
            "independent": ((81.15, 63.85, 16.48), (4.93, 1.20, 0.2), (50.0, 7.19, None)),
        },
    ),
    "ext-class": (
        (74.29, 54.34, 11.43),
        (81.15, 63.85, 16.48),
        {
            "BCT": ((79.45, 58.94, 14.79), (76.13, 53.43, 12.26), (48.33, 52.79, 50.41)),
            "LCE": ((81.26, 60.49, 16.07), (76.78, 54.29, 12.04), (49.37, 53.95, 51.51)),
            "UniBCT": ((76.92, 59.07, 14.80), (74.55, 57.82, 12.31), (48.09, 54.78, 51.17)),
            "Hot-refresh": ((78.93, 60.31, 14.0), (75.33, 51.68, 10.41), (48.06, 47.26, 47.57)),
            "AdvBCT": ((82.05, 64.51, 16.44), (77.16, 54.82, 12.05), (50.16, 54.87, 52.35)),
            "independent": ((81.15, 63.85, 16.48), (4.93, 1.29, 0.2), (50.0, 3.38, None)),
        },
    ),
    "ext-backbone": (
        (75.45, 49.15, 10.03),
        (87.66, 76.56, 22.12),
        {
            "BCT": ((85.54, 68.66, 19.11), (78.95, 54.42, 12.78), (47.81, 55.86, 51.52)),
            "LCE": ((87.49, 75.16, 21.85), (79.36, 57.18, 13.30), (49.73, 57.31, 53.25)),
            "UniBCT": ((84.37, 67.42, 21.57), (78.91, 56.18, 13.42), (48.48, 56.80, 52.31)),
            "Hot-refresh": ((86.78, 75.10, 20.61), (78.81, 57.84, 12.41), (49.19, 56.53, 52.60)),
            "AdvBCT": ((86.79, 75.71, 20.77), (79.08, 59.03, 12.75), (49.31, 57.30, 53.01)),
            "independent": ((87.66, 76.56, 22.12), (4.81, 2.26, 0.2), (50.0, 15.44, None)),
        },
    ),
}
ROWS = [(block, method) for block, (_, _, methods) in PRINTED.items() for method in methods]


@pytest.mark.parametrize("block, method", ROWS)
@pytest.mark.parametrize("unit", [1.0, 0.01], ids=["per cent", "fractions"])
def test_rows_of_the_published_table(block, method, unit):
    old, oracle, methods = PRINTED[block]
    new_self, cross, printed = methods[method]
    rows = [[unit * x for x in row] for row in zip(new_self, cross, old, oracle, strict=True)]
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
