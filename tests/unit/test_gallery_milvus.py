"""The gallery over Milvus: answers are FAISS's, each row says who made it, and Milvus goes on from anywhere.

Milvus Lite runs here, embedded and as a server. The kill test stands in test_gallery_kill.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from compat_lib.deploy.gallery import Gallery

pymilvus = pytest.importorskip("pymilvus", reason="the extra milvus is not installed")
WIDTH = 8
OLD, NEW = np.random.default_rng(0).normal(size=(2, 120, WIDTH))


@pytest.fixture
def made(tmp_path):
    """100 entries of old, and new declared compatible with it."""
    made = Gallery.create(tmp_path / "gallery", {"old": WIDTH}, index="milvus")
    made.declare("new", WIDTH, compatible_with="old")
    made.insert(range(100), OLD[:100], model="old")
    return made


def same_as_faiss(gallery, asked, model=None, k=30, **options):
    exact = Gallery.open(gallery.folder, index="flat").search(asked, k, model, **options)
    hits = gallery.search(asked, k, model, **options)
    assert np.array_equal(hits.ids, exact.ids) and np.array_equal(hits.models, exact.models)
    assert np.allclose(hits.scores, exact.scores, atol=1e-6)
    return hits


def rows_of(gallery):
    """(number of the model, table) -> {id: model's name}, of the gallery's collections in Milvus."""
    client, rows = gallery._index._opened[1], {}
    for name in client.list_collections():
        if not name.endswith("_note"):
            found = client.query(name, filter="key >= 0", output_fields=["id", "model"], limit=1000)
            rows[tuple(name.split("_")[2:4])] = {int(row["id"]): row["model"] for row in found}
    return rows


def test_answers_are_those_of_faiss_through_an_upgrade(made):
    asked, scales = NEW[:7], {"old": (0.1, 0.4), "new": (0.0, 0.5)}
    same_as_faiss(made, asked, "new", k=200)
    for step in made.backfill("new", lambda ids: NEW[ids], order=range(60), batch=25):
        hits = same_as_faiss(made, asked, "new", k=100)
        assert (hits.models == "new").sum() == 7 * step.done
    same_as_faiss(made, asked, "new", scales=scales)
    made.rollback()
    assert (same_as_faiss(made, asked, "new").models == "old").all()
    list(made.backfill("new", lambda ids: NEW[ids], batch=70, beside=True))
    made.insert([100, 101], OLD[100:102], "old")
    same_as_faiss(made, {"old": OLD[:7], "new": asked}, scales=scales)
    made.swap()
    same_as_faiss(made, asked, "new", k=102)
    made.remove(range(10))
    made.insert([20], OLD[20:21], "old", replace=True)
    made.confirm()
    same_as_faiss(made, asked, "new", k=92)
    assert rows_of(made)["0", "entries"] == {20: "old", 100: "old", 101: "old"}
    assert rows_of(made)["1", "entries"] == {one: "new" for one in range(10, 100) if one != 20}


def test_what_milvus_has_lost_is_made_again(made):
    same_as_faiss(made, OLD[:3], "new")
    shutil.copytree(made.folder, made.folder.parent / "backup", ignore=shutil.ignore_patterns("milvus.db"))
    client = made._index._opened[1]
    (name,) = [one for one in client.list_collections() if one.endswith("_entries")]
    client.delete(name, filter="key >= 0")  # by somebody who should not
    same_as_faiss(Gallery.open(made.folder), OLD[:3], "new")
    client.drop_collection(name)
    same_as_faiss(made, OLD[:3], "new")
    made.insert(range(100, 110), OLD[100:110], "old")
    for one in ("gallery.db", "gallery.db-wal", "gallery.db-shm"):  # a backup of before comes back
        (made.folder / one).unlink(missing_ok=True)
    shutil.copy(made.folder.parent / "backup" / "gallery.db", made.folder)
    made.insert(range(110, 120), OLD[110:], "old")  # as many notes as after the backup
    assert 105 not in same_as_faiss(made, OLD[105:108], "new", k=110).ids


def test_other_kinds_of_index_and_limits(made):
    quick = Gallery.open(made.folder, index_type="AUTOINDEX")
    assert quick.search(OLD[:9], 1, "old").ids.ravel().tolist() == [*range(9)]
    with pytest.raises(ValueError, match="Milvus gives at most 16,384 hits, not 20,000; give a smaller k"):
        made._index.search(None, None, None, OLD, 20_000)
    with pytest.raises(ValueError, match="uri is 19530; give text, such as 'http://localhost:19530'"):
        Gallery.open(made.folder, uri=19530)


def test_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(ImportError, match="needs the packages pymilvus and milvus-lite"):
        Gallery.create(tmp_path / "gallery", {"old": 2}, index="milvus")
    assert not (tmp_path / "gallery").exists()


@contextlib.contextmanager
def server(folder, port):
    """Milvus Lite as a server, killed in the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "milvus_lite", "server", "--port", str(port), "--data-dir", folder],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        assert "listening" in process.stdout.readline()
        yield
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


ANOTHER = """
import sys, warnings
import numpy as np
from compat_lib.deploy.gallery import Gallery
NEW = np.random.default_rng(0).normal(size=(2, 120, 8))[1]
gallery = Gallery.open(sys.argv[1], **({"uri": sys.argv[2]} if sys.argv[2:] else {}))
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    list(gallery.backfill("new", lambda ids: NEW[ids], order=range(len(gallery.ids("new")) + 20)))
print(len(said), *(one.message for one in said[:1]))
"""


def test_several_processes_and_an_address(made, monkeypatch, project, tmp_path):
    """Milvus Lite in the folder is for one process; a server for all, by its address alone."""
    same_as_faiss(made, NEW[:4], "new")

    def another(*arguments):
        command = [sys.executable, "-c", ANOTHER, str(made.folder), *arguments]
        ended = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=300)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    told = another()
    assert "the change is in the gallery, and Milvus follows later: Milvus at" in told
    assert "only one process at a time has it; for more: milvus-lite server --host" in told
    assert (same_as_faiss(made, NEW[:4], "new").models == "new").any()  # it is, nevertheless

    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    uri = f"http://localhost:{port}"
    with server(tmp_path / "served", port):
        served = Gallery.open(made.folder, uri=uri)
        same_as_faiss(served, NEW[:4], "new")
        assert another(uri) == "0\n"
        assert same_as_faiss(served, NEW[:4], "new", k=100).models.tolist()[0].count("new") == 40
        assert len(rows_of(served)["1", "entries"]) == 40
    monkeypatch.setattr("compat_lib.deploy.gallery_milvus.WAIT", 1.0)
    with pytest.warns(UserWarning, match="the change is in the gallery, and Milvus follows later"):
        served.insert([100], NEW[100:101], model="new")
    with pytest.raises(ConnectionError, match=f"Milvus at {uri} does not answer .*; look whether it runs"):
        served.search(NEW[:4], 5, "new")
    monkeypatch.undo()
    with server(tmp_path / "served", port):
        for _ in range(240):  # the client looks for it once a second
            with contextlib.suppress(ConnectionError):
                found = served.search(NEW[100:101], 1, "new")
                break
            time.sleep(0.5)
        assert found.ids.tolist() == [[100]]
        same_as_faiss(served, NEW[100:104], "new")
