"""The recipe that every method shares: optimiser, learning rate, and what of the network decays."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from compat_lib.config import TrainingSettings


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
    parameters = [p for module in (model, method) for p in module.parameters() if p.requires_grad]
    decayed = [p for p in parameters if p.ndim >= 2 or settings.decay == "all"]
    rest = [p for p in parameters if p.ndim < 2 and settings.decay != "all"]
    decay = {"params": decayed, "weight_decay": settings.weight_decay}
    groups = [decay, {"params": rest, "weight_decay": 0.0}]
    if settings.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=0.9, nesterov=True, foreach=True)
    kind = torch.optim.Adam if settings.optimiser == "adam" else torch.optim.AdamW
    return kind(groups, lr=settings.lr, foreach=True)


class InParts(nn.Module):
    """A network through which a batch passes in equal parts, whose gradients add up: it saves memory.

    The outputs are those of the whole batch, so that a loss may compare all of its rows; what the network
    must remember for the gradient is computed again part by part, which costs a second forward pass. Batch
    normalisation sees a part.
    """

    def __init__(self, network: nn.Module, parts: int) -> None:
        super().__init__()
        self.network, self.parts = network, parts

    def forward(self, pixels: Tensor) -> Tensor:
        def again() -> tuple[AbstractContextManager, AbstractContextManager]:
            return nullcontext(), self._running_statistics_rest()

        parts = pixels.tensor_split(self.parts)
        return torch.cat(
            [checkpoint(self.network, part, use_reentrant=False, context_fn=again) for part in parts]
        )

    @contextmanager
    def _running_statistics_rest(self) -> Iterator[None]:
        """They have seen the part already."""
        layers = [one for one in self.network.modules() if getattr(one, "momentum", None) is not None]
        before = [one.momentum for one in layers]
        for one in layers:
            one.momentum = 0.0
        try:
            yield
        finally:  # the second pass ends by an exception when all that is asked for was computed
            for one, momentum in zip(layers, before, strict=True):
                one.momentum = momentum
