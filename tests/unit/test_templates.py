import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_rows import unit
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc

from compat_lib.evaluation.protocols import templates as module
from compat_lib.evaluation.protocols.templates import (
    FPIRS,
    Templates,
    identification_1_to_n,
    pair_scores,
    pool_templates,
    search,
    verification_1_to_1,
)

FARS = (1e-3, 0.01, 0.02, 0.05, 0.1, 0.3, 0.5, 1.0)
LEVELS = (0.01, 0.05, 0.1, 0.29, 0.5, 0.77, 1.0)


# -- templates -------------------------------------------------------------------------------------


def make_images(images=60, width=7, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(images, width))
    return features, rng.integers(0, 9, images) * 11 - 30, rng.integers(0, 4, images) * 5


def slow_pool(features, template_ids, media):
    # The protocol in plain loops, float64.
    pooled = []
    for template in sorted(set(template_ids)):
        total, own = np.zeros(features.shape[1]), template_ids == template
        for medium in sorted(set(media[own])):
            rows = features[own & (media == medium)]
            total += sum(rows) / len(rows)
        pooled.append(total / np.sqrt((total**2).sum()))
    return np.array(sorted(set(template_ids))), np.array(pooled)


@pytest.mark.parametrize("images, width, rows", [(60, 7, 8192), (60, 7, 13), (1, 1, 8192), (200, 33, 64)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_pooling_equals_the_definition(monkeypatch, images, width, rows, dtype):
    monkeypatch.setattr(module, "ROWS", rows)
    features, ids, media = make_images(images, width)
    features, detector = features.astype(dtype), np.random.default_rng(1).uniform(size=images)
    for scores in (None, detector):
        weighted = features.astype(float) * (1 if scores is None else scores[:, None])
        expected_ids, expected = slow_pool(weighted, ids, media)
        pooled = pool_templates(features, ids, media, scores)
        assert pooled.ids.dtype == np.int64 and pooled.features.dtype == np.float64
        assert pooled.ids.tolist() == expected_ids.tolist()
        exact = scores is None or dtype == np.float64  # else weighted features are float32
        assert np.allclose(pooled.features, expected, rtol=0, atol=1e-14 if exact else 1e-6)


def test_tensors_stay_tensors_and_names_stay_names():
    features, ids, media = make_images()
    given = (torch.from_numpy(features).float(), torch.from_numpy(ids), torch.from_numpy(media))
    tensors = pool_templates(*given)
    assert isinstance(tensors.features, torch.Tensor) and tensors.features.dtype == torch.float64
    named = pool_templates(features, [f"t{i + 100:04d}" for i in ids], media)
    assert named.ids.tolist() == [f"t{i + 100:04d}" for i in pool_templates(features, ids, media).ids]


def test_zero_sum_stays_zero_and_extreme_rows_keep_their_direction():
    rows = [[1.0, 2.0], [-1.0, -2.0], [3e300, 4e300], [3e-300, 4e-300]]
    pooled = pool_templates(rows, [0, 0, 1, 2], [0] * 4)
    assert pooled.features == pytest.approx(np.array([[0, 0], [0.6, 0.8], [0.6, 0.8]]))


# -- a list of pairs -------------------------------------------------------------------------------


def make_templates(count=30, width=9, seed=0):
    return Templates(np.arange(count) * 3 + 5, unit(np.random.default_rng(seed).normal(size=(count, width))))


def scored(scores, same, fars, **reading):
    """The records of pairs with these scores, at most 1: those of the axis with points of a circle."""
    scores = np.asarray(scores, float)
    circle = Templates(np.arange(len(scores)), np.c_[scores, np.sqrt(1 - scores**2)])
    found = verification_1_to_1(
        Templates([0], [[1.0, 0.0]]), circle, [0] * len(scores), circle.ids, same, fars=fars, **reading
    )
    return [one.value for one in found]


def slow_nearest(scores, same, far):
    # The published reading: scikit-learn's points as they come, the nearest FPR; larger rates first.
    points = zip(*sklearn_roc(same, scores)[:2], strict=True)
    return min(points, key=lambda point: (abs(point[0] - far), -point[0], -point[1]))[1]


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    pairs=st.integers(2, 300),
    genuine=st.floats(0.02, 0.98),
    decimals=st.sampled_from([None, 2, 1, 0]),
)
def test_the_reading_and_the_area_equal_their_definitions(seed, pairs, genuine, decimals):
    rng = np.random.default_rng(seed)
    same = rng.uniform(size=pairs) < genuine
    same[:2] = True, False
    scores = np.clip(rng.normal(size=pairs) * 0.3 + 0.5 * same, -1, 1)
    scores = scores if decimals is None else scores.round(decimals)
    *tar, auc = scored(scores, same, FARS)
    measurable = [(~same).sum() * far >= 1 for far in FARS]
    expected = [slow_nearest(scores, same, far) for far in FARS]
    assert tar == [value if known else None for value, known in zip(expected, measurable, strict=True)]
    assert auc == pytest.approx(roc_auc_score(same, scores), abs=1e-13)
    *tar, _ = scored(scores, same, FARS, conservative=True)
    reached = [scores >= threshold for threshold in (np.inf, *np.unique(scores))]
    rates = [(one[~same].mean(), one[same].mean()) for one in reached]
    expected = [max(own for wrong, own in rates if wrong <= far) for far in FARS]
    assert tar == [value if known else None for value, known in zip(expected, measurable, strict=True)]


def test_of_two_rates_equally_near_the_larger_is_read():
    # The FPR is 0 with TAR 2/4, then 1/2 with 3/4, then 1 with 1: 3/4 is midway.
    scores, same = [0.6, 0.6, 0.5, 0.4, 0.3, 0.2], [1, 1, 0, 1, 0, 1]
    assert scored(scores, same, [0.75, 0.74, 0.5])[:3] == [1.0, 0.75, 0.75]
    # Pairs of one score are accepted or refused together, and a FAR below one impostor pair is None.
    assert scored([1, 1, 1, 0], [1, 0, 0, 0], [0.5, 0.7, 0.3]) == [1.0, 1.0, None, pytest.approx(2 / 3)]
    assert scored(np.zeros(9), np.arange(9) < 4, [0.3, 1.0]) == [0.0, 1.0, 0.5]


@pytest.mark.parametrize("count, width", [(30, 9), (1, 1), (50, 512)])
@pytest.mark.parametrize("values", [1, 100, 2**18])
def test_scores_equal_plain_products(monkeypatch, count, width, values):
    monkeypatch.setattr(module, "VALUES", values)
    enrolled, probe = make_templates(count, width), make_templates(count + 2, width, seed=1)
    rng = np.random.default_rng(2)
    first, second = rng.choice(enrolled.ids, 77), rng.choice(probe.ids, 77)
    scores = pair_scores(enrolled, probe, first, second)
    rows = [dict(zip(side.ids, side.features, strict=True)) for side in (enrolled, probe)]
    expected = [math.fsum(rows[0][a] * rows[1][b]) for a, b in zip(first, second, strict=True)]
    assert scores.dtype == np.float64 and np.allclose(scores, expected, rtol=0, atol=1e-14)


def test_order_of_pairs_and_of_templates_and_names_do_not_matter(monkeypatch):
    templates = make_templates(40, 37)
    rng = np.random.default_rng(0)
    first, second = rng.choice(templates.ids, (2, 500))
    scores = pair_scores(templates, templates, first, second)
    assert np.array_equal(scores, pair_scores(templates, templates, second, first))
    order, pairs = rng.permutation(40), rng.permutation(500)
    names = np.array([f"person {i}" for i in range(300)])
    shuffled = Templates(names[templates.ids[order]], torch.from_numpy(templates.features[order]))
    monkeypatch.setattr(module, "VALUES", 37 * 3)
    asked = names[first[pairs]].astype(object), second[pairs]
    assert np.array_equal(scores[pairs], pair_scores(shuffled, templates, *asked))


# -- one gallery -----------------------------------------------------------------------------------


def searched(gallery, gallery_subjects, probe, probe_subjects, fpirs=FPIRS, ranks=(1, 5, 10)):
    sides = (gallery, gallery_subjects), (probe, probe_subjects)
    sides = [(torch.as_tensor(rows, dtype=torch.float64), np.array(own)) for rows, own in sides]
    tpir, hits = search(*sides, fpirs, ranks)
    return tpir.tolist(), hits


def make_search(entries=12, probes=90, width=6, noise=0.6, seed=0, strangers=6):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(entries + strangers, width))
    subjects = rng.integers(0, entries + strangers, probes)
    subjects[:2] = 0, entries  # one mate and one non-mate at least
    names = rng.permutation(entries + strangers) * 7 + 3
    gallery = unit(centres[:entries] + noise * rng.normal(size=(entries, width)))
    probe = unit(centres[subjects] + noise * rng.normal(size=(probes, width)))
    return gallery, names[:entries], probe, names[subjects]


def slow_search(gallery, gallery_subjects, probe, probe_subjects, fpirs, ranks):
    # The protocol for one gallery in plain loops, float64. Ties with the mate rank before it.
    mate_scores, best_others, tops, hits = [], [], [], dict.fromkeys(ranks, 0)
    for row, subject in zip(probe, probe_subjects, strict=True):
        scores = [float(np.dot(row, entry)) for entry in gallery]
        own = [j for j, known in enumerate(gallery_subjects) if known == subject]
        if not own:
            tops.append(max(scores))
            continue
        others = [s for j, s in enumerate(scores) if j != own[0]]
        for k in ranks:
            hits[k] += sum(s >= scores[own[0]] for s in others) < k
        mate_scores.append(scores[own[0]])
        best_others.append(max(others, default=-math.inf))
    tops.sort(reverse=True)
    tpir = []
    for f in fpirs:
        whole = max(k for k in range(len(tops) + 1) if k / len(tops) <= f)  # floor(n f)
        threshold = tops[max(whole - 1, 0)]
        right = [own > max(best, threshold) for own, best in zip(mate_scores, best_others, strict=True)]
        tpir.append(sum(right) / len(right) if whole else math.nan)
    return tpir, hits


def same_search(found, expected):
    assert found[0] == pytest.approx(expected[0], abs=1e-15, nan_ok=True) and found[1] == expected[1]


@pytest.mark.parametrize("scores", [1, 500, 2**20])
@pytest.mark.parametrize("entries, probes, width", [(12, 90, 6), (1, 5, 3), (70, 200, 33)])
def test_search_equals_the_definition(monkeypatch, entries, probes, width, scores):
    monkeypatch.setattr(module, "SCORES", scores)
    lists = make_search(entries, probes, width)
    ranks = (1, 2, 5, 100)
    same_search(searched(*lists, LEVELS, ranks), slow_search(*lists, LEVELS, ranks))


def test_ties_are_pessimistic_in_hits_and_strict_in_tpir():
    gallery = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found = searched(gallery, [1, 2, 3], [[1.0, 0.0], [0.0, 1.0]], [1, 9], (1.0,), (1, 2, 3))
    assert found == ([0.0], {1: 0, 2: 1, 3: 1})
    # The mate's score equals the threshold: not above it.
    assert searched([[1.0, 0.0]], [1], [[1.0, 0.0], [1.0, 0.0]], [1, 9], (1.0,), (1,)) == ([0.0], {1: 1})


@pytest.mark.parametrize("entries", [2, 61, 128, 191])
def test_equal_rows_are_tied_wherever_they_stand(monkeypatch, entries):
    # The last columns of a product may be computed in another way, with another last digit.
    monkeypatch.setattr(module, "SCORES", 640)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        width, known = 5 + 13 * seed, np.arange(entries)
        subjects = rng.permutation(np.r_[np.full(40, entries - 1), np.full(10, -1)])
        row, probe = unit(rng.normal(size=(2, width)))
        collapsed = np.tile(row, (entries, 1)), known, np.tile(probe, (50, 1)), subjects
        assert searched(*collapsed, (1.0,))[1][1] == 0
        gallery = unit(rng.normal(size=(entries, width)))
        probes = np.tile(unit(gallery[-1:] + 0.01), (50, 1))  # strangers score what the mates score
        assert searched(gallery, known, probes, subjects, (1.0,), (1,)) == ([0.0], {1: 40})


def test_probes_of_one_kind_only():
    gallery, subjects, probe, _ = make_search()
    nobody, hits = searched(gallery, subjects, probe, np.full(90, -5))
    everybody, _ = searched(gallery, subjects, probe, np.resize(subjects, 90))
    assert np.isnan([*nobody, *everybody]).all() and hits == {1: 0, 5: 0, 10: 0}


# -- two galleries ---------------------------------------------------------------------------------


def make_protocol(seed=0, unenrolled=0, width=5):
    # 6 + 5 gallery templates and 40 probe templates, named for each of 1 to 4 images in random order.
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(13, width))
    owner = np.r_[np.arange(11), np.arange(40) % 11]
    owner[51 - unenrolled :] = 12
    ids = rng.permutation(900)[:51]
    order = np.argsort(ids)
    sides = [unit(centres[owner] + noise * rng.normal(size=(51, width))) for noise in (0.7, 0.4)]

    def by_image(rows):
        repeated = rng.permutation(np.repeat(rows, rng.integers(1, 5, len(rows))))
        return ids[repeated], owner[repeated] + 100

    lists = by_image(np.arange(6)), by_image(np.arange(6, 11)), by_image(np.arange(11, 51))
    return [Templates(ids[order], side[order]) for side in sides], lists


def slow_lists(enrolled, gallery_list, probe, probe_list):
    sides = []
    for templates, pairs in ((enrolled, gallery_list), (probe, probe_list)):
        at = {template: row for row, template in enumerate(templates.ids.tolist())}
        unique = sorted(set(zip(pairs[0].tolist(), pairs[1].tolist(), strict=True)))
        sides += [templates.features[[at[t] for t, _ in unique]], np.array([s for _, s in unique])]
    return sides


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("unenrolled", [0, 3])
def test_identification_equals_the_definition(seed, unenrolled):
    (old, new), (one, two, probes) = make_protocol(seed, unenrolled)
    found = identification_1_to_n(old, new, one, two, probes, fpirs=LEVELS)
    assert len(found) == len(LEVELS) + 6
    expected = [slow_search(*slow_lists(old, g, new, probes), LEVELS, (1, 5, 10)) for g in (one, two)]
    names = ("1e-2", "5e-2", "1e-1", "2.9e-1", "5e-1", "7.7e-1", "1e0")
    for name, *tpir in zip(names, *(tpir for tpir, _ in expected), strict=True):
        value = found.value(None, None, f"tpir@fpir={name}")
        assert math.isnan(sum(tpir)) if value is None else value == pytest.approx(np.mean(tpir))
    both = np.concatenate([one[0], two[0]]), np.concatenate([one[1], two[1]])
    gallery, subjects, probe, probe_subjects = slow_lists(old, both, new, probes)
    known = np.isin(probe_subjects, subjects)
    assert (~known).sum() == unenrolled
    rows = np.r_[probe[known], -gallery[:1]], np.r_[probe_subjects[known], -1]  # the loop needs a stranger
    _, stacked = slow_search(gallery, subjects, *rows, (1.0,), (1, 5, 10))
    for k in (1, 5, 10):
        assert found.value(None, None, f"top{k}") == sum(hits[k] for _, hits in expected) / 40
        assert found.value(None, None, f"stacked_top{k}") == stacked[k] / 40


ROWS = Templates([1, 2, 3], np.eye(3))


def test_probes_may_be_in_a_gallery_and_without_strangers_in_both_there_is_no_mean():
    rows = Templates([1, 2, 3], [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
    found = identification_1_to_n(rows, rows, ([1], [1]), ([2], [2]), ([3, 1], [1, 1]))
    assert found.value(None, None, "tpir@fpir=1e0") is None and found.value(None, None, "top1") == 1


@pytest.mark.parametrize(
    "one, two, probes, sentence",
    [
        (([1, 1], [5, 6]), ([2], [7]), ([3], [5]), "template 1 of gallery 1 has two subjects"),
        (([1, 2], [5, 5]), ([3], [7]), ([3], [5]), "5 stands more than once among the subjects of gallery 1"),
        (([1], [5]), ([2], [5]), ([3], [5]), "5 stands more than once among the subjects of both galleries"),
        (([1], [5]), ([9], [7]), ([3], [5]), "gallery 2 names 1 templates that no image has, such as 9"),
        (([1], [5]), ([2], [7]), ([8], [5]), "the probe list names 1 templates"),
        ((["1"], [5]), ([2], [7]), ([3], [5]), "names and those that they refer to are numbers"),
        (([1], [5]), ([2], [7]), ([3], ["5"]), "names and those that they refer to are numbers"),
    ],
)
def test_lists_that_break_the_protocol_are_refused(one, two, probes, sentence):
    with pytest.raises(ValueError, match=sentence):
        identification_1_to_n(ROWS, ROWS, one, two, probes)


def verified(templates, same=(1, 0)):
    return verification_1_to_1(templates, ROWS, [1, 1], [2, 3], same)


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda: pool_templates(np.ones((3, 2)), [1] * 3, [1] * 3, [1, 1]), r"of shape \(2,\) for 3 images"),
        (lambda: pool_templates(np.ones((3, 2)), [1] * 3, [1] * 3, [1, 1, -1]), "give one from 0"),
        (lambda: pool_templates([[np.nan], [1.0]], [1, 2], [1, 1]), "images of 1 of the 2 templates"),
        (
            lambda: verified(Templates([1, 2, 3], [[0.0, 0.98], [0, 0], [0.995, 0]])),
            "1 of the 3 rows of the enrolled",
        ),
        (lambda: verified(Templates([1], [[0.0, np.inf]])), "not finite or not of unit length"),
        (lambda: verified(Templates([1, 1], np.eye(2))), "1 stands more than once among the ids of the enr"),
        (lambda: verified(Templates([1], np.eye(3))), "each of 3 rows"),
        (lambda: verified(ROWS, [1, 1]), "2 genuine and 0 impostor pairs"),
        *((lambda same=same: verified(ROWS, same), "give True or 1") for same in ([2, 0], [np.nan, 0])),
        *((lambda same=same: verified(ROWS, same), "give True or 1") for same in (["1", "0"], [1, 0, 0])),
    ],
)
def test_what_cannot_be_measured_is_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
