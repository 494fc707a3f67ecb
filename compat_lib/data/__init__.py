"""Data sets, scenarios and the input pipeline."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from numbers import Real

from compat_lib.config import DATASETS
from compat_lib.names import check_choice, instead

from .decoding import Size
from .images import DATA_VARIABLE, ImageSet, Place, Splits, data_root, torch_defaults

__all__ = ["DATASETS", "DATA_VARIABLE", "ImageSet", "Splits", "data_root", "load"]

_MODULES = {  # of a data set, where it is not called as the set is
    **dict.fromkeys(("cifar100", "folder"), "folders"),
    **dict.fromkeys(("ms1mv3", "celeba-lfw"), "faces"),
    **dict.fromkeys(("market1501", "dukemtmc", "msmt17"), "persons"),
    "places365": "imagenet",
}


@torch_defaults()
def load(
    name: str, *, root: Place = None, size: Size = 32, seed: int = 0, stream: bool = False, **options: object
) -> Splits:
    """Return a data set by its name: training, validation and test images with labels.

    Args:
        name: one of DATASETS; "folder" takes `path=...`, a folder with train/<class>/* and test/<class>/*.
        root: data root, see `data_root`.
        size: pixels of the images: a side of squares, or (height, width).
        seed: integer; draws the portraits, or what of the others is held out for validation.
        stream: leave images encoded where they are, to be decoded batch by batch, for sets larger than
            memory; the pixels are the same, but a file that cannot be read is found only when it is needed.
        options: what the function of that name in this package takes beyond that. "path" is another place of
            the set's own files; "validation" the share of the training images (of faces: the number of
            identities) that is held out by seed; 0: none, as papers publish their splits, and validation is
            a sample of what trains.

    Raises:
        ValueError: see `reader_of`; an option has no such value; a list or a file is damaged, by its line.
        FileNotFoundError: the data set, or a file of it, is not there; says where it is looked for.
    """
    read, streamed = reader_of(name, options, stream), {"stream": True} if stream else {}
    try:
        return read(root=root, size=size, seed=seed, **streamed, **options)
    except FileNotFoundError as error:
        if name == "folder":
            raise
        raise FileNotFoundError(f"{error}; docs/data_sets.md says where {name} comes from") from error


def reader_of(name: str, options: Mapping[str, object], stream: bool = False) -> Callable[..., Splits]:
    """Return the function that reads a data set, if these options are its own; else a ValueError."""
    check_choice("the data set", name, DATASETS)
    # Imported on use, since a service needs none of them.
    module = _MODULES.get(name, name)
    maker = getattr(importlib.import_module(f".{module}", __name__), name.replace("-", "_"))
    allowed = inspect.signature(maker).parameters
    if stream and "stream" not in allowed:
        raise ValueError(f"data set {name!r} is always read in one way, stream or not; leave stream out")
    own = [key for key in allowed if key not in ("root", "size", "seed", "stream")]
    needed = {key for key in own if allowed[key].default is inspect.Parameter.empty}
    unknown = [key for key in options if key not in own]
    if unknown or needed - set(options):
        known = instead(*unknown[:1] or [""], own) + (f" and needs {', '.join(needed)}" if needed else "")
        given = ", ".join(options) or "none"
        raise ValueError(f"data set {name!r} takes the options {known}; got {given}")
    for key, value in options.items():
        default = allowed[key].default
        if isinstance(default, bool) and not isinstance(value, bool):  # a text, also "no", would mean True
            raise ValueError(f"data set {name!r}: {key} must be True or False; got {value!r}")
        if type(default) in (int, float) and (isinstance(value, bool) or not isinstance(value, Real)):
            raise ValueError(f"data set {name!r}: {key} must be a number, such as {default}; got {value!r}")
    return maker
