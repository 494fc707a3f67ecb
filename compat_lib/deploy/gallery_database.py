"""A gallery's SQLite file: its tables, connections to it, and its errors in plain words."""

import contextlib
import errno
import json
import os
import secrets
import shutil
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from compat_lib.deploy.gallery_search import as_json, named
from compat_lib.files import explained

WAIT = 60.0  # seconds that a writer waits for another one
FORMAT = 3
CREATING = ".create"  # whose lock is held while a gallery is made

# A feature that is written again gets a new key, above all others and from the clock, so that an index need
# compare keys only, also where a backup was put in the gallery's place; and by chance somewhat above, since a
# clock may be set back after the last entries were taken out. The column id has no type: text stays text and
# a number a number.
SCHEMA = """
CREATE TABLE about (kind TEXT, options TEXT, change INTEGER);
CREATE TABLE models (number INTEGER PRIMARY KEY, name TEXT UNIQUE, width INTEGER, compatible TEXT, fit TEXT);
CREATE TABLE entries (key INTEGER PRIMARY KEY, id UNIQUE, model INTEGER, feature BLOB, checksum INTEGER);
CREATE INDEX entries_by_model ON entries (model);
CREATE TABLE plans (model INTEGER, place INTEGER, id, PRIMARY KEY (model, place)) WITHOUT ROWID;
"""
# Made when needed, so that galleries of earlier versions go on. Beside an entry stands the feature that it
# had before (waiting 0), or the one that it is to get (1).
LATER = """
CREATE TABLE IF NOT EXISTS adapters (model INTEGER PRIMARY KEY, map BLOB);
CREATE TABLE IF NOT EXISTS beside
(key INTEGER PRIMARY KEY, id, model INTEGER, feature BLOB, checksum INTEGER, waiting INTEGER);
CREATE UNIQUE INDEX IF NOT EXISTS beside_by_id ON beside (id, waiting);
CREATE INDEX IF NOT EXISTS beside_by_side ON beside (waiting, model, id);
"""
IS_THERE = "SELECT 1 FROM sqlite_master WHERE name = 'beside_by_side'"
ASKED = (
    "SELECT {} FROM json_each(?) AS asked LEFT JOIN entries ON entries.id = asked.value ORDER BY asked.key"
)


class DamagedGallery(ValueError):
    """The gallery's file is altered or cut short; the sentence names it."""


def create(folder: Path, models: Mapping[str, int], index: str, options: dict[str, Any]) -> None:
    """Make an empty gallery; see `Gallery.create`."""
    declared = [(number, *named(*one), "[]", None) for number, one in enumerate(models.items())]
    for path in sorted(folder.glob("*")):
        if not path.name.startswith((".", "gallery.db", "milvus.db")):
            raise FileExistsError(f"the folder {folder} holds other files, such as {path.name}; give another")
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        alone = FileLock(folder / CREATING).acquire()
    with alone, connected(folder, "mode=rwc") as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("BEGIN IMMEDIATE")
        if database.execute("SELECT * FROM sqlite_master").fetchone():
            raise FileExistsError(f"there is a gallery in {folder} already; open it with Gallery.open")
        make(database, SCHEMA)
        database.execute("INSERT INTO about VALUES (?, ?, random())", (index, json.dumps(options)))
        database.executemany("INSERT INTO models VALUES (?, ?, ?, ?, ?)", declared)
        database.execute(f"PRAGMA user_version = {FORMAT}")
        database.execute("COMMIT")


def make(database: sqlite3.Connection, tables: str) -> None:
    for statement in tables.split(";"):
        database.execute(statement)


@contextlib.contextmanager
def opened(folder: Path, begin: str) -> Iterator[sqlite3.Connection]:
    """A connection to a gallery, in a transaction that is begun so."""
    # A connection for each call: none is carried over a fork, into another thread or over a moment at
    # which somebody copies the folder or puts a backup in its place.
    if not (folder / "gallery.db").exists():
        raise FileNotFoundError(f"there is no gallery in {folder}; make one with Gallery.create")
    # Where SQLite cannot make the files that it needs beside a database, this one can still be read.
    fixed = _is_full(folder) or not os.access(folder, os.W_OK)
    fixed = fixed and not (folder / "gallery.db-wal").exists()
    with connected(folder, "immutable=1" if fixed else "mode=rw") as database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version == 0:  # cut short, never finished, or another process is making it
            with contextlib.suppress(OSError), FileLock(folder / CREATING):
                pass
            (version,) = database.execute("PRAGMA user_version").fetchone()
        if version == 0:
            raise damaged(folder)
        if version != FORMAT:
            reads = f"this version of compat_lib reads {FORMAT}"
            raise ValueError(f"the gallery in {folder} has the format {version}, and {reads}")
        database.execute(begin)
        yield database
        if begin:
            database.execute("COMMIT")


@contextlib.contextmanager
def connected(folder: Path, how: str) -> Iterator[sqlite3.Connection]:
    """A connection, closed at the end, and SQLite's errors in the words of who runs the gallery."""
    address = f"{(folder / 'gallery.db').absolute().as_uri()}?{how}"
    try:
        with contextlib.closing(sqlite3.connect(address, WAIT, isolation_level=None, uri=True)) as database:
            # what REPLACE deletes is deleted for triggers too
            database.execute("PRAGMA recursive_triggers = ON")
            yield database
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise damaged(folder) from error
        if code == sqlite3.SQLITE_BUSY:
            raise TimeoutError(
                f"another process has been writing to {folder} for {WAIT:g} s; wait until it has ended, or "
                "end it: the lock ends with the process"
            ) from error
        advice = "nothing has changed; make room (fewer entries need less), or move it"
        if (folder / "gallery.db-wal").exists() and not (folder / "gallery.db-shm").exists():
            advice = (
                "its last changes are in gallery.db-wal, and SQLite reads them where it may write: copy the "
                "whole folder to such a disk and open it there"
            )
        with explained(folder, advice):
            if code == sqlite3.SQLITE_FULL or _is_full(folder):
                raise OSError(errno.ENOSPC, str(error)) from error
            ours = os.access(folder, os.W_OK)
            if code == sqlite3.SQLITE_READONLY or (code == sqlite3.SQLITE_CANTOPEN and not ours):
                fixed = os.statvfs(folder).f_flag & os.ST_RDONLY
                raise OSError(errno.EROFS if ours or fixed else errno.EACCES, str(error)) from error
            raise


def _is_full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < 2**16


def damaged(folder: Path) -> DamagedGallery:
    return DamagedGallery(
        f"{folder / 'gallery.db'} is damaged: its content is not what was written; restore it from a backup"
    )


def asked(database: sqlite3.Connection, columns: str, ids: np.ndarray) -> list[tuple]:
    """Columns of the entries with these ids, in their order; "there is no entry with the id 7 ..."."""
    rows = database.execute(ASKED.format(f"entries.key, {columns}"), (as_json(ids),)).fetchall()
    absent = [one for one, row in zip(ids.tolist(), rows, strict=True) if row[0] is None]
    if absent:
        raise KeyError(
            f"there is no entry with the id {absent[0]!r}: {len(absent)} of the {len(ids)} ids are not in "
            "the gallery; Gallery.ids() lists those that are"
        )
    return [row[1:] for row in rows]


def stored(database: sqlite3.Connection, unit: np.ndarray) -> Iterable[tuple[int, bytes, int]]:
    """New keys, bytes and checksums of features."""
    sql = "SELECT COALESCE(MAX(key), 0) FROM (SELECT key FROM entries UNION ALL SELECT key FROM beside)"
    (last,) = database.execute(sql).fetchone()
    features = (row.tobytes() for row in unit.astype("<f4", copy=False))
    first = max(last + 1, time.time_ns()) + secrets.randbelow(2**30)  # a second at most
    return ((key, row, zlib.crc32(row)) for key, row in enumerate(features, first))


def as_table(folder: Path, rows: list[tuple]) -> np.ndarray:
    """Features float32 [n, width] of rows (feature, checksum, ...), which are compared."""
    if any(zlib.crc32(row[0]) != row[1] for row in rows):
        raise damaged(folder)
    return np.frombuffer(b"".join(row[0] for row in rows), "<f4").reshape(len(rows), -1).copy()
