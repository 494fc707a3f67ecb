"""Protocols of an experiment: slow loops, small data sets from end to end, and what is refused."""

import dataclasses

import numpy as np
import pytest
import torch
from plain_rows import average_precision
from tiny_runs import silent, tiny

from compat_lib.config import ExperimentConfig
from compat_lib.data.images import ImageSet, Splits
from compat_lib.evaluation import compare, constraints, reid, retrieval, upgrade_changes
from compat_lib.evaluation.orders import backfill_order
from compat_lib.evaluation.protocols.landmarks import revisited
from compat_lib.evaluation.protocols.measure import measure_protocol, mixed_reid, one_test, same_class
from compat_lib.evaluation.protocols.needs import refuse_protocol
from compat_lib.evaluation.protocols.templates import (
    identification_1_to_n,
    pool_templates,
    verification_1_to_1,
)
from compat_lib.evaluation.records import HEADLINES, PAIRS, PRINTED

pytestmark = pytest.mark.precision

N = 60


def pictures(n, classes, seed=0, **extras):
    """Images whose class shows as a shade, so that an epoch learns a little."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    noise = torch.randint(0, 60, (n, 1, 16, 16), generator=generator)
    images = (noise + 20 * (labels % 9)[:, None, None, None]).to(torch.uint8)
    return ImageSet(images, labels, tuple(f"c{k}" for k in range(classes)), extras)


def reid_images():
    """Every fourth image is a query, three cameras, and a class of distractors in the gallery only."""
    images = pictures(N, 10, camera=torch.arange(N) // 10 % 3, query=torch.arange(N) % 4 == 0)
    labels = torch.where((images.labels == 9) & ~images.extras["query"], 10, images.labels)
    return ImageSet(images.images, labels, (*images.classes, "distractor"), images.extras)


def ijb_images():
    extras = {"template": torch.arange(N) % 30 + 100, "media": torch.arange(N) // 40}
    images = pictures(N, 10, detector=torch.linspace(0.3, 1, N), **extras)
    ids = torch.arange(30)
    pairs = torch.combinations(ids)  # each pair in one order: old and new exchanged would give other scores
    pairs = torch.cat([pairs + 100, (pairs[:, :1] % 10 == pairs[:, 1:] % 10).long()], 1)
    subjects = torch.stack([ids + 100, ids % 10], 1)
    lists = {"pairs": pairs, "gallery1": subjects[:5], "gallery2": subjects[5:10], "probes": subjects[10:]}
    return images, lists


def landmark_lists(images):
    pairs = same_class(images)
    return {"easy": pairs[::3], "hard": pairs[1::3], "junk": pairs[2::3]}


def features(seed, width=6):
    return torch.randn(N, width, generator=torch.Generator().manual_seed(seed))


def test_all_pairs_hold_every_part_once_in_the_numbers_of_its_own_call():
    images, old, new = pictures(N, 10), features(1), features(2)
    labels, how = images.labels, {"draws": 8, "cross": (new, old)}
    found = measure_protocol("pairs", old, new, images, {}, certainty=np.arange(N), **how)
    expected = compare(old, new, labels, draws=8).records + constraints(old, new, labels, **how).records
    expected += upgrade_changes(old, new, labels, draws=8).records
    for one in expected:
        there = found.get(one.query, one.gallery, one.metric)
        assert there == one and (one.draws is None or np.array_equal(there.draws, one.draws, equal_nan=True))
    mixed = found.select(gallery="mixed")
    assert len(found) == len(expected) + len(mixed)
    assert len(mixed.select(metric="map", order="random")) == 13  # tenths and quarters
    for order in ("uncertain", "farthest"):
        assert found.get("new", "mixed", "area_over_random/map", order=order).low is not None
    alone = measure_protocol("pairs", old, new, images, {}, cross=None, draws=8)
    assert [one.metric for one in alone] == 3 * [one.metric for one in expected[: len(alone) // 3]]
    assert {one.value for one in alone.select(query="new", gallery="old")} == {None}


def test_leave_one_out_cuts_unequal_widths_and_names_ranks_as_its_papers():
    images, old, new = pictures(N, 10), features(1, 4), features(2, 6)
    alone = torch.where(torch.arange(N) < 3, 10 + torch.arange(N), images.labels)  # skipped: no other image
    images = dataclasses.replace(images, labels=alone, classes=(*images.classes, "a", "b", "c"))
    found = measure_protocol("leave-one-out", old, new, images, {}, cross=None, draws=8)
    ids = dict.fromkeys(("query_ids", "gallery_ids"), np.arange(N))
    for (query, gallery), (a, b) in zip(PAIRS, ((old, old), (new[:, :4], old), (new, new)), strict=True):
        expected = retrieval(a, alone, b, alone, **ids)
        for name, value in {"top1": expected.rank[1], "top5": expected.rank[5], "map": expected.map}.items():
            one = found.get(query, gallery, name)
            assert one.value == pytest.approx(value) and one.low <= one.high and len(one.draws) == 8
    for share, gallery in ((0.0, "old"), (1.0, "new")):
        mixed = found.value("new", "mixed", "map", order="random", share=share)
        assert mixed == pytest.approx(found.value("new", gallery, "map"))
    flips = [found.value("new", "old", f"{kind}_flips") for kind in ("positive", "negative")]
    change = found.value("new", "old", "top1") - found.value("old", "old", "top1")
    assert flips[0] - flips[1] == pytest.approx(change)


def test_reid_takes_queries_cameras_and_the_mixed_gallery_from_the_images():
    images, old, new = reid_images(), features(1), features(2)
    asked, labels, camera = images.extras["query"], images.labels, images.extras["camera"]

    def direct(query, gallery):  # of the gallery's images alone
        return reid(query[asked], labels[asked], camera[asked], gallery, labels[~asked], camera[~asked])

    found = measure_protocol("reid", old, new, images, {}, cross=(new, old), draws=8)
    for (query, gallery), (a, b) in zip(PAIRS, ((old, old), (new, old), (new, new)), strict=True):
        for name, value in direct(a, b[~asked]).values.items():
            one = found.get(query, gallery, name)
            assert one.value == pytest.approx(value) and one.low <= one.high
    assert found.find("new", "mixed", "area/map", order="random").value > 0
    places = torch.tensor(backfill_order(old[~asked], labels[~asked], "random", seed=0))
    curve = mixed_reid(old, new, images, (new, old), shares=(0, 0.3, 1))
    for share, point in zip(curve.shares, curve.points, strict=True):
        mixed, moved = old[~asked].clone(), places[: round(share * len(places))]
        mixed[moved] = new[~asked][moved]
        expected = direct(new, mixed)
        assert (point["map"], point["minp"]) == pytest.approx((expected.map, expected.minp))


def test_whole_numbers_tie_in_a_mixed_reid_gallery_beside_old_features_that_are_none():
    images, old, new = reid_images(), features(1, 3), (1.5 * features(2, 3)).round()
    asked, labels, camera = images.extras["query"], images.labels, images.extras["camera"]
    stored = labels[~asked], camera[~asked]
    curve = mixed_reid(old, new, images, (new, old), shares=(0.5, 1))
    own = reid(new[asked], labels[asked], camera[asked], new[~asked], *stored)
    assert np.array_equal(curve.average_precision[1], own.average_precision, equal_nan=True)
    moved = backfill_order(old[~asked], stored[0], "random", seed=0)[: round(0.5 * len(stored[0]))]
    unit = [torch.nn.functional.normalize(side.double()) for side in (old[~asked], new[~asked], new[asked])]
    unit[0][moved] = unit[1][moved]
    scores = (unit[2] @ unit[0].T).numpy().round(9)
    for row, person, seen_by, found in zip(
        scores, labels[asked], camera[asked], curve.average_precision[0], strict=True
    ):
        kept = ((stored[0] != person) | (stored[1] != seen_by)).numpy()
        right = (stored[0] == person).numpy()[kept]
        order = np.lexsort((right, -row[kept]))  # wrong items first where scores tie
        assert found == pytest.approx(average_precision(right[order]), nan_ok=True)


def test_without_a_cross_test_only_the_self_tests_are_measured():
    images, lists = ijb_images()
    cases = {"reid": (reid_images(), {}), "ijb": (images, lists), "landmarks": (reid_images(), {})}
    for protocol, (own, given) in cases.items():
        found = measure_protocol(protocol, features(1, 3), features(2), own, given, cross=None, draws=0)
        headline = HEADLINES[protocol]
        assert found.value("new", "old", headline) is None
        assert found.value("old", "old", "map" if protocol != "ijb" else "auc") is not None


def test_ijb_weighs_images_pools_media_and_takes_the_enrolment_from_the_old_model():
    images, lists = ijb_images()
    old, new = features(1), features(2)
    found = measure_protocol("ijb", old, new, images, lists, cross=(new, old))

    how = (images.extras["template"], images.extras["media"], images.extras["detector"])
    enrolled, probe = (pool_templates(side, *how) for side in (old, new))
    one, two, probes = (lists[name].numpy().T for name in ("gallery1", "gallery2", "probes"))
    expected = verification_1_to_1(enrolled, probe, *lists["pairs"].numpy().T)
    expected += identification_1_to_n(enrolled, probe, one, two, probes)
    assert len(found.select(query="new", gallery="old")) == len(expected)
    for one in expected:
        assert found.value("new", "old", one.metric) == one.value
    assert found.value("new", "old", "tar@far=1e-6") is None  # 405 impostor pairs


def test_landmarks_lists_of_rows_and_classes_where_there_is_no_list():
    images = reid_images()
    query, gallery, asked = features(1), features(2), images.extras["query"]
    pairs = same_class(images)
    alike = images.labels[:, None] == images.labels
    by_hand = [[i, j] for i in range(N) for j in range(N) if asked[i] and not asked[j] and alike[i, j]]
    assert sorted(pairs.tolist()) == by_hand
    plain = one_test("landmarks", query, gallery, images, {}, draws=0)[0]
    mixed = pairs[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))]
    listed = one_test("landmarks", query, gallery, images, {"relevant": mixed}, draws=0)[0]
    assert plain.value(None, None, "map") == pytest.approx(listed.value(None, None, "map"))
    judged = one_test("landmarks", query, gallery, images, landmark_lists(images), draws=0)[0]
    place = {row: number for number, row in enumerate((~asked).nonzero()[:, 0].tolist())}
    lists = [
        [[place[j] for i, j in pairs.tolist() if i == row] for row in asked.nonzero()[:, 0].tolist()]
        for pairs in landmark_lists(images).values()
    ]
    expected = revisited(query[asked], gallery[~asked], *lists)
    assert {one.metric for one in judged} == set(expected) > set(PRINTED["landmarks"])
    for name, values in expected.items():
        assert judged.value(None, None, name) == pytest.approx(np.nanmean(values))


@pytest.mark.parametrize("protocol", [name for name in HEADLINES if name != "pairs"])
def test_an_experiment_from_end_to_end(protocol, tmp_path, monkeypatch):
    tests = {"ijb": ijb_images(), "reid": (reid_images(), {}), "leave-one-out": (pictures(N, 10), {})}
    tests["landmarks"] = (reid_images(), landmark_lists(reid_images()))
    test, lists = tests[protocol]
    splits = Splits("shades", pictures(80, 20, 1), pictures(20, 5, 2), test, lists)
    monkeypatch.setattr("compat_lib.experiment_data.load", lambda *arguments, **options: splits)
    sides = {"old_backbone": "convnet-half", "new_backbone": "convnet-half", "old_epochs": 1, "epochs": 1}
    experiment = silent(tiny(tmp_path, protocol=protocol, dataset_options={}, image_size=16, **sides))
    run = experiment.evaluate()
    sides = experiment.old.test, experiment.new.test
    direct = measure_protocol(protocol, *sides, test, lists, cross=experiment.cross, draws=10)
    for pair in PAIRS:
        for metric in PRINTED[protocol]:
            assert run.metrics.find(*pair, metric) == direct.find(*pair, metric)
    assert run.metrics.value("new", "new", "auc" if protocol == "ijb" else "map") is not None
    assert experiment.old_run.metrics.find("old", "old", "map") == direct.find("old", "old", "map")
    assert {one.adapter for one in run.metrics} > {"ridge", "procrustes"}
    if protocol == "ijb":
        plain = experiment.embed(experiment.new.model, test.images)
        mirrored = experiment.embed(experiment.new.model, test.images.flip(3))
        assert torch.allclose(experiment.new.test, plain + mirrored, atol=1e-5)


def test_what_cannot_be_measured_is_refused_before_training(tmp_path, caplog):
    with pytest.raises(ValueError, match="needs 'query' of each test image.*'portraits'.*market1501"):
        silent(tiny(tmp_path, protocol="reid")).evaluate()
    assert not list(tmp_path.rglob("*.safetensors"))
    images, lists = ijb_images()
    with pytest.raises(ValueError, match="'media'.*the list 'pairs'"):
        refuse_protocol("ijb", "mine", pictures(N, 3, template=torch.arange(N)), {})
    refuse_protocol("ijb", "ijbc", images, lists)
    for name, rows, said in (
        ("probes", [[999, 1]], "the probe list names 1 templates that no image has, such as 999"),
        ("pairs", [[100, 999, 1], [100, 101, 0]], "second names 1 templates .* such as 999"),
        ("pairs", [[100, 110, 2], [100, 101, 0]], "give True or 1 where a pair shows one identity"),
        ("gallery1", [[100, 0], [110, 0]], "0 stands more than once among the subjects of gallery 1"),
        ("gallery2", [[110, 0]], "0 stands more than once among the subjects of both galleries"),
    ):
        with pytest.raises(ValueError, match=f"the lists of 'ijbc' do not fit: .*{said}"):
            refuse_protocol("ijb", "ijbc", images, lists | {name: torch.tensor(rows)})
    one_camera = pictures(N, 10, query=torch.arange(N) % 4 == 0, camera=torch.zeros(N, dtype=torch.int64))
    with pytest.raises(ValueError, match="15 queries and 45 gallery images, and no query has a right item"):
        refuse_protocol("reid", "mine", one_camera, {})
    refuse_protocol("landmarks", "mine", one_camera, {})
    refuse_protocol("landmarks", "mine", one_camera, landmark_lists(one_camera))
    assert not caplog.messages
    alone = torch.where(torch.arange(N) == 0, 10, one_camera.labels)  # query/Anna beside test/anna
    lost = dataclasses.replace(one_camera, labels=alone, classes=(*one_camera.classes, "Anna"))
    refuse_protocol("landmarks", "mine", lost, {})
    (said,) = caplog.messages
    assert said.startswith("mine: 1 of the 15 queries have no right item")
    assert said.endswith("0; such classes: Anna")
    for pair in ([0, 4], [1, 2], [0, N], [-1, 2]):  # two queries, no query, no row of the test part
        lists = landmark_lists(one_camera) | {"junk": torch.tensor([[0, 1], pair])}
        for call in (refuse_protocol, one_test):
            how = (
                ("landmarks", "mine") if call is refuse_protocol else ("landmarks", features(1), features(2))
            )
            with pytest.raises(ValueError, match=rf"'junk' pairs rows \{pair}, which are no query"):
                call(*how, one_camera, lists)
    with pytest.raises(ValueError, match="protocol is 'faces'; choose one of pairs, ijb"):
        ExperimentConfig(protocol="faces")
