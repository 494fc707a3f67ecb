"""A preset whose models several processes train together: what is asked of Snakemake."""

import os
import subprocess
import sys

import reproduce


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


ALONE = """
rule all:
    input: expand("{n}", n=range(3))
rule one:
    output: "{n}"
    resources: gpu=2
    shell: "mkdir lock && sleep 0.3 && rmdir lock && touch {output}"
"""  # a job that fails beside another one


def test_on_one_machine_no_two_trainings_share_a_gpu(tmp_path):
    (tmp_path / "Snakefile").write_text(ALONE)
    workflow = reproduce.Workflow(tmp_path, tmp_path, 3, reproduce.PROFILES / reproduce.LOCAL, gpus=2)
    place = workflow.command.index("--snakefile") + 1
    command = [*workflow.command[:place], str(tmp_path / "Snakefile"), *workflow.command[place + 1 :], "all"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and (tmp_path / "2").is_file(), done.stderr
