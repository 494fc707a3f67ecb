"""The pipeline: complete run folders, nothing repeated, killed runs go on, unequal widths handled."""

import json
import multiprocessing
import os

import pytest
import torch

from compat_lib import experiment as module
from compat_lib.config import ExperimentConfig
from compat_lib.experiment import Experiment
from compat_lib.models import embed
from compat_lib.runs import list_runs

pytestmark = pytest.mark.precision


def tiny(root, **changes):
    values = {
        "dataset_options": {"identities": 20, "images": 6, "eval_identities": 10, "eval_images": 5},
        "old_backbone": "convnet-half",
        "new_backbone": "convnet",
        "old_epochs": 2,
        "epochs": 2,
        "batch_size": 16,
        "old_width": 8,
        "new_width": 8,
        "bootstrap_draws": 10,
        "data_root": str(root / "data"),
        "runs_root": str(root / "runs"),
    }
    return ExperimentConfig(**(values | changes))


def silent(config):
    return Experiment(config, say=lambda line: None)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("experiment")


@pytest.fixture(scope="module")
def oracle(root):
    return silent(tiny(root)).evaluate()


def test_a_run_folder_holds_everything_that_a_number_needs(root, oracle):
    assert {path.name for path in oracle.folder.iterdir()} == {
        ".lock",
        "config.json",
        "metrics.json",
        "draws.json",
        "history.csv",
        "options.json",
        "environment.json",
        "features.safetensors",
        "training_features.safetensors",
        "model.safetensors",
    }
    assert oracle.config["method"] == "independent" and oracle.config["facts"]["classes"]["train"] == 14
    assert str(root) not in json.dumps([oracle.config, oracle.environment])
    metrics = oracle.metrics
    assert metrics["train/epochs"] == 2 and metrics["train/steps"] == 2 * (84 // 16)
    assert metrics["train/backbone_images"] == 2 * (84 // 16) * 16
    assert metrics["new_old/map"] is not None and isinstance(metrics["criterion"], bool)
    assert metrics["mixed/share=0.00/map"] == pytest.approx(metrics["new_old/map"])
    assert metrics["mixed/share=1.00/map"] == pytest.approx(metrics["new_new/map"])
    assert len(oracle.draws["new_new/map"]) == 10
    for name in ("procrustes", "ridge", "procrustes-query", "ridge-query"):
        assert metrics[f"adapter/{name}/new_old/map"] is not None
    assert [run.folder for run in list_runs(root / "runs") if run.config["method"] == "old"]


def test_old_old_of_the_old_run_and_of_the_new_run_agree(root, oracle):
    old = silent(tiny(root)).old_run
    for name, value in old.metrics.items():
        if name.startswith("old_old/"):
            assert value == oracle.metrics[name], name


def test_finished_work_is_read_not_repeated(root, oracle, monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("trained again")

    monkeypatch.setattr(module, "train", never)
    monkeypatch.setattr(module, "compare", never)
    again = silent(tiny(root))
    assert again.evaluate().metrics == oracle.metrics
    assert len(again.old.history) == 2 and again.old_system.has == {
        "features",
        "prototypes",
        "classifier",
        "model",
    }


def test_the_model_that_is_read_is_the_model_that_was_measured(root, oracle):
    experiment = silent(tiny(root))
    for side in (experiment.old, experiment.new):
        again = embed(side.model, experiment.data.test.images, precision=experiment.config.precision)
        assert torch.allclose(again, side.test, atol=1e-5)
        assert not side.model.training and all(not p.requires_grad for p in side.model.parameters())


def test_a_killed_training_goes_on_and_gives_the_same_numbers(tmp_path, root, oracle, monkeypatch):
    class Stop(Exception):
        pass

    def kill(line):
        if line.startswith("epoch 1/2"):
            raise Stop

    config = tiny(root, runs_root=str(tmp_path / "runs"))
    with pytest.raises(Stop):  # dies while the old model trains
        Experiment(config, say=kill).evaluate()
    assert (config.old_folder / "checkpoint.pt").is_file()
    _ = silent(config).old
    with pytest.raises(Stop):  # dies while the new model trains
        Experiment(config, say=kill).evaluate()
    assert (config.run_folder / "checkpoint.pt").is_file() and not (
        config.run_folder / "metrics.json"
    ).exists()
    result = silent(config).evaluate()
    assert not (config.run_folder / "checkpoint.pt").exists()
    same = {name: value for name, value in oracle.metrics.items() if "seconds" not in name}
    assert {name: value for name, value in result.metrics.items() if "seconds" not in name} == same


def test_a_run_made_with_other_defaults_is_not_taken_for_this_one(root, monkeypatch):
    config = tiny(root, method="bct")
    silent(config).evaluate()
    original = module.method_options
    monkeypatch.setattr(module, "method_options", lambda name: original(name) | {"scale": 7.0})
    with pytest.raises(ValueError, match="'scale': 16.0.*'scale': 7.0.*Delete the folder"):
        silent(config).evaluate()


def test_an_option_that_came_later_does_not_make_a_run_unreadable(root, monkeypatch):
    config = tiny(root, method="bct")
    run = silent(config).evaluate()
    original = module.method_options
    monkeypatch.setattr(module, "method_options", lambda name: original(name) | {"later": 0.0})
    assert silent(config).evaluate().metrics == run.metrics
    monkeypatch.setattr(Experiment, "_options", lambda self: original("bct") | {"later": 1.0})
    with pytest.raises(ValueError, match="'later': 0.0.*'later': 1.0"):
        silent(config).evaluate()


def test_old_features_of_other_images_are_refused(root, oracle):
    experiment = silent(tiny(root, method="l2"))
    images = experiment.new_images
    experiment.new_images = images.with_labels(range(len(images)), images.labels.flip(0), images.classes)
    with pytest.raises(ValueError, match="another training set"):
        _ = experiment.old_system


def test_unequal_widths_leave_the_cross_test_unmeasured(root):
    run = silent(tiny(root, new_width=12)).evaluate()
    assert run.metrics["new_old/map"] is None and run.metrics["criterion"] is None
    assert run.metrics["new_new/map"] is not None
    assert run.metrics["adapter/ridge/new_old/map"] is not None
    with pytest.raises(ValueError, match="one width"):
        silent(tiny(root, new_width=12, method="l2")).evaluate()


def test_a_budget_of_passes_gives_mixbct_more_epochs(root):
    steps = silent(tiny(root, method="mixbct", epochs=4)).evaluate()
    passes = silent(tiny(root, method="mixbct", epochs=4, budget="passes")).evaluate()
    assert (steps.metrics["train/epochs"], passes.metrics["train/epochs"]) == (4, 6)  # 4 / 0.7
    full = silent(tiny(root, epochs=4)).evaluate().metrics["train/backbone_images"]
    assert steps.metrics["train/backbone_images"] < 0.8 * full
    assert passes.metrics["train/backbone_images"] == pytest.approx(full, rel=0.15)


def test_an_unknown_method_is_refused_before_anything_new_is_trained(root):
    with pytest.raises(ValueError, match="There is no method 'mixbtc'"):
        silent(tiny(root, method="mixbtc")).evaluate()


def test_where_a_run_was_read_is_said_without_naming_the_machine(tmp_path, monkeypatch):
    for name in ("compat_lib", "notebooks"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    config, lines = ExperimentConfig(), []
    config.run_folder.mkdir(parents=True)
    (config.run_folder / "metrics.json").write_text("{}")
    Experiment(config, say=lines.append).evaluate()
    assert lines == [f"{config.run_id}: read from runs/{config.experiment_id}/{config.run_id}"]


def _evaluate(config, queue):
    torch.set_num_threads(1)
    lines = []
    run = Experiment(config, say=lines.append).evaluate()
    queue.put((os.getpid(), sum(line.startswith("epoch") for line in lines), run.metrics["new_new/map"]))


def test_two_processes_do_not_train_the_same_model_twice(tmp_path, root):
    config = tiny(root, runs_root=str(tmp_path / "runs"), method="mixbct")
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=_evaluate, args=(config, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    results = [queue.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    assert sum(epochs for _, epochs, _ in results) == 4  # two of the old model, two of the new
    assert results[0][2] == results[1][2]


def test_a_third_generation_takes_the_second_for_its_old_model(root, oracle):
    second = tiny(root, method="bct", seed=3)
    third = second.next_generation(new_backbone="convnet-half")
    with pytest.raises(ValueError, match="there is no finished run in .*: run it first"):
        silent(third).evaluate()
    middle = silent(second)
    middle.evaluate()
    experiment = silent(third)
    run = experiment.evaluate()
    assert torch.equal(experiment.old.test, middle.new.test)
    assert torch.equal(experiment.old_system.features, middle.training_features)
    assert torch.equal(experiment.old_system.classifier_weight, middle.new.classifier.weight)
    assert torch.equal(experiment.old_system.class_map, torch.arange(14))
    assert run.metrics["old_old/map"] == middle.evaluate().metrics["new_new/map"]
    assert experiment.old_run.config["method"] == "old"
    assert silent(third).evaluate().metrics == run.metrics
    other_width = second.next_generation(old_width=7)
    with pytest.raises(ValueError, match=r"has \(backbone, loss, width\) .*8\), but the old side .*7\)"):
        silent(other_width).evaluate()
    other_images = second.next_generation(scenario="extended-class")
    with pytest.raises(ValueError, match="was trained on other images"):
        silent(other_images).evaluate()


def test_no_generation_follows_a_model_that_stores_more_than_it_classifies(root, oracle):
    wider = tiny(root, method="bt2")
    silent(wider).evaluate()
    with pytest.raises(ValueError, match="go on from another method than bt2"):
        silent(wider.next_generation()).evaluate()


@pytest.mark.parametrize(("method", "options"), [("bct", {}), ("mixbct", {"pad": "zero"})])
def test_unequal_widths_are_compared_as_the_method_compares_them(root, method, options):
    experiment = silent(tiny(root, new_width=12, method=method, method_options=options))
    run = experiment.evaluate()
    new, old = experiment.new.test, experiment.old.test
    assert new.shape[1] == 12 and old.shape[1] == 8
    cut = method == "bct"
    assert torch.equal(experiment.new.query, new[:, :8] if cut else new)
    assert experiment.new.gallery.shape[1] == (8 if cut else 12)
    assert run.metrics["new_old/map"] is not None and run.metrics["criterion"] is not None
    assert experiment.new.history[-1]["val/new_old/tar@far=1e-2"] is not None


def test_bt2_stores_what_its_head_gives_and_compares_the_first_coordinates(root, oracle):
    config = tiny(root, method="bt2", method_options={"extra": 4})
    run = silent(config).evaluate()
    again = silent(config)
    new = again.new
    assert new.test.shape[1] == 8 + 4
    assert torch.equal(new.query, new.test[:, :8]) and torch.equal(new.gallery, again.old.test)
    embedded = embed(new.model, again.data.test.images, precision=config.precision)
    assert torch.allclose(embedded, new.test, atol=1e-5)
    assert run.metrics["new_old/map"] is not None and run.metrics["constraint1/share"] is not None
    assert again.oracle.config.run_id == oracle.config["run_id"]


def test_fct_is_independent_training_and_a_transformed_gallery(root, oracle):
    config = tiny(root, method="fct", method_options={"fit_epochs": 2})
    run = silent(config).evaluate()
    again = silent(config)
    assert torch.equal(again.new.test, again.oracle.new.test)  # to the bit
    assert torch.equal(again.new.query, again.new.test)
    assert not torch.equal(again.new.gallery, again.old.test)
    with torch.inference_mode():
        transformed = again.new.method.comparable(again.new.test, again.old.test)[1]
    assert torch.allclose(transformed, again.new.gallery, atol=1e-5)
    assert run.metrics["new_new/map"] == oracle.metrics["new_new/map"]
    assert "val/new_old/tar@far=1e-2" not in again.new.history[-1]


def test_every_measure_of_an_upgrade_is_in_the_metrics(root, oracle):
    metrics = silent(tiny(root, method="bct")).evaluate().metrics
    names = ("constraint4/slack", "changes/negative_flips", "changes/losing/low")
    names += tuple(f"mixed/order={order}/area/map" for order in ("random", "uncertain", "farthest"))
    names += ("mixed/order=farthest/area_over_random/map/high", "mixed/share=0.25/map")
    assert all(metrics[name] is not None for name in names)
    assert metrics["mixed/share=0.00/map"] == pytest.approx(metrics["new_old/map"])
