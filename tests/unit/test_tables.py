"""Tables as people read them: cells against hand calculations, seeds, noise and what is missing."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic_runs import METRIC, configs, write_looks, write_run, write_three_seeds

from companion import reading, results, tables
from compat_lib.config import ExperimentConfig
from compat_lib.evaluation.records import Record
from compat_lib.losses import METHODS
from compat_lib.runs import Run, write_json

INDEPENDENT = METHODS["independent"].title


@pytest.fixture
def three_seeds(tmp_path):
    return write_three_seeds(tmp_path)


def rows_of(folder, expected=None):
    return results.scores(results.collect(folder), METRIC, expected)


def test_results_stand_below_what_they_are_compared_with(three_seeds):
    made = tables.result_table(rows_of(three_seeds))
    table = made.set_index("method")
    assert table.index.tolist()[:2] == ["the bar: old queries, old gallery", "full backfill by the oracle"]
    assert table.index.tolist()[2:] == [INDEPENDENT, "MixBCT"] and made.attrs["references"] == 2
    assert table["new/old"].tolist()[:2] == ["40.0 ± 0.0 (3)", "90.0 ± 0.0 (3)"]
    # margins 0.20, 0.25, 0.30: half an interval is 4.303 * 0.05 / sqrt(3) = 0.124; self-test 0.91, 0.92, 0.93
    # against 0.9: 0.02 +- 4.303 * 0.01 / sqrt(3), which cannot be told from the oracle
    assert table.loc["MixBCT"].tolist() == [
        *("65.0 ± 5.0 (3) ★", "92.0 ± 1.0 (3) ★", "+25.0 [+12.6, +37.4]", "+2.0 [-0.5, +4.5]"),
        *("0.80", "1.00", "new model"),
    ]
    assert table.loc[INDEPENDENT, "new/new"].endswith("★")
    assert table.loc[INDEPENDENT, "new/new - oracle"] == "is the oracle"
    first = tables.first_day_table(rows_of(three_seeds)).set_index("method")
    assert first.loc["MixBCT"].tolist() == ["yes", "+0.50 ± 0.10 (3)", ""]
    html = tables.styled(made, "x").to_html()
    assert "background-color" in html and "font-weight: bold" in html and "★" not in html
    assert "| **65.0 ± 5.0 (3)** |" in tables.markdown(made)


def test_the_best_and_what_cannot_be_told_from_it_are_marked(tmp_path):
    """Cross-tests of five seeds; each difference from the best against scipy's paired t-test."""
    best = np.array([0.60, 0.62, 0.61, 0.63, 0.59])
    values = {"bct": best, "l2": best - 0.02 + [0.03, -0.03, 0.02, -0.02, 0]}
    values["lce"] = best - [0.02, 0.03, 0.02, 0.03, 0.02]
    values |= {"independent": 0 * best, "nccl": best[:1] + 0.2}  # nccl: one seed, without draws, no test
    for method, crosses in values.items():
        for seed, cross in enumerate(crosses):
            write_run(tmp_path, ExperimentConfig(method=method, seed=seed), 0.4, cross, 0.9)
    rows = rows_of(tmp_path)
    rows = rows[rows["method"] != "nccl"]
    marked = results.scores(results.collect(tmp_path).query("method != 'nccl'"), METRIC)
    others = ("l2", "lce", "independent")
    told = {name: bool(stats.ttest_rel(best, values[name]).pvalue >= 0.05) for name in others}
    assert told == {"l2": True, "lce": False, "independent": False}
    assert dict(zip(marked["method"], marked["new_old_best"], strict=True)) == {"bct": True} | told
    assert not rows["new_old_best"].any()  # the highest has one seed, and nothing could be tested
    # adapters are marked among those that ask alike, not with the old query and not a mapped gallery
    more = [Record("new", "old", METRIC, 0.99, 0.98, 1.0, adapter=n) for n in ("procrustes-slerp", "ridge")]
    write_run(tmp_path / "b", configs(["independent"])[0], 0.4, 0.1, 0.9, width=0.01, more=more)
    write_run(tmp_path / "b", configs(["bct"])[0], 0.4, 0.5, 0.9, width=0.01)
    again = rows_of(tmp_path / "b").set_index("method")
    assert again.index[again["new_old_best"]].tolist() == ["bct"] and len(again) == 4
    assert again["new_new_best"][["independent", "bct"]].all()  # equal
    queries = tables.result_table(rows_of(tmp_path / "b")).set_index("method")["query"].tolist()[-2:]
    assert queries == ["new and old model", "new model; gallery mapped"]


def test_what_is_missing_says_so(three_seeds):
    expected = configs(["independent", "bct", "mixbct"], [0, 1, 2, 3])
    table = tables.result_table(rows_of(three_seeds, expected)).set_index("method")
    assert table.loc["BCT"].tolist() == [*["missing"] * 4, "", "", "new model"]
    assert table.loc["MixBCT", "new/old"].startswith("65.0 ± 5.0 (3 of 4)")
    first = tables.first_day_table(rows_of(three_seeds, expected)).set_index("method")
    assert first.loc["BCT"].tolist() == ["missing", "missing", ""]
    html = tables.styled(table.reset_index()).to_html()
    assert html == tables.styled(table.reset_index()).to_html()
    assert "http" not in html and "<script" not in html and "#999" in html
    (line,) = tables.overview_table(rows_of(three_seeds, expected)).to_dict("records")
    assert list(line.values()) == ["Portraits, open-class, softmax to ArcFace", "6 of 12", "MixBCT"]
    assert tables.overview_table(rows_of(three_seeds / "absent", expected))["runs"].tolist() == ["missing"]
    assert tables.scoreboard(rows_of(three_seeds / "absent", expected)).empty
    assert tables.scoreboard(rows_of(three_seeds / "absent")).empty
    (counts,) = tables.scoreboard(rows_of(three_seeds, expected)).to_numpy().tolist()
    assert counts == [
        "MixBCT",
        *"1100010",
    ]  # settings; above, level with, below the bar; the same of the oracle


def test_methods_of_few_settings_stand_below_the_others():
    columns = ["experiment_id", "method", "margin_low", "margin_high"]
    rows = pd.DataFrame(
        [["a", "bct", -0.1, 0.1], ["b", "bct", -0.1, 0.1], ["b", "l2", 0.1, 0.2]], columns=columns
    )
    rows = rows.assign(budget="steps", method_options="{}", self_change_low=-0.1, self_change_high=0.1)
    for least, order in ((1, ["L2 regression", "BCT"]), (2, ["BCT", "L2 regression"])):
        assert tables.scoreboard(rows, least)["method"].tolist() == order


def test_options_and_reconstruction_are_named_and_no_oracle_is_no_gain(tmp_path):
    write_run(tmp_path, ExperimentConfig(method="dual_tuning"), 0.4, 0.5, 0.9)
    write_run(tmp_path, ExperimentConfig(method="mixbct", method_options={"mix_ratio": 0.2}), 0.4, 0.5, 0.9)
    table = tables.result_table(rows_of(tmp_path)).set_index("method")
    assert table.index.tolist()[2:] == ["Dual-Tuning (reconstruction)", "MixBCT (mix_ratio=0.2)"]
    assert table.loc["full backfill by the oracle", "new/new"] == "missing"
    assert set(tables.first_day_table(rows_of(tmp_path))["update gain"]) == {"missing"}


def test_the_criterion_within_noise_and_in_some_seeds(tmp_path):
    write_run(tmp_path / "a", configs(["bct"])[0], 0.4, 0.41, 0.9, width=0.1)
    (said,) = tables.first_day_table(rows_of(tmp_path / "a"))["new/old > old/old"]
    assert said == "yes, within noise"
    for seed, cross in enumerate((0.3, 0.5, 0.45)):
        write_run(tmp_path / "b", ExperimentConfig(method="bct", seed=seed), 0.4, cross, 0.9)
    (said,) = tables.first_day_table(rows_of(tmp_path / "b"))["new/old > old/old"]
    assert said == "in 2 of 3 seeds, within noise"
    assert tables.overview_table(rows_of(tmp_path / "b")).iloc[0].tolist()[1:] == ["3 of 3", "none"]


def test_two_indexes_stand_beside_the_orders_of_backfill(tmp_path):
    (oracle,) = configs(["independent"])
    area = {"metric": "area/map", "query": "new", "gallery": "mixed", "order": "random"}
    more = [Record(**area, value=0.5), Record(**area, value=0.625, adapter="rank-merge")]
    write_run(tmp_path, oracle, 0.5, 0.0, 1.0, metric="map", more=more)
    frame = results.collect(tmp_path)
    table = tables.detail_table(frame, oracle.experiment_id, "Order of backfill")
    assert table["method"].tolist() == [INDEPENDENT, "two indexes, rank merge"]
    assert table["random order"].tolist() == ["50.0", "62.5"]
    (row,) = [row for row in results.with_adapters(frame)["method"] if row != "old"]
    assert row == "independent"  # it is no adapter of the cross-test


def test_the_old_query_has_a_column_where_a_run_was_asked_with_it(tmp_path):
    oracle, bct, l2 = configs(["independent", "bct", "l2"])
    slerp = [Record("new", "old", "map", 0.45, adapter="procrustes-slerp")]
    asked = [Record("new", "old", "map", 0.75, adapter="with-old-query")]
    for config, cross, more in ((oracle, 0.01, slerp), (bct, 0.5, asked), (l2, 0.6, [])):
        write_run(tmp_path, config, 0.4, cross, 0.9, metric="map", more=more)
    rows = results.scores(results.collect(tmp_path), "map")
    table = tables.result_table(rows).set_index("method")
    found = tables.first_day_table(rows).set_index("method")[tables.OLD_QUERY].to_dict()
    assert (found[INDEPENDENT], found["BCT"], found["L2 regression"]) == ("45.0", "75.0", "")
    assert table.loc["Procrustes, SLERP with the old query", "new/old"] == "45.0"
    needs = tables.needs_table(results.scores(results.collect(tmp_path), "map")).set_index("method")
    assert needs.iloc[-1, 0] == "features, the model at query time"


def test_needs(three_seeds):
    write_run(three_seeds, ExperimentConfig(method="mixbct", budget="passes"), 0.4, 0.6, 0.9)
    write_run(three_seeds, ExperimentConfig(method="dual_tuning"), 0.4, 0.6, 0.9)
    needs = tables.needs_table(rows_of(three_seeds)).set_index("method")
    assert sorted(needs.index) == ["Dual-Tuning", INDEPENDENT, "MixBCT"]
    assert needs.loc["Dual-Tuning", "note"] and needs.loc["MixBCT"].tolist() == ["features", ""]


# -- a closer look ---------------------------------------------------------------------------------

MORE = [
    Record("new", "old", "losing", 0.25, 0.2, 0.31),
    Record("new", "old", "gaining", 0.5),
    Record("new", "old", "positive_flips", None),
    Record(None, None, "constraint1/share", 0.75),
    Record("new", "mixed", "area/map", 0.625, order="random"),
    Record("new", "mixed", "area_over_random/map", -0.012, -0.02, -0.004, order="farthest"),
]


def upgrade(tmp_path, seeds=(0,)):
    for seed in seeds:
        oracle, run = configs(["independent", "dual_tuning"], [seed])
        write_run(tmp_path, oracle, 0.5, 0.0, 1.0, metric="map")
        more = [*MORE, Record("new", "old", "negative_flips", 0.02 + 0.1 * seed)]
        write_run(tmp_path, run, 0.5, 0.6, 0.9, metric="map", more=more)
    return results.collect(tmp_path), run.experiment_id


def test_details_with_their_intervals(tmp_path):
    frame, experiment = upgrade(tmp_path)
    cells = {
        "Who gets worse": ["25.0 [20.0, 31.0]", "50.0", "2.0", "n/a", "n/a"],
        "Constraints that hold": ["75.0", "n/a", "n/a", "n/a"],
        "Order of backfill": ["62.5", "n/a", "-1.2 [-2.0, -0.4]"],
    }
    assert set(cells) == set(tables.DETAILS)
    for caption, expected in cells.items():  # the oracle has no such numbers
        found = tables.detail_table(frame, experiment, caption).iloc[0].tolist()
        assert found == ["Dual-Tuning (reconstruction)", *expected]


def test_details_of_several_seeds_and_of_runs_that_have_none(tmp_path):
    frame, experiment = upgrade(tmp_path, seeds=(0, 1))
    row = tables.detail_table(frame, experiment, "Who gets worse").iloc[0]
    assert row["right before, wrong now"] == f"7.0 ± {100 * math.sqrt(0.005):.1f} (2)"
    assert row["identities that lose"] == "25.0 ± 0.0 (2)"
    assert tables.detail_table(frame[frame["method"] == "independent"], experiment, "Who gets worse").empty


def test_scores_of_advbct_by_hand(tmp_path):
    frame, experiment = upgrade(tmp_path)
    row = tables.upgrade_score_table(frame, experiment).iloc[0]
    up, comp = 100 / (1 + math.exp(0.1)), 100 / (1 + math.exp(-0.2))
    expected = (up, comp, 2 * up * comp / (up + comp))
    assert [float(row[name]) for name in ("P_up", "P_comp", "P_1")] == pytest.approx(expected, abs=0.051)
    alone = tables.upgrade_score_table(frame[frame["method"] != "independent"], experiment)
    assert alone.iloc[0].tolist()[1:] == ["n/a"] * 3


# -- long enough? who made them? -------------------------------------------------------------------


def test_flatness_looks_at_the_last_third():
    looks = [{"epoch": e, tables.trust.VALIDATION: v} for e, v in ((2, 0.1), (4, 0.6), (6, 0.5))]
    assert "From epoch 4 to 6 it moved by -10.0 points: still moving" in tables.flatness(looks)
    assert "nothing can be said" in tables.flatness([{"epoch": 1}])


@pytest.mark.parametrize(("last", "moves"), [(0.76, False), (0.78, True), (0.72, True)])
def test_a_setting_whose_oracle_still_moved_is_named(tmp_path, last, moves):
    oracle, bct = configs(["independent", "bct"])
    write_looks(write_run(tmp_path, oracle, 0.4, 0.0, 0.9), {3: 0.5, 6: 0.75, 9: last})
    write_run(tmp_path, bct, 0.4, 0.5, 0.9)
    frame = results.collect(tmp_path)
    said = tables.too_short(frame, {oracle.experiment_id: "Here", "absent": "There"})
    assert said.startswith("**Not trained long enough to judge:** Here (its oracle") == moves
    table = tables.flat_table(frame, {oracle.experiment_id: "Here", "absent": "There"})
    first, second = table.to_dict("records")
    named = f"{INDEPENDENT} ({100 * (last - 0.75):+.1f})"
    cells = ("none", named) if moves else (named, "none")
    assert tuple(first.values()) == ("Here", *cells)
    assert second["flat"] == second["still moving"] == "not recorded"


def test_who_made_the_runs(tmp_path):
    machine = {"processor": "P", "cores": 2, "threads": 1, "python": "3.11", "torch": "2.15", "device": "cpu"}
    for seed, commit in enumerate(("aaa", "aaa", "bbb+changes")):
        config = ExperimentConfig(method="bct", seed=seed)
        more = [Record(None, None, "train/seconds", None if seed == 2 else 90.0)]
        folder = write_run(tmp_path, config, 0.4, 0.5, 0.9, more=more)
        made = machine | {"commit": commit, "finished": f"2026-01-0{seed + 1}T"}
        made |= {"precision": "float32"} if seed == 2 else {}  # older runs did not keep it
        write_json(folder / "environment.json", made)
    runs = reading.read_runs(tmp_path).runs
    first, second = tables.provenance_table(runs).to_dict("records")
    assert list(first.values()) == [
        *("your runs", "P, 2 cores, threads used: 1", "Python 3.11, torch 2.15"),
        *("aaa", "2", "3.0", "2026-01-01 to 2026-01-02"),
    ]
    assert second["commit"] == "bbb+changes" and second["minutes of training"] == "not kept"
    assert second["days"] == "2026-01-03"
    assert f"{config.experiment_id} (2 commits)" in tables.mixed_code(runs)
    assert second["software"] == "Python 3.11, torch 2.15, float32"
    assert tables.mixed_code(runs[runs["seed"] < 2]) == ""
    write_json(runs["run"].iloc[0].folder / "environment.json", {"precision": "bfloat16"})
    mixed = tables.mixed_code(reading.read_runs(tmp_path).runs)
    assert f"more than one precision: {config.experiment_id}" in mixed
    nothing = reading.read_runs(tmp_path / "absent").runs
    assert tables.provenance_table(nothing).empty and tables.mixed_code(nothing) == ""
    assert tables.flat_table(nothing, {}).empty


# -- one run beside its oracle ---------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path):
    oracle, run = configs(["independent", "dual_tuning"])
    more = [Record("new", "old", "map", 0.3, adapter="ridge"), Record("old", "old", "rank1", 0.7, 0.6, 0.8)]
    folders = [
        write_run(tmp_path, run, 0.4, 0.5, 0.7, width=0.01, metric="map", images=1200),
        write_run(tmp_path, oracle, 0.4, 0.02, 0.7, width=0.0, metric="map", more=more),
    ]
    return tuple(Run(folder) for folder in folders)


def test_a_run_beside_its_oracle(pair):
    table = tables.run_table(*pair).set_index("query/gallery")[["mAP", "rank-1"]]
    assert list(table.index) == ["old/old", "new/old", "new/new", "oracle new/old", "oracle new/new"]
    assert table.loc["new/new"].tolist() == ["70.0 [69.0, 71.0]", "n/a"]
    assert len(tables.run_table(pair[1], pair[1])) == 3
    adapted = tables.adapter_table(pair[1]).set_index("new/old")
    assert adapted["rank-1"].tolist() == ["70.0 [60.0, 80.0]", "n/a", "n/a"]
    assert adapted.loc["ridge adapter, gallery to new", "mAP"] == "30.0"


def test_verdict_by_hand(pair):
    (line,) = tables.verdict_table(*pair, "map").to_dict("records")
    # draws of new/old - old/old spread over 0.1 +- 0.02, 95 % of them over 0.1 +- 0.019
    assert line["new/old - old/old"] == "+10.0 [+8.1, +11.9]" and line["new/old > old/old"] == "yes"
    assert line["update gain"].startswith("+0.33 [")  # 0.1 / 0.3
    assert line["new/new minus oracle"].startswith(("+0.0 [-0.9", "-0.0"))
    (own,) = tables.verdict_table(pair[1], pair[1], "map").to_dict("records")
    assert own["new/new minus oracle"] == "is the oracle" and own["new/old > old/old"] == "no"
    (none,) = tables.verdict_table(*pair, "rank5").to_dict("records")
    assert set(none.values()) == {"rank-5", "n/a"}


def test_ablation_is_relative_to_the_first(pair):
    table = tables.ablation_table({"as configured": pair[1], "changed": pair[0]}, "map").set_index("variant")
    assert table.loc["as configured"].tolist() == ["2.0", "", "70.0", "", "20", "1,000"]
    # the draws spread over 0.48 +- 0.01, 95 % of them over 0.48 +- 0.0095
    assert table.loc["changed", "new/old change"] in ("+48.0 [+47.0, +48.9]", "+48.0 [+47.0, +49.0]")
    assert table.loc["changed", "new/new change"].endswith(", within noise")
    assert table.loc["changed", "images through the network"] == "1,200"


def test_recorded_values_hold_the_pairs_the_oracle_and_the_adapters(pair):
    values = tables.recorded_values(pair[1], pair[1])
    assert values["adapter/ridge/new_old/map"] == 0.3
    assert values["oracle/new_old/map"] == values["new_old/map"] == 0.02
    assert values["new_old/tar@far=1e-2"] is None and values["backbone_images"] == 1000


def test_tables_stand_side_by_side_without_scripts(three_seeds):
    rows = rows_of(three_seeds)
    both = [tables.styled(tables.result_table(rows)), tables.styled(tables.first_day_table(rows))]
    html = tables.side_by_side(both)
    assert html.count("<table") == 2 and "flex-wrap" in html and "<script" not in html
    assert np.unique([table.uuid for table in both]).size == 2
