"""Profiles of clusters: a fake SLURM queue runs real jobs; Kubernetes is a dry run."""

import os
import subprocess
import sys

import pytest
from fake_slurm import make_queue
from stub_project import make_project

FEW = "defaults: {epochs: 3, device: cuda}\nmethods:\n  - {method: l2}\n"


def snakemake(root, profile, *options, **variables):
    command = [sys.executable, "-m", "snakemake", "--snakefile", "workflow/Snakefile", "--directory", "runs"]
    command += ["--config", "preset=few", f"runs_root={root / 'runs'}", "--workflow-profile", str(profile)]
    return subprocess.run(
        [*command, *options, "experiments"],
        cwd=root,
        env=os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"} | variables,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.fixture
def few(tmp_path, project):
    root = make_project(tmp_path / "stub", project)
    (root / "configs" / "few.yml").write_text(FEW)
    (root / "runs").mkdir()
    return root


@pytest.mark.slow
def test_slurm_runs_every_experiment_as_a_job_with_its_accelerator(few, tmp_path):
    queue = make_queue(tmp_path / "queue")
    profile = tmp_path / "profile"
    profile.mkdir()
    text = (few / "workflow" / "profiles" / "slurm" / "config.yaml").read_text()
    haste = "slurm-init-seconds-before-status-checks: 1\nseconds-between-status-checks: 1\n"
    (profile / "config.yaml").write_text(text.replace("latency-wait: 60", "latency-wait: 5") + haste)
    path = f"{queue['commands']}{os.pathsep}{os.environ['PATH']}"
    ran = snakemake(few, profile, PATH=path, FAKE_SLURM=str(queue["calls"]))
    assert ran.returncode == 0, ran.stdout
    assert len(list(few.glob("runs/*/*/notebook.ipynb"))) == 2  # the old model, L2
    calls = [call.read_text() for call in sorted(queue["calls"].glob("*.call"))]
    assert len(calls) == 2
    assert all("--gpus=1" in call and "--mem\n8000" in call and "-t\n1440" in call for call in calls), calls


def test_kubernetes_plans_the_same_jobs(few):
    pytest.importorskip("snakemake_executor_plugin_kubernetes", reason="pip install 'compat_lib[kubernetes]'")
    profile = few / "workflow" / "profiles" / "kubernetes"
    planned = snakemake(few, profile, "--dry-run", "--default-storage-prefix", str(few / "runs"))
    assert planned.returncode == 0, planned.stdout
    assert "gpu=1, gpu_manufacturer=nvidia" in planned.stdout and "(send to storage)" in planned.stdout
