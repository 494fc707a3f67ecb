"""Image folders: train/<class>/* and test/<class>/*, your own or CIFAR-100."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .decoding import UnreadableImages, printable, smooth_resize
from .images import DATA_VARIABLE, ImageSet, Splits, data_root, seeded_generator
from .trees import decode_classes, loose_images, subfolders

VAL_SHARE = 0.1
VAL_IMAGES = 10  # classes with fewer images keep all of them for training
PARTS = ("train", "test", "val")
_LAYOUT = "expected train/<class>/<images>, test/<class>/<images> and, if you like, val/<class>/<images>"


def folder(
    root: str | os.PathLike | None = None, *, path: str | os.PathLike, size: int = 32, seed: int = 0
) -> Splits:
    """Return the images of a folder with train/<class>/*, test/<class>/* and optionally val/<class>/*.

    Images are decoded once into a memory-mapped cache under the data root; the folder itself is only read.
    Class folders are numbered in sorted order, each part for itself; images follow in the order of their
    names. What is left out (other kinds of files, folders inside classes, other parts) is said in a warning.

    Without val/, validation is held out of training by seed: 10 % of the classes (at least 2) when test has
    none of the training classes; otherwise 10 % of the images (at least 2, so that they can match) of every
    class that has 10 or more. Where one way is impossible the other is taken.

    Args:
        root: data root of the cache, see `data_root`.
        path: the folder.
        size: pixels, height and width.
        seed: integer, what is held out.

    Returns:
        Splits of uint8 [N, 3, size, size], RGB.

    Raises:
        FileNotFoundError: "... has no folder train ...".
        ValueError: "cannot read 3 images ...", "class ... has no images ...", "... has one class ...", "no
            class of the test part ... has two images ...", "nothing can be held out for validation ...".
        OSError: the data root is on a full or read-only disk.
    """
    place = Path(path).expanduser()
    return _splits(printable(place.name) or "folder", place, data_root(root) / "cache", size, seed)


def cifar100(root: str | os.PathLike | None = None, *, size: int = 32, seed: int = 0) -> Splits:
    """Return CIFAR-100, 100 classes of 500 training and 100 test photographs.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009). Class folders in
    alphabetical order are the official labels. Training and test share their classes; 10 % of the training
    images of each class are held out for validation, by seed.

    Args:
        root: data root; `<root>/cifar100/{train,test}/<class>/*` is read if it is there, otherwise
            torchvision downloads its own copy to the data root.
        size: pixels, height and width; the photographs have 32.
        seed: integer, which images are held out.

    Raises:
        FileNotFoundError: "CIFAR-100 is not in ... and could not be downloaded ...".
    """
    base = data_root(root)
    if (base / "cifar100").is_dir():
        return _splits("cifar100", base / "cifar100", base / "cache", size, seed)
    return _with_validation(
        "cifar100", *(_torchvision_part(base, part, size) for part in ("train", "test")), seed
    )


def _splits(name: str, place: Path, cache: Path, size: int, seed: int) -> Splits:
    found = {path.name: path for path in subfolders(place)}
    for needed in ("train", "test"):
        if needed not in found:
            raise FileNotFoundError(f"{printable(place)} has no folder {needed}; {_LAYOUT}")
    others = [printable(other) for other in found if other not in PARTS]
    for path in (place, *(found[part] for part in PARTS if part in found)):
        if count := loose_images(path):
            others.append(f"{count} image(s) directly in {printable(path.name)}")
    if others:
        warnings.warn(f"left out of {printable(place)}: {', '.join(others)}; {_LAYOUT}", stacklevel=3)
    parts, unreadable = {}, []
    for part in (part for part in PARTS if part in found):
        classes = {path.name: path for path in subfolders(found[part])}
        if len(classes) < 2:
            there = f"one class ({printable(next(iter(classes)))})" if classes else "no class folders"
            raise ValueError(
                f"{printable(found[part])} has {there}, at least two classes are needed; {_LAYOUT}"
            )
        try:
            parts[part] = decode_classes(classes, cache, size=size)
        except UnreadableImages as error:
            unreadable += error.files
    if unreadable:
        raise UnreadableImages(unreadable)
    splits = (
        Splits(name, parts["train"], parts["val"], parts["test"])
        if "val" in parts
        else _with_validation(name, parts["train"], parts["test"], seed)
    )
    for part in ("test", "val"):
        if int(getattr(splits, part).labels.bincount().max()) < 2:
            source = printable(found.get(part, found["train"]))
            raise ValueError(
                f"no class of the {part} part, taken from {source}, has two images, so no image can be found "
                "again by another one; add a second image to some classes"
            )
    return splits


def _with_validation(name: str, train: ImageSet, test: ImageSet, seed: int) -> Splits:
    """Hold a validation set out of training."""
    generator = seeded_generator(name, seed, "validation")
    ways = [_held_images, _held_classes]
    if not set(train.classes) & set(test.classes):
        ways.reverse()  # test asks for classes never seen: validation should ask the same
    for way in ways:
        held = way(train, generator)
        if held is not None:
            return Splits(name, train.compact(~held), train.compact(held), test)
    raise ValueError(
        f"nothing can be held out for validation: train has {train.num_classes} classes, none with "
        f"{VAL_IMAGES} images; add val/<class>/<images>"
    )


def _held_classes(train: ImageSet, generator: torch.Generator) -> torch.Tensor | None:
    """Return bool [N], the rows of 10 % of the classes (at least 2); None if fewer than 2 would be left."""
    count = train.num_classes
    held = max(2, round(VAL_SHARE * count))
    if count - held < 2:
        return None
    return torch.isin(train.labels, torch.randperm(count, generator=generator)[:held])


def _held_images(train: ImageSet, generator: torch.Generator) -> torch.Tensor | None:
    """Return bool [N], 10 % of the rows (at least 2) of each class with 10 or more; None without such."""
    held = torch.zeros(len(train), dtype=torch.bool)
    for label in range(train.num_classes):
        rows = (train.labels == label).nonzero().flatten()
        if len(rows) >= VAL_IMAGES:
            count = max(2, round(VAL_SHARE * len(rows)))
            held[rows[torch.randperm(len(rows), generator=generator)[:count]]] = True
    return held if held.any() else None


def _torchvision_part(base: Path, part: str, size: int) -> ImageSet:
    try:
        from torchvision.datasets import CIFAR100

        source = CIFAR100(str(base), train=part == "train", download=True)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"CIFAR-100 is not in {base / 'cifar100'} and could not be downloaded ({error}): put the images "
            f"at {base / 'cifar100'}/{{train,test}}/<class>/*.png, or name another data root by root=... or "
            f"{DATA_VARIABLE}"
        ) from error
    labels, order = torch.tensor(source.targets).sort(stable=True)  # class after class, as in a folder
    images = source.data[order.numpy()]
    if size != 32:
        images = np.stack([smooth_resize(Image.fromarray(image), size) for image in images])
    return ImageSet(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels, tuple(source.classes))
