"""Run folders: one run, one folder, written so that a killed run never looks complete.

A folder holds ``config.json``, ``history.csv``, ``environment.json``, ``draws.json`` (bootstrap draws)
and, written last, ``metrics.json``: a run is complete when that file is there.
"""

from __future__ import annotations

import csv
import json
import math
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Run:
    """A complete run, read lazily from its folder."""

    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        return read_json(self.folder / "config.json")

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Flat names to plain numbers; what could not be measured is None."""
        return read_json(self.folder / "metrics.json")

    @cached_property
    def draws(self) -> dict[str, list[float | None]]:
        """Bootstrap draws over identities of the main metrics; empty when none were kept."""
        path = self.folder / "draws.json"
        return read_json(path) if path.is_file() else {}

    @cached_property
    def history(self) -> list[dict[str, float]]:
        """One dictionary an epoch."""
        return read_history(self.folder / "history.csv")

    @cached_property
    def environment(self) -> dict[str, Any]:
        path = self.folder / "environment.json"
        return read_json(path) if path.is_file() else {}


def is_complete(folder: str | Path) -> bool:
    """Whether the run in this folder ended: its metrics, written last, are there."""
    return (Path(folder) / "metrics.json").is_file()


def list_runs(root: str | Path) -> list[Run]:
    """Every complete run below ``root``, in the order of their paths; an absent root has none."""
    return [Run(path.parent) for path in sorted(Path(root).glob("*/*/metrics.json"))]


def write_text(path: str | Path, text: str) -> None:
    """Write a file so that a reader, or a kill, sees the old file or the new one, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically; NaN and infinities become null, because JSON has no name for them."""
    write_text(path, json.dumps(_plain(value), indent=1, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: the file is not JSON; the sentence names it.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is not valid JSON ({error}); delete the run's folder and run it again"
        ) from None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, str) or value is None or isinstance(value, bool):
        return value
    if getattr(value, "ndim", None) == 0:  # a NumPy or torch scalar
        value = value.item()
    if isinstance(value, Iterable):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_history(path: str | Path, rows: list[dict[str, float]]) -> None:
    """One line an epoch; columns that only some epochs have (validation) are empty elsewhere."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(columns)]
    lines += [",".join("" if row.get(name) is None else repr(row[name]) for name in columns) for row in rows]
    write_text(path, "\n".join(lines) + "\n")


def read_history(path: str | Path) -> list[dict[str, float]]:
    """What :func:`write_history` wrote."""
    with open(path, newline="", encoding="utf-8") as file:
        return [{name: float(text) for name, text in row.items() if text} for row in csv.DictReader(file)]


def environment() -> dict[str, Any]:
    """The machine and the software of this process: what a number needs to be believed later."""
    import torch

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
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/compat_lib", ":/notebooks")
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
