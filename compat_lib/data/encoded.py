"""Images that stay encoded, in files or records, and are decoded when asked for: sets larger than memory."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from .decoding import Resize, Size, UnreadableImages, height_width, open_image, smooth_resize

RULES = 2  # part of the digest: raise it whenever the same files give other pixels


class Names:
    """Texts by number, in one buffer: five million of them as Python objects would take a gigabyte.

    >>> names = Names(["a.png", "b/c.png"])
    >>> len(names), names[1]
    (2, 'b/c.png')
    """

    def __init__(self, names: Iterable[str | os.PathLike]) -> None:
        self._names = pa.array(map(os.fsencode, names), pa.large_binary())

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, number: int) -> str:
        return os.fsdecode(self._names[number].as_py())

    def subset(self, rows: Tensor) -> Names:
        """Return the names of the rows (int64 [n]) in that order."""
        part = copy.copy(self)
        part._names = self._names.take(pa.array(rows.cpu().numpy()))
        return part


class EncodedImages:
    """Images in the place of a uint8 tensor [N, C, H, W]: rows of it are decoded when they are taken.

    Args:
        files: what `read` takes, one an image: paths (kept in one buffer), or a numpy array such as the
            numbers of records in one large file.
        read: item -> PIL image; it must pickle, since worker processes call it. An image that it cannot give
            is an `UnreadableImages` that names file and record. None: items are paths.
        size: pixels, (height, width), or one number for squares.
        mode: "RGB" or "L".
        digest: of the list of files, their sizes and whatever else decides the pixels; see `digest`.
        resize: (PIL image in that mode, size) -> uint8 [H, W] or [H, W, 3].

    >>> def grey(number):
    ...     return Image.new("L", (5, 5), int(number))
    >>> two = EncodedImages(np.array([7, 9]), grey, size=4, mode="L", digest="7, 9")
    >>> two.shape, two[[1, 0]][:, 0, 0, 0].tolist(), len(two.subset(torch.tensor([1])))
    ((2, 1, 4, 4), [9, 7], 1)
    """

    def __init__(
        self,
        files: Sequence[Any],
        read: Callable[[Any], Image.Image] | None = None,
        *,
        size: Size,
        digest: str,
        mode: str = "RGB",
        resize: Resize = smooth_resize,
    ) -> None:
        self.files = files if isinstance(files, np.ndarray | Names) else Names(files)
        self.read, self.size, self.mode, self.resize = read, height_width(size), mode, resize
        self._digest = digest
        self._rows: Tensor | None = None  # int64 [N], numbers of files; None: all

    def __len__(self) -> int:
        return len(self.files if self._rows is None else self._rows)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        return len(self), 3 if self.mode == "RGB" else 1, *self.size

    def __getitem__(self, rows: Tensor | np.ndarray | Sequence[int] | slice | int) -> Tensor:
        """Decode: uint8 [n, C, H, W] of int64 row numbers or a slice; [C, H, W] of one number.

        An `UnreadableImages` names every file of these rows that cannot be decoded.
        """
        if isinstance(rows, int):
            return self[[range(len(self))[rows]]][0]
        rows = torch.as_tensor(range(len(self))[rows] if isinstance(rows, slice) else rows)
        pixels = np.empty((len(rows), *self.shape[1:]), np.uint8)
        bad: list[tuple[str, str]] = []
        for place, number in enumerate(self._numbers(rows.long().cpu()).tolist()):
            try:
                pixels[place] = self.decoded(number)
            except UnreadableImages as error:
                bad += error.files
        if bad:
            raise UnreadableImages(bad)
        return torch.from_numpy(pixels)

    def decoded(self, number: int) -> np.ndarray:
        """Return the image of one of the files, uint8 [C, H, W]."""
        item, mode = self.files[number], self.mode
        image = open_image(item, mode) if self.read is None else self.read(item).convert(mode)
        return np.atleast_3d(self.resize(image, self.size)).transpose(2, 0, 1)

    def _numbers(self, rows: Tensor) -> Tensor:
        return rows if self._rows is None else self._rows[rows]

    def subset(self, rows: Tensor) -> EncodedImages:
        """Return the images of the rows (int64 [n]) in that order; nothing is decoded."""
        part = copy.copy(self)
        part._rows = self._numbers(rows.cpu())
        return part

    def digest(self) -> str:
        """Return the SHA-256 (hex) of list, rules of decoding and rows, not of pixels."""
        rules = [RULES, self._digest, self.size, self.mode, self.resize.__name__, len(self)]
        total = hashlib.sha256(json.dumps(rules).encode())
        if self._rows is not None:
            total.update(memoryview(self._rows.contiguous().numpy()).cast("B"))
        return total.hexdigest()


class Stream:
    """Decodes one list of rows after another, by worker processes (kept between calls; 0: here) ahead of
    whoever takes them; `pinned` for pixels that go to a GPU."""

    def __init__(self, images: EncodedImages, workers: int, *, pinned: bool = False) -> None:
        self._parts: list[np.ndarray] = []  # of the epoch
        how = {"num_workers": workers, "persistent_workers": workers > 0, "pin_memory": pinned}
        # A generator of its own: starting workers must not draw from the one that training uses.
        how["generator"] = torch.Generator()
        self._loader = DataLoader(Caught(images), sampler=self._parts, batch_size=None, **how)

    def decode(self, parts: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield uint8 [n, C, H, W] of each part (int64 [n] row numbers on the CPU), in their order."""
        self._parts[:] = [part.numpy() for part in parts]
        for pixels in self._loader:
            if isinstance(pixels, UnreadableImages):
                raise pixels
            yield pixels


@dataclass(frozen=True)
class Caught:
    """Images whose errors are values: a worker's exception would come back as the text of its traceback."""

    images: EncodedImages

    def __getitem__(self, rows: np.ndarray | int) -> Tensor | UnreadableImages:
        try:
            return self.images[rows]
        except UnreadableImages as error:
            return error
