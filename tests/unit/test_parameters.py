"""What papermill puts into a notebook, refused where it would mean nothing or something else."""

import pytest

from companion.parameters import checked_parameters

OWN = (
    'epochs = 12  # passes\nablation = True\nmetric = "map"\nimages = None\nsettings = {}\nmethods = ["bct"]'
)


def given(injected, own=OWN, **fixed):
    """What `checked_parameters` makes of two cells that ran."""
    names = {"In": ["", own, "# Parameters\n" + injected + "\n", "import json"]}
    exec(own + "\n" + injected, names)
    return checked_parameters(names, **fixed)


@pytest.mark.parametrize(
    ("injected", "words"),
    [
        ("epoch = 3", r"unknown parameter epoch; .* \(nearest: epochs\); other fields .* go into settings"),
        ("method = 'bct'", "unknown parameter method; the notebook has epochs, ablation"),
        ("ablation = 'no'", r"ablation must be True or False; got 'no' \(str\)"),
        ("ablation = None", "ablation must be True or False; got None"),
        ("metric = 3", "metric must be text; got 3"),
        ("images = 3", "images must be text; got 3"),
        ("methods = 'bct'", "methods must be a list; got 'bct'"),
        ("settings = '{}'", "settings must be a dictionary; got '{}'"),
        ("settings = {'method': 'bct'}", "this notebook is about method mixbct; leave it out of settings"),
    ],
)
def test_what_would_mean_something_else_is_refused(injected, words):
    with pytest.raises(ValueError, match=words):
        given(injected, method="mixbct")


def test_fields_of_a_run_are_taken_with_those_in_settings():
    changed = given("epochs = float('nan')\nmetric = None\nsettings = {'lr': 1.0}", method="mixbct")
    assert str(changed.pop("epochs")) == "nan"  # the configuration refuses it
    assert changed == {"lr": 1.0, "method": "mixbct"}
    assert checked_parameters({"epochs": 3, "json": None}) == {"epochs": 3}  # outside of a notebook
