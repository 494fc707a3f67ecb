"""Augmentation of a batch equals torchvision's, image by image, with the numbers that were drawn."""

import math

import pytest
import torch
from torchvision.transforms.v2 import functional as one

from compat_lib.data.augmentation import ERASED_TO, Augmentation
from compat_lib.data.batches import Batches


def pictures(count, channels=3, height=24, width=12):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, channels, height, width), generator=generator, dtype=torch.uint8)


def batch_of(images, augmentation, epoch=0):
    """The only batch of an epoch."""
    how = {"batch_size": len(images), "seed": 2, "augmentation": augmentation}
    return next(Batches(images, torch.arange(len(images)), **how).epoch(epoch))


def by_torchvision(image, drawn, augmentation):
    """One image, float64 0..1 [C, H, W], by the functions that draw nothing."""
    height, width = image.shape[1:]
    image = image.double() / 255
    if augmentation.resized_crop:
        image = one.resized_crop(image, *drawn["crop"].tolist(), [height, width], antialias=True)
    elif augmentation.pad or augmentation.shift:
        reach = max(augmentation.pad, augmentation.shift)
        padded = one.pad(image, [reach], padding_mode="constant" if augmentation.pad else "edge")
        image = one.crop(padded, reach + int(drawn["down"]), reach + int(drawn["right"]), height, width)
    if drawn["mirrored"]:
        image = one.horizontal_flip(image)
    if augmentation.erase and drawn["erased"][2]:
        mean = torch.tensor(ERASED_TO).double()
        mean = mean if len(image) == 3 else mean.mean()[None]
        image = one.erase(image, *drawn["erased"].tolist(), mean[:, None, None])
    return image


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(shift=3, flip=True),
        Augmentation(shift=0, pad=5, flip=True),
        Augmentation(shift=0, pad=5, flip=True, erase=0.5),
        Augmentation(shift=0, resized_crop=0.08, flip=True),
        Augmentation(shift=2, erase=1.0),
        Augmentation(shift=0, resized_crop=0.3, erase=0.7, flip=True),
    ],
    ids=str,
)
@pytest.mark.parametrize(("channels", "height", "width"), [(3, 24, 12), (1, 11, 16)])
def test_a_batch_is_what_torchvision_makes_of_each_image(augmentation, channels, height, width):
    images = pictures(60, channels, height, width)
    batch = batch_of(images, augmentation)
    made = batch.pixels()
    assert made.dtype == torch.float32 and made.is_contiguous(memory_format=torch.channels_last)
    for place, row in enumerate(batch.rows.tolist()):
        drawn = {name: values[place] for name, values in batch._drawn.items()}
        expected = by_torchvision(images[row], drawn, augmentation) * 2 - 1
        torch.testing.assert_close(made[place].double(), expected, rtol=0, atol=1e-5)
    keep = torch.arange(60) % 7 < 3
    assert torch.equal(batch.pixels(keep), made[keep])


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 32), (16, 60)])
def test_cut_boxes_are_drawn_as_torchvision_says(height, width):
    generator = torch.Generator().manual_seed(0)
    drawn = Augmentation(shift=0, resized_crop=0.3, erase=0.5).boxes(4000, height, width, generator)
    top, left, high, wide = drawn["crop"].double().T
    assert ((top >= 0) & (left >= 0) & (top + high <= height) & (left + wide <= width)).all()
    assert ((high >= 1) & (wide >= 1)).all()
    share, ratio = high * wide / (height * width), wide / high
    middle = (top == (height - high) // 2) & (left == (width - wide) // 2)
    rounding = 1 + 1.2 / torch.minimum(high, wide)
    assert ((share >= 0.3 / rounding**2) | middle).all()  # the middle of an extreme frame may be less
    assert ((ratio <= 4 / 3 * rounding) & (ratio >= 3 / 4 / rounding)).all()
    top, left, high, wide = drawn["erased"].double().T
    there = high > 0
    assert ((wide > 0) == there).all() and (drawn["erased"][~there] == 0).all()
    assert (top + high <= height).all() and (left + wide <= width).all() and (high < height).all()
    assert abs(there.double().mean() - 0.5) < 5 * 0.5 / 4000**0.5 + 0.01  # few frames fit nothing
    share = (high * wide)[there] / (height * width)
    assert share.min() > 0.01 and share.max() < 0.36
    # uniform in the area where nearly everything fits, and at every place
    if height == width:
        assert abs(share.mean() - (0.02 + 0.33) / 2) < 0.01
        assert abs((top[there] / (height - high[there]).clamp(min=1)).mean() - 0.5) < 0.03
        logs = (high / wide)[there].log()
        assert abs(logs.mean() - (math.log(0.3) + math.log(3.3)) / 2) < 0.05


def test_where_no_cut_fits_the_middle_is_taken_as_torchvision_does():
    from torchvision.transforms.v2 import RandomResizedCrop

    images = pictures(1, 3, 10, 100)
    drawn = Augmentation(shift=0, resized_crop=0.99).boxes(5, 10, 100, torch.Generator().manual_seed(0))
    params = RandomResizedCrop((10, 100), scale=(0.99, 1.0)).make_params([images[0]])
    assert drawn["crop"].tolist() == [[params[k] for k in ("top", "left", "height", "width")]] * 5


def test_what_is_off_draws_nothing_and_switching_on_moves_nothing_else():
    images = pictures(40)
    plain = batch_of(images, Augmentation(shift=2, flip=True), epoch=3)
    erased = batch_of(images, Augmentation(shift=2, flip=True, erase=1.0), epoch=3)
    assert "erased" not in plain._drawn and torch.equal(plain.rows, erased.rows)
    for name in plain._drawn:
        assert torch.equal(plain._drawn[name], erased._drawn[name])
    same = (plain.pixels() == erased.pixels()).all(dim=1).double().mean()
    assert 1 - 0.33 < same < 1 - 0.05
    again = batch_of(images, Augmentation(shift=2, flip=True, erase=1.0), epoch=3)
    other = batch_of(images, Augmentation(shift=2, flip=True, erase=1.0), epoch=4)
    assert torch.equal(again._drawn["erased"], erased._drawn["erased"])
    assert not torch.equal(other._drawn["erased"], erased._drawn["erased"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"shift": 12}, "shift must be 0 or more pixels and less than the image's 12; got 12"),
        ({"shift": 0, "pad": -1}, "pad must be 0 or more pixels and less than the image's 12; got -1"),
        ({"erase": 1.5}, "erase must be a number between 0 and 1, not 1.5"),
        ({"pad": 4}, "cut in one way, but there are shift 2, pad 4: set all but one to 0"),
        ({"resized_crop": 0.1}, "there are shift 2, resized_crop 0.1: set all but one"),
    ],
)
def test_what_cannot_be_done_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Augmentation(**options).check(24, 12)
