"""A gallery on disk whose entries carry the model that made them: insert, remove, search, backfill."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from compat_lib.deploy.gallery.backfill import Progress, backfill
from compat_lib.deploy.gallery.checks import checked_ids, checked_rows, checked_width, listed
from compat_lib.deploy.gallery.comparing import checked_declaration, refuse_entries
from compat_lib.deploy.gallery.files import (
    MANIFEST,
    Manifest,
    Model,
    refuse_others,
    refuse_remains,
    write_manifest,
)
from compat_lib.deploy.gallery.index import index_options
from compat_lib.deploy.gallery.searching import Hits, Searcher
from compat_lib.deploy.gallery.store import LOCK, WAIT, Store
from compat_lib.deploy.gallery.upkeep import Contents, compact, verify


class Gallery:
    """Features on disk with the model that made each, and searches that refuse what cannot be compared.

    Every change is there wholly or not at all, whenever the process is killed. Writers exclude each other by
    a lock on the folder and take turns, so that images can be inserted while a backfill runs; readers need no
    lock, and each search sees the last change that any process has finished. One object may be used by
    several threads; its searches take turns, so a server opens the gallery once for each thread.

    Similarity is the cosine. Scores of new queries with new and with old entries lie on different scales:
    give each model its own threshold, or bring them onto one scale with `score_scale`.

    Args:
        folder: of a gallery that `create` made.
        index: another index than the gallery's own, for this object only: indexes are built from the stored
            features and belong to the reader.
        options: of the index, for this object only.

    Raises:
        FileNotFoundError: "there is no gallery in photos ..."
        DamagedGallery: a file is missing, cut short or altered.

    >>> import tempfile
    >>> gallery = Gallery.create(tempfile.mkdtemp() + "/shop", {"old": 2})
    >>> gallery.insert([10, 11], [[1.0, 0.0], [0.0, 1.0]], model="old")
    >>> gallery.declare("new", 2, compatible_with="old")
    >>> gallery.search([[0.6, 0.8]], 2, model="new").ids.tolist()
    [[11, 10]]
    """

    def __init__(self, folder: str | Path, index: str | None = None, **options: Any) -> None:
        self.folder = Path(folder)
        self._store = Store(self.folder)
        manifest = self._store.now().manifest
        if index is None or index == manifest.index:
            index, options = manifest.index, manifest.options | options
        self._searcher = Searcher(self._store, index, index_options(index, options))

    @classmethod
    def create(
        cls, folder: str | Path, models: Mapping[str, int], index: str = "flat", **options: Any
    ) -> Gallery:
        """Make an empty gallery and open it.

        Args:
            folder: made when it does not exist; it may hold neither a gallery nor anything else.
            models: name -> width of the models whose features may be inserted; `declare` adds more. Those
                given here are not taken for compatible with one another.
            index: "flat" (exact), "ivf" or "hnsw", see `ModelIndex`.
            options: of the index: nlist and nprobe; or m, ef_construction and ef_search.

        Raises:
            FileExistsError: "there is a gallery in photos already ...", "the folder photos holds other files
                ..."
            DamagedGallery: "photos/gallery.json is missing ...", where entries of a former gallery lie.
            ValueError: an unknown index or option, no model, or a width that is no whole number.
        """
        folder = Path(folder)
        options = index_options(index, options)
        if not isinstance(models, Mapping) or not models:
            raise ValueError(
                f"the models are {models!r}; name at least one and its width, such as {{'old-2024': 64}}"
            )
        declared = {name: Model(checked_width(name, width)) for name, width in models.items()}
        refuse_remains(folder)
        refuse_others(folder)
        (folder / "segments").mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK, timeout=WAIT):
            if (folder / MANIFEST).exists():
                raise FileExistsError(
                    f"there is a gallery in {folder} already; open it with Gallery.open, or choose another "
                    "folder"
                )
            write_manifest(folder, Manifest(index, options, declared))
        return cls(folder)

    @classmethod
    def open(cls, folder: str | Path, index: str | None = None, **options: Any) -> Gallery:
        """Open a gallery for reading and writing; arguments and errors are those of the class."""
        return cls(folder, index, **options)

    # -- what is in it -----------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._store.now().entries)

    @property
    def models(self) -> dict[str, Model]:
        """What was declared, by name."""
        return dict(self._store.now().manifest.models)

    @property
    def counts(self) -> dict[str, int]:
        """How many entries each declared model has."""
        return self._store.now().counts

    def ids(self, model: str | None = None) -> np.ndarray:
        """The ids of all entries or of one model's, int64, rising."""
        manifest, entries = self._store.now()
        if model is None:
            return entries.ids.copy()
        return entries.ids[entries.owners == manifest.code(model)]

    def models_of(self, ids: Any) -> np.ndarray:
        """Who made the features of these entries, text [n].

        Raises:
            KeyError: "there is no entry with the id 7 ..."
        """
        state = self._store.now()
        owners = state.entries.owners[state.find(checked_ids(ids, repeats=True))]
        return np.array(list(state.manifest.models), object)[owners]

    def features(self, ids: Any) -> np.ndarray:
        """The stored features of entries of one model, float32 [n, width] of unit length, in the ids' order.

        Raises:
            KeyError: "there is no entry with the id 7 ..."
            ValueError: "these entries were made by 2 models ..."
        """
        ids = checked_ids(ids, repeats=True)
        return self._store.again(lambda state: self._store.features_of(state, ids))

    # -- changes -----------------------------------------------------------------------------------

    def declare(
        self, model: str, width: int, compatible_with: str | Sequence[str] = (), fit: str | None = None
    ) -> None:
        """Say that a model exists, and with whose features its own may be compared.

        The gallery believes you: measure first, `evaluation.compare` says whether two models are compatible.
        Declaring a model again replaces what was said about its compatibility.

        Args:
            model: its name, with the version.
            width: numbers in a feature.
            compatible_with: names of declared models; each pair is declared by itself.
            fit: how features of unequal width meet. "cut": queries of the wider model by their first
                coordinates (the narrower model can then not search the wider one's entries); "pad": zeros
                are appended to the narrower side.

        Raises:
            ValueError: an unknown model, unequal widths without `fit`, another width than before.
        """
        width = checked_width(model, width)
        with self._store.change() as (manifest, _):
            one = checked_declaration(manifest.models, model, width, compatible_with, fit)
            if manifest.models.get(model) != one:
                self._store.commit(manifest, models=manifest.models | {model: one})

    def insert(self, ids: Any, features: Any, model: str, replace: bool = False) -> None:
        """Add entries, all of them or none; many at a time, because each call writes a file.

        Args:
            ids: whole numbers [n], at least 0.
            features: [n, width] real numbers, NumPy or torch; stored as float32 with unit length.
            model: who made them.
            replace: whether ids that are in the gallery already get the new features, whoever made the old
                ones; at no moment is such an entry missing.

        Raises:
            ValueError: "the model 'new' is not declared ...", "entries of 'new' cannot stand beside ...",
                ids that are in the gallery already, another width, NaN, rows of zeros.
        """
        ids = checked_ids(ids)
        width = self._store.now().manifest.model(model).width
        rows = checked_rows(features, width, f"features of {model!r}", ids)
        with self._store.change() as state:
            refuse_entries(state.manifest.models, state.counts, model)
            here = ids[state.entries.find(ids) >= 0]
            if len(here) and not replace:
                raise ValueError(
                    f"{len(here)} of the {len(ids)} ids are in the gallery already: {listed(here)}; give "
                    "replace=True if their images have changed, or bring them to a new model with backfill"
                )
            self._store.append(state.manifest, ids, rows, model)

    def remove(self, ids: Any) -> None:
        """Take entries out, all of them or none.

        Raises:
            KeyError: "there is no entry with the id 7 ..."
        """
        ids = checked_ids(ids)
        with self._store.change() as state:
            state.find(ids)
            self._store.append(state.manifest, ids, None, None)

    def backfill(
        self, model: str, embed: Callable[[np.ndarray], Any], order: Any = None, batch: int = 1000
    ) -> Iterator[Progress]:
        """Embed entries again by a new model, batch by batch; see `backfill.backfill`."""
        return backfill(self._store, model, embed, order, batch)

    # -- search and upkeep -------------------------------------------------------------------------

    def search(
        self, queries: Any, k: int, model: str, scales: Mapping[str, tuple[float, float]] | None = None
    ) -> Hits:
        """The k entries of highest cosine for each query, whoever made them.

        Args:
            queries: [Nq, width] real numbers, NumPy or torch, any length of row.
            k: entries wanted, at least 1.
            model: who made the queries.
            scales: model of the entry -> (centre, spread) of `score_scale`; scores are then
                (cosine - centre) / spread, and entries of all models are ranked by that.

        Raises:
            ValueError: "the model 'new' is not declared ...", "queries of 'new' cannot be compared with ...",
                another width, NaN, rows of zeros, scales that lack a model.
        """
        return self._searcher.search(queries, k, model, scales)

    def save_index(self) -> None:
        """Keep the built indexes on disk, so that the next process need not build them again.

        Worth while for "ivf" and "hnsw" of many entries; a flat index is its features and is not kept. A kept
        index may be older than the gallery: the difference is made up when it is read.
        """
        self._searcher.save()

    def verify(self) -> Contents:
        """Read every file and compare it with its checksum; what the gallery holds.

        Raises:
            DamagedGallery: a file is missing, cut short or altered; the sentence names it.
        """
        return verify(self._store)

    def compact(self) -> int:
        """Write the present entries anew and delete what is no longer needed; bytes saved.

        Replaced and removed features stay on disk until then, and each insert or batch is a file of its own:
        compact at the end of a backfill, and after many small inserts. Searches may go on; every reader
        builds its indexes again afterwards.
        """
        return compact(self._store)
