"""Checking a gallery's files, and making them few again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compat_lib.deploy.gallery.files import ROWS, read_features, read_ids
from compat_lib.deploy.gallery.store import State, Store


@dataclass(frozen=True)
class Contents:
    """What a gallery holds, as `Gallery.verify` has read it."""

    entries: dict[str, int]  # model -> entries
    segments: int  # files that count
    size: int  # bytes of these
    superseded: int  # features on disk that were replaced or removed since
    unused: int  # files that no longer count; compact deletes them

    def __str__(self) -> str:
        made = ", ".join(f"{number} of {name}" for name, number in self.entries.items())
        return (
            f"{sum(self.entries.values())} entries ({made}) in {self.segments} sound files, "
            f"{self.size / 1e6:.1f} MB; superseded features: {self.superseded}, unused files: {self.unused}"
        )


def verify(store: Store) -> Contents:
    """What `Gallery.verify` returns and raises."""
    return store.again(lambda state: _verified(store, state))


def _verified(store: Store, state: State) -> Contents:
    manifest, rows = state.manifest, 0
    for segment in manifest.segments:
        if segment.model is None:
            read_ids(store.folder, segment)
        else:
            rows += len(read_features(store.folder, segment))
    for plan in manifest.plans.values():
        read_ids(store.folder, plan)
    files = [*manifest.segments, *manifest.plans.values()]
    named = {one.name for one in files}
    unused = [path for path in (store.folder / "segments").iterdir() if path.name not in named]
    superseded, size = rows - len(state.entries), sum(one.size for one in files)
    return Contents(state.counts, len(files), size, superseded, len(unused))


def compact(store: Store) -> int:
    """What `Gallery.compact` does and returns."""
    with store.change() as state:
        before = _size(store)
        manifest, segments = state.manifest, []
        for number, name in enumerate(manifest.models):
            keys, ids = state.entries.of(number)
            for start in range(0, len(keys), ROWS):
                part = slice(start, start + ROWS)
                features = np.concatenate([rows for _, rows in store.features(state, keys[part])])
                written, manifest = store.write(manifest, ids[part], features, name)
                segments += written
        store.commit(manifest, segments=tuple(segments))
        named = {one.name for one in (*segments, *manifest.plans.values())}
        for path in (store.folder / "segments").iterdir():
            if path.name not in named:
                path.unlink()
        for path in (store.folder / "index").glob("*"):  # their keys mean nothing any more
            path.unlink()
        return before - _size(store)


def _size(store: Store) -> int:
    return sum(path.stat().st_size for path in store.folder.rglob("*") if path.is_file())
