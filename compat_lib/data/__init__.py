"""Data sets, scenarios and the input pipeline."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable

from .images import DATA_VARIABLE, ImageSet, Splits, data_root

# name -> module of its function; imported on use, since a service needs none of them
_MODULES = {"portraits": ".portraits", "omniglot": ".omniglot", "cifar100": ".folders", "folder": ".folders"}
DATASETS = tuple(_MODULES)

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
    allowed = dataset_options(name)
    unknown = [key for key in options if key not in allowed]
    if unknown:
        raise ValueError(
            f"unknown option {', '.join(unknown)} for data set {name!r}; allowed: "
            + (", ".join(allowed) or "none beyond root, size and seed")
        )
    missing = [key for key, default in allowed.items() if default is inspect.Parameter.empty]
    if not set(missing) <= set(options):
        raise ValueError(f"data set {name!r} needs the option {', '.join(missing)}")
    return _maker(name)(root=root, size=size, seed=seed, **options)


def _maker(name: str) -> Callable[..., Splits]:
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; choose one of {', '.join(DATASETS)}")
    return getattr(importlib.import_module(_MODULES[name], __name__), name)
