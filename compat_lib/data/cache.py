"""Arrays that are made once and kept on disk: one folder each, complete when its manifest is there."""

import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from filelock import FileLock

from compat_lib.files import explained, file_identity, write_text

from .images import DATA_VARIABLE

MANIFEST = "manifest.json"


def cached_arrays(
    parent: Path, recipe: Mapping[str, object], write: Callable[[Path], None], *, size: int = 0
) -> dict[str, np.ndarray]:
    """Return the arrays of a recipe, made first if they are missing, incomplete or damaged.

    A process that finds another one at work waits for it; what a killed one left is made anew.

    Args:
        parent: folder of caches; the arrays live in a folder of it that is named by the recipe's digest.
        recipe: what the arrays are made from, anything JSON can hold.
        write: called with an empty folder; leaves `<name>.npy` files in it.
        size: bytes that the arrays take, where that is known before.

    Returns:
        name -> array, memory-mapped copy-on-write: changing it in memory never changes the file. Where the
        disk is full, an OSError, and nothing is left behind.
    """
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"))
    folder = parent / hashlib.sha256(text.encode()).hexdigest()[:16]
    if (arrays := _read(folder)) is not None:
        return arrays
    advice = f"{size / 1e6:.3g} MB are needed; " if size else ""
    advice += f"name another data root by root=..., data_root or the variable {DATA_VARIABLE}"
    lock = parent / f".{folder.name}.lock"
    with explained(folder, advice):
        parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            try:
                if (arrays := _read(folder)) is None:  # another process may have made it meanwhile
                    with explained(folder, advice):  # while the disk still is as full as it was
                        _make(folder, recipe, write, size)
                    arrays = _read(folder)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            finally:
                lock.unlink(missing_ok=True)  # while it is held: those who wait make a new one
    if arrays is None:
        raise OSError(f"the cache {folder} reads back damaged right after it was written; check the disk")
    return arrays


def _make(folder: Path, recipe: Mapping[str, object], write: Callable[[Path], None], size: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if size > shutil.disk_usage(folder).free:
        raise OSError(errno.ENOSPC, "no room")
    write(folder)
    files = {path.name: file_identity(path) for path in sorted(folder.glob("*.npy"))}
    text = json.dumps({"recipe": recipe, "files": files}, indent=1, sort_keys=True)
    write_text(folder / MANIFEST, text + "\n")


def _read(folder: Path) -> dict[str, np.ndarray] | None:
    """Return the arrays, or None when the folder is missing, incomplete or not what its manifest says."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        if any(not file_identity(folder / name).items() <= said.items() for name, said in files.items()):
            return None
        return {Path(name).stem: np.load(folder / name, mmap_mode="c", allow_pickle=False) for name in files}
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
