"""A gallery on disk that knows which model made each entry: swap the query model, backfill when it suits.

    gallery = Gallery.create("photos", {"old-2024": 64})
    gallery.insert(ids, old_features, model="old-2024")
    gallery.declare("new-2026", 64, compatible_with="old-2024")
    gallery.search(new_queries, 10, model="new-2026")       # old entries, today
    for step in gallery.backfill("new-2026", embed, order):  # kill it whenever you like
        print(step.share)

SQLite keeps the entries (gallery.db, in WAL mode: many readers, one writer, every change wholly or not at
all); FAISS searches them in memory, with indexes that are made from the database at the first search.
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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    mapped,
    packed,
    refuse_strangers,
    score_scale,
    unit_rows,
)
from compat_lib.files import explained

__all__ = ["Contents", "DamagedGallery", "Gallery", "Hits", "Model", "Progress", "most_found", "score_scale"]

WAIT = 60.0  # seconds that a writer waits for another one
FORMAT = 3

# A feature that is written again gets a new key, above all others and from the clock, so that an index need
# compare keys only, also where a backup was put in the gallery's place.
SCHEMA = """
CREATE TABLE about (kind TEXT, options TEXT, change INTEGER);
CREATE TABLE models (number INTEGER PRIMARY KEY, name TEXT UNIQUE, width INTEGER, compatible TEXT, fit TEXT);
CREATE TABLE entries (key INTEGER PRIMARY KEY, id UNIQUE, model INTEGER, feature BLOB, checksum INTEGER);
CREATE INDEX entries_by_model ON entries (model);
CREATE TABLE plans (model INTEGER, place INTEGER, id, PRIMARY KEY (model, place)) WITHOUT ROWID;
"""
ADAPTERS = "CREATE TABLE IF NOT EXISTS adapters (model INTEGER PRIMARY KEY, map BLOB)"  # made when needed
ASKED = (
    "SELECT {} FROM json_each(?) AS asked LEFT JOIN entries ON entries.id = asked.value ORDER BY asked.key"
)
# The next entries of a backfill: of its plan, or of all in the order in which they were written.
PLANNED = """SELECT place, id, entries.key FROM plans JOIN entries USING (id) WHERE plans.model = :model
AND entries.model <> :model AND place > :place
AND id NOT IN (SELECT value FROM json_each(:failed)) ORDER BY place"""
UNPLANNED = """SELECT key, id, key FROM entries WHERE model <> :model AND key > :place
AND id NOT IN (SELECT value FROM json_each(:failed)) ORDER BY key"""


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
    size: int  # bytes on disk
    free: int  # bytes of the file that hold nothing; later entries fill them, or `compact` gives them back

    def __str__(self) -> str:
        return (
            f"{_in_words(self.entries)}, sound; {self.size / 1e6:.1f} MB, of which {self.free / 1e6:.1f} free"
        )


class _State(NamedTuple):
    """What was declared and how many entries there are after one change."""

    change: int  # a random number
    models: dict[str, Model]
    counts: dict[str, int]

    def code(self, name: str) -> int:
        """The model's number in the database; "the model 'new' is not declared ..."."""
        if name not in self.models:
            raise ValueError(
                f"the model {name!r} is not declared, and features say nothing about who made them; declared "
                f"are {', '.join(map(repr, self.models))}. Give the right name, or declare the model"
            )
        return list(self.models).index(name)


class Gallery:
    """Features on disk with the model that made each, and searches that refuse what cannot be compared.

    Every change is there wholly or not at all, whenever the process is killed. Writers take turns, so that
    images can be inserted while a backfill runs; each search sees the last change that any process has
    finished. One object may be used by several threads, pickled (by its folder) and used after a fork.

    A full or read-only disk refuses every change, also removals, and can be searched; room must be made
    elsewhere on the disk.

    Similarity is the cosine. Scores of new queries with new and with old entries lie on different scales:
    give each model its own threshold, or bring them onto one scale with `score_scale`.

    Args:
        folder: of a gallery that `create` made.
        index: another index than the gallery's own, for this object only: "flat" (exact), "ivf" or "hnsw",
            see `ModelIndex`. It is built at the first search: of 200,000 x 64 numbers, a flat one in 2 s, a
            graph in 20 to 30 s of one core.
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
        self._indexes: dict[Any, ModelIndex] = {}  # by model, or by model and what maps its entries
        self._followed: int | None = None  # the change that the indexes are at

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
            ValueError: an unknown index or option, or a width that is no whole number.
        """
        folder = Path(folder).expanduser()
        options = index_options(index, options)
        declared = [(number, *_model(*one), "[]", None) for number, one in enumerate(models.items())]
        for path in sorted(folder.glob("*")):
            if not path.name.startswith((".", "gallery.db")):
                raise FileExistsError(
                    f"the folder {folder} holds other files, such as {path.name}; give another"
                )
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with _connected(folder, "mode=rwc") as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("BEGIN IMMEDIATE")
            if database.execute("SELECT * FROM sqlite_master").fetchone():
                raise FileExistsError(f"there is a gallery in {folder} already; open it with Gallery.open")
            for statement in SCHEMA.split(";"):
                database.execute(statement)
            database.execute("INSERT INTO about VALUES (?, ?, random())", (index, json.dumps(options)))
            database.executemany("INSERT INTO models VALUES (?, ?, ?, ?, ?)", declared)
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
            sql = "SELECT id FROM entries WHERE ?1 IS NULL OR model = ?1 ORDER BY id"
            return _id_array([row[0] for row in database.execute(sql, (code,))])

    def models_of(self, ids: Any) -> np.ndarray:
        """Who made the features of these entries, text [n]; KeyError for an id that is not there."""
        with self._reading() as database:
            owners = [row[0] for row in _asked(database, "model", as_ids(ids, repeats=True))]
            return np.array(list(self._now(database).models), object)[owners]

    def features(self, ids: Any) -> np.ndarray:
        """The stored features of entries of one model, float32 [n, width] of unit length, in this order."""
        with self._reading() as database:
            rows = _asked(database, "model, feature, checksum", as_ids(ids, repeats=True))
        if len({row[0] for row in rows}) != 1:
            raise ValueError("give ids of entries that one model has made, such as ids(model)")
        return self._table([row[1:] for row in rows])

    # -- changes -----------------------------------------------------------------------------------

    def declare(
        self,
        model: str,
        width: int,
        compatible_with: str | Sequence[str] = (),
        fit: str | None = None,
        adapter: Any = None,
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
            adapter: for one other model, a fitted `compat_lib.adapters.LinearMap`, or the file that
                ``compat-lib check --save-adapter`` wrote: by its side this model's queries are mapped, or the
                other model's entries, whose stored features stay as they are (the index holds both).

        Raises:
            ValueError: an unknown model, unequal widths without `fit`, another width than before, an adapter
                of other widths.
        """
        model, width = _model(model, width)
        others = [compatible_with] if isinstance(compatible_with, str) else compatible_with
        others = [_nfc(other) for other in others]
        if fit not in (None, "cut", "pad"):
            raise ValueError(f"fit is {fit!r}; give 'cut', 'pad' or nothing")
        if isinstance(adapter, str | Path):
            from compat_lib.adapters import load_adapter  # here, because torch takes seconds to load

            adapter = load_adapter(adapter)
        if adapter is not None and (fit or len(others) != 1 or adapter.side not in ("query", "gallery")):
            raise ValueError(
                "an adapter is for one other model, without fit, and its side says whether it maps the "
                "'query' or the 'gallery'; declare each such model by itself"
            )
        with self._changing() as database:
            models = self._now(database).models
            if model in models and models[model].width != width:
                raise ValueError(
                    f"{model!r} is declared with {models[model].width} numbers a feature, and now {width} "
                    "were given; another model needs another name"
                )
            for other in others:
                if other not in models or other == model:
                    raise ValueError(
                        f"{model!r} is to be compatible with {other!r}, which is not declared as another "
                        f"model; declared are {', '.join(map(repr, models))}"
                    )
                theirs = models[other].width
                ends = (width, theirs) if adapter is None or adapter.side == "query" else (theirs, width)
                if adapter is not None and tuple(adapter.matrix.shape) != ends:
                    raise ValueError(
                        f"the adapter maps {adapter.matrix.shape[0]} numbers to {adapter.matrix.shape[1]}, "
                        f"and on the {adapter.side} {ends[0]} become {ends[1]} here; take the one that was "
                        "fitted to these two models"
                    )
                if (
                    adapter is None
                    and theirs != width
                    and not (fit == "pad" or (fit == "cut" and width > theirs))
                ):
                    raise ValueError(
                        f"{model!r} has {width} numbers a feature and {other!r} {theirs}; say which one the "
                        "new model was trained for: fit='cut' compares a wider query by its first "
                        "coordinates, fit='pad' fills the narrower side with zeros"
                    )
            number = list(models).index(model) if model in models else len(models)
            row = (number, model, width, json.dumps(others), fit if adapter is None else adapter.side)
            database.execute("REPLACE INTO models VALUES (?, ?, ?, ?, ?)", row)
            if adapter is not None:
                database.execute(ADAPTERS)
                database.execute("REPLACE INTO adapters VALUES (?, ?)", (number, packed(adapter)))

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
        with self._changing() as database:
            state = self._now(database)
            code = state.code(model)
            array = as_rows(features, state.models[model].width, f"features of {model!r}")
            refuse_strangers(state.models, state.counts, model, queries=False)
            if len(ids) != len(array):
                raise ValueError(
                    f"there are {len(ids)} ids for {len(array)} features of {model!r}; give one each"
                )
            one = database.execute("SELECT id FROM entries LIMIT 1").fetchone()
            if one and len(ids) and isinstance(one[0], str) != isinstance(ids[0], str):
                raise ValueError(
                    f"the gallery's ids are such as {one[0]!r}, and now {ids[0]!r} was given; text and whole "
                    "numbers need a gallery each"
                )
            sql = "SELECT id FROM entries WHERE id IN (SELECT value FROM json_each(?))"
            here = database.execute(sql, (_json(ids),)).fetchall()
            if here and not replace:
                raise ValueError(
                    f"{len(here)} of the {len(ids)} ids are in the gallery already, such as {here[0][0]!r}; "
                    "give replace=True if their images have changed, or use backfill for a new model"
                )
            for start in range(0, len(ids), BLOCK):
                part = slice(start, start + BLOCK)
                who = f"features of {model!r} from id {ids[start]!r} on"
                rows = zip(
                    ids[part].tolist(), _stored(database, checked_rows(array[part], None, who)), strict=True
                )
                sql = f"REPLACE INTO entries VALUES (?2, ?1, {code}, ?3, ?4)"
                database.executemany(sql, ((one, *stored) for one, stored in rows))

    def remove(self, ids: Any) -> None:
        """Take entries out, all of them or none; KeyError for an unknown id."""
        ids = as_ids(ids)
        with self._changing() as database:
            _asked(database, "model", ids)
            database.execute(
                "DELETE FROM entries WHERE id IN (SELECT value FROM json_each(?))", (_json(ids),)
            )

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
                kept, or all entries of other models, as they were written.
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
        with self._reading() if ids is None else self._changing() as database:
            state = self._now(database)
            code = state.code(model)
            refuse_strangers(state.models, state.counts, model, queries=False)
            if ids is not None:
                _asked(database, "model", ids)
                database.execute("DELETE FROM plans WHERE model = ?", (code,))
                sql = "INSERT INTO plans SELECT ?, key, value FROM json_each(?)"
                database.execute(sql, (code, _json(ids)))
        return iter(()) if ids is not None and not len(ids) else self._batches(model, code, embed, batch)

    def _batches(self, model: str, code: int, embed: Callable, batch: int) -> Iterator[Progress]:
        began, done, failed, place = time.monotonic(), 0, [], -1
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
            with self._reading() as database:
                plan = database.execute("SELECT 1 FROM plans WHERE model = ?", (code,)).fetchone()
                sql = PLANNED if plan else UNPLANNED
                asked = {"model": code, "place": place, "failed": "[]"}
                (left,) = database.execute(f"SELECT COUNT(*) FROM ({sql})", asked).fetchone()
            while True:
                asked = {"model": code, "place": place, "failed": json.dumps(failed)}
                with self._reading() as database:
                    rows = database.execute(f"{sql} LIMIT {batch}", asked).fetchall()
                if not rows:
                    if place < 0:
                        break
                    place = -1  # once more from the start, for what others wrote again meanwhile
                    continue
                place, left = rows[-1][0], max(0, left - batch)
                number, broken = self._replace(model, rows, embed)
                done, failed = done + number, failed + broken
                counts = self.counts
                share = counts[model] / max(1, sum(counts.values()))
                yield Progress(done, left, share, time.monotonic() - began, tuple(failed))
            if plan:
                with self._changing() as database:
                    database.execute("DELETE FROM plans WHERE model = ?", (code,))
        finally:
            lock.release()

    def _replace(self, model: str, rows: list[tuple], embed: Callable) -> tuple[int, list]:
        """Write new features of the entries that are still what they were: how many, and which failed."""
        ids, keys = _id_array([row[1] for row in rows]), [row[2] for row in rows]
        given, width, who = embed(ids), self.models[model].width, f"features of {model!r}"
        if isinstance(given, list | tuple):
            given = [np.full(width, np.nan) if row is None else np.asarray(row) for row in given]
        unit = unit_rows(as_rows(given, width, who))
        if len(ids) != len(unit):
            raise ValueError(
                f"there are {len(ids)} ids for {len(unit)} {who}; give one each, None or a row of NaN for "
                "an image that cannot be read"
            )
        usable = ~np.isnan(unit).any(axis=1)
        with self._changing() as database:
            state = self._now(database)
            refuse_strangers(state.models, state.counts, model, queries=False)
            sql = "UPDATE entries SET key = ?2, model = ?5, feature = ?3, checksum = ?4 WHERE key = ?1"
            code = state.code(model)
            were = zip(np.array(keys)[usable].tolist(), _stored(database, unit[usable]), strict=True)
            done = database.executemany(sql, ((key, *stored, code) for key, stored in were)).rowcount
        return max(0, done), ids[~usable].tolist()

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
            state.code(model)
            rows = checked_rows(queries, state.models[model].width, f"queries of {model!r}")
            refuse_strangers(state.models, state.counts, model, queries=True)
            names = [name for name, number in state.counts.items() if number]
            for name in names if scales is not None else ():
                if name not in scales or not scales[name][1] > 0:
                    raise ValueError(f"scales need (centre, spread above 0) for {name!r}, which has entries")
            self._follow(database, state)
            # The last columns stand for hits that are not there.
            scores = [np.full((len(rows), k), -np.inf, np.float32)]
            keys = [np.full((len(rows), k), -1)]
            for name in reversed(names) if len(rows) else ():
                form, adapter = form_of(state.models, model, name), state.models[model].adapter
                index = self._indexes[(name, adapter) if form == "gallery" else name]
                if form == "query":
                    asked = mapped(rows, adapter)
                else:
                    asked = rows if form == "gallery" else fitted(rows, form, state.models[name].width)
                cosines, found = index.search(asked, min(k, len(index.keys)))
                if scales is not None:
                    cosines = (cosines - scales[name][0]) / scales[name][1]
                scores.insert(0, cosines.astype(np.float32))
                keys.insert(0, found)
            scores, keys = np.concatenate(scores, axis=1), np.concatenate(keys, axis=1)
            best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            scores, keys = (np.take_along_axis(part, best, axis=1) for part in (scores, keys))
            once, back = np.unique(keys, return_inverse=True)
            sql = "SELECT key, id, model FROM entries WHERE key IN (SELECT value FROM json_each(?))"
            owner = {key: (one, code) for key, one, code in database.execute(sql, (_json(once),))}
        text = any(isinstance(one, str) for one, _ in owner.values())
        found = [owner.get(key, ("" if text else -1, -1)) for key in once.tolist()]
        ids = np.array([one for one, _ in found], object if text else np.int64)
        makers = np.array([*state.models, ""], object)[[code for _, code in found]]
        return Hits(ids[back].reshape(keys.shape), scores, makers[back].reshape(keys.shape))

    def verify(self) -> Contents:
        """Read everything and compare it with its checksums; what the gallery holds, or DamagedGallery."""
        with self._reading() as database:
            sound = database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            stored = database.execute("SELECT feature, checksum FROM entries")
            if not sound or any(zlib.crc32(feature) != checksum for feature, checksum in stored):
                raise _damaged(self.folder)
            sql = "SELECT freelist_count * page_size FROM pragma_freelist_count, pragma_page_size"
            (free,) = database.execute(sql).fetchone()
            return Contents(self._now(database).counts, self._size(), free)

    def compact(self) -> int:
        """Give the room of replaced and removed entries back to the disk, which needs room for a copy of the
        file while it works; bytes saved."""
        before = self._size()
        with self._open("") as database:
            database.execute("VACUUM")
        return before - self._size()

    def _size(self) -> int:
        return sum(path.stat().st_size for path in self.folder.glob("gallery.db*"))

    def _follow(self, database: sqlite3.Connection, state: _State) -> None:
        """Bring the indexes to a state of the gallery."""
        if self._followed == state.change:
            return
        if self._followed is None:  # an index that was left half way is wrong
            self._indexes = {}
        self._followed = None
        wanted = [(name, name, None, model.width) for name, model in state.models.items()]
        for model in state.models.values():
            if model.fit == "gallery":
                (other,), adapter = model.compatible_with, model.adapter
                wanted.append(((other, adapter), other, adapter, model.width))
        before, self._indexes = self._indexes, {}
        for key, name, adapter, width in wanted:
            index = before.get(key) or ModelIndex(self._kind, self._options, width)
            sql = "SELECT key FROM entries WHERE model = ? ORDER BY key"
            keys = np.fromiter((row[0] for row in database.execute(sql, (state.code(name),))), np.int64)
            index.follow(keys, functools.partial(self._features, database, adapter=adapter))
            self._indexes[key] = index
        self._followed = state.change

    def _features(
        self, database: sqlite3.Connection, keys: np.ndarray, adapter: bytes | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Parts (keys, features float32 [n, width]) that together are those of these rising keys, mapped."""
        sql = (
            "SELECT feature, checksum FROM entries WHERE key IN (SELECT value FROM json_each(?)) ORDER BY key"
        )
        for start in range(0, len(keys), BLOCK):
            part = keys[start : start + BLOCK]
            features = self._table(database.execute(sql, (_json(part),)).fetchall())
            yield part, features if adapter is None else mapped(features, adapter)

    def _table(self, rows: list[tuple[bytes, int]]) -> np.ndarray:
        if any(zlib.crc32(feature) != checksum for feature, checksum in rows):
            raise _damaged(self.folder)
        return np.frombuffer(b"".join(feature for feature, _ in rows), "<f4").reshape(len(rows), -1).copy()

    # -- the database ------------------------------------------------------------------------------

    def _now(self, database: sqlite3.Connection) -> _State:
        (change,), state = database.execute("SELECT change FROM about").fetchone(), self._state
        if state is None or state.change != change:
            rows = database.execute("SELECT name, width, compatible, fit FROM models ORDER BY number")
            maps, there = {}, "SELECT 1 FROM sqlite_master WHERE name = 'adapters'"
            if database.execute(there).fetchone():
                maps = dict(database.execute("SELECT model, map FROM adapters"))
            models = {
                name: Model(
                    width,
                    tuple(json.loads(others)),
                    fit,
                    maps.get(n) if fit in ("query", "gallery") else None,
                )
                for n, (name, width, others, fit) in enumerate(rows)
            }
            numbers = dict(database.execute("SELECT model, COUNT(*) FROM entries GROUP BY model"))
            counts = {name: numbers.get(code, 0) for code, name in enumerate(models)}
            self._state = state = _State(change, models, counts)
        return state

    def _reading(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """One state of the gallery, whatever others write meanwhile."""
        return self._open("BEGIN")

    @contextlib.contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """One change: committed when the block ends, and not there at all when it raises."""
        with self._open("BEGIN IMMEDIATE") as database:
            yield database
            database.execute("UPDATE about SET change = random()")

    @contextlib.contextmanager
    def _open(self, begin: str) -> Iterator[sqlite3.Connection]:
        # A connection for each call: none is carried over a fork, into another thread or over a moment at
        # which somebody copies the folder or puts a backup in its place.
        if not (self.folder / "gallery.db").exists():
            raise FileNotFoundError(f"there is no gallery in {self.folder}; make one with Gallery.create")
        # Where SQLite cannot make the files that it needs beside a database, this one can still be read.
        fixed = _is_full(self.folder) or not os.access(self.folder, os.W_OK)
        fixed = fixed and not (self.folder / "gallery.db-wal").exists()
        with _connected(self.folder, "immutable=1" if fixed else "mode=rw") as database:
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


@contextlib.contextmanager
def _connected(folder: Path, how: str) -> Iterator[sqlite3.Connection]:
    """A connection, closed at the end, and SQLite's errors in the words of who runs the gallery."""
    address = f"{(folder / 'gallery.db').absolute().as_uri()}?{how}"
    try:
        with contextlib.closing(sqlite3.connect(address, WAIT, isolation_level=None, uri=True)) as database:
            yield database
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise _damaged(folder) from error
        if code == sqlite3.SQLITE_BUSY:
            raise TimeoutError(
                f"another process has been writing to {folder} for {WAIT:g} s; wait until it has ended, or "
                "end it: the lock ends with the process"
            ) from error
        with explained(folder, "nothing has changed; make room, or move the gallery"):
            if code == sqlite3.SQLITE_FULL or _is_full(folder):
                raise OSError(errno.ENOSPC, str(error)) from error
            if code == sqlite3.SQLITE_READONLY:
                raise OSError(
                    errno.EROFS if os.access(folder, os.W_OK) else errno.EACCES, str(error)
                ) from error
            raise


def _is_full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < 2**16


def _damaged(folder: Path) -> DamagedGallery:
    return DamagedGallery(
        f"{folder / 'gallery.db'} is damaged: its content is not what was written; restore it from a backup"
    )


def _asked(database: sqlite3.Connection, columns: str, ids: np.ndarray) -> list[tuple]:
    """Columns of the entries with these ids, in their order; "there is no entry with the id 7 ..."."""
    rows = database.execute(ASKED.format(f"entries.key, {columns}"), (_json(ids),)).fetchall()
    absent = [one for one, row in zip(ids.tolist(), rows, strict=True) if row[0] is None]
    if absent:
        raise KeyError(
            f"there is no entry with the id {absent[0]!r}: {len(absent)} of the {len(ids)} ids are not in "
            "the gallery; Gallery.ids() lists those that are"
        )
    return [row[1:] for row in rows]


def _stored(database: sqlite3.Connection, unit: np.ndarray) -> Iterable[tuple[int, bytes, int]]:
    """New keys, bytes and checksums of features."""
    (last,) = database.execute("SELECT COALESCE(MAX(key), 0) FROM entries").fetchone()
    features = (row.tobytes() for row in unit.astype("<f4", copy=False))
    return ((key, row, zlib.crc32(row)) for key, row in enumerate(features, max(last + 1, time.time_ns())))


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


def _json(values: np.ndarray) -> str:
    return json.dumps(values.tolist())


def _nfc(name: Any) -> Any:
    return unicodedata.normalize("NFC", name) if isinstance(name, str) else name


def _model(name: Any, width: Any) -> tuple[str, int]:
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"a model's name is text such as 'old-2024', not {name!r}")
    return _nfc(name), checked_count(f"the width of {name!r}", width)


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
