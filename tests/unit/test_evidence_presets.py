"""Presets of the questions that README answers: they load, hold what they say, and share what they can."""

import re
from pathlib import Path

import pytest
import yaml

from compat_lib.presets import load_preset
from compat_lib.recipe import refuse_impossible

FOLDER = Path(__file__).parents[2] / "configs" / "evidence"
PRESETS = {path.stem: load_preset(path) for path in sorted(FOLDER.glob("*.yml"))}
BLIND = {name for name in PRESETS if name.startswith("own")}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_how_many_runs_it_has(name):
    text = yaml.safe_load((FOLDER / f"{name}.yml").read_text())["description"]
    (runs,) = re.findall(r"(\d+) runs", text)
    assert int(runs) == len(PRESETS[name].experiments)


@pytest.mark.parametrize("name", PRESETS)
def test_an_oracle_is_trained_once_a_setting_and_an_old_model_once_an_old_side(name):
    first = [config for config in PRESETS[name].experiments if config.old_run is None]
    settings = {(config.experiment_id, config.seed) for config in first}
    oracles = [(one.experiment_id, one.seed) for one in first if one.method == "independent"]
    assert len(oracles) == len(settings) and set(oracles) == settings
    assert {config.data_seed for config in first} == {0 if first[0].dataset == "cifar100" else None}


def test_settings_that_differ_in_their_new_side_alone_share_the_old_models():
    for name, sides in {"outliers": 1, "losses": 3, "networks": 3, "weak": 4, "omniglot": 1}.items():
        seeds = {config.seed for config in PRESETS[name].experiments}
        found = {(one.old_side, one.seed) for one in PRESETS[name].experiments}
        assert len(found) == sides * len(seeds), name


def test_runs_that_two_presets_want_are_the_same():
    runs = {name: {one.run_folder for one in preset.experiments} for name, preset in PRESETS.items()}
    assert len(runs["weak"] & runs["omniglot"]) == 21  # the usual old model: three seeds, seven methods
    assert not runs["own"] & runs["own-ablation"]  # each is paired within itself


def test_blind_seeds_are_used_by_nothing_else():
    seeds = {name: {one.seed for one in preset.experiments} for name, preset in PRESETS.items()}
    assert all(min(seeds[name]) >= 10 for name in BLIND)
    assert all(max(seeds[name]) < 10 for name in seeds.keys() - BLIND)


def test_every_method_can_do_what_it_is_asked_for():
    kinds = {}
    for config in (one for preset in PRESETS.values() for one in preset.experiments):
        small = {"old_backbone": "convnet-half", "new_backbone": "convnet-half", "old_run": None}
        asked = (config.method, str(config.method_options), config.old_width, config.new_width)
        kinds[asked, config.old_loss, config.new_loss] = config.changed(**small)
    for config in kinds.values():
        refuse_impossible(config)
