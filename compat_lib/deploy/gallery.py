"""A gallery on disk that knows which model made each entry: swap the query model, backfill when it suits.

    gallery = Gallery.create("photos", {"old-2024": 64})
    gallery.insert(ids, old_features, model="old-2024")
    gallery.declare("new-2026", 64, compatible_with="old-2024")
    gallery.search(new_queries, 10, model="new-2026")       # old entries, today
    for step in gallery.backfill("new-2026", embed, order):  # kill it whenever you like
        print(step.share)

SQLite keeps what must not be lost (gallery.db, in WAL mode: many readers, one writer, every change wholly or
not at all); FAISS searches it. An index is made from the database and may be deleted at any time.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import functools
import json
import os
import shutil
import sqlite3
import threading
import time
import unicodedata
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from compat_lib.deploy.gallery_search import (
    BLOCK,
    Model,
    ModelIndex,
    as_rows,
    checked_count,
    checked_rows,
    fitted,
    form_of,
    index_options,
    refuse_entries,
    refuse_queries,
    refuse_unusable,
    score_scale,
    unit_rows,
)

__all__ = ["Contents", "DamagedGallery", "Gallery", "Hits", "Model", "Progress", "most_found", "score_scale"]

WAIT = 60.0  # seconds that a writer waits for another one
FORMAT = 2  # 1 was a folder of segments with a gallery.json
ROOM = 2**19  # bytes of the disk that are left for removing entries and for compaction

# Keys are never used twice: a feature that is written again is a new one, so that an index needs to compare
# keys only. `token` tells apart two histories of one gallery, as after a return to a backup.
SCHEMA = """
CREATE TABLE about (kind TEXT, options TEXT);
CREATE TABLE changes (number INTEGER PRIMARY KEY, token INTEGER);
CREATE TABLE models (number INTEGER PRIMARY KEY, name TEXT UNIQUE, width INTEGER, compatible TEXT, fit TEXT);
CREATE TABLE entries (id PRIMARY KEY, model INTEGER, key INTEGER) WITHOUT ROWID;
CREATE INDEX entries_by_model ON entries (model, key);
CREATE TABLE features (key INTEGER PRIMARY KEY AUTOINCREMENT, feature BLOB, checksum INTEGER);
CREATE TABLE plans (model INTEGER, place INTEGER, id, PRIMARY KEY (model, place)) WITHOUT ROWID;
"""


class DamagedGallery(ValueError):
    """The gallery's file is altered or cut short; the sentence names it."""


class Hits(NamedTuple):
    """What a search found, best first; where a query has fewer hits: id -1 or "", score -inf, model ""."""

    ids: np.ndarray  # [Nq, k] int64, or text
    scores: np.ndarray  # float32 [Nq, k]: cosines, or what the scales made of them
    models: np.ndarray  # text [Nq, k]: who made the entry


@dataclass(frozen=True)
class Progress:
    """Where a backfill stands after a batch."""

    done: int  # entries embedded since this call
    left: int  # entries of the order that are still to come
    share: float  # of all the gallery's entries, those of the new model, 0..1
    seconds: float  # since this call
    failed: tuple = ()  # ids that had no usable feature since this call, and are as they were


@dataclass(frozen=True)
class Contents:
    """What a gallery holds, as `Gallery.verify` has read it."""

    entries: dict[str, int]  # model -> entries
    size: int  # bytes on disk, without indexes
    superseded: int  # features on disk that were replaced or removed since; compact deletes them

    def __str__(self) -> str:
        return f"{_in_words(self.entries)}, sound; {self.size / 1e6:.1f} MB, superseded: {self.superseded}"


class _State(NamedTuple):
    """What was declared and how many entries there are after one change."""

    stamp: tuple[int, int]  # number and token of the change
    models: dict[str, Model]
    counts: dict[str, int]

    def code(self, name: str) -> int:
        """The model's number in the database; "the model 'new' is not declared ..."."""
        if name not in self.models:
            raise ValueError(
                f"the model {name!r} is not declared, and features say nothing about who made them; declared "
                f"are {', '.join(map(repr, self.models))}. Give the right name, or declare the model with "
                "its width and the models that it is compatible with"
            )
        return list(self.models).index(name)


class Gallery:
    """Features on disk with the model that made each, and searches that refuse what cannot be compared.

    Every change is there wholly or not at all, whenever the process is killed. Writers take turns, so that
    images can be inserted while a backfill runs; each search sees the last change that any process has
    finished. One object may be used by several threads, pickled (by its folder) and used after a fork.

    Similarity is the cosine. Scores of new queries with new and with old entries lie on different scales:
    give each model its own threshold, or bring them onto one scale with `score_scale`.

    Args:
        folder: of a gallery that `create` made.
        index: another index than the gallery's own, for this object only: "flat" (exact), "ivf" or "hnsw",
            see `ModelIndex`.
        options: of the index: nlist and nprobe; or m, ef_construction and ef_search.

    Raises:
        FileNotFoundError: "there is no gallery in photos ..."
        DamagedGallery: the file is cut short or altered.

    >>> import tempfile
    >>> gallery = Gallery.create(tempfile.mkdtemp() + "/shop", {"old": 2})
    >>> gallery.insert(["a.png", "b.png"], [[1.0, 0.0], [0.0, 1.0]], model="old")
    >>> gallery.declare("new", 2, compatible_with="old")
    >>> gallery.search([[0.6, 0.8]], 2, model="new").ids.tolist()
    [['b.png', 'a.png']]
    """

    def __init__(self, folder: str | Path, index: str | None = None, **options: Any) -> None:
        self.folder = Path(folder).expanduser()
        self._given = index, options
        with self._reading() as database:
            kind, kept = database.execute("SELECT kind, options FROM about").fetchone()
        if index in (None, kind):
            index, options = kind, json.loads(kept) | options
        self._kind, self._options = index, index_options(index, options)
        self._turn = threading.RLock()  # searches of several threads take turns
        self._state: _State | None = None
        self._indexes: dict[str, ModelIndex] = {}
        self._followed: tuple[int, int] | None = None  # the change that the indexes are at

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

        Raises:
            FileExistsError: "the folder photos holds other files ...", "there is a gallery in photos already"
            ValueError: an unknown index or option, no model, or a width that is no whole number.
        """
        folder = Path(folder).expanduser()
        options = index_options(index, options)
        if not isinstance(models, Mapping) or not models:
            raise ValueError(
                f"the models are {models!r}; name at least one and its width, such as {{'old-2024': 64}}"
            )
        declared = [(*_checked_model(*one), "[]", None) for one in models.items()]
        _refuse_former(folder)
        for path in sorted(folder.glob("*")):
            if not path.name.startswith((".", "gallery.db", "index")):
                raise FileExistsError(
                    f"the folder {folder} holds other files, such as {path.name}; a gallery needs one of its "
                    "own"
                )
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "gallery.db"
        with _explained(folder), contextlib.closing(_connection(path, "mode=rwc")) as database:
            database.execute("PRAGMA auto_vacuum = INCREMENTAL")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("BEGIN IMMEDIATE")
            if database.execute("SELECT * FROM sqlite_master").fetchone():
                raise FileExistsError(f"there is a gallery in {folder} already; open it with Gallery.open")
            for statement in SCHEMA.split(";"):
                database.execute(statement)
            database.execute("INSERT INTO about VALUES (?, ?)", (index, json.dumps(options)))
            rows = [(number, *one) for number, one in enumerate(declared)]
            database.executemany("INSERT INTO models VALUES (?, ?, ?, ?, ?)", rows)
            database.execute("INSERT INTO changes (token) VALUES (random())")
            database.execute(f"PRAGMA user_version = {FORMAT}")
            database.execute("COMMIT")
        return cls(folder)

    @classmethod
    def open(cls, folder: str | Path, index: str | None = None, **options: Any) -> Gallery:
        """Open a gallery for reading and writing; arguments and errors are those of the class."""
        return cls(folder, index, **options)

    # -- what is in it -----------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"Gallery({str(self.folder)!r}, {_in_words(self.counts)}; index {self._kind!r})"

    def __len__(self) -> int:
        return sum(self.counts.values())

    @property
    def models(self) -> dict[str, Model]:
        """What was declared, by name."""
        with self._reading() as database:
            return dict(self._now(database).models)

    @property
    def counts(self) -> dict[str, int]:
        """How many entries each declared model has."""
        with self._reading() as database:
            return dict(self._now(database).counts)

    def ids(self, model: str | None = None) -> np.ndarray:
        """The ids of all entries or of one model's, [n] int64 or text, rising."""
        with self._reading() as database:
            code = None if model is None else self._now(database).code(_nfc(model))
            sql = "SELECT id FROM entries WHERE model = ? OR ? ORDER BY id"
            return _id_array([row[0] for row in database.execute(sql, (code, model is None))])

    def models_of(self, ids: Any) -> np.ndarray:
        """Who made the features of these entries, text [n]; KeyError for an id that is not there."""
        with self._reading() as database:
            owners = _found(database, as_ids(ids, repeats=True))[1]
            return np.array(list(self._now(database).models), object)[owners]

    def features(self, ids: Any) -> np.ndarray:
        """The stored features of entries of one model, float32 [n, width] of unit length, in this order."""
        ids = as_ids(ids, repeats=True)
        with self._reading() as database:
            keys, owners = _found(database, ids)
            makers = len(np.unique(owners))
            if makers != 1:
                raise ValueError(
                    f"these {len(ids)} entries were made by {makers} models; ask for those of one, with "
                    "ids(model)"
                )
            keys, back = np.unique(keys, return_inverse=True)
            return np.concatenate([rows for _, rows in self._stored(database, keys)])[back]

    # -- changes -----------------------------------------------------------------------------------

    def declare(
        self, model: str, width: int, compatible_with: str | Sequence[str] = (), fit: str | None = None
    ) -> None:
        """Say that a model exists, and with whose features its own may be compared.

        The gallery believes you: measure first, `evaluation.compare` says whether two models are compatible.
        Declaring a model again replaces what was said about its compatibility.

        Args:
            model, width: its name, with the version, and how many numbers its features have.
            compatible_with: names of declared models; each pair is declared by itself.
            fit: how features of unequal width meet. "cut": queries of the wider model by their first
                coordinates (the narrower model can then not search the wider one's entries); "pad": zeros
                are appended to the narrower side.

        Raises:
            ValueError: an unknown model, unequal widths without `fit`, another width than before.
        """
        model, width = _checked_model(model, width)
        others = [compatible_with] if isinstance(compatible_with, str) else compatible_with
        others = [_nfc(other) for other in others]
        with self._changing() as database:
            models = self._now(database).models
            _refuse_declaration(models, model, width, others, fit)
            number = list(models).index(model) if model in models else len(models)
            row = (number, model, width, json.dumps(others), fit)
            database.execute("REPLACE INTO models VALUES (?, ?, ?, ?, ?)", row)

    def insert(self, ids: Any, features: Any, model: str, replace: bool = False) -> None:
        """Add entries, all of them or none; many at a time, because each call waits for the disk.

        Args:
            ids: [n], each once: whole numbers of at least 0, or text such as paths and UUIDs (kept in the
                Unicode form NFC); one kind for the whole gallery.
            features: [n, width] real numbers, NumPy or torch; stored as float32 with unit length.
            model: who made them.
            replace: whether ids that are in the gallery already get the new features, whoever made the old
                ones; at no moment is such an entry missing.

        Raises:
            ValueError: "the model 'new' is not declared ...", "entries of 'new' cannot stand beside ...",
                ids that are in the gallery already, another width, NaN, rows of zeros.
            OSError: a full disk; nothing has changed.
        """
        ids, model = as_ids(ids), _nfc(model)
        who = f"features of {model!r}"
        with self._reading() as database:
            state = self._now(database)
            array = as_rows(features, list(state.models.values())[state.code(model)].width, who)
        if len(ids) != len(array):
            raise ValueError(f"there are {len(ids)} ids for {len(array)} {who}; give one each")
        with self._changing() as database:
            state = self._now(database)
            refuse_entries(state.models, state.counts, model)
            one = database.execute("SELECT id FROM entries LIMIT 1").fetchone()
            if one and len(ids) and isinstance(one[0], str) != isinstance(ids[0], str):
                raise ValueError(
                    f"the gallery's ids are such as {one[0]!r}, and now {ids[0]!r} was given; text and whole "
                    "numbers need a gallery each"
                )
            here = ids[_find(database, ids)[0] >= 0]
            if len(here) and not replace:
                raise ValueError(
                    f"{len(here)} of the {len(ids)} ids are in the gallery already: {_listed(here)}; give "
                    "replace=True if their images have changed, or bring them to a new model with backfill"
                )
            for start in range(0, len(ids), BLOCK):
                part = slice(start, start + BLOCK)
                rows, usable = unit_rows(array[part])
                refuse_unusable(usable, who, ids[part])
                _write(database, ids[part], rows, state.code(model))

    def remove(self, ids: Any) -> None:
        """Take entries out, all of them or none, KeyError for an unknown id; `compact` frees their room."""
        ids = as_ids(ids)
        with self._changing(room=0) as database:
            _found(database, ids)
            sql = "DELETE FROM entries WHERE id IN (SELECT value FROM json_each(?))"
            database.execute(sql, (json.dumps(ids.tolist()),))

    def backfill(
        self, model: str, embed: Callable[[np.ndarray], Any], order: Any = None, batch: int = 1000
    ) -> Iterator[Progress]:
        """Replace the features of entries by those of a new model, and say after each batch how far it is.

        Nothing is embedded until the result is iterated over. Each batch is one change, and what is done is
        read off the entries: after a kill the same call goes on. Searches, inserts and removals may go on in
        any process; an entry that is written again while it is embedded keeps what was written.

        Args:
            model: the new model, declared.
            embed: ids [n] -> features [n, width] of these entries by the new model, NumPy, torch or a list.
                An image that cannot be read gets None or a row of NaN: its entry stays as it is and is named
                in `Progress.failed`. The next call tries it again, and `order=step.failed` only those.
            order: ids of the entries to embed, the one that pays most first, such as
                ids[backfill_order(...)] of `compat_lib.evaluation`; kept until it is done. None: the order
                kept, or all entries of other models.
            batch: entries in a change.

        Yields:
            Progress after each batch; nothing when all is done.

        Raises:
            ValueError: an undeclared model, one that cannot be compared with the present entries, features
                of another width; KeyError: an id that is not in the gallery.
            RuntimeError: "a backfill of photos is under way ..."

        >>> import tempfile
        >>> gallery = Gallery.create(tempfile.mkdtemp() + "/shop", {"old": 2})
        >>> gallery.insert([1, 2, 3], [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], model="old")
        >>> gallery.declare("new", 2, compatible_with="old")
        >>> for step in gallery.backfill("new", lambda ids: [[1.0, 0.1]] * len(ids), order=[3, 1], batch=1):
        ...     print(step.done, step.left, gallery.counts)
        1 1 {'old': 2, 'new': 1}
        2 0 {'old': 1, 'new': 2}
        """
        batch, model = checked_count("batch", batch), _nfc(model)
        ids = None if order is None else as_ids(order)
        with self._changing() if order is not None else self._reading() as database:
            state = self._now(database)
            code = state.code(model)
            refuse_entries(state.models, state.counts, model)
            if ids is not None:
                _found(database, ids)
                database.execute("DELETE FROM plans WHERE model = ?", (code,))
                rows = ((code, place, one) for place, one in enumerate(ids.tolist()))
                database.executemany("INSERT INTO plans VALUES (?, ?, ?)", rows)
        return iter(()) if ids is not None and not len(ids) else self._batches(model, code, embed, batch)

    def _batches(self, model: str, code: int, embed: Callable, batch: int) -> Iterator[Progress]:
        began, done, failed = time.monotonic(), 0, []
        with self._alone():
            # A second round for entries that others inserted or wrote again during the first.
            while len(waiting := self._waiting(code, failed)):
                for start in range(0, len(waiting), batch):
                    ids = waiting[start : start + batch]
                    with self._reading() as database:
                        keys, owners = _find(database, ids)
                    theirs = (keys >= 0) & (owners != code)
                    if theirs.any():
                        number, broken = self._replace(model, ids[theirs], keys[theirs], embed)
                        done, failed = done + number, failed + broken
                    counts, left = self.counts, max(0, len(waiting) - start - batch)
                    share = counts[model] / max(1, sum(counts.values()))
                    yield Progress(done, left, share, time.monotonic() - began, tuple(failed))
            with self._changing() as database:
                database.execute("DELETE FROM plans WHERE model = ?", (code,))

    def _waiting(self, code: int, failed: list) -> np.ndarray:
        """Ids that are still to be embedded, in their order."""
        sql = "SELECT id FROM entries WHERE model <> ?1 ORDER BY id"
        planned = (
            "SELECT id FROM plans JOIN entries USING (id) "
            "WHERE plans.model = ?1 AND entries.model <> ?1 ORDER BY place"
        )
        with self._reading() as database:
            if database.execute("SELECT 1 FROM plans WHERE model = ?", (code,)).fetchone():
                sql = planned
            gone = set(failed)
            return _id_array([row[0] for row in database.execute(sql, (code,)) if row[0] not in gone])

    def _replace(self, model: str, ids: np.ndarray, keys: np.ndarray, embed: Callable) -> tuple[int, list]:
        """Write new features of the entries that are still what they were: how many, and which failed."""
        given, who = embed(ids), f"features of {model!r}"
        width = self.models[model].width
        if isinstance(given, list | tuple):
            given = [np.full(width, np.nan) if row is None else np.asarray(row) for row in given]
        array = as_rows(given, width, who)
        if len(ids) != len(array):
            raise ValueError(
                f"there are {len(ids)} ids for {len(array)} {who}; give one each, None or a row of NaN for "
                "an image that cannot be read"
            )
        rows, usable = unit_rows(array)
        with self._changing() as database:
            state = self._now(database)
            refuse_entries(state.models, state.counts, model)
            same = usable & (_find(database, ids)[0] == keys)
            _write(database, ids[same], rows[same], state.code(model))
        return int(same.sum()), ids[~usable].tolist()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        # A generator may be begun by one thread and ended by another.
        lock = FileLock(self.folder / ".backfill", timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            raise RuntimeError(
                f"a backfill of {self.folder} is under way, in another process or in a loop of this one that "
                "was left; wait for it, or end it (such a loop by close() of what it iterates over)"
            ) from None
        try:
            yield
        finally:
            lock.release()

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
        k, model = checked_count("k", k), _nfc(model)
        with self._turn, self._reading() as database:
            state = self._now(database)
            code = state.code(model)
            rows = checked_rows(queries, list(state.models.values())[code].width, f"queries of {model!r}")
            refuse_queries(state.models, state.counts, model)
            names = [name for name, number in state.counts.items() if number]
            if scales is not None:
                _check_scales(scales, names)
            self._follow(database, state)
            ids, scores, owners = [], [], []
            for name in names if len(rows) else ():
                index = self._indexes[name]
                asked = fitted(rows, form_of(state.models, model, name), state.models[name].width)
                cosines, keys = index.search(asked, min(k, len(index.keys)))
                if scales is not None:
                    cosines = (cosines - scales[name][0]) / scales[name][1]
                scores.append(cosines.astype(np.float32))
                ids.append(_ids_at(database, state.code(name), keys))
                owners.append(np.full(keys.shape, state.code(name)))
        # Columns of nothing stand in for the hits that are not there.
        kind = ids[0].dtype if ids else np.dtype(np.int64)
        empty = (len(rows), k)
        ids, scores, owners = (
            np.concatenate([*parts, filling], axis=1)
            for parts, filling in (
                (ids, np.full(empty, "" if kind.hasobject else -1, kind)),
                (scores, np.full(empty, -np.inf, np.float32)),
                (owners, np.full(empty, len(state.models))),
            )
        )
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        ids, scores, owners = (np.take_along_axis(part, best, axis=1) for part in (ids, scores, owners))
        return Hits(ids, scores, np.array([*state.models, ""], object)[owners])

    def save_index(self) -> None:
        """Keep the built indexes on disk, so that the next process need not build them again.

        A flat index is its features and is not kept. A kept index may be older than the gallery: the
        difference is made up when it is read.
        """
        with self._turn, self._reading() as database:
            state = self._now(database)
            self._follow(database, state)
            for name, index in self._indexes.items():
                if index.form != "flat":
                    index.save(self._index_path(state.code(name)), list(state.stamp))

    def verify(self) -> Contents:
        """Read everything and compare it with its checksums; what the gallery holds, or DamagedGallery."""
        with self._reading() as database:
            state = self._now(database)
            if database.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                raise _damaged(self.folder)
            for name in state.models:
                for _ in self._stored(database, _keys(database, state.code(name))):
                    pass
            (stored,) = database.execute("SELECT COUNT(*) FROM features").fetchone()
        return Contents(state.counts, self._size(), stored - sum(state.counts.values()))

    def compact(self) -> int:
        """Delete replaced and removed features, and give their room back to the disk; bytes saved.

        They stay in the file until then: compact at the end of a backfill. Where the disk has no room for a
        copy of the file, only whole pages are freed, in small steps, so that a full disk is no obstacle.
        """
        before = self._size()
        with self._reading() as database:
            used = np.fromiter((row[0] for row in database.execute("SELECT key FROM entries")), np.int64)
            held = np.fromiter((row[0] for row in database.execute("SELECT key FROM features")), np.int64)
        superseded = np.setdiff1d(held, used, assume_unique=True)  # and so it stays: no key comes back
        width = max(model.width for model in self.models.values())
        while len(superseded):
            part, superseded = np.split(superseded, [self._step(4 * width)])
            sql = "DELETE FROM features WHERE key IN (SELECT value FROM json_each(?))"
            with self._open("BEGIN IMMEDIATE") as database:
                database.execute(sql, (json.dumps(part.tolist()),))
        # Where temporary files have no room, or others are at work, pages are freed below.
        with self._open("") as database, contextlib.suppress(sqlite3.OperationalError):
            if shutil.disk_usage(self.folder).free > 3 * self._size():  # a copy, and the log of it
                database.execute("VACUUM")
        while self._free_pages():
            with self._open("") as database:
                database.execute(f"PRAGMA incremental_vacuum({self._step(4096)})").fetchall()
        return before - self._size()

    def _free_pages(self) -> int:
        with self._reading() as database:
            return database.execute("PRAGMA freelist_count").fetchone()[0]

    def _step(self, size: int) -> int:
        """How many things of a size to write at a time, so that they fit in what the disk has left."""
        return int(np.clip(shutil.disk_usage(self.folder).free // 8 // size, 8, 5000))

    def _follow(self, database: sqlite3.Connection, state: _State) -> None:
        """Bring the indexes to a state of the gallery."""
        if self._followed == state.stamp:
            return

        def known(stamp: Sequence[int]) -> bool:
            sql = "SELECT 1 FROM changes WHERE number = ? AND token = ?"
            return database.execute(sql, tuple(stamp)).fetchone() is not None

        if self._followed is None or not known(self._followed):  # as after a return to a backup
            self._indexes = {}
        self._followed = None  # an index that is left half way is wrong from then on
        for code, (name, model) in enumerate(state.models.items()):
            if name not in self._indexes:
                self._indexes[name] = ModelIndex(self._kind, self._options, model.width)
                self._indexes[name].load(self._index_path(code), known)
            keys = _keys(database, code)
            self._indexes[name].follow(keys, lambda wanted: self._stored(database, wanted))
        self._followed = state.stamp

    def _stored(
        self, database: sqlite3.Connection, keys: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Parts (keys, features float32 [n, width]) that together are the features of these rising keys."""
        sql = "SELECT feature, checksum FROM features WHERE key IN (SELECT value FROM json_each(?)) "
        for start in range(0, len(keys), BLOCK):
            part = keys[start : start + BLOCK]
            rows = database.execute(sql + "ORDER BY key", (json.dumps(part.tolist()),)).fetchall()
            if len(rows) < len(part) or any(zlib.crc32(row) != checksum for row, checksum in rows):
                raise _damaged(self.folder)
            yield part, np.frombuffer(b"".join(row for row, _ in rows), "<f4").reshape(len(part), -1)

    def _index_path(self, code: int) -> Path:
        return self.folder / "index" / f"{code:04}-{self._kind}.npz"

    def _size(self) -> int:
        return sum(path.stat().st_size for path in self.folder.glob("gallery.db*"))

    # -- the database ------------------------------------------------------------------------------

    def _now(self, database: sqlite3.Connection) -> _State:
        sql = "SELECT number, token FROM changes ORDER BY number DESC LIMIT 1"
        stamp, state = database.execute(sql).fetchone(), self._state
        if state is None or state.stamp != stamp:
            rows = database.execute("SELECT name, width, compatible, fit FROM models ORDER BY number")
            models = {name: Model(width, tuple(json.loads(others)), fit) for name, width, others, fit in rows}
            numbers = dict(database.execute("SELECT model, COUNT(*) FROM entries GROUP BY model"))
            counts = {name: numbers.get(code, 0) for code, name in enumerate(models)}
            self._state = state = _State(stamp, models, counts)
        return state

    def _reading(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """One state of the gallery, whatever others write meanwhile."""
        return self._open("BEGIN")

    @contextlib.contextmanager
    def _changing(self, room: int = ROOM) -> Iterator[sqlite3.Connection]:
        """One change: committed when the block ends, and not there at all when it raises."""
        with self._open("BEGIN IMMEDIATE") as database:
            yield database
            database.execute("INSERT INTO changes (token) VALUES (random())")
            # SQLite writes a change to its log first, and the file must then have room to grow.
            sql = "SELECT page_size * page_count FROM pragma_page_size, pragma_page_count"
            (size,) = database.execute(sql).fetchone()
            grown = max(0, size - (self.folder / "gallery.db").stat().st_size)
            if room and shutil.disk_usage(self.folder).free < grown + min(grown, 2**21) + room:
                raise _full(self.folder)

    @contextlib.contextmanager
    def _open(self, begin: str) -> Iterator[sqlite3.Connection]:
        # A connection for each call: none is carried over a fork, into another thread or over a moment at
        # which somebody copies the folder or puts a backup in its place.
        path = self.folder / "gallery.db"
        if not path.exists():
            _refuse_former(self.folder)
            raise FileNotFoundError(
                f"there is no gallery in {self.folder}: it holds no gallery.db; make one with Gallery.create"
            )
        # Where SQLite cannot make the files that it needs beside a database, this one can still be read.
        fixed = _is_full(self.folder) or not os.access(self.folder, os.W_OK)
        fixed = fixed and not path.with_name("gallery.db-wal").exists()
        with (
            _explained(self.folder),
            contextlib.closing(_connection(path, "immutable=1" if fixed else "mode=rw")) as database,
        ):
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version == 0:  # cut short, or never finished
                raise _damaged(self.folder)
            if version != FORMAT:
                raise ValueError(
                    f"the gallery in {self.folder} has the format {version}, and this version of compat_lib "
                    f"reads {FORMAT}"
                )
            database.execute(begin)
            yield database
            if begin:
                database.execute("COMMIT")


def _connection(path: Path, how: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?{how}", WAIT, isolation_level=None, uri=True)


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """SQLite's errors in the words of who runs the gallery."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        hidden = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
        if code == sqlite3.SQLITE_FULL or (code in hidden and _is_full(folder)):
            raise _full(folder) from error
        if code == sqlite3.SQLITE_BUSY:
            raise TimeoutError(
                f"another process has been writing to {folder} for {WAIT:g} s; wait until it has ended, or "
                "end it: the lock ends with the process"
            ) from error
        if code in hidden[1:]:
            raise PermissionError(
                errno.EACCES, f"{folder} can be searched, but not written to ({error})"
            ) from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise _damaged(folder) from error
        raise


def _is_full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < 2**16


def _full(folder: Path) -> OSError:
    return OSError(
        errno.ENOSPC,
        f"too little space is left on the disk for {folder}; nothing has changed: make room, or remove "
        "entries (some at a time) and compact, and call again",
    )


def _damaged(folder: Path) -> DamagedGallery:
    return DamagedGallery(
        f"{folder / 'gallery.db'} is damaged: its content is not what was written; restore it from a backup"
    )


def _refuse_former(folder: Path) -> None:
    if (folder / "gallery.json").exists():
        raise ValueError(
            f"the gallery in {folder} has the format 1 (gallery.json and segments), which this version of "
            "compat_lib does not read; make a new one in another folder and insert the features again"
        )


# -- rows of the database ------------------------------------------------------------------------


def _find(database: sqlite3.Connection, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Key and model's number of each id, int64 [n]; -1 where there is no such entry."""
    keys, owners = np.full(len(ids), -1), np.full(len(ids), -1)
    sql = "SELECT asked.key, entries.key, model FROM json_each(?) AS asked JOIN entries ON entries.id = value"
    for place, key, owner in database.execute(sql, (json.dumps(ids.tolist()),)):
        keys[place], owners[place] = key, owner
    return keys, owners


def _found(database: sqlite3.Connection, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `_find`, and every id must be there; "there is no entry with the id 7 ..."."""
    keys, owners = _find(database, ids)
    if (keys < 0).any():
        absent = ids[keys < 0]
        raise KeyError(
            f"there is no entry with the id {_listed(absent)}: {len(absent)} of the {len(ids)} ids are "
            "not in the gallery; Gallery.ids() lists those that are"
        )
    return keys, owners


def _keys(database: sqlite3.Connection, code: int) -> np.ndarray:
    """Keys of one model's entries, int64 [n], rising."""
    sql = "SELECT key FROM entries WHERE model = ? ORDER BY key"
    return np.fromiter((row[0] for row in database.execute(sql, (code,))), np.int64)


def _ids_at(database: sqlite3.Connection, code: int, keys: np.ndarray) -> np.ndarray:
    """The ids of entries of one model by their keys, of any shape."""
    once, back = np.unique(keys, return_inverse=True)
    sql = "SELECT id FROM entries WHERE model = ? AND key IN (SELECT value FROM json_each(?)) ORDER BY key"
    rows = database.execute(sql, (code, json.dumps(once.tolist()))).fetchall()
    return _id_array([row[0] for row in rows])[back].reshape(keys.shape)


def _write(database: sqlite3.Connection, ids: np.ndarray, rows: np.ndarray, code: int) -> None:
    """Make these the features of these entries."""
    sql = "SELECT COALESCE(MAX(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'features'"
    (first,) = database.execute(sql).fetchone()
    features = (row.tobytes() for row in rows.astype("<f4", copy=False))
    database.executemany(
        "INSERT INTO features VALUES (?, ?, ?)",
        ((key, feature, zlib.crc32(feature)) for key, feature in enumerate(features, first)),
    )
    database.executemany(
        "REPLACE INTO entries VALUES (?, ?, ?)",
        ((one, code, key) for key, one in enumerate(ids.tolist(), first)),
    )


# -- what is given -------------------------------------------------------------------------------


def as_ids(values: Any, repeats: bool = False) -> np.ndarray:
    """Ids [n]: int64, or text in NFC, in which two spellings of one name are equal.

    Raises:
        ValueError: "the id 0.5 is neither text nor ...", "the id 7 was given 2 times ..."

    >>> as_ids([3, 1]), as_ids(["a.png"])
    (array([3, 1]), array(['a.png'], dtype=object))
    """
    values = values.tolist() if hasattr(values, "tolist") else list(values)
    if all(isinstance(one, str | PurePath | uuid.UUID) for one in values):
        values = [_nfc(str(one)) for one in values]
    kind = str if values and isinstance(values[0], str) else int
    for one in values:
        if kind is str:
            good = isinstance(one, str) and one and one == one.encode("utf-8", "ignore").decode()
        else:
            good = isinstance(one, int | np.integer) and not isinstance(one, bool) and 0 <= one < 2**63
        if not good:
            raise ValueError(
                f"the id {one!r} is neither text nor a whole number of at least 0 and below 2**63; give a "
                "list of one kind, one id for each entry"
            )
    if not repeats and len(set(values)) < len(values):
        one, times = collections.Counter(values).most_common(1)[0]
        raise ValueError(f"the id {one!r} was given {times} times; give each id once")
    return _id_array(values)


def _id_array(values: list) -> np.ndarray:
    return np.array(values, object if values and isinstance(values[0], str) else np.int64)


def _nfc(name: Any) -> Any:
    return unicodedata.normalize("NFC", name) if isinstance(name, str) else name


def _checked_model(name: Any, width: Any) -> tuple[str, int]:
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"a model's name is text such as 'old-2024', not {name!r}")
    return _nfc(name), checked_count(f"the width of {name!r}", width)


def _refuse_declaration(
    models: Mapping[str, Model], name: str, width: int, others: list[str], fit: str | None
) -> None:
    if fit not in (None, "cut", "pad"):
        raise ValueError(f"fit is {fit!r}; give 'cut', 'pad' or nothing")
    if name in models and models[name].width != width:
        raise ValueError(
            f"{name!r} is declared with {models[name].width} numbers a feature, and now {width} were given; "
            "another model needs another name"
        )
    for other in others:
        if other not in models or other == name:
            raise ValueError(
                f"{name!r} is to be compatible with {other!r}, which is not declared as another model; "
                f"declared are {_listed(list(models))}"
            )
        theirs = models[other].width
        if theirs != width and not (fit == "pad" or (fit == "cut" and width > theirs)):
            raise ValueError(
                f"{name!r} has {width} numbers a feature and {other!r} {theirs}. With fit='cut' a wider "
                "query is compared by its first coordinates, with fit='pad' the narrower side is filled with "
                "zeros: say which one the new model was trained for"
            )


def _check_scales(scales: Mapping[str, Any], names: list[str]) -> None:
    for name in names:
        if name not in scales:
            raise ValueError(f"scales lack {name!r}; give (centre, spread) for each model with entries")
        centre, spread = scales[name]
        if not (np.isfinite(centre) and np.isfinite(spread) and spread > 0):
            raise ValueError(f"the scale of {name!r} is {scales[name]}; give two numbers, the second above 0")


def _listed(values: Sequence[Any], most: int = 5) -> str:
    return ", ".join(str(value) for value in values[:most]) + (", ..." if len(values) > most else "")


def _in_words(entries: Mapping[str, int]) -> str:
    made = ", ".join(f"{number} {name}" for name, number in entries.items())
    return f"{sum(entries.values())} entries ({made})"


def most_found(found: Any, ids: Any) -> np.ndarray:
    """The ids in the order of how often they were found, most first; ties in the order given.

    Counts of one week serve the next only as far as users ask for the same things.

    Args:
        found: ids of earlier hits of any shape, such as `Hits.ids`; those not asked for are left out.
        ids: [n], what to order.

    >>> most_found([[7, 5], [7, -1]], [5, 6, 7]).tolist()
    [7, 5, 6]
    """
    times = collections.Counter(np.asarray(found).ravel().tolist())
    return _id_array(sorted(as_ids(ids).tolist(), key=lambda one: -times[one]))
