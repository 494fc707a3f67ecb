"""What a data set is here: images with labels, dealt out to parts; and where data lives on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from .encoded import EncodedImages, Names

Place = str | os.PathLike | None  # of a folder
DATA_VARIABLE = "COMPAT_DATA"
DISTRACTOR = "distractor"  # the class of re-identification's wrong detections: no two show one person
VAL_SHARE = 0.1  # of the training classes or images, held out for validation
VAL_IMAGES = 10  # classes with fewer images keep all of them for training
_HASH_ROWS = 4096  # rows hashed at a time: bounds the copy made of a memory-mapped or strided tensor


def data_root(root: Place = None) -> Path:
    """Return the folder of data sets and their caches, absolute; it need not exist yet.

    None takes the environment variable COMPAT_DATA, and without that `data` where we are.
    """
    chosen = root if root is not None else os.environ.get(DATA_VARIABLE) or "data"
    path = Path(chosen).expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(
            f"data root {path} is a file, a folder is needed; pass another root=... or set {DATA_VARIABLE}"
        )
    return path


def seeded_generator(*parts: object) -> torch.Generator:
    """Return a CPU generator for a seed, a name, a counter; neighbouring seeds have nothing in common."""
    text = "/".join(str(part) for part in parts)
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return torch.Generator().manual_seed(number >> 1)  # manual_seed takes a signed 64-bit number


@contextmanager
def torch_defaults() -> Iterator[None]:
    """float32 by default, and gradients, whatever the caller has set: what is drawn depends on the first."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False):
            yield
    finally:
        torch.set_default_dtype(before)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their labels, class names and whatever else a protocol must know about a row.

    >>> two = ImageSet(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]), ("a", "b"))
    >>> len(two), two.num_classes, two.subset(torch.tensor([1])).labels.tolist()
    (2, 2, [1])
    """

    images: Tensor | EncodedImages  # uint8 [N, C, H, W], 0..255, C = 1 or 3; in memory, mapped or encoded
    labels: Tensor  # int64 [N], 0..len(classes)-1
    classes: tuple[str, ...]  # one name per class; a subset keeps those without images
    extras: dict[str, Tensor] = field(default_factory=dict)  # [N, ...] each
    names: Names | None = None  # [N], "train/anna/1.png", of image files in class folders; not in the digest

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.images.shape[1:]))
        kind = "encoded images" if isinstance(self.images, EncodedImages) else "images"
        extras = f", with {', '.join(self.extras)}" if self.extras else ""
        return f"ImageSet({len(self)} {kind} of {shape}, {self.num_classes} classes{extras})"

    @property
    def num_classes(self) -> int:
        """Number of class names, whether or not each has images."""
        return len(self.classes)

    def digest(self) -> str:
        """Return the SHA-256 (hex) of the content: images, labels, class names and extras.

        Of encoded images their list of files with sizes counts, not their pixels.
        """
        total = hashlib.sha256("\0".join(self.classes).encode())
        named = {"images": self.images, "labels": self.labels, **dict(sorted(self.extras.items()))}
        if isinstance(self.images, EncodedImages):
            total.update(f"\0encoded images {named.pop('images').digest()}\0".encode())
        for name, values in named.items():
            total.update(f"\0{name} {values.dtype} {list(values.shape)}\0".encode())
            for start in range(0, len(values), _HASH_ROWS):
                block = values[start : start + _HASH_ROWS].contiguous().cpu()
                total.update(memoryview(block.numpy()).cast("B"))
        return total.hexdigest()

    def subset(self, rows: Tensor | Sequence[int]) -> ImageSet:
        """Return the rows (int64 [n] row numbers, or bool [N]) in that order, with the same classes."""
        rows = torch.as_tensor(rows)
        rows = rows.nonzero().flatten() if rows.dtype == torch.bool else rows
        if torch.equal(rows, torch.arange(len(self))):  # everything: share the storage, however large it is
            return self
        extras = {name: values[rows] for name, values in self.extras.items()}
        encoded = isinstance(self.images, EncodedImages)
        images = self.images.subset(rows) if encoded else self.images[rows]
        names = None if self.names is None else self.names.subset(rows)
        return ImageSet(images, self.labels[rows], self.classes, extras, names)

    def with_labels(self, rows: Tensor, labels: Tensor, classes: Sequence[str]) -> ImageSet:
        """Return the rows under new labels (int64 [n]) and class names; a "true_label" stays as it is."""
        return replace(self.subset(rows), labels=labels, classes=tuple(classes))

    def compact(self, rows: Tensor) -> ImageSet:
        """Return the chosen rows (bool [N]) with the classes that occur in them, labels counted from 0."""
        kept, labels = torch.unique(self.labels[rows], return_inverse=True)
        return self.with_labels(rows, labels, [self.classes[label] for label in kept.tolist()])


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set of that name, dealt out: `train` for both models, `val` and `test` for evaluation only."""

    name: str
    train: ImageSet
    val: ImageSet
    test: ImageSet
    lists: dict[str, Tensor] = field(default_factory=dict)  # of a protocol, see docs/protocols.md
    other_tests: dict[str, ImageSet] = field(default_factory=dict)  # by part, such as "in-domain"
    skipped: tuple[str, ...] = ()  # image files that could not be read, where that was asked for

    def __repr__(self) -> str:
        parts = [f"{name}: {len(part)} of {part.num_classes}" for name, part in self.parts.items()]
        return f"Splits({self.name!r}, images of classes: {', '.join(parts)})"

    @property
    def parts(self) -> dict[str, ImageSet]:
        """Train, val, test and other tests by name."""
        return {"train": self.train, "val": self.val, "test": self.test} | self.other_tests

    @property
    def tests(self) -> dict[str | None, ImageSet]:
        """All test parts, by the name that their records carry: None is `test`."""
        return {None: self.test} | self.other_tests


def with_validation(
    name: str, train: ImageSet, test: ImageSet, *, seed: int, share: float, looked: float = VAL_SHARE
) -> Splits:
    """Hold a validation part out of training, by seed.

    A share of the classes (at least 2) when test has none of the training classes; otherwise that share of
    the images (at least 2, so that they can match) of every class that has 10 or more. Where one way leaves
    validation fewer than 2 classes, of which one is told from the other, the other way is taken. A share of 0
    trains on everything, as published, and validation is the share `looked` of it.
    """
    if not 0 <= share < 1:
        raise ValueError(f"validation must be a share of at least 0 and below 1; got {share}")
    generator = seeded_generator(name, seed, "validation")
    ways = [held_images, held_classes]
    if not set(train.classes) & set(test.classes):
        ways.reverse()  # test asks for classes never seen: validation should ask the same
    for way in ways:
        held = way(train, generator, share or looked)
        if len(train.labels[held].unique()) > 1:
            return Splits(name, train.compact(~held) if share else train, train.compact(held), test)
    raise ValueError(
        f"nothing can be held out for validation: train has {train.num_classes} classes, fewer than "
        f"2 with {VAL_IMAGES} images; add val/<class>/<images>"
    )


def held_classes(train: ImageSet, generator: torch.Generator, share: float) -> Tensor:
    """Return bool [N], the rows of a share of the classes, at least 2; none if fewer than 2 would be left."""
    held = max(2, round(share * train.num_classes))
    if train.num_classes - held < 2:
        return torch.zeros(len(train), dtype=torch.bool)
    return torch.isin(train.labels, torch.randperm(train.num_classes, generator=generator)[:held])


def held_images(train: ImageSet, generator: torch.Generator, share: float) -> Tensor:
    """Return bool [N], a share of the rows (at least 2) of each class with 10 or more."""
    held = torch.zeros(len(train), dtype=torch.bool)
    sizes = torch.bincount(train.labels, minlength=train.num_classes)
    for rows in train.labels.argsort(stable=True).split(sizes.tolist()):
        if len(rows) >= VAL_IMAGES:
            count = max(2, round(share * len(rows)))
            held[rows[torch.randperm(len(rows), generator=generator)[:count]]] = True
    return held
