"""Networks that others define: torchvision's, timm's, or a function of the reader's own."""

import importlib
import inspect
import sys
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from compat_lib.config import project_path
from compat_lib.files import file_sha256

Scaling = tuple[tuple[float, ...], tuple[float, ...]]  # mean and deviation of each channel in 0..1
_AUXILIARY = ("aux1", "aux2", "AuxLogits")  # classifiers of the inception networks, for training only


def torchvision_weights(name: str, weights: str | None) -> Any:
    """A member of torchvision's enumeration of a network's weights; None of None."""
    from torchvision import models  # takes a second, and the small networks do without

    known = models.list_models(module=models)
    if name not in known:
        near = ", ".join(get_close_matches(name, known, n=5)) or ", ".join(known)
        raise ValueError(f"backbone 'torchvision:{name}' is unknown to torchvision; near it are {near}")
    members = models.get_model_weights(name).__members__
    if weights is not None and weights not in members:
        raise ValueError(f"weights {weights!r} of {name} are unknown; choose one of {', '.join(members)}")
    return None if weights is None else members[weights]


def torchvision_network(name: str, weights: str | None = None) -> nn.Module:
    """A network of torchvision's as it is, with its classifier; weights such as DEFAULT, None: fresh ones."""
    from torchvision import models

    chosen = torchvision_weights(name, weights)
    return _fetched(lambda: models.get_model(name, weights=chosen), name, weights)


def without_classifier(network: nn.Module) -> nn.Module:
    """torchvision's network without its last linear layer (of squeezenet: convolution), changed in place."""
    for name in _AUXILIARY:
        if hasattr(network, name):
            setattr(network, name, None)
            network.aux_logits = False
    layers = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    layers = layers or [name for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)]
    network.set_submodule(layers[-1], nn.Identity())
    return network


def torchvision_scaling(name: str, weights: str) -> Scaling:
    """Mean and deviation of the channels that these weights were trained on."""
    transforms = torchvision_weights(name, weights).transforms()
    return tuple(transforms.mean), tuple(transforms.std)


def timm_network(name: str, size: tuple[int, int], weights: str | None = None) -> nn.Module:
    """A network of timm's that gives its pooled features; one of fixed size is built for this one.

    Weights: "pretrained", or a tag of timm's, such as a1_in1k; None: freshly initialised.
    """
    timm, full = _timm(), _with_tag(name, weights)
    if not timm.is_model(name):
        near = ", ".join(get_close_matches(name, timm.list_models(), n=5)) or "none: see timm.list_models()"
        raise ValueError(f"backbone 'timm:{name}' is unknown to timm; near it are {near}")
    found = timm.models.get_pretrained_cfg(name)
    options = {"img_size": size} if found and found.fixed_input_size else {}
    return _fetched(
        lambda: timm.create_model(full, pretrained=weights is not None, num_classes=0, **options),
        f"timm:{name}",
        weights,
    )


def timm_scaling(name: str, weights: str) -> Scaling:
    """Mean and deviation of the channels that these weights were trained on."""
    found = _timm().models.get_pretrained_cfg(_with_tag(name, weights))
    return found.mean, found.std


def published_name(name: str, weights: str) -> str:
    """What a publisher's weights are called in full: "DEFAULT" is another one in a later version."""
    source, _, rest = name.rpartition(":")
    if source != "timm":
        return str(torchvision_weights(rest, weights))
    found = _timm().models.get_pretrained_cfg(_with_tag(rest, weights))
    return f"{found.architecture}.{found.tag}"


def _with_tag(name: str, weights: str | None) -> str:
    return name if weights in (None, "pretrained") else f"{name}.{weights}"


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise ValueError(f"backbones of timm need timm ({error}): pip install timm") from None
    return timm


def _fetched(build: Callable[[], nn.Module], name: str, weights: str | None) -> nn.Module:
    if weights is None:
        return build()
    try:
        return build()
    except (OSError, RuntimeError) as error:  # of urllib, of the hub's client, of timm
        raise ValueError(
            f"weights {weights!r} of {name} could not be fetched or read ({error}); fetch them once where "
            f"there is a network: they stay in {torch.hub.get_dir()} or the hub's cache, which may be copied"
        ) from None


@cache
def own_function(name: str) -> tuple[Callable[..., nn.Module], str]:
    """A function of the reader's from "module:function", and the SHA-256 of the file that defines it.

    The module is looked for in the working directory and the project's root as well. It is loaded once in a
    process, as Python does it: an edited file counts from the next one on.
    """
    place, _, wanted = name.partition(":")
    before = list(sys.path)
    sys.path[:0] = [str(Path.cwd()), str(project_path(""))]
    try:
        module = importlib.import_module(place)
    except ImportError as error:
        raise ValueError(
            f"backbone {name!r}: {place} cannot be imported ({error}); it is looked for in {Path.cwd()} and "
            f"among the installed packages"
        ) from None
    finally:
        sys.path[:] = before
    function = getattr(module, wanted, None)
    if not callable(function):
        raise ValueError(f"backbone {name!r}: {place} has no function {wanted}")
    try:
        file = inspect.getsourcefile(function)
    except TypeError:  # such as functools.partial
        file = None
    return function, file_sha256(file or module.__file__)


def own_parameters(name: str) -> set[str]:
    """Which of ``channels`` and ``size`` the reader's function wants to be told."""
    return {"channels", "size"} & set(inspect.signature(own_function(name)[0]).parameters)


def own_network(name: str, channels: int, size: tuple[int, int]) -> nn.Module:
    """What the reader's function gives."""
    known = {"channels": channels, "size": size[0] if size[0] == size[1] else size}
    network = own_function(name)[0](**{word: known[word] for word in own_parameters(name)})
    if not isinstance(network, nn.Module):
        raise ValueError(f"backbone {name!r} must give an nn.Module; got {type(network).__name__}")
    return network
