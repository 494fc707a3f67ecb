"""Tables from run folders whose numbers can be checked by hand."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats
from synthetic_runs import METRIC, configs, write_run

from companion import tables
from compat_lib.config import ExperimentConfig
from compat_lib.losses import METHODS
from compat_lib.runs import write_json


@pytest.fixture
def three_seeds(tmp_path):
    """Oracle and MixBCT, three seeds: gains (0.6-0.4)/(0.9-0.4) = 0.4, then 0.5 and 0.6."""
    for seed, cross in enumerate((0.60, 0.65, 0.70)):
        oracle, mixbct = configs(["independent", "mixbct"], [seed])
        write_run(tmp_path, oracle, 0.4, 0.01, 0.9, seconds=10)
        write_run(tmp_path, mixbct, 0.4, cross, 0.91 + 0.01 * seed, seconds=8)
    return tmp_path


def row_of(rows, method, budget="steps"):
    found = rows[(rows["method"] == method) & (rows["budget"] == budget)]
    assert len(found) == 1
    return found.iloc[0]


def test_collect_one_row_a_run(three_seeds):
    frame = tables.collect(three_seeds)
    assert len(frame) == 6
    assert set(frame["method"]) == {"independent", "mixbct"}
    assert set(frame["test_identities"]) == {200}
    assert frame["method_options"].tolist() == ["{}"] * 6
    assert frame.loc[frame["method"] == "mixbct", f"new_old/{METRIC}"].tolist() == [0.60, 0.65, 0.70]


def test_collect_leaves_out_incomplete_and_takes_a_run_once(three_seeds):
    incomplete = next(three_seeds.glob("*/mixbct-s2*"))
    (incomplete / "metrics.json").unlink()
    assert len(tables.collect(three_seeds, three_seeds)) == 5


def test_collect_of_nothing(tmp_path):
    frame = tables.collect(tmp_path / "absent")
    assert frame.empty
    assert tables.self_cross(frame).empty
    assert tables.self_cross_table(frame).empty


def test_summary_is_mean_deviation_and_n(three_seeds):
    table = tables.summary(tables.collect(three_seeds), [f"new_old/{METRIC}", "absent"])
    row = table.xs("mixbct", level="method").iloc[0]
    assert row[(f"new_old/{METRIC}", "mean")] == pytest.approx(0.65)
    assert row[(f"new_old/{METRIC}", "deviation")] == pytest.approx(0.05)  # ddof = 1
    assert row[(f"new_old/{METRIC}", "n")] == 3
    assert row[("absent", "n")] == 0


def test_summary_counts_only_measured_values(three_seeds):
    folder = next(three_seeds.glob("*/mixbct-s1*"))
    metrics = json.loads((folder / "metrics.json").read_text())
    write_json(folder / "metrics.json", metrics | {f"new_old/{METRIC}": None})
    row = (
        tables.summary(tables.collect(three_seeds), [f"new_old/{METRIC}"])
        .xs("mixbct", level="method")
        .iloc[0]
    )
    assert row[(f"new_old/{METRIC}", "n")] == 2
    assert row[(f"new_old/{METRIC}", "mean")] == pytest.approx(0.65)


def test_several_seeds_give_deviations(three_seeds):
    row = row_of(tables.self_cross(tables.collect(three_seeds)), "mixbct")
    assert row["n"] == row["seeds"] == 3
    assert row["gain"] == pytest.approx(0.5)
    assert row["gain_deviation"] == pytest.approx(0.1)
    assert row["oracle"] == pytest.approx(0.9)
    assert row["cost"] == pytest.approx(0.8)
    assert row["criterion"] == 1.0
    # margins 0.20, 0.25, 0.30: mean 0.25, standard error 0.05 / sqrt(3)
    half = stats.t.ppf(0.975, 2) * 0.05 / math.sqrt(3)
    assert row["margin_low"] == pytest.approx(0.25 - half)
    assert row["margin_high"] == pytest.approx(0.25 + half)
    assert row["decided"]
    assert row["needs"] == "features"


def test_one_seed_gives_the_paired_bootstrap(tmp_path):
    oracle, bct = configs(["independent", "bct"])
    write_run(tmp_path, oracle, 0.4, 0.0, 0.9, width=0.0)
    write_run(tmp_path, bct, 0.4, 0.6, 0.92, width=0.1)
    row = row_of(tables.self_cross(tables.collect(tmp_path)), "bct")
    assert row["margin"] == pytest.approx(0.2)
    # the draws of the difference run evenly over 0.2 +- 0.2: 95 % of them over 0.2 +- 0.19
    assert row["margin_low"] == pytest.approx(0.01)
    assert row["margin_high"] == pytest.approx(0.39)
    # gain of a draw t in [-0.1, 0.1]: (0.2 + 2 t) / (0.5 + t), monotone in t
    assert row["gain"] == pytest.approx(0.4)
    assert row["gain_low"] == pytest.approx((0.2 - 0.19) / (0.5 - 0.095), abs=1e-3)
    assert row["gain_high"] == pytest.approx((0.2 + 0.19) / (0.5 + 0.095), abs=1e-3)
    assert math.isnan(row["gain_deviation"])


def test_without_draws_there_is_no_interval(tmp_path):
    oracle, bct = configs(["independent", "bct"])
    for config in (oracle, bct):
        write_run(tmp_path, config, 0.4, 0.6, 0.9)
    row = row_of(tables.self_cross(tables.collect(tmp_path)), "bct")
    assert row["gain"] == pytest.approx(0.4)
    assert math.isnan(row["gain_low"])
    assert not row["decided"]
    cells = tables.self_cross_table(tables.collect(tmp_path)).set_index("method").loc["BCT"]
    assert cells["update gain"] == "0.40"
    assert cells["new/old > old/old"] == "yes"


def test_gain_is_undefined_when_the_oracle_does_not_beat_the_old_model(tmp_path):
    for config in configs(["independent", "bct"]):
        write_run(tmp_path, config, 0.9, 0.95, 0.9)
    table = tables.self_cross_table(tables.collect(tmp_path)).set_index("method")
    assert table.loc["BCT", "update gain"] == "n/a"


def test_seeds_are_paired_with_their_own_oracle(tmp_path):
    for seed, best in ((0, 0.8), (1, 0.6)):
        oracle, bct = configs(["independent", "bct"], [seed])
        write_run(tmp_path, oracle, 0.4, 0.0, best)
        write_run(tmp_path, bct, 0.4, 0.5, 0.9)
    row = row_of(tables.self_cross(tables.collect(tmp_path)), "bct")
    assert row["gain"] == pytest.approx((0.1 / 0.4 + 0.1 / 0.2) / 2)


def test_missing_runs_are_shown(three_seeds):
    expected = configs(["independent", "bct", "mixbct"], [0, 1, 2, 3])
    table = tables.self_cross_table(tables.collect(three_seeds), expected=expected).set_index("method")
    assert (
        table.loc["BCT", ["seeds", "old/old", "new/old", "new/new", "update gain", "cost"]]
        .eq("missing")
        .all()
    )
    assert table.loc["BCT", "needs of the old model"] == ", ".join(sorted(METHODS["bct"].needs))
    assert table.loc["MixBCT", "note"] == "1 of 4 seeds missing"
    assert table.loc["MixBCT", "new/old"] == "0.650 ± 0.050"
    assert table.index[:3].tolist() == [METHODS["independent"].title, "BCT", "MixBCT"]
    # an adapter is measured with the independent run; here none was
    assert table.loc[[name for name in table.index if "adapter" in name], "new/old"].eq("missing").all()


def test_what_was_not_expected_is_left_out(three_seeds):
    other = ExperimentConfig(scenario="extended-class", method="bct")
    assert tables.self_cross(tables.collect(three_seeds), expected=[other])["n"].tolist() == [0]


def test_adapters_come_from_the_independent_run(tmp_path):
    oracle = configs(["independent"])[0]
    adapted = {f"adapter/procrustes/new_old/{METRIC}": 0.5, "adapter/ridge/new_old/map": 0.4}
    folder = write_run(tmp_path, oracle, 0.4, 0.01, 0.9, width=0.0, criterion=False, **adapted)
    draws = json.loads((folder / "draws.json").read_text())
    draws[f"adapter/procrustes/new_old/{METRIC}"] = [0.45, *[0.5] * 99, 0.55]
    write_json(folder / "draws.json", draws)
    rows = tables.self_cross(tables.collect(tmp_path))
    assert rows["method"].tolist() == ["independent", "adapter/procrustes", "adapter/ridge"]
    row = row_of(rows, "adapter/procrustes")
    assert (row["old_old"], row["new_old"], row["new_new"]) == (0.4, 0.5, 0.9)
    assert row["gain"] == pytest.approx(0.2)
    assert row["margin_low"] == pytest.approx(0.1)
    assert row["cost"] == 1.0
    assert row["criterion"] == 1.0
    assert math.isnan(row_of(rows, "adapter/ridge")["new_old"])  # only its mAP was measured


def test_equal_passes_is_a_row_of_its_own(three_seeds):
    config = ExperimentConfig(method="mixbct", budget="passes")
    write_run(three_seeds, config, 0.4, 0.68, 0.92, seconds=8, epochs=29)
    rows = tables.self_cross(tables.collect(three_seeds))
    assert row_of(rows, "mixbct", "passes")["cost"] == pytest.approx(8 * 29 / (10 * 20))
    assert row_of(rows, "mixbct")["n"] == 3
    assert (
        "MixBCT, equal backbone passes"
        in tables.self_cross_table(tables.collect(three_seeds))["method"].tolist()
    )


def test_cost_is_processor_time_where_both_runs_have_it(tmp_path):
    oracle, bct = configs(["independent", "bct"])
    write_run(tmp_path, oracle, 0.4, 0.0, 0.9, seconds=10, **{"train/processor_seconds": 100.0})
    write_run(tmp_path, bct, 0.4, 0.5, 0.9, seconds=90, **{"train/processor_seconds": 110.0})
    assert row_of(tables.self_cross(tables.collect(tmp_path)), "bct")["cost"] == pytest.approx(1.1)
    write_run(tmp_path, bct, 0.4, 0.5, 0.9, seconds=90)
    assert row_of(tables.self_cross(tables.collect(tmp_path)), "bct")["cost"] == pytest.approx(9)


def test_options_and_reconstruction_are_named(tmp_path):
    write_run(tmp_path, ExperimentConfig(method="dual_tuning"), 0.4, 0.5, 0.9)
    write_run(tmp_path, ExperimentConfig(method="mixbct", method_options={"mix_ratio": 0.2}), 0.4, 0.5, 0.9)
    table = tables.self_cross_table(tables.collect(tmp_path)).set_index("method")
    assert table.loc["Dual-Tuning", "note"] == "reconstruction"
    assert table.loc["MixBCT (mix_ratio=0.2)", "oracle new/new"] == "missing"


def test_criterion_within_noise(tmp_path):
    write_run(tmp_path, configs(["bct"])[0], 0.4, 0.41, 0.9, width=0.1)
    table = tables.self_cross_table(tables.collect(tmp_path))
    assert table["new/old > old/old"].tolist() == ["yes, within noise"]


def test_old_runs_are_no_row(tmp_path):
    folder = write_run(tmp_path, configs(["independent"])[0], 0.4, 0.0, 0.9)
    config = json.loads((folder / "config.json").read_text())
    old = folder.parent / "old-s0-abcdef"
    write_json(old / "config.json", config | {"method": "old", "run_id": old.name})
    write_json(old / "metrics.json", {f"old_old/{METRIC}": 0.4})
    frame = tables.collect(tmp_path)
    assert sorted(frame["method"]) == ["independent", "old"]
    assert tables.self_cross(frame)["method"].tolist() == ["independent"]


def test_points_for_the_plots(three_seeds):
    config = ExperimentConfig(method="mixbct", budget="passes")
    write_run(three_seeds, config, 0.4, 0.3, 0.92)
    rows = tables.self_cross(tables.collect(three_seeds))
    points = tables.points(rows, config.experiment_id)
    assert list(points) == ["independent", "mixbct", "mixbct (equal passes)"]
    assert points["mixbct"]["cross"] == pytest.approx(0.65)
    assert points["mixbct"]["cross_low"] == pytest.approx(0.60)
    assert points["mixbct"]["criterion"] is True
    assert points["mixbct (equal passes)"]["criterion"] is False
    assert points["mixbct (equal passes)"]["self_low"] is None
    assert points["mixbct"]["title"] == "MixBCT"


def test_backfill_reads_a_row_too():
    row = pd.Series({"mixed/share=1.00/map": 0.9, "mixed/share=0.00/map": 0.6, "mixed/share=0.00/rank1": 0.7})
    assert tables.backfill(row) == ([0.0, 1.0], [0.6, 0.9])


def test_styled_is_plain_and_the_same_every_time(three_seeds):
    expected = configs(["independent", "bct", "mixbct"])
    table = tables.self_cross_table(tables.collect(three_seeds), expected=expected)
    html = tables.styled(table).to_html()
    assert html == tables.styled(table).to_html()
    assert tables.styled(table[1:]).to_html().split("<table ")[1][:20] != html.split("<table ")[1][:20]
    assert "http" not in html and "<script" not in html
    assert "new/old &gt; old/old" in html or "new/old > old/old" in html
    assert html.count("portraits-open-class-softmax-to-arcface") == 1
    assert "missing" in html


def test_experiments_of_one_name_keep_their_hash():
    titles = tables.experiment_titles(["a-b-111111", "a-b-222222", "a-c-333333"])
    assert list(titles.values()) == ["a-b-111111", "a-b-222222", "a-c"]


# -- the master notebook: two places, narrow tables, series ----------------------------------------


def test_an_experiment_is_taken_from_one_place(tmp_path):
    mine, theirs = tmp_path / "runs", tmp_path / "results"
    begun, other = configs(["independent", "bct"]), configs(["bct"], scenario="extended-class")
    write_run(mine, begun[1], 0.4, 0.5, 0.9)
    for config in (*begun, *other):
        write_run(theirs, config, 0.3, 0.6, 0.8)
    write_run(mine, ExperimentConfig(method="bct", seed=7), 0.4, 0.5, 0.9)  # not in the preset
    reading = tables.read_runs(mine, theirs, begun)
    assert reading.place(begun[0].experiment_id) == tables.YOURS
    assert reading.place(other[0].experiment_id) == tables.AUTHORS
    assert (reading.count(tables.YOURS), reading.count(tables.AUTHORS)) == (1, 1)
    assert (reading.missing, reading.left_out) == (1, 1)
    rows = reading.rows(METRIC)
    assert row_of(rows[rows["experiment_id"] == begun[0].experiment_id], "bct")["old_old"] == 0.4
    assert row_of(rows, "independent")["n"] == 0  # missing, not borrowed from the other machine
    assert "1 of the preset's 2 runs are there, 1 missing (`make x`" in reading.summary("make x")
    assert "Left out: 1 complete run of yours that is not in the preset." in reading.summary("make x")


def test_the_authors_fill_an_experiment_that_is_not_begun(tmp_path):
    expected = configs(["bct"], [0, 1])
    write_run(tmp_path / "results", expected[0], 0.4, 0.6, 0.9)
    reading = tables.read_runs(tmp_path / "runs", tmp_path / "results", expected)
    assert reading.missing == 1
    assert tables.score_table(reading.rows(METRIC)).set_index("method").loc["BCT", "n"] == "1/2"
    assert tables.read_runs(tmp_path / "runs", None, expected).missing == 2


def test_nothing_to_read_says_what_to_do(tmp_path):
    reading = tables.read_runs(tmp_path / "runs", tmp_path / "results", configs(["bct"]))
    assert reading.summary("make reproduce").startswith("There is nothing to show yet")
    assert "`make reproduce`" in reading.summary("make reproduce")
    assert reading.rows(METRIC)["n"].tolist() == [0]
    assert tables.overview_table(reading.rows(METRIC))["runs"].tolist() == ["missing"]
    empty = tables.read_runs(tmp_path / "runs")
    assert empty.rows(METRIC).empty and tables.setting_titles(empty.rows(METRIC)) == {}
    assert tables.provenance_table(empty.frame).empty and tables.mixed_code(empty.frame) == ""
    assert tables.flat_table(empty.frame, {}).empty


def test_an_unknown_metric_is_refused(three_seeds):
    reading = tables.read_runs(three_seeds)
    with pytest.raises(ValueError, match="no run has the metric 'tar'; there are tar@far=1e-3"):
        reading.rows("tar")


def test_scores_stand_below_what_they_are_compared_with(three_seeds):
    rows = tables.self_cross(tables.collect(three_seeds), METRIC)
    table = tables.score_table(rows).set_index("method")
    assert table.index.tolist() == ["compare with", METHODS["independent"].title, "MixBCT"]
    assert table.loc["compare with", "new/old"] == "old/old\n0.400\n± 0.000"
    assert table.loc["compare with", "new/new"] == "oracle\n0.900\n± 0.000"
    assert table.loc["MixBCT"].tolist() == ["3", "0.650\n± 0.050", "0.920\n± 0.010"]
    html = tables.styled(tables.score_table(rows), "x", references=1).to_html()
    assert html.count("background-color") == 1


def test_judgement_and_cost(three_seeds):
    rows = tables.self_cross(tables.collect(three_seeds), METRIC)
    judged = tables.judgement_table(rows).set_index("method").loc["MixBCT"]
    # margins 0.20, 0.25, 0.30: half an interval is 4.303 * 0.05 / sqrt(3) = 0.124
    assert judged["new/old > old/old"] == "yes\n+0.250\n[+0.126,\u00a0+0.374]"
    assert judged["update gain"] == "0.50\n± 0.10"
    costs = tables.cost_table(rows).set_index("method")
    # self-test 0.91, 0.92, 0.93 against 0.9: 0.02 +- 4.303 * 0.01 / sqrt(3)
    assert costs.loc["MixBCT", "new/new minus oracle"] == "+0.020\n[-0.005,\u00a0+0.045]"
    assert costs.loc["MixBCT", ["time", "images"]].tolist() == ["0.80", "1.00"]
    assert costs.loc[METHODS["independent"].title, "new/new minus oracle"] == "is the oracle"


def test_criterion_in_some_seeds(tmp_path):
    for seed, cross in enumerate((0.3, 0.5, 0.45)):
        write_run(tmp_path, ExperimentConfig(method="bct", seed=seed), 0.4, cross, 0.9)
    rows = tables.self_cross(tables.collect(tmp_path), METRIC)
    assert tables.judgement_table(rows)["new/old > old/old"][0].startswith("in 2 of 3 seeds, within noise\n")
    assert tables.overview_table(rows).iloc[0].tolist()[1:] == ["3 of 3", "none"]


def test_overview_names_what_is_compatible_beyond_noise(three_seeds):
    expected = configs(["independent", "mixbct", "bct"], [0, 1, 2])
    rows = tables.self_cross(tables.collect(three_seeds), METRIC, expected)
    (line,) = tables.overview_table(rows).to_dict("records")
    assert list(line.values()) == ["Portraits, open-class, softmax to ArcFace", "6 of 9", "MixBCT"]


def test_needs_name_every_method_once(three_seeds):
    write_run(three_seeds, ExperimentConfig(method="mixbct", budget="passes"), 0.4, 0.6, 0.9)
    write_run(three_seeds, ExperimentConfig(method="dual_tuning"), 0.4, 0.6, 0.9)
    table = tables.needs_table(tables.self_cross(tables.collect(three_seeds), METRIC)).set_index("method")
    assert sorted(table.index) == ["Dual-Tuning", METHODS["independent"].title, "MixBCT"]
    assert "reconstruction" in table.loc["Dual-Tuning", "note"]
    assert table.loc["MixBCT"].tolist() == ["features", ""]


def test_settings_of_one_title_keep_their_hash(tmp_path):
    for epochs in (10, 20):
        write_run(tmp_path, ExperimentConfig(method="bct", epochs=epochs), 0.4, 0.5, 0.9)
    titles = tables.setting_titles(tables.collect(tmp_path))
    assert all(
        title == f"Portraits, open-class, softmax to ArcFace ({n[-6:]})" for n, title in titles.items()
    )


def test_curves_are_means_over_seeds(tmp_path):
    for seed, (value, looks) in enumerate(((0.5, (0.5, 0.75, 0.75)), (0.75, (0.5, 0.75, 1.0)))):
        config = ExperimentConfig(method="mixbct", seed=seed)
        more = {"mixed/share=0.00/map": value, "mixed/share=1.00/map": 0.75}
        folder = write_run(tmp_path, config, 0.4, 0.6, 0.9, **more)
        rows = [f"{epoch},{look}" for epoch, look in zip((3, 6, 9), looks, strict=True)]
        (folder / "history.csv").write_text("\n".join(["epoch,val/new_new/tar@far=1e-2", *rows]) + "\n")
    write_run(tmp_path, ExperimentConfig(method="independent"), 0.4, 0.0, 0.9)
    frame = tables.collect(tmp_path)
    name = config.experiment_id
    curves = tables.backfill_curves(frame, name)
    assert list(curves) == ["mixbct"]
    shares, mean, low, high = curves["mixbct"]
    assert shares == [0.0, 1.0] and mean.tolist() == [0.625, 0.75]
    # two values a quarter apart: the deviation is 0.25 / sqrt(2)
    assert low == pytest.approx([0.625 - 0.25 / 2**0.5, 0.75])
    assert high == pytest.approx([0.625 + 0.25 / 2**0.5, 0.75])
    histories = tables.histories(frame, name)
    assert [row["val/new_new/tar@far=1e-2"] for row in histories["mixbct"]] == [0.5, 0.75, 0.875]
    (line,) = tables.flat_table(frame, {name: "here"}).to_dict("records")
    assert line == {"experiment": "here", "flat": "none", "still moving": "MixBCT (+0.125)"}
    assert tables.too_short(frame, {name: "here"}) == "", "the oracle's curve is not recorded"


@pytest.mark.parametrize(("last", "moves"), [(0.76, False), (0.78, True), (0.72, True)])
def test_a_setting_whose_oracle_still_moved_is_named(tmp_path, last, moves):
    config = ExperimentConfig(method="independent")
    folder = write_run(tmp_path, config, 0.4, 0.0, 0.9)
    looks = f"3,0.5\n6,0.75\n9,{last}\n"
    (folder / "history.csv").write_text("epoch,val/new_new/tar@far=1e-2\n" + looks)
    said = tables.too_short(tables.collect(tmp_path), {config.experiment_id: "Here", "absent": "There"})
    assert said.startswith("**Not trained long enough to judge:** Here (its oracle") == moves
    assert (f"{last - 0.75:+.3f}" in said) == moves and "There" not in said


def test_who_made_the_runs(tmp_path):
    machine = {"processor": "P", "cores": 2, "threads": 1, "python": "3.11", "torch": "2.15", "device": "cpu"}
    for seed, commit in enumerate(("aaa", "aaa", "bbb+changes")):
        config = ExperimentConfig(method="bct", seed=seed)
        folder = write_run(tmp_path, config, 0.4, 0.5, 0.9, **{"train/seconds": 90.0})
        write_json(
            folder / "environment.json", machine | {"commit": commit, "finished": f"2026-01-0{seed + 1}T"}
        )
    frame = tables.read_runs(tmp_path).frame
    first, second = tables.provenance_table(frame).to_dict("records")
    day = "2026-01-0{}".replace("-", "\u2011")
    runs = f"your runs: 2\n3.0 minutes of training\n{day.format(1)} to {day.format(2)}"
    assert first["runs"] == runs
    first_folder, second_folder = (Path(folder) for folder in frame["folder"][:2])
    for folder, words in (
        (first_folder, "1.5 minutes of training (1 of 2 not kept)"),
        (second_folder, "time of training not kept"),
    ):
        metrics = json.loads((folder / "metrics.json").read_text())
        del metrics["train/seconds"]
        write_json(folder / "metrics.json", metrics)
        lost = tables.provenance_table(tables.read_runs(tmp_path).frame)
        assert lost["runs"][0].splitlines()[1] == words
    assert first["hardware"] == "P, 2 cores, threads used: 1"
    assert second["software"] == "Python 3.11\ntorch 2.15\ncommit bbb\nwith uncommitted changes"
    assert f"{config.experiment_id} (2 commits)" in tables.mixed_code(frame)
    assert tables.mixed_code(frame[frame["seed"] < 2]) == ""


def test_bounds_of_the_plots(three_seeds):
    rows = tables.self_cross(tables.collect(three_seeds), METRIC)
    name = rows["experiment_id"][0]
    assert tables.bounds(rows, name) == pytest.approx({"old_old": 0.4, "oracle": 0.9})
    assert tables.bounds(rows, "absent") == {"old_old": None, "oracle": None}


def test_tables_stand_side_by_side_without_scripts(three_seeds):
    rows = tables.self_cross(tables.collect(three_seeds), METRIC)
    html = tables.side_by_side(
        [tables.styled(tables.score_table(rows)), tables.styled(tables.cost_table(rows))]
    )
    assert html.count("<table") == 2 and "flex-wrap" in html
    assert "http" not in html and "<script" not in html
