"""The search for options: the same trials everywhere, within their ranges, blind, and none trained twice."""

import math

import numpy as np
import options_page
import pandas as pd
import pytest
import tune
import yaml
from tiny_runs import TINY

from compat_lib.losses import METHODS, method_options

DECLARED = tune.ROOT / "configs/tuning/search.yml"
NOT_SEARCHED = {  # forms, sizes and schedules
    "advbct": {"hidden"},
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
    return tune.read_search(DECLARED)


def read(folder, methods, **changes):
    """A search over small data, with its runs in the folder."""
    places = {"runs_root": str(folder / "runs"), "data_root": str(folder / "data")}
    return tune.read_search(declare(folder, methods, **changes), **places)


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


def test_each_part_of_a_range_is_drawn_from_once_and_alike_on_every_machine(declared):
    for method, ranges in declared.ranges.items():
        default, *draws = declared.options(method)
        assert len(draws) == 8 and default == {name: one[1] for name, one in ranges.items()}
        for name, (low, _, high) in ranges.items():
            values = sorted(one[name] for one in draws)
            assert low <= values[0] and values[-1] <= high
            places = [8 * math.log(value / low) / math.log(high / low) for value in values]
            assert all(part - 0.1 <= place <= part + 1.1 for part, place in enumerate(places)), (method, name)
    assert declared.options("l2")[1] == {"weight": 28.3}


def test_every_trial_is_planned_once_method_by_method(declared):
    table = declared.table(pd.DataFrame(columns=tune.COLUMNS))
    assert table["run"].nunique() == len(table) == 19 * 9 * 2 and not table["there"].any()
    assert table["trial"].tolist()[:38] == [0] * 19 + [1] * 19
    assert {cell.seed for cell in declared.cells} == {100, 101} != {one.seed for one in table["config"]}
    assert list(dict.fromkeys(one.dataset for one in table["config"])) == ["portraits", "omniglot"]
    assert declared.planned_each == 9 * 2 + 3 * 2


def test_every_method_has_the_options_that_the_search_found(declared):
    page = options_page.Search(DECLARED, tune.ROOT / "results/tuning")
    for method, own in page.table.groupby("method"):
        found = tune.scores(own)
        best = found.loc[found["cells"] == len(declared.cells), "score"].idxmax()
        assert method_options(method).items() >= declared.options(method)[best].items(), method


def test_trials_are_trained_once_on_validation_images_alone(tmp_path, monkeypatch, capsys):
    search = read(tmp_path, {"fct": {"fit_lr": [1e-4, 5e-4, 1e-2]}})
    tune.tune(search, tmp_path / "lines")
    ((file, lines),) = tune.read_lines(search, tmp_path / "lines").items()
    assert list(lines.columns) == tune.COLUMNS and len(lines) == 2
    assert lines[tune.MEASURED].notna().all(axis=None)
    assert lines["old_old"].nunique() == lines["oracle"].nunique() == 1
    assert (lines["new_new"] == lines["oracle"]).all()  # FCT's new model is the oracle
    kept = {folder.name.split("-")[0] for folder in (tmp_path / "runs").glob("*/[!.]*")}
    assert kept == {"old", "independent"}
    blind = tune.Blind(search.table(lines)["config"][0])
    assert blind.data.test is blind.data.val and blind.oracle.data.test is blind.oracle.data.val
    capsys.readouterr()
    monkeypatch.setattr(tune, "run", None)  # nothing is left to train
    tune.tune(search, tmp_path / "lines")
    assert capsys.readouterr().out == ""
    lines.assign(processor="another").to_csv(file, index=False)
    with pytest.raises(ValueError, match="holds trials of another with .* --other-machine"):
        tune.tune(search, tmp_path / "lines")
    tune.tune(search, tmp_path / "lines", other_machine=True)


def test_a_loss_that_stops_being_a_number_is_a_line_without_values(tmp_path):
    search = read(tmp_path, {"l2": {"weight": [1e38, 1e39, 1e40]}})
    tune.tune(search, tmp_path / "lines")
    (lines,) = tune.read_lines(search, tmp_path / "lines").values()
    assert len(lines) == 2 and lines["failure"].str.contains("is not finite").all()
    assert lines[["new_old", "new_new", "processor_seconds"]].isna().all(axis=None)
    page = options_page.Search(tmp_path / "search.yml", tmp_path / "lines")
    cells = ["L2 regression", "", "", "", "", "", "2 of 2", "2", "1 of 1"]
    assert page.outcome().splitlines()[-1] == f"| {' | '.join(cells)} |"


def written(search, values, folder):
    """The page, with lines of (new/old, new/new) of each seed and trial; old/old is 0.4, the oracle 0.9."""
    cells = {cell.seed: cell for cell in search.cells}
    rows = []
    for (seed, trial), (new_old, new_new) in values.items():
        config = cells[seed].changed(method="l2", method_options=search.options("l2")[trial])
        rows.append({"run": config.run_id, "new_old": new_old, "new_new": new_new})
    rows.append(rows[0] | {"run": "of-another-declaration"})
    frame = pd.DataFrame(rows, columns=tune.COLUMNS).assign(old_old=0.4, oracle=0.9)
    frame.to_csv(folder / "portraits.csv", index=False)
    return options_page.Search(folder / "search.yml", folder)


def test_scores_by_hand_and_the_finalists_alone_have_the_second_seed(tmp_path):
    search = read(tmp_path, {"l2": {"weight": [1, 10, 100]}}, seeds=[100, 101], trials=3)
    first = {(100, 0): (0.5, 0.7), (100, 1): (0.6, 0.9), (100, 2): (0.6, 0.8)}
    page = written(search, first, tmp_path)
    assert page.table["there"].tolist() == [True, True, True, False]  # of another declaration is left out
    assert tune.scores(page.table)["score"].isna().all()  # trial 3 is missing
    first[100, 3] = (0.4, 0.8)
    page = written(search, first | {(101, 2): (0.9, 0.9)}, tmp_path)
    found = tune.scores(page.table)
    # (10 - 20) / 2, (20 + 0) / 2, (20 - 10) / 2, (0 - 10) / 2
    assert found["score"].tolist() == pytest.approx([-5, 10, 5, -5]) and set(found["cells"]) == {1}
    second = page.table[~page.table["first"]]
    assert second["trial"].tolist() == [0, 1] and not second["there"].any()  # trial 2 is no finalist
    second = {(101, 0): (0.6, 0.9), (101, 1): (0.2, 0.9)}
    page = written(search, first | second, tmp_path)
    found = tune.scores(page.table)
    assert found["score"].tolist() == pytest.approx([2.5, 0, 5, -5])
    assert found["cells"].tolist() == [2, 2, 1, 1]
    assert found["gain"].tolist()[:2] == pytest.approx([15, 0])
    # trial 2 has a higher score, but is no finalist
    cells = ["L2 regression", "the default", "+2.5", "+15.0", "-10.0", "+2.5", "6 of 6", "0", "2 of 2"]
    assert page.outcome().splitlines()[-1] == f"| {' | '.join(cells)} |"
    failed = written(search, first | {(100, 1): (np.nan, np.nan)}, tmp_path).table
    assert failed[~failed["first"]]["trial"].tolist() == [0, 2]


@pytest.mark.parametrize(
    ("methods", "sentence"),
    [
        ({"l3": {}}, "the method is 'l3'; choose"),
        ({"l2": {"wait": [1, 2, 3]}}, "l2 has no option 'wait'; options: weight"),
        ({"l2": {"weight": [1, 200, 100]}}, r"must be \[low, default, high\] in this order"),
    ],
)
def test_a_wrong_declaration_is_a_sentence(tmp_path, methods, sentence):
    with pytest.raises(ValueError, match=sentence):
        tune.read_search(declare(tmp_path, methods))
