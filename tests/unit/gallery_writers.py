"""Writers of a gallery that kill themselves, for test_gallery_kill: one small process forks them, so that a
hundred take seconds. Each reports a change after its call has returned."""

import functools
import json
import os
import signal
import sqlite3
import sys

import numpy as np

from compat_lib.deploy.gallery import Gallery

ENTRIES, WIDTH, CHUNK = 1200, 8, 60
TABLE = np.random.default_rng(0).normal(size=(2, ENTRIES, WIDTH))  # features of the old and of the new model
ORDER = np.random.default_rng(1).permutation(ENTRIES)  # in which the new ones come


def say(word):
    os.write(1, f"{word}\n".encode())


class Quick(sqlite3.Connection):
    """Forces nothing to the disk: a kill leaves what was written to the system."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.execute("PRAGMA synchronous = OFF")


def dying_at(step):
    """A function that kills the process when it is called for the step-th time."""
    number = 0

    def count():
        nonlocal number
        number += 1
        if number == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return count


def die_at_statement(step):
    """Before or after a statement, or in the middle of one."""
    count = dying_at(step)

    class Dying(Quick):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.set_progress_handler(count, 250)

        def execute(self, *arguments):
            count()
            result = super().execute(*arguments)
            count()
            return result

    return Dying


def die_at_call(step):
    """Before or after a call that changes Milvus, or that commits a change."""
    from pymilvus import MilvusClient

    count = dying_at(step)

    def counted(call):
        def counting(*arguments, **options):
            count()
            result = call(*arguments, **options)
            count()
            return result

        return counting

    class Dying(Quick):
        def execute(self, *arguments):
            call = super().execute
            return (counted(call) if arguments[0] == "COMMIT" else call)(*arguments)

    for name in ("upsert", "delete", "create_collection", "drop_collection"):
        setattr(MilvusClient, name, counted(getattr(MilvusClient, name)))
    return Dying


def insert(gallery):
    for start in range(len(gallery), ENTRIES, CHUNK):
        ids = np.arange(start, start + CHUNK)
        gallery.insert(ids, TABLE[0][ids], "old")
        yield


def backfill(gallery):
    yield from gallery.backfill("new", lambda ids: TABLE[1][ids], batch=CHUNK)


def remove(gallery):
    while len(gallery):
        gallery.remove(gallery.ids()[:CHUNK])
        yield


def replace(gallery):
    while len(ids := gallery.ids("old")[:CHUNK]):
        gallery.insert(ids, TABLE[1][ids], "new", replace=True)
        yield


def write(folder, work, **limit):
    connect, gallery, made = sqlite3.connect, Gallery.open(folder), Quick
    for kind, at in limit.items():
        made = {"step": die_at_statement, "call": die_at_call}[kind](at)
    sqlite3.connect = functools.partial(connect, factory=made)
    for _ in globals()[work](gallery) if work in globals() else [getattr(gallery, work)()]:
        say("done")


if __name__ == "__main__":
    assert not {"torch", "faiss"} & set(sys.modules), "writing needs neither"
    for line in sys.stdin:
        task = json.loads(line)
        if "call" in task:  # once, before the first of these
            import milvus_lite.adapter.grpc.server  # noqa: F401
        child = os.fork()
        if child == 0:
            write(**task)
            os._exit(0)
        say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
