"""One old model serves all new sides: taken over, not trained again; never where the old side differs."""

import json

import pytest
from tiny_runs import silent, tiny

from compat_lib.experiment import Experiment
from compat_lib.runs import Run

pytestmark = pytest.mark.precision


def configured(root, **changes):
    one = {"new_backbone": "convnet-half", "old_epochs": 1, "epochs": 1}
    return tiny(root, **(one | changes))


def old_of(config):
    """The old model's run, and what was said while it was provided."""
    said = []
    experiment = Experiment(config, say=said.append)
    return experiment.train_old(), experiment.old_run, " ".join(said)


def test_an_old_model_is_trained_once_for_all_new_sides(tmp_path):
    first = configured(tmp_path)
    old, run, said = old_of(first)
    assert "old model: 6 classes" in said
    other = {"new_width": 16, "new_backbone": "resnet-small", "epochs": 2, "lr": 0.05, "new_loss": "softmax"}
    wider = first.changed(**other, old_outliers=0.25)
    assert wider.old_folder != first.old_folder and wider.old_side == first.old_side
    wider.old_folder.mkdir(parents=True)
    (wider.old_folder / "checkpoint.pt").write_bytes(b"of a training that was killed")
    again, taken, said = old_of(wider)
    assert f"that of {first.old_folder}" in said and "epoch" not in said
    assert not (wider.old_folder / "checkpoint.pt").exists()
    assert again.test.equal(old.test) and again.history == old.history
    assert taken.metrics.plain() == run.metrics.plain()
    assert taken.config["new_width"] == 16 and taken.config["experiment_id"] == wider.experiment_id
    own = {"experiment_id", "run_id", "old_run_id", "old_outliers", *other}
    assert {k for k, v in taken.config.items() if v != run.config[k]} == own
    assert Run(wider.old_folder).config["made_of"] == run.config["made_of"]
    # The upgrade on top of it goes its way, with other old features of the training images and of no others.
    upgrade = silent(wider)
    assert 0 <= upgrade.evaluate().metrics.value("new", "new", "map") <= 1
    clean = silent(first)
    clean.train_old()
    wrong = (upgrade.old_system.features != clean.old_system.features).any(dim=1)
    assert int(wrong.sum()) == round(0.25 * len(upgrade.new_images)) and upgrade.old.test.equal(old.test)


@pytest.mark.parametrize("changes", [{"old_epochs": 2}, {"seed": 1}, {"batch_size": 17}, {"scale": 16.0}])
def test_whatever_determines_the_old_side_keeps_it_apart(tmp_path, changes):
    first = configured(tmp_path)
    assert first.changed(**changes).old_side != first.old_side


def test_an_old_model_of_other_images_or_another_version_is_not_taken(tmp_path):
    first = configured(tmp_path)
    old_of(first)
    path = first.old_folder / "config.json"
    stored = json.loads(path.read_text())
    for changed in ({"made_of": stored["made_of"] | {"test images": "others"}}, {"old_loss": "unheard-of"}):
        path.write_text(json.dumps(stored | changed))
        second = first.changed(new_width=9 + len(changed["made_of"]) if "made_of" in changed else 11)
        assert "old model: 6 classes" in old_of(second)[2]
        (second.old_folder / "metrics.json").unlink()
