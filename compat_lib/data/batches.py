"""The input pipeline: whole batches augmented on the device, with a different draw for every image."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from .augmentation import Augmentation, whole_pixels
from .encoded import EncodedImages, Stream
from .images import seeded_generator


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch, on the device: which rows, their labels and, when asked, their augmented pixels."""

    rows: Tensor  # int64 [B], row numbers of the images
    labels: Tensor  # int64 [B]
    of_all: Tensor  # int64 [world B], on the CPU: the rows of all ranks, this one's included
    _augmentation: Augmentation
    _images: Tensor
    _places: Tensor  # int64 [B], where in the tensor above the rows are
    _drawn: dict[str, Tensor]  # [B, ...] each

    def pixels(self, keep: Tensor | None = None) -> Tensor:
        """Return the augmented images of the rows to `keep` (bool [B]; None: all), see `to_float`.

        Neither their order nor their augmentation depends on `keep`.
        """
        places, drawn = self._places, self._drawn
        if keep is not None:
            # Of a mask on the CPU this waits for no GPU.
            kept = keep.nonzero()[:, 0].to(places.device, non_blocking=True)
            places, drawn = places[kept], {name: values[kept] for name, values in drawn.items()}
        return self._augmentation.apply(self._images, places, drawn)


class Groups:
    """Rows for batches of P = batch_size / K identities with K = `per_identity` images each, as re-ID trains.

    In every epoch each identity's images are shuffled and dealt into groups of K; a last group that is not
    full is filled from the first images. A batch takes one group of each of P identities, drawn in proportion
    to the groups that they have left; the images of an identity stand next to each other. The number of
    batches T is the largest with sum_i min(g_i, T) >= P T, where identity i has g_i = ceil(n_i / K) groups.
    What does not fit waits for another epoch, drawn anew.

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
        # How often the identity of each place came before.
        turns = torch.tensor(pd.Series(chosen).groupby(chosen.numpy()).cumcount().to_numpy())
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
    Encoded images are decoded by worker processes ahead of their batch; the batches are those of the same
    images in memory, to the bit.

    Args:
        images: uint8 [N, C, H, W], moved to the device once (on the CPU a memory-mapped one stays on disk),
            or encoded images.
        labels: int64 [N].
        batch_size: images per batch, over all ranks; a shorter last batch is dropped, but fewer images than
            a batch make one batch of all.
        per_identity: K, images of each identity in a batch, see `Groups`; 0 takes images as they come.
        workers: processes that decode encoded images; 0: none.
        rank, world: this process gives the rank-th of `world` equal, contiguous parts of each batch.

    >>> six = torch.zeros(6, 1, 4, 4, dtype=torch.uint8)
    >>> batches = Batches(six, torch.arange(6), batch_size=4, seed=0)
    >>> len(batches), [batch.pixels().shape[0] for batch in batches.epoch(0)]
    (1, [4])
    """

    def __init__(
        self,
        images: Tensor | EncodedImages,
        labels: Tensor,
        *,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        augmentation: Augmentation = Augmentation(),  # noqa: B008 - it is frozen
        per_identity: int = 0,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        encoded = isinstance(images, EncodedImages)
        images = images if encoded else whole_pixels(images)
        self._size = tuple(images.shape[2:])
        augmentation.check(*self._size)
        self.device = torch.device(device)
        self._stream = Stream(images, workers, pinned=self.device.type == "cuda") if encoded else None
        self.images = images if encoded else images.to(self.device)
        self.labels = labels.to(self.device, torch.int64)
        self.seed, self.augmentation = seed, augmentation
        self._groups = Groups(labels.cpu(), batch_size, per_identity) if per_identity else None
        self.batch_size = batch_size if per_identity else min(batch_size, len(images))
        self._count = self._groups.batches if self._groups else len(images) // self.batch_size
        share, rest = divmod(self.batch_size, world)
        if rest:
            raise ValueError(
                f"batches of {self.batch_size} images cannot be dealt out to {world} processes in equal "
                f"parts; a batch_size of {max(1, share) * world} can"
            )
        self._mine = slice(rank * share, (rank + 1) * share)

    def __len__(self) -> int:
        return self._count

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch from step `start` on; the same number gives the same ones always."""
        # All draws are made on the CPU and for whole batches, so that an epoch is the same on every device
        # and over any number of ranks; flips are drawn even when they are off, so that switching them on
        # changes nothing else.
        generator = seeded_generator(self.seed, "epoch", number)
        if self._groups:
            order = self._groups.rows(generator)
        else:
            order = torch.randperm(len(self.images), generator=generator)
        reach = max(self.augmentation.shift, self.augmentation.pad)
        moves = torch.randint(-reach, reach + 1, (2, len(order)), generator=generator)
        mirrored = torch.rand(len(order), generator=generator) < (0.5 if self.augmentation.flip else 0)
        # A batch's rows all are decoded: which of them a method leaves out is known only when it is there.
        steps = range(start, len(self))
        decoded = self._stream.decode(order[self._part(step)] for step in steps) if self._stream else None
        moves, mirrored, there = moves.to(self.device), mirrored.to(self.device), order.to(self.device)
        for step in steps:
            part = self._part(step)
            rows, whole = there[part], order[step * self.batch_size : (step + 1) * self.batch_size]
            drawn = {"down": moves[0, part], "right": moves[1, part], "mirrored": mirrored[part]}
            generator = seeded_generator(self.seed, "boxes", number, step)
            boxes = self.augmentation.boxes(self.batch_size, *self._size, generator)
            boxes = {name: values[self._mine] for name, values in boxes.items()}
            drawn |= {name: own.to(self.device, non_blocking=True) for name, own in boxes.items()}
            if decoded is None:
                images, places = self.images, rows
            else:
                images = next(decoded).to(self.device, non_blocking=True)
                places = torch.arange(len(rows), device=self.device)
            yield Batch(rows, self.labels[rows], whole, self.augmentation, images, places, drawn)

    def _part(self, step: int) -> slice:
        """Where in an epoch's order this rank's rows of a step are."""
        begin = step * self.batch_size
        return slice(begin + self._mine.start, begin + self._mine.stop)
