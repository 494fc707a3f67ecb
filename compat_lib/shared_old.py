"""One old model for all experiments that differ in their new side alone: linked from where it was trained."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from compat_lib.config import ExperimentConfig, project_path
from compat_lib.files import explained
from compat_lib.runs import ADVICE, Run, is_complete, write_json

# What differs between the folders: the configuration, which is written anew, and what comes last or is local.
_NOT_TAKEN = ("config.json", "metrics.json", ".lock", "checkpoint.pt", "figures", "*.ipynb")


def take_old(config: ExperimentConfig, made_of: dict[str, str]) -> Path | None:
    """Fill this experiment's folder of the old model from one whose old side is the same, if there is one.

    Args:
        config: says which old side, and where runs are.
        made_of: digests of what it must have been trained and measured on.

    Returns:
        the folder that it was taken from; None when there is none, and nothing is written then.
    """
    folder = config.old_folder
    for other in sorted(project_path(config.runs_root).glob(f"*/old-s{config.seed}-*")):
        if other == folder or not is_complete(other):
            continue
        stored = Run(other).config
        if stored.get("made_of") != made_of or _old_side(stored) != config.old_side:
            continue
        with explained(folder, ADVICE):
            shutil.copytree(
                other,
                folder,
                ignore=shutil.ignore_patterns(*_NOT_TAKEN),
                copy_function=_link,
                dirs_exist_ok=True,
            )
        new = config.to_dict() | {"method": "old", "experiment_id": config.experiment_id}
        new |= {"run_id": folder.name, "old_run_id": folder.name}
        write_json(folder / "config.json", stored | {k: v for k, v in new.items() if k in stored})
        with explained(folder, ADVICE):
            (folder / "checkpoint.pt").unlink(missing_ok=True)  # of a training that was stopped here
            _link(other / "metrics.json", folder / "metrics.json")  # last: the run is complete
        return other
    return None


def _old_side(stored: dict) -> str | None:
    try:
        return ExperimentConfig.of_run(stored, method="independent", method_options={}).old_side
    except (TypeError, ValueError):  # of another version
        return None


def _link(source: str | Path, target: str | Path) -> None:
    """A second name of the file, where the file system has such; run files are replaced, never changed."""
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
