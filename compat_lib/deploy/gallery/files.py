"""The files of a gallery: segments that are never changed, and one manifest that says which of them count.

    gallery.json             the manifest: models, index, and the segments in the order of their writing
    segments/00000007.npy    ids int64 [n], then features float32 [n, width]: two np.load from one open file
    index/                   FAISS indexes, a cache that may be deleted at any time

A change writes its segments first, each under another name that is then renamed, and the manifest last, in
the same way. A process that is killed has therefore either made the whole change or none of it: a segment
that no manifest names does not count, and the next writer writes over it.
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

FORMAT = 1
MANIFEST = "gallery.json"
ROWS = 65_536  # most rows in a segment of features, which bounds what is read at a time


class DamagedGallery(ValueError):
    """A file of the gallery is missing, cut short or altered; the sentence names it."""


@dataclass(frozen=True)
class Model:
    """What was declared about a model.

    Args:
        width: numbers in a feature.
        compatible_with: models whose features may be compared with this one's.
        fit: how features of unequal width are compared, "cut" or "pad"; None: not at all.
    """

    width: int
    compatible_with: tuple[str, ...] = ()
    fit: str | None = None


class Segment(NamedTuple):
    """One file: entries of one model, or ids that were removed, or the order of a backfill.

    Args:
        number: never used for two files that count.
        rows: how many.
        size: bytes.
        checksums: CRC-32 of the ids and of the features.
        model: who made the features; None where there are none.
    """

    number: int
    rows: int
    size: int
    checksums: tuple[int, int]
    model: str | None = None

    @property
    def name(self) -> str:
        """The file's name in the folder of segments."""
        return f"{self.number:08}.npy"


@dataclass(frozen=True)
class Manifest:
    """The state of a gallery at one moment."""

    index: str
    options: dict[str, Any]
    models: dict[str, Model]
    segments: tuple[Segment, ...] = ()
    plans: dict[str, Segment] = field(default_factory=dict)  # model -> order of its unfinished backfill
    changes: int = 0  # since the gallery was made
    numbers: int = 0  # the next segment's

    def model(self, name: str) -> Model:
        """What was declared about a model.

        Raises:
            ValueError: "the model 'new' is not declared ..."
        """
        if name not in self.models:
            raise ValueError(
                f"the model {name!r} is not declared, and features say nothing about who made them; declared "
                f"are {', '.join(map(repr, self.models))}. Give the right name, or declare the model with "
                "its width and the models that it is compatible with"
            )
        return self.models[name]

    def code(self, name: str | None) -> int:
        """The model's number in the order of declaration; -1 for none."""
        if name is None:
            return -1
        self.model(name)
        return list(self.models).index(name)


def read_manifest(folder: Path) -> Manifest:
    """The gallery's present state.

    Raises:
        FileNotFoundError: "there is no gallery in photos ..."
        DamagedGallery: "photos/gallery.json is damaged ..." or "... is missing, and the gallery needs it ..."
        ValueError: "the gallery in photos has the format 2 ..."
    """
    path = folder / MANIFEST
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        refuse_remains(folder)
        raise FileNotFoundError(
            f"there is no gallery in {folder}: it holds no {MANIFEST}; make one with Gallery.create"
        ) from None
    try:
        body = json.loads(text)
        if body.pop("checksum") != zlib.crc32(_text(body)):
            raise ValueError
        version = body.pop("format")
    except (ValueError, TypeError, KeyError, AttributeError):
        raise DamagedGallery(
            f"{path} is damaged: its checksum is not that of its content; restore the folder from a backup"
        ) from None
    if version != FORMAT:
        raise ValueError(
            f"the gallery in {folder} has the format {version}, and this version of compat_lib reads "
            f"{FORMAT}; install the version that wrote it"
        )
    body["models"] = {
        name: Model(one["width"], tuple(one["compatible_with"]), one["fit"])
        for name, one in body["models"].items()
    }
    body["segments"] = tuple(_segment(row) for row in body["segments"])
    body["plans"] = {name: _segment(row) for name, row in body["plans"].items()}
    return Manifest(**body)


def refuse_others(folder: Path) -> None:
    """Refuse a folder that holds something else: a gallery moves and deletes files in its own.

    Raises:
        FileExistsError: "the folder photos holds other files, such as train; ..."
    """
    own = (MANIFEST, "segments", "index")  # of a gallery that is or was here, and its hidden files
    others = (path.name for path in folder.glob("*") if path.name not in own and path.name[0] != ".")
    if others := sorted(others):
        raise FileExistsError(
            f"the folder {folder} holds other files, such as {others[0]}; a gallery needs one of its own"
        )


def refuse_remains(folder: Path) -> None:
    """Refuse a folder with segments and no manifest: a new gallery in it would write over them.

    Raises:
        DamagedGallery: "photos/gallery.json is missing, and the gallery needs it ..."
    """
    if not (folder / MANIFEST).exists() and any((folder / "segments").glob("*.npy")):
        raise DamagedGallery(
            f"{folder / MANIFEST} is missing, and the gallery needs it; restore the file from a backup"
        )


def signature(folder: Path) -> bytes:
    """The beginning of the manifest, which differs between any two states: its checksum and its count."""
    try:
        with open(folder / MANIFEST, "rb") as file:
            return file.read(48)
    except (FileNotFoundError, NotADirectoryError):
        return b""


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Make this the gallery's state: the one moment at which a change happens."""
    body = {
        "changes": manifest.changes,
        "format": FORMAT,
        "index": manifest.index,
        "options": manifest.options,
        "models": {name: asdict(model) for name, model in manifest.models.items()},
        "segments": manifest.segments,
        "plans": manifest.plans,
        "numbers": manifest.numbers,
    }
    text = _text({"checksum": zlib.crc32(_text(body))} | body)
    write_file(folder / MANIFEST, lambda file: file.write(text))


def write_segment(
    folder: Path, number: int, ids: np.ndarray, features: np.ndarray | None = None, model: str | None = None
) -> Segment:
    """Write one segment to the disk; it counts as soon as a manifest names it.

    Args:
        folder: the gallery's.
        number: the manifest's next one.
        ids: int64 [n].
        features: float32 [n, width], or None.
        model: who made them.
    """
    arrays = [np.ascontiguousarray(array) for array in (ids, features) if array is not None]

    def fill(file: BinaryIO) -> None:
        for array in arrays:
            np.save(file, array)

    path = folder / "segments" / f"{number:08}.npy"
    write_file(path, fill)
    checksums = _checksum(arrays[0]), _checksum(arrays[1]) if len(arrays) > 1 else 0
    return Segment(number, len(ids), path.stat().st_size, checksums, model)


def read_ids(folder: Path, segment: Segment) -> np.ndarray:
    """The ids of one segment, int64 [n]; errors as of `read_features`."""
    return _read(folder, segment, 1)[0]


def read_features(folder: Path, segment: Segment) -> np.ndarray:
    """The features of one segment, float32 [n, width].

    Raises:
        FileNotFoundError: the file is not there, as when the gallery was compacted in the meantime.
        DamagedGallery: "photos/segments/00000007.npy is damaged: its features are not those that were
            written ..."
    """
    return _read(folder, segment, 2)[1]


def _read(folder: Path, segment: Segment, arrays: int) -> list[np.ndarray]:
    path = folder / "segments" / segment.name
    size = path.stat().st_size
    if size != segment.size:
        raise DamagedGallery(
            f"{path} is damaged: it has {size} bytes and {segment.size} were written; restore the file from "
            "a backup"
        )
    wanted = [("ids", np.int64, 1), ("features", np.float32, 2)][:arrays]
    found = []
    with open(path, "rb") as file:
        for (part, kind, axes), checksum in zip(wanted, segment.checksums, strict=False):
            try:
                array = np.load(file)
                sound = array.dtype == kind and array.ndim == axes and len(array) == segment.rows
                sound = sound and _checksum(array) == checksum
            except Exception:  # an altered header can raise anything
                sound = False
            if not sound:
                raise DamagedGallery(
                    f"{path} is damaged: its {part} are not those that were written; restore the file from a "
                    "backup"
                )
            found.append(array)
    return found


def write_file(path: Path, fill: Callable[[BinaryIO], Any]) -> None:
    """Write a file so that a reader, a kill or a power cut finds the former file or the whole new one.

    Raises:
        OSError: "photos/segments/00000007.npy cannot be written (No space left on device) ..."
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")  # one writer at a time, so one name is enough
    try:
        with open(temporary, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)  # a full disk needs the room
        if isinstance(error, OSError):
            raise OSError(
                error.errno or errno.EIO,
                f"{path} cannot be written ({error.strerror or error}); nothing has changed: make room, or "
                "mend the folder, and call again",
            ) from error
        raise
    if hasattr(os, "O_DIRECTORY"):  # the renaming itself reaches the disk, where folders can be synchronised
        descriptor = os.open(path.parent, os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _text(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def _segment(row: list[Any]) -> Segment:
    number, rows, size, checksums, model = row
    return Segment(number, rows, size, tuple(checksums), model)


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(memoryview(array).cast("B")) if array.size else 0
