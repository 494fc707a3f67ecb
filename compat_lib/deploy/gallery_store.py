"""What a gallery keeps: entries and who made each, in SQLite; every change wholly or not at all."""

import contextlib
import json
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from compat_lib.deploy import gallery_search as given
from compat_lib.deploy.gallery_database import IS_THERE, LATER, as_table, asked, damaged, make, opened, stored
from compat_lib.deploy.gallery_models import Model, checked_meeting, packed, refuse_strangers
from compat_lib.deploy.gallery_search import Contents
from compat_lib.names import one_each

COUNTS = """SELECT name, COUNT(key) FROM models LEFT JOIN entries ON model = number
GROUP BY number ORDER BY number"""
FORGET = "DELETE FROM beside WHERE id IN (SELECT value FROM json_each(?))"


class State(NamedTuple):
    """What was declared and how many entries there are after one change."""

    change: int  # a random number
    models: dict[str, Model]
    counts: dict[str, int]
    kept: dict[str, int]
    waiting: dict[str, int]

    def code(self, name: str) -> int:
        """The model's number in the database; "the model 'new' is not declared ..."."""
        if name not in self.models:
            raise ValueError(
                f"the model {name!r} is not declared, and features say nothing about who made them; declared "
                f"are {', '.join(map(repr, self.models))}. Give the right name, or declare the model"
            )
        return list(self.models).index(name)

    def size(self, model: str, table: str) -> int:
        """How many features of the model are in the table, "entries" or "beside"."""
        if table == "entries":
            return self.counts[model]
        return self.kept.get(model, 0) + self.waiting.get(model, 0)


class Store:
    """The part of a `Gallery` that reads and changes entries."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser().absolute()  # also after an os.chdir
        self._state: State | None = None

    # -- what is in it -----------------------------------------------------------------------------

    def __len__(self) -> int:
        return sum(self.counts.values())

    @property
    def models(self) -> dict[str, Model]:
        """What was declared, by name."""
        return dict(self._read().models)

    @property
    def counts(self) -> dict[str, int]:
        """How many entries each declared model has."""
        return dict(self._read().counts)

    @property
    def kept(self) -> dict[str, int]:
        """How many features of which models a backfill has replaced and `rollback` would bring back."""
        return dict(self._read().kept)

    @property
    def waiting(self) -> dict[str, int]:
        """How many features of which model stand beside the entries and wait for `swap`."""
        return dict(self._read().waiting)

    def _read(self) -> State:
        with self._reading() as database:
            return self._now(database)

    def ids(self, model: str | None = None) -> np.ndarray:
        """The ids of all entries or of one model's, [n] int64 or text, rising."""
        with self._reading() as database:
            code = None if model is None else self._now(database).code(given.nfc(model))
            sql = "SELECT id FROM entries WHERE ?1 IS NULL OR model = ?1 ORDER BY id"
            return given.id_array([row[0] for row in database.execute(sql, (code,))])

    def models_of(self, ids: Any) -> np.ndarray:
        """Who made the features of these entries, text [n]; KeyError for an id that is not there."""
        with self._reading() as database:
            owners = [row[0] for row in asked(database, "model", given.as_ids(ids, repeats=True))]
            return np.array(list(self._now(database).models), object)[owners]

    def features(self, ids: Any) -> np.ndarray:
        """The stored features of entries of one model, float32 [n, width] of unit length, in this order."""
        with self._reading() as database:
            rows = asked(database, "model, feature, checksum", given.as_ids(ids, repeats=True))
        if len({row[0] for row in rows}) != 1:
            raise ValueError("give ids of entries that one model has made, such as ids(model)")
        return as_table(self.folder, [row[1:] for row in rows])

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
        """
        model, width = given.named(model, width)
        others = [compatible_with] if isinstance(compatible_with, str) else compatible_with
        others = [given.nfc(other) for other in others]
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
            checked_meeting(models, model, width, others, fit, adapter)
            number = list(models).index(model) if model in models else len(models)
            row = (number, model, width, json.dumps(others), fit if adapter is None else adapter.side)
            database.execute("REPLACE INTO models VALUES (?, ?, ?, ?, ?)", row)
            if adapter is not None:
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
        """
        ids, model = given.as_ids(ids), given.nfc(model)
        with self._changing() as database:
            state = self._now(database)
            code = state.code(model)
            array = given.as_rows(features, state.models[model].width, f"features of {model!r}")
            refuse_strangers(state.models, state.counts, model, queries=False)
            one_each(ids, "ids", len(array), f"features of {model!r}")
            one = database.execute("SELECT id FROM entries LIMIT 1").fetchone()
            if one and len(ids) and isinstance(one[0], str) != isinstance(ids[0], str):
                raise ValueError(
                    f"the gallery's ids are such as {one[0]!r}, and now {ids[0]!r} was given; text and whole "
                    "numbers need a gallery each"
                )
            sql = "SELECT id FROM entries WHERE id IN (SELECT value FROM json_each(?))"
            here = database.execute(sql, (given.as_json(ids),)).fetchall()
            if here and not replace:
                raise ValueError(
                    f"{len(here)} of the {len(ids)} ids are in the gallery already, such as {here[0][0]!r}; "
                    "give replace=True if their images have changed, or use backfill for a new model"
                )
            for start in range(0, len(ids), given.BLOCK):
                part = slice(start, start + given.BLOCK)
                some = ids[part].tolist()
                who = f"features of {model!r} from id {some[0]!r} on"
                rows = stored(database, given.checked_rows(array[part], None, who))
                sql = f"REPLACE INTO entries VALUES (?2, ?1, {code}, ?3, ?4)"
                rows = ((one, *row) for one, row in zip(some, rows, strict=True))
                database.executemany(sql, rows)
            database.execute(FORGET, (given.as_json(ids),))  # of another image

    def remove(self, ids: Any) -> None:
        """Take entries out, all of them or none; KeyError for an unknown id."""
        ids = given.as_ids(ids)
        with self._changing() as database:
            asked(database, "model", ids)
            for sql in (FORGET, FORGET.replace("beside", "entries")):
                database.execute(sql, (given.as_json(ids),))

    # -- upkeep ------------------------------------------------------------------------------------

    def verify(self) -> Contents:
        """Read everything and compare it with its checksums; what the gallery holds, or DamagedGallery."""
        with self._reading() as database:
            sound = database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            state = self._now(database)
            sql = "SELECT feature, checksum FROM entries"
            sql += " UNION ALL SELECT feature, checksum FROM beside" if state.kept or state.waiting else ""
            features = database.execute(sql)
            if not sound or any(zlib.crc32(feature) != checksum for feature, checksum in features):
                raise damaged(self.folder)
            sql = "SELECT freelist_count * page_size FROM pragma_freelist_count, pragma_page_size"
            (free,) = database.execute(sql).fetchone()
            return Contents(state.counts, self._size(), free)

    def compact(self) -> int:
        """Give the room of replaced and removed entries back to the disk, which needs room for a copy of the
        file while it works; bytes saved."""
        before = self._size()
        with opened(self.folder, "") as database:
            database.execute("VACUUM")
        return before - self._size()

    def _size(self) -> int:
        return sum(path.stat().st_size for path in self.folder.glob("gallery.db*"))

    # -- the database ------------------------------------------------------------------------------

    def _now(self, database: sqlite3.Connection) -> State:
        (change,), state = database.execute("SELECT change FROM about").fetchone(), self._state
        if state is None or state.change != change:
            maps, beside = {}, []
            if database.execute(IS_THERE).fetchone():
                sql = "SELECT model, map FROM adapters JOIN models ON number = model"
                maps = dict(database.execute(f"{sql} WHERE fit IN ('query', 'gallery')"))
                sql = "SELECT waiting, model, COUNT(*) AS n FROM beside GROUP BY waiting, model"
                sql = f"SELECT waiting, name, n FROM ({sql}) JOIN models ON number = model ORDER BY number"
                beside = database.execute(sql).fetchall()
            rows = database.execute("SELECT number, name, width, compatible, fit FROM models ORDER BY number")
            models = {
                name: Model(width, tuple(json.loads(others)), fit, maps.get(number))
                for number, name, width, others, fit in rows
            }
            counts = dict(database.execute(COUNTS))
            kept, waiting = ({name: n for side, name, n in beside if side == waits} for waits in (0, 1))
            self._state = state = State(change, models, counts, kept, waiting)
        return state

    def _reading(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """One state of the gallery, whatever others write meanwhile."""
        return opened(self.folder, "BEGIN")

    @contextlib.contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """One change: committed when the block ends, and not there at all when it raises."""
        with opened(self.folder, "BEGIN IMMEDIATE") as database:
            if not database.execute(IS_THERE).fetchone():
                make(database, LATER)
            yield database
            database.execute("UPDATE about SET change = random()")
