import numpy as np
import pytest
import torch

from compat_lib.evaluation import (
    PAIRS,
    compare,
    criterion,
    gain_interval,
    retrieval,
    tar_name,
    update_gain,
    verification,
)
from compat_lib.evaluation.compatibility import Queries
from compat_lib.evaluation.intervals import bootstrap_mean, identity_weights
from compat_lib.evaluation.records import Record, Records

FARS = (0.1, 0.02)


@pytest.fixture(scope="module")
def models():
    # The new model sees the same centres with less noise; an unrelated one lives in another space.
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(20), 5))
    centres = rng.normal(size=(20, 16))
    old, new = (centres[labels] + noise * rng.normal(size=(100, 16)) for noise in (1.2, 0.5))
    return old, new, new @ np.linalg.qr(rng.normal(size=(16, 16)))[0], labels


@pytest.fixture(scope="module")
def compared(models):
    old, new, _, labels = models
    return compare(old, new, labels, fars=FARS, draws=60)


def test_metrics_equal_the_single_functions(models, compared):
    old, new, _, labels = models
    ids = np.arange(100)
    sides = {"query_ids": ids, "gallery_ids": ids}
    cases = {"old_old": (old, labels), "new_old": (new, labels, old, labels), "new_new": (new, labels)}
    for pair, arguments in cases.items():
        options = sides if pair == "new_old" else {}
        tar = verification(*arguments, fars=FARS, **options).tar
        ranked = retrieval(*arguments, **options)
        assert [compared.metrics[f"{pair}/{tar_name(far)}"] for far in FARS] == list(tar)
        assert compared.metrics[f"{pair}/map"] == ranked.map
        assert compared.metrics[f"{pair}/rank1"] == ranked.rank[1]
        assert compared.metrics[f"{pair}/rank5"] == ranked.rank[5]


def test_draws_of_the_ranks_count_the_hits_of_the_drawn_identities(models, compared):
    old, new, _, labels = models
    weights = identity_weights(labels, 60)[labels]  # by query: the labels are 0..19
    for pair, features in (("old_old", old), ("new_new", new)):
        first = retrieval(features, labels).first_match
        for k in (1, 5):
            expected = ((first <= k) @ weights) / weights.sum(0)
            assert compared.draws[f"{pair}/rank{k}"] == pytest.approx(expected)


def test_names_types_and_order_of_the_intervals(compared):
    names = ["tar@far=1e-1", "tar@far=2e-2", "map", "rank1", "rank5"]
    expected = {f"{p}/{n}{end}" for p in PAIRS for n in names for end in ("", "/low", "/high")}
    assert set(compared.metrics) == expected
    assert all(type(value) is float for value in compared.metrics.values())
    assert set(compared.draws) == {f"{p}/{n}" for p in PAIRS for n in names}
    for name, draws in compared.draws.items():
        assert draws.shape == (60,)
        assert compared.metrics[name + "/low"] <= np.median(draws) <= compared.metrics[name + "/high"]
    assert "new/old: tar@far=1e-1" in compared.summary()


@pytest.mark.parametrize(
    "far, name",
    [(1e-2, "1e-2"), (1e-3, "1e-3"), (1e-4, "1e-4"), (0.05, "5e-2"), (1.0, "1e0"), (1e-10, "1e-10")],
)
def test_tar_name(far, name):
    assert tar_name(far) == f"tar@far={name}"


def test_identical_models_have_cross_equal_to_self(models):
    _, new, _, labels = models
    result = compare(new, new, labels, fars=FARS, draws=20)
    for name, value in result.metrics.items():
        pair, metric = name.split("/", 1)
        assert value == result.metrics[f"new_new/{metric}"], pair
    assert criterion(result.metrics, "map") is False  # strictly better, not equal


def test_unrelated_model_is_not_compatible_and_a_better_one_in_the_same_space_is(models, compared):
    old, _, unrelated, labels = models
    assert criterion(compared.metrics, "tar@far=1e-1") is True
    assert criterion(compare(old, unrelated, labels, fars=FARS, draws=0).metrics, "tar@far=1e-1") is False


def test_draws_are_paired_across_models_of_the_same_labels(models, compared):
    old, _, unrelated, labels = models
    other = compare(old, unrelated, labels, fars=FARS, draws=60)
    for name in ("old_old/map", "old_old/tar@far=1e-1"):
        assert np.array_equal(other.draws[name], compared.draws[name])
    # A rotation changes no self-test, in no draw.
    assert other.draws["new_new/map"] == pytest.approx(compared.draws["new_new/map"], abs=1e-9)


def test_without_old_features_and_with_unequal_widths(models, compared):
    old, new, _, labels = models
    alone = compare(None, new, labels, fars=FARS, draws=60)
    narrow = compare(old[:, :8], new, labels, fars=FARS, draws=0)
    for metric in ("map", "tar@far=1e-1", "map/low"):
        assert alone.metrics[f"old_old/{metric}"] is None and alone.metrics[f"new_old/{metric}"] is None
        assert alone.metrics[f"new_new/{metric}"] == compared.metrics[f"new_new/{metric}"]
        assert narrow.metrics[f"new_old/{metric}"] is None
    assert narrow.metrics["old_old/map"] > 0
    assert criterion(narrow.metrics, "map") is None
    assert "unequal width" in narrow.notes["new", "old"]


def test_no_draws_give_no_intervals_and_an_unresolved_far_is_none(models):
    old, new, _, labels = models
    result = compare(old, new, labels, fars=(1e-5,), draws=0)
    assert result.metrics["new_new/tar@far=1e-5"] is None
    assert result.metrics["new_new/map/low"] is None
    assert result.draws["new_new/map"].shape == (0,)
    measured = compare(old, new, labels, fars=(1e-5,), draws=5)
    assert measured.metrics["new_new/tar@far=1e-5/high"] is None


def test_tensors_and_arrays_agree(models):
    old, new, _, labels = models
    expected = compare(old, new, labels, fars=FARS, draws=0)
    result = compare(torch.tensor(old), torch.tensor(new), torch.tensor(labels), fars=FARS, draws=0)
    assert result.metrics == expected.metrics


def test_bad_input_gets_a_sentence(models):
    old, new, _, labels = models
    with pytest.raises(ValueError, match="100 old and 99 new features"):
        compare(old, new[1:], labels[1:])
    broken = old.copy()
    broken[3, 2] = np.nan
    with pytest.raises(ValueError, match="1 of the 100 rows of the old features"):
        compare(broken, new, labels)
    with pytest.raises(ValueError, match="99 query labels for 100"):
        compare(old, new, labels[1:])
    with pytest.raises(ValueError, match="no impostor pair"):
        compare(old, new, np.zeros(100, int))
    with pytest.raises(ValueError, match="a FAR of 2 was given"):
        compare(old, new, labels, fars=[2])
    with pytest.raises(KeyError, match="no 'rank9' of new/old"):
        criterion(Records([Record("new", "old", "map", 0.1)]), "rank9")


def test_update_gain():
    assert update_gain(0.4, 0.4, 0.9) == 0  # the old model itself
    assert update_gain(0.9, 0.4, 0.9) == 1  # an ideal swap
    assert update_gain(0.3, 0.4, 0.8) == pytest.approx(-0.25)
    assert update_gain(0.6, 0.5, 0.5) is None and update_gain(0.6, 0.5, 0.4) is None
    assert update_gain(None, 0.4, 0.9) is None and update_gain(0.4, 0.4, None) is None
    nan = float("nan")  # how files and frames say "not measured"
    assert update_gain(nan, 0.4, 0.9) is update_gain(0.5, nan, 0.9) is update_gain(0.5, 0.4, nan) is None
    for values in ((nan, 0.5), (0.5, nan), (None, 0.5)):
        assert criterion(dict(zip(("old_old/map", "new_old/map"), values, strict=True)), "map") is None


def test_gain_interval_uses_the_draws_in_pairs():
    rng = np.random.default_rng(0)
    old = rng.random(200)  # a common fate moves all three: the gain is certain all the same
    assert gain_interval(old + 0.1, old, old + 0.4) == pytest.approx((0.25, 0.25))
    assert gain_interval(old, old, old + 0.4) == (0, 0)
    room = np.where(np.arange(200) < 20, -0.1, 0.4)
    assert gain_interval(old, old, old + room) is None
    assert gain_interval(*[np.empty(0)] * 3) is None
    with pytest.raises(ValueError, match=r"shapes \(200,\), \(200,\) and \(3,\)"):
        gain_interval(old, old, old[:3])


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
    for pair in PAIRS:
        asked, stored = pair.split("_")
        arguments = features[asked][0], queries.labels, features[stored][1], gallery[2]
        verified = verification(*arguments, fars=FARS, **sides)
        ranked = retrieval(*arguments, **sides)
        assert [result.metrics[f"{pair}/{tar_name(far)}"] for far in FARS] == list(verified.tar)
        assert result.metrics[f"{pair}/map"] == ranked.map
        assert [result.metrics[f"{pair}/rank{k}"] for k in (1, 5)] == [ranked.rank[1], ranked.rank[5]]
        assert result.notes[tuple(pair.split("_"))] == verified.note
        # A query counts as often as its identity was drawn from those of both sets together.
        weights = identity_weights(np.r_[queries.labels, gallery[2]], 15)
        expected = bootstrap_mean(ranked.average_precision, queries.labels, weights[8:])
        assert np.array_equal(result.draws[f"{pair}/map"], expected)
        assert result.metrics[f"{pair}/map/low"] <= ranked.map <= result.metrics[f"{pair}/map/high"]


def test_queries_that_are_the_gallery_give_the_metrics_of_one_set(models, compared):
    old, new, _, labels = models
    ids = np.arange(100)
    result = compare(old, new, labels, queries=Queries(old, new, labels, ids), ids=ids, fars=FARS, draws=60)
    assert result.metrics.keys() == compared.metrics.keys()
    for name, value in result.metrics.items():
        if name.startswith("new_old/") or "tar" not in name:
            assert value == compared.metrics[name]
        elif name.count("/") == 1:  # ordered instead of unordered pairs
            assert value == pytest.approx(compared.metrics[name])


def test_labels_and_ids_of_every_kind_agree(models):
    queries, gallery, ids = apart(models)
    expected = compare(*gallery, queries=queries, ids=ids, fars=FARS, draws=5).metrics
    names = Queries(
        torch.tensor(queries.old),
        torch.tensor(queries.new),
        [f"{label:02d}" for label in queries.labels],
        [f"image {i}" for i in queries.ids],
    )
    told = gallery[0].tolist(), gallery[1][::-1].copy()[::-1], [f"{label:02d}" for label in gallery[2]]
    result = compare(*told, queries=names, ids=[f"image {i}" for i in ids], fars=FARS, draws=5)
    assert {k: pytest.approx(v, abs=1e-6) for k, v in expected.items()} == result.metrics


def test_cross_sides_replace_the_new_and_the_old_features(models, compared):
    old, new, unrelated, labels = models
    ids = np.arange(100)
    same = compare(old, new, labels, cross=(new, old), fars=FARS, draws=60)
    assert same.metrics == compared.metrics
    cut = compare(old[:, :8], new, labels, cross=(new[:, :8], old[:, :8]), fars=FARS, draws=0)
    ranked = retrieval(new[:, :8], labels, old[:, :8], labels, query_ids=ids, gallery_ids=ids)
    assert cut.metrics["new_old/map"] == ranked.map
    assert cut.metrics["new_new/map"] == compared.metrics["new_new/map"]
    assert cut.metrics["old_old/map"] == compare(old[:, :8], new, labels, draws=0).metrics["old_old/map"]
    # Without old features the cross-test alone is known; a gallery carried over exactly is a self-test.
    alone = compare(None, unrelated, labels, cross=(unrelated, unrelated), fars=FARS, draws=0).metrics
    assert alone["old_old/map"] is None and alone["new_old/map"] == alone["new_new/map"]


def test_cross_sides_of_queries_and_gallery(models):
    queries, gallery, ids = apart(models)
    options = {"queries": queries, "ids": ids, "fars": FARS, "draws": 4}
    plain = compare(*gallery, **options)
    assert compare(*gallery, cross=(queries.new, gallery[0]), **options).metrics == plain.metrics
    swapped = compare(*gallery, cross=(queries.new, gallery[1]), **options).metrics
    assert swapped["new_old/map"] == plain.metrics["new_new/map"]
    assert swapped["old_old/map"] == plain.metrics["old_old/map"]
    blind = Queries(None, queries.new, queries.labels, queries.ids)
    result = compare(*gallery, **(options | {"queries": blind})).metrics
    assert result["old_old/map"] is None and result["new_old/map"] == plain.metrics["new_old/map"]


def test_bad_queries_and_cross_sides_get_a_sentence(models):
    old, new, _, labels = models
    queries, gallery, ids = apart(models)
    with pytest.raises(ValueError, match="ids were given without queries"):
        compare(old, new, labels, ids=np.arange(100))
    with pytest.raises(ValueError, match="60 old and 59 new query features"):
        compare(*gallery, queries=Queries(queries.old, queries.new[1:], queries.labels))
    with pytest.raises(ValueError, match="59 query labels for 60 query features"):
        compare(*gallery, queries=Queries(queries.old, queries.new, queries.labels[1:]))
    with pytest.raises(ValueError, match="84 gallery labels for 85 gallery features"):
        compare(*gallery[:2], gallery[2][1:], queries=queries, ids=ids)
    with pytest.raises(ValueError, match="only one of query_ids and gallery_ids"):
        compare(*gallery, queries=queries)
    with pytest.raises(
        ValueError, match="45 pairs of a query and a gallery image have equal ids and unequal"
    ):
        compare(*gallery[:2], gallery[2] + 1, queries=queries, ids=ids)
    with pytest.raises(ValueError, match="query features have 5 columns and the gallery features 16"):
        compare(*gallery, queries=Queries(queries.old[:, :5], queries.new, queries.labels), draws=0)
    with pytest.raises(ValueError, match="cross-test's gallery side has 100 rows for 85 images"):
        compare(*gallery, queries=queries, ids=ids, cross=(queries.new, old))
    with pytest.raises(ValueError, match="cross-test's query side has 99 rows for 100 images"):
        compare(old, new, labels, cross=(new[1:], old))
    with pytest.raises(ValueError, match="1 of the 100 rows of the cross-test's query features"):
        compare(old, new, labels, cross=(np.where(np.arange(100)[:, None] == 3, np.nan, new), old))
    with pytest.raises(ValueError, match="query features have 16 columns and the gallery features 4"):
        compare(old, new, labels, cross=(new, old[:, :4]))
