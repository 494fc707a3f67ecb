"""Run folders as views, controls that draw again, and the benchmark's synthetic features."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from companion import explore
from companion.explore.controls import INSTEAD
from compat_lib.config import ExperimentConfig
from compat_lib.evaluation import upgrade_changes
from compat_lib.experiment import Experiment
from compat_lib.models import embed

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def tiny(root, **changes):
    values = {
        "dataset_options": {"identities": 20, "images": 6, "eval_identities": 10, "eval_images": 5},
        "old_backbone": "convnet-half",
        "new_backbone": "convnet-half",
        "old_epochs": 1,
        "epochs": 1,
        "batch_size": 16,
        "old_width": 8,
        "new_width": 8,
        "bootstrap_draws": 0,
        "precision": "float32",
        "data_root": str(root / "data"),
        "runs_root": str(root / "runs"),
    }
    return ExperimentConfig(**(values | changes))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("explore")
    for changes in ({}, {"method": "mixbct"}, {"method": "mixbct", "budget": "passes"}):
        Experiment(tiny(root, **changes), say=lambda line: None).evaluate()
    return root


@pytest.fixture(scope="module")
def opened(root):
    ((_, runs),) = explore.find_runs(root / "runs").items()
    return explore.open_runs(runs, data_root=str(root / "data"))


def test_complete_runs_are_found_without_old_models(root, tmp_path):
    found = explore.find_runs(root / "runs")
    assert list(found) == [tiny(root).experiment_id]
    runs = next(iter(found.values()))
    assert [run.config["method"] for run in runs] == ["independent", "mixbct", "mixbct"]
    assert explore.find_runs(tmp_path / "nothing") == {}


def test_a_run_without_its_features_is_not_found(root, tmp_path):
    import shutil

    copy = shutil.copytree(root / "runs", tmp_path / "runs")
    experiment = next(copy.iterdir())
    next(experiment.glob("independent*/features.safetensors")).unlink()
    assert len(explore.find_runs(copy)[experiment.name]) == 2
    next(experiment.glob("old*/features.safetensors")).unlink()
    assert explore.find_runs(copy) == {}


def test_runs_are_opened_by_their_titles_and_never_trained(root, opened, monkeypatch):
    assert set(opened) == {"Independent", "MixBCT", "MixBCT, equal backbone passes"}
    upgrade = explore.upgrade_of(opened["MixBCT"], "MixBCT")
    experiment = Experiment(tiny(root, method="mixbct"), say=lambda line: None)
    old, new, test = experiment.old.test, experiment.new.test, experiment.data.test
    assert upgrade.new == pytest.approx(torch.nn.functional.normalize(new).numpy(), abs=1e-6)
    assert (upgrade.images == test.images.numpy()).all() and upgrade.names == list(test.classes)
    expected = upgrade_changes(old, new, test.labels, draws=0)
    assert upgrade.changes.negative_flips == expected.negative_flips


def test_seeds_are_named_where_there_are_several(root):
    runs = next(iter(explore.find_runs(root / "runs").values()))
    runs[0].config["seed"] = 1
    assert explore.run_titles([runs[0], runs[2]]) == ["Independent, seed 1", "MixBCT, seed 0"]
    runs[0].config["seed"] = 0


def test_a_run_of_another_version_is_left_out_with_a_sentence(root, tmp_path):
    import json
    import shutil

    copy = shutil.copytree(root / "runs", tmp_path / "runs")
    path = next(copy.glob("*/mixbct-s0*/options.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mix_ratio": 0.25}))
    runs, said = next(iter(explore.find_runs(copy).values())), []
    opened = explore.open_runs(runs, data_root=str(root / "data"), say=said.append)
    assert len(opened) == 2 and len(said) == 1 and "mix_ratio" in said[0]
    with pytest.raises(ValueError, match="none of the 1 runs can be read"):
        explore.open_runs([run for run in runs if run.folder == path.parent], say=said.append)


def three_experiments(root, tmp_path):
    """Copies of one experiment: "a" with an unreadable run alone, "b" with two methods, "c" with one."""
    import json
    import shutil

    source = root / "runs" / tiny(root).experiment_id
    for name, left_out in (("a", "independent*"), ("b", "nothing"), ("c", "independent*")):
        copy = shutil.copytree(source, tmp_path / name / source.name)
        for folder in copy.glob(left_out):
            shutil.rmtree(folder)
    found = {name: next(iter(explore.find_runs(tmp_path / name).values())) for name in "abc"}
    for run in found["a"]:
        path = run.folder / "options.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"mix_ratio": 0.25}))
    return {name: next(iter(explore.find_runs(tmp_path / name).values())) for name in "abc"}


def test_of_several_experiments_the_one_with_the_most_readable_methods_is_opened(root, tmp_path):
    found, said = three_experiments(root, tmp_path), []
    options = {"data_root": str(root / "data"), "say": said.append}
    chosen, opened = explore.open_best(found, **options)
    assert chosen == "b" and len(opened) == 3 and not said  # "a" comes first in the alphabet
    assert explore.open_best(found, "c", **options)[0] == "c"  # who names one has that one
    chosen, _ = explore.open_best({"a": found["a"] * 2, "c": found["c"]}, **options)
    assert chosen == "c" and said[-1].startswith("left out a: none of the 4 runs can be read")


def test_only_where_no_experiment_can_be_read_is_it_an_error(root, tmp_path):
    found = three_experiments(root, tmp_path)
    options = {"data_root": str(root / "data"), "say": lambda line: None}
    with pytest.raises(ValueError, match="none of the 4 runs in 2 experiments can be read"):
        explore.open_best({"a": found["a"], "z": found["a"]}, **options)
    with pytest.raises(ValueError, match="none of the 2 runs can be read"):
        explore.open_best(found, "a", **options)
    with pytest.raises(ValueError, match="no complete runs of nobody; there are a, b, c"):
        explore.open_best(found, "nobody", **options)
    with pytest.raises(ValueError, match="no complete runs of any experiment; there are none"):
        explore.open_best({}, **options)


def test_of_a_large_test_set_whole_identities_are_taken(opened):
    upgrade = explore.upgrade_of(opened["MixBCT"], most=20)
    assert np.bincount(upgrade.labels)[upgrade.identities].tolist() == [5] * 4
    assert upgrade.name(9) == "test-0009"
    full = explore.upgrade_of(opened["MixBCT"])
    assert (upgrade.new == full.new[np.isin(full.labels, upgrade.identities)]).all()


def test_a_training_sample_holds_the_features_of_whole_classes(opened):
    experiment = opened["MixBCT"]
    sample = explore.training_sample(experiment, most=24)
    rows = np.flatnonzero(np.isin(experiment.old_system.labels.numpy(), np.unique(sample.labels)))
    assert len(rows) == len(sample.labels) == 24
    assert sample.old == pytest.approx(
        torch.nn.functional.normalize(experiment.old_system.features[rows]).numpy()
    )
    new = embed(experiment.new.model, experiment.new_images.images[rows], precision="float32")
    assert sample.new == pytest.approx(torch.nn.functional.normalize(new).numpy(), abs=1e-5)
    weight = experiment.new.classifier.weight.detach()
    assert sample.weight == pytest.approx(torch.nn.functional.normalize(weight).numpy(), abs=1e-6)


def test_unequal_widths_have_no_angles_and_say_so(root):
    config = tiny(root, new_width=12)
    Experiment(config, say=lambda line: None).evaluate()
    runs = explore.find_runs(root / "runs")[config.experiment_id]
    opened = explore.open_runs(runs, data_root=str(root / "data"))
    said = []
    assert explore.training_samples(opened, list(opened), say=said.append) == {}
    assert "old features have width 8, new ones 12" in said[0]
    assert explore.upgrade_of(opened["Independent"]).cross is None


# -- controls ------------------------------------------------------------------------------------


def counted(calls):
    def draw(number, word, chosen=()):
        calls.append((number, word, chosen))
        if number == 3:
            raise ValueError("three is not possible")
        return explore.View(f"<p>{number} {word}</p>", f"{number} {word}.")

    return draw


@pytest.fixture
def calls():
    return []


@pytest.fixture
def explorer(calls):
    made = explore.Explorer(
        counted(calls),
        {
            "number": explore.Slider("a number", 0, 5, 1),
            "word": explore.Choice("a word", {"one": "eins", "two": "zwei"}, "zwei"),
            "chosen": explore.Several("some", {"a": 1, "b": 2}),
        },
    )
    made._box()
    return made


def test_a_moved_control_draws_again(explorer, calls):
    assert explorer.view.text == "1 zwei." and len(calls) == 1
    explorer.widgets["number"].value = 4
    assert explorer.view.text == "4 zwei."
    explorer.widgets["word"].value = "eins"
    explorer.widgets["chosen"].value = (2,)
    assert calls[-1] == (4, "eins", (2,)) and len(calls) == 4
    assert explorer.status.value.startswith("drawn in 0.")


def test_the_picture_in_the_output_is_replaced(explorer):
    class Handle:
        shown = []

        def update(self, view):
            self.shown.append(view.text)

    explorer.handle = Handle()
    explorer.widgets["number"].value = 2
    explorer.widgets["number"].value = 3
    assert Handle.shown == ["2 zwei.", "three is not possible"]  # a refusal takes the picture's place


def test_sliders_answer_when_they_are_let_go(explorer):
    slider = explorer.widgets["number"]
    assert slider.description == "a number" and not slider.continuous_update
    assert type(slider).__name__ == "IntSlider"
    assert type(explore.Slider("x", 0.0, 1.0, 0.5, 0.1).widget()).__name__ == "FloatSlider"


def test_what_is_displayed_without_and_with_widgets(explorer, monkeypatch):
    import IPython.display as shown

    seen = []
    monkeypatch.setattr(shown, "display", lambda *given, **options: seen.append((given[0], options)))
    explorer.display()
    (controls, raw), (picture, options) = seen
    assert controls["text/plain"] == INSTEAD and raw == {"raw": True}
    assert "application/vnd.jupyter.widget-view+json" in controls
    assert picture is explorer.view and options == {"display_id": True}
    seen.clear()
    monkeypatch.setitem(__import__("sys").modules, "ipywidgets", None)  # as if it were not installed
    explorer.display()
    assert [given for given, _ in seen] == [explorer.view]


def test_starts_outside_of_a_control_are_refused():
    with pytest.raises(ValueError, match="the slider 'x' starts at 9, outside of 0 to 5"):
        explore.Slider("x", 0, 5, 9)
    with pytest.raises(ValueError, match="the choice 'x' starts at 'c', which is none of 'a', 'b'"):
        explore.Choice("x", ["a", "b"], "c")
    with pytest.raises(ValueError, match="the choice 'x' has nothing to choose from"):
        explore.Choice("x", [])
    assert explore.Choice("x", {"all": None, "one": 1}).start is None


# -- the benchmark -------------------------------------------------------------------------------


def test_the_benchmark_moves_every_view():
    spec = importlib.util.spec_from_file_location("explore_views", BENCHMARKS / "explore_views.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    upgrade, sample = module.make_upgrade(120, 12), module.make_sample(60, 6)
    views = module.moves(upgrade, sample)
    assert set(views) == {"map, PCA", "neighbours", "angles", "constraints", "who got worse"}
    for draws in views.values():
        assert len({module.milliseconds(draw)[2].html for draw in draws}) > 1  # a move changes the picture
