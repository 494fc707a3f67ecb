"""The compatibility check: its numbers, its decisions, what it leaves out, and its page."""

import base64
import io
import re
from dataclasses import replace
from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from matplotlib import rcParams
from matplotlib.figure import Figure
from PIL import Image
from plain_rows import photographed

from compat_lib.deploy import check_measure, check_rows
from compat_lib.deploy.check import check_compatibility
from compat_lib.deploy.check_inputs import bring_together, choose_metric, choose_queries
from compat_lib.deploy.check_measure import chance
from compat_lib.deploy.check_pictures import SIZE, draw_ways
from compat_lib.evaluation import Queries, compare, constraints, upgrade_changes
from compat_lib.evaluation.records import PAIRS

FARS = (1e-3, 1e-4)


def make_models(identities=24, images=6, width=16, noise=(1.2, 0.7), seed=0):
    return photographed(identities, images, width, noise, shuffled=True, seed=seed)


@pytest.fixture(scope="module")
def models():
    return make_models()


@pytest.fixture(scope="module")
def checked(models):
    return check_compatibility(*models[:3], draws=60, seed=3)


def ends(record):
    return record.low, record.high


# -- numbers -------------------------------------------------------------------------------------


def test_four_images_by_hand():
    # Two identities of two images each, and the angles of their features in degrees.
    old, new = (np.stack([np.cos(a), np.sin(a)], 1) for a in np.radians([[0, 60, 90, 30], [0, 10, 90, 80]]))
    result = check_compatibility(old, new, [0, 0, 1, 1], draws=0)
    value = result.records.value
    # old/old: query 0 sees 3 (wrong), 1 (right), 2: AP 1/2; query 1 sees 2 and 3 (tied, wrong), 0: 1/3; the
    # other identity is its mirror image.
    assert value("old", "old", "map") == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert value("old", "old", "rank1") == 0
    # new/old: query 0 (0 degrees) sees 3, 1: 1/2; query 1 (10) sees 0 first: 1; and the mirror image.
    assert value("new", "old", "map") == pytest.approx((1 / 2 + 1) / 2)
    assert value("new", "new", "map") == value("new", "new", "rank1") == 1
    assert value("new", "old", "gain/map") == pytest.approx(3 / 4 - 5 / 12)
    assert value("new", "new", "over_swap/map") == pytest.approx(1 / 4)
    assert value("new", "new", "gain/map") == pytest.approx(7 / 12)
    assert value("new", "old", "positive_flips") == 0.5 and value("new", "old", "negative_flips") == 0
    # Among three others, one right: the first right place is 1, 2 or 3.
    assert value(None, None, "chance/map") == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)


@pytest.mark.parametrize("asking", [None, 40])
def test_numbers_and_draws_are_those_of_the_evaluation(models, asking):
    old, new, labels, _ = models
    result = check_compatibility(old, new, labels, draws=50, seed=5, queries=asking, adapter=False)
    options = {"draws": 50, "seed": 5}
    if asking:
        rows = choose_queries(labels, asking, 5)
        options |= {"queries": Queries(old[rows], new[rows], labels[rows], ids=rows)}
        options |= {"ids": np.arange(len(labels))}
    expected = compare(old, new, labels, fars=FARS, **options).records
    for one in expected:
        found = result.records.get(one.query, one.gallery, one.metric)
        assert found == one and np.array_equal(found.draws, one.draws, equal_nan=True)
    pair = [expected.get(query, "old", "map").draws for query in ("new", "old")]
    interval = np.percentile(np.subtract(*pair), [2.5, 97.5])
    assert ends(result.records.get("new", "old", "gain/map")) == pytest.approx(interval)
    if not asking:
        for one in upgrade_changes(old, new, labels, **options).records:
            assert result.records.get("new", "old", one.metric) == one
        for one in constraints(old, new, labels, **options).records:
            assert result.records.value(None, None, one.metric) == pytest.approx(one.value, abs=1e-6)
        assert result.changed().shape == (9, 1) and "d(new, old) <= d(old, old)" in result.summary()


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2], [0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 2]])
def test_chance_is_the_mean_over_all_orders(labels):
    labels = np.array(labels)
    found = {"map": [], "rank1": [], "rank5": []}
    for query, own in enumerate(labels):
        orders = [np.flatnonzero(order) + 1 for order in permutations(np.delete(labels, query) == own)]
        if not len(orders[0]):
            continue
        found["map"].append(np.mean([np.mean(np.arange(1, len(x) + 1) / x) for x in orders]))
        for k in (1, 5):
            found[f"rank{k}"].append(np.mean([x[0] <= k for x in orders]))
    for name, values in found.items():
        right = np.bincount(labels)[labels] - 1.0
        assert chance(name, right, len(labels) - 1) == pytest.approx(np.mean(values))


# -- decisions -----------------------------------------------------------------------------------


def test_a_better_model_of_the_same_space_is_compatible_and_a_rotated_one_is_not(models, checked):
    old, new, labels, turn = models
    assert checked.verdict == "compatible" and checked.compatible and checked.above
    assert checked.sentence.startswith("Compatible: ") and checked.summary().startswith("Compatible: ")
    apart = check_compatibility(old, new @ turn, labels, draws=60)
    assert apart.verdict == "not compatible" and not apart.above
    # To turn the space back is what an adapter can do, and a rotation changes no self-test.
    assert apart.records.get("new", "old", "over_swap/map", adapter="procrustes").low > 0
    value = apart.records.value("new", "new", "map")
    assert value == pytest.approx(checked.records.value("new", "new", "map"))
    same = check_compatibility(old, 3 * old, labels, adapter=False, draws=0)
    assert same.verdict == "not compatible" and "the same features" in same.sentence


@pytest.mark.parametrize(
    ("identities", "options"),
    # Of noise either sign of the difference is chance, and so is an interval that leaves out zero.
    [(3, {"draws": 200}), (24, {"queries": 1}), (24, {"draws": 2}), (24, {"draws": 0})],
)
def test_a_handful_of_identities_one_query_or_a_few_draws_decide_nothing(identities, options):
    for seed in range(3):
        noise = (1e3, 1e3) if identities == 3 else (1.2, 0.7)
        sides = make_models(identities=identities, noise=noise, seed=seed)[:3]
        result = check_compatibility(*sides, metric="map", adapter=False, seed=seed, **options)
        assert result.verdict == "undecided" and result.summary()


def test_unequal_widths_are_not_comparable_and_every_adapter_is_measured(models):
    old, new, labels, _ = models
    wide = np.hstack([new, np.zeros((len(labels), 5))])  # the same cosines among themselves
    result = check_compatibility(old, wide, labels, draws=60, seed=3)
    assert result.verdict == "not compatible" and "not comparable" in result.sentence
    assert not result.compatible and not result.above
    assert result.records.find("new", "old", "map") is None
    plain = check_compatibility(old, new, labels, draws=0, seed=3).records
    for model in ("old", "new"):
        expected = plain.value(model, model, "map")
        assert result.records.value(model, model, "map") == pytest.approx(expected, abs=1e-6)
    # Into the old space a Procrustes map keeps the sixteen columns that hold something.
    for adapter in ("procrustes", "procrustes-query"):
        found, turned = (x.value("new", "old", "map", adapter=adapter) for x in (result.records, plain))
        assert found == pytest.approx(turned, abs=1e-6)
    maps = {"ridge", "procrustes", "ridge-query", "procrustes-query"}
    assert {a for _, _, a in result.tests} == maps | {None, "cut", "pad", "midpoint", "slerp"}
    for name in ("cut", "pad"):  # the columns that were added hold nothing
        found = result.records.value("new", "old", "map", adapter=name)
        assert found == pytest.approx(plain.value("new", "old", "map"), abs=1e-6)
    assert "16 columns" in result.sentence and "new/old, ridge on the query" in result.summary()
    assert result.page().count("<img") == 4


# -- what is measured ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("identities", "images", "asking", "metric"),
    [
        (70, 2, 140, "map"),  # 9,660 impostor pairs
        (72, 2, 144, "tar@far=1e-3"),  # 10,224
        (72, 2, 50, "map"),  # 50 queries with 142 impostors each, ordered: 7,100
        (72, 2, 71, "tar@far=1e-3"),  # 10,082
        (30, 5, 150, "tar@far=1e-3"),  # 10,875 pairs of thirty identities
        (29, 9, 261, "map"),
    ],
)
def test_the_headline_is_what_the_pairs_can_resolve(identities, images, asking, metric):
    assert choose_metric(None, np.repeat(np.arange(identities), images), np.arange(asking)) == metric


def test_a_chosen_metric_decides(models):
    for metric, name in (("mAP", "map"), ("rank5", "rank5"), ("TAR@FAR=0.05", "tar@far=5e-2")):
        result = check_compatibility(*models[:3], metric=metric, draws=0, adapter=False)
        assert result.metric == name
        assert result.above == (result.records.value("new", "old", f"gain/{name}") > 0)
    some = [x[models[2] < 12] for x in models[:3]]
    assert "TAR@FAR=1e-3 needs 30 identities and" in check_compatibility(*some, adapter=False).notes[0]


def test_queries_are_drawn_among_those_with_a_right_answer():
    labels = np.r_[np.zeros(500, int), np.arange(1, 400), np.repeat(np.arange(400, 500), 2)]
    rows = choose_queries(labels, 60, seed=0)
    assert len(set(rows)) == 60 and (np.bincount(labels)[labels[rows]] > 1).all()
    assert len(choose_queries(labels, 900, 0)) == 700  # all that have one
    million = np.arange(10**6) // 2
    sizes = [len(choose_queries(million[:n], None, 0)) for n in (10**6, 20_000, 10_000)]
    assert sizes == [2_000, 5_000, 10_000]


def test_identities_without_a_query_are_drawn_in_groups(monkeypatch):
    old, new, labels, _ = make_models(identities=200, images=3)
    plain = check_compatibility(old, new, labels, queries=60, draws=50, adapter=False)
    monkeypatch.setattr(check_measure, "CELLS", 100 * 50)
    grouped = check_compatibility(old, new, labels, queries=60, draws=50, adapter=False)
    for pair in PAIRS:  # who is whose genuine pair has not changed
        assert grouped.records.value(*pair, "map") == plain.records.value(*pair, "map")
    assert any("in groups" in note for note in grouped.notes)


# -- what both sides are, and what is left out -----------------------------------------------------


def test_rows_are_joined_by_their_ids(models, checked):
    old, new, labels, _ = models
    order = np.random.default_rng(1).permutation(len(labels))
    ids = np.array([f"image {n}" for n in range(len(labels))])
    extra = np.r_[order, order[:2]]  # two images more, of which the old side knows nothing
    new_ids = np.r_[ids[order], ["image x", "image y"]]
    how = {"ids": ids, "new_ids": new_ids, "draws": 60, "seed": 3}
    for new_labels in (labels[extra], None):
        result = check_compatibility(old, new[extra], labels, new_labels=new_labels, **how)
        assert result.records.plain() == checked.records.plain()
        assert result.notes[0].startswith("0 images on the old side only and 2 on the new side only are left")


def test_ids_of_64_bits_match():
    hashes = np.array([2**64 - 1, 2**63 + 1, 2**53, 2**53 + 1], np.uint64)
    sides = bring_together(np.eye(4), np.eye(4)[::-1], [0, 0, 1, 1], ids=hashes, new_ids=hashes[::-1])
    assert torch.equal(sides.before, sides.after)


@pytest.mark.parametrize("missing", ["", "None", "UNKNOWN", "N/A", "-", -1, np.nan, None])
def test_labels_that_mean_missing_are_left_out_and_told(models, missing):
    old, new, labels, _ = models
    lost = np.random.default_rng(0).random(len(labels)) < 0.2
    names = [f"p{x:02d}" if isinstance(missing, str) else 10 + x for x in labels]
    named = [missing if gone else name for gone, name in zip(lost, names, strict=True)]
    result = bring_together(old, new, named)
    right = bring_together(old[~lost], new[~lost], labels[~lost])
    assert torch.equal(result.before, right.before) and torch.equal(result.after, right.after)
    assert np.array_equal(result.labels, right.labels)
    assert result.notes[0].startswith(f"{lost.sum()} images with the label")


@pytest.mark.parametrize("jitter", [0, 1e-7])
def test_old_rows_of_one_vector_are_left_out_and_make_nothing_compatible(jitter):
    old, new, labels, _ = make_models(identities=60, images=8, noise=(1.0, 1.3))  # the new model is worse
    rng = np.random.default_rng(4)
    failed = rng.random(len(labels)) < 0.1  # what a model gives for an unreadable picture
    right = check_compatibility(old[~failed], new[~failed], labels[~failed], draws=50, adapter=False)
    for vector in (old.mean(0), np.zeros(16)):
        bad = old.copy()
        bad[failed] = vector + (jitter * rng.normal(size=(failed.sum(), 16)) if vector.any() else 0)
        result = check_compatibility(bad, new, labels, draws=50, adapter=False)
        assert result.verdict == right.verdict == "not compatible"
        assert result.records.value("old", "old", "map") == right.records.value("old", "old", "map")
        assert result.notes[0].startswith(f"{failed.sum()} of the 480 old features are zeros, or one vector")
    # New rows count: a new model that fails on an image has failed.
    bad = new.copy()
    bad[failed] = new.mean(0)
    result = check_compatibility(old, bad, labels, draws=50, adapter=False)
    assert result.basis["images"] == 480 and result.notes[0].endswith("kept.")
    mostly = old.copy()
    mostly[labels < 40] = 1.0
    result = check_compatibility(mostly, old, labels, draws=50, adapter=False)
    assert result.verdict == "undecided" and "nothing is called compatible" in result.notes[0]
    assert not result.above and result.records.value("new", "old", f"gain/{result.metric}") > 0


def test_unsigned_bytes_are_told(models):
    old, new = (np.round(40 * x + 128).clip(0, 255).astype(np.uint8) for x in models[:2])
    notes = bring_together(old, torch.from_numpy(new), models[2]).notes
    assert len(notes) == 2 and all("whole numbers as in 8 bits" in note for note in notes)
    # The same numbers as another type, and packed bits as signed bytes; but not what is signed already.
    assert len(bring_together(old.astype(np.float32), new.astype(np.int16), models[2]).notes) == 2
    signed = [side.astype(np.int16) - 128 for side in (old, new)]
    assert not bring_together(*(side.clip(-127, 127).astype(np.int8) for side in signed), models[2]).notes
    packed = np.packbits(np.hstack([models[0]] * 8) > 0, axis=1)
    packed ^= np.random.default_rng(0).integers(0, 256, packed.shape, np.uint8)
    assert len(bring_together(packed.view(np.int8), models[1], models[2]).notes) == 1


def test_one_label_for_many_images_is_named(models):
    old, new, labels, _ = models
    names = np.where(np.random.default_rng(0).random(144) < 0.3, "0", [f"p{x}" for x in labels])
    (note,) = bring_together(old, new, names).notes
    assert "have the label '0', more than 3 times as many as any other" in note


@pytest.mark.parametrize(
    "change, message",
    [
        ({"labels": np.zeros(144, int)}, "all 144 images are of one identity"),
        ({"labels": np.arange(144)}, r"no identity has two images \(144 images"),
        ({"labels": np.arange(144) % 4 + 0.5}, "the labels must be whole numbers or names, but row"),
        ({"labels": [None] * 144}, "no image has a label"),
        ({"labels": None, "metric": "map"}, "without labels only overlap@10"),
        ({"threshold": 1.5}, "give a cosine between -1 and 1"),
        ({"labels": [0, 1]}, "there are 2 old labels for 144 old features"),
        ({"new_features": np.full((144, 16), np.nan)}, "144 of the 144 rows of the new .* first row 0;"),
        ({"groups": np.arange(145)}, "there are 145 groups for 144 old features"),
        ({"new_features": np.ones((143, 16))}, "there are 144 old and 143 new rows and no ids"),
        ({"queries": 0}, "queries is 0; give a whole number of at least 1"),
        ({"metric": "tar@far=1e-5"}, "cannot be measured with 9,936 pairs"),
        ({"ids": np.arange(144), "new_ids": np.arange(144) // 2}, "72 of the new ids stand there before"),
        ({"ids": np.arange(144), "new_ids": np.arange(144) + 100}, "only 44 of 144 ids stand on the other"),
        ({"new_labels": np.arange(144) % 7}, "the labels of both sides differ in"),
    ],
)
def test_unusable_input_gets_a_sentence(models, change, message):
    arguments = dict(zip(("old_features", "new_features", "labels"), models[:3], strict=True)) | change
    with pytest.raises(ValueError, match=message):
        check_compatibility(**arguments)


# -- page ----------------------------------------------------------------------------------------


def test_the_page_loads_nothing_and_says_what_was_found(checked):
    before = dict(rcParams)
    file = {"side": "old", "name": "a<b>.npz", "rows": 144, "width": 16, "bytes": 12345, "sha256": "ab" * 32}
    html = replace(checked, files=(file,)).page()
    assert dict(rcParams) == before
    assert "<script" not in html and "http" not in html and "<b>" not in html and "12,345 bytes" in html
    pictures = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)">', html)
    assert len(pictures) == html.count("<img") == 6
    for data, caption in pictures:
        image = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("L"))
        assert image.std() > 5 and len(caption) > 30
    assert "<h1>Compatible</h1>" in html and checked.sentence in html
    low, high = (f"{100 * end:+.1f}" for end in ends(checked.records.get("new", "old", "gain/map")))
    assert f"<br>[{low}, {high}]" in html and "pairs of same identity: d(new, new)" in html


def test_an_outcome_without_draws_and_adapters_makes_a_page(models):
    html = check_compatibility(*models[:3], draws=0, adapter=False, metric="rank1", queries=20).page()
    assert html.count("<img") == 6 and "nan" not in html.split("<h2>Pictures")[0]


def test_no_label_of_the_ways_to_go_on_lies_on_another(models, monkeypatch):
    monkeypatch.setattr(check_rows, "LEARNED", (10, 100))  # all rows
    monkeypatch.setattr(check_rows, "STEPS", 1)
    result = check_compatibility(models[0], models[1], models[2], draws=0)
    ax = (figure := Figure(figsize=SIZE, dpi=150, layout="constrained")).add_subplot()
    draw_ways(ax, result)
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
    overlaps = [min(a.y1, b.y1) - max(a.y0, b.y0) for a, b in pairwise(boxes)]  # pixels; the margin of a line
    assert len(boxes) == 10 and max(overlaps) < 5, overlaps
