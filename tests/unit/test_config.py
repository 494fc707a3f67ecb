"""Configurations refuse what cannot work, and name runs by what determines them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compat_lib.config import ExperimentConfig, TrainingSettings, project_path, shown_path
from compat_lib.experiment_data import ExperimentData
from compat_lib.presets import load_preset
from compat_lib.recipe import settings_of


def test_reading_a_configuration_does_not_start_torch():
    code = "import sys, compat_lib.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


FILE = {"old_features": "x.csv"}
REFUSED = [
    ({"dataset": "mnist"}, "dataset .*portraits, omniglot"),
    ({"scenario": "open"}, "scenario .*open-class"),
    ({"new_loss": "triplet"}, "new_loss .*softmax, cosface, arcface"),
    ({"old_share": 1.0}, "old_share .*strictly between 0 and 1"),
    ({"warmup": 1.5}, "warmup .*between 0 and 1"),
    ({"epochs": 0}, "epochs .*at least 1"),
    ({"lr": 0.0}, "lr .*above 0"),
    ({"batch_size": 1}, "batch_size .*at least 2"),
    ({"budget": "time"}, "budget .*steps, passes"),
    # types
    *(({"epochs": value}, "epochs") for value in (1.5, "many")),
    *(({"lr": value}, f"lr must be a number; got {value!r}") for value in ("fast", True)),
    *(({"flip": 1}, "flip"), ({"method_options": []}, "method_options")),
    # recipes
    ({"schedule": "multistep"}, "needs milestones"),
    ({"milestones": [0.5]}, "do not go together"),
    ({"schedule": "multistep", "milestones": [40, 90]}, "between 0 and 1"),
    ({"optimiser": "lamb"}, "sgd, adam, adamw"),
    ({"warmup_steps": -1}, "at least 0"),
    ({"accumulate": 5, "batch_size": 8}, "at most 4"),
    ({"classifier_sample": 0.0}, "above 0"),
    # old sides
    (FILE | {"scenario": "extended-class"}, "leave out scenario"),
    (FILE | {"old_run": "a/b"}, "leave out old_run"),
    ({"old_test_features": "y.csv"}, "need old_features, a file"),
    ({"old_dataset": "mars"}, "old_dataset is 'mars'; choose one of portraits"),
    ({"old_dataset": "folder", "scenario": "extended-class"}, "set scenario to open-class"),
    ({"old_dataset": "folder", "old_classes": "<3"}, "old_classes to None"),
    ({"old_classes": "<3", "scenario": "open-data"}, "choose extended-class or open-class"),
    ({"old_dataset_options": {"images": 3}}, "need old_dataset"),
]


@pytest.mark.parametrize(("fields", "words"), REFUSED)
def test_what_cannot_be_is_named(fields, words):
    kinds = (ExperimentConfig, TrainingSettings)
    for kind in (one for one in kinds if set(fields) <= set(one.__dataclass_fields__)):
        with pytest.raises((ValueError, TypeError), match=words):
            kind(**fields)


def test_numbers_are_those_of_yaml_1_2(tmp_path):
    text = "{weight_decay: 1e-3, epochs: 012, lr: 1, margin: .5, dataset_options: {path: 1_0, share: -2E+1}}"
    (tmp_path / "p.yml").write_text(f"defaults: {text}")
    (config,) = load_preset(tmp_path / "p.yml").experiments
    assert (config.weight_decay, config.epochs, config.lr, config.margin) == (1e-3, 12, 1.0, 0.5)
    assert isinstance(config.epochs, int) and isinstance(config.lr, float)
    assert config.dataset_options == {"path": "1_0", "share": -20.0}


def test_text_that_is_a_number_is_one():
    """Papermill's files of parameters are YAML 1.1."""
    config = ExperimentConfig(lr="1e-3", epochs="12")
    assert config == ExperimentConfig(lr=0.001, epochs=12) and isinstance(config.epochs, int)


def test_paths_and_single_numbers_of_arrays_are_what_json_knows():
    options = {"mix_ratio": np.float32(0.5), "pad": np.array(True)}
    config = ExperimentConfig(epochs=np.int64(3), flip=np.True_, runs_root=Path("x"), method_options=options)
    plain = {"epochs": 3, "flip": True, "runs_root": "x", "method_options": {"mix_ratio": 0.5, "pad": True}}
    assert config == ExperimentConfig(**plain) and config.run_id == ExperimentConfig(**plain).run_id
    with pytest.raises(TypeError, match="method_options must hold numbers, text, lists"):
        ExperimentConfig(method_options={"rows": np.ones(3)})


def test_names_depend_on_the_result_and_on_nothing_else():
    base = ExperimentConfig(method="mixbct")
    elsewhere = base.changed(runs_root="else", data_root="data2", device="cuda", threads=3)
    assert (base.experiment_id, base.run_id) == (elsewhere.experiment_id, elsewhere.run_id)
    assert base.run_id != base.changed(method_options={"mix_ratio": 0.2}).run_id
    assert base.run_id != base.changed(budget="passes").run_id
    assert base.run_id != base.changed(seed=1).run_id
    assert base.experiment_id == base.changed(seed=1, method="bct", budget="passes").experiment_id
    assert base.experiment_id != base.changed(old_epochs=4).experiment_id
    # the methods of one seed share the old model
    assert base.old_folder == base.changed(method="bct").old_folder != base.changed(seed=1).old_folder


def test_preset_is_settings_times_seeds_times_methods(tmp_path):
    path = tmp_path / "tiny.yml"
    path.write_text(
        "defaults: {epochs: 3}\n"
        "settings: [&one {scenario: open-class, lr: 0.2}, {<<: *one, scenario: open-data}]\n"
        "seeds: [0, 1]\n"
        "methods: [{method: independent}, {method: mixbct, method_options: {mix_ratio: 0.1}}]\n"
    )
    preset = load_preset(path, runs_root="elsewhere")
    assert preset.name == "tiny"
    assert len(preset.experiments) == 8
    assert len({config.run_folder for config in preset.experiments}) == 8
    assert len(preset.old_models) == 4
    shared = {(config.epochs, config.lr, config.runs_root) for config in preset.experiments}
    assert shared == {(3, 0.2, "elsewhere")}
    assert {config.scenario for config in preset.experiments} == {"open-class", "open-data"}


def test_a_preset_stands_on_its_base(tmp_path):
    below = "defaults: {epochs: 3, lr: 0.2}\nseeds: [1, 2]\nmethods: [{method: bct}, {method: l2}]"
    (tmp_path / "below.yml").write_text(below)
    (tmp_path / "deeper").mkdir()
    path = tmp_path / "deeper" / "above.yml"
    path.write_text("base: ../below.yml\ndefaults: {epochs: 5}\nseeds: [3]")
    found = {(one.method, one.seed, one.epochs, one.lr) for one in load_preset(path).experiments}
    assert found == {("bct", 3, 5, 0.2), ("l2", 3, 5, 0.2)} and load_preset(path).name == "above"
    path.write_text("base: above.yml")
    with pytest.raises(ValueError, match=r"above\.yml: base is above\.yml, .* based on this preset itself"):
        load_preset(path)
    path.write_text("base: none.yml")
    with pytest.raises(FileNotFoundError, match=r"no preset .*none\.yml; in that folder are: above\.yml"):
        load_preset(path)


def test_a_chain_goes_on_from_each_run_of_its_method(tmp_path):
    path = tmp_path / "chain.yml"
    path.write_text(
        "seeds: [0, 1]\nmethods: [{method: independent}, {method: mixbct},"
        " {method: mixbct, budget: passes}]\n"
        "chains: [{after: mixbct, new_backbone: resnet18}, {after: independent, new_backbone: resnet18}]\n"
    )
    preset = load_preset(path)
    first, chained = preset.experiments[:6], preset.experiments[6:]
    assert [config.method for config in chained] == ["independent", "mixbct"] * 2 + ["independent"] * 2
    middle = [config for config in first if config.method == "mixbct" and config.budget == "steps"]
    middle = [middle[0], middle[0], middle[1], middle[1], first[0], first[3]]
    for config, before in zip(chained, middle, strict=True):
        assert config.old_run == f"{before.experiment_id}/{before.run_id}"
        assert (config.old_backbone, config.new_backbone) == ("resnet-small", "resnet18")
    assert len({config.old_folder for config in preset.old_models}) == 6


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: 1", "settings"),
        ("defaults: {seed: 3}", r"the section seeds says which: write seeds: \[3\]"),
        ("seeds: [9223372036854775808]", "seed must be below"),
        *((f"processes: {value}", "processes must be a whole number") for value in ("true", "eight")),
        ("processes: 0", "at least 1; got 0"),
        ("published: {old: [5, 2]}", "published must be images and classes of both sides"),
        ("published: {old: [null, 2], new: [-5, 2]}", "published must be images and classes of both sides"),
        ("methods: [{method: bct}, {method: bct}]", "twice"),
        ("defaults:\n  epochs: 1:30", "epochs must be a whole number; got '1:30'"),
        ("defaults: {dataset: folder, dataset_options: {path: 2024}}", "path must be text; got 2024: put"),
        ("defaults: &a {epochs: 3}\nsettings: [{<<: *a, <<: *a}]", "<< is given twice"),
        ("methods: [{method: bct}]\nchains: [{after: l2}]", "after is 'l2'; .* of the preset: bct"),
        ("methods: [{method: bct}]\nchains: [{after: bct, epochs: none}]", "chains: epochs must be"),
        ("methods: [{method: bct}]\nchains: [{after: bct, epoch: 3}]", r"\(nearest: epochs\)"),
        ("methods: [{method: bct}]\nchains: [{after: bct, old_run: a/b, seed: 3}]", "settled old_run, seed"),
        ("methods: [{method: bct}]\nchains: [{after: bct, flip_test: true}]", "settled flip_test; leave"),
        ("methods:", "methods must be a list of .*; got None"),
        ("seeds: []", r"seeds must be a list of whole numbers, .*; got \[\]"),
        ("", "a preset is a list of sections"),
        ("defaults: {old_classes: ''}", "old_classes is an empty text; leave it out"),
        ("methods: [{method: mixbct, mix_ratio: 0.3}]", "options of a method stand in method_options"),
    ],
)
def test_bad_presets_are_named(tmp_path, text, words):
    path = tmp_path / "bad.yml"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        load_preset(path)


def test_values_from_outside_hold_for_a_chain_and_dates_are_text(tmp_path):
    text = "defaults: {runs_root: 2024-01-01}\nmethods: [{method: l2}]\nchains: [{after: l2, epochs: 7}]"
    (tmp_path / "p.yml").write_text(text)
    assert [one.epochs for one in load_preset(tmp_path / "p.yml").experiments] == [20, 7, 7]
    changed = load_preset(tmp_path / "p.yml", epochs=2).experiments
    assert [(one.epochs, one.runs_root) for one in changed] == [(2, "2024-01-01")] * 3


def test_relative_paths_start_at_the_project_from_within_it(tmp_path, monkeypatch):
    (tmp_path / "compat_lib").mkdir()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert project_path("runs") == tmp_path / "runs"
    few = {"identities": 2, "images": 1, "eval_identities": 2, "eval_images": 2}
    _ = ExperimentData(ExperimentConfig(data_root="sets", dataset_options=few)).data
    assert (tmp_path / "sets" / "portraits").is_dir()
    outside = tmp_path / "notebooks" / "deeper"
    outside.mkdir()
    monkeypatch.chdir(outside)
    assert project_path(tmp_path / "absolute") == tmp_path / "absolute"
    assert shown_path(tmp_path / "runs" / "a") == shown_path("runs/a") == "runs/a"
    elsewhere = tmp_path.parent / "elsewhere"
    assert shown_path(elsewhere) == str(elsewhere)


def test_the_largest_seed_trains():
    seed = 2**63 - 1
    assert settings_of(ExperimentConfig(seed=seed), 1, 0.1, 2 * seed + 1).seed == 2**64 - 1
