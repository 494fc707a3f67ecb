"""The pages with numbers are what their templates and the committed runs say."""

import sys

import pytest
import readme
from synthetic_runs import METRIC, configs, write_run

from compat_lib.evaluation.records import Record
from compat_lib.runs import read_json


@pytest.fixture(scope="module")
def results():
    return readme.Results()


@pytest.mark.parametrize("page", readme.PAGES)
def test_every_page_is_current(results, page):
    assert (readme.ROOT / page).read_text(encoding="utf-8") == results.render(page), "run make readme"


def test_the_figure_of_the_first_day_is_current(results):
    made_by = read_json(readme.ROOT / "figures/first_day.json")
    assert made_by["setting"] == results.setting_of(readme.OMNIGLOT) and made_by["method"] == readme.DRAWN


def test_one_page_is_written_alone(tmp_path, monkeypatch, capsys):
    """Nor are the runs read for the page of methods."""
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    monkeypatch.setattr(readme.Results, "render", lambda self, page: f"text of {page}")
    monkeypatch.setattr(sys, "argv", ["readme.py", "docs/methods.md"])
    for said in ("docs/methods.md", "none, all are current"):
        readme.main()
        assert capsys.readouterr().out == f"written: {said}\n"
    assert [path.read_text() for path in tmp_path.glob("*/*")] == ["text of docs/methods.md"]


THREE = configs(["independent", "bct", "mixbct"])
VALUES = (0.1, 0.6, 0.5), (0.9, 0.8, 0.9)  # their cross-tests and self-tests


@pytest.fixture
def made(tmp_path):
    """An oracle and two methods whose numbers are round."""
    for config, cross, own, seconds in zip(THREE, *VALUES, (20, 10, 20), strict=True):
        write_run(tmp_path, config, 0.4, cross, own, width=0.01, metric="map", seconds=seconds)
    return readme.Results(tmp_path), config.experiment_id


def test_numbers_and_differences_by_hand(made):
    found, setting = made
    assert list(found.settings().values()) == ["Portraits, open-class, softmax to ArcFace"]
    assert found.number(setting, "bct", "new/old", "map") == "60.0 [59.0, 61.0]"
    assert found.number(setting, "bct", "old/old", "map", interval=False) == "40.0"
    assert found.number(setting, "bct", "gain", "map", interval=False) == "+0.40"  # 0.2 / 0.5
    assert found.number(setting, "bct", "time", "map") == "0.50"
    # the draws of both spread together, and those of old/old against them: 0.2 +- 0.019
    assert found.difference(setting, "bct", "mixbct", metric="map") == "+10.0 [+10.0, +10.0]"
    assert found.difference(setting, "bct", metric="map") == "+20.0 [+18.1, +21.9]"
    assert found.difference(setting, "bct", "mixbct", "new/new", "map", interval=False) == "−10.0"


def test_a_table_of_chosen_methods_and_columns(made):
    found, setting = made
    columns = ("new/old", "update gain", "time")
    table = found.table(setting, *columns, metric="map", methods=("mixbct", "bct"), plain=("update gain",))
    assert table.splitlines() == [
        "| method | new/old | update gain | time |",
        "| --- | ---: | ---: | ---: |",
        "| MixBCT | 50.0 [49.0, 51.0] | +0.20 | 1.00 |",
        "| BCT | **60.0 [59.0, 61.0]** | +0.40 | 0.50 |",  # the best
    ]


def test_sentences_and_the_scoreboard(made):
    found, setting = made
    rows = found.rows(setting, "map")
    assert rows["new_old_best"].tolist() == [False, True, False]  # 0.6 against 0.5: equal draws around both
    found.rows = lambda *_, **__: rows
    assert found.names(setting, "margin", "above") == "BCT, MixBCT"
    assert found.names(setting, "self_change", "below") == "BCT"
    assert found.names(setting, "self_change", "within") == "MixBCT"
    assert found.names(setting, "margin", "below") == "none" and found.seeds(setting) == "one seed"
    assert found.scoreboard().splitlines()[2:] == [
        "| BCT | 1 | 1 | 0 | 0 | 0 | 0 | 1 |",
        "| MixBCT | 1 | 1 | 0 | 0 | 0 | 1 | 0 |",
    ]


def test_a_setting_is_named_by_its_preset(made):
    found, setting = made  # by defaults, which are not those of quick
    named = found.setting_of("quick:1")
    assert named.startswith("portraits-open-class-softmax-to-arcface") and named != setting


def test_methods_by_setting(tmp_path, monkeypatch):
    """Of a preset those settings that ran; a variant and a method that did not run have no column."""
    for config, cross, own in zip(THREE, *VALUES, strict=True):
        write_run(tmp_path, config, 0.4, cross, own, width=0.01)
    found, setting = readme.Results(tmp_path), config.experiment_id
    monkeypatch.setattr(found, "_planned", lambda preset: ["absent", setting])
    monkeypatch.setattr(found, "classes", lambda setting: 280)
    asked = ("bct", "mixbct(mix_ratio=0.9)", "l2"), {"preset": "quick", "fields": ("old_loss", "classes")}
    lines = found.by_setting("margin", *asked[0], **asked[1]).splitlines()
    assert lines[0] == "| old loss | classes | seeds | old/old | oracle | BCT |"
    assert lines[2] == "| softmax | 280 | 1 | 40.0 | 90.0 | +20.0 [+18.1, +21.9] |"
    for seed in (1, 2):  # which the oracle has not
        for config, cross, own in zip(configs(["bct", "mixbct"], [seed]), *VALUES, strict=False):
            write_run(tmp_path, config, 0.4, cross, own, width=0.01)
    more = readme.Results(tmp_path)
    monkeypatch.setattr(more, "_planned", lambda preset: [setting])
    monkeypatch.setattr(more, "classes", lambda setting: 280)
    ends = {name: more.by_setting(name, "bct", preset="quick")[-5:] for name in ("margin", "self_change")}
    # BCT 0.6, 0.1, 0.1 and MixBCT 0.5, 0.6, 0.6 beside a bar of 0.4; then 0.8, 0.9, 0.9 and 0.9, 0.8, 0.8
    assert more.ahead(setting, "bct") == more.ahead(setting, "bct", "mixbct") == "1 of 3"
    assert more.ahead(setting, "mixbct") == "3 of 3"
    assert more.ahead(setting, "bct", "mixbct", "new/new") == "2 of 3"
    assert more.ahead(setting, "bct", "independent", "new/new") == "0 of 1"
    assert ends["margin"] == "(3) |" and not ends["self_change"].endswith("(3) |")
    title = "Portraits, open-class, softmax to ArcFace"
    lines = found.by_setting("self_change", "l2", "mixbct").splitlines()
    assert lines[2].startswith(f"| {title} |") and lines[2].endswith("| 90.0 | +0.0 [+0.0, +0.0] |")
    assert found.by_setting("margin", "l2", preset="quick") == "*None ran.*"
    assert "MixBCT" in found.by_setting("margin", preset="quick").splitlines()[0]


def test_what_is_not_there_is_refused(made):
    found, setting = made
    with pytest.raises(ValueError, match=f"no setting 'x' in .*; there are {setting}"):
        found.number("x", "bct", "new/old")
    with pytest.raises(ValueError, match="l2 did not run in .*; there are independent, bct, mixbct"):
        found.number(setting, "l2", "new/old")


def test_one_method_against_the_others_on_every_part(tmp_path):
    for config, cross, own in zip(THREE, *VALUES, strict=True):
        part = [
            Record(*pair, METRIC, value, part="in-domain")
            for pair, value in ((("old", "old"), 0.4), (("new", "old"), 0.7 - cross), (("new", "new"), own))
        ]
        write_run(tmp_path / "blind", config, 0.4, cross, own, width=0.01, more=part)
    found, setting = readme.Results(tmp_path).apart("blind"), config.experiment_id
    assert found.rivals(setting, "bct").splitlines() == [
        "| BCT minus | new/old | new/new | new/old, in-domain | new/new, in-domain |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| old/old, the bar | +20.0 [+18.1, +21.9] |  | −30.0 |  |",
        "| Independent |  | −10.0 [−10.0, −10.0] |  | −10.0 |",
        "| MixBCT | +10.0 [+10.0, +10.0] | −10.0 [−10.0, −10.0] | −10.0 | −10.0 |",
    ]
    assert {one.label for one in found.verdicts("neighbours")} == {"not run"}  # its seeds are 10 to 19
    assert found.minus_oracle(setting, "mixbct", found, setting) == "+0.0 [+0.0, +0.0] (1)"  # 0.9 both
    assert found.minus_oracle(setting, "bct", found, setting) == "−10.0 [−10.0, −10.0] (1)"


def test_runs_of_two_folders_and_the_methods_that_ran_with_every_seed(tmp_path):
    for folder, seed, count in ((tmp_path, 0, 3), (tmp_path / "blind", 1, 2)):  # MixBCT has one seed alone
        three = configs(["independent", "bct", "mixbct"], [seed])[:count]
        for config, cross, own in zip(three, *VALUES, strict=False):
            write_run(folder, config, 0.4, cross - 0.02 * seed, own, width=0.01)
    both, setting = readme.Results(tmp_path).together("blind"), THREE[0].experiment_id
    assert set(both.of(setting)["method"]) == {"independent", "bct", "mixbct"}
    assert both.seeds(setting) == "2 seeds" and both.whole(setting).seeds(setting) == "2 seeds"
    assert set(both.whole(setting).of(setting)["method"]) == {"independent", "bct"}
    assert both.difference(setting, "bct", "mixbct", interval=False) == "+10.0"  # of the common seed
    assert both.number(setting, "bct", "new/old") == "59.0 ± 1.4"  # 60 and 58
    lines = both.against("bct", {"mixbct": "mixed", "l2": "held"}).splitlines()
    assert lines[0] == "| variant | Portraits, new/old | Portraits, new/new |"
    assert lines[2].startswith("| mixed | −10.0 [") and lines[3] == "| held |  |  |"


def test_the_claims_and_how_many_hold(made):
    found, _ = made
    lines = found.verdict_table().splitlines()
    assert len(lines) == 2 + len(found.verdicts()) and lines[2].startswith("| M1 | MixBCT | ")
    assert found.claims_in_words() == f"not run {len(found.verdicts())}"
