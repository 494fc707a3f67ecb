"""README's command for a published setting on small files in the true format, two processes a training."""

import json
import os
import subprocess
import sys

import pytest
from PIL import Image

pytestmark = pytest.mark.slow
SMALL = {"image_size": 16, "old_width": 16, "new_width": 16, "batch_size": 12, "bootstrap_draws": 2}
SMALL |= {"old_backbone": "convnet-half", "new_backbone": "convnet-half", "old_epochs": 1, "epochs": 1}
SMALL |= {"device": "cpu", "processes": 2, "old_classes": None, "methods": [{"method": "mixbct"}]}
SMALL |= {"notebooks": {"ablation": False, "results_root": None}}


def test_a_published_setting_on_small_files(project, tmp_path):
    for part, count in (("train", 12), ("test", 6)):
        for name in range(6):
            folder = tmp_path / "cifar100" / part / f"class{name}"
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (32, 32), (40 * name, 10 * number, 80)).save(folder / f"{number}.png")
    command = [sys.executable, str(project / "workflow" / "reproduce.py"), "--preset", "paper/bt2-cifar100"]
    command += ["--cores", "2", "--runs-root", str(tmp_path / "runs")]
    for name, value in SMALL.items():
        command += ["--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    environment = os.environ | {"COMPAT_DATA": str(tmp_path), "PYTHONPATH": str(project)}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    runs = tmp_path / "runs"
    assert len(list(runs.glob("*/*/notebook.ipynb"))) == 2  # the old model's, and MixBCT's
    for kind in ("old", "mixbct"):
        (folder,) = (path.parent for path in runs.glob(f"*/{kind}-*/metrics.json"))
        assert json.loads((folder / "environment.json").read_text())["processes"] == 2
    assert (runs / "bt2-cifar100" / "site" / "index.html").is_file()
