"""Published settings by README's command, from files in the true formats to metrics; only sizes are set."""

import json
from pathlib import Path

import pytest
import torchvision
from image_folders import make
from record_files import write_face_set
from test_faces import write_celeba, write_lfw
from test_ijb import write_ijb
from test_imagenet import write_imagenet, write_kaggle, write_places
from test_persons import write_market, write_msmt17

from compat_lib.__main__ import main
from compat_lib.config import ExperimentConfig
from compat_lib.experiment import Experiment
from compat_lib.presets import load_preset
from compat_lib.runs import Run

FOLDER = Path(__file__).parents[2] / "configs" / "paper"
SIZES = {"old_epochs": 1, "epochs": 1, "batch_size": 8, "bootstrap_draws": 2, "image_size": 16}
HERE = {"device": "cpu", "workers": 0, "old_weights": None, "new_weights": None}
PLAIN = {"old_backbone": "convnet-half", "new_backbone": "convnet-half", "old_width": 8, "new_width": 8}
PERSONS = {"image_height": 32, "per_identity": 2, "pad": 2, "warmup_steps": 1}
PAIRS = (("old", "old"), ("new", "old"), ("new", "new"))


def run(name, root, only, metrics, **changes):
    """One experiment and its run for each that the command has made."""
    where = {"data_root": str(root), "runs_root": str(root / "runs")}
    changes = SIZES | HERE | where | changes
    command = ["run", str(FOLDER / f"{name}.yml")]
    for option, values in (("--only", only), ("--set", changes)):
        for field, value in values.items():
            command += [option, f"{field}={value if isinstance(value, str) else json.dumps(value)}"]
    assert main(command) == 0
    experiments = [
        Experiment(config, say=lambda line: None)
        for config in load_preset(FOLDER / f"{name}.yml", **changes).experiments
        if all(getattr(config, field) == value for field, value in only.items())
    ]
    runs = [Run(experiment.config.run_folder) for experiment in experiments]
    assert runs
    for one in runs:
        for query, gallery in PAIRS:
            for metric in metrics:
                assert 0 <= one.metrics.value(query, gallery, metric) <= 1
    return experiments[0], runs[0]


# -- MixBCT --------------------------------------------------------------------------------------


def test_mixbct_on_ms1mv3_by_ijb(tmp_path):
    write_face_set(tmp_path / "ms1m-retinaface-t1", [3, 2, 4, 3, 2, 5, 3, 2])
    write_ijb(tmp_path / "IJBC")
    only = {"method": "mixbct", "old_loss": "softmax"}
    experiment, _ = run("mixbct-ms1mv3-extended-class", tmp_path, only, ("auc", "top1"), **PLAIN)
    assert len(experiment.new_images) == 24 and len(experiment.old_images) == 5  # two of eight people


def test_celeba_to_lfw(tmp_path, monkeypatch):
    checksums = write_celeba(tmp_path, [who for who in range(8) for _ in range(4)])
    monkeypatch.setattr(torchvision.datasets.CelebA, "file_list", checksums)
    write_lfw(tmp_path / "lfw-py" / "lfw_funneled", {"Ada_Byron": 2, "Eve_Doe": 3})
    fewer = {"dataset_options": {"validation": 2}}
    run("celeba-lfw", tmp_path, {"method": "mixbct"}, ("map",), **PLAIN, **fewer)


# -- Dual-Tuning ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["market1501", "msmt17", "msmt17-to-market1501", "msmt17-to-dukemtmc"])
def test_dual_tuning(tmp_path, name):
    write_market(tmp_path / "Market-1501-v15.09.15")
    write_market(tmp_path / "DukeMTMC-reID", form="{identity}_c{camera}_f{number:07d}.jpg")
    write_msmt17(tmp_path / "MSMT17_V1")
    smaller = {"old_backbone": "convnet-half", "old_width": 32}  # of a neck without projection
    if "-to-" in name:  # where there is one pair of networks, the new one is small too
        smaller |= {"new_backbone": "convnet-half", "new_width": 32}
    smaller |= {"old_classes": "<4"} if name == "msmt17" else {}  # of its five
    only = {"method": "dual_tuning", "new_width": smaller.get("new_width", 512)}
    ranks = ("map", "minp", "rank1")
    experiment, made = run(f"dual-tuning-{name}", tmp_path, only, ranks, **PERSONS, **smaller)
    assert experiment.new_images.images.shape[1:] == (3, 32, 16)
    if name != "msmt17":
        assert made.config["facts"]["images"]["train"] == 21
        assert experiment.old_images.num_classes == (5 if name == "market1501" else 8)


def test_distractors_are_no_person(tmp_path):
    write_market(tmp_path / "Market-1501-v15.09.15")
    config = ExperimentConfig(dataset="market1501", data_root=str(tmp_path), runs_root=str(tmp_path / "runs"))
    with pytest.raises(ValueError, match="distractors, of many people .* set protocol to reid"):
        Experiment(config.changed(**SIZES, **PLAIN)).evaluate()


# -- openBCT, BT2, FCT ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "method"), [("openbct-imagenet", "bct"), ("openbct-places365", "bct"), ("bt2-imagenet", "bt2")]
)
def test_half_for_the_old_model(tmp_path, name, method):
    write_kaggle(write_imagenet(tmp_path / "imagenet", flat=True))
    write_places(tmp_path / "places365")
    ranks = ("map", "top1", "top5")
    experiment, _ = run(name, tmp_path, {"method": method}, ranks, **PLAIN)
    assert len(experiment.new_images) == 36
    sides = {"openbct": [6, 6, 6], "bt2": [12, 12]}  # half of the images, or two of three classes
    assert experiment.old_images.labels.bincount().tolist() == sides[name.partition("-")[0]]


@pytest.mark.parametrize(
    ("name", "method"), [("bt2-cifar100", "bt2"), ("bt2-cifar100", "fct"), ("cifar100-cpu", "bct")]
)
def test_cifar100(tmp_path, name, method):
    names = [f"class{number}" for number in range(4)]
    make(tmp_path / "cifar100", train=dict.fromkeys(names, 8), test=dict.fromkeys(names, 3))
    changes = PLAIN | {"old_width": 16, "new_width": 16, "old_classes": None, "old_share": 0.5}  # of four
    experiment, _ = run(name, tmp_path, {"method": method}, ("map", "top1"), **changes)
    assert len(experiment.new_images) == 32 and len(experiment.old_images) == 16
