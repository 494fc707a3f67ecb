"""One side of a compatibility check from an npz file, read without running what it may hold."""

from __future__ import annotations

import hashlib
import math
import zipfile
from pathlib import Path

import numpy as np

from compat_lib.deploy.check.sides import Side, Source, UnusableInput, checked_side
from compat_lib.old_files import DAMAGED

HOW = "write it with numpy.savez(path, features=..., labels=...)"
NAMED = ("features", "labels", "ids")
HELD = 2**24  # bytes of a file that are in memory while its digest is taken


def read_side(path: str | Path, name: str) -> Side:
    """Return one side of the check from an npz file with `features`, `labels` and perhaps `ids`.

    Nothing in the file can run code: pickled objects are refused. Sizes and types are checked before an array
    is read. Other arrays are left alone.

    Args:
        path: of the file.
        name: "old" or "new", for the sentences.

    Raises:
        UnusableInput: "old.npz: there is no such file", "old.npz is damaged, or not an npz archive ...",
            "old.npz holds no array 'labels' ...", "old.npz: 'labels' holds Python objects ...", and what
            `checked_side` refuses.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise UnusableInput(f"{path}: there is no such file; {HOW}")
        if not path.is_file():
            raise UnusableInput(f"{path} is not a file; {HOW}")
        with zipfile.ZipFile(path) as archive:
            _check_headers(archive, path)
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in NAMED if key in archive.files}
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(HELD):
                digest.update(block)
        size = path.stat().st_size
    except UnusableInput:
        raise
    except MemoryError:  # the sizes agree with the file's: it is sound, and too large
        raise
    except PermissionError as error:
        raise UnusableInput(f"{path} may not be read by this user; change its permissions") from error
    except DAMAGED as error:
        raise UnusableInput(f"{path} is damaged, or not an npz archive of plain arrays; {HOW}") from error
    try:
        side = checked_side(name, arrays["features"], arrays["labels"], arrays.get("ids"))
    except UnusableInput as error:
        raise UnusableInput(f"{path}: {error}") from error
    shown = path.name.encode("utf-8", "replace").decode()  # a name may hold bytes that are no text
    source = Source(shown, size, digest.hexdigest(), *side.features.shape)
    return Side(side.name, side.features, side.labels, side.ids, source)


def _check_headers(archive: zipfile.ZipFile, path: Path) -> None:
    # What the arrays are, from the first bytes of each: nothing large is read to be refused later.
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    for key in ("features", "labels"):
        if key not in members:
            found = ", ".join(repr(name) for name in sorted(members)[:8]) or "none"
            raise UnusableInput(f"{path} holds no array {key!r}; its arrays are: {found}. {HOW.capitalize()}")
    for key in NAMED:
        if key not in members:
            continue
        with archive.open(members[key]) as file:
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            if version not in read:  # 3.0 differs only in names of fields, which no array here has
                raise ValueError(f"version {version}")
            shape, _, dtype = read[version](file)
            if dtype.hasobject:
                raise UnusableInput(
                    f"{path}: {key!r} holds Python objects and is not read, because pickled objects can run "
                    "code; save it as a plain array of numbers or strings"
                )
            if file.tell() + math.prod(shape) * dtype.itemsize != members[key].file_size:
                raise ValueError("the array is not as long as its header says")
