"""Data sets, scenarios and the input pipeline."""

from __future__ import annotations

import importlib
import inspect
import os

from .images import DATA_VARIABLE, ImageSet, Splits, data_root

# name -> module of its function; imported on use, since a service needs none of them
_MODULES = {"portraits": ".portraits", "omniglot": ".omniglot", "cifar100": ".folders", "folder": ".folders"}
DATASETS = tuple(_MODULES)

__all__ = ["DATASETS", "DATA_VARIABLE", "ImageSet", "Splits", "data_root", "load"]


def load(
    name: str, *, root: str | os.PathLike | None = None, size: int = 32, seed: int = 0, **options: object
) -> Splits:
    """Return a data set by its name: training, validation and test images with labels.

    Args:
        name: one of DATASETS; "folder" takes `path=...`, a folder with train/<class>/* and test/<class>/*.
        root: data root, see `data_root`.
        size: pixels, height and width of the images.
        seed: integer; what is drawn (portraits) or held out for validation (the others) depends on it.
        options: what the function of that name in this package takes beyond that.

    Raises:
        ValueError: "unknown data set ...", "unknown option ...", "... needs the option ...".
    """
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; choose one of {', '.join(DATASETS)}")
    maker = getattr(importlib.import_module(_MODULES[name], __name__), name)
    allowed = {
        k: p for k, p in inspect.signature(maker).parameters.items() if k not in ("root", "size", "seed")
    }
    if unknown := sorted(set(options) - set(allowed)):
        raise ValueError(
            f"unknown option {', '.join(unknown)} for data set {name!r}; allowed: "
            + (", ".join(allowed) or "none beyond root, size and seed")
        )
    missing = [k for k, p in allowed.items() if p.default is p.empty and k not in options]
    if missing:
        raise ValueError(f"data set {name!r} needs the option {', '.join(missing)}")
    return maker(root=root, size=size, seed=seed, **options)
