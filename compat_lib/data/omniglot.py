"""Omniglot: 1,623 handwritten characters of 50 alphabets, each drawn once by 20 people."""

import functools
import logging
from pathlib import Path

import numpy as np
from PIL import Image

from compat_lib.names import check_number

from .decoding import Size, height_width
from .images import ImageSet, Place, Splits, data_root, held_classes, seeded_generator
from .trees import decode_classes, download, subfolders

FOLDER = "omniglot-py"
CHARACTERS = {"images_background": 964, "images_evaluation": 659}
VAL_SHARE = 0.15
_log = logging.getLogger(__name__)


def omniglot(
    root: Place, *, size: Size = 32, seed: int = 0, stream: bool = False, in_domain: float = 0.0
) -> Splits:
    """Return Omniglot: training on background characters, test on evaluation characters of other alphabets.

    Source: Lake, Salakhutdinov, Tenenbaum, "Human-level concept learning through probabilistic program
    induction", Science 350 (2015). Validation is ours: 15 % of the background characters, chosen by seed and
    taken out of training.

    Characters are numbered in sorted order of alphabet and character (torchvision's order differs between
    machines), so neighbouring classes are of one alphabet: a class split needs its `shuffle_seed`.

    Without the tree torchvision downloads it. Images are uint8 [N, 1, H, W], black ink (0) on white (255),
    area averages of 105 x 105.

    Args:
        in_domain: share of the training characters, 0..0.5, chosen by seed, that makes a second test part
            "in-domain" instead: other characters of the training alphabets. Validation stays what it is.
    """
    check_number("in_domain", in_domain, 0, 0.5)
    base = data_root(root)
    background, evaluation = (_part(base, part, size, stream) for part in CHARACTERS)
    is_val = held_classes(background, seeded_generator("omniglot", seed, "validation"), VAL_SHARE)
    train, val, others = background.compact(~is_val), background.compact(is_val), {}
    if in_domain:
        is_test = held_classes(train, seeded_generator("omniglot", seed, "in-domain"), in_domain)
        train, others["in-domain"] = train.compact(~is_test), train.compact(is_test)
    return Splits("omniglot", train, val, evaluation, other_tests=others)


def _part(base: Path, part: str, size: Size, stream: bool) -> ImageSet:
    folder = base / FOLDER / part
    if not folder.is_dir():
        layout = f"{folder}/<Alphabet>/<character>/*.png ({part}.zip of brendenlake/omniglot, folder python)"
        download("Omniglot", base, layout, background=part == "images_background")
    characters = {
        f"{alphabet.name}/{character.name}": character
        for alphabet in subfolders(folder)
        for character in subfolders(alphabet)
    }
    told = f"{folder} holds {len(characters)} characters, the data set has {CHARACTERS[part]}"
    if len(characters) < 4:  # two for training, two for validation
        raise ValueError(f"{told}: too few; remove the folder to download it again")
    if len(characters) != CHARACTERS[part]:
        _log.warning("%s; remove the folder to download it again", told)
    return decode_classes(characters, base / "cache", size=size, mode="L", shrink=area_resize, stream=stream)


def area_resize(image: Image.Image, size: Size) -> np.ndarray:
    """Return the grey image at (height, width); each output pixel is the mean over exactly its area.

    For line drawings, where a filter wider than the pixel would wash thin strokes out. The arithmetic is on
    whole numbers, so the result is the same on every machine (Pillow's BOX is not).
    """
    pixels = np.asarray(image, dtype=np.float64)
    (high, wide), (height, width) = pixels.shape, height_width(size)
    covered = _overlaps(high, height) @ pixels @ _overlaps(wide, width).T  # exact below 2^53
    return np.floor(covered / (high * wide) + 0.5).astype(np.uint8)


@functools.cache
def _overlaps(source: int, target: int) -> np.ndarray:
    """Return [target, source], the common length of an output and an input pixel in 1/target input pixels."""
    low = np.arange(target)[:, None] * source
    inputs = np.arange(source)[None] * target
    common = np.minimum(low + source, inputs + target) - np.maximum(low, inputs)
    return common.clip(0).astype(np.float64)
