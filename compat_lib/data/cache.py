"""Arrays that are made once and kept on disk: one folder each, which has its name when it is complete."""

import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from filelock import FileLock

from compat_lib.files import explained

from .images import DATA_VARIABLE

MANIFEST = "manifest.json"


def cached_arrays(
    parent: Path, recipe: Mapping[str, object], write: Callable[[Path], None], *, size: int = 0
) -> dict[str, np.ndarray]:
    """Return the arrays of a recipe, made first if they are missing or cut off.

    A process that finds another one at work waits for it; what a killed one left is made anew.

    Args:
        parent: folder of caches; the arrays live in a folder of it that is named by the recipe's digest.
        recipe: what the arrays are made from, anything JSON can hold.
        write: called with an empty folder; leaves `<name>.npy` files in it.
        size: bytes that the arrays take, where that is known before.

    Arrays by name are memory-mapped copy-on-write: changing one in memory never changes the file. Where the
    disk is full, an OSError, and nothing is left behind.
    """
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"))
    folder = parent / hashlib.sha256(text.encode()).hexdigest()[:16]
    if (arrays := _read(folder)) is not None:
        return arrays
    advice = f"{size / 1e6:.3g} MB are needed; " if size else ""
    advice += f"name another data root by root=..., data_root or the variable {DATA_VARIABLE}"
    lock, part = (parent / f".{folder.name}.{kind}" for kind in ("lock", "part"))
    with explained(folder, advice):
        parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            try:
                if (arrays := _read(folder)) is None:  # another process may have made it meanwhile
                    shutil.rmtree(part, ignore_errors=True)  # of a killed process
                    if folder.exists():  # cut off; taken away at once, for those who read meanwhile
                        folder.rename(part)
                        shutil.rmtree(part)
                    part.mkdir()
                    if size > shutil.disk_usage(part).free:
                        raise OSError(errno.ENOSPC, "no room")
                    with explained(folder, advice):  # while the disk still is as full as it was
                        write(part)
                        (part / MANIFEST).write_text(json.dumps({"recipe": recipe}, indent=1) + "\n")
                    part.rename(folder)
                    arrays = _read(folder)
            finally:
                shutil.rmtree(part, ignore_errors=True)
                lock.unlink(missing_ok=True)  # while it is held: those who wait make a new one
    return arrays


def _read(folder: Path) -> dict[str, np.ndarray] | None:
    """Return the arrays, or None when the folder is missing or one of its files is cut off."""
    if not (folder / MANIFEST).is_file():
        return None
    try:
        files = list(folder.glob("*.npy"))
        return {file.stem: np.load(file, mmap_mode="c", allow_pickle=False) for file in files} or None
    except (ValueError, EOFError, FileNotFoundError):
        return None
