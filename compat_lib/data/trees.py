"""Trees of image files: listed class by class, decoded once, kept as one array in a cache."""

import hashlib
import logging
import math
import os
from collections import Counter
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from .cache import cached_arrays
from .decoding import Resize, Size, UnreadableImages, printable, smooth_resize
from .encoded import Caught, EncodedImages, Names
from .images import DATA_VARIABLE, ImageSet

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
# What systems and archives put beside a user's files; hidden files and folders are passed over as well.
SYSTEM_NAMES = {
    "__macosx", "lost+found", "$recycle.bin", "@eadir", "#recycle", "system volume information",
    "thumbs.db", "desktop.ini",
}  # fmt: skip
RULES = 3  # part of the cache's digest: raise it whenever the same files give other pixels
_BLOCK = 512  # images decoded before they are written
# Logged and not warned: a reader sees one line, without the line of code that it came from.
_log = logging.getLogger(__name__)


def subfolders(folder: Path) -> list[Path]:
    """Return the folders inside a folder, sorted by name, hidden ones and those of a system left out."""
    return [Path(entry.path) for entry in _entries(folder) if os.path.isdir(entry)]


def needed_folder(place: Path, *names: str, expected: str) -> Path:
    """Return the first of these folders that a place has; without any a FileNotFoundError."""
    found = next((place / name for name in names if (place / name).is_dir()), None)
    if found is None:
        raise FileNotFoundError(f"{printable(place)} has no folder {' or '.join(names)}; expected {expected}")
    return found


def class_folders(place: Path, layout: str) -> dict[str, Path]:
    """Return the folders inside a folder by their sorted names; fewer than two are a ValueError."""
    found = {folder.name: folder for folder in subfolders(place)}
    if len(found) < 2:
        raise ValueError(
            f"{printable(place)} has {len(found)} class folder(s), at least two are needed; expected {layout}"
        )
    return found


def list_images(folder: Path, others: Counter[str] | None = None) -> list[os.DirEntry]:
    """Return the image files directly inside a folder, sorted by name; `others` counts the rest by suffix."""
    images = []
    for entry in _entries(folder):
        if entry.name.lower().endswith(IMAGE_SUFFIXES) and not os.path.isdir(entry):
            images.append(entry)
        elif others is not None:
            suffix = Path(entry.name).suffix.lower() or "without suffix"
            others["folder(s)" if os.path.isdir(entry) else suffix] += 1
    return images


def _entries(folder: Path) -> list[os.DirEntry]:
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {printable(folder)}")
    with os.scandir(folder) as entries:
        kept = (e for e in entries if not e.name.startswith(".") and e.name.lower() not in SYSTEM_NAMES)
        return sorted(kept, key=lambda entry: entry.name)


def tell_left_out(place: Path, what: list[str], layout: str) -> None:
    """Say on one line of the log what of a place is left out, and the layout that it should have."""
    if what:
        _log.warning("left out of %s: %s; expected %s", printable(place), ", ".join(what), layout)


def decode_classes(
    folders: dict[str, Path],
    cache: Path | None = None,
    *,
    size: Size,
    mode: str = "RGB",
    shrink: Resize = smooth_resize,
    stream: bool = False,
    skipped: list[str] | None = None,
) -> ImageSet:
    """Return all images of the given classes, decoded now or read from the cache, or left encoded.

    One line of the log says how many files and folders inside the class folders were left out, by suffix.

    Args:
        folders: class name -> folder of its images; labels count the classes in this order, images
            follow in the order of their file names.
        cache: folder of caches, keyed by names, sizes, mtimes and ctimes of all files; None if streamed.
        size, mode, shrink: see `EncodedImages`, where the last is called resize.
        stream: leave them encoded; the set's digest is then of the classes, names and sizes of files.
        skipped: files that cannot be decoded are left out, and appended here, in place of an
            `UnreadableImages` that names them all.
    """
    if stream and skipped is not None:
        raise ValueError("skip_unreadable decodes all images first, and so cannot stream; set one of the two")
    listing, content, others = hashlib.sha256(), hashlib.sha256(), Counter()
    files: list[str] = []  # not Path: a million of them would take a minute to make
    labels: list[int] = []
    for label, (name, folder) in enumerate(folders.items()):
        listing.update(os.fsencode(f"\0\0{name}\0{folder.absolute()}"))
        content.update(os.fsencode(f"\0\0{name}"))
        images = list_images(folder, others)
        if not images:
            raise ValueError(
                f"class {printable(name)!r} has no images: {printable(folder)} holds no file that ends in "
                f"{', '.join(IMAGE_SUFFIXES)}; add some or remove the folder"
            )
        for entry in images:
            # A link to nowhere is no file; it is named with all that cannot be read when it is to be decoded.
            stat = entry.stat(follow_symlinks=os.path.isfile(entry))
            # Files that swap names keep their mtime, and tools set it at will; ctime is the system's own.
            times = f"{stat.st_mtime_ns}\0{stat.st_ctime_ns}"
            listing.update(os.fsencode(f"\0{entry.name}\0{stat.st_size}\0{times}"))
            content.update(os.fsencode(f"\0{entry.name}\0{stat.st_size}"))
            files.append(entry.path)
            labels.append(label)
    place = Path(os.path.commonpath(list(folders.values())))
    told = [f"{count} {what}" for what, count in sorted(others.items())]
    tell_left_out(place, told, f"images ({', '.join(IMAGE_SUFFIXES)}) directly in a class folder")
    classes, numbers = tuple(printable(name) for name in folders), torch.tensor(labels)
    if twice := [name for name, times in Counter(classes).items() if times > 1]:
        raise ValueError(
            f"two class folders in {printable(place)} are called {twice[0]!r}, in two forms of Unicode or "
            "with letters that are not UTF-8; merge or rename them"
        )
    names = Names("/".join(path.split(os.sep)[-3:]) for path in files)  # part, class, file
    encoded = EncodedImages(files, size=size, mode=mode, resize=shrink, digest=content.hexdigest())
    if stream:
        return ImageSet(encoded, numbers, classes, names=names)
    recipe = {"rules": RULES, "size": size, "mode": mode, "shrink": shrink.__name__}
    recipe |= {} if skipped is None else {"skip_unreadable": True}
    recipe["listing"] = listing.hexdigest()

    def write(folder: Path) -> None:
        bad, readable = [], np.ones(len(files), dtype=bool)
        # Written, not mapped: a full disk is then an error and does not kill the process.
        with open(folder / "images.npy", "wb") as out, ThreadPool(min(8, os.cpu_count() or 1)) as pool:
            header = {"descr": "|u1", "fortran_order": False, "shape": encoded.shape}
            np.lib.format.write_array_header_1_0(out, header)  # which leaves room for any number of rows
            # disable=None: a bar on a terminal, nothing in a log
            for start in tqdm(range(0, len(files), _BLOCK), desc="decoding images", disable=None):
                rows = range(len(files))[start : start + _BLOCK]
                for row, one in zip(rows, pool.map(Caught(encoded).__getitem__, rows, 32), strict=True):
                    if isinstance(one, UnreadableImages):
                        bad, readable[row] = bad + one.files, False
                    else:
                        out.write(one.numpy().tobytes())
            out.seek(0)
            header["shape"] = (int(readable.sum()), *encoded.shape[1:])
            np.lib.format.write_array_header_1_0(out, header)
        if bad and (skipped is None or not readable.any()):
            raise UnreadableImages(bad)
        if skipped is not None:
            np.save(folder / "readable.npy", readable)

    arrays = cached_arrays(cache, recipe, write, size=math.prod(encoded.shape))
    images = torch.from_numpy(arrays["images"])
    if skipped is None:
        return ImageSet(images, numbers, classes, names=names)
    kept = torch.from_numpy(arrays["readable"]).nonzero().flatten()
    if len(empty := np.setdiff1d(numbers.numpy(), numbers[kept].numpy())):
        where = f"of class {classes[empty[0]]!r} in {printable(place)}"
        raise ValueError(f"no image {where} can be read; mend some")
    skipped += [printable(names[row]) for row in np.flatnonzero(~arrays["readable"])]
    return ImageSet(images, numbers[kept], classes, names=names.subset(kept))


def download(kind: str, base: Path, layout: str, **options: Any) -> Any:
    """Return torchvision's data set of that name, downloaded to the data root, or say what to put where."""
    try:
        import torchvision  # takes a second, and is not needed where the images are

        return getattr(torchvision.datasets, kind)(str(base), download=True, **options)
    except Exception as error:  # servers, archives and Google Drive's client raise what they like
        raise FileNotFoundError(
            f"{kind} is not there and could not be downloaded ({error}): put its images at {layout}, or "
            f"name another data root by root=... or {DATA_VARIABLE}"
        ) from error
