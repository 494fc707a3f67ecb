"""A preset whose models several processes train together: what is asked for, and two processes for real."""

import os
import subprocess
import sys

import pytest
from stub_project import COMMON, make_project, write_notebook
from test_clusters import snakemake

from compat_lib.presets import load_preset

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
config = ExperimentConfig(**{"runs_root": runs_root, "seed": seed} | settings)
assert (config.old_folder / "metrics.json").is_file()
"""


def asked(project, folder, preset):
    """What Snakemake would run for a preset of the repository."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(project / "workflow" / "Snakefile")]
    command += ["--directory", str(folder), "--config", f"preset={preset}", f"runs_root={folder}"]
    command += ["--cores", "8", "--dry-run", "--printshellcmds", "experiments", "--quiet", "host"]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(project)}, text=True, capture_output=True
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
def test_two_processes_train_an_old_model_and_its_notebook_finds_it(project, tmp_path):
    root = make_project(tmp_path / "stub", project)
    write_notebook(root / "notebooks" / "01_old_system.ipynb", FINDS, parameters=COMMON)
    (root / "configs" / "few.yml").write_text(PRESET)
    (root / "runs").mkdir()
    (config,) = load_preset(root / "configs" / "few.yml", runs_root=str(root / "runs")).experiments
    target = f"{config.experiment_id}/{config.old_folder.name}/notebook.ipynb"
    profile = root / "workflow" / "profiles" / "default"
    done = snakemake(root, profile, "--cores", "2", target=target, COMPAT_DATA=str(tmp_path))
    assert done.returncode == 0, done.stdout
    assert (root / "runs" / target).is_file() and (config.old_folder / "metrics.json").is_file()
