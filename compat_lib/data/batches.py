"""The input pipeline: whole batches augmented on the device, with a different draw for every image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .images import seeded_generator


def to_float(images: Tensor) -> Tensor:
    """Return images (uint8) as a network reads them, float32 in -1..1, channels_last: (x - 127.5) / 127.5.

    Source: the input scaling published with MixBCT (arXiv 2308.06948).

    >>> to_float(torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2)).flatten().tolist()
    [-1.0, 1.0]
    """
    return images.to(torch.float32, memory_format=torch.channels_last).sub_(127.5).div_(127.5)


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch, on the device: which rows, their labels and, when asked, their augmented pixels."""

    rows: Tensor  # int64 [B], row numbers of the images
    labels: Tensor  # int64 [B]
    _images: Tensor
    _down: Tensor  # int64 [B]: how far the crop lies below the image's own frame, in pixels
    _right: Tensor  # int64 [B]
    _mirrored: Tensor  # bool [B]

    def pixels(self, keep: Tensor | None = None) -> Tensor:
        """Return the augmented images of the rows to `keep` (bool [B]; None: all), see `to_float`.

        Neither their order nor their augmentation depends on `keep`.
        """
        rows, down, right, mirrored = self.rows, self._down, self._right, self._mirrored
        if keep is not None:
            keep = keep.to(rows.device)
            rows, down, right, mirrored = rows[keep], down[keep], right[keep], mirrored[keep]
        height, width = self._images.shape[2:]
        y = torch.arange(height, device=rows.device) + down[:, None]  # [E, H]
        x = torch.arange(width, device=rows.device).expand(len(rows), width)
        x = torch.where(mirrored[:, None], width - 1 - x, x) + right[:, None]  # [E, W]
        y, x = y.clamp_(0, height - 1), x.clamp_(0, width - 1)  # a border repeats the outermost pixels
        # One gather does crop, border and flip; its result is [E, H, W, C], which is channels_last.
        cropped = self._images[rows[:, None, None], :, y[:, :, None], x[:, None, :]]
        return to_float(cropped.permute(0, 3, 1, 2))


class Groups:
    """Rows for batches of P = batch_size / K identities with K = `per_identity` images each, as re-ID trains.

    In every epoch each identity's images are shuffled and dealt into groups of K; a last group that is not
    full is filled from the first images. A batch takes one group of each of P identities, drawn in proportion
    to the groups that they have left; the images of an identity stand next to each other. The number of
    batches T is the largest with sum_i min(g_i, T) >= P T, where identity i has g_i = ceil(n_i / K) groups.
    What does not fit waits for another epoch, drawn anew.

    Raises:
        ValueError: "per_identity must be ...", "batch_size 10 is no multiple of per_identity 4 ...",
            "batches of 64 images with 4 of each identity need 16 identities, but there are 10 ...".

    >>> groups = Groups(torch.tensor([7, 7, 7, 9]), batch_size=4, per_identity=2)
    >>> groups.batches, sorted(groups.rows(torch.Generator().manual_seed(0)).tolist())[-2:]    # row 3 twice
    (1, [3, 3])
    """

    def __init__(self, labels: Tensor, batch_size: int, per_identity: int) -> None:
        if per_identity < 2:
            raise ValueError(f"per_identity must be 0 (off) or at least 2 images; got {per_identity}")
        self.identities, rest = divmod(batch_size, per_identity)  # of one batch
        if rest or self.identities == 0:
            raise ValueError(
                f"batch_size {batch_size} is no multiple of per_identity {per_identity}; "
                f"{max(1, self.identities) * per_identity} would be one"
            )
        self.per_identity = per_identity
        names, self.identity, self.sizes = labels.unique(return_inverse=True, return_counts=True)
        if len(names) < self.identities:
            raise ValueError(
                f"batches of {batch_size} images with {per_identity} of each identity need "
                f"{self.identities} identities, but there are {len(names)}; a batch_size of "
                f"{len(names) * per_identity} would do"
            )
        self.groups = -(-self.sizes // per_identity)
        self.batches = int(self.groups.sum()) // self.identities
        # A batch takes one group of an identity at most.
        while (usable := int(self.groups.clamp(max=self.batches).sum())) < self.identities * self.batches:
            self.batches = usable // self.identities

    def rows(self, generator: torch.Generator) -> Tensor:
        """Row numbers of one epoch, int64 [batches x batch_size], batch after batch."""
        shuffled = torch.randperm(len(self.identity), generator=generator)
        dealt = shuffled[self.identity[shuffled].argsort(stable=True)]  # identity after identity
        starts = self.sizes.cumsum(0) - self.sizes
        chosen = self._schedule(generator).flatten()
        order = chosen.argsort(stable=True)
        counts = torch.bincount(chosen, minlength=len(self.sizes))
        turns = torch.empty_like(chosen)  # how often the identity of each place came before
        turns[order] = torch.arange(len(chosen)) - (counts.cumsum(0) - counts)[chosen[order]]
        images = turns[:, None] * self.per_identity + torch.arange(self.per_identity)
        return dealt[starts[chosen][:, None] + images % self.sizes[chosen][:, None]].flatten()

    def _schedule(self, generator: torch.Generator) -> Tensor:
        """int64 [batches, identities]: which identities each batch has."""
        left = self.groups.clamp(max=self.batches)
        surplus = int(left.sum()) - self.batches * self.identities
        owners = torch.arange(len(left)).repeat_interleave(left)
        waiting = owners[torch.randperm(len(owners), generator=generator)[:surplus]]
        left -= torch.bincount(waiting, minlength=len(left))
        chosen = torch.empty(self.batches, self.identities, dtype=torch.int64)
        for number in range(self.batches):
            # The largest of these keys are a draw without replacement in proportion to what is left. With as
            # many groups left as batches an identity must come now; no more than P can be in that state.
            keys = -torch.empty(len(left)).exponential_(generator=generator) / left
            keys[left == 0] = -torch.inf
            keys[left == self.batches - number] = 1.0
            chosen[number] = keys.topk(self.identities).indices
            left[chosen[number]] -= 1
        return chosen


class Batches:
    """Shuffled, augmented batches of an image set, epoch after epoch.

    Everything about an epoch depends on (seed, epoch) only: a resumed training needs no state from here.

    Args:
        images: uint8 [N, C, H, W]; moved to the device once. On the CPU a memory-mapped one stays on disk.
        labels: int64 [N].
        batch_size: images per batch; a shorter last batch is dropped, but fewer images than a batch make
            one batch of all.
        seed: integer.
        shift: pixels; every image is moved by -shift..shift in both directions, its border repeated.
        flip: mirror every image left to right with probability 1/2.
        per_identity: K, images of each identity in a batch, see `Groups`; 0 takes images as they come.

    Raises:
        ValueError: "shift must be ...", and what `Groups` raises.

    >>> six = torch.zeros(6, 1, 4, 4, dtype=torch.uint8)
    >>> batches = Batches(six, torch.arange(6), batch_size=4, seed=0)
    >>> len(batches), [batch.pixels().shape[0] for batch in batches.epoch(0)]
    (1, [4])
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        shift: int = 2,
        flip: bool = False,
        per_identity: int = 0,
    ) -> None:
        side = min(images.shape[2:])
        if not 0 <= shift < side:
            raise ValueError(f"shift must be 0 or more pixels and less than the image's {side}; got {shift}")
        self.device = torch.device(device)
        self.images = images.to(self.device)
        self.labels = labels.to(self.device, torch.int64)
        self.seed, self.shift, self.flip = seed, shift, flip
        self._groups = Groups(labels.cpu(), batch_size, per_identity) if per_identity else None
        self.batch_size = batch_size if per_identity else min(batch_size, len(images))
        self._count = self._groups.batches if self._groups else len(images) // self.batch_size

    def __len__(self) -> int:
        return self._count

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of one epoch; the same number gives the same ones, whatever ran before."""
        # All draws are made on the CPU, so that an epoch is the same on every device; flips are drawn even
        # when they are off, so that switching them on changes nothing else.
        generator = seeded_generator(self.seed, "epoch", number)
        if self._groups:
            order = self._groups.rows(generator)
        else:
            order = torch.randperm(len(self.images), generator=generator)
        count, order = len(order), order.to(self.device)
        moves = torch.randint(-self.shift, self.shift + 1, (2, count), generator=generator).to(self.device)
        mirrored = torch.rand(count, generator=generator).to(self.device) < (0.5 if self.flip else 0)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            part = slice(start, start + self.batch_size)
            rows = order[part]
            yield Batch(rows, self.labels[rows], self.images, *moves[:, part], mirrored[part])
