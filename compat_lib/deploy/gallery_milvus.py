"""A gallery's features in Milvus: one server or a cluster searches them, for as many processes as there are.

The database stays what the gallery is. Its triggers note each feature that comes or goes, in the same change;
`InMilvus.follow` brings Milvus up to these notes and writes down there how far it is. A kill leaves both, and
the next change or search goes on. Where Milvus is somewhere that the notes do not know (a new server, a
backup in the gallery's place), its collections are made again.
"""

import contextlib
import hashlib
import json
import os
import sqlite3
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from filelock import FileLock

from compat_lib.deploy.gallery_database import LATER, WAIT, make, opened
from compat_lib.deploy.gallery_index import Part, features_of, keys_of
from compat_lib.deploy.gallery_search import BLOCK
from compat_lib.deploy.gallery_store import State, Store

# A token tells notes apart also where a backup was put in the gallery's place and numbers came again; `name`
# tells apart the galleries of one server.
NOTES = """
CREATE TABLE notes
(number INTEGER PRIMARY KEY, token INTEGER DEFAULT (random()), place TEXT, model INTEGER, key INTEGER);
INSERT INTO notes (place) VALUES ('none');
CREATE TABLE milvus (name INTEGER);
INSERT INTO milvus VALUES (random())
"""
TRIGGER = """CREATE TRIGGER {table}_{row}_{event} AFTER {event} ON {table}
BEGIN INSERT INTO notes (place, model, key) VALUES ('{table}', {row}.model, {row}.key); END"""
EVENTS = (("INSERT", "new"), ("DELETE", "old"), ("UPDATE", "old"), ("UPDATE", "new"))
NOTED = "SELECT key FROM notes WHERE number > ? AND place = ? AND model = ?"
MOST_HITS = 16_384  # that Milvus gives
MESSAGE = 2**22  # bytes of features in a message


class InMilvus:
    """One Milvus collection for each `Part`, with the fields key, id (as text), model and vector.

    Other programs may search the collections and must not write to them. Each change is brought to those of
    entries, and to others (mapped entries, features beside them) from the first search of these on.

    Args:
        store: whose features.
        uri: "http://host:19530" of a server or cluster, where the environment variable MILVUS_TOKEN holds
            ``user:password`` if need be; None: Milvus Lite in the gallery's folder, for one process at once.
        index_type: in Milvus's words, "FLAT" (exact) or "AUTOINDEX".
    """

    shared = True  # others may change the collections while they are searched

    def __init__(self, store: Store, uri: str | None, index_type: str) -> None:
        self.store, self.index_type = store, index_type
        self.local = uri is None
        self.uri = str(store.folder / "milvus.db") if uri is None else uri
        self._opened: tuple[int, Any] = (0, None)  # process and client
        # What Milvus is at: the gallery's change, the collections, the last note.
        self._at: tuple[int | None, dict[Part, str], int] = (None, {}, 0)

    def changed(self) -> None:
        """Bring Milvus to a change that was made; a warning where it cannot be reached."""
        try:
            *_, number = self.follow()
            with opened(self.store.folder, "BEGIN IMMEDIATE") as database:
                database.execute("DELETE FROM notes WHERE number < ?", (number,))
        except OSError as error:
            warnings.warn(f"the change is in the gallery, and Milvus follows later: {error}", stacklevel=5)

    def search(
        self, database: sqlite3.Connection, state: State, part: Part, queries: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """As of `InMemory`; where the gallery has gone on from this state, hits that mean nothing."""
        if k > MOST_HITS:
            raise ValueError(f"Milvus gives at most {MOST_HITS:,} hits, not {k:,}; give a smaller k")
        scores, keys = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1)
        step = max(1, MESSAGE // (16 * max(k, queries.shape[1])))
        for again in (True, False):
            change, names, _ = self._at
            if change != state.change or part not in names:
                change, names, _ = self.follow(part)
            if change != state.change:
                break
            try:
                for start in range(0, len(queries), step):
                    asked, options = queries[start : start + step], {"limit": k, "output_fields": ["key"]}
                    with self._milvus() as milvus:
                        answers = milvus.search(names[part], data=asked, timeout=WAIT, **options)
                    for row, hits in enumerate(answers, start):
                        scores[row, : len(hits)], keys[row, : len(hits)] = hits.distances, hits.ids
                break
            except ConnectionError:  # another process may be making the collection again
                self._at = (None, {}, 0)
                if not again:
                    raise
        return scores, keys

    def follow(self, asked: Part | None = None) -> tuple[int, dict[Part, str], int]:
        """Bring the collections, also that of the part asked for, to what the gallery is now."""
        with FileLock(self.store.folder / ".milvus"), self._milvus() as milvus:
            with self.store._reading() as database:
                known = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'milvus'").fetchone()
            if not known:
                with opened(self.store.folder, "BEGIN IMMEDIATE") as database:
                    make(database, LATER + NOTES)
                    for table in ("entries", "beside"):
                        for event, row in EVENTS:
                            database.execute(TRIGGER.format(table=table, event=event, row=row))
            with self.store._reading() as database:
                state = self.store._now(database)
                last = database.execute("SELECT number, token FROM notes ORDER BY number DESC").fetchone()
                parts = self._brought(milvus, database, state, last, asked)
                if self._at[0] is None:  # what Milvus has lost since is seen here
                    counted = {"filter": "", "output_fields": ["count(*)"], "timeout": WAIT}
                    for name, part in parts.items():
                        if milvus.query(name, **counted)[0]["count(*)"] != state.size(*part[:2]):
                            milvus.drop_collection(name)
                    parts = self._brought(milvus, database, state, last, asked)
            self._at = at = state.change, {part: name for name, part in parts.items()}, last[0]
        return at

    def _brought(
        self,
        milvus: Any,
        database: sqlite3.Connection,
        state: State,
        last: tuple[int, int],
        asked: Part | None,
    ) -> dict[str, Part]:
        """Name -> part of the collections, which hold now what this state of the gallery holds."""
        prefix = self._prefix(database)
        here = {name for name in milvus.list_collections() if self.local or name.startswith(prefix)}
        for name in here:  # a server that was started again may have them on disk only
            milvus.load_collection(name, timeout=WAIT)
        note = {"token": None}
        if prefix + "note" in here:
            found = milvus.get(prefix + "note", ids=[0], output_fields=["id"], timeout=WAIT)
            note = json.loads(found[0]["id"]) if found else note
        sql = "SELECT number FROM notes WHERE token = ?"
        since = database.execute(sql, (note["token"],)).fetchone()
        whole = set(note["whole"]) & here if since and note["index_type"] == self.index_type else set()
        widths = _parts(state)
        parts = {_name(prefix, part, state): part for part in widths}
        lasting = {name for name, part in parts.items() if part in (asked, Part(part.model))}
        parts = {name: part for name, part in parts.items() if name in lasting | whole}
        for name in here - (whole & set(parts)) - {prefix + "note"}:
            milvus.drop_collection(name)
        gone = {}
        for name, part in parts.items():
            if name in whole:
                noted = (*since, part.table, state.code(part.model))
                touched = np.array(database.execute(NOTED, noted).fetchall(), np.int64).ravel()
                there = keys_of(database, state, part, NOTED, noted)
                gone[name] = np.setdiff1d(touched, there)
            else:
                self._make(milvus, name, widths[part])
                there = keys_of(database, state, part)
            for keys, features, ids in features_of(self.store, database, part, there):
                _put(milvus, name, part.model, keys, ids, features)
        for name, keys in gone.items():  # after all that comes, so that no entry is missing meanwhile
            for start in range(0, len(keys), BLOCK):
                milvus.delete(name, ids=keys[start : start + BLOCK].tolist(), timeout=WAIT)
        if since != last[:1] or whole != set(parts):
            if prefix + "note" not in here:
                self._make(milvus, prefix + "note", 2)
            note = {"token": last[1], "whole": list(parts), "index_type": self.index_type}
            _put(milvus, prefix + "note", "", [0], [json.dumps(note)], np.ones((1, 2), np.float32))
        return parts

    def _make(self, milvus: Any, name: str, width: int) -> None:
        from pymilvus import DataType

        schema = milvus.create_schema(auto_id=False)
        schema.add_field("key", DataType.INT64, is_primary=True)
        for field in ("id", "model"):
            schema.add_field(field, DataType.VARCHAR, max_length=65_535)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=width)
        index = milvus.prepare_index_params()
        index.add_index("vector", index_type=self.index_type, metric_type="IP")
        milvus.create_collection(name, schema=schema, consistency_level="Strong", timeout=WAIT)
        milvus.create_index(name, index, sync=False, timeout=WAIT)  # it is empty: nothing to wait for
        milvus.load_collection(name, timeout=WAIT)

    def _prefix(self, database: sqlite3.Connection) -> str:
        """What the names of this gallery's collections begin with; a copy of the folder has its own."""
        names = database.execute("SELECT name FROM milvus").fetchone()
        whose = f"{names} {self.store.folder.resolve()}"
        return f"gallery_{hashlib.sha256(whose.encode()).hexdigest()[:12]}_"

    @contextlib.contextmanager
    def _milvus(self) -> Iterator[Any]:
        """The client of this process, and Milvus's errors in the words of who runs the gallery."""
        from grpc import RpcError
        from pymilvus import MilvusClient, MilvusException

        try:
            if self._opened[0] != os.getpid():
                # Asking more often whether it is there is what Milvus Lite refuses; and a server that was
                # started again is found in a second.
                options = {"grpc.keepalive_time_ms": 300_000, "grpc.max_reconnect_backoff_ms": 1000}
                token = os.environ.get("MILVUS_TOKEN", "")
                self._opened = os.getpid(), MilvusClient(self.uri, token=token, grpc_options=options)
            yield self._opened[1]
        except (MilvusException, RpcError) as error:
            client, self._opened = self._opened[1], (0, None)
            if client is not None:
                client.close()  # it would not connect again by itself
            advice = "look whether it runs, and at this address"
            if self.local:
                advice = (
                    "only one process at a time has it; for more: milvus-lite server --host 127.0.0.1 --port "
                    f"19530 --data-dir {self.uri}, and open the gallery with uri='http://localhost:19530'"
                )
            raise ConnectionError(
                f"Milvus at {self.uri} does not answer ({getattr(error, 'message', error)}); {advice}"
            ) from error


def _parts(state: State) -> dict[Part, int]:
    """All that could be searched -> its width."""
    own = [Part(name, table) for name in state.models for table in ("entries", "beside")]
    parts = {part: state.models[part.model].width for part in own}
    for model in state.models.values():
        if model.fit == "gallery":
            parts[Part(model.compatible_with[0], adapter=model.adapter)] = model.width
    return {part: width for part, width in parts.items() if state.size(*part[:2])}


def _name(prefix: str, part: Part, state: State) -> str:
    mapped = f"_{hashlib.sha256(part.adapter).hexdigest()[:12]}" if part.adapter else ""
    return f"{prefix}{state.code(part.model)}_{part.table}{mapped}"


def _put(milvus: Any, name: str, model: str, keys: Any, ids: list, features: np.ndarray) -> None:
    step = max(1, MESSAGE // (4 * features.shape[1]))
    rows = [
        {"key": int(key), "id": str(one)[:16_000], "model": model, "vector": feature}
        for key, one, feature in zip(keys, ids, features, strict=True)
    ]
    for start in range(0, len(rows), step):
        milvus.upsert(name, rows[start : start + step], timeout=WAIT)
