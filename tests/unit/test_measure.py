"""Protocols of an experiment: whom they give to which measure, end to end on small sets, what is refused."""

import dataclasses

import pytest
import torch
from tiny_runs import silent, tiny

from compat_lib.config import ExperimentConfig
from compat_lib.data.images import ImageSet, Splits
from compat_lib.evaluation.orders import backfill_order
from compat_lib.evaluation.protocols.identification import identification
from compat_lib.evaluation.protocols.leave_one_out import leave_one_out
from compat_lib.evaluation.protocols.measure import measure_protocol, mixed_reid, one_test, same_class
from compat_lib.evaluation.protocols.needs import refuse_protocol
from compat_lib.evaluation.protocols.reid import reid
from compat_lib.evaluation.protocols.roc import pair_list_scores, tar_at_far
from compat_lib.evaluation.protocols.templates import pool_templates
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


def test_leave_one_out_cuts_unequal_widths_and_begins_and_ends_the_mixed_gallery():
    images, old, new = pictures(N, 10), features(1, 4), features(2, 6)
    found = measure_protocol("leave-one-out", old, new, images, {}, cross=None, draws=8)
    for pair, sides in zip(PAIRS, ((old, old), (new[:, :4], old), (new, new)), strict=True):
        expected = leave_one_out(sides[0], images.labels, sides[1])
        for name, value in {"top1": expected.rank[1], "top5": expected.rank[5], "map": expected.map}.items():
            one = found.get(*pair, name)
            assert one.value == pytest.approx(value) and one.low <= one.high and len(one.draws) == 8
    for share, gallery in ((0.0, "old"), (1.0, "new")):
        mixed = found.value("new", "mixed", "map", order="random", share=share)
        assert mixed == pytest.approx(found.value("new", gallery, "map"))
    flips = [found.value("new", "old", f"{kind}_flips") for kind in ("positive", "negative")]
    change = found.value("new", "old", "top1") - found.value("old", "old", "top1")
    assert flips[0] - flips[1] == pytest.approx(change)


def test_reid_asks_the_queries_with_their_cameras_also_the_mixed_gallery():
    images, old, new = reid_images(), features(1), features(2)
    asked, camera, labels = images.extras["query"], images.extras["camera"], images.labels

    def by_rule(queries, gallery):
        sides = labels[asked], camera[asked], gallery, labels[~asked], camera[~asked]
        found = reid(queries, *sides, junk=(), fars=())
        return {"map": found.map, "minp": found.minp} | {f"rank{k}": value for k, value in found.rank.items()}

    found = measure_protocol("reid", old, new, images, {}, cross=(new, old), draws=8)
    for pair, (a, b) in zip(PAIRS, ((old, old), (new, old), (new, new)), strict=True):
        for name, value in by_rule(a[asked], b[~asked]).items():
            one = found.get(*pair, name)
            assert one.value == pytest.approx(value) and one.low <= one.high
    for share, gallery in ((0.0, "old"), (1.0, "new")):
        for name in ("map", "rank1", "minp"):
            mixed = found.value("new", "mixed", name, order="random", share=share)
            assert mixed == pytest.approx(found.value("new", gallery, name))
    assert found.find("new", "mixed", "area/map", order="random").value > 0
    mixed = old[~asked].clone()
    places = backfill_order(mixed, labels[~asked], "random", seed=0)[: round(0.3 * len(mixed))]
    mixed[places] = new[~asked][places]
    (point,) = mixed_reid(old, new, images, (new, old), shares=(0.3,)).points
    expected = by_rule(new[asked], mixed)
    assert point == pytest.approx({name: expected[name] for name in point})


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

    def pooled(rows):
        weighted = rows * images.extras["detector"][:, None]
        return pool_templates(weighted, images.extras["template"], images.extras["media"])

    first, second, same = lists["pairs"].T
    scores = pair_list_scores(pooled(old), pooled(new), first, second)
    known = (lists[name].numpy().T for name in ("gallery1", "gallery2", "probes"))
    expected = tar_at_far(scores, same, reading="nearest").values
    expected |= identification(pooled(old), pooled(new), *known).values
    assert {one.metric: one.value for one in found.select(query="new", gallery="old")} == pytest.approx(
        expected
    )
    assert expected["tar@far=1e-6"] is None  # 405 impostor pairs


def test_landmarks_lists_of_rows_and_classes_where_there_is_no_list():
    images = reid_images()
    query, gallery, asked = features(1), features(2), images.extras["query"]
    pairs = same_class(images)
    alike = images.labels[:, None] == images.labels
    by_hand = [[i, j] for i in range(N) for j in range(N) if asked[i] and not asked[j] and alike[i, j]]
    assert sorted(pairs.tolist()) == by_hand
    plain = one_test("landmarks", query, gallery, images, {}, draws=0)
    mixed = pairs[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))]
    listed = one_test("landmarks", query, gallery, images, {"relevant": mixed}, draws=0)
    assert plain.value(None, None, "map") == pytest.approx(listed.value(None, None, "map"))
    judged = one_test("landmarks", query, gallery, images, landmark_lists(images), draws=0)
    assert {one.metric for one in judged} == set(PRINTED["landmarks"])


@pytest.mark.parametrize("protocol", [name for name in HEADLINES if name != "pairs"])
def test_an_experiment_from_end_to_end(protocol, tmp_path, monkeypatch):
    tests = {"ijb": ijb_images(), "reid": (reid_images(), {}), "leave-one-out": (pictures(N, 10), {})}
    tests["landmarks"] = (reid_images(), landmark_lists(reid_images()))
    test, lists = tests[protocol]
    splits = Splits("shades", pictures(80, 20, 1), pictures(20, 5, 2), test, lists)
    monkeypatch.setattr("compat_lib.recipe.load", lambda *arguments, **options: splits)
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
    far = lists | {"probes": torch.tensor([[999, 1]])}
    with pytest.raises(ValueError, match="'probes' of 'ijbc' names 1 templates .* such as 999"):
        refuse_protocol("ijb", "ijbc", images, far)
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
        with pytest.raises(ValueError, match=rf"'junk' of 'mine' pairs rows \{pair}, which are no query"):
            refuse_protocol("landmarks", "mine", one_camera, lists)
    with pytest.raises(ValueError, match="protocol is 'faces'; choose one of pairs, ijb"):
        ExperimentConfig(protocol="faces")
