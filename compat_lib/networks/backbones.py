"""Networks by name: those of this package, and the way to torchvision's, timm's and the reader's own."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from compat_lib.names import instead
from compat_lib.networks import foreign
from compat_lib.networks.iresnet import LAYERS, IResNet
from compat_lib.networks.weights import SUFFIXES, Inputs, file_digest, named

Size = tuple[int, int]  # height, width in pixels
_SMALL = 64 * 64  # pixels, up to which a network has a stem that keeps the resolution
_OF_TORCHVISION = {
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "resnet18-stride1": "resnet18",
    "resnet50-stride1": "resnet50",
    "mobilenet-v3": "mobilenet_v3_small",
}


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


def _convnet(channels: int, *_: object, widths: tuple[int, int, int]) -> nn.Module:
    return nn.Sequential(*(_convolution(a, b) for a, b in pairwise((channels, *widths))))


def _resnet_small(channels: int, *_: object) -> nn.Module:
    # No block at the stem's resolution: it would double the time of a step and teach little.
    return nn.Sequential(_convolution(channels, 16), _ResidualBlock(16, 48), _ResidualBlock(48, 96))


def _vit_small(channels: int, size: Size, *_: object) -> nn.Module:
    from torchvision.models import VisionTransformer

    patch = 4 if size[0] * size[1] <= _SMALL else 16  # pixels
    if size[0] != size[1] or size[0] % patch:
        raise ValueError(
            f"backbone 'vit-small' needs squares of a multiple of {patch} pixels; got {size[0]} x {size[1]}"
        )
    network = VisionTransformer(size[0], patch, num_layers=12, num_heads=6, hidden_dim=384, mlp_dim=1536)
    if channels != 3:
        network.conv_proj = nn.Conv2d(channels, 384, patch, patch)
    network.heads = nn.Identity()
    return network


def _adapted(channels: int, size: Size, weights: str | None, *, name: str) -> nn.Module:
    """A network of torchvision's, with a stem for small images."""
    published = _OF_TORCHVISION[name]
    small = size[0] * size[1] <= _SMALL  # the ImageNet stem would leave 1x1 to 2x2 positions of such an image
    if named(weights) and (small or channels != 3):
        raise ValueError(
            f"weights {weights!r} of {name} are for colour images above 64 x 64 pixels: others have another "
            f"stem here; take no weights, or torchvision:{published} for the network as it was published"
        )
    network = foreign.torchvision_network(published, weights if named(weights) else None)
    if published == "mobilenet_v3_small":
        if not named(weights):
            network.features[0][0] = nn.Conv2d(channels, 16, 3, 1 if small else 2, padding=1, bias=False)
        network.classifier = nn.Identity()
        if small:
            # with torchvision's 0.01 a training of some hundred steps is tested by what its first ones saw
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = 0.1
        return network
    if small:
        network.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    elif channels != 3:
        network.conv1 = nn.Conv2d(channels, 64, 7, 2, padding=3, bias=False)
    if name.endswith("-stride1"):  # the last stage keeps the resolution, as re-identification trains it
        for module in network.layer4[0].modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
    network.fc = nn.Identity()
    return network


BACKBONES: dict[str, Callable[[int, Size, str | None], nn.Module]] = {  # of channels, size, weights
    "convnet": partial(_convnet, widths=(16, 32, 64)),
    "convnet-half": partial(_convnet, widths=(8, 16, 32)),
    "resnet-small": _resnet_small,
    **{name: partial(_adapted, name=name) for name in _OF_TORCHVISION},
    **{name: lambda channels, *_, name=name: IResNet(LAYERS[name], channels) for name in LAYERS},
    "vit-small": _vit_small,
}


def build_backbone(name: str, channels: int, size: Size, weights: str | None = None) -> nn.Module:
    """A network without its classifier, of float pixels to activations of any shape.

    Args:
        name: one of ``BACKBONES``, "torchvision:NAME", "timm:NAME", or "MODULE:FUNCTION" of the reader's.
        weights: a publisher's name, see :mod:`compat_lib.networks.foreign`; a file is read by who calls.
    """
    source, _, rest = name.partition(":")
    if named(weights) and source not in ("torchvision", "timm", *_OF_TORCHVISION):
        raise ValueError(
            f"weights of backbone {name!r} can only be a file (*{', *'.join(SUFFIXES)}); got {weights!r}"
        )
    if name in BACKBONES:
        return BACKBONES[name](channels, size, weights)
    publishers = weights if named(weights) else None
    if source == "torchvision":
        return foreign.without_classifier(foreign.torchvision_network(rest, publishers))
    if source == "timm":
        return foreign.timm_network(rest, size, publishers)
    if rest:
        return foreign.own_network(name, channels, size)
    raise ValueError(
        f"backbone {name!r} is unknown; choose one of {instead(name, BACKBONES)}, or torchvision:NAME, "
        f"timm:NAME, or MODULE:FUNCTION of your own"
    )


def input_scaling(name: str, channels: int, weights: str | None = None) -> Inputs | None:
    """What turns pixels in -1..1 into what the network reads; None where that is the same."""
    source, _, rest = name.partition(":")
    if named(weights):
        scaling = foreign.timm_scaling if source == "timm" else foreign.torchvision_scaling
        return Inputs(*scaling(rest or _OF_TORCHVISION[name], weights))
    published = source in ("torchvision", "timm")
    takes_grey = not rest or (not published and "channels" in foreign.own_parameters(name))
    return None if channels == 3 or takes_grey else Inputs([0.5] * 3, [0.5] * 3)


def digests(name: str, weights: str | None) -> dict[str, str]:
    """What a network is made of besides its name: the reader's source file, the weights it starts from.

    Returns:
        "network" and "weights", where there are such: SHA-256 of the file, or the publisher's full name.
    """
    source, _, rest = name.partition(":")
    found = {}
    if rest and source not in ("torchvision", "timm"):
        found["network"] = foreign.own_function(name)[1]
    if named(weights):
        found["weights"] = foreign.published_name(name if rest else _OF_TORCHVISION[name], weights)
    elif weights is not None:
        found["weights"] = file_digest(weights)
    return found
