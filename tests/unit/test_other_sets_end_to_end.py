"""Published settings from files to metrics, on small trees in the true formats."""

import pytest
from test_imagenet import write_imagenet, write_kaggle, write_places
from test_persons import write_market, write_msmt17

from compat_lib.config import ExperimentConfig
from compat_lib.experiment import Experiment

TINY = {
    "old_backbone": "convnet-half",
    "new_backbone": "convnet-half",
    "old_epochs": 1,
    "epochs": 1,
    "batch_size": 8,
    "old_width": 8,
    "new_width": 8,
    "bootstrap_draws": 10,
    "shift": 0,
    "image_size": 16,
}


def evaluated(tmp_path, **changes):
    values = TINY | {"data_root": str(tmp_path), "runs_root": str(tmp_path / "runs")} | changes
    experiment = Experiment(ExperimentConfig(**values), say=lambda line: None)
    return experiment, experiment.evaluate()


@pytest.mark.parametrize(
    "old",
    [
        {"scenario": "extended-class", "old_classes": "<600"},
        {"old_dataset": "msmt17", "old_dataset_options": {"identities": "all"}},
    ],
    ids=["identities", "MSMT17 to Market-1501"],
)
def test_dual_tuning_on_market1501(tmp_path, old):
    write_market(tmp_path / "Market-1501-v15.09.15")
    write_msmt17(tmp_path / "MSMT17_V1")
    recipe = {"dataset": "market1501", "dataset_options": {"validation": 0}, "image_height": 32}
    recipe |= {"method": "dual_tuning", "protocol": "reid", "task_loss": "triplet", "per_identity": 2}
    experiment, run = evaluated(tmp_path, **recipe, **old)
    facts = run.config["facts"]
    assert facts["images"]["train"] == 21 and facts["images"]["test"] == 10
    assert experiment.new_images.images.shape[1:] == (3, 32, 16)
    for query, gallery in (("old", "old"), ("new", "old"), ("new", "new")):
        for metric in ("map", "minp", "rank1"):
            assert 0 <= run.metrics.value(query, gallery, metric) <= 1


def test_distractors_are_no_person(tmp_path):
    write_market(tmp_path / "Market-1501-v15.09.15")
    with pytest.raises(
        ValueError, match="distractors, of many people .*'pairs' would take .* set protocol to reid"
    ):
        evaluated(tmp_path, dataset="market1501")


@pytest.mark.parametrize(
    ("name", "scenario"), [("imagenet", "extended-class"), ("places365", "extended-data")]
)
def test_half_for_the_old_model(tmp_path, name, scenario):
    if name == "imagenet":
        write_kaggle(write_imagenet(tmp_path / name, flat=True))
    else:
        write_places(tmp_path / name)
    recipe = {"dataset": name, "scenario": scenario, "old_share": 0.5, "shuffle_seed": None}
    experiment, run = evaluated(tmp_path, **recipe, method="bct", protocol="leave-one-out")
    assert len(experiment.new_images) == 30
    assert experiment.old_images.labels.bincount().tolist() == (
        [10, 10] if scenario == "extended-class" else [5, 5, 5]
    )
    for query, gallery in (("old", "old"), ("new", "old"), ("new", "new")):
        for metric in ("map", "top1", "top5"):
            assert 0 <= run.metrics.value(query, gallery, metric) <= 1
