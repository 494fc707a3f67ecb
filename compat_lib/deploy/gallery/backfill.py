"""Embedding the entries of a gallery again by a new model, batch by batch, so that it can be broken off."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from compat_lib.deploy.gallery.checks import as_array, checked_count, checked_ids, checked_rows
from compat_lib.deploy.gallery.comparing import refuse_entries
from compat_lib.deploy.gallery.entries import places
from compat_lib.deploy.gallery.files import read_ids
from compat_lib.deploy.gallery.store import State, Store


@dataclass(frozen=True)
class Progress:
    """Where a backfill stands after a batch."""

    done: int  # entries embedded since this call
    left: int  # entries of the order that are still to come
    share: float  # of all the gallery's entries, those of the new model, 0..1
    seconds: float  # since this call


def backfill(
    store: Store, model: str, embed: Callable[[np.ndarray], Any], order: Any = None, batch: int = 1000
) -> Iterator[Progress]:
    """Replace the features of entries by those of a new model, and say after each batch how far it is.

    Nothing happens until the result is iterated over. Each batch is one change: a process that is killed
    loses at most the batch that it was embedding. What is done is read off the entries themselves, so the
    same call goes on where the last one ended. Searches, inserts and removals may go on in this or any other
    process; an entry that is written again while it is embedded keeps what was written.

    Args:
        store: of the gallery (`Gallery.backfill` fills it in).
        model: the new model, declared.
        embed: ids int64 [n] -> features [n, width] of these entries by the new model, NumPy or torch.
        order: ids of the entries to embed, the one that pays most first, such as
            ids[backfill_order(...)] of `compat_lib.evaluation`. The gallery keeps it until it is done, so
            that the call that goes on need not give it again. None: the order kept, or all entries of other
            models.
        batch: entries in a change.

    Yields:
        Progress after each batch; nothing when all is done.

    Raises:
        ValueError: an undeclared model, one that cannot be compared with the present entries, features of
            another width, NaN; KeyError: an id that is not in the gallery.
        RuntimeError: "a backfill of photos is under way ..."

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
    batch = checked_count("batch", batch)
    ids = None if order is None else checked_ids(order)
    with store.change() as state:
        state.manifest.model(model)
        refuse_entries(state.manifest.models, state.counts, model)
        if ids is not None:
            state.find(ids)
            if not len(ids):
                return iter(())
            segments, manifest = store.write(state.manifest, ids)
            store.commit(manifest, plans=manifest.plans | {model: segments[0]})
    return _batches(store, model, embed, batch)


def _batches(store: Store, model: str, embed: Callable[[np.ndarray], Any], batch: int) -> Iterator[Progress]:
    began, done = time.monotonic(), 0
    with _alone(store):
        # A second round for entries that others inserted, wrote again or compacted during the first.
        while len(waiting := store.again(lambda state: _waiting(store, state, model))):
            for start in range(0, len(waiting), batch):
                state, ids = store.now(), waiting[start : start + batch]
                ids = ids[_of_others(state, ids, model)]
                if len(ids):
                    done += _replace(store, model, state, ids, embed(ids))
                state, left = store.now(), max(0, len(waiting) - start - batch)
                share = state.counts[model] / max(1, len(state.entries))
                yield Progress(done, left, share, time.monotonic() - began)
        with store.change() as state:
            plans = {name: plan for name, plan in state.manifest.plans.items() if name != model}
            if plans != state.manifest.plans:
                store.commit(state.manifest, plans=plans)


def _replace(store: Store, model: str, before: State, ids: np.ndarray, features: Any) -> int:
    """Commit new features of those entries that are still what they were before; how many."""
    rows = checked_rows(features, before.manifest.model(model).width, f"features of {model!r}", ids)
    with store.change() as state:
        refuse_entries(state.manifest.models, state.counts, model)
        keys = before.entries.keys[before.entries.find(ids)]
        place = state.entries.find(ids)
        same = (place >= 0) & (np.append(state.entries.keys, -1)[place] == keys)
        store.append(state.manifest, ids[same], rows[same], model)
    return int(same.sum())


def _waiting(store: Store, state: State, model: str) -> np.ndarray:
    """Ids that are still to be embedded, in their order."""
    plan = state.manifest.plans.get(model)
    ids = state.entries.ids if plan is None else read_ids(store.folder, plan)
    return ids[_of_others(state, ids, model)]


def _of_others(state: State, ids: np.ndarray, model: str) -> np.ndarray:
    """Which of the ids are entries of another model, bool [n]."""
    place = state.entries.find(ids)
    return (place >= 0) & (np.append(state.entries.owners, -1)[place] != state.manifest.code(model))


@contextmanager
def _alone(store: Store) -> Iterator[None]:
    # A generator may be begun by one thread and ended by another.
    lock = FileLock(store.folder / ".backfill", timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise RuntimeError(
            f"a backfill of {store.folder} is under way, in another process or in a loop of this one that "
            "was left; wait for it, or end it (a loop with close() on what it iterates over): the next call "
            "goes on where it was"
        ) from None
    try:
        yield
    finally:
        lock.release()


def most_found(found: Any, ids: Any) -> np.ndarray:
    """The ids in the order of how often they were found, most first; ties in the order given.

    What users find most is what they see most. Counts of one week serve the next only as far as users ask for
    the same things.

    Args:
        found: ids of earlier hits of any shape, such as `Hits.ids`; -1 and ids not asked for are left out.
        ids: [n], what to order.

    Returns:
        int64 [n].

    >>> most_found([[7, 5], [7, -1]], [5, 6, 7]).tolist()
    [7, 5, 6]
    """
    ids, found = checked_ids(ids), as_array(found).ravel()
    rising, back = np.unique(ids, return_inverse=True)
    place = places(rising, found)
    times = np.bincount(place[place >= 0], minlength=len(ids))[back]
    return ids[np.argsort(-times, kind="stable")]
