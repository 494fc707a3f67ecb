"""The estimate: its arithmetic by hand, a preset with its own data, and published ones without any."""

import contextlib
import io
import sys

import estimate
import pytest
import torch
from torch import nn

from compat_lib.config import ExperimentConfig
from compat_lib.presets import Preset

SMALL = ExperimentConfig(
    **{"old_backbone": "convnet-half", "new_backbone": "convnet-half", "image_size": 16, "batch_size": 8},
    **{"old_width": 8, "new_width": 8, "old_epochs": 2, "epochs": 3},
)


FEW = {"identities": 20, "images": 4, "eval_identities": 5, "eval_images": 3}


def told(preset):
    with contextlib.redirect_stdout(io.StringIO()) as said:
        estimate.estimate(preset, "cpu")
    return said.getvalue()


def test_counts_and_steps_by_hand():
    text = told(Preset("x", [SMALL], processes=2, published={"old": [None, 10], "new": [100, 20]}))
    assert "old  convnet-half, 8 coordinates: 50 images of 10 classes; 2 epochs of 6 steps, 12 in all" in text
    assert "8 coordinates: 100 images of 20 classes; 3 epochs of 12 steps, 36 in all" in text
    assert "(measured)" in text and "1 new models" in text and text.count("not published: a share") == 1


def test_a_preset_without_counts_reads_its_data(tmp_path):
    config = SMALL.changed(dataset_options=FEW, data_root=str(tmp_path))
    text = told(Preset("x", [config, config.changed(method="l2")]))
    assert "24 images of 6 classes" in text and "56 images of 14 classes" in text
    assert "2 new models, each by the oracle's step, and 1 old ones" in text
    text = told(Preset("x", [config, config.changed(seed=1), config.changed(seed=1, method="l2")]))
    assert "3 new models, each by the oracle's step, and 2 old ones" in text  # an old model a seed


@pytest.mark.parametrize("given", [{"old_features": "old.parquet"}, {"old_run": "an-experiment/a-run"}])
def test_an_old_model_that_is_there_costs_nothing(tmp_path, given):
    text = told(Preset("x", [SMALL.changed(dataset_options=FEW, data_root=str(tmp_path), **given)]))
    images = 80 if "old_features" in given else 56  # all of train/, or those of the scenario
    assert "  old  " not in text and f"{images} images of {images // 4} classes" in text
    assert "1 new models, each by the oracle's step, and 0 old ones" in text


def test_memory_of_activations_is_that_of_a_known_network():
    """A linear layer keeps its input, a rectifier its output."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 10), nn.ReLU())
    pixels = torch.zeros(5, 3, 4, 4, dtype=torch.uint8)
    config = SMALL.changed(precision="float32")
    assert estimate.activations(network, pixels, config) == 5 * (48 + 10) * 4


def test_a_batch_in_parts_takes_the_memory_of_one_and_a_third_more_time(monkeypatch):
    monkeypatch.setattr(estimate, "measured", lambda *asked: (10, 10, 10**8, 3.0, 8))
    preset = Preset("x", [SMALL, SMALL.changed(accumulate=2)], published={"old": [9, 3], "new": [9, 3]})
    whole, parts = told(preset).split("\n\n")
    assert "0.80 GB for a batch's activations\n" in whole and "a step of 3 s" in whole
    assert "0.40 GB for a batch's activations, a part of 2 at a time\n" in parts and "a step of 4 s" in parts


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what it says without a GPU")
def test_without_data_and_device(tmp_path, monkeypatch, capsys):
    fields = "image_size: 16, batch_size: 4, old_backbone: convnet-half, new_backbone: convnet-half"
    counts = "published: {old: [40, 5], new: [80, 10]}\nprocesses: 2\n"
    text = f"{counts}defaults: {{dataset: ms1mv3, device: cuda, {fields}}}\n"
    (tmp_path / "x.yml").write_text(text)
    for name, code in (("x", 0), ("none", 1)):
        monkeypatch.setattr(sys, "argv", ["estimate.py", "--preset", str(tmp_path / f"{name}.yml")])
        assert estimate.main() == code
    said = capsys.readouterr()
    assert "1 runs, 2 processes train one model" in said.out and "The device cuda is not here" in said.out
    assert "80 images of 10 classes" in said.out and "whether the data are here was not looked at" in said.out
    assert "there is no preset" in said.err and "x.yml" in said.err
