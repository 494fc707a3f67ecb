"""Run folders: complete or not there, refused when damaged or of other images; a trained model's files."""

import json
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from compat_lib import runs
from compat_lib.evaluation.records import Record, Records
from compat_lib.losses import build_method, find_method
from compat_lib.losses.heads import Classifier
from compat_lib.models import build_model
from compat_lib.old_system import OldSystem
from compat_lib.trained_model import compared, deployed, is_trained, keep_model, read_model

HISTORY = [{"epoch": 1, "seconds": 0.5, "loss/classification": 2.25}]
MADE_OF = {"test images": "1", "method options": "{}"}


def test_metrics_and_draws_survive_the_disk(tmp_path):
    drawn = Record("new", "old", "map", 0.1 + 0.2, 0.1, 0.5, draws=np.array([0.123456789, np.nan]))
    records = Records([Record("old", "old", "map", None), drawn, Record(None, None, "train/epochs", 2)])
    runs.write_metrics(tmp_path, records)
    run = runs.Run(tmp_path)
    assert run.metrics.value("new", "old", "map") == 0.1 + 0.2
    assert run.metrics.value("old", "old", "map") is None
    kept = run.draws("new", "old", "map")
    assert kept[0] == 0.12346 and np.isnan(kept[1])
    assert run.draws("old", "old", "map") is None and run.draws("new", "old", "map", "ridge") is None


@pytest.mark.parametrize("text", ["", "{", "{}", '[{"colour": 1}]', "[1]", '{"new_old/map": 0.5}'])
def test_metrics_that_are_no_records_name_the_file(tmp_path, text):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(ValueError, match=r"metrics\.json.*delete the run's folder"):
        _ = runs.Run(tmp_path).metrics


def test_a_run_is_asked_part_by_part(tmp_path):
    drawn = Record("new", "old", "map", 0.6, draws=np.array([0.5, 0.7]))
    other = Records([drawn, Record("new", "old", "map", 0.4, adapter="ridge")]).changed(part="shifted")
    plain = [Record("new", "old", "map", 0.9), Record(None, None, "train/epochs", 2)]
    runs.write_metrics(tmp_path, other + plain)
    run = runs.Run(tmp_path)
    assert list(run.metrics) == plain and run.parts == ("shifted",)
    assert run.draws("new", "old", "map") is None
    shifted = run.on("shifted")
    assert shifted.metrics.value("new", "old", "map") == 0.6 and shifted.draws("new", "old", "map")[1] == 0.7
    assert shifted.metrics.value("new", "old", "map", adapter="ridge") == 0.4
    assert shifted.metrics.value(None, None, "train/epochs") == 2 and len(shifted.metrics) == 3


def test_only_folders_with_metrics_are_runs(tmp_path):
    for name in ("complete", "killed"):
        folder = tmp_path / "experiment" / name
        runs.write_json(folder / "config.json", {"method": name})
    runs.write_json(tmp_path / "experiment" / "complete" / "metrics.json", [])
    found = runs.list_runs(tmp_path)
    assert [run.config["method"] for run in found] == ["complete"]
    assert runs.is_complete(found[0].folder) and not runs.is_complete(tmp_path / "experiment" / "killed")
    assert found[0].draws("new", "old", "map") is None and found[0].environment == {}
    assert runs.list_runs(tmp_path / "absent") == []


def test_history_round_trip_with_columns_of_some_epochs(tmp_path):
    rows = [{"epoch": 1, "loss/a": 0.1 + 0.2}, {"epoch": 2, "loss/a": 1e-9, "val/x": 0.5, "val/y": None}]
    runs.write_history(tmp_path / "history.csv", rows)
    back = runs.read_history(tmp_path / "history.csv")
    assert back == [{"epoch": 1.0, "loss/a": 0.1 + 0.2}, {"epoch": 2.0, "loss/a": 1e-9, "val/x": 0.5}]
    with pytest.raises(ValueError, match=r"absent\.csv cannot be read"):
        runs.read_history(tmp_path / "absent.csv")


def test_environment_says_what_a_number_needs():
    found = runs.environment()
    assert found["torch"] == torch.__version__ and found["threads"] == torch.get_num_threads()
    assert found["processor"] and json.dumps(found)


def parts(method="independent", seed=0, backbone="convnet-half", **options):
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(7)
    old = OldSystem.from_arrays(torch.randn(12, 8, generator=generator), torch.arange(12) % 3)
    old = old.with_oracle(torch.randn(12, 8, generator=generator))
    model = build_model(backbone, width=find_method(method).model_width(8, 8), channels=3, size=32)
    return model, build_method(method, old, Classifier("arcface", 8, 3), **options)


def features(count=5):
    return {"test": torch.randn(count, 8), "val": torch.randn(3, 8)}


@pytest.mark.parametrize("method", ["independent", "advbct", "bt2"])
def test_what_is_read_is_what_was_kept_and_frozen(tmp_path, method):
    model, loss = parts(method, seed=1)
    shown = features()
    both = {"query": shown["test"], "gallery": -shown["test"]}
    keep_model(tmp_path, model, loss, HISTORY, shown | both, MADE_OF)
    side = read_model(tmp_path, *parts(method, seed=2), "cpu", MADE_OF)
    for name, value in deployed(model, loss).state_dict().items():
        assert torch.equal(side.model.state_dict()[name], value), name
    for name, value in loss.state_dict().items():
        assert torch.equal(side.method.state_dict()[name], value), name
    assert torch.equal(side.test, shown["test"]) and torch.equal(side.val, shown["val"])
    assert torch.equal(side.query, side.test) and torch.equal(side.gallery, -side.test)
    assert side.history == HISTORY and side.classifier is side.method.classifier
    assert not side.model.training and not side.method.training
    assert not any(p.requires_grad for module in (side.model, side.method) for p in module.parameters())


def test_features_of_other_test_parts_are_kept_beside(tmp_path):
    own, other = features(), features()
    others = {f"shifted/{name}": other["test"] for name in ("test", "query", "gallery")}
    keep_model(tmp_path, *parts(), HISTORY, own | others, MADE_OF)
    side = read_model(tmp_path, *parts(), "cpu", MADE_OF)
    assert torch.equal(side.test, own["test"]) and side.cross is None and side.on(None) is side
    shifted = side.on("shifted")
    assert torch.equal(shifted.test, other["test"]) and torch.equal(shifted.cross[1], other["test"])


def test_training_is_over_when_the_last_file_is_there(tmp_path, monkeypatch):
    assert not is_trained(tmp_path)
    killed = Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr("compat_lib.trained_model.write_history", killed)
    with pytest.raises(KeyboardInterrupt):
        keep_model(tmp_path, *parts(), HISTORY, features(), MADE_OF)
    assert not is_trained(tmp_path)
    monkeypatch.undo()
    keep_model(tmp_path, *parts(), HISTORY, features(), MADE_OF)
    assert is_trained(tmp_path)


def test_another_network_is_refused_with_the_folder_and_a_way_out(tmp_path):
    keep_model(tmp_path, *parts(), HISTORY, features(), MADE_OF)
    with pytest.raises(ValueError, match=r"(?s)another version of the package .*delete the folder"):
        read_model(tmp_path, *parts(backbone="convnet"), "cpu", MADE_OF)


def test_the_cross_test_leaves_the_method_in_its_mode():
    _, loss = parts("l2")
    new, old = torch.randn(4, 8), torch.randn(6, 8)
    for training in (True, False):
        loss.train(training)
        query, gallery = compared(loss, new, old)
        assert loss.training is training
        assert torch.equal(query, new) and torch.equal(gallery, old)
    assert compared(loss, torch.randn(4, 9), old) is None
