"""Run folders are written so that a reader never sees half of one."""

import json
import math

import numpy as np
import pytest
import torch

from compat_lib import runs


def test_json_keeps_numbers_and_turns_the_rest_into_null(tmp_path):
    path = tmp_path / "deep" / "metrics.json"
    runs.write_json(
        path, {"a": np.float32(0.5), "b": math.nan, "c": torch.tensor(2), "d": [1, math.inf], "e": True}
    )
    assert runs.read_json(path) == {"a": 0.5, "b": None, "c": 2, "d": [1, None], "e": True}
    assert [p.name for p in path.parent.iterdir()] == ["metrics.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "metrics.json"
    runs.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        runs.write_json(path, {"a": object()})
    assert runs.read_json(path) == {"a": 1}


def test_damaged_json_names_the_file(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text('{"a": ')
    with pytest.raises(ValueError, match=r"metrics\.json is not valid JSON"):
        runs.read_json(path)


def test_only_folders_with_metrics_are_runs(tmp_path):
    for name in ("complete", "killed"):
        folder = tmp_path / "experiment" / name
        runs.write_json(folder / "config.json", {"method": name})
    runs.write_json(tmp_path / "experiment" / "complete" / "metrics.json", {"x": 1})
    found = runs.list_runs(tmp_path)
    assert [run.config["method"] for run in found] == ["complete"]
    assert runs.is_complete(found[0].folder) and not runs.is_complete(tmp_path / "experiment" / "killed")
    assert found[0].draws == {} and found[0].environment == {}
    assert runs.list_runs(tmp_path / "absent") == []


def test_history_round_trip_with_columns_of_some_epochs(tmp_path):
    rows = [{"epoch": 1, "loss/a": 0.1 + 0.2}, {"epoch": 2, "loss/a": 1e-9, "val/x": 0.5, "val/y": None}]
    runs.write_history(tmp_path / "history.csv", rows)
    back = runs.read_history(tmp_path / "history.csv")
    assert back == [{"epoch": 1.0, "loss/a": 0.1 + 0.2}, {"epoch": 2.0, "loss/a": 1e-9, "val/x": 0.5}]


def test_environment_says_what_a_number_needs():
    found = runs.environment()
    assert found["torch"] == torch.__version__ and found["threads"] == torch.get_num_threads()
    assert found["processor"] and json.dumps(found)
