import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from compat_lib.data import cache
from compat_lib.data.cache import cached_arrays, recipe_digest


def writer(value, calls):
    def write(folder):
        calls.append(value)
        np.save(folder / "a.npy", np.full(50, value))
        np.save(folder / "b.npy", np.arange(3))

    return write


def test_made_once_then_read(tmp_path):
    calls = []
    for _ in range(3):
        arrays = cached_arrays(tmp_path / "deep" / "key", {"x": 1}, writer(7, calls))
        assert set(arrays) == {"a", "b"} and arrays["a"].tolist() == [7] * 50
    assert calls == [7]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["key"]
    assert json.loads((tmp_path / "deep" / "key" / "manifest.json").read_text())["recipe"] == {"x": 1}


def test_arrays_are_mapped_and_changes_stay_in_memory(tmp_path):
    calls = []
    arrays = cached_arrays(tmp_path / "key", {}, writer(7, calls))
    assert isinstance(arrays["a"], np.memmap)
    arrays["a"][:] = 0
    assert cached_arrays(tmp_path / "key", {}, writer(7, calls))["a"][0] == 7
    assert calls == [7]


def flip_a_byte(folder):
    content = bytearray((folder / "a.npy").read_bytes())
    content[-1] ^= 1
    (folder / "a.npy").write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_byte,
        lambda folder: (folder / "a.npy").write_bytes(b""),
        lambda folder: (folder / "a.npy").unlink(),
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "manifest.json").write_text("{not json"),
        lambda folder: (folder / "manifest.json").write_text("[]"),
    ],
)
def test_a_damaged_cache_is_made_again(tmp_path, damage):
    calls = []
    cached_arrays(tmp_path / "key", {}, writer(7, calls))
    damage(tmp_path / "key")
    assert cached_arrays(tmp_path / "key", {}, writer(7, calls))["a"].tolist() == [7] * 50
    assert calls == [7, 7]
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    def write(folder):
        np.save(folder / "a.npy", np.zeros(3))
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        cached_arrays(tmp_path / "key", {}, write)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damaged", [False, True])
def test_writers_at_the_same_time_do_not_mix(tmp_path, damaged):
    together = threading.Barrier(6)
    if damaged:
        cached_arrays(tmp_path / "key", {}, writer(0, []))
        flip_a_byte(tmp_path / "key")

    def make(number):
        def write(folder):
            together.wait(timeout=20)  # all have found the cache missing
            writer(number, [])(folder)
            np.save(folder / "b.npy", np.full(3, number))
            time.sleep(0.01 * number)

        arrays = cached_arrays(tmp_path / "key", {}, write)
        return int(arrays["a"][0]), int(arrays["b"][0])

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(make, range(6)))
    assert all(a == b for a, b in results)
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_no_permission_is_said_with_the_way_out(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache.Path, "mkdir", refuse)
    with pytest.raises(PermissionError, match="cannot write the cache .* COMPAT_DATA"):
        cached_arrays(tmp_path / "key", {}, writer(1, []))


def test_large_files_are_checked_by_size_alone(tmp_path, monkeypatch):
    calls = []
    cached_arrays(tmp_path / "key", {}, writer(7, calls))
    monkeypatch.setattr(cache, "FULL_CHECK_BYTES", 10)
    flip_a_byte(tmp_path / "key")
    cached_arrays(tmp_path / "key", {}, writer(7, calls))
    assert calls == [7]
    (tmp_path / "key" / "a.npy").write_bytes(b"short")
    cached_arrays(tmp_path / "key", {}, writer(7, calls))
    assert calls == [7, 7]


def test_the_digest_of_a_recipe_depends_on_its_values():
    assert recipe_digest({"a": 1}) != recipe_digest({"a": 2}) != recipe_digest({"b": 2})
