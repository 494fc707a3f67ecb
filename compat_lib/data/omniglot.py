"""Omniglot: 1,623 handwritten characters of 50 alphabets, each drawn once by 20 people."""

from __future__ import annotations

import functools
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .images import DATA_VARIABLE, ImageSet, Splits, data_root, seeded_generator
from .trees import decode_classes, subfolders

FOLDER = "omniglot-py"
CHARACTERS = {"images_background": 964, "images_evaluation": 659}
VAL_SHARE = 0.15


def omniglot(root: str | os.PathLike | None = None, *, size: int = 32, seed: int = 0) -> Splits:
    """Return Omniglot: training on background characters, test on evaluation characters of other alphabets.

    Source: Lake, Salakhutdinov, Tenenbaum, "Human-level concept learning through probabilistic program
    induction", Science 350 (2015). Validation is ours: 15 % of the background characters, chosen by seed and
    taken out of training.

    Characters are numbered in sorted order of alphabet and character (the order in which a file system lists
    them, which torchvision takes, differs between machines), so neighbouring classes are of one alphabet: a
    scenario that splits by class needs its `shuffle_seed`.

    Args:
        root: data root, see `data_root`; the tree is `<root>/omniglot-py/images_background` and
            `.../images_evaluation` with `<Alphabet>/<character>/*.png`. Without it torchvision downloads it.
        size: pixels, height and width; area average from 105.
        seed: integer, which characters are held out for validation.

    Returns:
        Splits of uint8 [N, 1, size, size], black ink (0) on white (255), 20 images per character.

    Raises:
        FileNotFoundError: "Omniglot is not in ... and could not be downloaded ...".
        ValueError: "cannot read the image ...", "class ... has no images ...", too few characters.
    """
    base = data_root(root)
    background, evaluation = (_part(base, part, size) for part in CHARACTERS)
    count = background.num_classes
    held = max(2, round(VAL_SHARE * count))
    if count - held < 2:
        raise ValueError(
            f"{base / FOLDER} has {count} background characters, too few to hold {held} out for validation"
        )
    order = torch.randperm(count, generator=seeded_generator("omniglot", seed, "validation"))
    is_val = torch.isin(background.labels, order[:held])
    return Splits("omniglot", background.compact(~is_val), background.compact(is_val), evaluation)


def _part(base: Path, part: str, size: int) -> ImageSet:
    folder = base / FOLDER / part
    if not folder.is_dir():
        _download(base, part)
    characters = {
        f"{alphabet.name}/{character.name}": character
        for alphabet in subfolders(folder)
        for character in subfolders(alphabet)
    }
    if not characters:
        raise ValueError(f"{folder} holds no <Alphabet>/<character> folders; remove it to download it again")
    if len(characters) != CHARACTERS[part]:
        warnings.warn(
            f"{folder} holds {len(characters)} characters, the data set has {CHARACTERS[part]}; "
            "remove the folder to download it again",
            stacklevel=3,
        )
    return decode_classes(characters, base / "cache", size=size, mode="L", shrink=area_resize)


def _download(base: Path, part: str) -> None:
    try:
        from torchvision.datasets import Omniglot

        Omniglot(str(base), background=part == "images_background", download=True)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"Omniglot is not in {base / FOLDER} and could not be downloaded ({error}): unpack {part}.zip "
            "from the folder python of the repository brendenlake/omniglot so that "
            f"{base / FOLDER / part}/<Alphabet>/<character>/*.png exist, or name another data root by "
            f"root=... or {DATA_VARIABLE}"
        ) from error


def area_resize(image: Image.Image, size: int) -> np.ndarray:
    """Return the image at size x size; each output pixel is the mean over exactly the area that it covers.

    For line drawings, where a filter wider than the pixel would wash thin strokes out. Grey images only.
    The arithmetic is on whole numbers, so the result is the same on every machine (Pillow's BOX is not).
    """
    pixels = np.asarray(image, dtype=np.float64)
    high, wide = pixels.shape
    covered = _overlaps(high, size) @ pixels @ _overlaps(wide, size).T  # exact below 2^53
    return np.floor(covered / (high * wide) + 0.5).astype(np.uint8)


@functools.cache
def _overlaps(source: int, target: int) -> np.ndarray:
    """Return [target, source], the common length of an output and an input pixel in 1/target input pixels."""
    low = np.arange(target)[:, None] * source
    inputs = np.arange(source)[None] * target
    common = np.minimum(low + source, inputs + target) - np.maximum(low, inputs)
    return common.clip(0).astype(np.float64)
