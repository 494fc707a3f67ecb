"""The rows of a check beside old/old, new/old and new/new, and what is done without labels, by loops."""

import functools
import unicodedata

import numpy as np
import pandas as pd
import pytest
import torch
from plain_rows import average_precision, photographed
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import normalize

from compat_lib.adapters import fit_interpolation, fit_procrustes, fit_ridge
from compat_lib.deploy import check_rows
from compat_lib.deploy.check import check_compatibility
from compat_lib.deploy.check_measure import read_relevance
from compat_lib.evaluation import Queries, compare, merged_indexes_curve, mixed_gallery_curve, retrieval
from compat_lib.evaluation.inputs import unit_rows
from compat_lib.orthogonal_adapter import fit_orthogonal


def make_models(identities=40, images=6, width=12, seed=0):
    return photographed(identities, images, width, (0.8, 0.4), shuffled=False, seed=seed)


@pytest.fixture(scope="module")
def models():
    return make_models()


# -- interpolation, maps, thresholds, groups -------------------------------------------------------


def test_maps_and_interpolations_are_fitted_to_the_other_half_of_the_identities(models):
    old, new, labels, turn = models
    new, ids = new @ turn, np.arange(len(labels))
    result = check_compatibility(old, new, labels, draws=0, seed=7, metric="map")
    fits = {"ridge": functools.partial(fit_ridge, penalty=1e-3), "procrustes": fit_procrustes}
    alphas = {"midpoint": [0.5], "slerp": [k / 10 for k in range(11)]}
    half = np.random.default_rng(7).permutation(40)[labels] % 2
    for name in ("ridge", "procrustes", "ridge-query", "procrustes-query", *alphas):
        query, gallery = new.copy(), old.copy()
        for seen, unseen in ((half == 0, half == 1), (half == 1, half == 0)):
            if name in alphas:
                fitted = fit_interpolation(old[seen], new[seen], labels[seen], alphas=alphas[name])
                query[unseen] = fitted.apply(old[unseen], new[unseen])
            elif name in fits:
                gallery[unseen] = fits[name](old[seen], new[seen]).apply(old[unseen])
            else:  # the other direction: new queries in the old space
                query[unseen] = fits[name.removesuffix("-query")](new[seen], old[seen]).apply(new[unseen])
        expected = retrieval(query, labels, gallery, labels, query_ids=ids, gallery_ids=ids)
        found = result.records.value("new", "old", "map", adapter=name)
        assert found == pytest.approx(expected.map, abs=1e-6), name


@pytest.mark.parametrize("wider", [False, True])
def test_trained_maps_learn_from_the_other_half_where_that_is_large_enough(models, wider, monkeypatch):
    old, new, labels, turn = models
    new = np.hstack([new @ turn, new]) if wider else new @ turn
    asked = {"draws": 0, "metric": "map", "seed": 7}
    titles = ["new/old, λ-orthogonal on the query", "new/old, λ-orthogonal on both"]
    assert not set(titles) & set(check_compatibility(old, new, labels, **asked).table().index)
    monkeypatch.setattr(check_rows, "LEARNED", (120, 10**5))
    monkeypatch.setattr(check_rows, "STEPS", 100)
    result = check_compatibility(old, new, labels, **asked)
    half, ids = np.random.default_rng(7).permutation(40)[labels] % 2, np.arange(len(labels))
    query, gallery = np.empty_like(old), np.empty_like(old)
    old, new = unit_rows(old, "old").numpy(), unit_rows(new, "new").numpy()  # a training magnifies roundings
    for side in (0, 1):
        seen = np.flatnonzero(half == side)
        order = torch.randperm(len(seen), generator=torch.Generator().manual_seed(7)).numpy()
        pairs = old[seen[order]], new[seen[order]], labels[seen[order]]
        fitted = fit_orthogonal(*pairs, epochs=-(-100 * 256 // len(seen)), seed=7)
        query[half != side] = fitted.query(new[half != side])
        gallery[half != side] = fitted.gallery(old[half != side])
    for name, there in (("lambda-orthogonal-query", old), ("lambda-orthogonal", gallery)):
        expected = retrieval(query, labels, there, labels, query_ids=ids, gallery_ids=ids)
        found = result.records.value("new", "old", "map", adapter=name)
        assert found == pytest.approx(expected.map, abs=1e-6)
    assert set(titles) < set(result.table().index)


@pytest.mark.parametrize("metric", ["map", "tar@far=1e-2"])
@pytest.mark.parametrize("merged", [False, True])
def test_mixed_galleries_and_two_indexes_are_those_of_the_evaluation(models, metric, merged):
    """Of a TAR the mean over all orders; of two indexes the models need neither be compatible nor alike."""
    old, new, labels, turn = models
    new = np.hstack([new @ turn, new]) if merged else new @ turn
    result = check_compatibility(old, new, labels, metric=metric, draws=0, adapter=False, seed=2)
    curve, shares = (merged_indexes_curve if merged else mixed_gallery_curve), [0, 0.25, 0.5, 0.75, 1]
    options = {"shares": shares[1:-1] if merged else shares, "fars": () if metric == "map" else (1e-2,)}
    seeds = [2] if metric == "map" else range(8)
    curves = [curve(old, new, labels, seed=s, **options).values(metric) for s in seeds]
    rows = result.records.select(gallery="mixed", adapter="rank-merge" if merged else None)
    tolerance = 1e-6 if metric == "map" else 0.01
    assert [one.value for one in rows] == pytest.approx(np.mean(curves, axis=0), abs=tolerance)
    assert not merged or "two indexes, merged, 50 % backfilled" in result.summary()


@pytest.mark.parametrize("way", ["labels", "relevance", "neighbours"])
def test_codes_of_equal_cosine_tie_wherever_their_bits_stand(models, way):
    """Wrong items that tie come first: in whole numbers, in each way to measure."""
    codes = [np.sign(side).astype(np.int8) for side in models[:2]]
    labels, names = models[2], np.arange(240).astype(str)
    right, given = labels[:, None] == labels, {"labels": labels}
    np.fill_diagonal(right, False)
    if way == "relevance":
        pairs = {role: names[rows] for role, rows in zip(("query", "item"), np.nonzero(right), strict=True)}
        given = {"ids": names, "new_ids": names, "relevance": pd.DataFrame(pairs)}
    products = dict(zip(("old", "new"), (codes[n].astype(int) @ codes[0].T for n in (0, 1)), strict=True))
    if way == "neighbours":
        given, own = {}, codes[1].astype(int) @ codes[1].T - 99 * np.eye(240, dtype=int)
        np.put_along_axis(right := np.zeros_like(right), (-own).argsort(1, kind="stable")[:, :10], True, 1)
    for query, scores in products.items():
        expected = []
        for line, good in zip(scores - 99 * np.eye(240, dtype=int), right, strict=True):
            order = np.lexsort((good, -line))
            among = good[order][:10].sum() / good.sum()
            expected.append(among if way == "neighbours" else average_precision(good[order]))
        for bits in (slice(None), np.random.default_rng(0).permutation(12)):
            moved = (side[:, bits] for side in codes)
            found = check_compatibility(*moved, draws=0, adapter=isinstance(bits, slice), **given).records
            metric = "overlap@10" if way == "neighbours" else "map"
            assert found.value(query, "old", metric) == pytest.approx(np.mean(expected), abs=1e-12)


def test_after_not_compatible_it_says_what_to_try_and_keeps_the_best_map(models):
    old, new, labels, turn = models
    result = check_compatibility(old, new @ turn, labels, draws=60)
    assert result.verdict == "not compatible" and len(result.next_steps) == 4
    said = " ".join(result.next_steps)
    for part in ("ask with both", "save-adapter", "backfill_order", "trained again"):
        assert part in said and part in " ".join(result.summary().split())
    assert result.adapter.kind == "procrustes"  # the new space is the old one, turned
    share = result.records.value("new", "old", "relative_negative_flips")
    row = result.changed().loc["right before and wrong now, of what two unrelated models have"]
    assert row.item().startswith(f"{100 * share:.1f}")
    good = check_compatibility(old, new, labels, draws=60, metric="map")
    assert good.compatible and not good.next_steps and "Next:" not in good.summary()
    assert check_compatibility(old, new, labels, draws=0, adapter=False).adapter is None


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_thresholds_accept_as_many_strangers(models, threshold):
    old, new, labels, _ = models
    result = check_compatibility(old, new, labels, draws=0, adapter=False, threshold=threshold)
    unit, same = {"old": normalize(old), "new": normalize(new)}, labels[:, None] == labels
    different, value = ~same, result.records.value
    np.fill_diagonal(same, False)
    shares = {}
    for query, gallery in (("old", "old"), ("new", "old"), ("new", "new")):
        scores, own = unit[query] @ unit[gallery].T, value(query, gallery, "threshold")
        shares[query, gallery] = (scores[different] >= own).mean()
        assert value(query, gallery, "accepted") == pytest.approx((scores[same] >= own).mean(), abs=0.002)
    share = value("old", "old", "strangers")
    assert share == pytest.approx(shares["old", "old"], abs=1e-4)
    assert all(share - 0.001 < one <= share + 1e-4 for one in shares.values())
    if threshold:
        assert value("old", "old", "threshold") == threshold and "threshold 0.500 accepts" in result.summary()
    else:
        assert share <= 1e-3


@pytest.mark.parametrize("metric", ["tar@far=1e-2", "map"])
def test_a_group_is_its_queries_in_the_whole_gallery(models, metric):
    old, new, labels, _ = models
    groups = np.where(labels < 3, "few", np.where(np.arange(240) % 2, "a", "b"))
    result = check_compatibility(old, new, labels, groups=groups, metric=metric, draws=50, adapter=False)
    rows, ids = np.flatnonzero(groups == "a"), np.arange(240)
    queries = Queries(old[rows], new[rows], labels[rows], ids=rows)
    expected = compare(old, new, labels, queries=queries, ids=ids, fars=(1e-2,), draws=50).records
    for query in ("old", "new"):
        one = result.records.get(query, "old", f"group=a/{metric}")
        assert one.value == expected.value(query, "old", metric)
        assert one.low == expected.get(query, "old", metric).low
    verdicts = {one["group"]: one["verdict"] for one in result.groups}
    assert verdicts["few"] == "undecided" and list(verdicts) == ["a", "b", "few"]
    assert "few" in result.summary() and "few" in result.page()


def test_a_metric_that_is_perfect_before_and_after_opposes_nothing():
    random = np.random.default_rng(0)
    centres = random.normal(size=(40, 32))
    labels = np.repeat(np.arange(40), 6)
    noise = random.normal(size=(240, 32)) * 0.6
    sides = [centres[labels] + scale * noise for scale in (1.0, 0.7)]
    result = check_compatibility(*sides, labels, adapter=False)
    firsts = [result.records.value(query, "old", "rank1") for query in ("old", "new")]
    assert firsts == [1.0, 1.0] and result.records.get("new", "old", "gain/tar@far=1e-3").low > 0
    assert result.verdict == "compatible"


def test_metrics_that_disagree_are_the_sentence():
    rng = np.random.default_rng(3)
    old, new, labels, _ = make_models(identities=60, seed=3)
    ones = np.ones((len(labels), 1))
    # A query's own share of a direction that the whole gallery has: it moves thresholds, and no ranking.
    shift = 3.0 * (rng.random((len(labels), 1)) < 0.05)
    old, new = np.hstack([normalize(old), ones]), np.hstack([normalize(new), shift])
    result = check_compatibility(old, new, labels, draws=60, adapter=False)
    gains = {m: result.records.get("new", "old", f"gain/{m}") for m in ("tar@far=1e-3", "map")}
    assert gains["tar@far=1e-3"].high < 0 < gains["map"].low
    assert result.verdict == "undecided" and "two metrics disagree: in mAP" in result.sentence
    asked = check_compatibility(old, new, labels, draws=60, adapter=False, metric="map")
    assert asked.verdict == "compatible" and "two metrics disagree: in TAR@FAR=1e-3" in asked.sentence


def test_rows_in_another_order_are_told():
    old, new, labels, _ = make_models(identities=20, images=12)
    rng = np.random.default_rng(0)
    within = np.lexsort((rng.random(240), labels))  # of the same identities
    result = check_compatibility(old, new[within], labels, draws=60, groups=np.zeros(240, int))
    assert not result.compatible and "seem not to be the same images" in result.reason
    assert not result.above  # in --ignore-noise either: this is no noise
    assert result.records.value("new", "old", f"gain/{result.metric}") > 0
    assert [one["verdict"] for one in result.groups] == ["undecided"]
    assert any("in the same order?" in note and "too good" in note for note in result.notes)
    result = check_compatibility(old, new[rng.permutation(240)], labels, draws=60)
    assert any("new model itself is not clearly better" in note for note in result.notes)
    assert result.verdict == "undecided" and "its rows are in another order" in result.reason
    assert not any("order" in note for note in check_compatibility(old, new, labels, draws=60).notes)


# -- without labels --------------------------------------------------------------------------------


def test_without_labels_the_new_models_own_neighbours_are_looked_for(models):
    old, new, _, turn = models
    result = check_compatibility(old, new, draws=60)
    unit = {"old": normalize(old), "new": normalize(new)}
    nearest = {}
    for query, gallery in (("old", "old"), ("new", "old"), ("new", "new")):
        scores = unit[query] @ unit[gallery].T
        np.fill_diagonal(scores, -2)
        nearest[query, gallery] = (-scores).argsort(axis=1)
    for pair, order in nearest.items():
        own, value = nearest["new", "new"], result.records.value
        overlap = np.mean([len({*a[:10]} & {*b[:10]}) / 10 for a, b in zip(order, own, strict=True)])
        assert value(*pair, "overlap@10") == pytest.approx(overlap)
        assert value(*pair, "nearest@1") == pytest.approx(np.mean(order[:, 0] == own[:, 0]))
        found = np.mean([b[0] in a[:10] for a, b in zip(order, own, strict=True)])
        assert value(*pair, "nearest@10") == pytest.approx(found)
    assert result.verdict == "undecided without labels" and not result.compatible and not result.above
    assert "midpoint" in result.summary() and result.page().count("<img") == 2
    apart = check_compatibility(old, np.hstack([new @ turn, new]), draws=0)
    assert apart.verdict == "not compatible" and apart.adapter is not None
    assert len(apart.next_steps) == 5 and not any("%" in step for step in apart.next_steps)
    assert "two indexes, merged" in apart.summary()


def test_relevance_lists_give_the_usual_verdict(models):
    old, new, labels, turn = models
    asks = np.arange(240) % 6 == 0
    ids = np.array([f"{'q' if one else 'd'}{n}" for n, one in enumerate(asks)])
    items = ~asks
    items[239] = False  # a query without a right answer, which is no answer either
    alike = (labels[:, None] == labels) & asks[:, None] & items
    pairs = [(ids[q], ids[d], 1) for q, d in np.argwhere(alike)]
    pairs += [("q0", "nowhere", 1), ("nobody", ids[1], 1), (ids[239], ids[1], 0)]
    relevance = pd.DataFrame(pairs, columns=["query", "item", "relevance"])
    result = check_compatibility(old, new, ids=ids, new_ids=ids, relevance=relevance, draws=60)
    for query, gallery in (("old", "old"), ("new", "old"), ("new", "new")):
        unit = {"old": normalize(old), "new": normalize(new)}
        scores = unit[query][asks] @ unit[gallery][items].T
        right = labels[asks][:, None] == labels[items]
        value = np.mean([average_precision_score(*line) for line in zip(right, scores, strict=True)])
        assert result.records.value(query, gallery, "map") == pytest.approx(value, abs=1e-6)
        first = np.mean([line[score.argmax()] for line, score in zip(right, scores, strict=True)])
        assert result.records.value(query, gallery, "rank1") == pytest.approx(first)
    assert result.verdict == "compatible" and result.metric == "map" and result.basis["asking"] == 40
    said = "2 pairs of the relevance lists are left out, since no image has their ids; without them 1 queries"
    assert any(note.startswith(said) for note in result.notes)
    apart = check_compatibility(old, new @ turn, ids=ids, new_ids=ids, relevance=relevance, draws=60)
    assert apart.verdict == "not compatible"
    with pytest.raises(ValueError, match="no pair of the relevance lists"):
        check_compatibility(old, new, ids=ids, new_ids=ids, relevance=relevance.tail(2))
    with pytest.raises(ValueError, match="give ids alone"):
        check_compatibility(old, new, labels, ids=ids, new_ids=ids, relevance=relevance)


@pytest.mark.parametrize(
    "text",
    [
        "q1 0 d1 1\nq1 0 d2 0\nq2 0 Zoë 2\n",
        "q1\t0\td1\t1\nq1\t0\td2\t0\nq2\t0\tZoë\t2\n",
        "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\nq2\tZoë\t2\n",
        "query,image,relevance\nq1,d1,1\nq1,d2,-1\nq2,Zoë,1\n",
        "item;query\nd1;q1\nZoë;q2\n",
        '"query_id","doc_id"\n"q1","d1"\n"q2","Zoë"\n',
        "query,item,relevance\nq1,d1,True\nq1,d2,False\nq2,Zoë,True\n",  # by pandas
    ],
)
def test_relevance_lists_are_read_in_the_forms_that_people_have(tmp_path, text):
    (tmp_path / "qrels").write_text(unicodedata.normalize("NFD", text), encoding="utf-8")
    found = read_relevance(tmp_path / "qrels")
    found = found[found["relevance"] > 0]
    assert found[["query", "item"]].to_numpy().tolist() == [["q1", "d1"], ["q2", "Zoë"]]


def test_whole_numbers_in_relevance_lists_may_have_a_point(tmp_path):
    (tmp_path / "qrels").write_text("query,item\n0.0,7.0\n1.0,7.0\n")
    assert read_relevance(tmp_path / "qrels")[["query", "item"]].to_numpy().tolist() == [
        ["0", "7"],
        ["1", "7"],
    ]


def test_relevance_lists_are_text(tmp_path):
    (tmp_path / "qrels.parquet").write_bytes(b"PAR1\xff\xfe")
    with pytest.raises(ValueError, match="relevance lists are text"):
        read_relevance(tmp_path / "qrels.parquet")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1 d1\n", "no line of relevance lists"),
        ("q1 0 d1 yes\n", "qrels cannot be read .*yes"),
        ("query,item\nq1,d1\nq1,\n", "the ids must be whole numbers or names, but row 1 holds ''"),
        ("q1 0 d1 1\nq1 0 d2\n", "row 1 has no relevance"),
        ("q1 0 d1 0\n", "no pair has a relevance above 0"),
        ("item,relevance\nd1,1\n", "no line of relevance lists"),
        ("query,item,score,label\nq1,d1,0.9,0\n", "the relevance could be 'score' or 'label'"),
        ("query_id,query,doc_id\nq1,red shoes,d1\n", "the query could be 'query_id' or 'query'"),
        ("q1 0 d1 1\nq1 0 d2 1\nq1 0 d1 0\n", "the pair 'q1', 'd1' stands there with and without"),
    ],
)
def test_relevance_lists_that_are_none_are_refused(tmp_path, text, message):
    (tmp_path / "qrels").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_relevance(tmp_path / "qrels")
