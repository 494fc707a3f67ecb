"""A gallery's upgrade: backfill, what stands beside the entries meanwhile, and the way back."""

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from compat_lib.deploy import gallery_search as given
from compat_lib.deploy.gallery_database import asked, stored
from compat_lib.deploy.gallery_models import Model, refuse_strangers
from compat_lib.deploy.gallery_store import COUNTS, State, Store

# The next entries of a backfill: of its plan, or of all in the order in which they were written.
TO_COME = """entries.model <> :model
AND NOT EXISTS (SELECT 1 FROM beside WHERE beside.id = entries.id AND waiting = 1 AND beside.model = :model)
AND id NOT IN (SELECT value FROM json_each(:failed))"""
PLANNED = f"""SELECT place, id, entries.key FROM plans JOIN entries USING (id) WHERE plans.model = :model
AND place > :place AND {TO_COME} ORDER BY place"""
UNPLANNED = f"SELECT key, id, key FROM entries WHERE key > :place AND {TO_COME} ORDER BY key"
# What an entry had before, if it is to be put beside it, and what it gets from there.
KEEP = """REPLACE INTO beside SELECT key, id, model, feature, checksum, 0 FROM entries
WHERE id IN (SELECT id FROM beside WHERE waiting = 1)"""
TAKE = """UPDATE entries SET key = beside.key, model = beside.model, feature = beside.feature,
checksum = beside.checksum FROM beside WHERE beside.id = entries.id AND beside.waiting = ?"""
LACKING = "SELECT COUNT(*) FROM entries WHERE id NOT IN (SELECT id FROM beside WHERE waiting = 1)"


@dataclass(frozen=True)
class Progress:
    """Where a backfill stands after a batch."""

    done: int  # entries embedded since this call
    left: int  # entries of the order that are still to come
    share: float  # of all the gallery's entries, those of the new model, 0..1
    seconds: float  # since this call
    failed: tuple = ()  # ids that had no usable feature since this call, and are as they were


class Upgrades(Store):
    """The part of a `Gallery` that replaces the features of one model by those of another."""

    def backfill(
        self,
        model: str,
        embed: Callable[[np.ndarray], Any],
        order: Any = None,
        batch: int = 1000,
        beside: bool = False,
    ) -> Iterator[Progress]:
        """Replace the features of entries by those of a new model, and say after each batch how far it is.

        What an entry had before is kept until `confirm`, and `rollback` brings it back.

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
            beside: whether the entries stay as they are and the new features wait beside them, a second
                index, until `swap`. The two models need not be compatible.

        A RuntimeError says that another backfill is under way, or that features of an earlier one stand
        beside the entries. Nothing is yielded when all is done.

        >>> import tempfile
        >>> from compat_lib.deploy.gallery import Gallery
        >>> gallery = Gallery.create(tempfile.mkdtemp() + "/shop", {"old": 2})
        >>> gallery.insert([1, 2, 3], [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], model="old")
        >>> gallery.declare("new", 2, compatible_with="old")
        >>> for step in gallery.backfill("new", lambda ids: [[1.0, 0.1]] * len(ids), order=[3, 1], batch=1):
        ...     print(step.done, step.left, gallery.counts)
        1 1 {'old': 2, 'new': 1}
        2 0 {'old': 1, 'new': 2}
        """
        batch, model = given.checked_count("batch", batch), given.nfc(model)
        ids = None if order is None else given.as_ids(order)
        with self._changing() as database:
            state = self._now(database)
            code = state.code(model)
            self._may_go_on(state, model, beside)
            if ids is None:  # an order that is done, of a loop that was left at its last step, is none
                to_come = {"model": code, "place": -1, "failed": "[]"}
                done = f"DELETE FROM plans WHERE model = :model AND NOT EXISTS ({PLANNED})"
                database.execute(done, to_come)
            else:
                asked(database, "model", ids)
                database.execute("DELETE FROM plans WHERE model = ?", (code,))
                sql = "INSERT INTO plans SELECT ?, key, value FROM json_each(?)"
                database.execute(sql, (code, given.as_json(ids)))
        nothing = ids is not None and not len(ids)
        return iter(()) if nothing else self._batches(model, code, embed, batch, beside)

    def _may_go_on(self, state: State, model: str, beside: bool) -> None:
        """Refuse a backfill beside which no model could search, or one that meets another's features."""
        others = state.kept or [name for name in state.waiting if name != model] if beside else state.waiting
        if others:
            raise RuntimeError(
                f"features of {', '.join(map(repr, others))} stand beside the entries of {self.folder}, from "
                "a backfill before: swap, confirm or roll back first"
            )
        if not beside:
            refuse_strangers(state.models, state.counts, model, queries=False)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """No other backfill, swap, confirmation or rollback meanwhile."""
        # A generator may be begun by one thread and ended by another.
        try:
            alone = FileLock(self.folder / ".backfill", timeout=0, thread_local=False).acquire()
        except Timeout:
            raise RuntimeError(
                f"a backfill of {self.folder} is under way, in another process or in a loop of this one that "
                "was left; wait for it, or end it (such a loop by close() of what it iterates over)"
            ) from None
        with alone:
            yield

    def _batches(
        self, model: str, code: int, embed: Callable, batch: int, beside: bool
    ) -> Iterator[Progress]:
        began, done, failed, place = time.monotonic(), 0, [], -1
        with self._alone():
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
                number, broken = self._replace(model, rows, embed, beside)
                done, failed = done + number, failed + broken
                with self._reading() as database:
                    state = self._now(database)
                have = state.counts[model] + (state.waiting.get(model, 0) if beside else 0)
                share = have / max(1, sum(state.counts.values()))
                yield Progress(done, left, share, time.monotonic() - began, tuple(failed))
            if plan:
                with self._changing() as database:
                    database.execute("DELETE FROM plans WHERE model = ?", (code,))

    def _replace(self, model: str, rows: list[tuple], embed: Callable, beside: bool) -> tuple[int, list]:
        """Write new features of the entries that are still what they were: how many, and which failed."""
        ids, keys = given.id_array([row[1] for row in rows]), [row[2] for row in rows]
        made, width, who = embed(ids), self.models[model].width, f"features of {model!r}"
        if isinstance(made, list | tuple):
            made = [np.full(width, np.nan) if row is None else given.as_array(row) for row in made]
        unit = given.unit_rows(given.as_rows(made, width, who))
        if len(ids) != len(unit):
            raise ValueError(
                f"there are {len(ids)} ids for {len(unit)} {who}; give one each, None or a row of NaN for "
                "an image that cannot be read"
            )
        usable = ~np.isnan(unit).any(axis=1)
        with self._changing() as database:
            state = self._now(database)
            self._may_go_on(state, model, beside)
            # Beside the entries that are still what they were, by key; then perhaps in their place.
            sql = f"""REPLACE INTO beside SELECT ?2, id, {state.code(model)}, ?3, ?4, 1 FROM entries
                WHERE key = ?1"""
            were = zip(np.array(keys)[usable].tolist(), stored(database, unit[usable]), strict=True)
            done = database.executemany(sql, ((key, *new) for key, new in were)).rowcount
            if not beside:
                _exchange(database)
        return max(0, done), ids[~usable].tolist()

    # -- and then ----------------------------------------------------------------------------------

    def swap(self) -> None:
        """Let the features that wait beside the entries take their place; what they replace is kept.

        One change, whatever the number of entries. Entries without a waiting feature stay as they are, if
        they can be compared with the new ones; else a ValueError.
        """
        with self._alone(), self._changing() as database:
            models = self._now(database).models
            (lacking,) = database.execute(LACKING).fetchone()
            _exchange(database)
            try:
                _searchable(database, models)
            except ValueError as error:
                raise ValueError(
                    f"{lacking} entries have no feature that waits for the swap: embed them by the same "
                    f"backfill, or remove them; {error}"
                ) from error

    def rollback(self) -> None:
        """Bring back the features that entries had before the backfill, and forget those that wait.

        One change. Images inserted by the new model since then have no older feature and stay as they are,
        see `ids(model)`, and so do those whose features were inserted again since the backfill; a ValueError
        where they cannot be compared with what comes back.
        """
        with self._alone(), self._changing() as database:
            models = self._now(database).models
            database.execute(TAKE, (0,))
            for table in ("beside", "plans"):
                database.execute(f"DELETE FROM {table}")
            _searchable(database, models)

    def confirm(self) -> None:
        """Forget the features that `rollback` would bring back; `compact` gives their room to the disk."""
        with self._alone(), self._changing() as database:
            database.execute("DELETE FROM beside WHERE waiting = 0")


def _exchange(database: sqlite3.Connection) -> None:
    """What waits takes the place of what is there, which is kept."""
    database.execute(KEEP)
    database.execute(TAKE, (1,))
    database.execute("DELETE FROM beside WHERE waiting = 1")


def _searchable(database: sqlite3.Connection, models: Mapping[str, Model]) -> None:
    """Refuse a change after which some entries could not stand beside others."""
    counts = dict(database.execute(COUNTS))
    for name in (name for name, number in counts.items() if number):
        refuse_strangers(models, counts, name, queries=False)
