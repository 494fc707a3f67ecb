"""Arrays kept on disk: written under a temporary name, verified on loading, memory-mapped."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

MANIFEST = "manifest.json"
FULL_CHECK_BYTES = 2**30  # larger files are checked by size alone: hashing them costs more than it protects


def recipe_digest(recipe: Mapping[str, object]) -> str:
    """Return 16 hex digits that stand for a recipe (anything JSON can hold, in any key order).

    >>> recipe_digest({"a": 1, "b": 2}) == recipe_digest({"b": 2, "a": 1})
    True
    """
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cached_arrays(
    folder: Path, recipe: Mapping[str, object], write: Callable[[Path], None]
) -> dict[str, np.ndarray]:
    """Return the arrays of a cache folder, made first if they are missing or damaged.

    The folder is written under a temporary name beside its place and renamed when complete, so that processes
    which make it at the same time cannot mix their files, and a killed one leaves nothing that looks whole.

    Args:
        folder: where the cache lives; its parent is created.
        recipe: what the arrays were made from, kept in the manifest for readers.
        write: called with an empty folder; leaves `<name>.npy` files in it.

    Returns:
        name -> array, memory-mapped copy-on-write: changing it in memory never changes the file.

    Raises:
        PermissionError: "cannot write the cache ...".
    """
    arrays = _read(folder)
    if arrays is not None:
        return arrays
    temporary = folder.with_name(f"{folder.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        try:
            temporary.mkdir(parents=True)
        except PermissionError as error:
            raise PermissionError(
                f"cannot write the cache {folder}: permission denied; pass root=... or set COMPAT_DATA to a "
                "folder that you may write"
            ) from error
        write(temporary)
        _write_manifest(temporary, recipe)
        _put_in_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    arrays = _read(folder)
    if arrays is None:
        raise OSError(f"the cache {folder} reads back damaged right after it was written; check the disk")
    return arrays


def _write_manifest(folder: Path, recipe: Mapping[str, object]) -> None:
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.glob("*.npy"))
    }
    text = json.dumps({"recipe": dict(recipe), "files": files}, indent=1, sort_keys=True)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def _put_in_place(temporary: Path, folder: Path) -> None:
    """Rename a complete folder to its name; whoever comes second keeps what the first one wrote."""
    try:
        temporary.rename(folder)
        return
    except OSError:
        if not folder.exists():
            raise
    if _read(folder) is None:  # what stands there is damaged: move it aside, then take its place
        aside = folder.with_name(f"{folder.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
        try:
            folder.rename(aside)
            temporary.rename(folder)
        except OSError:  # another process repaired it between the two lines
            if not folder.exists():
                raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _read(folder: Path) -> dict[str, np.ndarray] | None:
    """Return the arrays, or None when the folder is missing, incomplete or not what its manifest says."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        for name, said in files.items():
            path = folder / name
            if path.stat().st_size != said["bytes"]:
                return None
            if said["bytes"] <= FULL_CHECK_BYTES and _sha256(path) != said["sha256"]:
                return None
        return {Path(name).stem: np.load(folder / name, mmap_mode="c", allow_pickle=False) for name in files}
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
