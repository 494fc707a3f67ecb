"""A throw-away project whose notebooks take no time: the workflow's own files around stub experiments."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

COMMON = 'runs_root = "runs"\nseed = 0\nsettings = {}\n'
EXPERIMENT = """
import json, os, time
from compat_lib.config import ExperimentConfig
fields = {"runs_root": runs_root, "seed": seed, "method": METHOD} | settings
config = ExperimentConfig(**fields)
folder = config.FOLDER
folder.mkdir(parents=True, exist_ok=True)
"""
WORK = """
if METHOD != "independent":
    time.sleep(float(os.environ.get("STUB_SECONDS", "0")))
if os.environ.get("STUB_DIES") == METHOD:
    os._exit(9)
(folder / "metrics.json").write_text("[]")
"""
MASTER = """
from compat_lib.config import project_path
runs = sorted(path.parent.name for path in project_path(runs_root).glob("*/*/metrics.json"))
print(len(runs), "runs of", project_path(preset).name)
"""


def write_notebook(path: Path, *sources: str, parameters: str | None = "seed = 0") -> Path:
    """A notebook of code cells; the first is tagged as its parameters."""
    cells = [nbformat.v4.new_markdown_cell(f"# {path.stem}")]
    if parameters is not None:
        cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def run_notebook(
    project: Path, notebook: Path, target: Path, *options: str, **variables: str
) -> subprocess.CompletedProcess:
    """What execute.py does of a notebook, in a process of its own."""
    command = [sys.executable, str(project / "workflow" / "execute.py"), str(notebook), str(target), *options]
    return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)


def experiment_notebook(path: Path, method: str, folder: str, parameters: str = COMMON) -> None:
    sources = [text.replace("METHOD", method).replace("FOLDER", folder) for text in (EXPERIMENT, WORK)]
    write_notebook(path, *sources, parameters=parameters)


def make_project(root: Path, real: Path) -> Path:
    """A project with the real workflow/ and compat_lib/, stub notebooks and the preset tiny."""
    shutil.copytree(real / "workflow", root / "workflow", ignore=shutil.ignore_patterns("__pycache__"))
    for package in ("compat_lib", "companion"):
        (root / package).symlink_to(real / package)
    notebooks = root / "notebooks"
    experiment_notebook(notebooks / "01_old_system.ipynb", "'independent'", "old_folder")
    experiment_notebook(notebooks / "02_dual_tuning.ipynb", "'dual_tuning'", "run_folder")
    experiment_notebook(notebooks / "03_mixbct.ipynb", "'mixbct'", "run_folder")
    one = COMMON + "method = 'l2'"
    experiment_notebook(notebooks / "04_other_methods.ipynb", "method", "run_folder", one)
    parameters = dict.fromkeys(("00_start_here", "06_upgrade_a_gallery", "07_your_own_system"), one)
    parameters["05_explore_features"] = 'runs_root = "runs"\nexperiment_id = None\nmethod = "l2"'
    parameters["08_costs"] = 'runs_root = "runs"'
    for stem, text in parameters.items():
        write_notebook(notebooks / f"{stem}.ipynb", "1 + 1", parameters=text)
    parameters = 'runs_root = "runs"\npreset = "configs/x.yml"'
    write_notebook(notebooks / "99_all_tables.ipynb", MASTER, parameters=parameters)
    (root / "configs").mkdir()
    preset = "defaults: {epochs: 3}\nmethods:\n  - {method: l2}\n  - {method: mixbct}\n"
    (root / "configs" / "tiny.yml").write_text(preset)
    return root


def start(root: Path, *options: str, **variables: str) -> subprocess.Popen:
    """The workflow's driver on the preset tiny, output in a pipe."""
    environment = os.environ | {"PYTHONPATH": str(root.resolve())} | variables
    return subprocess.Popen(
        [sys.executable, str(root / "workflow" / "reproduce.py"), "--preset", "tiny", *options],
        cwd=root,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
