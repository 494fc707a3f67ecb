"""Presets of published settings: constants as published, notebooks that take them, what they refuse."""

from pathlib import Path

import plan
import pytest
from execute import declared_parameters

from companion.parameters import refuse_unsuitable
from compat_lib.data.scenarios import named_classes
from compat_lib.losses import method_options
from compat_lib.optimisation import learning_rate
from compat_lib.presets import load_preset
from compat_lib.recipe import refuse_impossible, settings_of

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "configs" / "paper"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yml"))

# Typed from what the papers' code and README say, not from the presets.
MIX = {"dataset": "ms1mv3", "protocol": "ijb", "old_share": 0.3, "shuffle_seed": None, "image_size": 112}
MIX |= {"old_backbone": "iresnet18", "new_backbone": "iresnet50", "new_loss": "arcface", "scale": 64}
MIX |= {"margin": 0.5, "margin_ramp": 0, "epochs": 35, "old_epochs": 35, "batch_size": 8 * 128}
MIX |= {"optimiser": "sgd", "schedule": "polynomial", "lr": 0.1, "weight_decay": 5e-4, "decay": "all"}
MIX |= {"clip": 5, "classifier_sample": 1, "flip": True, "shift": 0}
DUAL = {"protocol": "reid", "size": (256, 128), "optimiser": "adam", "lr": 3.5e-4, "weight_decay": 5e-4}
DUAL |= {"epochs": 120, "warmup_steps": 2000, "batch_size": 64, "per_identity": 4, "pad": 10, "flip": True}
DUAL |= {"erase": 0.5, "label_smoothing": 0.1, "old_backbone": "resnet18-stride1", "old_width": 512}
DUAL |= {"new_head": "bn-neck", "new_weights": "IMAGENET1K_V1"}
OPENBCT = {"optimiser": "sgd", "lr": 0.1, "weight_decay": 1e-4, "batch_size": 256, "epochs": 90}
OPENBCT |= {"old_backbone": "resnet18", "new_backbone": "resnet50", "old_share": 0.5}
OPENBCT |= {"protocol": "leave-one-out", "new_loss": "softmax"}
BT2 = {"optimiser": "adam", "lr": 1e-3, "schedule": "cosine", "epochs": 100, "protocol": "leave-one-out"}
ADVBCT = {"protocol": "landmarks", "stream": True, "size": 224, "batch_size": 4 * 256, "sync_batchnorm": True}
ADVBCT |= {"optimiser": "sgd", "lr": 0.1, "old_lr": 0.1, "schedule": "multistep", "warmup": 0}
ADVBCT |= {"epochs": 30, "old_epochs": 30, "weight_decay": 5e-4, "decay": "all", "precision": "float32"}
ADVBCT |= {"old_backbone": "resnet18", "old_width": 256, "new_width": 256, "new_weights": "IMAGENET1K_V1"}
ADVBCT |= {"old_weights": "IMAGENET1K_V1", "old_loss": "softmax", "new_loss": "softmax", "label_smoothing": 0}
ADVBCT |= {"shift": 0, "flip": False, "pad": 0, "erase": 0, "resized_crop": 0}
FROM_MSMT17 = {"old_dataset": "msmt17", "old_dataset_options": {"identities": "all"}}
FROM_MSMT17 |= {"scenario": "open-class", "old_backbone": "resnet50-stride1", "old_width": 2048}
FROM_MSMT17 |= {"new_backbone": "resnet50-stride1", "new_width": 2048}
PUBLISHED = {
    **{f"mixbct-ms1mv3-{name}": MIX | {"scenario": name} for name in ("extended-class", "extended-data")},
    **{f"mixbct-ms1mv3-{name}": MIX | {"scenario": name} for name in ("open-class", "open-data")},
    "mixbct-ms1mv3-one-gpu": MIX | {"scenario": "open-class", "classifier_sample": 0.1},
    "advbct-gldv2": ADVBCT | {"scenario": "extended-class"},
    "advbct-gldv2-data": ADVBCT | {"scenario": "extended-data", "old_share": 0.3},
    "dual-tuning-market1501": DUAL | {"dataset": "market1501", "old_classes": "<600"},
    "dual-tuning-msmt17": DUAL | {"dataset": "msmt17", "old_classes": "<502"},
    "dual-tuning-msmt17-to-market1501": DUAL | FROM_MSMT17 | {"dataset": "market1501"},
    "dual-tuning-msmt17-to-dukemtmc": DUAL | FROM_MSMT17 | {"dataset": "dukemtmc"},
    "openbct-imagenet": OPENBCT | {"dataset": "imagenet"},
    "openbct-places365": OPENBCT | {"dataset": "places365"},
    "bt2-imagenet": BT2 | {"dataset": "imagenet", "weight_decay": 0, "batch_size": 256, "warmup": 0.2},
    "bt2-cifar100": BT2
    | {"dataset": "cifar100", "weight_decay": 3.05e-5, "batch_size": 128, "warmup": 0.05}
    | {"old_backbone": "resnet18", "new_backbone": "resnet50", "new_width": 128, "label_smoothing": 0.1}
    | {"scenario": "extended-class", "old_classes": "configs/paper/bt2-cifar100-old.txt"},
    "cifar100-cpu": {"dataset": "cifar100", "scenario": "extended-class", "old_share": 0.5, "device": "cpu"},
    "celeba-lfw": {"dataset": "celeba-lfw", "new_backbone": "iresnet50", "image_size": 112},
}
SAME_NETWORKS = ("celeba-lfw", "advbct-gldv2-data")  # as in another preset
SAME_NETWORKS += tuple(name for name in PUBLISHED if "ms1mv3" in name and not name.endswith("open-class"))
COUNTS = {  # images and classes, where published
    "mixbct-ms1mv3-extended-class": {"old": [1_581_241, 28_029], "new": [5_179_510, 93_431]},
    "mixbct-ms1mv3-extended-data": {"old": [1_554_138, 93_431], "new": [5_179_510, 93_431]},
    "mixbct-ms1mv3-open-class": {"old": [1_581_241, 28_029], "new": [3_598_269, 65_402]},
    "mixbct-ms1mv3-open-data": {"old": [1_554_138, 93_431], "new": [5_179_510 - 1_554_138, 93_431]},
    "mixbct-ms1mv3-one-gpu": {"old": [1_581_241, 28_029], "new": [3_598_269, 65_402]},
    "advbct-gldv2": {"old": [470_369, 24_393], "new": [1_580_470, 81_313]},
    "advbct-gldv2-data": {"old": [round(0.3 * 1_580_470), 81_313], "new": [1_580_470, 81_313]},
    "dual-tuning-market1501": {"old": [None, 312], "new": [12_936, 751]},
}
KINDS = {  # old loss and width of both sides
    "extended-class": {("arcface", 512), ("softmax", 128)},
    "open-class": {("arcface", 512), ("softmax", 128), ("softmax", 256)},
    "extended-data": {("arcface", 512), ("softmax", 512)},
    "open-data": {("arcface", 512), ("softmax", 512)},
}
OPTIONS = {  # of the methods, in MixBCT's comparison
    "l2": {"weight": 10},
    "weakened_l2": {"weight": 10, "threshold": 0.2},
    "bct": {"scale": 1, "weight": 1},
    "nccl": {"feature_weight": 1, "logit_weight": 0.01, "temperature": 1, "queue": 8192},
    "unibct": {"scale": 1, "weight": 1, "propagation": 0.9, "temperature": 0.05},
    "advbct": {"boundary_weight": 4, "adversarial_weight": 4, "target_radius": 0.4, "hidden": 100},
    "mixbct": {"mix_ratio": 0.3, "credible_share": 0.9, "columns": True}
    | {"old_margin_factor": 1, "old_scale_factor": 1},
}
OF_ADVBCT = {  # the same in AdvBCT's
    "bct": {"variant": "classifier", "weight": 1},
    "lce": {"boundary_weight": 1, "alignment_weight": 1},
    "unibct": {"scale": 30, "weight": 1, "propagation": 0, "start_share": 0, "refresh_share": 1},
    "hot_refresh": {"temperature": 0.01, "negatives": 10, "weight": 1},
    "advbct": {"boundary_weight": 1, "adversarial_weight": 1, "target_radius": 1, "hidden": 100},
}


CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""  # the names in the set's own meta file, in the order of their labels


def preset(name, **overrides):
    return load_preset(FOLDER / f"{name}.yml", **overrides)


@pytest.mark.parametrize("name", NAMES)
def test_constants_are_the_published_ones(name):
    found = preset(name)
    for config in found.experiments:
        wrong = {k: getattr(config, k) for k, v in PUBLISHED[name].items() if getattr(config, k) != v}
        assert not wrong, wrong
    for part, counts in COUNTS.get(name, {}).items():
        assert found.published[part] == counts


OTHERS = sorted(path.stem for path in FOLDER.parent.glob("*.yml"))


@pytest.mark.parametrize("name", [*OTHERS, *(f"paper/{name}" for name in NAMES)])
def test_the_workflow_takes_it_by_name(name):
    """Every field reaches the notebook that runs it."""
    for job in plan.all_jobs(*plan.read(name)):
        refuse_unsuitable(declared_parameters(job.notebook), job.parameters)


@pytest.mark.parametrize("name", [one for one in NAMES if one not in SAME_NETWORKS])
def test_networks_and_methods_can_be_built(name):
    here = {"device": "cpu", "old_weights": None, "new_weights": None}  # neither a GPU nor a download
    for config in preset(name, **here).experiments:
        refuse_impossible(config)


def test_the_old_classes_of_cifar100_are_the_first_folders_in_the_order_of_text():
    # FCT and BT2 write folders called by number, sorted as text by torchvision's ImageFolder: 10 before 2.
    first = [int(folder) for folder in sorted(map(str, range(100)))[:50]]
    found = named_classes(preset("bt2-cifar100").experiments[0].old_classes, CIFAR100.split())
    assert found.tolist() == sorted(first) == [*range(6), *range(10, 54)]


def test_readme_says_which_setting_each_is():
    rows = [line.split("|") for line in (ROOT / "README.md").read_text().splitlines()]
    table = {row[1].strip(" `"): row[4] for row in rows if len(row) == 7}  # data set -> its presets
    for name in NAMES:
        assert f"`{name}`" in table[preset(name).experiments[0].dataset]


def assert_options(runs, published):
    for one in runs.experiments:
        used, options = method_options(one.method) | one.method_options, published.get(one.method, {})
        assert {name: used[name] for name in options} == options


@pytest.mark.parametrize("scenario", KINDS)
def test_mixbct_has_the_published_losses_widths_and_methods(scenario):
    runs = preset(f"mixbct-ms1mv3-{scenario}")
    assert runs.processes == 8
    assert {(one.old_loss, one.old_width) for one in runs.experiments} == KINDS[scenario]
    assert all(one.new_width == one.old_width for one in runs.experiments)
    assert_options(runs, OPTIONS)


def test_advbct_has_the_published_networks_methods_and_number_of_old_classes():
    runs = preset("advbct-gldv2")
    assert runs.processes == 4 and round(runs.experiments[0].old_share * 81_313) == 24_393
    assert {one.new_backbone for one in runs.experiments} == {"resnet18", "resnet50"}
    assert {one.method for one in runs.experiments} == {"independent", *OF_ADVBCT}
    assert_options(runs, OF_ADVBCT)


def test_one_gpu_runs_the_published_setting_of_eight_in_parts_of_their_size():
    eight, one = preset("mixbct-ms1mv3-open-class"), preset("mixbct-ms1mv3-one-gpu")
    changes = {"accumulate": 8, "classifier_sample": 0.1, "compile": True}
    changes |= {"checkpoint_steps": 500, "workers": 12}
    published = [config for config in eight.experiments if config.old_loss == "arcface"]
    assert one.processes == 1 and one.experiments == [config.changed(**changes) for config in published]
    assert 1024 // changes["accumulate"] == 128  # that each published process normalises by


def test_schedules_step_by_step():
    mix = preset("mixbct-ms1mv3-extended-class").experiments[0]
    steps = 5_179_510 // 1024 * 35
    for step in (0, 1, 5_000, steps - 1):
        expected = 0.1 * (1 - step / steps) ** 2
        assert learning_rate(settings_of(mix, 35, mix.lr, 0), step, steps) == pytest.approx(expected)
    dual = preset("dual-tuning-market1501").experiments[0]
    settings = settings_of(dual, 120, dual.lr, 0)
    rates = [learning_rate(settings, 202 * epoch, 202 * 120) for epoch in range(120)]
    assert rates[10:40] == [3.5e-4] * 30
    assert rates[40:90] == pytest.approx([3.5e-5] * 50) and rates[90:] == pytest.approx([3.5e-6] * 30)
    advbct = preset("advbct-gldv2").experiments[0]
    settings = settings_of(advbct, 30, advbct.lr, 0)
    rates = [learning_rate(settings, 1543 * epoch, 1543 * 30) for epoch in range(30)]
    assert rates == pytest.approx([0.1] * 5 + [0.01] * 5 + [1e-3] * 10 + [1e-4] * 10)
