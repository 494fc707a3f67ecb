import dataclasses
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from sklearn.linear_model import Ridge
from sklearn.metrics import average_precision_score, roc_curve
from sklearn.preprocessing import normalize

from compat_lib.adapters import fit_procrustes, fit_ridge
from compat_lib.deploy.check import UnusableInput, check_compatibility, choices, compatibility, measures
from compat_lib.deploy.check.choices import (
    choose_halves,
    choose_metric,
    choose_pairwise,
    choose_queries,
    choose_units,
)
from compat_lib.deploy.check.measures import adapted_galleries, chance
from compat_lib.evaluation import (
    PAIRS,
    Queries,
    compare,
    constraints,
    mixed_gallery_curve,
    retrieval,
    upgrade_changes,
)

FARS = (1e-3, 1e-4)


def make_models(identities=24, images=6, width=16, noise=(1.2, 0.7), seed=0):
    """Old and new features around common centres, labels, and a rotation of the space."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(identities), images))
    centres = rng.normal(size=(identities, width))
    old, new = (centres[labels] + s * rng.normal(size=(len(labels), width)) for s in noise)
    return old, new, labels, np.linalg.qr(rng.normal(size=(width, width)))[0]


@pytest.fixture(scope="module")
def models():
    return make_models()


@pytest.fixture(scope="module")
def checked(models):
    old, new, labels, _ = models
    return check_compatibility(old, new, labels, draws=60, seed=3)


def of_pairs(metrics, end=""):
    """The metrics of the three pairs, by their names."""
    return {k: v for k, v in metrics.items() if k.split("/")[0] in PAIRS and k.endswith(end)}


# -- numbers -------------------------------------------------------------------------------------


def test_four_images_by_hand():
    # Two identities of two images each, and the angles of their features in degrees.
    old, new = (np.stack([np.cos(a), np.sin(a)], 1) for a in np.radians([[0, 60, 90, 30], [0, 10, 90, 80]]))
    result = check_compatibility(old, new, [0, 0, 1, 1], draws=0)
    # old/old: query 0 sees 3 (wrong), 1 (right), 2: AP 1/2; query 1 sees 2 and 3 (tied, wrong), 0: 1/3; the
    # other identity is its mirror image.
    assert result.metrics["old_old/map"] == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert result.metrics["old_old/rank1"] == 0
    # new/old: query 0 (0 degrees) sees 3, 1: 1/2; query 1 (10) sees 0 first: 1; and the mirror image.
    assert result.metrics["new_old/map"] == pytest.approx((1 / 2 + 1) / 2)
    assert result.metrics["new_old/rank1"] == 0.5
    assert result.metrics["new_new/map"] == result.metrics["new_new/rank1"] == 1
    assert result.metric == "map" and result.verdict == "compatible"
    assert result.metrics["gain/map"] == pytest.approx(3 / 4 - 5 / 12)
    assert result.metrics["backfill_gain/map"] == pytest.approx(1 / 4)
    assert result.metrics["full_gain/map"] == pytest.approx(7 / 12)
    assert result.metrics["changes/positive_flips"] == 0.5 and result.metrics["changes/negative_flips"] == 0
    # Among three others, one right: the first right place is 1, 2 or 3.
    assert result.metrics["chance/map"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)


def test_numbers_are_those_of_scikit_learn(models, checked):
    old, new, labels, _ = models
    ids = np.arange(len(labels))
    unit = {"old": normalize(old), "new": normalize(new)}
    for pair in PAIRS:
        query, gallery = (unit[side] for side in pair.split("_"))
        scores = query @ gallery.T
        precision, first, right, values = [], [], [], []
        for row in ids:
            others = ids != row
            same = labels[others] == labels[row]
            precision.append(average_precision_score(same, scores[row, others]))
            first.append(same[scores[row, others].argmax()])
            right.append(same)
            values.append(scores[row, others])
        far, tar, _ = roc_curve(np.concatenate(right), np.concatenate(values), drop_intermediate=False)
        assert checked.metrics[f"{pair}/map"] == pytest.approx(np.mean(precision), abs=1e-6)
        assert checked.metrics[f"{pair}/rank1"] == pytest.approx(np.mean(first))
        assert checked.metrics[f"{pair}/tar@far=1e-3"] == pytest.approx(tar[far <= 1e-3].max())


def test_intervals_are_those_of_a_loop_over_drawn_identities(models, checked):
    old, new, labels, _ = models
    draws = np.random.default_rng(3).multinomial(24, np.full(24, 1 / 24), size=60)
    found = {}
    for pair, (query, gallery) in {"old_old": (old, old), "new_old": (new, old)}.items():
        ids = np.arange(len(labels))
        each = retrieval(query, labels, gallery, labels, query_ids=ids, gallery_ids=ids).average_precision
        found[pair] = []
        for draw in draws:
            drawn = [np.tile(each[labels == identity], times) for identity, times in enumerate(draw)]
            found[pair].append(np.concatenate(drawn).mean())
    gain = np.subtract(found["new_old"], found["old_old"])
    ends = [checked.metrics[f"gain/map/{end}"] for end in ("low", "high")]
    assert ends == pytest.approx(np.percentile(gain, [2.5, 97.5]))


def test_adapters_are_those_of_scikit_learn_and_scipy(models):
    # Fitted on either half and tested on the other, with the other libraries' fits.
    old, new, labels, _ = models
    result = check_compatibility(old, new, labels, draws=0, seed=7)
    before, after = normalize(old), normalize(new)
    halves, _ = choose_halves(labels, 7)
    ids = np.arange(len(labels))
    for name in ("ridge", "procrustes"):
        mapped = np.empty_like(before)
        for seen, unseen in (halves, reversed(halves)):
            if name == "ridge":
                penalty = 1e-3 * (before[seen] ** 2).sum() / before.shape[1]
                fit = Ridge(alpha=penalty, fit_intercept=False).fit(before[seen], after[seen])
                mapped[unseen] = fit.predict(before[unseen])
            else:
                mapped[unseen] = before[unseen] @ orthogonal_procrustes(before[seen], after[seen])[0]
        expected = retrieval(after, labels, mapped, labels, query_ids=ids, gallery_ids=ids)
        assert result.metrics[f"adapter/{name}/new_old/map"] == pytest.approx(expected.map, abs=1e-6)


def test_numbers_and_draws_are_those_of_compare(models, checked):
    old, new, labels, _ = models
    expected = compare(old, new, labels, fars=FARS, draws=60, seed=3)
    assert of_pairs(checked.metrics) == expected.metrics
    for name, draws in expected.draws.items():
        assert np.array_equal(checked.draws[name], draws, equal_nan=True)


def test_drawn_queries_are_those_of_compare_with_queries(models):
    old, new, labels, _ = models
    result = check_compatibility(old, new, labels, queries=40, draws=30, seed=5)
    rows = choose_queries(labels, 40, 5)
    queries = Queries(old[rows], new[rows], labels[rows], ids=rows)
    expected = compare(
        old, new, labels, queries=queries, ids=np.arange(len(labels)), fars=FARS, draws=30, seed=5
    )
    assert of_pairs(result.metrics) == expected.metrics
    assert (
        result.metrics["queries"] == 40
        and "of which 40, drawn at random (seed 5), are queries" in result.basis
    )


def test_differences_are_percentiles_of_the_paired_draws(checked):
    name = checked.metric
    for what, first, second in (
        ("gain", "new_old", "old_old"),
        ("backfill_gain", "new_new", "new_old"),
        ("full_gain", "new_new", "old_old"),
        ("adapter/ridge/gain", "adapter/ridge/new_old", "old_old"),
        ("adapter/procrustes/over_new", "adapter/procrustes/new_old", "new_old"),
    ):
        drawn = checked.draws[f"{first}/{name}"] - checked.draws[f"{second}/{name}"]
        ends = [checked.metrics[f"{what}/{name}/{end}"] for end in ("low", "high")]
        assert ends == pytest.approx(np.quantile(drawn[np.isfinite(drawn)], [0.025, 0.975]))
        value = checked.metrics[f"{first}/{name}"] - checked.metrics[f"{second}/{name}"]
        assert checked.metrics[f"{what}/{name}"] == pytest.approx(value)


def test_changes_and_constraints_are_those_of_the_evaluation(models, checked):
    old, new, labels, _ = models
    expected = upgrade_changes(old, new, labels, draws=60, seed=3).metrics
    expected |= constraints(old, new, labels, draws=60, seed=3).metrics
    assert {name: checked.metrics[name] for name in expected} == pytest.approx(expected)


def test_arrays_tensors_lists_scale_and_order_do_not_matter(models, checked):
    old, new, labels, _ = models
    tensors = [torch.tensor(x) for x in (old, new, labels)]
    assert check_compatibility(*tensors, draws=60, seed=3).metrics == checked.metrics
    lists = check_compatibility(old.tolist(), new.tolist(), labels.tolist(), draws=60, seed=3)
    assert lists.metrics == checked.metrics
    scaled = check_compatibility(1e-30 * old, 1e200 * new, labels, draws=0)
    order = np.random.default_rng(0).permutation(len(labels))
    moved = check_compatibility(old[order], new[order], labels[order], draws=0)
    names = check_compatibility(old, new, [f"person {x:03d}" for x in labels], draws=0)
    for other in (scaled, moved, names):
        assert of_pairs(other.metrics, "/map") == pytest.approx(of_pairs(checked.metrics, "/map"))


def test_the_result_is_frozen_and_reads_well(checked):
    with pytest.raises(dataclasses.FrozenInstanceError):
        checked.compatible = False
    text = checked.summary()
    assert text.replace("\n", " ").startswith(checked.paragraph)
    assert "new/old, ridge adapter" in text and max(map(len, text.splitlines())) < 100
    assert len(repr(checked)) < 3000


# -- decisions -----------------------------------------------------------------------------------


def test_a_better_model_of_the_same_space_is_compatible_and_a_rotated_one_is_not(models, checked):
    old, new, labels, turn = models
    assert checked.verdict == "compatible" and checked.compatible and checked.above
    assert checked.paragraph.startswith("Compatible: ")
    apart = check_compatibility(old, new @ turn, labels, draws=60)
    assert apart.verdict == "not compatible" and not apart.above
    assert "about what chance gives" in apart.paragraph
    # To turn the space back is what an adapter can do, and a rotation changes no self-test.
    assert apart.metrics["new_new/map"] == pytest.approx(checked.metrics["new_new/map"])
    assert apart.metrics["adapter/procrustes/over_new/map/low"] > 0


def test_a_rotated_old_model_is_brought_back_by_procrustes(models):
    old, _, labels, turn = models
    result = check_compatibility(old, old @ turn, labels, draws=20)
    assert result.metrics["adapter/procrustes/new_old/map"] == pytest.approx(
        result.metrics["old_old/map"], abs=1e-6
    )
    assert result.metrics["new_old/map"] < 0.5 * result.metrics["old_old/map"]


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_same_features_twice_are_told(models, scale):
    old, _, labels, _ = models
    result = check_compatibility(old, scale * old, labels, draws=20)
    assert result.verdict == "not compatible" and not result.above
    assert result.paragraph.startswith("Not compatible: both sides hold the same features")
    assert "backfill" not in result.paragraph


def test_a_model_that_is_just_as_good_is_undecided(models):
    old, _, labels, _ = models
    # The sign of the difference is chance.
    rng = np.random.default_rng(4)
    results = [
        check_compatibility(old, old + 0.02 * rng.normal(size=old.shape), labels, draws=60, adapter=False)
        for _ in range(6)
    ]
    within = [result for result in results if result.verdict == "undecided"]
    assert len(within) >= 3  # with 95 % intervals nearly all
    for result in within:
        gain = f"gain/{result.metric}"
        assert result.metrics[f"{gain}/low"] <= 0 <= result.metrics[f"{gain}/high"]
        assert result.paragraph.startswith("Undecided: ") and not result.compatible
        assert result.above == (result.metrics[gain] > 0)


def test_a_handful_of_identities_is_no_evidence():
    # Features of noise: either sign of the difference is chance, and so is an interval that leaves out zero.
    found = []
    for seed in range(12):
        old, new, labels, _ = make_models(identities=3, noise=(1e3, 1e3), seed=seed)
        found.append(check_compatibility(old, new, labels, draws=60, adapter=False))
    assert {result.verdict for result in found} == {"undecided"}
    assert any(result.metrics["gain/map/low"] > 0 for result in found)


def test_without_intervals_the_difference_decides(models):
    old, new, labels, turn = models
    for features, verdict in ((new, "compatible"), (new @ turn, "not compatible")):
        result = check_compatibility(old, features, labels, draws=1, adapter=False)
        assert result.verdict == verdict and result.compatible == result.above
        assert "without an interval nobody can say" in result.paragraph


# -- what is measured ----------------------------------------------------------------------------


def test_the_headline_is_what_the_pairs_can_resolve():
    few, many = np.repeat(np.arange(70), 2), np.repeat(np.arange(71), 2)  # 9,660 and 9,940 impostor pairs
    assert choose_metric(None, few, np.arange(140)) == choose_metric(None, many, np.arange(142)) == "map"
    enough = np.repeat(np.arange(72), 2)  # 144 * 142 / 2 = 10,224
    assert choose_metric(None, enough, np.arange(144)) == "tar@far=1e-3"
    # 50 queries with 142 impostors each, ordered: 7,100; 71 of them: 10,082
    assert choose_metric(None, enough, np.arange(50)) == "map"
    assert choose_metric(None, enough, np.arange(71)) == "tar@far=1e-3"
    assert choose_metric("TAR@FAR=0.01", few, np.arange(140)) == "tar@far=1e-2"
    with pytest.raises(UnusableInput, match="cannot be measured with 9,660 pairs"):
        choose_metric("tar@far=1e-4", few, np.arange(140))
    with pytest.raises(UnusableInput, match="the metric 'auc' is not known"):
        choose_metric("auc", few, np.arange(140))


@pytest.mark.parametrize("metric", ["map", "rank1", "rank5", "tar@far=5e-2"])
def test_a_chosen_metric_decides(models, metric):
    old, new, labels, _ = models
    result = check_compatibility(old, new, labels, metric=metric, draws=20, adapter=False)
    assert result.metric == metric
    assert result.above == (result.metrics[f"new_old/{metric}"] > result.metrics[f"old_old/{metric}"])
    assert not [name for name in result.metrics if name.startswith("adapter")]
    assert "adapter" not in result.summary()


def test_queries_are_drawn_among_those_with_a_right_answer():
    labels = np.r_[np.zeros(500, int), np.arange(1, 400), np.repeat(np.arange(400, 500), 2)]
    rows = choose_queries(labels, 60, seed=0)
    assert len(set(rows)) == 60 and np.array_equal(rows, np.sort(rows))
    assert (np.bincount(labels)[labels[rows]] > 1).all()
    assert not np.array_equal(rows, choose_queries(labels, 60, seed=1))
    assert len(choose_queries(labels, 900, 0)) == 700  # all that have one
    assert np.array_equal(choose_queries(labels, len(labels), 0), np.arange(len(labels)))


def test_how_many_ask_by_default():
    labels = np.arange(10**6) // 2
    assert len(choose_queries(labels, None, 0)) == 2_000
    assert len(choose_queries(labels[:20_000], None, 0)) == 5_000
    assert len(choose_queries(labels[:10_000], None, 0)) == 10_000


def test_a_sample_stands_for_the_whole():
    old, new, labels, _ = make_models(identities=150, images=8)
    whole = check_compatibility(old, new, labels, draws=0, adapter=False).metrics
    some = [
        check_compatibility(old, new, labels, draws=50, adapter=False, queries=300, seed=s).metrics
        for s in range(4)
    ]
    for name in ("new_old/tar@far=1e-3", "old_old/map", "new_new/rank1"):
        assert np.mean([each[name] for each in some]) == pytest.approx(whole[name], abs=0.03)
        assert sum(each[f"{name}/low"] <= whole[name] <= each[f"{name}/high"] for each in some) >= 3


def test_identities_without_a_query_are_drawn_in_groups(monkeypatch):
    old, new, labels, _ = make_models(identities=200, images=3)
    plain = check_compatibility(old, new, labels, queries=60, draws=50, adapter=False)
    monkeypatch.setattr(compatibility, "CELLS", 100 * 50)
    grouped = check_compatibility(old, new, labels, queries=60, draws=50, adapter=False)
    units = choose_units(labels, choose_queries(labels, 60, 0), 100)
    assert len(np.unique(units)) == 100
    for name, value in of_pairs(plain.metrics).items():
        if not name.endswith(("/low", "/high")):
            assert grouped.metrics[name] == value  # who is whose genuine pair has not changed
    width = [r.metrics["new_old/map/high"] - r.metrics["new_old/map/low"] for r in (plain, grouped)]
    assert width[1] == pytest.approx(width[0], rel=0.4)
    assert any("in groups" in note for note in grouped.notes) and not plain.notes


def test_groups_never_hold_an_identity_that_asks():
    labels = np.repeat(np.arange(50), 2)
    asked = np.array([0, 1, 40, 41, 99])
    units = choose_units(labels, asked, 10)
    for row in asked:
        assert set(labels[units == units[row]]) == {labels[row]}
    assert units.max() + 1 == len(np.unique(units)) == 10
    assert choose_units(labels, asked, 50) is labels


# -- adapters ------------------------------------------------------------------------------------


def test_an_adapter_never_sees_the_identities_it_maps(models):
    old, new, labels, _ = models
    before, after = (torch.nn.functional.normalize(torch.tensor(x), dim=1).float() for x in (old, new))
    half = np.random.default_rng(7).permutation(labels.max() + 1)[labels] % 2
    assert 0 < half.mean() < 1
    fits = {"ridge": fit_ridge, "procrustes": fit_procrustes}
    for name, mapped in adapted_galleries(before, after, *choose_halves(labels, 7)):
        for side in (0, 1):
            rows = torch.from_numpy(np.flatnonzero(half == side))
            others = torch.from_numpy(np.flatnonzero(half != side))
            expected = fits[name](before[others], after[others]).apply(before[rows])
            assert torch.allclose(mapped[rows], expected, atol=1e-6)


def test_unrelated_models_stay_unrelated_through_an_adapter():
    # With fewer images than coordinates a map fitted on all of them would match every image with itself.
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(30), 2)
    old, new = rng.normal(size=(2, 60, 128))
    result = check_compatibility(old, new, labels, draws=0)
    for name in ("ridge", "procrustes"):
        assert result.metrics[f"adapter/{name}/new_old/rank1"] < 0.15


def test_an_adapter_is_fitted_to_a_bounded_number_of_images(models, monkeypatch):
    old, new, labels, _ = models
    sizes = []

    def fit(source, target):
        sizes.append(len(source))
        return fit_procrustes(source, target)

    monkeypatch.setattr(choices, "FITTED", 50)
    monkeypatch.setattr(measures, "FITS", {"procrustes": fit})
    before, after = (torch.tensor(x).float() for x in (old, new))
    mapped = dict(adapted_galleries(before, after, *choose_halves(labels, 0)))["procrustes"]
    assert sizes == [50, 50] and torch.allclose(mapped.norm(dim=1), torch.ones(len(old)))


# -- partial backfill, chance, samples -----------------------------------------------------------


def test_the_curve_of_map_is_the_mixed_gallery(models):
    old, new, labels, _ = models
    result = check_compatibility(old, new, labels, metric="map", draws=0, adapter=False, seed=2)
    expected = mixed_gallery_curve(old, new, labels, shares=(0, 0.25, 0.5, 0.75, 1), seed=2, fars=())
    assert result.pictured.curve == pytest.approx(expected.values("map"))
    assert result.metrics["mixed/share=0.50/map"] == pytest.approx(expected.values("map")[2])


@pytest.mark.parametrize("unlike", [False, True])
def test_the_curve_of_a_tar_is_the_mean_over_random_orders(models, unlike):
    old, new, labels, turn = models
    new = new @ turn if unlike else new
    far = 1e-2
    result = check_compatibility(old, new, labels, metric="tar@far=1e-2", draws=0, adapter=False)
    curves = [
        mixed_gallery_curve(old, new, labels, shares=(0, 0.25, 0.5, 0.75, 1), seed=s, fars=(far,))
        for s in range(8)
    ]
    expected = np.mean([curve.values("tar@far=1e-2") for curve in curves], axis=0)
    assert result.pictured.curve == pytest.approx(expected, abs=0.01)
    assert result.pictured.curve[0] == result.metrics["new_old/tar@far=1e-2"]
    assert result.pictured.curve[-1] == result.metrics["new_new/tar@far=1e-2"]


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2], [0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 2]])
def test_chance_is_the_mean_over_all_orders(labels):
    labels = np.array(labels)
    found = {"map": [], "rank1": [], "rank5": []}
    for query, own in enumerate(labels):
        others = np.delete(labels, query) == own
        if not others.any():
            continue
        each = {name: [] for name in found}
        for order in permutations(others):
            places = np.flatnonzero(order) + 1
            each["map"].append(np.mean(np.arange(1, len(places) + 1) / places))
            each["rank1"].append(places[0] <= 1)
            each["rank5"].append(places[0] <= 5)
        for name, values in each.items():
            found[name].append(np.mean(values))
    for name, values in found.items():
        assert chance(name, labels, np.arange(len(labels))) == pytest.approx(np.mean(values))
    assert chance("tar@far=1e-3", labels, np.arange(len(labels))) == 1e-3


def test_random_features_are_at_chance():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), 5)
    query, gallery = rng.normal(size=(2, 200, 64))
    ids = np.arange(200)
    found = retrieval(query, labels, gallery, labels, query_ids=ids, gallery_ids=ids)
    assert chance("map", labels, ids) == pytest.approx(found.map, rel=0.25)
    result = check_compatibility(query, gallery, labels, draws=60, adapter=False)
    assert "not clearly better than chance" in result.paragraph


def test_pairs_are_counted_in_whole_identities(monkeypatch):
    monkeypatch.setattr(choices, "PAIRWISE", 40)
    labels = np.r_[np.zeros(100, int), np.repeat(np.arange(1, 30), 4), np.arange(30, 60)]
    rows = choose_pairwise(labels, 0)
    counts = np.bincount(labels[rows], minlength=60)
    assert len(rows) == 40 and np.array_equal(rows, np.unique(rows))
    assert counts[0] in (0, 20) and (counts[30:] == 0).all()
    assert sorted(set(counts[1:30]))[0] == 0 and 4 in counts[1:30]
    assert ((counts[1:30] > 0) & (counts[1:30] < 4)).sum() <= 1  # the last one may be cut


# -- images of both sides ------------------------------------------------------------------------


def test_rows_are_matched_by_their_ids(models, checked):
    old, new, labels, _ = models
    rng = np.random.default_rng(1)
    order = rng.permutation(len(labels))
    ids = np.array([f"image {n}" for n in range(len(labels))])
    extra = np.r_[order, order[:2]]  # two images more, of which the old side knows nothing
    new_ids = np.r_[ids[order], ["image x", "image y"]]
    result = check_compatibility(
        old, new[extra], labels, new_labels=labels[extra], ids=ids, new_ids=new_ids, draws=60, seed=3
    )
    assert result.metrics == checked.metrics
    assert result.notes == (
        "0 images on the old side only and 2 on the new side only were left out; 144 are compared.",
    )
    wrong = check_compatibility(old, new[order], labels, draws=0, adapter=False)
    assert wrong.metrics["new_old/map"] < result.metrics["new_old/map"]


def test_all_that_is_drawn_at_random_is_told(models, monkeypatch):
    old, new, labels, _ = models
    whole = check_compatibility(old, new, labels, draws=5, seed=9)
    assert whole.notes == () and "144 images of 24 identities, each of them a query" in whole.basis
    monkeypatch.setattr(choices, "PAIRWISE", 30)
    monkeypatch.setattr(choices, "FITTED", 50)
    result = check_compatibility(old, new, labels, draws=5, seed=9, queries=40)
    assert "of which 40, drawn at random (seed 9), are queries" in result.basis
    assert result.notes == (
        "Drawn at random as well (seed 9): the 50 and 50 images of the two halves to which the adapters are "
        "fitted, and the 30 images between which the four constraints are counted.",
    )
    alone = check_compatibility(old, new, labels, draws=5, seed=9, adapter=False)
    assert alone.notes == (
        "Drawn at random as well (seed 9): the 30 images between which the four constraints are counted.",
    )


def test_what_to_be_careful_with_is_noted(models):
    old, new, labels, _ = models
    empty = new.copy()
    empty[:3] = 0
    shifted = np.where(labels == 0, -1, labels)
    notes = check_compatibility(old, empty, shifted, draws=0, adapter=False).notes
    assert notes[0].startswith("3 of the new features are all zeros")
    assert notes[1].startswith("6 images have a negative label, such as -1")
    perfect = np.eye(16)[labels % 16]
    notes = check_compatibility(perfect, perfect[::-1], labels % 16, draws=0, metric="map", adapter=False)
    assert not notes.compatible
    same = check_compatibility(perfect, 2 * perfect, labels % 16, draws=0, metric="map", adapter=False)
    assert same.notes[0].startswith("Both models are perfect in mAP")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"new_features": np.ones((144, 8))}, "the old features have 16 columns and the new ones 8"),
        ({"labels": np.zeros(144, int)}, "all 144 images are of one identity"),
        ({"labels": np.arange(144)}, r"no identity has two images \(144 images, 144 identities\)"),
        ({"labels": np.arange(144) % 4 + 0.5}, "the old labels must be whole numbers or names, but row 0"),
        ({"draws": -1}, "draws is -1; give a whole number of at least 0"),
        ({"queries": 0}, "queries is 0; give a whole number of at least 1"),
        ({"queries": 2.5}, "queries is 2.5"),
        ({"seed": None}, "seed is None"),
        ({"metric": "auc"}, "the metric 'auc' is not known"),
        ({"metric": 3}, "the metric '3' is not known"),
        ({"ids": np.arange(144)}, "only the old side has ids"),
        ({"new_ids": np.arange(144)}, "new_ids were given without new_labels"),
        ({"new_labels": np.arange(144) % 7}, "the labels of both sides differ in"),
    ],
)
def test_unusable_input_gets_a_sentence(models, change, message):
    old, new, labels, _ = models
    arguments = {"old_features": old, "new_features": new, "labels": labels} | change
    with pytest.raises(UnusableInput, match=message):
        check_compatibility(**arguments)


def test_few_queries_and_few_draws_still_give_an_answer(models):
    old, new, labels, _ = models
    for options in ({"queries": 1, "draws": 5}, {"draws": 1}, {"queries": 2, "draws": 2}):
        result = check_compatibility(old, new, labels, metric="map", **options)
        assert result.verdict in ("compatible", "not compatible", "undecided") and result.summary()
