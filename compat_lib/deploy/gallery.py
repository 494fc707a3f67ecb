"""A gallery on disk that knows which model made each entry: swap the query model, backfill when it suits.

SQLite keeps the entries (gallery.db, in WAL mode: many readers, one writer, every change wholly or not at
all); FAISS searches them in memory, with indexes that are made from the database at the first search, or
Milvus does, which each change brings up to the database. docs/gallery.md goes through an upgrade.
"""

from __future__ import annotations

import contextlib
import functools
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compat_lib.deploy import gallery_database
from compat_lib.deploy import gallery_search as given
from compat_lib.deploy.gallery_database import DamagedGallery
from compat_lib.deploy.gallery_index import InMemory, Part, index_options
from compat_lib.deploy.gallery_milvus import InMilvus
from compat_lib.deploy.gallery_models import Model, fitted, form_of, mapped, refuse_strangers
from compat_lib.deploy.gallery_search import Contents, Hits, overlap, score_scale
from compat_lib.deploy.gallery_store import State
from compat_lib.deploy.gallery_upgrade import Progress, Upgrades

__all__ = ["Contents", "DamagedGallery", "Gallery", "Hits", "Model", "Progress", "overlap", "score_scale"]

Scales = Mapping[str, tuple[float, float]]  # model of the entry -> centre, spread
Asked = tuple[Part, np.ndarray]  # features, and the queries in the form that meets them
# Entries that have no feature of some models, also not beside them.
ALONE = """WITH asking AS (SELECT value FROM json_each(?)) SELECT COUNT(*) FROM entries
WHERE model NOT IN asking AND id NOT IN (SELECT id FROM beside WHERE model IN asking)"""


class Gallery(Upgrades):
    """Features on disk with the model that made each, and searches that refuse what cannot be compared.

    Every change is there wholly or not at all, whenever the process is killed. Writers take turns; each
    search sees the last change that any process has finished. One object may be used by several threads,
    pickled (by its folder) and used after a fork, where FAISS has one thread. A full or read-only disk
    refuses every change and can be searched. Similarity is the cosine; for entries of several models see
    `score_scale`.

    Args:
        folder: of a gallery that `create` made.
        index: another index than the gallery's own, for this object only: "flat" (exact), "ivf" or "hnsw",
            see `ModelIndex`. It is built at the first search: of 200,000 x 64 numbers, a flat one in 2 s, a
            graph in 20 to 30 s of one core. Or "milvus", see `InMilvus`.
        options: of the index: nlist and nprobe; m, ef_construction and ef_search; or uri and index_type.

    Without a gallery in the folder there is a FileNotFoundError, with a file that is cut short or altered a
    `DamagedGallery`; an ImportError names missing packages, a ConnectionError a Milvus that does not answer.

    >>> import tempfile
    >>> gallery = Gallery.create(tempfile.mkdtemp() + "/shop", {"old": 2})
    >>> gallery.insert(["a.png", "b.png"], [[1.0, 0.0], [0.0, 1.0]], model="old")
    >>> gallery.declare("new", 2, compatible_with="old")
    >>> gallery.search([[0.6, 0.8]], 2, model="new").ids.tolist()
    [['b.png', 'a.png']]
    """

    def __init__(self, folder: str | Path, index: str | None = None, **options: Any) -> None:
        super().__init__(folder)
        self._given = index, options
        with self._reading() as database:
            kind, kept = database.execute("SELECT kind, options FROM about").fetchone()
        if index in (None, kind):
            index, options = kind, json.loads(kept) | options
        self._kind, options = index, index_options(index, options)
        self._index = InMilvus(self, **options) if index == "milvus" else InMemory(self, index, options)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with super()._changing() as database:
            yield database
        self._index.changed()

    def __reduce__(self) -> tuple:
        index, options = self._given
        return functools.partial(Gallery, self.folder, index, **options), ()

    @classmethod
    def create(
        cls, folder: str | Path, models: Mapping[str, int], index: str = "flat", **options: Any
    ) -> Gallery:
        """Make an empty gallery in a folder of its own, which is made, and open it.

        Args:
            models: name -> width of the models whose features may be inserted; `declare` adds more. Those
                given here are not taken for compatible with one another.
            index, options: as of the class.
        """
        folder = Path(folder).expanduser()
        gallery_database.create(folder, models, index, index_options(index, options))
        return cls(folder)

    @classmethod
    def open(cls, folder: str | Path, index: str | None = None, **options: Any) -> Gallery:
        """Open a gallery; arguments are those of the class."""
        return cls(folder, index, **options)

    def __repr__(self) -> str:
        return f"Gallery({str(self.folder)!r}, {given.in_words(self.counts)}; index {self._kind!r})"

    def search(self, queries: Any, k: int, model: str | None = None, scales: Scales | None = None) -> Hits:
        """The k entries of highest cosine for each query, whoever made them.

        *Two indexes*: with queries of each model, each model's queries search its own features, also those
        that stand beside the entries, and an entry counts by its best score. The models need not be
        compatible. With one model given so, its own features alone answer.

        Args:
            queries: [Nq, width] real numbers, NumPy or torch, any length of row; or model -> the same queries
                by that model, without `model`.
            k: entries wanted, at least 1.
            model: who made the queries.
            scales: model of the entry -> (centre, spread) of `score_scale`; scores are then
                (cosine - centre) / spread, and entries of all models are ranked by that. Needed for several
                models' queries.
        """
        k = given.checked_count("k", k)
        if isinstance(queries, Mapping) == (model is not None):
            raise ValueError("give queries and their model, or a mapping from models to the queries of each")
        asking = queries if isinstance(queries, Mapping) else {model: queries}
        while True:
            change, hits = self._answers(asking, k, model, scales)
            # An index that others change too may have gone on to a later change meanwhile.
            if not self._index.shared:
                return hits
            with self._reading() as database:
                if change == self._now(database).change:
                    return hits

    def _answers(self, asking: Mapping, k: int, model: str | None, scales: Scales | None) -> tuple[int, Hits]:
        """The change that the gallery is at, and the hits."""
        with self._reading() as database:
            state, sides = self._now(database), {}
            for name, rows in asking.items():
                state.code(name := given.nfc(name))
                sides[name] = given.checked_rows(rows, state.models[name].width, f"queries of {name!r}")
            number = len(next(iter(sides.values()), ()))
            if any(len(rows) != number for rows in sides.values()) or not sides:
                raise ValueError("give the same queries by each model, at least by one")
            if model is None:
                parts = self._own(database, state, sides)
            else:
                refuse_strangers(state.models, state.counts, given.nfc(model), queries=True)
                parts = self._mixed(state, given.nfc(model), sides[given.nfc(model)])
            parts = list(parts)
            for part, _ in parts if scales is not None or len(sides) > 1 else ():
                scale = (scales or {}).get(part.model)
                if np.shape(scale) != (2,) or not (np.isfinite(scale).all() and scale[1] > 0):
                    raise ValueError(
                        f"scales need (centre, spread above 0) for {part.model!r}, which has entries; got "
                        f"{scale}"
                    )
            scores, keys = [], []
            for part, asked in parts if number else ():
                size = state.size(part.model, part.table)
                cosines, found = self._index.search(database, state, part, asked, min(k, size))
                if scales is not None:
                    cosines = (cosines - scales[part.model][0]) / scales[part.model][1]
                scores.append(cosines.astype(np.float32))
                keys.append(found)
            # The last columns stand for hits that are not there.
            scores = np.concatenate([*scores, np.full((number, k), -np.inf, np.float32)], axis=1)
            keys = np.concatenate([*keys, np.full((number, k), -1)], axis=1)
            tables = ["entries"]
            if model is None and (state.kept or state.waiting):
                tables.append("beside")
                scores, keys = given.each_once(scores, keys, _owners(database, keys, tables))
            scores, keys = given.best_of(scores, keys, k)
            owners = _owners(database, keys, tables)
            return state.change, given.as_hits(scores, keys, owners, list(state.models))

    def _mixed(self, state: State, model: str, rows: np.ndarray) -> Iterator[Asked]:
        """What one model's queries search, each part with the queries in the form that meets it."""
        for name in (name for name, number in state.counts.items() if number):
            form, adapter = form_of(state.models, model, name), state.models[model].adapter
            if form == "gallery":
                yield Part(name, adapter=adapter), rows
            elif form == "query":
                yield Part(name), mapped(rows, adapter)
            else:
                yield Part(name), fitted(rows, form, state.models[name].width)

    def _own(self, database: sqlite3.Connection, state: State, sides: dict) -> Iterator[Asked]:
        """What each model's queries search among its own features, in the form of `_mixed`."""
        alone = sum(number for name, number in state.counts.items() if name not in sides)
        if alone and any(state.size(name, "beside") for name in sides):
            codes = json.dumps([state.code(name) for name in sides])
            (alone,) = database.execute(ALONE, (codes,)).fetchone()
        if alone:
            raise ValueError(
                f"{alone} entries have no feature of {' or '.join(map(repr, sides))}; give the "
                "queries of the model that made them too, or backfill first"
            )
        for name, rows in sides.items():
            for table in ("entries", "beside"):
                if state.size(name, table):
                    yield Part(name, table), rows


def _owners(database: sqlite3.Connection, keys: np.ndarray, tables: Sequence[str]) -> given.Owners:
    """Of the keys that are there."""
    owners = {}
    for table in tables:
        sql = f"SELECT key, id, model FROM {table} WHERE key IN (SELECT value FROM json_each(?))"
        rows = database.execute(sql, (given.as_json(np.unique(keys)),))
        owners.update((key, (one, code)) for key, one, code in rows)
    return owners
