"""Losses and gradients that stop being numbers: seen without waiting for the device in every step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from compat_lib.losses.base import Step

LOOK = 50  # steps between two looks on a GPU; on the CPU every step is looked at


class NotFiniteError(RuntimeError):
    """A loss or a gradient stopped being a number; the sentence says where and the likely cause."""


class Watch:
    """Notes each step's loss, terms and gradient on the device, and reads them once in `LOOK` steps.

    `lr` is for the advice; with `skips` a gradient that is not finite is no error: the scaler of float16
    skips such steps.
    """

    def __init__(self, lr: float, device: torch.device, skips: bool = False) -> None:
        self.lr, self.skips = lr, skips
        self.every = 1 if device.type == "cpu" else LOOK
        self.noted: list[tuple[str, list[str], Tensor]] = []

    def note(self, step: Step, loss: Tensor, terms: dict[str, Tensor], norm: Tensor) -> None:
        """Note one step, before the optimiser takes it; looks when it is time."""
        fine = [r.isfinite().all() for r in (step.embeddings, step.old_features) if r is not None]
        values = [loss, norm, fine[0], fine[-1], *terms.values()]
        where = f"epoch {step.epoch + 1}, step {step.batch + 1}"
        self.noted.append((where, list(terms), torch.stack([value.detach().float() for value in values])))
        if len(self.noted) >= self.every:
            self.look()

    def look(self) -> None:
        """Read what was noted; the first step that broke is a NotFiniteError."""
        for where, names, values in self.noted:
            loss, norm, embeddings, old, *terms = values.tolist()
            if not math.isfinite(loss):
                broken = [n for n, v in zip(names, terms, strict=True) if not math.isfinite(v)]
                raise NotFiniteError(
                    f"{where}: loss term {', '.join(broken) or 'their sum'} is not finite; "
                    f"likely cause: {self._cause(bool(embeddings), bool(old))}"
                )
            if not math.isfinite(norm) and not self.skips:
                raise NotFiniteError(
                    f"{where}: the loss is finite but its gradient is not (norm {norm}); likely cause: a "
                    f"margin or a distance at its kink, or a learning rate of {self.lr} that is too high"
                )
        self.noted.clear()

    def _cause(self, embeddings: bool, old: bool) -> str:
        if not embeddings:
            return f"the network itself diverged: lower the learning rate ({self.lr}) or lengthen the warm-up"
        if not old:
            return "the old features hold values that are not finite: check the old system"
        return "the embeddings are finite, so the term's own arithmetic overflowed: check its weight or scale"
