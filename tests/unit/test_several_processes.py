"""A preset whose models several processes train together: what is asked for, and two processes for real."""

import os
import subprocess
import sys

import pytest
from stub_project import COMMON, make_project, write_notebook
from test_clusters import snakemake

PRESET = """
processes: 2
defaults:
  dataset: portraits
  dataset_options: {identities: 10, images: 4, eval_identities: 6, eval_images: 3}
  old_backbone: convnet-half
  new_backbone: convnet-half
  image_size: 16
  old_epochs: 1
  epochs: 1
  batch_size: 8
  bootstrap_draws: 2
methods:
  - {method: mixbct}
"""
FINDS = """
from compat_lib.config import ExperimentConfig
fields = {"runs_root": runs_root, "seed": seed, "method": "mixbct"} | settings
config = ExperimentConfig(**fields)
assert (config.FOLDER / "metrics.json").is_file()
"""


def asked(project, folder, preset):
    """What Snakemake would run for a preset of the repository."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(project / "workflow" / "Snakefile")]
    command += ["--directory", str(folder), "--config", f"preset={preset}", f"runs_root={folder}"]
    command += ["--cores", "8", "--dry-run", "--printshellcmds", "experiments"]
    path = os.pathsep.join((str(project), os.environ.get("PYTHONPATH", "")))
    done = subprocess.run(
        [*command, "--quiet", "host"], env=os.environ | {"PYTHONPATH": path}, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_a_published_setting_asks_for_its_accelerators_and_processes(project, tmp_path):
    told = asked(project, tmp_path, "paper/mixbct-ms1mv3-open-data")
    assert "gpu=8" in told and "--nproc-per-node 8 -m compat_lib run" in told and "--old" in told
    assert told.count("run_id=mixbct-s0-") == 2  # ArcFace and softmax


def test_one_process_needs_no_torchrun(project, tmp_path):
    told = asked(project, tmp_path, "paper/bt2-cifar100")
    assert "gpu=1" in told and "torch.distributed" not in told


@pytest.mark.slow
def test_two_processes_train_and_the_notebooks_find_it(project, tmp_path):
    root = make_project(tmp_path / "stub", project)
    for name, folder in (("01_old_system", "old_folder"), ("03_mixbct", "run_folder")):
        write_notebook(
            root / "notebooks" / f"{name}.ipynb", FINDS.replace("FOLDER", folder), parameters=COMMON
        )
    (root / "configs" / "few.yml").write_text(PRESET)
    (root / "runs").mkdir()
    done = snakemake(
        root, root / "workflow" / "profiles" / "default", "--cores", "2", COMPAT_DATA=str(tmp_path)
    )
    assert done.returncode == 0, done.stdout
    assert len(list(root.glob("runs/*/*/notebook.ipynb"))) == 2
    assert len(list(root.glob("runs/*/*/metrics.json"))) == 2
