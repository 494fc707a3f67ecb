"""Weights that a network starts from: a file, or a publisher's with the scaling of their inputs."""

import pickle
from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn

from compat_lib.config import project_path
from compat_lib.files import file_sha256, load_tensors

SUFFIXES = (".pth", ".pt", ".safetensors")  # of files of weights


class Inputs(nn.Module):
    """Pixels in -1..1 as a network reads them that was trained on (x - mean) / std of x in 0..1.

    A single channel is repeated for the three.

    >>> Inputs([0.5, 0.5, 0.25], [0.5, 0.25, 0.5])(torch.ones(1, 1, 1, 1)).flatten().tolist()
    [1.0, 2.0, 1.5]
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        mean, std = (torch.tensor(values, dtype=torch.float32).view(-1, 1, 1) for values in (mean, std))
        self.register_buffer("scale", 0.5 / std)
        self.register_buffer("offset", (0.5 - mean) / std)

    def forward(self, pixels: Tensor) -> Tensor:
        """Float ``[B, 3, H, W]`` of float ``[B, 1 or 3, H, W]``."""
        return pixels * self.scale + self.offset


def named(weights: str | None) -> bool:
    """Whether these weights are a publisher's, not a file's."""
    return weights is not None and not weights.endswith(SUFFIXES)


def file_digest(path: str) -> str:
    """SHA-256 of a file of weights."""
    try:
        return file_sha256(project_path(path))
    except OSError as error:
        raise ValueError(f"weights {path} cannot be read ({error.strerror})") from None


def read_weights(path: str) -> dict[str, Tensor]:
    """The tensors of a file of weights, by name; nothing in it can run code.

    Of a run folder's ``model.safetensors`` the network's; of a checkpoint, what it calls ``state_dict``.
    """
    file = project_path(path)
    try:
        if file.suffix == ".safetensors":
            state: Any = load_tensors(file)[0]
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"weights {path} cannot be read ({str(error).splitlines()[0]}); a file of weights is "
            f"safetensors, or what torch.save writes of a state_dict"
        ) from None
    state = state.get("state_dict", state) if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"weights {path} hold no state_dict of tensors; save model.state_dict()")
    state = {name.removeprefix("module."): value for name, value in state.items()}
    if any(name.startswith("model.backbone.") for name in state):
        state = {k.removeprefix("model."): v for k, v in state.items() if not k.startswith("method.")}
    return state


def fill(network: nn.Module, state: Mapping[str, Tensor], who: str) -> None:
    """Load weights into a network, all of them; those of a classifier that was taken off are left.

    `who`: "weights ... of backbone ...", for the sentence on what is missing or of another shape.
    """
    removed = {name for name, module in network.named_modules() if isinstance(module, nn.Identity)}
    ours = network.state_dict()
    state = {
        name: value
        for name, value in state.items()
        if name in ours or not any(name.startswith(f"{prefix}.") for prefix in removed)
    }
    try:  # torch forgives absent counters of batch norms, which its older versions did not write
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{who} do not fit it: {shorten(str(error), 1000)}") from None
