"""The search for options: the same trials everywhere, within their ranges, blind, and none trained twice."""

import json
import math

import pandas as pd
import pytest
import readme
import tune
import yaml
from tiny_runs import TINY

from companion.tuning import COLUMNS, best, finalists, finished, read_lines, read_search, scores
from compat_lib.losses import METHODS, method_options

DECLARED = tune.ROOT / "configs/tuning/search.yml"
NOT_SEARCHED = {  # forms, sizes and schedules
    "advbct": {"hidden"},
    "bc_emb": {"weight"},  # which came after the search
    "bct": {"variant", "average"},
    "bt2": {"extra"},
    "dual_tuning": {"logits"},
    "fct": {"expansion", "fit_epochs", "fit_batch_size"},
    "fastfill": {"expansion", "fit_epochs", "fit_batch_size"},
    "hot_refresh": {"negatives"},
    "mixbct": {"columns", "pad"},
    "nccl": {"queue"},
    "neighbours": {"positives", "rows", "mix_ratio"},
    "unibct": {"start_share", "refresh_share"},
}


@pytest.fixture(scope="module")
def declared():
    return read_search(DECLARED)


def declare(folder, methods, **changes):
    content = {"description": "tiny", "trials": 1, "finalists": 1, "seeds": [100], "methods": methods}
    content["defaults"] = {"old_epochs": 1, "epochs": 1, "bootstrap_draws": 0}
    content["datasets"] = [{"dataset": "portraits"} | TINY]
    (folder / "search.yml").write_text(yaml.safe_dump(content | changes))
    return folder / "search.yml"


def test_every_method_is_declared_with_every_weight_temperature_and_scale(declared):
    assert set(declared.ranges) == set(METHODS)
    for method, ranges in declared.ranges.items():
        assert set(ranges) == set(method_options(method)) - NOT_SEARCHED.get(method, set()), method


def test_draws_lie_in_their_ranges_and_repeat(declared):
    for method, ranges in declared.ranges.items():
        draws = declared.draws(method)
        assert draws == read_search(DECLARED).draws(method) and len(draws) == 8
        assert all(ranges[name][0] <= one[name] <= ranges[name][2] for one in draws for name in ranges)
        assert not ranges or len({json.dumps(one) for one in draws}) == 8
    assert declared.draws("l2")[0] == {"weight": 28.3}  # on every machine


def test_each_part_of_a_range_is_drawn_from_once(declared):
    for method, ranges in declared.ranges.items():
        for name, (low, _, high) in ranges.items():
            values = sorted(one[name] for one in declared.draws(method))
            places = [8 * math.log(value / low) / math.log(high / low) for value in values]
            assert all(part - 0.1 <= place <= part + 1.1 for part, place in enumerate(places)), (method, name)


def test_every_trial_is_planned_once_method_by_method(declared):
    plan = declared.plan()
    assert len({trial.config.run_folder for trial in plan}) == len(plan) == 18 * 9 * 2
    assert [trial.number for trial in plan[:36]] == [0] * 18 + [1] * 18
    assert {trial.config.seed for trial in plan} == {100}
    assert {cell.seed for cell in declared.cells} == {100, 101}
    assert list(dict.fromkeys(trial.config.dataset for trial in plan)) == ["portraits", "omniglot"]
    assert declared.planned == 18 * declared.planned_each == 18 * (9 * 2 + 3 * 2)


def test_trials_are_trained_once_on_validation_images_alone(tmp_path, monkeypatch, capsys):
    path = declare(tmp_path, {"fct": {"fit_lr": [1e-4, 5e-4, 1e-2]}})
    search = read_search(path, runs_root=str(tmp_path / "runs"), data_root=str(tmp_path / "data"))
    tune.tune(search, tmp_path / "lines")
    lines = read_lines(tmp_path / "lines", "portraits")
    assert list(lines.columns) == list(COLUMNS) and len(lines) == 2
    assert lines[["new_old", "new_new", "old_old", "oracle"]].notna().all(axis=None)
    assert lines["old_old"].nunique() == lines["oracle"].nunique() == 1
    assert (lines["new_new"] == lines["oracle"]).all()  # FCT's new model is the oracle
    kept = {folder.name.split("-")[0] for folder in (tmp_path / "runs").glob("*/[!.]*")}
    assert kept == {"old", "independent"}
    blind = tune.Blind(search.plan()[0].config)
    assert blind.data.test is blind.data.val and blind.oracle.data.test is blind.oracle.data.val
    capsys.readouterr()
    monkeypatch.setattr(tune, "run", None)  # nothing is left to train
    tune.tune(search, tmp_path / "lines")
    assert capsys.readouterr().out == ""
    lines.assign(processor="another").to_csv(tmp_path / "lines/portraits.csv", index=False)
    with pytest.raises(ValueError, match="holds trials of another with .* --other-machine"):
        tune.tune(search, tmp_path / "lines")
    tune.tune(search, tmp_path / "lines", other_machine=True)


def test_a_loss_that_stops_being_a_number_is_a_line_without_values(tmp_path):
    path = declare(tmp_path, {"l2": {"weight": [1e38, 1e39, 1e40]}})
    search = read_search(path, runs_root=str(tmp_path / "runs"), data_root=str(tmp_path / "data"))
    tune.tune(search, tmp_path / "lines")
    lines = read_lines(tmp_path / "lines", "portraits")
    assert len(lines) == 2 and lines["failure"].str.contains("is not finite").all()
    assert lines[["new_old", "new_new", "processor_seconds"]].isna().all(axis=None)
    assert best(scores(search, finished(search, tmp_path / "lines")), "l2") is None


def written(search, trials, values, folder):
    """Lines with (new/old, new/new) of each seed and trial; old/old is 0.4 and the oracle 0.9."""
    rows = [
        {"method": trial.method, "trial": trial.number, "dataset": "portraits", "seed": trial.config.seed}
        | {"run": trial.config.run_id, "old_old": 0.4, "oracle": 0.9}
        | dict(zip(("new_old", "new_new"), values[trial.config.seed, trial.number], strict=True))
        for trial in trials
        if (trial.config.seed, trial.number) in values
    ]
    other = rows[0] | {"run": "of-another-declaration"}
    pd.DataFrame([*rows, other], columns=list(COLUMNS)).to_csv(folder / "portraits.csv", index=False)
    return finished(search, folder)


def test_scores_by_hand_and_the_finalists_alone_have_the_second_seed(tmp_path):
    path = declare(tmp_path, {"l2": {"weight": [1, 10, 100]}}, seeds=[100, 101], trials=3)
    search = read_search(path)
    everywhere = [search.trial("l2", number, cell) for cell in search.cells for number in range(4)]
    first = {(100, 0): (0.5, 0.7), (100, 1): (0.6, 0.9), (100, 2): (0.6, 0.8)}
    lines = written(search, everywhere, first, tmp_path)
    assert len(lines) == 3 and finalists(search, lines, "l2") == []  # trial 3 is missing
    assert scores(search, lines)["score"].isna().all()
    first[100, 3] = (0.4, 0.8)
    lines = written(search, everywhere, first | {(101, 2): (0.9, 0.9)}, tmp_path)
    found = scores(search, lines)
    # (10 - 20) / 2, (20 + 0) / 2, (20 - 10) / 2, (0 - 10) / 2
    assert found["score"].tolist() == pytest.approx([-5, 10, 5, -5]) and set(found["cells"]) == {1}
    assert finalists(search, lines, "l2") == [0, 1] and len(lines) == 4  # trial 2 is no finalist
    assert [(one.config.seed, one.number) for one in search.plan(lines)[4:]] == [(101, 0), (101, 1)]
    second = {(101, 0): (0.6, 0.9), (101, 1): (0.2, 0.9)}
    lines = written(search, everywhere, first | second, tmp_path)
    found = scores(search, lines)
    assert found["score"].tolist() == pytest.approx([2.5, 0, 5, -5])
    assert found["cells"].tolist() == [2, 2, 1, 1]
    assert found["gain"].tolist()[:2] == pytest.approx([15, 0])
    assert best(found, "l2")["trial"] == 0  # 2 has a higher score, but is no finalist
    page = readme.SearchResults(search.path, tmp_path)
    assert page.done == page.planned == 6
    cells = ["L2 regression", "the default", "+2.5", "+15.0", "-10.0", "+2.5", "6 of 6", "0", "2 of 2"]
    assert page.outcome().splitlines()[-1] == f"| {' | '.join(cells)} |"
    lines.loc[lines["trial"] == 1, ["new_old", "new_new"]] = None  # it failed
    assert finalists(search, lines, "l2") == [0, 2]


@pytest.mark.parametrize(
    ("methods", "sentence"),
    [
        ({"l3": {}}, "there is no method 'l3'"),
        ({"l2": {"wait": [1, 2, 3]}}, "l2 has no option 'wait'; options: weight"),
        ({"l2": {"weight": [1, 200, 100]}}, r"must be \[low, default, high\] in this order"),
    ],
)
def test_a_wrong_declaration_is_a_sentence(tmp_path, methods, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_search(declare(tmp_path, methods))
