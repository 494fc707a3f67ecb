"""The tables and sentences of a method's own notebook, against numbers worked out by hand."""

import json

import pytest

from companion.tables import (
    ablation_table,
    adapter_table,
    flatness,
    recorded_values,
    run_table,
    title_of,
    verdict,
)
from compat_lib.runs import Run

DRAWS = 40


def make_run(folder, method, metrics, draws=None, **config):
    folder.mkdir()
    training = {"train/epochs": 3, "train/backbone_images": 1200}
    (folder / "config.json").write_text(json.dumps({"method": method, "budget": "steps"} | config))
    (folder / "metrics.json").write_text(json.dumps(metrics | training))
    (folder / "draws.json").write_text(json.dumps(draws or {}))
    return Run(folder)


@pytest.fixture
def runs(tmp_path):
    values = {"old_old/map": 0.4, "new_old/map": 0.5, "new_new/map": 0.7, "new_new/map/low": 0.6}
    values |= {"new_new/map/high": 0.8, "new_new/tar@far=1e-4": None}
    draws = {"old_old/map": [0.4] * DRAWS, "new_old/map": [0.5] * DRAWS}
    draws["new_new/map"] = [0.7 + 0.01 * (-1) ** i for i in range(DRAWS)]
    run = make_run(tmp_path / "run", "dual_tuning", values, draws)
    values = {"old_old/map": 0.4, "new_old/map": 0.02, "new_new/map": 0.7, "adapter/ridge/new_old/map": 0.3}
    oracle = make_run(tmp_path / "oracle", "independent", values, {"new_new/map": [0.7] * DRAWS})
    return run, oracle


def test_table_shows_intervals_and_what_is_not_measurable(runs):
    table = run_table(*runs, metrics=("map", "tar@far=1e-4")).set_index("query/gallery")
    assert list(table.index) == ["old/old", "new/old", "new/new", "oracle new/old", "oracle new/new"]
    assert table.loc["new/new", "mAP"] == "0.700 [0.600, 0.800]"
    assert table.loc["old/old", "mAP"] == "0.400"
    assert table.loc["new/new", "TAR at FAR 1e-4"] == "n/a"


def test_the_oracle_beside_itself_is_shown_once(runs):
    assert len(run_table(runs[1], runs[1], metrics=("map",))) == 3


def test_verdict_by_hand(runs):
    text = verdict(*runs, "map")
    assert "Dual-Tuning (reconstruction), mAP" in text
    assert "holds: 0.500 against 0.400, +0.100 [+0.100, +0.100]" in text
    assert "update gain 0.33 [0.33, 0.33]" in text  # 0.1 / 0.3
    assert "new/new minus the oracle's: +0.000 [-0.010, +0.010], within noise" in text


def test_verdict_without_cross_test(tmp_path):
    run = make_run(tmp_path / "a", "mixbct", {"old_old/map": 0.4, "new_old/map": None, "new_new/map": 0.7})
    oracle = make_run(tmp_path / "b", "independent", {"old_old/map": 0.4, "new_new/map": 0.3})
    assert "new/old cannot be measured" in verdict(run, oracle, "map")


def test_no_gain_when_the_oracle_is_worse_than_the_old_model(tmp_path):
    run = make_run(tmp_path / "a", "mixbct", {"old_old/map": 0.4, "new_old/map": 0.3, "new_new/map": 0.5})
    oracle = make_run(tmp_path / "b", "independent", {"old_old/map": 0.4, "new_new/map": 0.3})
    text = verdict(run, oracle, "map")
    assert "does not hold" in text and "update gain n/a" in text


def test_ablation_is_relative_to_the_first(runs):
    table = ablation_table({"as configured": runs[1], "changed": runs[0]}, "map").set_index("variant")
    assert table.loc["as configured", "new/old change"] == ""
    assert table.loc["changed", "new/old change"] == "+0.480"  # no draws in common: no interval
    assert table.loc["changed", "new/new change"] == "+0.000 [-0.010, +0.010], within noise"
    assert table.loc["changed", "images through the network"] == "1,200"


def test_adapters_stand_beside_the_bound(runs):
    table = adapter_table(runs[1], metrics=("map",)).set_index("new/old")["mAP"]
    assert table.to_dict() == {
        "old/old, the bound to beat": "0.400",
        "no adapter": "0.020",
        "ridge adapter, gallery to new": "0.300",
    }


def test_flatness_looks_at_the_last_third():
    looks = [{"epoch": e, "x": v} for e, v in ((2, 0.1), (4, 0.6), (6, 0.5))]
    assert "From epoch 4 to 6 it moved by -0.100: still moving" in flatness(looks, "x")
    assert "nothing can be said" in flatness([{"epoch": 1}], "x")


def test_titles_of_complete_code_carry_no_mark(runs):
    assert title_of(runs[1]) == "Independent"


def test_recorded_values_hold_the_pairs_the_oracle_and_the_adapters(runs):
    values = recorded_values(runs[1], runs[1])
    assert values["adapter/ridge/new_old/map"] == 0.3
    assert values["oracle/new_old/map"] == values["new_old/map"] == 0.02
    assert values["new_old/tar@far=1e-2"] is None and values["backbone_images"] == 1200
