import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_rows import best_tar
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc

from compat_lib.evaluation import criterion
from compat_lib.evaluation.protocols import roc
from compat_lib.evaluation.protocols.roc import pair_list_scores, tar_at_far, verification_1_to_1
from compat_lib.evaluation.protocols.templates import Templates

FARS = (1e-3, 0.01, 0.02, 0.05, 0.1, 0.3, 0.5, 1.0)


def make_scores(pairs=400, seed=0, genuine=0.2, decimals=None):
    rng = np.random.default_rng(seed)
    same = rng.uniform(size=pairs) < genuine
    same[:2] = True, False
    scores = rng.normal(size=pairs) * 0.3 + 0.5 * same
    return (scores if decimals is None else scores.round(decimals)), same


def make_templates(count=30, width=9, seed=0, ids=None):
    rows = np.random.default_rng(seed).normal(size=(count, width))
    ids = np.arange(count) * 3 + 5 if ids is None else ids
    return Templates(ids, rows / np.linalg.norm(rows, axis=1, keepdims=True))


def slow_nearest(scores, same, far):
    # The published reading: scikit-learn's points as they come, the nearest FPR; larger rates first.
    points = zip(*sklearn_roc(same, scores)[:2], strict=True)
    return min(points, key=lambda point: (abs(point[0] - far), -point[0], -point[1]))


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    pairs=st.integers(2, 300),
    genuine=st.floats(0.02, 0.98),
    decimals=st.sampled_from([None, 2, 1, 0]),
)
def test_both_readings_and_the_area_equal_their_definitions(seed, pairs, genuine, decimals):
    scores, same = make_scores(pairs, seed, genuine, decimals)
    careful = tar_at_far(scores, same, FARS)
    assert careful.tar == pytest.approx([best_tar(same, scores, far) for far in FARS], abs=1e-15)
    nearest = tar_at_far(scores, same, FARS, reading="nearest")
    expected = [slow_nearest(scores, same, far) for far in FARS]
    assert nearest.reached == tuple(point[0] for point in expected)
    assert nearest.tar == tuple(point[1] for point in expected)
    assert careful.auc == nearest.auc == pytest.approx(roc_auc_score(same, scores), abs=1e-13)
    for result in (careful, nearest):  # every value is that of its threshold
        assert (result.positives, result.negatives) == (same.sum(), (~same).sum())
        for tar, reached, threshold in zip(result.tar, result.reached, result.thresholds, strict=True):
            assert tar == pytest.approx((scores[same] >= threshold).mean(), abs=1e-15)
            assert reached == pytest.approx((scores[~same] >= threshold).mean(), abs=1e-15)


def test_of_two_rates_equally_near_the_larger_is_read():
    # The FPR is 0 with TAR 2/4, then 1/2 with 3/4, then 1 with 1: 1/4 and 3/4 are midway.
    scores, same = [6, 6, 5, 4, 3, 2], [1, 1, 0, 1, 0, 1]
    result = tar_at_far(scores, same, [0.25, 0.75, 0.24], reading="nearest")
    assert result.reached == (0.5, 1.0, 0.0)
    assert result.tar == (0.75, 1.0, 0.5)
    assert tar_at_far(scores, same, [0.25, 0.75]).tar == (0.5, 0.75)


def test_far_below_one_impostor_pair_is_marked():
    scores, same = np.arange(12.0), np.arange(12) >= 2  # 10 genuine pairs above 2 impostors
    same[5] = False  # 3 impostors
    result = tar_at_far(scores, same, [1 / 3, 0.3])
    assert result.measurable == (True, False)
    assert result.tar == (1.0, pytest.approx(6 / 9))  # the second is the point without false accepts
    expected = {"tar@far=3.333333e-1": 1.0, "tar@far=3e-1": None, "auc": result.auc}
    assert {one.metric: one.value for one in result.records} == expected
    assert "tar@far=3e-1 n/a" in result.summary()


def test_other_containers_give_the_same():
    scores, same = make_scores()
    forms = [(torch.from_numpy(scores), torch.from_numpy(same)), (scores.tolist(), same.tolist())]
    forms += [(scores.astype(">f8"), same.astype(np.int8)), (scores[::-1].copy()[::-1], same.astype(float))]
    for form in forms:
        assert tar_at_far(*form) == tar_at_far(scores, same)


@pytest.mark.parametrize("count, width", [(30, 9), (1, 1), (50, 512)])
@pytest.mark.parametrize("values", [1, 100, 2**18])
def test_scores_equal_plain_products(monkeypatch, count, width, values):
    monkeypatch.setattr(roc, "VALUES", values)
    enrolled, probe = make_templates(count, width), make_templates(count + 2, width, seed=1)
    rng = np.random.default_rng(2)
    first, second = rng.choice(enrolled.ids, 77), rng.choice(probe.ids, 77)
    scores = pair_list_scores(enrolled, probe, first, second)
    rows = [dict(zip(side.ids, side.features, strict=True)) for side in (enrolled, probe)]
    expected = [math.fsum(rows[0][a] * rows[1][b]) for a, b in zip(first, second, strict=True)]
    assert scores.dtype == np.float64 and np.allclose(scores, expected, rtol=0, atol=1e-14)


def test_order_of_pairs_and_of_templates_and_names_do_not_matter(monkeypatch):
    templates = make_templates(40, 37)
    rng = np.random.default_rng(0)
    first, second = rng.choice(templates.ids, (2, 500))
    scores = pair_list_scores(templates, templates, first, second)
    assert np.array_equal(scores, pair_list_scores(templates, templates, second, first))
    order, pairs = rng.permutation(40), rng.permutation(500)
    names = np.array([f"person {i}" for i in range(300)])
    shuffled = Templates(names[templates.ids[order]], torch.from_numpy(templates.features[order]))
    monkeypatch.setattr(roc, "VALUES", 37 * 3)
    asked = names[first[pairs]].astype(object), second[pairs]
    assert np.array_equal(scores[pairs], pair_list_scores(shuffled, templates, *asked))


def test_cross_test_takes_the_first_template_from_the_old_model():
    models = {"old": make_templates(seed=1), "new": make_templates(seed=2)}
    rng = np.random.default_rng(3)
    rows, others = (np.stack(np.triu_indices(30, 1))[:, rng.permutation(435)[:200]]).tolist()
    lists = models["old"].ids[rows], models["old"].ids[others], rng.uniform(size=200) < 0.3
    tests = verification_1_to_1(models["old"], models["new"], *lists, fars=FARS, reading="nearest")
    for (query, gallery), result in tests.results.items():
        scores = (models[gallery].features[rows] * models[query].features[others]).sum(1)
        assert result.tar == tar_at_far(scores, lists[2], FARS, reading="nearest").tar
        assert tests.records.value(query, gallery, "auc") == roc_auc_score(lists[2], scores)
    bar, cross = (tests.records.value(query, "old", "auc") for query in ("old", "new"))
    assert criterion(tests.records, "auc") == (cross > bar)
    assert verification_1_to_1(models["old"], make_templates(width=12), *lists).results["new", "old"] is None


def test_scores_that_have_no_curve_are_refused():
    for scores, same, options, words in (
        ([1, 2], [0, 1], {"reading": "published"}, "choose 'conservative' or 'nearest'"),
        ([1, 2], [1, 1], {}, "2 genuine and 0 impostor pairs"),
        ([1, np.nan], [0, 1], {}, "one finite score for each pair"),
    ):
        with pytest.raises(ValueError, match=words):
            tar_at_far(scores, same, **options)
