"""Augmentation of whole batches on the device, with a draw of its own for every image."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from compat_lib.names import check_number

ATTEMPTS = 10  # boxes drawn for an image before it is left alone, as torchvision does
ERASED = (0.02, 0.33), (0.3, 3.3)  # share of the area, height / width
CROPPED = 3 / 4, 4 / 3
Pair = tuple[float, float]  # lowest and highest, or height and width
ERASED_TO = (0.485, 0.456, 0.406)  # the mean of ImageNet, of 1


def to_float(images: Tensor) -> Tensor:
    """Return images (uint8) as a network reads them, float32 in -1..1, channels_last: (x - 127.5) / 127.5.

    Source: the input scaling published with MixBCT (arXiv 2308.06948).

    >>> to_float(torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2)).flatten().tolist()
    [-1.0, 1.0]
    """
    return images.to(torch.float32, memory_format=torch.channels_last).sub_(127.5).div_(127.5)


def whole_pixels(images: Tensor | np.ndarray) -> Tensor:
    """A user's images as a tensor [N, C, H, W]; what would be read or scaled as something else is refused."""
    mirrored = isinstance(images, np.ndarray) and min(images.strides) < 0  # as by [..., ::-1], BGR to RGB
    images = torch.as_tensor(images.copy() if mirrored else images)
    if images.ndim != 4 or images.shape[1] > 4 >= images.shape[3]:
        raise ValueError(f"images have the shape {list(images.shape)}; give [N, C, H, W]")
    if images.is_floating_point() or images.dtype == torch.bool:
        raise TypeError(
            f"images must be whole numbers of 0 to 255, not {images.dtype}; make those of 0 to 1 "
            "(255 * images).round().to(torch.uint8)"
        )
    if images.dtype != torch.uint8 and images.numel():
        low, high = (int(end) for end in images.long().aminmax())
        if low < 0 or high > 255:
            raise ValueError(
                f"images must be whole numbers of 0 to 255, and hold {low} to {high}; divide 16 bits "
                "by 257 and round"
            )
    return images


@dataclass(frozen=True)
class Augmentation:
    """What is done to training images; each is cut in one way, mirrored, then perhaps erased in part.

    Source: `shift` is ours; `pad` and `erase` as re-identification trains (Zhong et al., arXiv 1708.04896,
    with torchvision's ranges and the mean of ImageNet); `resized_crop` as torchvision's RandomResizedCrop,
    but out of the image at the loader's size, so never from more pixels than a network reads.
    """

    shift: int = 2  # pixels: moved by -shift..shift in both directions, the border repeated
    flip: bool = False  # mirrored left to right with probability 1/2
    pad: int = 0  # pixels of zeros around the image, out of which it is cut at a random place
    erase: float = 0.0  # probability that a rectangle is erased
    resized_crop: float = 0.0  # smallest share of the area that is cut out and enlarged, at most 1; 0: off

    @classmethod
    def of(cls, settings: object) -> Augmentation:
        """Take the fields of these names from a configuration or from settings."""
        return cls(**{item.name: getattr(settings, item.name) for item in fields(cls)})

    def check(self, height: int, width: int) -> None:
        """Refuse what cannot be done to images of that size."""
        side = min(height, width)
        for name in ("shift", "pad"):
            if not 0 <= (value := getattr(self, name)) < side:
                raise ValueError(
                    f"{name} must be 0 or more pixels and less than the image's {side}; got {value}"
                )
        for name in ("erase", "resized_crop"):
            check_number(name, getattr(self, name), 0, 1)
        cuts = {name: getattr(self, name) for name in ("shift", "pad", "resized_crop")}
        if sum(value > 0 for value in cuts.values()) > 1:
            given = ", ".join(f"{name} {value}" for name, value in cuts.items() if value)
            raise ValueError(f"each image is cut in one way, but there are {given}: set all but one to 0")

    def boxes(self, count: int, height: int, width: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw what is cut out ("crop") and erased ("erased"), int64 [count, 4]: top, left, height, width."""
        drawn = {}
        if self.resized_crop:
            crop = _boxes(count, (self.resized_crop, 1), CROPPED, (height, width), (height, width), generator)
            # What did not fit is the largest part in the middle whose sides are allowed.
            high, wide = min(height, round(width / CROPPED[0])), min(width, round(height * CROPPED[1]))
            middle = torch.tensor([(height - high) // 2, (width - wide) // 2, high, wide])
            drawn["crop"] = torch.where(crop[:, 2:3] > 0, crop, middle)
        if self.erase:
            erased = _boxes(count, *ERASED, (height - 1, width - 1), (height, width), generator)
            drawn["erased"] = erased * (torch.rand(count, 1, generator=generator) < self.erase)
        return drawn

    def apply(self, images: Tensor, rows: Tensor, drawn: dict[str, Tensor]) -> Tensor:
        """Return the augmented rows (int64 [n]) of uint8 images, see `to_float`.

        `drawn`: "down" and "right", how far the cut lies from the image's own frame in pixels, "mirrored"
        (bool), and what `boxes` gives; [n, ...] each, on the images' device.
        """
        height, width = images.shape[2:]
        mirrored = drawn["mirrored"][:, None]
        y = torch.arange(height, device=rows.device).expand(len(rows), height)  # [n, H]
        x = torch.arange(width, device=rows.device).expand(len(rows), width)
        x = torch.where(mirrored, width - 1 - x, x)  # [n, W]

        def gather(y: Tensor, x: Tensor) -> Tensor:
            # One gather does cut, border and mirror; its result is [n, H, W, C], which is channels_last.
            return images[rows[:, None, None], :, y[:, :, None], x[:, None, :]]

        if self.resized_crop:
            pixels = _enlarged(gather, y, x, drawn["crop"], height, width)
        else:
            y, x = y + drawn["down"][:, None], x + drawn["right"][:, None]
            # a border repeats the outermost pixels
            pixels = gather(y.clamp(0, height - 1), x.clamp(0, width - 1))
            if self.pad:
                outside = ((y < 0) | (y >= height))[:, :, None] | ((x < 0) | (x >= width))[:, None, :]
                pixels.masked_fill_(outside[..., None], 0)
        pixels = to_float(pixels.permute(0, 3, 1, 2))
        if self.erase:
            top, left, high, wide = drawn["erased"].T[:, :, None]
            y, x = (torch.arange(side, device=rows.device)[None] for side in (height, width))
            inside = ((y >= top) & (y < top + high))[:, :, None] & ((x >= left) & (x < left + wide))[:, None]
            fill = torch.tensor(ERASED_TO, device=rows.device) * 2 - 1
            fill = fill if images.shape[1] == 3 else fill.mean()[None]
            pixels = torch.where(inside[:, None], fill[:, None, None], pixels)
        return pixels


def _boxes(
    count: int, area: Pair, ratio: Pair, most: Pair, frame: Pair, generator: torch.Generator
) -> Tensor:
    """int64 [count, 4]: top, left, height, width of the first of some boxes that fits; all 0 where none does.

    The area is uniform between shares of the frame, the logarithm of height / width between those of `ratio`.
    """
    height, width = frame
    uniform = torch.rand(2 * ATTEMPTS + 2, count, generator=generator, dtype=torch.float64)
    areas = (area[0] + (area[1] - area[0]) * uniform[:ATTEMPTS]) * height * width
    low, high = math.log(ratio[0]), math.log(ratio[1])
    ratios = (low + (high - low) * uniform[ATTEMPTS:-2]).exp()
    heights, widths = (areas * ratios).sqrt().round(), (areas / ratios).sqrt().round()
    fits = (heights > 0) & (widths > 0) & (heights <= most[0]) & (widths <= most[1])
    first = fits.int().argmax(dim=0)[None]
    heights, widths = heights.gather(0, first)[0], widths.gather(0, first)[0]
    top = (uniform[-2] * (height - heights + 1)).floor()
    left = (uniform[-1] * (width - widths + 1)).floor()
    return (torch.stack([top, left, heights, widths], dim=1) * fits.any(dim=0)[:, None]).long()


def _enlarged(gather, y: Tensor, x: Tensor, crop: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, float32 [n, H, W, C]: a cut is never larger than the image, so nothing has to be averaged."""
    top, left, high, wide = crop.T[:, :, None]

    def neighbours(place: Tensor, start: Tensor, length: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
        source = ((place + 0.5) * (length / side) - 0.5).clamp(min=0)
        low = source.floor().long()
        return start + low, start + torch.minimum(low + 1, length - 1), source - low

    y0, y1, down = neighbours(y, top, high, height)
    x0, x1, right = neighbours(x, left, wide, width)
    down, right = down[:, :, None, None], right[:, None, :, None]
    above = torch.lerp(gather(y0, x0).float(), gather(y0, x1).float(), right)
    below = torch.lerp(gather(y1, x0).float(), gather(y1, x1).float(), right)
    return torch.lerp(above, below, down)
