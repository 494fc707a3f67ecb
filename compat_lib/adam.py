"""Adam.

The rule, and on the CPU the bits, are those of ``torch.optim.Adam`` with its defaults. That class is not
used because its first step imports torch's compiler, see compat_lib.sgd.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

MEAN, SQUARE = 0.9, 0.999  # what is kept of the running mean and of the running mean of squares
EPSILON = 1e-8


class Adam:
    """Adam over groups of parameters.

    Source: Adam (Kingma and Ba, ICLR 2015, arXiv 1412.6980). With gradient g and weight decay w, a step does
    ``g += w p`` (decay enters the moments; it is not decoupled as in AdamW), ``m = 0.9 m + 0.1 g``,
    ``v = 0.999 v + 0.001 g^2`` and ``p -= lr m' / (sqrt(v') + 1e-8)``, where m' and v' are divided by
    1 - 0.9^t and 1 - 0.999^t after t steps of that parameter.

    Args:
        groups: dictionaries with ``params`` (a list) and, where they differ from the arguments below, their
            own ``lr`` and ``weight_decay``.
        lr: learning rate, changed later through ``groups[i]["lr"]``.
        weight_decay: factor of the parameter in its own gradient.

    >>> p = torch.nn.Parameter(torch.tensor([1.0]))
    >>> p.grad = torch.tensor([2.0])
    >>> Adam([{"params": [p]}], lr=0.5).step()
    >>> round(p.item(), 6)                                    # the first step is lr long, whatever g is
    0.5
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, lr: float, weight_decay: float = 0.0) -> None:
        self.groups = [{"lr": lr, "weight_decay": weight_decay, **group} for group in groups]
        self._moments: dict[Tensor, tuple[Tensor, Tensor]] = {}
        self._steps: dict[Tensor, int] = {}

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for group in self.groups:
            for parameter in group["params"]:
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        for group in self.groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group["lr"], group["weight_decay"])

    def _move(self, parameter: Tensor, lr: float, weight_decay: float) -> None:
        if parameter not in self._moments:
            self._moments[parameter] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        mean, square = self._moments[parameter]
        steps = self._steps[parameter] = self._steps.get(parameter, 0) + 1
        gradient = parameter.grad
        if weight_decay:
            gradient = gradient.add(parameter, alpha=weight_decay)
        mean.lerp_(gradient, 1 - MEAN)
        square.mul_(SQUARE).addcmul_(gradient, gradient, value=1 - SQUARE)
        scale = (square.sqrt() / (1 - SQUARE**steps) ** 0.5).add_(EPSILON)
        parameter.addcdiv_(mean, scale, value=-lr / (1 - MEAN**steps))
