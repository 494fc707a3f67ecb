"""The state of a training in one file, so that a killed one goes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compat_lib.files import replacing
from compat_lib.losses.base import CompatibilityLoss


@dataclass(frozen=True)
class Checkpoint:
    """The file that lets a killed training go on after its last finished epoch.

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
        history: list[dict[str, float]],
    ) -> None:
        """Replace the file by the present state."""
        state = {
            "made_of": self.made_of,
            "model": model.state_dict(),
            "method": method.state_dict(),
            "optimiser": optimiser.state_dict(),
            "history": history,
        }
        with replacing(self.path, "choose another folder with runs_root, or make room") as part:
            torch.save(state, part)

    def read(
        self, model: nn.Module, method: CompatibilityLoss, optimiser: torch.optim.Optimizer
    ) -> list[dict[str, float]]:
        """Restore the last finished epoch, if there is one; the history so far.

        Raises:
            ValueError: the file is damaged, or belongs to other settings or images.
        """
        if not self.path.is_file():
            return []
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
        model.load_state_dict(state["model"])
        method.load_state_dict(state["method"])
        optimiser.load_state_dict(state["optimiser"])
        return state["history"]
