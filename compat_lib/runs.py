"""Run folders: one run, one folder, written so that a killed run never looks complete.

A folder holds ``model.safetensors`` and ``history.csv``, then ``features.safetensors``, whose presence says
that training is over, then ``config.json``, ``environment.json``, ``draws.json`` (bootstrap draws) and,
written last, ``metrics.json``: a run is complete when that file is there.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from compat_lib.evaluation.records import Records
from compat_lib.files import load_tensors, save_tensors, write_text

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compat_lib.losses.base import CompatibilityLoss
    from compat_lib.losses.heads import Classifier

ADVICE = "choose another folder with runs_root (--runs-root of make reproduce), or make room"
_FEATURES, _MODEL, _HISTORY = "features.safetensors", "model.safetensors", "history.csv"
_MODELS = ("query", "gallery", "metric", "adapter")


@dataclass(frozen=True)
class Run:
    """A complete run, read lazily from its folder."""

    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration, with the run's names and facts about its data."""
        return read_json(self.folder / "config.json")

    @cached_property
    def metrics(self) -> Records:
        """Every measured number.

        Raises:
            ValueError: the file holds no records; the sentence names it.
        """
        path = self.folder / "metrics.json"
        try:
            rows = read_json(path)
            if not isinstance(rows, list):
                raise ValueError("these are no records of metrics")
            return Records.from_plain(rows)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}; delete the run's folder and run it again") from None

    @cached_property
    def _draws(self) -> dict[tuple, list]:
        path = self.folder / "draws.json"
        rows = read_json(path) if path.is_file() else []
        return {tuple(row.get(name) for name in _MODELS): row["draws"] for row in rows}

    def draws(self, query: str, gallery: str, metric: str, adapter: str | None = None) -> np.ndarray | None:
        """Bootstrap draws over identities, float64 [draws]; None where none were kept."""
        found = self._draws.get((query, gallery, metric, adapter))
        return None if found is None else np.array(found, dtype=float)

    @cached_property
    def history(self) -> list[dict[str, float]]:
        """One dictionary an epoch."""
        return read_history(self.folder / _HISTORY)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """The machine and the software; empty where they were not kept."""
        path = self.folder / "environment.json"
        return read_json(path) if path.is_file() else {}


def is_complete(folder: str | Path) -> bool:
    """Whether the run in this folder ended: its metrics, written last, are there."""
    return (Path(folder) / "metrics.json").is_file()


def list_runs(root: str | Path) -> list[Run]:
    """Every complete run below ``root``, in the order of their paths; an absent root has none."""
    return [Run(path.parent) for path in sorted(Path(root).glob("*/*/metrics.json"))]


def write_metrics(folder: Path, records: Records) -> None:
    """Write the draws, then the metrics, which complete the run."""
    drawn = [one for one in records if one.draws is not None and len(one.draws)]
    rows = [
        {name: getattr(one, name) for name in _MODELS if getattr(one, name) is not None}
        # Five digits are enough for an interval, and keep the file small.
        | {"draws": [None if value != value else float(f"{value:.5g}") for value in one.draws.tolist()]}
        for one in drawn
    ]
    for name, lines in (("draws.json", rows), ("metrics.json", records.plain())):
        text = ",\n".join(json.dumps(line, allow_nan=False) for line in lines)
        write_text(folder / name, f"[\n{text}\n]\n", ADVICE)


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON in one piece; what is not a plain number, text, list or dictionary is refused."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n", ADVICE)


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


def write_history(path: str | Path, rows: list[dict[str, float]]) -> None:
    """One line an epoch; columns that only some epochs have (validation) are empty elsewhere."""
    frame = pd.DataFrame(rows, columns=None if rows else ["epoch"])
    write_text(path, frame.to_csv(index=False), ADVICE)


def read_history(path: str | Path) -> list[dict[str, float]]:
    """What :func:`write_history` wrote.

    Raises:
        ValueError: the file is missing or damaged; the sentence names it.
    """
    try:
        # As text first: float() reads back the very number that was written.
        rows = pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")
        return [{name: float(text) for name, text in row.items() if text} for row in rows]
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}); delete the run's folder and run it again"
        ) from None


@dataclass(frozen=True)
class TrainedModel:
    """One trained model, old or new, with what the evaluation needs of it.

    Args:
        model: images to stored features, in evaluation mode: the network, then the method's head if any;
            None for an old side that is a file of features.
        method: the method that trained it, with the classifier and whatever else was learned; None likewise.
        test: float32 ``[N_test, width]``, features of the test images, un-normalised.
        val: the same of the validation images.
        history: one dictionary an epoch.
        query: float32 ``[N_test, d]``, the test features as the cross-test takes them; None where the method
            gives no way to compare new features with old ones. None for an old model.
        gallery: float32 ``[N_test, d]``, the old test features as the cross-test takes them, likewise.
    """

    model: nn.Module | None
    method: CompatibilityLoss | None
    test: Tensor
    val: Tensor
    history: list[dict[str, float]]
    query: Tensor | None = None
    gallery: Tensor | None = None

    @property
    def classifier(self) -> Classifier | None:
        """The model's own classifier; None for an old side that is a file of features."""
        return None if self.method is None else self.method.classifier

    @property
    def cross(self) -> tuple[Tensor, Tensor] | None:
        """(query, gallery) of the cross-test on the test images; None where there is no such test."""
        return None if self.query is None else (self.query, self.gallery)


def is_trained(folder: Path) -> bool:
    """Whether the training of this folder's model is over."""
    return (folder / _FEATURES).is_file()


def keep_model(
    folder: Path,
    model: nn.Module | None,
    method: CompatibilityLoss | None,
    history: list[dict[str, float]],
    features: dict[str, Tensor],
    made_of: dict[str, str],
) -> None:
    """Write a trained model's files, the features last.

    Args:
        folder: the run folder.
        model, method: None for an old side that is a file of features.
        features: ``test`` and ``val`` of a :class:`TrainedModel`, and ``query`` and ``gallery`` if any.
        made_of: digests of what it was trained and measured on, by name.
    """
    write_history(folder / _HISTORY, history)
    if model is not None:
        weights = {f"model.{name}": value for name, value in model.state_dict().items()}
        weights |= {f"method.{name}": value for name, value in method.state_dict().items()}
        save_tensors(weights, folder / _MODEL, advice=ADVICE)
    save_tensors(features, folder / _FEATURES, made_of, advice=ADVICE)


def read_model(
    folder: Path,
    model: nn.Module | None,
    method: CompatibilityLoss | None,
    device: str,
    made_of: dict[str, str],
    source: str = "",
) -> TrainedModel:
    """What :func:`keep_model` wrote, read into freshly built parts, frozen and in evaluation mode.

    Raises:
        ValueError: a file is damaged, the weights do not fit, or what it was made of has changed.
    """
    features, known = load_tensors(folder / _FEATURES)
    refuse_changed(folder, known, made_of, source)
    if model is None:
        return TrainedModel(None, None, **features, history=read_history(folder / _HISTORY))
    weights, _ = load_tensors(folder / _MODEL)
    for prefix, module in (("model.", model), ("method.", method)):
        state = {name.removeprefix(prefix): v for name, v in weights.items() if name.startswith(prefix)}
        try:
            module.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(
                f"the model in {folder} was written by another version of the package ({error}): delete "
                f"the folder to train it anew"
            ) from error
    whole = deployed(model, method).eval().requires_grad_(False).to(device)
    method.eval().requires_grad_(False)
    return TrainedModel(whole, method, **features, history=read_history(folder / _HISTORY))


def refuse_changed(
    place: Path, known: Mapping[str, str], made_of: Mapping[str, str], source: str = ""
) -> None:
    """Refuse stored results of other images or options than those of now.

    Raises:
        ValueError: the sentence says what has changed, and what to do.
    """
    changed = sorted(name for name, digest in made_of.items() if known.get(name) != digest)
    if changed:
        raise ValueError(
            f"{place} was made with other {' and '.join(changed)} than now{source}: put them back, or "
            f"delete {place if place.is_dir() else place.parent} to run it anew"
        )


def deployed(model: nn.Module, method: CompatibilityLoss) -> nn.Module:
    """What maps images to stored features: the network, then the method's head if it has one."""
    from torch import nn

    return model if method.head is None else nn.Sequential(model, method.head)


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
