"""Numbers of runs side by side, from run folders whose numbers can be checked by hand."""

import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
from synthetic_runs import METRIC, configs, write_looks, write_run, write_three_seeds

from companion import reading, results, tables
from companion.titles import ADAPTERS
from compat_lib.config import ExperimentConfig
from compat_lib.evaluation.records import Record
from compat_lib.losses import method_options


@pytest.fixture
def three_seeds(tmp_path):
    return write_three_seeds(tmp_path)


def row_of(rows, method, budget="steps"):
    (row,) = rows[(rows["method"] == method) & (rows["budget"] == budget)].to_dict("records")
    return row


def test_collect_has_one_row_a_run(three_seeds):
    frame = results.collect(three_seeds, three_seeds)
    assert len(frame) == 6 and set(frame["test_identities"]) == {200}
    run = next(three_seeds.glob("*/mixbct-s2*"))
    backup = shutil.copytree(run, run.with_name("before-" + run.name))  # its path comes first
    assert list(results.collect(three_seeds)["folder"]) == list(frame["folder"])
    shutil.rmtree(backup)
    (next(three_seeds.glob("*/mixbct-s2*")) / "metrics.json").unlink()  # not complete
    assert len(results.collect(three_seeds)) == 5


def test_experiments_whose_first_test_is_another_s_count_once(tmp_path):
    """A second test of other poses is of the same models; other looks or wrong old features are not."""
    once = {"dataset_options": {"looks": 2}}, {"old_outliers": 0.2}, {}
    shifted = [{"dataset_options": {"test_pose": pose, "test_light": 1.2}} for pose in (0.9, 1.5)]
    for fields in (*once, *shifted):
        for method in ("bct", "l2")[: 1 + (fields == shifted[1])]:
            write_run(tmp_path, ExperimentConfig(method=method, **fields), 0.4, 0.5, 0.9)
    kept = {ExperimentConfig(**fields).experiment_id for fields in (*once[:2], shifted[1])}  # with most runs
    assert set(found := results.distinct(results.collect(tmp_path))) == kept and len(found) == len(kept)


def test_one_seed_gives_the_paired_bootstrap(tmp_path):
    oracle, bct = configs(["independent", "bct"])
    write_run(tmp_path, oracle, 0.4, 0.0, 0.9, width=0.0)
    write_run(tmp_path, bct, 0.4, 0.6, 0.92, width=0.1)
    row = row_of(results.scores(results.collect(tmp_path)), "bct")
    # the draws of the difference run evenly over 0.2 +- 0.2: 95 % of them over 0.2 +- 0.19
    assert (row["margin"], row["margin_low"], row["margin_high"]) == pytest.approx((0.2, 0.01, 0.39))
    # gain of a draw t in [-0.1, 0.1]: (0.2 + 2 t) / (0.5 + t), monotone in t
    assert row["gain"] == pytest.approx(0.4) and math.isnan(row["gain_deviation"])
    assert row["gain_low"] == pytest.approx((0.2 - 0.19) / (0.5 - 0.095), abs=1e-3)
    assert row["gain_high"] == pytest.approx((0.2 + 0.19) / (0.5 + 0.095), abs=1e-3)


def test_without_draws_there_is_no_interval(tmp_path):
    for config in configs(["independent", "bct"]):
        write_run(tmp_path, config, 0.4, 0.6, 0.9)
    row = row_of(results.scores(results.collect(tmp_path)), "bct")
    assert row["gain"] == pytest.approx(0.4) and math.isnan(row["gain_low"]) and not row["decided"]


def test_seeds_are_paired_with_their_own_oracle(tmp_path):
    for seed, best in ((0, 0.8), (1, 0.6)):
        oracle, bct = configs(["independent", "bct"], [seed])
        write_run(tmp_path, oracle, 0.4, 0.0, best)
        write_run(tmp_path, bct, 0.4, 0.5, 0.9)
    row = row_of(results.scores(results.collect(tmp_path)), "bct")
    assert row["gain"] == pytest.approx((0.1 / 0.4 + 0.1 / 0.2) / 2)


def test_what_is_expected_is_there_and_nothing_else_of_its_experiment(three_seeds):
    write_run(three_seeds, ExperimentConfig(method="l2"), 0.4, 0.5, 0.9)
    write_run(three_seeds, ExperimentConfig(method="l2", scenario="extended-class"), 0.4, 0.5, 0.9)
    expected = configs(["independent", "bct", "mixbct"], [0, 1, 2, 3])
    rows = results.scores(results.collect(three_seeds), METRIC, expected)
    assert rows["method"].tolist()[:3] == ["independent", "bct", "mixbct"]
    assert rows["method"].tolist()[-1] == "l2" and rows["scenario"].tolist()[-1] == "extended-class"
    assert (row_of(rows, "mixbct")["n"], row_of(rows, "mixbct")["seeds"]) == (3, 4)
    assert row_of(rows, "bct")["n"] == 0
    # an adapter is measured with the independent run; here none was
    adapters = rows[rows["method"].str.startswith("adapter/")]
    assert len(adapters) == len(ADAPTERS) and adapters["new_old"].isna().all()


def test_adapters_come_from_the_independent_run(tmp_path):
    (oracle,) = configs(["independent"])
    drawn = np.array([0.45, *[0.5] * 99, 0.55])
    more = [
        Record("new", "old", METRIC, 0.5, 0.45, 0.55, adapter="procrustes", draws=drawn),
        Record("new", "old", "map", 0.4, adapter="ridge"),
        Record("new", "old", "negative_flips", 0.9),
    ]
    write_run(tmp_path, oracle, 0.4, 0.01, 0.9, width=0.0, more=more)
    rows = results.scores(results.collect(tmp_path))
    assert rows["method"].tolist() == ["independent", "adapter/procrustes", "adapter/ridge"]
    row = row_of(rows, "adapter/procrustes")
    assert (row["old_old"], row["new_old"], row["new_new"]) == (0.4, 0.5, 0.9)
    assert (row["gain"], row["margin_low"], row["cost"], row["criterion"]) == pytest.approx((0.2, 0.1, 1, 1))
    assert math.isnan(row["flips"]) and row_of(rows, "independent")["flips"] == 0.9
    assert math.isnan(row_of(rows, "adapter/ridge")["new_old"])  # only its mAP was measured


def test_equal_passes_is_a_row_of_its_own(three_seeds):
    config = ExperimentConfig(method="mixbct", budget="passes")
    write_run(three_seeds, config, 0.4, 0.3, 0.92, seconds=8, epochs=29)
    rows = results.scores(results.collect(three_seeds))
    assert row_of(rows, "mixbct", "passes")["cost"] == pytest.approx(8 * 29 / (10 * 20))
    assert row_of(rows, "mixbct")["n"] == 3
    points = results.points(rows, config.experiment_id)
    assert list(points) == ["independent", "mixbct", "mixbct (equal passes)"]
    assert (points["mixbct"]["cross"], points["mixbct"]["cross_low"]) == pytest.approx((0.65, 0.60))
    assert points["mixbct"]["criterion"] is True and points["mixbct (equal passes)"]["criterion"] is False
    assert points["mixbct (equal passes)"]["self_low"] is None and points["mixbct"]["title"] == "MixBCT"
    assert results.bounds(rows, config.experiment_id) == pytest.approx({"old_old": 0.4, "oracle": 0.9})
    assert results.bounds(rows, "absent") == {"old_old": None, "oracle": None}


def test_cost_is_processor_time_where_both_runs_have_it(tmp_path):
    oracle, bct = configs(["independent", "bct"])
    for config, seconds in ((oracle, 100.0), (bct, 110.0)):
        more = [Record(None, None, "train/processor_seconds", seconds)]
        write_run(tmp_path, config, 0.4, 0.5, 0.9, seconds=seconds**2, more=more)
    assert row_of(results.scores(results.collect(tmp_path)), "bct")["cost"] == pytest.approx(1.1)
    write_run(tmp_path, bct, 0.4, 0.5, 0.9, seconds=90000)
    assert row_of(results.scores(results.collect(tmp_path)), "bct")["cost"] == pytest.approx(9)


def test_old_runs_are_no_row(tmp_path):
    (oracle,) = configs(["independent"])
    write_run(tmp_path, oracle, 0.4, 0.0, 0.9)
    write_run(tmp_path, oracle, 0.4, 0.0, 0.9, old=True)
    frame = results.collect(tmp_path)
    assert sorted(frame["method"]) == ["independent", "old"]
    assert results.scores(frame)["method"].tolist() == ["independent"]


def test_an_ablation_never_stands_for_its_method(tmp_path):
    for options in ({"weight": 1.0}, {"weight": 2.0}, {}):
        write_run(tmp_path, ExperimentConfig(method="bct", method_options=options), 0.4, 0.5, 0.9)
    frame = results.collect(tmp_path)
    assert results.main_variant(frame, "bct")["method_options"].tolist() == ["{}"]
    rest = frame[frame["method_options"] != "{}"]
    assert results.main_variant(rest, "bct")["method_options"].tolist() == ['{"weight": 1.0}']


def test_curves_are_means_over_seeds(tmp_path):
    for seed, value in enumerate((0.5, 0.75)):
        config = ExperimentConfig(method="mixbct", seed=seed)
        mixed = {1.0: 0.75, 0.0: value}
        more = [Record("new", "mixed", "map", v, order="random", share=s) for s, v in mixed.items()]
        more.append(Record("new", "mixed", "area/map", 0.6, order="random"))
        folder = write_run(tmp_path, config, 0.4, 0.6, 0.9, more=more)
        write_looks(folder, {3: 0.5, 6: 0.75, 9: 0.75 + 0.25 * seed})
    two = {"query": "new", "gallery": "mixed", "metric": "map", "order": "random", "adapter": "rank-merge"}
    merged = [Record(**two, value=0.4 + 0.5 * s, share=s) for s in (1.0, 0.0)]
    write_run(tmp_path, ExperimentConfig(method="independent"), 0.4, 0.0, 0.9, more=merged)
    frame = results.collect(tmp_path)
    curves = results.backfill_curves(frame, config.experiment_id)
    assert list(curves) == ["mixbct", results.MERGED]
    assert curves[results.MERGED][1].tolist() == [0.4, 0.9]
    shares, mean, low, high = curves["mixbct"]
    assert shares == [0.0, 1.0] and mean.tolist() == [0.625, 0.75]
    # two values a quarter apart: the deviation is 0.25 / sqrt(2)
    assert low == pytest.approx([0.625 - 0.25 / 2**0.5, 0.75])
    assert high == pytest.approx([0.625 + 0.25 / 2**0.5, 0.75])
    looks = results.histories(frame, config.experiment_id)["mixbct"]
    assert looks["val/new_new/tar@far=1e-2"].tolist() == [0.5, 0.75, 0.875]


# -- whose runs ------------------------------------------------------------------------------------


def test_an_experiment_is_taken_from_one_place(tmp_path):
    mine, theirs = tmp_path / "runs", tmp_path / "results"
    begun, other = configs(["independent", "bct"]), configs(["bct"], scenario="extended-class")
    write_run(mine, begun[1], 0.4, 0.5, 0.9)
    for config in (*begun, *other):
        write_run(theirs, config, 0.3, 0.6, 0.8)
    write_run(mine, ExperimentConfig(method="bct", seed=7), 0.4, 0.5, 0.9)  # not in the preset
    read = reading.read_runs(mine, theirs, begun)
    assert read.place(begun[0].experiment_id) == reading.YOURS
    assert read.place(other[0].experiment_id) == reading.AUTHORS
    assert (read.count(reading.YOURS), read.count(reading.AUTHORS)) == (1, 1)
    assert (read.missing, read.left_out) == (1, 1)
    rows = read.rows(METRIC)
    assert row_of(rows[rows["experiment_id"] == begun[0].experiment_id], "bct")["old_old"] == 0.4
    assert row_of(rows, "independent")["n"] == 0  # missing, not borrowed from the other machine
    said = read.summary("make x")
    assert "Missing: 1 of the preset's 2 (`make x`" in said and "not in the preset: 1 of yours" in said
    assert "200 test identities" in read.note(begun[0].experiment_id) and "Too few" not in said
    few = dataclasses.replace(read, runs=read.runs.assign(test_identities=29)).summary("make x")
    assert f"which needs 30: {begun[0].experiment_id}, {other[0].experiment_id}. Look at mAP" in few


def test_runs_of_two_old_models_are_told(tmp_path):
    """Such as a folder into which the runs of another machine were copied."""
    both = ["independent", "bct"], [0, 1]
    alone, other = (configs(*both, scenario=one) for one in ("open-class", "open-data"))
    for number, config in enumerate((*alone, *other)):
        write_run(tmp_path, config, 0.4 + 0.1 * config.seed + 1e-3 * (number == 3), 0.5, 0.9, metric="map")
    read = reading.read_runs(tmp_path)
    assert read.mixed == [alone[0].experiment_id]
    assert f"Not to be compared: the runs of {read.mixed[0]}, whose old/old differs" in read.summary("make x")


def test_the_authors_fill_an_experiment_that_is_not_begun(tmp_path):
    expected = configs(["bct"], [0, 1])
    write_run(tmp_path / "results", expected[0], 0.4, 0.6, 0.9)
    assert reading.read_runs(tmp_path / "runs", tmp_path / "results", expected).missing == 1
    nothing = reading.read_runs(tmp_path / "runs", None, expected)
    assert nothing.missing == 2 and "nothing to show yet: run `make x`" in nothing.summary("make x")
    assert nothing.rows()["n"].tolist() == [0]
    assert reading.read_runs(tmp_path / "runs").rows().empty


def test_an_unknown_metric_is_refused(three_seeds):
    with pytest.raises(ValueError, match="no run has the metric 'tar'; there are tar@far=1e-3"):
        reading.read_runs(three_seeds).rows("tar")


def test_a_second_test_part_and_the_ceiling_of_the_old_features(tmp_path):
    oracle, bct = configs(["independent", "bct"])
    best = Record("old", "old", METRIC, 0.75, adapter="mean-of-five")
    pairs = (("old", "old", 0.3), ("new", "old", 0.5), ("new", "new", 0.6))
    inside = [Record(q, g, METRIC, value, part="in-domain") for q, g, value in pairs]
    write_run(tmp_path, oracle, 0.4, 0.0, 0.9, more=[best, *inside])
    write_run(tmp_path, bct, 0.4, 0.45, 0.9, more=inside)
    frame = results.collect(tmp_path)
    assert results.parts(frame) == ["in-domain"]
    row = row_of(results.scores(frame), "bct")
    assert (row["new_old"], row["mean-of-five"], row["cost"]) == (0.45, 0.75, 1.0)
    other = row_of(results.scores(results.on(frame, "in-domain")), "bct")
    assert (other["old_old"], other["new_old"], other["new_new"], other["cost"]) == (0.3, 0.5, 0.6, 1.0)
    assert math.isnan(other["mean-of-five"])
    whole = reading.read_runs(tmp_path)
    table = tables.result_table(whole.rows(METRIC), {"in-domain": whole.rows(METRIC, "in-domain")})
    names = ["new/old", "new/new", "new/old, in-domain", "new/new, in-domain"]
    assert table.columns[1:5].tolist() == names
    assert table["new/old"].tolist()[:3] == ["40.0", "75.0", "90.0"]  # bar, ceiling, full backfill
    assert table["new/old, in-domain"].tolist()[:3] == ["30.0", "", "60.0"]
    assert table["new/old, in-domain"].tolist()[-1] == "50.0"


def test_options_that_are_defaults_are_no_variant(tmp_path):
    for share in (0.9, 0.7):
        config = ExperimentConfig(method="mixbct", method_options={"credible_share": share})
        write_run(tmp_path, config, 0.4, 0.5, 0.9)
    default = method_options("mixbct")["credible_share"]
    told = set(results.collect(tmp_path)["method_options"])
    assert told == {"{}" if s == default else f'{{"credible_share": {s}}}' for s in (0.9, 0.7)}


def test_a_run_of_other_defaults_is_a_variant(tmp_path):
    thens = {"mixbct": {"mix_ratio": 0.2}, "nccl": {"credible": "all"}}  # which is no option any more
    for method, then in thens.items():
        write_run(tmp_path, ExperimentConfig(method=method), 0.4, 0.5, 0.9)
        (path,) = tmp_path.glob(f"*/{method}-*/config.json")
        used = json.dumps(method_options(method) | then)
        path.write_text(json.dumps(json.loads(path.read_text()) | {"made_of": {"method options": used}}))
    found = results.collect(tmp_path).set_index("method")["method_options"]
    assert found["mixbct"] == '{"mix_ratio": 0.2}' and found["nccl"] == "{}"
