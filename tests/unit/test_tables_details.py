"""The close look at an upgrade: cells against hand calculations, seeds and missing values."""

import math

import pytest
from synthetic_runs import configs, write_run

from companion import tables

MORE = {
    "changes/losing": 0.25,
    "changes/losing/low": 0.2,
    "changes/losing/high": 0.31,
    "changes/gaining": 0.5,
    "changes/negative_flips": 0.02,
    "changes/positive_flips": None,
    "constraint1/share": 0.75,
    "mixed/order=random/area/map": 0.625,
    "mixed/order=farthest/area_over_random/map": -0.012,
    "mixed/order=farthest/area_over_random/map/low": -0.02,
    "mixed/order=farthest/area_over_random/map/high": -0.004,
    "old_old/map": 0.5,
    "new_old/map": 0.6,
    "new_new/map": 0.9,
}


def folder(tmp_path, seeds=(0,), **more):
    oracles, runs = configs(["independent"], seeds), configs(["dual_tuning"], seeds)
    for oracle in oracles:
        write_run(tmp_path, oracle, 0.4, 0.0, 0.9, **{"new_new/map": 1.0})
    for seed, run in enumerate(runs):
        values = MORE | {"changes/gaining": 0.5 + 0.1 * seed} | more
        write_run(tmp_path, run, 0.4, 0.5, 0.9, **values)
    return tables.collect(tmp_path), runs[0].experiment_id


def test_one_seed_shows_values_with_their_intervals(tmp_path):
    frame, experiment = folder(tmp_path)
    table = tables.changes_table(frame, experiment)
    assert list(table["method"]) == ["Dual-Tuning\n(reconstruction)"]  # the oracle has no such numbers
    row = table.iloc[0]
    assert row["identities that lose"] == "25.0\n[20.0,\u00a031.0]"
    assert row["identities that gain"] == "50.0"
    assert row["wrong before, right now"] == "n/a"
    constraints = tables.constraint_table(frame, experiment).iloc[0].tolist()
    assert constraints[1:] == ["75.0", "n/a", "n/a", "n/a"]
    orders = tables.order_table(frame, experiment).iloc[0].tolist()
    assert orders[1:] == ["62.5", "n/a", "-1.2\n[-2.0,\u00a0-0.4]"]


def test_several_seeds_show_mean_and_deviation(tmp_path):
    frame, experiment = folder(tmp_path, seeds=(0, 1))
    row = tables.changes_table(frame, experiment).iloc[0]
    assert row["identities that gain"] == f"55.0\n± {100 * math.sqrt(0.005):.1f}"
    assert row["identities that lose"] == "25.0\n± 0.0"


def test_scores_of_advbct_by_hand(tmp_path):
    frame, experiment = folder(tmp_path)
    row = tables.upgrade_score_table(frame, experiment).iloc[0]
    up, comp = 100 / (1 + math.exp(0.1)), 100 / (1 + math.exp(-0.2))
    assert float(row["P_up"]) == pytest.approx(up, abs=0.051)
    assert float(row["P_comp"]) == pytest.approx(comp, abs=0.051)
    assert float(row["P_1"]) == pytest.approx(2 * up * comp / (up + comp), abs=0.051)


def test_without_an_oracle_there_are_no_scores(tmp_path):
    (run,) = configs(["bct"])
    write_run(tmp_path, run, 0.4, 0.5, 0.9, **MORE)
    table = tables.upgrade_score_table(tables.collect(tmp_path), run.experiment_id)
    assert table.iloc[0].tolist() == ["BCT", "n/a", "n/a", "n/a"]


def test_runs_of_an_earlier_version_give_empty_tables(tmp_path):
    (run,) = configs(["bct"])
    write_run(tmp_path, run, 0.4, 0.5, 0.9)
    for table in (tables.changes_table, tables.constraint_table, tables.order_table):
        assert table(tables.collect(tmp_path), run.experiment_id).empty
