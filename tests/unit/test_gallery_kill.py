"""A gallery whose writer is killed: what was committed is there, what was not is not, and work goes on.

Everything that a writer reported must be there after the kill, and at most one change more, wholly.
"""

import json
import os
import shutil
import signal
import subprocess
import sys

import gallery_writers
import numpy as np
import pytest
from gallery_writers import CHUNK, ENTRIES, ORDER, TABLE, WIDTH
from plain_rows import unit

from compat_lib.deploy.gallery import Gallery

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def write(project):
    """A function that runs one writer: its exit status, and how many changes it reported."""
    how = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    how["env"] = os.environ | {"PYTHONPATH": str(project)}
    with subprocess.Popen([sys.executable, gallery_writers.__file__], **how) as process:

        def run(gallery, work, **limit):
            task = {"folder": str(gallery.folder), "work": work} | limit
            print(json.dumps(task), file=process.stdin, flush=True)
            reported = 0
            while (line := process.stdout.readline()) == "done\n":
                reported += 1
            assert line, "the writers' parent has ended"
            assert (status := int(line)) in (0, -signal.SIGKILL)
            return status, reported

        yield run


def made(folder, inserted, index="flat"):
    """A gallery with the first entries, in changes as a writer makes them."""
    gallery = Gallery.create(folder, {"old": WIDTH, "new": WIDTH}, index)
    gallery.declare("new", WIDTH, compatible_with="old")
    for ids in np.split(np.arange(inserted), range(4 * CHUNK, inserted, 4 * CHUNK)):
        gallery.insert(ids, TABLE[0][ids], "old")
    return gallery


def copied(gallery, name):
    return Gallery.open(shutil.copytree(gallery.folder, gallery.folder.parent / str(name)))


def held(gallery):
    """The ids of the old and of the new entries, whose features are right, in files that are sound."""
    counts, found = gallery.verify().entries, []
    for model, table in zip(("old", "new"), TABLE, strict=True):
        found.append(ids := gallery.ids(model))
        assert len(ids) == counts[model]
        assert not len(ids) or np.allclose(gallery.features(ids), unit(table[ids]), atol=1e-6)
    return found


def left_by(gallery, work, given, before, reported):
    """How many entries are inserted, removed or new, if that is what a killed writer may have left."""
    old, new = held(gallery)
    if work in ("insert", "remove", "compact"):
        there = len(old) - given if work == "insert" else given - len(old)
        begin = there if work == "remove" else 0
        assert np.array_equal(old, np.arange(begin, begin + len(old))) and not len(new)
    else:
        order, there = ORDER[given > ORDER] if work == "backfill" else np.arange(given), len(new)
        assert np.array_equal(new, np.sort(order[:there])) and np.array_equal(old, np.sort(order[there:]))
    most = ENTRIES - given if work == "insert" else given
    one_more = min(most, before + CHUNK * (reported + 1))
    assert there in ((0,) if work == "compact" else (before + CHUNK * reported, one_more))
    return there


@pytest.mark.parametrize("work", ["insert", "backfill", "compact", "remove", "replace"])
def test_a_kill_at_every_step_to_the_disk(tmp_path, write, work):
    given = ENTRIES - 2 * CHUNK if work == "insert" else 2 * CHUNK
    first = made(tmp_path / "first", given)
    if work in ("backfill", "compact"):
        first.backfill("new", lambda ids: TABLE[1][ids], order=ORDER[given > ORDER])
    if work == "compact":  # with something to delete
        first.insert(np.arange(given), TABLE[0][:given], "old", replace=True)
    status, step = -1, 0
    while status:
        step += 1
        status, reported = write(gallery := copied(first, step), work, step=step)
        there = left_by(gallery, work, given, 0, reported)
        if status and step % 5 == 0:  # killed once more where it goes on, and then not
            _, reported = write(gallery, work, step=step)
            left_by(gallery, work, given, there, reported)
            assert write(gallery, work)[0] == 0
            gallery.verify()
    assert step > 15
    assert work != "compact" or gallery.verify().free == 0


def standing(gallery):
    """How many of twenty entries are new, have an older feature kept, have a newer one waiting."""
    old, new = held(gallery)
    assert len(old) + len(new) == 20 and set(gallery.waiting) <= {"new"} and set(gallery.kept) <= {"old"}
    return len(new), gallery.kept.get("old", 0), gallery.waiting.get("new", 0)


@pytest.mark.parametrize(
    ("work", "states"),
    [
        ("swap", [(0, 0, 20), (20, 20, 0)]),
        ("rollback", [(15, 15, 0), (0, 0, 0)]),
        ("confirm", [(15, 15, 0), (15, 0, 0)]),
    ],
)
def test_a_kill_on_the_way_back_or_forth(tmp_path, write, work, states):
    """Before the change or after it, and the same call goes on; where it had happened, nothing happens."""
    first = made(tmp_path / "first", 20)
    some = range(states[0][0] or 20)
    list(first.backfill("new", lambda ids: TABLE[1][ids], some, beside=work == "swap"))
    assert standing(first) == states[0]
    status, step, seen = -1, 0, set()
    while status:
        step += 1
        status, reported = write(gallery := copied(first, step), work, step=step)
        assert (there := standing(gallery)) in states[reported : reported + 2]
        seen.add(there)
        if status and step % 5 == 0:
            assert write(gallery, work)[0] == 0 and standing(gallery) == states[-1]
    assert seen == set(states) and step > 10
    if work != "confirm":  # from each of these states there is a way back
        old = made(tmp_path / "old", 20)
        assert write(gallery, "rollback")[0] == 0 and standing(gallery) == (0, 0, 0)
        asked = TABLE[0][:20] + 0.1
        assert np.array_equal(gallery.search(asked, 5, "old").ids, old.search(asked, 5, "old").ids)


def test_milvus_goes_on_from_what_a_kill_left(tmp_path, write):
    """Killed between the database and Milvus or within: the next one to ask finds what FAISS finds."""
    manager = pytest.importorskip("milvus_lite.server_manager").server_manager_instance
    from test_gallery_milvus import same_as_faiss

    made(tmp_path / "gallery", ENTRIES - 2 * CHUNK, "milvus")
    gallery, kills = Gallery.open(tmp_path / "gallery", index="flat"), {}  # leaves Milvus behind
    for work in ("insert", "backfill", "rollback", "remove"):
        if work == "backfill":
            gallery.backfill("new", lambda ids: TABLE[1][ids], order=ORDER[: 3 * CHUNK])
        if work == "remove":
            gallery.remove(gallery.ids()[CHUNK:])
        status, call = -1, 0
        while status:  # each goes on where the last one was killed, and gets a little further
            call += 3
            status, _ = write(gallery, work, call=call)
            kills[work] = kills.get(work, 0) + (status != 0)
            for model in ("old", "new"):
                same_as_faiss(Gallery.open(gallery.folder), TABLE[1][:4] + TABLE[0][:4], model, k=50)
            manager.release_server(str(gallery.folder / "milvus.db"))  # it serves one process at a time
    assert min(kills.values()) > 1 and not len(gallery)
