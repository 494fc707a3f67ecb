"""The state of a training in one file, so that a killed one goes on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compat_lib.distributed import agreed, gathered, rank, share, shares
from compat_lib.files import replacing

ANEW = "delete it to start anew"


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

    All processes must call its methods together: the first one writes, and the others wait until it has. A
    classifier that is dealt out over them stands whole in the file, with its part of the optimiser's state. A
    file that was `made_of` other settings, method or digests is refused.
    """

    path: Path
    made_of: dict[str, Any]
    device: torch.device

    def write(self, parts: Mapping[str, Any], progress: Progress) -> None:
        """Replace the file by the present state: of "model", "method", "optimiser" and "scaler"."""
        state = {name: part.state_dict() for name, part in parts.items()}
        state |= {"made_of": self.made_of, **asdict(progress)}
        counts = shares(parts["method"].classifier.num_classes)
        _change_dealt(state, parts, lambda rows: gathered(rows, counts))
        if rank() == 0:
            with replacing(self.path, "choose another folder with runs_root, or make room") as part:
                torch.save(state, part)
        agreed(None)  # torchrun ends all as soon as one ends

    def read(self, parts: Mapping[str, Any]) -> Progress:
        """Restore what was written last, if anything was; a damaged file, or one of others, is refused."""
        if not self.path.is_file():
            return Progress()
        try:
            state = torch.load(self.path, map_location=self.device, weights_only=True)
            theirs = state["made_of"]
        except Exception as error:
            raise ValueError(f"the checkpoint {self.path} cannot be read ({error}); {ANEW}") from error
        differing = sorted(name for name, value in self.made_of.items() if value != theirs.get(name))
        if differing:
            names = ", ".join(differing)
            raise ValueError(f"the checkpoint {self.path} was written with other settings ({names}); {ANEW}")
        mine = share(parts["method"].classifier.num_classes)
        _change_dealt(state, parts, lambda rows: rows[mine].clone())
        for name, part in parts.items():
            part.load_state_dict(state[name])
        return Progress(**{name: state[name] for name in asdict(Progress())})


def _change_dealt(
    state: dict[str, Any], parts: Mapping[str, Any], change: Callable[[Tensor], Tensor]
) -> None:
    """Apply `change` to what `state` holds of a classifier that is dealt out, row by row."""
    classifier = parts["method"].classifier
    if not classifier.dealt:
        return
    order = [id(one) for group in parts["optimiser"].param_groups for one in group["params"]]
    for name, parameter in classifier.named_parameters():
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
    """A list that SIGTERM fills, instead of ending the process in the middle of a step; a second one ends it.

    Only a main thread can listen; in another the list stays empty.
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
