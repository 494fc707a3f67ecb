"""What a data set is here: whole-image tensors with labels, and where data lives on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

DATA_VARIABLE = "COMPAT_DATA"
_HASH_ROWS = 4096  # rows hashed at a time: bounds the copy made of a memory-mapped or strided tensor


def data_root(root: str | os.PathLike | None = None) -> Path:
    """Return the folder that holds data sets and their caches.

    Args:
        root: the folder; None takes the environment variable COMPAT_DATA, and without that
            the folder `data` under the working directory. It need not exist yet.

    Returns:
        Absolute path, with `~` expanded.

    Raises:
        NotADirectoryError: "data root ... is a file ...".

    >>> data_root("here").name
    'here'
    """
    chosen = root if root is not None else os.environ.get(DATA_VARIABLE) or "data"
    path = Path(chosen).expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(
            f"data root {path} is a file, a folder is needed; pass another root=... or set {DATA_VARIABLE}"
        )
    return path


def seeded_generator(*parts: object) -> torch.Generator:
    """Return a CPU generator whose stream depends on all parts and on nothing else.

    The parts are hashed, so streams of neighbouring seeds or epochs have nothing in common.

    Args:
        parts: anything with a stable `str`, usually a seed, a name and a counter.

    >>> torch.equal(torch.rand(3, generator=seeded_generator(0, "train")),
    ...             torch.rand(3, generator=seeded_generator(0, "train")))
    True
    >>> torch.equal(torch.rand(3, generator=seeded_generator(0, "train")),
    ...             torch.rand(3, generator=seeded_generator(0, "test")))
    False
    """
    text = "/".join(str(part) for part in parts)
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return torch.Generator().manual_seed(number >> 1)  # manual_seed takes a signed 64-bit number


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their labels, class names and whatever else a protocol must know about a row.

    Args:
        images: uint8 [N, C, H, W], 0..255, C = 1 or 3; in memory, or a memory-mapped file behind
            `torch.from_numpy`.
        labels: int64 [N], 0..len(classes)-1. A class may be without images (a subset keeps its classes).
        classes: one name per class.
        extras: per-row tensors [N, ...], for example "outlier" int64 [N]: 0 none, 1 wrong label, 2 occluded.

    Raises:
        TypeError: "images must be uint8 ..." or "labels must be int64 ...".
        ValueError: "images must have shape [N, C, H, W] ...", "... is empty", lengths that differ,
            labels out of range, class names that repeat.

    >>> two = ImageSet(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]), ("a", "b"))
    >>> len(two), two.num_classes, two.subset(torch.tensor([1])).labels.tolist()
    (2, 2, [1])
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    extras: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        object.__setattr__(self, "classes", tuple(str(name) for name in self.classes))
        object.__setattr__(self, "extras", dict(self.extras))
        if not isinstance(images, Tensor) or images.dtype != torch.uint8:
            raise TypeError(f"images must be uint8, 0..255; got {getattr(images, 'dtype', type(images))}")
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(
                f"images must have shape [N, C, H, W] with 1 or 3 channels; got {list(images.shape)}"
            )
        if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
            raise TypeError(f"labels must be int64; got {getattr(labels, 'dtype', type(labels))}")
        if labels.ndim != 1 or len(labels) != len(images):
            raise ValueError(
                f"{len(images)} images need as many labels; got labels of shape {list(labels.shape)}"
            )
        if images.numel() == 0:
            raise ValueError(
                f"the image set is empty: shape {list(images.shape)}; at least one image is needed"
            )
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(self.classes):
            raise ValueError(
                f"labels must lie in 0..{len(self.classes) - 1}, one number per class name; got {low}..{high}"
            )
        if len(set(self.classes)) != len(self.classes):
            twice = next(name for name in self.classes if self.classes.count(name) > 1)
            raise ValueError(f"class names must differ; {twice!r} is given more than once")
        for name, values in self.extras.items():
            if not isinstance(values, Tensor) or values.ndim == 0 or len(values) != len(labels):
                raise ValueError(f"extras[{name!r}] needs one row per image ({len(labels)}), as a tensor")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """Number of class names, whether or not each has images."""
        return len(self.classes)

    def digest(self) -> str:
        """Return the SHA-256 (hex) of the content: images, labels, class names and extras."""
        total = hashlib.sha256("\0".join(self.classes).encode())
        named = {"images": self.images, "labels": self.labels, **dict(sorted(self.extras.items()))}
        for name, values in named.items():
            total.update(f"\0{name} {values.dtype} {list(values.shape)}\0".encode())
            for start in range(0, len(values), _HASH_ROWS):
                block = values[start : start + _HASH_ROWS].contiguous().cpu()
                total.update(memoryview(block.numpy()).cast("B"))
        return total.hexdigest()

    def subset(self, rows: Tensor | Sequence[int]) -> ImageSet:
        """Return the given rows, in the given order, with the same classes.

        Args:
            rows: int64 [n] row numbers, or bool [N].

        Raises:
            ValueError: "rows must lie in ..." or an empty choice.
        """
        return self._take(rows, None, self.classes)

    def with_labels(self, rows: Tensor | Sequence[int], labels: Tensor, classes: Sequence[str]) -> ImageSet:
        """Return the given rows under new labels and class names, as a scenario deals them out.

        Extras come along as they are: a "true_label" goes on counting the original classes.

        Args:
            rows: int64 [n] row numbers, or bool [N].
            labels: int64 [n], 0..len(classes)-1.
            classes: one name per new class.
        """
        return self._take(rows, torch.as_tensor(labels), tuple(classes))

    def _take(
        self, rows: Tensor | Sequence[int], labels: Tensor | None, classes: tuple[str, ...]
    ) -> ImageSet:
        rows = torch.as_tensor(rows)
        if rows.dtype == torch.bool:
            if rows.shape != self.labels.shape:
                raise ValueError(f"a mask of rows needs shape [{len(self)}]; got {list(rows.shape)}")
            rows = rows.nonzero().flatten()
        if rows.ndim != 1 or rows.dtype.is_floating_point or len(rows) == 0:
            raise ValueError(f"rows must be a non-empty list of row numbers; got shape {list(rows.shape)}")
        rows = rows.to(torch.int64)
        if int(rows.min()) < 0 or int(rows.max()) >= len(self):
            raise ValueError(f"rows must lie in 0..{len(self) - 1}; got {int(rows.min())}..{int(rows.max())}")
        if torch.equal(rows, torch.arange(len(self))):  # everything: share the storage, however large it is
            taken = self.images, self.labels, self.extras
        else:
            taken = self.images[rows], self.labels[rows], {k: v[rows] for k, v in self.extras.items()}
        images, old_labels, extras = taken
        return ImageSet(images, old_labels if labels is None else labels, classes, extras)


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set dealt out: `train` for both models; `val` and `test` for evaluation only.

    In open-set data sets the identities (classes) of the three parts have nothing in common.

    Args:
        name: the data set's name, as in a run's identifier.
    """

    name: str
    train: ImageSet
    val: ImageSet
    test: ImageSet
