import math

import numpy as np
import pytest
import torch
from plain_rows import unit

from compat_lib.evaluation import criterion
from compat_lib.evaluation.protocols import identification as module
from compat_lib.evaluation.protocols.identification import (
    FPIRS,
    RANKS,
    identification,
    identification_1_to_n,
    template_subjects,
)
from compat_lib.evaluation.protocols.templates import Templates

LEVELS = (0.01, 0.05, 0.1, 0.29, 0.5, 0.77, 1.0)


def gallery_search(gallery, gallery_subjects, probe, probe_subjects, fpirs=FPIRS, ranks=RANKS):
    sides = (gallery, gallery_subjects), (probe, probe_subjects)
    sides = [(torch.as_tensor(rows, dtype=torch.float64), np.array(own)) for rows, own in sides]
    return module.search(*sides, fpirs, ranks)


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
    tpir, thresholds = [], []
    for f in fpirs:
        whole = max(k for k in range(len(tops) + 1) if k / len(tops) <= f)  # floor(n f)
        threshold = tops[max(whole - 1, 0)]
        right = [own > max(best, threshold) for own, best in zip(mate_scores, best_others, strict=True)]
        thresholds.append(threshold)
        tpir.append(sum(right) / len(right))
    return tpir, thresholds, hits, len(mate_scores), len(tops)


# As published: 100 points over four decades, and 1.
GRID = tuple((10.0 ** (np.arange(101) / 25 - 4)).tolist())


def check_search(result, expected):
    tpir, thresholds, hits, mates, non_mates = expected
    assert result.tpir == pytest.approx(tpir, abs=1e-15)
    assert result.thresholds == pytest.approx(thresholds, abs=1e-14)
    assert (result.hits, result.mates, result.non_mates) == (hits, mates, non_mates)
    assert result.measurable == tuple(f * non_mates >= 1 for f in LEVELS)


@pytest.mark.parametrize("scores", [1, 500, 2**20])
@pytest.mark.parametrize("entries, probes, width", [(12, 90, 6), (1, 5, 3), (70, 200, 33)])
def test_search_equals_the_definition(monkeypatch, entries, probes, width, scores):
    monkeypatch.setattr(module, "SCORES", scores)
    lists = make_search(entries, probes, width)
    result = gallery_search(*lists, fpirs=LEVELS, ranks=(1, 2, 5, 100))
    check_search(result, slow_search(*lists, LEVELS, (1, 2, 5, 100)))
    assert result.hits[100] == result.mates
    curve = slow_search(*lists, GRID, (1,))[0]
    assert gallery_search(*lists, fpirs=GRID).tpir == pytest.approx(curve, abs=1e-15)


def test_grid_of_the_protocol():
    # Published: 10 to the power of -4 to 0 in steps of 4/100, and 1. The numbers of non-mates that it accepts
    # are the same with either rounding.
    published = [10**i for i in np.arange(-4, 0, 4 / 100)] + [1]
    assert tuple(GRID[i] for i in (0, 25, 50, 75, 100)) == FPIRS == (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    n = np.arange(1, 20000)
    for ours, theirs in zip(GRID, published, strict=True):
        assert np.array_equal(module.most_accepted(ours, n), (n * theirs).astype(int))
    assert math.floor(0.29 * 100) == 28 and module.most_accepted(0.29, np.array(100)) == 29


def test_ties_are_pessimistic_in_hits_and_strict_in_tpir():
    gallery = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    probes = [[1.0, 0.0], [0.0, 1.0]]
    result = gallery_search(gallery, [1, 2, 3], probes, [1, 9], fpirs=(1.0,), ranks=(1, 2, 3))
    assert result.hits == {1: 0, 2: 1, 3: 1} and result.tpir == (0.0,)
    # The mate's score equals the threshold: not above it.
    result = gallery_search([[1.0, 0.0]], [1], [[1.0, 0.0], [1.0, 0.0]], [1, 9], fpirs=(1.0,))
    assert result.tpir == (0.0,) and result.hits[1] == 1


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
        assert gallery_search(*collapsed, fpirs=(1.0,)).hits[1] == 0
        gallery = unit(rng.normal(size=(entries, width)))
        probes = np.tile(unit(gallery[-1:] + 0.01), (50, 1))  # strangers score what the mates score
        result = gallery_search(gallery, known, probes, subjects, fpirs=(1.0,))
        assert (result.tpir, result.hits[1]) == ((0.0,), 40)


def test_probes_of_one_kind_only():
    gallery, subjects, probe, _ = make_search()
    nobody = gallery_search(gallery, subjects, probe, np.full(90, -5))
    assert (nobody.mates, nobody.non_mates, nobody.hits) == (0, 90, {1: 0, 5: 0, 10: 0})
    assert np.isnan(nobody.tpir).all() and not any(nobody.measurable) and np.isfinite(nobody.thresholds).all()
    everybody = gallery_search(gallery, subjects, probe, np.resize(subjects, 90))
    assert (everybody.mates, everybody.non_mates) == (90, 0)
    assert np.isnan([*everybody.tpir, *everybody.thresholds]).all() and not any(everybody.measurable)


# -- two galleries ---------------------------------------------------------------------------------


def make_protocol(seed=0, unenrolled=0, width=5):
    # 6 + 5 gallery templates and 40 probe templates, named for each of 1 to 4 images in random order.
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(13, width))
    owner = np.r_[np.arange(11), np.arange(40) % 11]
    owner[51 - unenrolled :] = 12
    owner = owner[:51]
    ids = rng.permutation(900)[:51]
    order = np.argsort(ids)
    features = unit(centres[owner] + 0.7 * rng.normal(size=(51, width)))
    templates = Templates(ids[order], features[order])

    def by_image(rows):
        repeated = rng.permutation(np.repeat(rows, rng.integers(1, 5, len(rows))))
        return ids[repeated], owner[repeated] + 100

    lists = by_image(np.arange(6)), by_image(np.arange(6, 11)), by_image(np.arange(11, 51))
    return templates, lists


def slow_lists(templates, gallery_list, probe_list, probe=None):
    at = {template: row for row, template in enumerate(templates.ids.tolist())}
    sides = []
    for features, pairs in ((templates.features, gallery_list), ((probe or templates).features, probe_list)):
        unique = sorted(set(zip(pairs[0].tolist(), pairs[1].tolist(), strict=True)))
        sides += [features[[at[t] for t, _ in unique]], np.array([s for _, s in unique])]
    return sides


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("unenrolled", [0, 3])
def test_protocol_equals_the_definition(seed, unenrolled):
    templates, (one, two, probes) = make_protocol(seed, unenrolled)
    result = identification(templates, templates, one, two, probes, fpirs=LEVELS)
    expected = [slow_search(*slow_lists(templates, g, probes), LEVELS, (1, 5, 10)) for g in (one, two)]
    for search, slow in zip(result.galleries, expected, strict=True):
        check_search(search, slow)
    assert result.tpir == pytest.approx(np.mean([expected[0][0], expected[1][0]], axis=0))
    assert result.probes == 40 and result.unenrolled == unenrolled
    assert result.top == {k: (expected[0][2][k] + expected[1][2][k]) / 40 for k in (1, 5, 10)}
    both = np.concatenate([one[0], two[0]]), np.concatenate([one[1], two[1]])
    gallery, subjects, probe, probe_subjects = slow_lists(templates, both, probes)
    known = np.isin(probe_subjects, subjects)
    rows = np.r_[probe[known], -gallery[:1]], np.r_[probe_subjects[known], -1]  # the loop needs a stranger
    stacked = slow_search(gallery, subjects, *rows, (1.0,), (1, 5, 10))
    assert result.stacked_hits == stacked[2]
    assert result.records.value(None, None, "stacked_top1") == stacked[2][1] / 40


def test_cross_test_takes_the_galleries_from_the_old_model():
    old, lists = make_protocol(1)
    noise = np.random.default_rng(9).normal(size=old.features.shape)
    new = Templates(old.ids, unit(old.features + 0.5 * noise))
    tests = identification_1_to_n(old, new, *lists, fpirs=LEVELS)
    models = {"old": old, "new": new}
    for (query, gallery), result in tests.results.items():
        sides = slow_lists(models[gallery], lists[0], lists[2], models[query])
        check_search(result.galleries[0], slow_search(*sides, LEVELS, (1, 5, 10)))
        assert tests.records.value(query, gallery, "tpir@fpir=5e-1") == result.tpir[4]
    bar, cross = (tests.records.value(query, "old", "top1") for query in ("old", "new"))
    assert criterion(tests.records, "top1") == (cross > bar)
    assert "new/old: tpir@fpir" in tests.summary()


def test_probes_in_a_gallery_are_counted_and_one_gallery_alone_has_no_mean():
    rows = Templates([1, 2, 3], [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
    result = identification(rows, rows, ([1], [1]), ([2], [2]), ([3, 1], [1, 1]))
    assert np.isnan(result.tpir).all() and result.records.value(None, None, "tpir@fpir=1e0") is None
    assert (result.top[1], result.shared, result.probes) == (1.0, 1, 2)


def test_lists_by_image_become_lists_by_template():
    ids, subjects = template_subjects(np.array([30, 4, 30, 7, 4], ">i4"), ["x", "y", "x", "x", "y"])
    assert ids.tolist() == [4, 7, 30] and subjects.tolist() == ["y", "x", "x"]


@pytest.mark.parametrize(
    "one, two, probes, sentence",
    [
        (([1, 1], [5, 6]), ([2], [7]), ([3], [5]), "template 1 of gallery 1 has two subjects"),
        (([1, 2], [5, 5]), ([3], [7]), ([3], [5]), "subject 5 has 2 templates in gallery 1"),
        (([1], [5]), ([2], [5]), ([3], [5]), "subject 5 has 2 templates in both galleries"),
        (([1], [5]), ([9], [7]), ([3], [5]), "gallery 2 names 1 templates that no image has, such as 9"),
        (([1], [5]), ([2], [7]), ([8], [5]), "the probe list names 1 templates"),
        ((["1"], [5]), ([2], [7]), ([3], [5]), "names and those that they refer to are numbers"),
    ],
)
def test_lists_that_break_the_protocol_are_refused(one, two, probes, sentence):
    templates = Templates([1, 2, 3], np.eye(3))
    with pytest.raises(ValueError, match=sentence):
        identification(templates, templates, one, two, probes)
