"""Stochastic gradient descent with Nesterov momentum.

The rule, and the bits, are those of ``torch.optim.SGD(..., nesterov=True)``. That class is not used because
its first step imports torch's compiler: seven seconds of processor time in every process that trains,
which in a notebook of small experiments is as much as the training itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class NesterovSGD:
    """SGD with Nesterov momentum over groups of parameters.

    With gradient g, weight decay w, momentum m and rate r, a step does ``g += w p; v = m v + g`` (v = g at
    first) and ``p -= r (g + m v)``.

    Args:
        groups: dictionaries with ``params`` (a list) and ``weight_decay``; each gets its own ``lr``.
        lr: learning rate, changed later through ``groups[i]["lr"]``.
        momentum: fraction, 0..1.

    >>> p = torch.nn.Parameter(torch.tensor([1.0]))
    >>> p.grad = torch.tensor([2.0])
    >>> NesterovSGD([{"params": [p], "weight_decay": 0.0}], lr=0.5, momentum=0.5).step()
    >>> p.item()                                                        # 1 - 0.5 (2 + 0.5 x 2)
    -0.5
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, lr: float, momentum: float) -> None:
        self.groups = [{**group, "lr": lr} for group in groups]
        self.momentum = momentum
        self._velocity: dict[Tensor, Tensor] = {}

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self._parameters():
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        for group in self.groups:
            moved = [p for p in group["params"] if p.grad is not None]
            if not moved:
                continue
            gradients = [p.grad for p in moved]
            if group["weight_decay"]:
                gradients = torch._foreach_add(gradients, moved, alpha=group["weight_decay"])
            fresh = [p not in self._velocity for p in moved]
            for parameter, gradient, first in zip(moved, gradients, fresh, strict=True):
                if first:
                    self._velocity[parameter] = torch.clone(gradient)
            velocity = [self._velocity[p] for p in moved]
            old = [i for i, first in enumerate(fresh) if not first]
            if old:
                torch._foreach_mul_([velocity[i] for i in old], self.momentum)
                torch._foreach_add_([velocity[i] for i in old], [gradients[i] for i in old])
            steps = torch._foreach_add(gradients, velocity, alpha=self.momentum)
            torch._foreach_add_(moved, steps, alpha=-group["lr"])

    def state_dict(self) -> dict[int, Tensor]:
        """The velocity of each parameter that has one, by its place."""
        return {i: self._velocity[p] for i, p in enumerate(self._parameters()) if p in self._velocity}

    def load_state_dict(self, state: dict[int, Tensor]) -> None:
        """Restore what :meth:`state_dict` gave for the same parameters."""
        parameters = list(self._parameters())
        self._velocity = {parameters[i]: v.to(parameters[i].device) for i, v in state.items()}

    def _parameters(self) -> Iterable[Tensor]:
        return (p for group in self.groups for p in group["params"])
