"""Backbones and the embedding head that they all share.

An embedding model maps float images ``[B, C, H, W]`` to un-normalised embeddings ``[B, width]``. The
head is a linear layer without bias followed by a BatchNorm1d whose weight is fixed to one and whose
bias is learned, as in the MixBCT reference; normalisation to unit length is left to whoever compares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from compat_lib.config import PRECISIONS
from compat_lib.data.augmentation import to_float
from compat_lib.data.decoding import height_width
from compat_lib.data.encoded import EncodedImages, Stream
from compat_lib.files import map_rows, write_rows


class EmbeddingModel(nn.Module):
    """A backbone that gives ``features`` activations once flattened, and the head of ``width`` outputs."""

    def __init__(self, backbone: nn.Module, features: int, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.project = nn.Linear(features, width, bias=False)
        self.normalise = nn.BatchNorm1d(width)
        # A free weight would let single coordinates take over the cosine; the bias is harmless.
        nn.init.ones_(self.normalise.weight)
        self.normalise.weight.requires_grad_(False)
        self.width = width

    def forward(self, pixels: Tensor) -> Tensor:
        """Float32 ``[B, width]`` of float pixels ``[B, C, H, W]``."""
        embeddings = self.project(self.backbone(pixels).flatten(1))
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.normalise(embeddings.float())


def _scaled(inputs: int, outputs: int, kernel: int, stride: int) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(outputs)


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*_scaled(inputs, outputs, 3, 2), nn.ReLU(inplace=True))


class _ResidualBlock(nn.Module):
    """At half the resolution, so that there always is a shortcut to learn."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = _convolution(inputs, outputs)
        self.second = nn.Sequential(*_scaled(outputs, outputs, 3, 1))
        self.shortcut = nn.Sequential(*_scaled(inputs, outputs, 1, 2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(self.first(x)) + self.shortcut(x))


def _convnet(channels: int, size: int, *, widths: tuple[int, int, int]) -> nn.Module:
    return nn.Sequential(*(_convolution(a, b) for a, b in pairwise((channels, *widths))))


def _resnet_small(channels: int, size: int) -> nn.Module:
    # No block at the stem's resolution: it would double the time of a step and teach little.
    return nn.Sequential(_convolution(channels, 16), _ResidualBlock(16, 48), _ResidualBlock(48, 96))


def _torchvision(channels: int, size: int, *, name: str) -> nn.Module:
    import torchvision  # takes a second, and the small networks do without

    network = getattr(torchvision.models, name)(weights=None)
    small = size <= 64  # the ImageNet stem would leave 1x1 to 2x2 positions of such an image
    if name == "mobilenet_v3_small":
        network.features[0][0] = nn.Conv2d(channels, 16, 3, 1 if small else 2, padding=1, bias=False)
        network.classifier = nn.Identity()
        return network
    if small:
        network.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    elif channels != 3:
        network.conv1 = nn.Conv2d(channels, 64, 7, 2, padding=3, bias=False)
    network.fc = nn.Identity()
    return network


BACKBONES: dict[str, Callable[[int, int], nn.Module]] = {  # of channels and size
    "convnet": partial(_convnet, widths=(16, 32, 64)),
    "convnet-half": partial(_convnet, widths=(8, 16, 32)),
    "resnet-small": _resnet_small,
    "resnet18": partial(_torchvision, name="resnet18"),
    "resnet50": partial(_torchvision, name="resnet50"),
    "mobilenet-v3": partial(_torchvision, name="mobilenet_v3_small"),
}


def build_model(
    name: str, *, width: int = 64, channels: int = 3, size: int | tuple[int, int] = 32
) -> EmbeddingModel:
    """A freshly initialised embedding model.

    Args:
        name: one of ``BACKBONES``: ``convnet`` (three stride-2 convolutions, 0.09 M parameters at
            32 px), ``convnet-half`` (half its channels), ``resnet-small`` (stride-2 stem and two
            residual blocks, 0.26 M), torchvision's ``resnet18``, ``resnet50`` and ``mobilenet-v3``
            (small-image stem up to 64 px).
        width: dimension of the embedding.
        channels: 1 or 3, of the images.
        size: their pixels, at least 16 a side: a side of squares, or (height, width).

    Raises:
        ValueError: "backbone ... is unknown ...", "... needs images of at least 16 pixels ...".

    >>> build_model("convnet", width=8, channels=1, size=32)(torch.zeros(2, 1, 32, 32)).shape
    torch.Size([2, 8])
    """
    if name not in BACKBONES:
        raise ValueError(f"backbone {name!r} is unknown; choose one of {', '.join(BACKBONES)}")
    sides = height_width(size)
    if min(sides) < 16:
        raise ValueError(f"backbone {name!r} needs images of at least 16 pixels a side; got {size}")
    backbone = BACKBONES[name](channels, max(sides))
    with torch.no_grad():
        features = backbone.eval()(torch.zeros(1, channels, *sides)).numel()
    return EmbeddingModel(backbone.train(), features, width).to(memory_format=torch.channels_last)


def autocast(device: torch.device | str, precision: str) -> torch.autocast:
    """The autocast context in which convolutions run; losses leave it again (float32 throughout)."""
    kind = torch.device(device).type
    used = resolve_precision(kind, precision)
    dtype = torch.float16 if used == "float16" else torch.bfloat16
    return torch.autocast(kind, dtype=dtype, enabled=used != "float32")


def resolve_precision(device: torch.device | str, precision: str) -> str:
    """``float32``, ``bfloat16`` or ``float16``: what a precision means on this device.

    ``auto`` is bfloat16, but float32 on processors that would emulate bfloat16 at a loss.

    Raises:
        ValueError: "precision ... is unknown ...".
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is unknown; choose one of {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision
    has = torch.cpu.get_capabilities()
    slow = torch.device(device).type == "cpu" and not (has.get("avx512_bf16") or has.get("amx_bf16"))
    return "float32" if slow else "bfloat16"


class Mirrored(nn.Module):
    """The sum of a model's embeddings of an image and of its mirror image, as IJB's tools have it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model(pixels).float() + self.model(pixels.flip(-1)).float()


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
) -> Tensor:
    """Un-normalised embeddings of images: evaluation mode, no augmentation, no flip.

    Args:
        model: maps float pixels to embeddings; its training mode is restored afterwards.
        images: uint8 ``[N, C, H, W]``, in memory, memory-mapped or encoded.
        precision: the run's own: features of two precisions are not the same numbers.
        workers: processes that decode encoded images.
        out: an .npy file to which the embeddings are written block by block, where memory cannot hold them.

    Returns:
        float32 ``[N, width]`` on the CPU, in the order of ``images``; with ``out`` the file, memory-mapped.
    """
    was_training = model.training
    model.eval()
    with autocast(device, precision):
        pixels = (to_float(block.to(device)) for block in _blocks(images, batch_size, workers))
        embeddings = (model(block).float().cpu() for block in pixels)
        if out is None:
            features = torch.cat(list(embeddings))
        else:
            write_rows(out, len(images), embeddings)
            features = map_rows(out)
    model.train(was_training)
    return features


def _blocks(images: Tensor | EncodedImages, size: int, workers: int) -> Iterator[Tensor]:
    if isinstance(images, EncodedImages):
        yield from Stream(images, workers).decode(torch.arange(len(images)).split(size))
    else:
        yield from images.split(size)
