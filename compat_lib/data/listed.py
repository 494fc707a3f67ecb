"""Image files named by a list or a folder, streamed, and the validation part held out of training."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from .decoding import printable, smooth_resize
from .encoded import EncodedImages, Names
from .images import ImageSet, Splits, held_classes, seeded_generator

VAL_SHARE = 0.1
VAL_IMAGES = 10  # classes with fewer images keep all of them for training


def listed_set(folder: Path, rows: pd.DataFrame, origin: Callable[[int], str], **how: Any) -> ImageSet:
    """Return the images of a table with their classes, streamed.

    Args:
        folder, origin, how: as in `listed_images`.
        rows: a row an image: "file", "class" (text; labels count the classes in their sorted order), and any
            further columns, which become extras.
    """
    classes, labels = np.unique(rows["class"].to_numpy(str), return_inverse=True)
    extras = {name: torch.tensor(rows[name].to_numpy()) for name in rows.columns.drop(["file", "class"])}
    images = listed_images(folder, rows["file"].tolist(), origin, **how)
    return ImageSet(images, torch.from_numpy(labels), tuple(classes.tolist()), extras)


def listed_images(
    folder: Path,
    names: Sequence[str],
    origin: Callable[[int], str],
    *,
    size: int | tuple[int, int],
    resize: Callable[[Image.Image, tuple[int, int]], np.ndarray] = smooth_resize,
) -> EncodedImages:
    """Return the images of a list, every one of which is there; none is decoded yet.

    Args:
        folder: what the names are relative to; its own place is no part of the digest.
        names: [N] paths of the files.
        origin: row -> where its name stands, such as "line 3 of list_train.txt", for errors.
        size, resize: see `EncodedImages`.
    """
    total, place = hashlib.sha256(), os.fspath(folder)
    for row, name in enumerate(names):
        try:
            total.update(os.fsencode(f"{name}\0{os.stat(f'{place}/{name}').st_size}\n"))
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(
                f"{origin(row)} names {printable(name)}, which is not in {printable(folder)}; unpack the "
                "images anew, or take images and lists of one release"
            ) from None
    files = Names(f"{place}/{name}" for name in names)
    return EncodedImages(files, size=size, digest=total.hexdigest(), resize=resize)


def with_validation(
    name: str,
    train: ImageSet,
    test: ImageSet,
    *,
    seed: int,
    share: float = VAL_SHARE,
    looked: float = VAL_SHARE,
) -> Splits:
    """Hold a validation part out of training, by seed.

    A share of the classes (at least 2) when test has none of the training classes; otherwise that share of
    the images (at least 2, so that they can match) of every class that has 10 or more. Where one way is
    impossible the other is taken.

    Args:
        share: of what is held out, 0 to 1 (excluded); 0 trains on everything, as published, and validation is
            the share `looked` of it.
    """
    if not 0 <= share < 1:
        raise ValueError(f"validation must be a share of at least 0 and below 1; got {share}")
    generator = seeded_generator(name, seed, "validation")
    ways = [held_images, held_classes]
    if not set(train.classes) & set(test.classes):
        ways.reverse()  # test asks for classes never seen: validation should ask the same
    for way in ways:
        held = way(train, generator, share or looked)
        if held.any():
            return Splits(name, train.compact(~held) if share else train, train.compact(held), test)
    raise ValueError(
        f"nothing can be held out for validation: train has {train.num_classes} classes, none with "
        f"{VAL_IMAGES} images; add val/<class>/<images>"
    )


def held_images(train: ImageSet, generator: torch.Generator, share: float) -> torch.Tensor:
    """Return bool [N], a share of the rows (at least 2) of each class with 10 or more."""
    held = torch.zeros(len(train), dtype=torch.bool)
    sizes = torch.bincount(train.labels, minlength=train.num_classes)
    for rows in train.labels.argsort(stable=True).split(sizes.tolist()):
        if len(rows) >= VAL_IMAGES:
            count = max(2, round(share * len(rows)))
            held[rows[torch.randperm(len(rows), generator=generator)[:count]]] = True
    return held
