"""The pages of docs/ name what is there."""

import re
from inspect import isfunction
from pathlib import Path

import torch
import yaml

from compat_lib import evaluation
from compat_lib.config import ExperimentConfig
from compat_lib.models import build_model, refuse_model
from compat_lib.networks.backbones import BACKBONES

DOCS = Path(__file__).parent.parent.parent / "docs"


def test_every_call_on_the_page_of_protocols_exists_and_every_function_is_on_it():
    text = (DOCS / "protocols.md").read_text(encoding="utf-8")
    named = set()
    for row in re.findall(r"^\| .* \|$", text, flags=re.MULTILINE):
        named |= set(re.findall(r"`([a-z][a-z0-9_]+)`", row.split(" | ")[1]))
    functions = {name for name, one in vars(evaluation).items() if isfunction(one)}
    assert named - {"call"} <= functions
    helpers = {"backfill_order", "cosine_histograms", "margin", "tar_name"}
    assert functions - helpers <= named


def test_the_page_of_networks_names_each_and_its_preset_and_network_work(tmp_path, monkeypatch):
    text = (DOCS / "networks.md").read_text(encoding="utf-8")
    table = "\n".join(line.split(" | ")[0] for line in text.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`([^`:\n]+)`", table)) == set(BACKBONES)
    config = ExperimentConfig.from_dict(yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.S)[1]))
    for side in ("old", "new"):
        network, head, width = (getattr(config, f"{side}_{part}") for part in ("backbone", "head", "width"))
        refuse_model(network, head=head, width=width, size=config.size)
    (tmp_path / "my_networks.py").write_text(re.search(r"```python\n(.*?)```", text, re.S)[1])
    monkeypatch.chdir(tmp_path)
    assert build_model("my_networks:backbone", width=8, channels=1)(torch.zeros(2, 1, 32, 32)).shape == (2, 8)
