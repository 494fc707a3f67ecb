"""Small pictures in class folders, as people have them."""

import numpy as np
from PIL import Image

COLOURS = {"ant": 10, "bee": 60, "cat": 110, "dog": 160, "elk": 210}


def paint(place, counts, size=(12, 12), noise=None):
    """Write one folder per class; image k of a class has the class's grey and its first pixels tell k.

    With a generator of noise all pixels of an image differ, around a colour of its class.
    """
    for name, count in counts.items():
        (place / name).mkdir(parents=True)
        colour = COLOURS.get(name[:3], 77) if noise is None else noise.integers(40, 200, 3)
        for number in range(count):
            pixels = np.full((*size, 3), colour)
            pixels[0, 0] = number
            if noise is not None:
                pixels = (pixels + noise.integers(-40, 41, pixels.shape)).clip(0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(place / name / f"{number:03d}.png")


def make(place, train=None, test=None, val=None):
    paint(place / "train", train or {"ant": 12, "bee": 30})
    paint(place / "test", test or {"ant": 2, "bee": 3})
    if val:
        paint(place / "val", val)
    return place


def picture(path, red, size=(40, 30)):
    """One picture of one colour; its red survives JPEG to 4 levels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (red % 256, 60, 20)).save(path, "JPEG", quality=95)


def change_lines(path, change):
    """Write a list anew with its lines changed."""
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
