"""The file of features: what it holds, and that the page's examples run on it and give the runs' numbers."""

import re

import numpy as np
import pytest
import release
from tiny_runs import silent, tiny

from compat_lib.evaluation import compare


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("features")
    options = {"precision": "float32"}
    configs = [tiny(root, method=method, **options) for method in ("independent", "bct")]
    return configs, [silent(config).evaluate() for config in configs]


@pytest.fixture(scope="module")
def made(runs):
    return release.arrays(release.main_runs(runs[0], ("independent", "bct"), 0))


def test_the_file_gives_the_numbers_of_the_runs(runs, made):
    _, (oracle, bct) = runs
    assert {name.split("/")[0] for name in made} == {"train", "val", "test"}
    assert {made[f"test/{name}"].dtype for name in ("old", "bct")} == {np.dtype("float16")}
    assert len(made["train/old"]) == len(made["train/independent"]) == len(made["train/labels"])
    found = compare(made["test/old"], made["test/bct"], made["test/labels"], draws=0).records
    for pair in (("old", "old"), ("new", "old"), ("new", "new")):
        assert found.value(*pair, "map") == pytest.approx(bct.metrics.value(*pair, "map"), abs=0.005)
    assert oracle.metrics.value("new", "new", "map") != bct.metrics.value("new", "new", "map")


def test_the_examples_of_the_page_run(made, tmp_path, monkeypatch, capsys):
    (tmp_path / "release").mkdir()
    np.savez_compressed(tmp_path / "release/features-omniglot-s0.npz", **made)
    monkeypatch.chdir(tmp_path)
    page = (release.ROOT / "docs/features.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    exec("\n".join(blocks), {})
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 4 and said[0].startswith("old old 0.") and "against the bar 0." in said[-1]
    assert said[0].split()[-1] == said[-1].split()[-1]


def test_what_is_not_complete_is_refused(runs):
    configs, _ = runs
    with pytest.raises(ValueError, match="not complete: l2-s0-.*make reproduce"):
        release.main_runs([*configs, configs[0].changed(method="l2")], ("independent", "l2"), 0)
    with pytest.raises(ValueError, match="no run of mixbct by its defaults with seed 0"):
        release.main_runs(configs, ("mixbct",), 0)
