"""The Python examples of README and docs/ run as they stand, on small arrays."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compat_lib.adapters import fit_procrustes

ROOT = Path(__file__).resolve().parents[2]


def example(page, words):
    """The one Python example of a page that holds these words."""
    (found,) = (
        one
        for one in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.S)
        if words in one
    )
    return found


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What the examples take as given, in a folder of their own: forty images of eight identities."""
    monkeypatch.chdir(tmp_path)
    old, new = np.random.default_rng(0).standard_normal((2, 40, 64)).astype("float32")
    logs = {"old_log": old[:5], "new_log": new[:5], "queries": new[:3], "labels": np.arange(40) // 5}
    return logs | {
        "ids": np.arange(40),
        "order": np.arange(40)[::-1],
        "embed": lambda some: new[some],
        "old_features": old,
        "old": old,
        "new": new,
    }


def test_the_gallery_of_readme(names, capsys):
    exec(example("README.md", "gallery.backfill"), names)
    assert capsys.readouterr().out.splitlines()[-1] == "100% new, 0 left"
    assert names["gallery"].counts == {"old-2024": 0, "new-2026": 40} and names["hits"].ids.shape == (3, 10)


def test_the_pages_of_gallery_and_check(names, capsys):
    replace(fit_procrustes(names["new"], names["old"]), side="query").save("map.safetensors")
    exec(example("docs/gallery.md", 'Gallery.create("gallery", {"old-2024": 64})\ngallery.insert'), names)
    exec(example("docs/check.md", "load_adapter").replace(", 96,", ", 64,"), names)
    exec(example("docs/gallery.md", "beside=True"), names)
    assert 0 <= float(capsys.readouterr().out) <= 1
    assert names["adapter"].side == "query" and names["gallery"].counts["new-2026"] == 40
    names["gallery"].rollback()
    exec(example("docs/gallery.md", "step.failed"), names)
    assert capsys.readouterr().out.splitlines()[-1] == "100%, 0 left, 0 failed"


def test_the_first_example_of_the_protocols(names, capsys):
    exec(example("docs/protocols.md", "evaluation.compare"), names)
    assert "new/old" in capsys.readouterr().out
