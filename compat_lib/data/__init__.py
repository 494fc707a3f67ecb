"""Data sets, scenarios and the input pipeline."""

from __future__ import annotations

import importlib
import inspect
import os

from .images import DATA_VARIABLE, ImageSet, Splits, data_root

DATASETS = ("portraits", "omniglot", "cifar100", "folder")
# name -> (module, function); imported on use, so that portraits need no image decoder
_MAKERS = {
    "portraits": (".portraits", "portraits"),
    "omniglot": (".omniglot", "omniglot"),
    "cifar100": (".folders", "cifar100"),
    "folder": (".folders", "folder"),
}

__all__ = ["DATASETS", "DATA_VARIABLE", "ImageSet", "Splits", "data_root", "dataset_options", "load"]


def dataset_options(name: str) -> dict[str, object]:
    """Return the options of a data set with their defaults, beyond root, size and seed.

    An option without a default (the path of "folder") has the value `inspect.Parameter.empty`.

    Raises:
        ValueError: "unknown data set ...".

    >>> dataset_options("portraits")["identities"]
    1000
    """
    parameters = inspect.signature(_maker(name)).parameters
    return {key: p.default for key, p in parameters.items() if key not in ("root", "size", "seed")}


def load(
    name: str, *, root: str | os.PathLike | None = None, size: int = 32, seed: int = 0, **options: object
) -> Splits:
    """Return a data set by its name: training, validation and test images with labels.

    Args:
        name: one of DATASETS; "folder" takes `path=...`, a folder with train/<class>/* and test/<class>/*.
        root: data root, see `data_root`.
        size: pixels, height and width of the images.
        seed: integer; what is drawn (portraits) or held out for validation (the others) depends on it.
        options: what the data set allows beyond that, see `dataset_options`.

    Raises:
        ValueError: "unknown data set ...", "unknown option ...", "... needs the option ...".
    """
    maker = _maker(name)
    allowed = dataset_options(name)
    unknown = [key for key in options if key not in allowed]
    if unknown:
        raise ValueError(
            f"unknown option {', '.join(unknown)} for data set {name!r}; allowed: "
            + (", ".join(allowed) if allowed else "none beyond root, size and seed")
        )
    missing = [
        key for key, default in allowed.items() if default is inspect.Parameter.empty and key not in options
    ]
    if missing:
        raise ValueError(f"data set {name!r} needs the option {', '.join(missing)}")
    return maker(root=root, size=size, seed=seed, **options)


def _maker(name: str):
    if name not in _MAKERS:
        raise ValueError(f"unknown data set {name!r}; choose one of {', '.join(DATASETS)}")
    module, function = _MAKERS[name]
    return getattr(importlib.import_module(module, __name__), function)
