"""The recipe that every method shares: optimiser, learning rate, and what of the network decays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

MOMENTUM = 0.9


@dataclass(frozen=True)
class TrainingSettings:
    """What every method shares; by default SGD with Nesterov momentum, warm-up, then a cosine to zero."""

    epochs: int = 20
    batch_size: int = 256
    optimiser: str = "sgd"  # or "adam", "adamw"
    lr: float = 0.1
    schedule: str = "cosine"  # or "polynomial", "multistep", see `learning_rate`
    milestones: tuple[float, ...] = ()  # of "multistep": shares of all steps
    weight_decay: float = 5e-4
    decay: str = "matrices"  # decaying biases and norms helps nobody; "all" does so, as many papers do
    warmup: float = 0.1  # share of all steps
    warmup_steps: int | None = None  # the same in steps; None: by share
    clip: float = 5.0  # norm of the network's gradient; the classifier is not clipped
    shift: int = 2  # this and the next four: see Augmentation
    flip: bool = False
    pad: int = 0
    erase: float = 0.0
    resized_crop: float = 0.0
    per_identity: int = 0  # images of each identity in a batch; 0: at random
    seed: int = 0
    precision: str = "auto"
    device: str = "cpu"
    workers: int = 0  # processes that decode images which are not in memory


def learning_rate(settings: TrainingSettings, step: int, steps: int) -> float:
    """Rate of step ``step`` (0-based) of ``steps``: a linear warm-up, then the schedule.

    "cosine" is half a cosine to zero, "polynomial" (1 - done)^2, as MixBCT's published code has it, and
    "multistep" a tenth from each milestone on, counted from the first step as Dual-Tuning's does.

    >>> s = TrainingSettings(lr=1.0, warmup=0.5)
    >>> [round(learning_rate(s, step, 4), 2) for step in range(4)]
    [0.5, 1.0, 1.0, 0.5]
    >>> s = TrainingSettings(lr=1.0, warmup_steps=0, schedule="multistep", milestones=(0.5, 0.75))
    >>> [round(learning_rate(s, step, 4), 2) for step in range(4)]
    [1.0, 1.0, 0.1, 0.01]
    """
    warm = round(settings.warmup * steps) if settings.warmup_steps is None else settings.warmup_steps
    if step < warm:
        return settings.lr * (step + 1) / warm
    if settings.schedule == "multistep":
        return settings.lr * 0.1 ** sum(step >= round(share * steps) for share in settings.milestones)
    done = (step - warm) / max(1, steps - warm)
    if settings.schedule == "polynomial":
        return settings.lr * (1 - done) ** 2
    return settings.lr * 0.5 * (1 + math.cos(math.pi * done))


def build_optimiser(model: nn.Module, method: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """torch's optimiser over all that is trained in the network and the method."""
    groups = _groups(model, method, settings)
    if settings.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=MOMENTUM, nesterov=True, foreach=True)
    kind = torch.optim.Adam if settings.optimiser == "adam" else torch.optim.AdamW
    return kind(groups, lr=settings.lr, foreach=True)


def _groups(model: nn.Module, method: nn.Module, settings: TrainingSettings) -> list[dict[str, Any]]:
    parameters = [p for module in (model, method) for p in module.parameters() if p.requires_grad]
    decayed = [p for p in parameters if p.ndim >= 2 or settings.decay == "all"]
    rest = [p for p in parameters if p.ndim < 2 and settings.decay != "all"]
    return [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
