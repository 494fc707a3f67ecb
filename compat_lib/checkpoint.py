"""The state of a training in one file, so that a killed one goes on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compat_lib.distributed import gathered, rank, share, shares
from compat_lib.files import replacing
from compat_lib.losses.base import CompatibilityLoss


@dataclass
class Progress:
    """How far a training is: what was finished, and the running sums of an epoch that was not."""

    history: list[dict[str, float]] = field(default_factory=list)  # one dictionary a finished epoch
    step: int = 0  # finished steps of the next epoch
    sums: dict[str, Tensor] = field(default_factory=dict)  # of the losses, over these steps
    images: int = 0  # that went through the network in them
    took: dict[str, float] = field(default_factory=dict)  # their seconds, by clock


@dataclass(frozen=True)
class Checkpoint:
    """The file that lets a killed training go on, on any number of processes.

    All processes must call its methods together; the first one writes. A classifier that is dealt out over
    them stands whole in the file, with its part of the optimiser's state.

    Args:
        path: the file.
        made_of: settings, method and digests of the training; a file that was made of others is refused.
        device: where to read the state to.
    """

    path: Path
    made_of: dict[str, Any]
    device: torch.device

    def write(
        self,
        model: nn.Module,
        method: CompatibilityLoss,
        optimiser: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        progress: Progress,
    ) -> None:
        """Replace the file by the present state."""
        state = {
            "made_of": self.made_of,
            "model": model.state_dict(),
            "method": method.state_dict(),
            "optimiser": optimiser.state_dict(),
            "scaler": scaler.state_dict(),
            **asdict(progress),
        }
        counts = shares(method.classifier.num_classes)
        _change_dealt(state, method, optimiser, lambda rows: gathered(rows, counts))
        if rank() == 0:
            with replacing(self.path, "choose another folder with runs_root, or make room") as part:
                torch.save(state, part)

    def read(
        self,
        model: nn.Module,
        method: CompatibilityLoss,
        optimiser: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
    ) -> Progress:
        """Restore what was written last, if anything was; a damaged file, or one of others, is refused."""
        if not self.path.is_file():
            return Progress()
        try:
            state = torch.load(self.path, map_location=self.device, weights_only=True)
            theirs = state["made_of"]
        except Exception as error:
            raise ValueError(
                f"the checkpoint {self.path} cannot be read ({error}); delete it to start anew"
            ) from error
        differing = sorted(name for name, value in self.made_of.items() if value != theirs.get(name))
        if differing:
            raise ValueError(
                f"the checkpoint {self.path} was written with other settings ({', '.join(differing)}); "
                f"delete it to start anew"
            )
        mine = share(method.classifier.num_classes)
        _change_dealt(state, method, optimiser, lambda rows: rows[mine].clone())
        model.load_state_dict(state["model"])
        method.load_state_dict(state["method"])
        optimiser.load_state_dict(state["optimiser"])
        scaler.load_state_dict(state["scaler"])
        return Progress(**{name: state[name] for name in asdict(Progress())})


def _change_dealt(
    state: dict[str, Any],
    method: CompatibilityLoss,
    optimiser: torch.optim.Optimizer,
    change: Callable[[Tensor], Tensor],
) -> None:
    """Apply `change` to what `state` holds of a classifier that is dealt out, row by row."""
    if not method.classifier.dealt:
        return
    order = [id(one) for group in optimiser.param_groups for one in group["params"]]
    for name, parameter in method.classifier.named_parameters():
        state["method"][f"classifier.{name}"] = change(state["method"][f"classifier.{name}"])
        states = state["optimiser"]["state"]
        # A fixed classifier is not there.
        place = order.index(id(parameter)) if id(parameter) in order else None
        if place in states:  # in a new dictionary: the old one is the optimiser's own
            rows = {key: isinstance(value, Tensor) and value.ndim > 0 for key, value in states[place].items()}
            states[place] = {k: change(v) if rows[k] else v for k, v in states[place].items()}


class Interrupted(SystemExit):
    """SIGTERM came, and the training's state is written: the process ends with 143, as one that it ended."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


@contextmanager
def noted_sigterm() -> Iterator[list[int]]:
    """A list that SIGTERM fills, instead of ending the process in the middle of a step.

    A second one ends it. Only a main thread can listen; in another the list stays empty.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def note(number: int, frame: object) -> None:
        came.append(number)
        signal.signal(signal.SIGTERM, before)

    before = signal.signal(signal.SIGTERM, note) or signal.SIG_DFL
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)
