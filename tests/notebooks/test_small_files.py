"""README's command for published settings on small files in the true format, of three protocols."""

import json
import os
import subprocess
import sys

import pytest
from PIL import Image
from record_files import write_face_set
from test_ijb import write_ijb
from test_persons import write_market

pytestmark = pytest.mark.slow
SMALL = {"image_size": 16, "old_backbone": "convnet-half", "new_backbone": "convnet-half", "device": "cpu"}
SMALL |= {"old_epochs": 1, "epochs": 1, "batch_size": 8, "bootstrap_draws": 2, "workers": 0}
SMALL |= {"old_weights": None, "new_weights": None, "settings": [{}], "processes": 1}
SMALL |= {"notebooks": {"ablation": False, "results_root": None}}


def write_cifar100(root):
    for part, count in (("train", 12), ("test", 6)):
        for name in range(6):
            folder = root / "cifar100" / part / f"class{name}"
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (32, 32), (40 * name, 10 * number, 80)).save(folder / f"{number}.png")


def write_faces(root):
    write_face_set(root / "ms1m-retinaface-t1", [3, 2, 4, 3, 2, 5, 3, 2])
    write_ijb(root / "IJBC")


CASES = {  # preset -> its files, method, and what is smaller
    "bt2-cifar100": (write_cifar100, "bt2", {"processes": 2, "old_classes": None}),
    "mixbct-ms1mv3-extended-class": (write_faces, "mixbct", {}),
    "dual-tuning-market1501": (
        lambda root: write_market(root / "Market-1501-v15.09.15"),
        "dual_tuning",
        {"image_height": 32, "per_identity": 2, "pad": 2, "warmup_steps": 1}
        | {"methods": [{"method": "independent"}, {"method": "dual_tuning"}]},
    ),
}


@pytest.mark.parametrize("preset", CASES)
def test_a_published_setting_on_small_files(project, tmp_path, preset):
    write, method, smaller = CASES[preset]
    write(tmp_path)
    width = 32 if method == "dual_tuning" else 16  # a neck without projection has the network's own
    small = SMALL | {"old_width": width, "new_width": width, "methods": [{"method": method}]} | smaller
    command = [sys.executable, str(project / "workflow" / "reproduce.py"), "--preset", f"paper/{preset}"]
    command += ["--cores", "2", "--runs-root", str(tmp_path / "runs")]
    for name, value in small.items():
        command += ["--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    environment = os.environ | {"COMPAT_DATA": str(tmp_path), "PYTHONPATH": str(project)}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    runs = tmp_path / "runs"
    assert len(list(runs.glob("*/*/notebook.ipynb"))) == 1 + len(small["methods"])  # and the old model's
    for kind in ("old", method.replace("_", "-")):
        (folder,) = (path.parent for path in runs.glob(f"*/{kind}-*/metrics.json"))
        made = json.loads((folder / "environment.json").read_text())
        assert made.get("processes", 1) == small["processes"]
    assert (runs / preset / "site" / "index.html").is_file()
