"""Run folders: one run, one folder, written so that a killed run never looks complete.

A folder holds ``model.safetensors`` and ``history.csv``, then ``features.safetensors``, whose presence says
that training is over, then ``config.json``, ``environment.json``, ``draws.json`` (bootstrap draws) and,
written last, ``metrics.json``: a run is complete when that file is there.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock

from compat_lib import distributed, models
from compat_lib.config import ExperimentConfig
from compat_lib.evaluation.records import Record, Records
from compat_lib.files import explained, write_text

if TYPE_CHECKING:
    from compat_lib.data.images import ImageSet, Splits
    from compat_lib.trained_model import TrainedModel

ADVICE = "choose another folder with runs_root (--runs-root of make reproduce), or make room"
AGAIN = "delete the run's folder and run it again"
_MODELS = ("query", "gallery", "metric", "adapter", "part")


@dataclass(frozen=True)
class Run:
    """A complete run, read lazily from its folder, as one part of its test images shows it."""

    folder: Path
    part: str | None = None  # of `parts`; None: the data set's test

    def on(self, part: str | None) -> Run:
        """The same run by another part of its test images: `metrics` and `draws` are then that part's."""
        return self._on.setdefault(part, Run(self.folder, part))

    @cached_property
    def _on(self) -> dict[str | None, Run]:
        return {self.part: self}  # each reads its files once

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of its other test parts, such as "in-domain"."""
        return tuple(dict.fromkeys(one.part for one in self._measured if one.part))

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration, with the run's names and facts about its data."""
        return read_json(self.folder / "config.json")

    @cached_property
    def metrics(self) -> Records:
        """Every number that was measured on this part, and those of training; ValueError for a bad file."""
        own = [one for one in self._measured if one.part == self.part or one.metric.startswith("train/")]
        return Records(own).changed(part=None) if self.part else Records(own)

    @cached_property
    def _measured(self) -> Records:
        path = self.folder / "metrics.json"
        try:
            if not isinstance(rows := read_json(path), list):
                raise ValueError("these are no records of metrics")
            return Records.from_plain(rows)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}; {AGAIN}") from None

    @cached_property
    def _draws(self) -> dict[tuple, list]:
        rows = self._if_kept("draws.json", [])
        return {tuple(row.get(name) for name in _MODELS): row["draws"] for row in rows}

    def _if_kept(self, name: str, default: Any) -> Any:
        path = self.folder / name
        return read_json(path) if path.is_file() else default

    def draws(self, query: str, gallery: str, metric: str, adapter: str | None = None) -> np.ndarray | None:
        """Bootstrap draws over identities, float64 [draws]; None where none were kept."""
        found = self._draws.get((query, gallery, metric, adapter, self.part))
        return None if found is None else np.array(found, dtype=float)

    @cached_property
    def history(self) -> list[dict[str, float]]:
        """One dictionary an epoch."""
        return read_history(self.folder / "history.csv")

    @cached_property
    def environment(self) -> dict[str, Any]:
        """The machine and the software; empty where they were not kept."""
        return self._if_kept("environment.json", {})


def is_complete(folder: str | Path) -> bool:
    """Whether the run in this folder ended: its metrics, written last, are there."""
    return (Path(folder) / "metrics.json").is_file()


def list_runs(root: str | Path) -> list[Run]:
    """Every complete run below ``root``, in the order of their paths; an absent root has none."""
    return [Run(path.parent) for path in sorted(Path(root).glob("*/*/metrics.json"))]


def only_one(folder: Path) -> AbstractContextManager:
    """A lock that the operating system releases when its holder dies; the first process holds it for all."""
    if distributed.rank():
        return nullcontext()
    with explained(folder, ADVICE):
        folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / ".lock")


def write_run(
    folder: Path,
    config: ExperimentConfig,
    records: Records,
    model: TrainedModel,
    data: Splits,
    images: ImageSet,
    made_of: Mapping[str, str],
    started: float,
) -> None:
    """Complete a trained model's run: what it is, where it was made, what training cost; metrics last.

    Args:
        folder: of the new model's run, or of the old one's.
        images: the model's training set.
        made_of: digests of what it was trained and measured on, by name.
        started: the time when the run began, in seconds.
    """
    history = model.history
    cost = {"epochs": len(history), "steps": int(sum(row["steps"] for row in history))}
    for name in ("seconds", "backbone_images", "processor_seconds"):
        if all(name in row for row in history):  # a GPU's training has no time of the processor
            cost[name] = sum(row[name] for row in history)
    records += [Record(None, None, f"train/{name}", value) for name, value in cost.items()]
    parts = data.parts | {"train": images}
    facts = {
        "images": {name: len(part) for name, part in parts.items()},
        "classes": {name: part.num_classes for name, part in parts.items()},
        "parameters": sum(p.numel() for p in model.model.parameters()) if model.model else None,
    } | ({"skipped": list(data.skipped)} if data.skipped else {})
    write_json(folder / "config.json", described(config, folder) | {"made_of": made_of, "facts": facts})
    # "auto" means another one on another processor.
    precision = models.resolve_precision(config.device, config.precision)
    made = {"device": config.device, "precision": precision, "processes": distributed.world()}
    for name, moment in (("started", started), ("finished", time.time())):
        made[name] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
    write_json(folder / "environment.json", environment() | made)
    write_metrics(folder, records)


def described(config: ExperimentConfig, folder: Path) -> dict[str, Any]:
    """The fields and names of a run, or of the old model where the folder has its name."""
    # Where the data and the runs lay is nobody's business, and differs between machines.
    values = {k: v for k, v in config.to_dict().items() if k not in ("data_root", "runs_root")}
    names = {"run_id": folder.name, "old_run_id": config.old_folder.name}
    values |= {"method": "old"} if folder.name == names["old_run_id"] else {}
    return values | {"experiment_id": config.experiment_id} | names


def write_metrics(folder: Path, records: Records) -> None:
    """Write the draws, then the metrics, which complete the run."""
    write_lines(folder / "draws.json", draw_rows(records))
    write_lines(folder / "metrics.json", records.plain())


def draw_rows(records: Iterable[Record]) -> list[dict[str, Any]]:
    """The rows of draws.json, of those records that have draws."""
    return [
        {name: getattr(one, name) for name in _MODELS if getattr(one, name) is not None}
        # Five digits are enough for an interval, and keep the file small.
        | {"draws": [None if value != value else float(f"{value:.5g}") for value in one.draws.tolist()]}
        for one in records
        if one.draws is not None and len(one.draws)
    ]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a JSON list in one piece, a line a row."""
    text = ",\n".join(json.dumps(row, allow_nan=False) for row in rows)
    write_text(path, f"[\n{text}\n]\n", ADVICE)


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON in one piece; what is not a plain number, text, list or dictionary is refused."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n", ADVICE)


def read_json(path: str | Path) -> Any:
    """The content of a JSON file of a run."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); {AGAIN}") from None


def write_history(path: str | Path, rows: list[dict[str, float]]) -> None:
    """One line an epoch; columns that only some epochs have (validation) are empty elsewhere."""
    frame = pd.DataFrame(rows, columns=None if rows else ["epoch"])
    write_text(path, frame.to_csv(index=False), ADVICE)


def read_history(path: str | Path) -> list[dict[str, float]]:
    """What :func:`write_history` wrote."""
    try:
        # As text first: float() reads back the very number that was written.
        rows = pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")
        return [{name: float(text) for name, text in row.items() if text} for row in rows]
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}); {AGAIN}") from None


def refuse_changed(
    place: Path, known: Mapping[str, str], made_of: Mapping[str, str], source: str = ""
) -> None:
    """Refuse stored results of other images or options than those of now, and say which."""
    changed = sorted(name for name, digest in made_of.items() if known.get(name) != digest)
    if changed:
        raise ValueError(
            f"{place} was made with other {' and '.join(changed)} than now{source}: put them back, or "
            f"delete {place if place.is_dir() else place.parent} to run it anew"
        )


def environment() -> dict[str, Any]:
    """The machine and the software of this process: what a number needs to be believed later."""
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.system(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _commit() -> str | None:
    """The commit of the source tree, with ``+changes`` when tracked files differ from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).resolve().parent), *arguments]
        how = {"capture_output": True, "text": True, "check": True, "timeout": 20}
        return subprocess.run(command, **how).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/compat_lib", ":/notebooks")
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.*)", info.read_text("utf-8"), re.M) if info.is_file() else None
    return found[1].strip() if found else platform.processor() or platform.machine()
