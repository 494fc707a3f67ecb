"""Omniglot: 1,623 handwritten characters of 50 alphabets, each drawn once by 20 people."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import torch

from .images import ImageSet, Splits, data_root, seeded_generator
from .trees import area_resize, decode_classes, subfolders

FOLDER = "omniglot-py"
CHARACTERS = {"images_background": 964, "images_evaluation": 659}
VAL_SHARE = 0.15


def omniglot(root: str | os.PathLike | None = None, *, size: int = 32, seed: int = 0) -> Splits:
    """Return Omniglot: training on background characters, test on evaluation characters of other alphabets.

    Source: Lake, Salakhutdinov, Tenenbaum, "Human-level concept learning through probabilistic program
    induction", Science 350 (2015). Validation is ours: 15 % of the background characters, chosen by seed and
    taken out of training.

    Characters are numbered in sorted order of alphabet and character (the order in which a file system lists
    them differs between machines), so neighbouring classes are of one alphabet: a scenario that splits by
    class needs its `shuffle_seed`.

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
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel; got {size}")
    base = data_root(root)
    background, evaluation = (_part(base, part, size) for part in CHARACTERS)
    count = background.num_classes
    held = max(2, round(VAL_SHARE * count))
    if count - held < 2:
        raise ValueError(
            f"{base / FOLDER} has {count} background characters, too few to hold {held} out for validation"
        )
    order = torch.randperm(count, generator=seeded_generator("omniglot", seed, "validation"))
    is_val = torch.zeros(count, dtype=torch.bool)
    is_val[order[:held]] = True
    return Splits("omniglot", _classes(background, ~is_val), _classes(background, is_val), evaluation)


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
            "root=... or COMPAT_DATA"
        ) from error


def _classes(images: ImageSet, chosen: torch.Tensor) -> ImageSet:
    """Return the images of the chosen classes (bool [C]), labels counted from 0 in the same order."""
    rows = chosen[images.labels].nonzero().flatten()
    relabel = chosen.cumsum(0) - 1
    names = [name for name, kept in zip(images.classes, chosen.tolist(), strict=True) if kept]
    return images.with_labels(rows, relabel[images.labels[rows]], names)
