"""A gallery whose writer is killed: what was committed is there, what was not is not, and work goes on.

The writers are forked from one small process, so that a hundred of them take seconds. A writer reports each
change after the call has returned: everything reported must be there after the kill, and at most one
change more, wholly. Nothing is forced to the disk here: a kill leaves what was written to the system.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from compat_lib.deploy.gallery import Gallery

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

ENTRIES, WIDTH, CHUNK = 1200, 8, 60
TABLE = np.random.default_rng(0).normal(size=(2, ENTRIES, WIDTH))  # features of the old and of the new model
ORDER = np.random.default_rng(1).permutation(ENTRIES)

WRITER = """
import functools, json, os, resource, signal, sqlite3, sys
import numpy as np
from compat_lib.deploy.gallery import Gallery
assert not {"torch", "faiss"} & set(sys.modules), "writing needs neither"
connect = sqlite3.connect

class Quick(sqlite3.Connection):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.execute("PRAGMA synchronous = OFF")

sqlite3.connect = functools.partial(connect, factory=Quick)
ENTRIES, WIDTH, CHUNK = 1200, 8, 60
TABLE = np.random.default_rng(0).normal(size=(2, ENTRIES, WIDTH))
ORDER = np.random.default_rng(1).permutation(ENTRIES)

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def die_at(step):
    # SIGKILL before or after the statement number `step`, or in the middle of one
    number = 0
    def count():
        nonlocal number
        number += 1
        if number == step:
            os.kill(os.getpid(), signal.SIGKILL)
    class Dying(Quick):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.set_progress_handler(count, 250)
        def execute(self, *arguments):
            count()
            result = super().execute(*arguments)
            count()
            return result
    sqlite3.connect = functools.partial(connect, factory=Dying)

def die_at_call(step):
    # SIGKILL before or after the call number `step` that changes Milvus, or that commits a change
    from pymilvus import MilvusClient
    number = 0
    def counted(call):
        def counting(*arguments, **options):
            nonlocal number
            for moment in ("before", "after"):
                number += 1
                if number == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                result = call(*arguments, **options) if moment == "before" else result
            return result
        return counting
    class Dying(Quick):
        def execute(self, *arguments):
            call = super().execute
            return (counted(call) if arguments[0] == "COMMIT" else call)(*arguments)
    sqlite3.connect = functools.partial(connect, factory=Dying)
    for name in ("upsert", "delete", "create_collection", "drop_collection"):
        setattr(MilvusClient, name, counted(getattr(MilvusClient, name)))

def die_beyond(size):
    # a signal half way through the first writing that would make any file longer than this
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

def insert(gallery):
    for start in range(len(gallery), ENTRIES, CHUNK):
        ids = np.arange(start, start + CHUNK)
        gallery.insert(ids, TABLE[0][ids], "old")
        say("done")

def backfill(gallery):
    for step in gallery.backfill("new", lambda ids: TABLE[1][ids], batch=CHUNK):
        say("done")

def remove(gallery):
    while len(gallery):
        gallery.remove(gallery.ids()[:CHUNK])
        say("done")

def replace(gallery):
    while len(ids := gallery.ids("old")[:CHUNK]):
        gallery.insert(ids, TABLE[1][ids], "new", replace=True)
        say("done")

def compact(gallery):
    gallery.compact()
    say("done")

def swap(gallery):
    gallery.swap()
    say("done")

def rollback(gallery):
    gallery.rollback()
    say("done")

def confirm(gallery):
    gallery.confirm()
    say("done")

for line in sys.stdin:
    task = json.loads(line)
    if task["call"]:  # once, before the first of these
        import milvus_lite.adapter.grpc.server
    child = os.fork()
    if child == 0:
        gallery = Gallery.open(task["folder"])
        if task["step"]:
            die_at(task["step"])
        if task["call"]:
            die_at_call(task["call"])
        if task["size"]:
            die_beyond(task["size"])
        say("began")
        globals()[task["work"]](gallery)
        os._exit(0)
    say("pid", child)
    say("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


class Writers:
    """Starts writers, and tells how many changes each reported before it ended."""

    def __init__(self, project: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER], cwd=project, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def run(self, folder: Path, work: str, step: int = 0, size: int = 0, call: int = 0, wait=None):
        """(exit status, changes reported) of one writer.

        `step`, `call`: it kills itself there; `size`: half way through the writing that makes a file longer.
        `wait`: it is killed after so many reports and so many seconds more.
        """
        task = json.dumps({"folder": str(folder), "work": work, "step": step, "size": size, "call": call})
        self.process.stdin.write(task.encode() + b"\n")
        self.process.stdin.flush()
        pid, reported, begun = 0, 0, False
        while True:
            words = self.process.stdout.readline().split()
            assert words, "the writers' parent has ended"
            if words[0] == b"ended":
                return int(words[1]), reported
            pid = int(words[1]) if words[0] == b"pid" else pid
            begun = begun or words[0] == b"began"
            reported += words[0] == b"done"
            if wait is not None and pid and begun and reported >= wait[0]:
                time.sleep(wait[1])
                with contextlib.suppress(ProcessLookupError):  # it has finished in the meantime
                    os.kill(pid, signal.SIGKILL)
                wait = None


@pytest.fixture(scope="module")
def writers(project):
    one = Writers(project)
    yield one
    one.process.stdin.close()
    one.process.wait(timeout=60)


def made(folder: Path, inserted: int, index: str = "flat") -> Gallery:
    """A gallery with the first entries, in changes as a writer makes them."""
    gallery = Gallery.create(folder, {"old": WIDTH, "new": WIDTH}, index)
    gallery.declare("new", WIDTH, compatible_with="old")
    for start in range(0, inserted, 4 * CHUNK):
        ids = np.arange(start, min(start + 4 * CHUNK, inserted))
        gallery.insert(ids, TABLE[0][ids], "old")
    return gallery


def check(gallery: Gallery, old: np.ndarray, new: np.ndarray) -> None:
    """The gallery holds these entries with the right features, and its files are sound."""
    assert gallery.verify().entries == {"old": len(old), "new": len(new)}
    for model, ids in enumerate((old, new)):
        assert np.array_equal(gallery.ids(("old", "new")[model]), np.sort(ids))
        if len(ids):
            rows = TABLE[model][ids]
            unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
            assert np.allclose(gallery.features(ids), unit, atol=1e-6)


def left_by(gallery: Gallery, work: str, before: int, reported: int, given: int = ENTRIES) -> int:
    """How many entries are inserted, removed or new, if that is what a killed writer may have left."""
    if work == "insert":
        there, last = len(gallery), ENTRIES
        check(gallery, np.arange(there), np.arange(0))
    elif work == "remove":
        there, last = given - len(gallery), given
        check(gallery, np.arange(there, given), np.arange(0))
    else:
        order = np.arange(ENTRIES) if work == "replace" else ORDER
        there, last, order = gallery.counts["new"], given, order[np.isin(order, np.arange(given))]
        check(gallery, order[there:], order[:there])
    assert there in (before + CHUNK * reported, min(last, before + CHUNK * (reported + 1)))
    return there


def planned(gallery: Gallery) -> Gallery:
    """With the order of a backfill that has not begun."""
    ids = gallery.ids()
    gallery.backfill("new", lambda ids: TABLE[1][ids], order=ORDER[np.isin(ORDER, ids)])
    return gallery


def test_twenty_kills_lose_nothing(tmp_path, writers):
    random.seed(7)
    kills, folders, moments = 0, iter(range(1000)), set()
    for work, most in (("insert", 10), ("backfill", 20)):
        while kills < most:
            gallery = made(tmp_path / str(next(folders)), 0 if work == "insert" else ENTRIES)
            if work == "backfill":
                planned(gallery)
            there, status = 0, -signal.SIGKILL
            while status and kills < most:  # goes on where the last one was killed
                wait = random.randrange(3), random.uniform(0, 0.01)
                status, reported = writers.run(gallery.folder, work, wait=wait)
                assert status in (0, -signal.SIGKILL)
                there = left_by(gallery, work, there, reported)
                kills += status == -signal.SIGKILL
                moments.add((work, there))
        assert writers.run(gallery.folder, work)[0] == 0
        assert left_by(gallery, work, ENTRIES, 0) == ENTRIES
    assert kills == 20 and len(moments) > 8
    assert gallery.search(TABLE[1][:5], 1, "new").ids.ravel().tolist() == [0, 1, 2, 3, 4]


def begun(folder: Path, work: str) -> tuple[Gallery, int]:
    """A gallery for this work, and how many entries it has."""
    given = ENTRIES - 2 * CHUNK if work == "insert" else 2 * CHUNK
    gallery = made(folder, given)
    if work in ("backfill", "compact"):
        planned(gallery)
    if work == "compact":  # with something to delete
        gallery.insert(np.arange(given), TABLE[0][:given], "old", replace=True)
    return gallery, given


WORKS = pytest.mark.parametrize("work", ["insert", "backfill", "compact", "remove", "replace"])


@WORKS
def test_a_kill_at_every_step_to_the_disk(tmp_path, writers, work):
    first, given = begun(tmp_path / "first", work)
    status, step = -signal.SIGKILL, 0
    while status:
        step += 1
        shutil.copytree(first.folder, tmp_path / str(step))
        gallery = Gallery.open(tmp_path / str(step))
        status, reported = writers.run(gallery.folder, work, step=step)
        assert status in (0, -signal.SIGKILL)
        sound(gallery, writers, work, given, reported, status and step % 5 == 0)
    assert step > 15
    assert work != "compact" or gallery.verify().free == 0


def standing(gallery: Gallery) -> tuple[int, int, int]:
    """How many entries are new, have an older feature kept, have a newer one waiting; all of them sound."""
    counts = gallery.verify().entries
    both = {"old": TABLE[0], "new": TABLE[1]}
    for model in both:
        if len(ids := gallery.ids(model)):
            rows = both[model][ids]
            unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
            assert np.allclose(gallery.features(ids), unit, atol=1e-6)
    assert counts["old"] + counts["new"] == 20 and set(gallery.waiting) <= {"new"}
    assert set(gallery.kept) <= {"old"}
    return counts["new"], gallery.kept.get("old", 0), gallery.waiting.get("new", 0)


@pytest.mark.parametrize(
    ("work", "states"),
    [("swap", [(0, 0, 20), (20, 20, 0)])]
    + [(work, [(15, 15, 0), end]) for work, end in (("rollback", (0, 0, 0)), ("confirm", (15, 0, 0)))],
)
def test_a_kill_on_the_way_back_or_forth(tmp_path, writers, work, states):
    """Before the change or after it, and the same call goes on; where it had happened, nothing happens."""
    first = made(tmp_path / "first", 20)
    some = range(states[0][0] or 20)
    list(first.backfill("new", lambda ids: TABLE[1][ids], some, beside=work == "swap"))
    assert standing(first) == states[0]
    status, step, seen = -signal.SIGKILL, 0, set()
    while status:
        step += 1
        shutil.copytree(first.folder, tmp_path / str(step))
        gallery = Gallery.open(tmp_path / str(step))
        status, reported = writers.run(gallery.folder, work, step=step)
        assert status in (0, -signal.SIGKILL)
        assert (there := standing(gallery)) in states[reported : reported + 2]
        seen.add(there)
        if status and step % 5 == 0:
            assert writers.run(gallery.folder, work)[0] == 0
            assert standing(gallery) == states[-1]
    assert seen == set(states) and step > 10
    if work != "confirm":  # from each of these states there is a way back
        old = made(tmp_path / "old", 20)
        assert writers.run(gallery.folder, "rollback")[0] == 0 and standing(gallery) == (0, 0, 0)
        asked = TABLE[0][:20] + 0.1
        assert np.array_equal(gallery.search(asked, 5, "old").ids, old.search(asked, 5, "old").ids)


@pytest.mark.parametrize("work", ["insert", "backfill", "replace"])
def test_a_kill_half_way_through_a_writing(tmp_path, writers, work):
    first, given = begun(tmp_path / "first", work)
    status, size = -signal.SIGXFSZ, 33_000  # the file that SQLite's processes share has 32,768 bytes
    while status:
        size += 3_333
        shutil.copytree(first.folder, tmp_path / str(size))
        gallery = Gallery.open(tmp_path / str(size))
        status, reported = writers.run(gallery.folder, work, size=size)
        assert status in (0, -signal.SIGXFSZ)
        sound(gallery, writers, work, given, reported, status != 0)
    assert size > 45_000


def sound(gallery: Gallery, writers: Writers, work: str, given: int, reported: int, again: bool) -> None:
    """After a kill: only whole changes are there, and (again) what was left is no obstacle."""
    if work == "compact":
        check(gallery, np.arange(given), np.arange(0))
    else:
        left_by(gallery, work, given if work == "insert" else 0, reported, given)
    if again:
        assert writers.run(gallery.folder, work)[0] == 0
        gallery.verify()


def test_milvus_goes_on_from_what_a_kill_left(tmp_path, writers):
    """Killed between the database and Milvus or within: the next one to ask finds what FAISS finds."""
    manager = pytest.importorskip("milvus_lite.server_manager").server_manager_instance
    folder, asked = tmp_path / "gallery", TABLE[1][:4] + TABLE[0][:4]

    def found() -> None:
        for model in ("old", "new"):
            exact = Gallery.open(folder, index="flat").search(asked, 50, model)
            hits = Gallery.open(folder).search(asked, 50, model)
            assert np.array_equal(hits.ids, exact.ids) and np.array_equal(hits.models, exact.models)
            assert np.allclose(hits.scores, exact.scores, atol=1e-6)
        manager.release_server(str(folder / "milvus.db"))  # it serves one process at a time

    made(folder, ENTRIES - 2 * CHUNK, "milvus")
    gallery, kills = Gallery.open(folder, index="flat"), {}  # leaves Milvus behind
    for work in ("insert", "backfill", "rollback", "remove"):
        if work == "backfill":
            gallery.backfill("new", lambda ids: TABLE[1][ids], order=ORDER[: 3 * CHUNK])
        if work == "remove":
            gallery.remove(gallery.ids()[CHUNK:])
        status, call = -signal.SIGKILL, 0
        while status:  # each goes on where the last one was killed, and gets a little further
            call += 3
            status, _ = writers.run(folder, work, call=call)
            assert status in (0, -signal.SIGKILL)
            kills[work] = kills.get(work, 0) + (status != 0)
            found()
    assert min(kills.values()) > 1 and not len(gallery)
