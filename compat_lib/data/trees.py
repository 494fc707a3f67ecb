"""Folders full of image files: listed class by class, decoded once, kept as one array in a cache."""

from __future__ import annotations

import functools
import hashlib
import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from tqdm import tqdm

from .cache import cached_arrays, recipe_digest
from .images import ImageSet

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_CHUNK = 64  # images decoded by one task


def subfolders(folder: Path) -> list[Path]:
    """Return the folders inside a folder, sorted by name, hidden ones left out.

    Raises:
        FileNotFoundError: "... does not exist ...".
        NotADirectoryError: "... is a file, a folder is needed".
        PermissionError: "cannot list ...: permission denied ...".
    """
    return [Path(entry.path) for entry in _entries(folder) if entry.is_dir()]


def list_images(folder: Path) -> list[os.DirEntry]:
    """Return the image files directly inside a folder, sorted by name.

    Files that are hidden, or whose names do not end in one of IMAGE_SUFFIXES are left out.

    Raises:
        ValueError: "class ... has no images: ..."; and what `subfolders` raises.
    """
    found = [entry for entry in _entries(folder) if entry.name.lower().endswith(IMAGE_SUFFIXES)]
    if not found:
        raise ValueError(
            f"class {folder.name!r} has no images: {folder} holds no file that ends in "
            f"{', '.join(IMAGE_SUFFIXES)}; add some or remove the folder"
        )
    return found


def _entries(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except PermissionError as error:
        raise PermissionError(f"cannot list {folder}: permission denied; make the folder readable") from error
    except NotADirectoryError as error:
        raise NotADirectoryError(f"{folder} is a file, a folder is needed") from error
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{folder} does not exist") from error


def decode_classes(
    class_folders: dict[str, Path],
    cache: Path,
    *,
    size: int,
    mode: str,
    shrink: Callable[[Image.Image, int], np.ndarray],
) -> ImageSet:
    """Return all images of the given classes, decoded now or read from the cache.

    Args:
        class_folders: class name -> folder of its images; labels count the classes in this order, images
            follow in the order of their file names.
        cache: folder of caches. The cache is keyed by names, sizes and times of change of all files.
        size: pixels, height and width.
        mode: "RGB" or "L".
        shrink: (image in that mode, size) -> uint8 [size, size] or [size, size, 3].

    Returns:
        ImageSet behind a memory-mapped file.

    Raises:
        ValueError: "cannot read the image ...", and what `list_images` raises.
    """
    listing = hashlib.sha256()
    files: list[str] = []  # not Path: a million of them would take a minute to make
    labels: list[int] = []
    for label, (name, folder) in enumerate(class_folders.items()):
        listing.update(f"\0\0{name}\0{folder.absolute()}".encode())
        for entry in list_images(folder):
            stat = entry.stat()
            listing.update(f"\0{entry.name}\0{stat.st_size}\0{stat.st_mtime_ns}".encode())
            files.append(entry.path)
            labels.append(label)
    recipe = {"size": size, "mode": mode, "shrink": shrink.__name__, "listing": listing.hexdigest()}

    def write(folder: Path) -> None:
        shape = (len(files), 3 if mode == "RGB" else 1, size, size)
        out = np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=shape)

        def decode(start: int) -> None:
            for row in range(start, min(start + _CHUNK, len(files))):
                pixels = shrink(open_image(Path(files[row]), mode), size)
                out[row] = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

        starts = range(0, len(files), _CHUNK)
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            # disable=None: a bar on a terminal, nothing in a log
            for _ in tqdm(pool.map(decode, starts), total=len(starts), desc="decoding images", disable=None):
                pass
        out.flush()

    arrays = cached_arrays(cache / recipe_digest(recipe), recipe, write)
    return ImageSet(torch.from_numpy(arrays["images"]), torch.tensor(labels), tuple(class_folders))


def open_image(path: Path, mode: str) -> Image.Image:
    """Return a decoded image, upright and in the given mode ("RGB" or "L").

    Raises:
        PermissionError: "cannot read ...: permission denied ...".
        ValueError: "cannot read the image ...: ...; replace or remove the file".
    """
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as image:  # one read: small files dominate
            return ImageOps.exif_transpose(image).convert(mode)
    except PermissionError as error:
        raise PermissionError(f"cannot read {path}: permission denied; make the file readable") from error
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read the image {path}: {error}; replace or remove the file") from error


def smooth_resize(image: Image.Image, size: int) -> np.ndarray:
    """Return the image at size x size, bilinear; each output pixel averages over its whole footprint."""
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def area_resize(image: Image.Image, size: int) -> np.ndarray:
    """Return the image at size x size; each output pixel is the mean over exactly the area that it covers.

    For line drawings, where a filter wider than the pixel would wash thin strokes out. Grey images only.
    The arithmetic is on whole numbers, so the result is the same on every machine.
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
