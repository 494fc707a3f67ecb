"""Published settings by README's command, from files in the true formats to metrics; only sizes are set."""

import json
import re
from pathlib import Path

import pytest
import torch
import torchvision
from image_folders import make, picture
from record_files import write_face_set
from test_faces import write_celeba, write_lfw
from test_ijb import write_ijb
from test_imagenet import write_imagenet, write_kaggle, write_places
from test_persons import write_market, write_msmt17

from companion.results import collect
from companion.tables import protocol_table
from compat_lib.__main__ import main
from compat_lib.config import ExperimentConfig
from compat_lib.experiment import Experiment
from compat_lib.presets import load_preset
from compat_lib.runs import Run

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "configs" / "paper"
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


def test_mixbct_on_one_gpu(tmp_path):
    write_face_set(tmp_path / "ms1m-retinaface-t1", [3, 2, 4, 3, 2, 5, 3, 2])
    write_ijb(tmp_path / "IJBC")
    smaller = PLAIN | {"accumulate": 2, "checkpoint_steps": 1}
    with torch.compiler.set_stance("force_eager"):  # compiling takes minutes, and is torch's
        run("mixbct-ms1mv3-one-gpu", tmp_path, {"method": "mixbct"}, ("auc", "top1"), **smaller)


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


# -- AdvBCT --------------------------------------------------------------------------------------


def write_gldv2(base):
    """The release in small: images by the first letters of their names, and its lists."""

    def images(part, *numbers):
        names = [f"{number:x}{part[0]}{number:014x}" for number in numbers]
        for number, name in zip(numbers, names, strict=True):
            picture(base / part / "/".join(name[:3]) / f"{name}.jpg", 40 * number)
        return names

    train = [f"{landmark},{' '.join(images('train', landmark, landmark + 8))}" for landmark in range(6)]
    index = images("index", *range(6))
    test = images("test", 0, 1, 2, 3)
    solution = [f"{test[k]},{index[k]} {index[k + 3]},Private" for k in (0, 1)]
    solution += [f"{test[2]},{index[2]},Public", f"{test[3]},None,Ignored"]
    lists = {
        "train_clean.csv": ["landmark_id,images", *train],
        "index_image_to_landmark.csv": ["id,landmark_id", *(f"{index[k]},{k % 3}" for k in range(6))],
        "retrieval_solution_v2.1.csv": ["id,images,Usage", *solution],
    }
    for name, lines in lists.items():
        (base / name).write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(("name", "method"), [("advbct-gldv2", "advbct"), ("advbct-gldv2-data", "unibct")])
def test_advbct_on_gldv2_made_a_folder_as_the_page_says(tmp_path, monkeypatch, name, method):
    monkeypatch.chdir(tmp_path)
    write_gldv2(tmp_path / "GLDv2")
    page = (ROOT / "docs" / "data_sets.md").read_text(encoding="utf-8")
    (links,) = re.findall(r"```python\n(.*?)```", page, re.S)
    exec(links, {})
    only = {"method": method, "new_backbone": "resnet18"}  # of the two
    small = {"old_backbone": "convnet-half", "old_width": 8, "new_width": 8}
    experiment, made = run(name, tmp_path, only, ("map",), **small)
    assert len(experiment.new_images) == 12 and len(experiment.data.val) == 12
    assert len(experiment.old_images) == {"extended-class": 4, "extended-data": 6}[made.config["scenario"]]
    test = experiment.data.test
    assert test.extras["query"].sum() == 2 and test.labels.tolist() == [0, 0, 1, 1, 2, 2, 0, 1]
    table = protocol_table(collect(tmp_path / "runs"), made.config["experiment_id"])
    assert list(table.columns) == ["method", "query/gallery", "mAP", "whose"]
    ours = table["whose"].str.startswith("ours")
    assert ours.tolist() == [True] * 3 + [False] * 52
    assert table[~ours & (table["method"] == "AdvBCT")]["mAP"].iloc[:2].tolist() == ["11.5", "12.1"]
