"""The state of a gallery's folder: read again when another process has changed it, changed under a lock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from filelock import FileLock, Timeout

from compat_lib.deploy.gallery.checks import listed
from compat_lib.deploy.gallery.entries import SHIFT, Entries
from compat_lib.deploy.gallery.files import (
    ROWS,
    DamagedGallery,
    Manifest,
    Segment,
    read_features,
    read_ids,
    read_manifest,
    signature,
    write_manifest,
    write_segment,
)

WAIT = 60.0  # seconds that a writer waits for another one
LOCK = ".lock"
Result = TypeVar("Result")


class UnknownEntry(KeyError):
    """An id that is not in the gallery."""

    def __str__(self) -> str:  # KeyError would show the sentence in quotes
        return self.args[0]


class State(NamedTuple):
    """Manifest and entries at one moment; neither is ever changed."""

    manifest: Manifest
    entries: Entries

    @property
    def counts(self) -> dict[str, int]:
        """Entries of each declared model."""
        numbers = np.bincount(self.entries.owners, minlength=len(self.manifest.models))
        return dict(zip(self.manifest.models, numbers.tolist(), strict=True))

    def find(self, ids: np.ndarray) -> np.ndarray:
        """The places of these entries, int64 [n].

        Raises:
            KeyError: "there is no entry with the id 7 ..."
        """
        place = self.entries.find(ids)
        if (place < 0).any():
            absent = ids[place < 0]
            raise UnknownEntry(
                f"there is no entry with the id {listed(absent)}: {len(absent)} of the {len(ids)} ids are "
                "not in the gallery; Gallery.ids() lists those that are"
            )
        return place


class Store:
    """Reads and changes a gallery's folder; any number of threads and processes may have one each, or share.

    Args:
        folder: of a gallery.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._turn = threading.RLock()
        self._seen = b""  # the signature of the state
        self._state = self._read(None)

    # -- reading -----------------------------------------------------------------------------------

    def now(self) -> State:
        """The last state that any process has finished writing."""
        with self._turn:
            if signature(self.folder) != self._seen:
                self._state = self._read(self._state)
            return self._state

    def again(self, work: Callable[[State], Result]) -> Result:
        """What `work` makes of the present state, once more when its files were compacted meanwhile."""
        while True:
            state = self.now()
            try:
                return work(state)
            except FileNotFoundError as error:
                if self.now() is state:
                    raise _missing(error) from None

    def features(self, state: State, keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Parts (keys, features float32 [n, width]) that together are the entries of these rising keys."""
        numbers, starts = np.unique(keys >> SHIFT, return_index=True)
        by_number = {segment.number: segment for segment in state.manifest.segments}
        for number, part in zip(numbers.tolist(), np.split(keys, starts[1:]), strict=True):
            features = read_features(self.folder, by_number[number])
            yield part, features[part & (2**SHIFT - 1)]

    def features_of(self, state: State, ids: np.ndarray) -> np.ndarray:
        """What `Gallery.features` returns and raises."""
        place = state.find(ids)
        owners = np.unique(state.entries.owners[place])
        if not len(owners):
            raise ValueError("no id was given, and only entries say how wide a feature is; give at least one")
        if len(owners) > 1:
            raise ValueError(
                f"these entries were made by {len(owners)} models; ask for those of one, with ids(model)"
            )
        keys, back = np.unique(state.entries.keys[place], return_inverse=True)
        return np.concatenate([features for _, features in self.features(state, keys)])[back]

    def _read(self, known: State | None) -> State:
        while True:
            seen = signature(self.folder)
            manifest = read_manifest(self.folder)
            try:
                entries = _replayed(self.folder, manifest, known)
            except FileNotFoundError as error:
                if signature(self.folder) == seen:
                    raise _missing(error) from None
                continue  # compacted while it was read
            if signature(self.folder) == seen:
                self._seen = seen
                return State(manifest, entries)

    # -- writing -----------------------------------------------------------------------------------

    @contextmanager
    def change(self) -> Iterator[State]:
        """Nobody else writes until the block ends; gives the state that it may change.

        Raises:
            TimeoutError: "another process has been writing to photos for 60 s ..."
            OSError: "photos can be searched, but not written to ..."
        """
        lock = FileLock(self.folder / LOCK, timeout=WAIT)  # made here: none outlives a fork
        try:
            lock.acquire()
        except Timeout:
            raise TimeoutError(
                f"another process has been writing to {self.folder} for {WAIT:g} s; wait until it has ended, "
                "or end it: the lock ends with the process"
            ) from None
        except OSError as error:
            raise OSError(
                error.errno, f"{self.folder} can be searched, but not written to ({error.strerror})"
            ) from None
        try:
            yield self.now()
        finally:
            lock.release()

    def commit(self, manifest: Manifest, **changes: Any) -> State:
        """Make a changed manifest the gallery's state; only within `change`."""
        write_manifest(self.folder, replace(manifest, changes=manifest.changes + 1, **changes))
        return self.now()

    def append(
        self, manifest: Manifest, ids: np.ndarray, features: np.ndarray | None, model: str | None
    ) -> State:
        """Commit entries of one model, or the removal of ids; only within `change`."""
        if not len(ids):
            return self.now()
        segments, manifest = self.write(manifest, ids, features, model)
        return self.commit(manifest, segments=(*manifest.segments, *segments))

    def write(
        self,
        manifest: Manifest,
        ids: np.ndarray,
        features: np.ndarray | None = None,
        model: str | None = None,
    ) -> tuple[list[Segment], Manifest]:
        """Segments on the disk that do not count yet, and the manifest with their numbers taken."""
        step = max(1, len(ids)) if features is None else ROWS
        segments = []
        for number, start in enumerate(range(0, len(ids), step), manifest.numbers):
            part = slice(start, start + step)
            rows = None if features is None else features[part]
            segments.append(write_segment(self.folder, number, ids[part], rows, model))
        return segments, replace(manifest, numbers=manifest.numbers + len(segments))


def extends(later: Sequence[Segment], earlier: Sequence[Segment]) -> bool:
    """Whether the later segments begin with the earlier ones."""
    return tuple(later[: len(earlier)]) == tuple(earlier)


def _replayed(folder: Path, manifest: Manifest, known: State | None) -> Entries:
    """The entries that the segments of a manifest leave, from an earlier state where it leads to this one."""
    entries, segments = Entries.none(), manifest.segments
    if known is not None and extends(manifest.segments, known.manifest.segments):
        entries, segments = known.entries, segments[len(known.manifest.segments) :]
    parts = [(one.number, manifest.code(one.model), read_ids(folder, one)) for one in segments]
    return entries.after(parts) if parts else entries


def _missing(error: FileNotFoundError) -> DamagedGallery:
    return DamagedGallery(
        f"{error.filename} is missing, and the gallery needs it; restore the file from a backup"
    )
