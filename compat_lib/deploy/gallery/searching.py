"""Search over the entries of all models: one index a model, and the answers merged."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from compat_lib.deploy.gallery.checks import checked_count, checked_rows
from compat_lib.deploy.gallery.comparing import checked_scales, fitted, form_of, refuse_queries
from compat_lib.deploy.gallery.entries import places
from compat_lib.deploy.gallery.index import ModelIndex
from compat_lib.deploy.gallery.store import State, Store, extends


class Hits(NamedTuple):
    """What a search found, best first; where a query has fewer hits: id -1, score -inf, model ""."""

    ids: np.ndarray  # int64 [Nq, k]
    scores: np.ndarray  # float32 [Nq, k]: cosines, or what the scales made of them
    models: np.ndarray  # text [Nq, k]: who made the entry


class Searcher:
    """The indexes of a gallery in this process; searches from several threads take turns.

    Args:
        store: of the gallery.
        kind, options: of the indexes.
    """

    def __init__(self, store: Store, kind: str, options: dict[str, Any]) -> None:
        self._store, self._kind, self._options = store, kind, options
        self._turn = threading.RLock()
        self._forget()

    def search(
        self, queries: Any, k: int, model: str, scales: Mapping[str, tuple[float, float]] | None
    ) -> Hits:
        """What `Gallery.search` returns."""
        k = checked_count("k", k)
        width = self._store.now().manifest.model(model).width
        rows = checked_rows(queries, width, f"queries of {model!r}")

        def find(state: State) -> Hits:
            refuse_queries(state.manifest.models, state.counts, model)
            self._follow(state)
            return self._search(state, rows, k, model, scales)

        with self._turn:
            return self._store.again(find)

    def save(self) -> None:
        """Write what is built, where building took time, into the gallery's folder."""
        with self._turn:
            self._store.again(self._follow)  # building may take long, and other writers wait below
            with self._store.change() as state:
                self._follow(state)
                for number, (name, index) in enumerate(self._indexes.items()):
                    if index.form != "flat":
                        index.save(self._path(number), _stamp(state, name))

    def _search(
        self, state: State, rows: np.ndarray, k: int, model: str, scales: Mapping[str, Any] | None
    ) -> Hits:
        models = state.manifest.models
        names = [name for name, number in state.counts.items() if number]
        shift = None if scales is None else checked_scales(scales, names)
        ids, scores, owners = [], [], []
        for name in names:
            asked = fitted(rows, form_of(models, model, name), models[name].width)
            cosines, keys = self._indexes[name].search(asked, min(k, len(self._indexes[name])))
            if shift is not None:
                cosines = (cosines - shift[name][0]) / shift[name][1]
            scores.append(cosines.astype(np.float32))
            ids.append(self._ids[name][places(self._indexes[name].keys, keys.ravel())].reshape(keys.shape))
            owners.append(np.full(keys.shape, state.manifest.code(name)))
        # Columns of nothing stand in for the hits that are not there.
        empty = (len(rows), k)
        ids, scores, owners = (
            np.concatenate([*parts, np.full(empty, filling, kind)], axis=1)
            for parts, filling, kind in (
                (ids, -1, np.int64),
                (scores, -np.inf, np.float32),
                (owners, len(models), np.int64),
            )
        )
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        ids, scores, owners = (np.take_along_axis(part, best, axis=1) for part in (ids, scores, owners))
        return Hits(ids, scores, np.array([*models, ""], object)[owners])

    def _forget(self) -> None:
        self._followed: State | None = None
        self._indexes: dict[str, ModelIndex] = {}
        self._ids: dict[str, np.ndarray] = {}  # of the entries, in the order of the index's keys

    def _follow(self, state: State) -> None:
        """Bring the indexes to a state of the gallery."""
        known = self._followed
        if state is known:
            return
        # After compaction, or a return to a backup, keys mean other rows.
        if known is None or not extends(state.manifest.segments, known.manifest.segments):
            self._forget()
        try:
            for number, (name, model) in enumerate(state.manifest.models.items()):
                if name not in self._indexes:
                    self._indexes[name] = ModelIndex(self._kind, self._options, model.width)
                    self._indexes[name].load(self._path(number), lambda stamp: _agrees(stamp, state))
                keys, self._ids[name] = state.entries.of(number)
                self._indexes[name].follow(keys, lambda wanted: self._store.features(state, wanted))
        except BaseException:
            self._forget()  # an index that was left half way would be wrong from then on
            raise
        self._followed = state

    def _path(self, number: int) -> Path:
        return self._store.folder / "index" / f"{number:04}-{self._kind}.npz"


def _stamp(state: State, name: str) -> list[list[int]]:
    """Number and checksum of the segments that the keys of a model's index speak of."""
    return [[one.number, one.checksums[1]] for one in state.manifest.segments if one.model == name]


def _agrees(stamp: list[list[int]], state: State) -> bool:
    """Whether a number never means another file than it did when the index was kept."""
    present = {one.number: one.checksums[1] for one in state.manifest.segments}
    return all(present.get(number, checksum) == checksum for number, checksum in stamp)
