"""Run folders as the arrays that the views take."""

import json
import shutil

import numpy as np
import pytest
import torch
from tiny_runs import tiny

from companion import explore
from compat_lib.evaluation import upgrade_changes
from compat_lib.experiment import Experiment


def small(root, **changes):
    one = {"new_backbone": "convnet-half", "old_epochs": 1, "epochs": 1, "precision": "float32"}
    return tiny(root, **(one | {"bootstrap_draws": 0} | changes))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("explore")
    for changes in ({}, {"method": "mixbct"}, {"new_width": 12}):
        Experiment(small(root, **changes), say=lambda line: None).evaluate()
    return root


def opened(root, runs_root=None, experiment_id=None):
    place = runs_root or root / "runs"
    return explore.open_best(place, experiment_id, data_root=str(root / "data"))


def test_the_experiment_with_the_most_methods_is_read_and_never_trained(root, monkeypatch):
    monkeypatch.setattr("compat_lib.experiment.train", None)
    chosen, experiments = opened(root)
    assert chosen == small(root).experiment_id and set(experiments) == {"Independent", "MixBCT"}
    counts = {name: len(runs) for name, runs in explore.find_runs(root / "runs").items()}
    assert counts == {chosen: 2, small(root, new_width=12).experiment_id: 1}
    upgrade = explore.upgrade_of(experiments["MixBCT"], "MixBCT")
    experiment = experiments["MixBCT"]
    old, new, test = experiment.old.test, experiment.new.test, experiment.data.test
    assert upgrade.new == pytest.approx(torch.nn.functional.normalize(new).numpy(), abs=1e-6)
    assert (upgrade.images == test.images.numpy()).all() and upgrade.names == list(test.classes)
    expected = upgrade_changes(old, new, test.labels, draws=0)
    assert upgrade.changes.negative_flips == expected.negative_flips


def test_what_cannot_be_read_is_left_out_with_a_sentence(root, tmp_path, capsys):
    copy = shutil.copytree(root / "runs", tmp_path / "runs")
    path = next(copy.glob("*/mixbct*/config.json"))
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"epochs": 7}))  # its folder's name was made of other values
    chosen, experiments = opened(root, copy, small(root).experiment_id)
    said = capsys.readouterr().out
    assert list(experiments) == ["Independent"] and said.count("\n") == 1 and "another name" in said
    next(copy.glob(f"{chosen}/independent*/features.safetensors")).unlink()
    assert len(explore.find_runs(copy)[chosen]) == 1
    with pytest.raises(ValueError, match=f"no complete runs of {chosen} that can be read; there are"):
        opened(root, copy, chosen)
    with pytest.raises(ValueError, match="no complete runs of any experiment .*; there are none"):
        opened(root, tmp_path / "nothing")


def test_of_a_large_test_set_whole_identities_are_taken(root):
    experiment = opened(root)[1]["MixBCT"]
    upgrade = explore.upgrade_of(experiment, most=20)
    assert np.bincount(upgrade.labels)[upgrade.identities].tolist() == [5] * 4
    assert upgrade.name(9) == "test-0009"
    full = explore.upgrade_of(experiment)
    assert (upgrade.new == full.new[np.isin(full.labels, upgrade.identities)]).all()


def test_a_training_sample_holds_the_features_of_whole_classes(root):
    experiments = opened(root)[1]
    sample = explore.training_samples(experiments, ["MixBCT"], most=24)["MixBCT"]
    experiment = experiments["MixBCT"]
    system = experiment.old_system
    rows = np.flatnonzero(np.isin(system.labels.numpy(), np.unique(sample.labels)))
    assert len(rows) == len(sample.labels) == 24
    assert sample.old == pytest.approx(torch.nn.functional.normalize(system.features[rows]).numpy())
    new = experiment.training_features()[rows]
    assert sample.new == pytest.approx(torch.nn.functional.normalize(new).numpy(), abs=1e-5)
    weight = experiment.new.classifier.weight.detach()
    assert sample.weight == pytest.approx(torch.nn.functional.normalize(weight).numpy(), abs=1e-6)


def test_unequal_widths_have_no_angles_and_say_so(root, capsys):
    experiments = opened(root, experiment_id=small(root, new_width=12).experiment_id)[1]
    assert explore.training_samples(experiments, experiments) == {}
    assert "unequal widths [8, 12, 12]" in capsys.readouterr().out
    assert explore.upgrade_of(experiments["Independent"]).cross is None
