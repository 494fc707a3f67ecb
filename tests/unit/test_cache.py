"""The cache: made once, complete or not there, repaired when damaged, and clear about a full disk."""

import json
import os
import shutil
import signal
import threading
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from compat_lib.data.cache import cached_arrays


def writer(value, calls):
    def write(folder):
        calls.append(value)
        np.save(folder / "a.npy", np.full(50, value))
        np.save(folder / "b.npy", np.full(3, value))

    return write


def test_made_once_then_read_as_maps_that_never_change_the_file(tmp_path):
    calls = []
    for _ in range(3):
        arrays = cached_arrays(tmp_path / "deep", {"x": 1, "y": 2}, writer(7, calls))
        assert set(arrays) == {"a", "b"} and arrays["a"].tolist() == [7] * 50
        assert isinstance(arrays["a"], np.memmap)
        arrays["a"][:] = 0
    cached_arrays(tmp_path / "deep", {"y": 2, "x": 1}, writer(7, calls))  # the order of keys has no meaning
    assert calls == [7]
    (folder,) = (tmp_path / "deep").iterdir()
    assert json.loads((folder / "manifest.json").read_text())["recipe"] == {"x": 1, "y": 2}
    cached_arrays(tmp_path / "deep", {"x": 2, "y": 2}, writer(8, calls))
    assert calls == [7, 8]


def cut_off(folder):
    (folder / "a.npy").write_bytes((folder / "a.npy").read_bytes()[:-8])


@pytest.mark.parametrize(
    "damage",
    [
        cut_off,
        lambda folder: (folder / "a.npy").write_bytes(b""),
        lambda folder: (folder / "manifest.json").unlink(),  # as a killed process of an older version left it
    ],
)
def test_an_incomplete_cache_is_made_again(tmp_path, damage):
    calls = []
    cached_arrays(tmp_path, {}, writer(7, calls))
    (folder,) = tmp_path.iterdir()
    damage(folder)
    assert cached_arrays(tmp_path, {}, writer(7, calls))["a"].tolist() == [7] * 50
    assert calls == [7, 7] and list(tmp_path.iterdir()) == [folder]


def test_a_writer_that_fails_or_is_killed_leaves_nothing_behind(tmp_path):
    def write(folder):
        np.save(folder / "a.npy", np.zeros(3))
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        cached_arrays(tmp_path, {}, write)
    assert list(tmp_path.iterdir()) == []
    for _ in range(2):
        if (child := os.fork()) == 0:
            cached_arrays(tmp_path, {}, lambda folder: os.kill(os.getpid(), signal.SIGKILL))
        os.waitpid(child, 0)
    cached_arrays(tmp_path, {}, writer(7, []))
    assert len(list(tmp_path.iterdir())) == 1


def test_of_several_at_the_same_time_one_writes_and_the_others_wait(tmp_path):
    together, calls = threading.Barrier(6), []
    cached_arrays(tmp_path, {}, writer(0, []))
    cut_off(next(tmp_path.iterdir()))

    def make(number):
        def write(folder):
            writer(number, calls)(folder)
            time.sleep(0.05)

        together.wait(timeout=120)
        arrays = cached_arrays(tmp_path, {}, write)
        return int(arrays["a"][0]), int(arrays["b"][0])

    with ThreadPoolExecutor(6) as pool:
        results = set(pool.map(make, range(6)))
    assert results == {(calls[0], calls[0])} and len(calls) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_said_before_anything_is_made(tmp_path, monkeypatch):
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**7, 9 * 10**6, 10**6))
    calls = []
    with pytest.raises(OSError, match="no space is left.* 3 MB are needed; .*COMPAT_DATA"):
        cached_arrays(tmp_path, {}, writer(1, calls), size=3 * 10**6)
    assert not calls and list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_or_is_read_only_is_said_with_the_way_out(tmp_path, monkeypatch):
    def full(folder):
        np.save(folder / "a.npy", np.zeros(3))
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="no space is left.*COMPAT_DATA"):
        cached_arrays(tmp_path, {}, full)
    assert list(tmp_path.iterdir()) == []

    def refuse(*arguments, **options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("compat_lib.data.cache.Path.mkdir", refuse)
    with pytest.raises(OSError, match="the disk is read-only; .*COMPAT_DATA"):
        cached_arrays(tmp_path, {}, writer(1, []))
