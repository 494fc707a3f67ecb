"""Embedding models: a backbone and the head that all of them share.

An embedding model maps float images ``[B, C, H, W]`` in -1..1 to un-normalised embeddings ``[B, width]``;
normalisation to unit length is left to whoever compares.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compat_lib.config import HEADS, PRECISIONS
from compat_lib.data.augmentation import to_float, whole_pixels
from compat_lib.data.decoding import height_width
from compat_lib.data.encoded import EncodedImages, Stream
from compat_lib.data.images import torch_defaults
from compat_lib.files import map_rows, write_rows
from compat_lib.names import check_choice, checked_count
from compat_lib.networks.backbones import build_backbone, input_scaling
from compat_lib.networks.weights import Inputs, fill, named, read_weights


class EmbeddingModel(nn.Module):
    """A backbone and its head.

    Args:
        backbone: gives ``features`` activations once flattened, or once pooled by a "bn-neck".
        width: of the embedding; with a "bn-neck" it is ``features``.
        head: "linear", a linear layer without bias and a BatchNorm1d whose weight is fixed to one and whose
            bias is learned, as in MixBCT's code; "bn-neck", the mean over positions and a BatchNorm1d whose
            weight is learned and whose bias is fixed to zero, as in Dual-Tuning's.
        inputs: what turns pixels in -1..1 into the backbone's own scaling; None: nothing.
    """

    def __init__(
        self,
        backbone: nn.Module,
        features: int,
        width: int,
        *,
        head: str = "linear",
        inputs: Inputs | None = None,
    ) -> None:
        super().__init__()
        self.inputs, self.backbone, self.width = inputs, backbone, width
        self.pool = head == "bn-neck"
        self.project = nn.Identity() if self.pool else nn.Linear(features, width, bias=False)
        self.normalise = nn.BatchNorm1d(width)
        # A free weight behind a free projection would let single coordinates take over the cosine; the bias
        # of a neck would move the features away from where a classifier without bias looks.
        nn.init.ones_(self.normalise.weight)
        (self.normalise.bias if self.pool else self.normalise.weight).requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Float32 ``[B, width]`` of float pixels ``[B, C, H, W]``."""
        activations = self.backbone(pixels if self.inputs is None else self.inputs(pixels))
        if self.pool and activations.ndim == 4:
            activations = activations.mean((2, 3))
        embeddings = self.project(activations.flatten(1))
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.normalise(embeddings.float())


@torch_defaults()
def build_model(
    name: str,
    *,
    width: int = 64,
    channels: int = 3,
    size: int | tuple[int, int] = 32,
    weights: str | None = None,
    head: str = "linear",
) -> EmbeddingModel:
    """A freshly initialised embedding model, or one that starts from weights.

    Args:
        name: ``convnet`` (0.09 M parameters at 32 px), ``resnet-small`` (0.26 M), and the others of
            docs/networks.md, which also says what weights there are.
        channels, size: 1 or 3, and pixels, (height, width) or of both sides, at least 16.
        weights: a publisher's name, or a file of the backbone or of a whole embedding model.
        head: "linear" or "bn-neck", see :class:`EmbeddingModel`.

    >>> build_model("convnet", width=8, channels=1, size=32)(torch.zeros(2, 1, 32, 32)).shape
    torch.Size([2, 8])
    """
    size, width = height_width(size), checked_count("width", width)
    check_choice("head", head, HEADS)
    if min(size) < 16:
        raise ValueError(f"backbone {name!r} needs images of at least 16 pixels a side; got {min(size)}")
    backbone, inputs = build_backbone(name, channels, size, weights), input_scaling(name, channels, weights)
    given = None if weights is None or named(weights) else read_weights(weights)
    if given is not None and "inputs.scale" in given and inputs is None:
        inputs = Inputs([0.5] * 3, [0.5] * 3)  # whose numbers are the file's
    shape = _shape_of_activations(name, backbone, inputs, channels, size)
    features = shape[1] if head == "bn-neck" else shape[1:].numel()
    if head == "bn-neck" and width != features:
        raise ValueError(
            f"head 'bn-neck' keeps the {features} features of backbone {name!r} as they are: set the width "
            f"to {features}, not {width}, or the head to linear"
        )
    model = EmbeddingModel(backbone.train(), features, width, head=head, inputs=inputs)
    if given is not None:
        whole = any(key.startswith("backbone.") for key in given)
        fill(model if whole else backbone, given, f"weights {weights} of backbone {name!r}")
    return model.to(memory_format=torch.channels_last)


def _shape_of_activations(
    name: str, backbone: nn.Module, inputs: Inputs | None, channels: int, size: tuple[int, int]
) -> torch.Size:
    pixels = torch.zeros(1, channels, *size)
    try:
        with torch.no_grad():
            found = backbone.eval()(pixels if inputs is None else inputs(pixels))
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:  # of whoever wrote the network
        raise ValueError(
            f"backbone {name!r} cannot take images of {channels} x {size[0]} x {size[1]} "
            f"({str(error).strip().splitlines()[0]}); choose another image_size, or another network"
        ) from None
    if not isinstance(found, Tensor) or found.ndim < 2:
        raise ValueError(f"backbone {name!r} must give one tensor [B, ...]; got {type(found).__name__}")
    return found.shape


@cache
def refuse_model(name: str, **asked: Any) -> None:
    """Raise what :func:`build_model` raises, once in a process."""
    build_model(name, **asked)


def autocast(device: torch.device | str, precision: str) -> torch.autocast:
    """The autocast context in which convolutions run; losses leave it again (float32 throughout)."""
    kind = torch.device(device).type
    used = resolve_precision(kind, precision)
    dtype = torch.float16 if used == "float16" else torch.bfloat16
    # PyTorch empties its cache of cast weights at the end of the outermost context: inside another one a
    # training would go on with the weights of its first step.
    return torch.autocast(kind, dtype=dtype, enabled=used != "float32", cache_enabled=False)


def resolve_precision(device: torch.device | str, precision: str) -> str:
    """``float32``, ``bfloat16`` or ``float16``: what a precision means on this device.

    ``auto`` is bfloat16, but float32 on processors that would emulate bfloat16 at a loss.
    """
    check_choice("precision", precision, PRECISIONS)
    if precision != "auto":
        return precision
    has = torch.cpu.get_capabilities()
    slow = torch.device(device).type == "cpu" and not (has.get("avx512_bf16") or has.get("amx_bf16"))
    return "float32" if slow else "bfloat16"


@torch.inference_mode()
def embed(
    model: nn.Module,
    images: Tensor | EncodedImages,
    *,
    precision: str,
    device: torch.device | str = "cpu",
    batch_size: int = 512,
    workers: int = 0,
    out: Path | None = None,
    flip: bool = False,
) -> Tensor:
    """Un-normalised embeddings of images: evaluation mode, no augmentation.

    Args:
        model: maps float pixels to embeddings; its training mode is restored afterwards, part by part.
        images: uint8 ``[N, C, H, W]``, in memory, memory-mapped or encoded.
        precision: the run's own: features of two precisions are not the same numbers.
        workers: processes that decode encoded images.
        out: an .npy file to which the embeddings are written block by block, where memory cannot hold them.
        flip: the sum of the embeddings of each image and of its mirror image, as faces are tested.

    Returns float32 ``[N, width]`` on the CPU, in the images' order; with ``out`` the file, memory-mapped.
    """
    with evaluating(model), autocast(device, precision):
        pixels = (to_float(block.to(device)) for block in _blocks(images, batch_size, workers))
        sides = ((block, block.flip(3)) if flip else (block,) for block in pixels)
        embeddings = (sum(model(side).float() for side in pair).cpu() for pair in sides)
        if out is None:
            blocks = list(embeddings)
            with torch.inference_mode(False):  # tensors that may be changed in place and learned from
                features = torch.cat(blocks)
        else:
            write_rows(out, len(images), embeddings)
            features = map_rows(out)
    return features


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards each part has its own mode again, such as layers that a user has frozen."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _blocks(images: Tensor | EncodedImages, size: int, workers: int) -> Iterator[Tensor]:
    if isinstance(images, EncodedImages):
        yield from Stream(images, workers).decode(torch.arange(len(images)).split(size))
    else:
        yield from whole_pixels(images).split(size)
