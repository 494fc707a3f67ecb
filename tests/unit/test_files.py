"""Files written in one piece, what killed writers leave, and damaged ones."""

import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from compat_lib import files


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError), files.replacing(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_a_pipe_is_written_to_and_a_device_stays_a_device(tmp_path):
    os.mkfifo(pipe := tmp_path / "pipe")
    (null := tmp_path / "null").symlink_to("/dev/null")
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        files.write_text(pipe, "numbers")
        assert read.result(timeout=60) == "numbers"
    files.write_text(null, "numbers")
    assert pipe.is_fifo() and null.is_symlink() and null.is_char_device()


def test_parts_of_the_dead_are_removed_and_those_of_the_living_stay(tmp_path):
    path = tmp_path / "a.txt"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for number in (dead.pid, os.getppid()):
        path.with_name(f".a.txt{files._MARK}{number}").write_text("part")
    path.with_name(".a.txt.part-elsewhere-1").write_text("another machine's")
    files.write_text(path, "whole")
    left = sorted(os.listdir(tmp_path))
    assert left == [".a.txt.part-elsewhere-1", f".a.txt{files._MARK}{os.getppid()}", "a.txt"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_cannot_be_written_gets_a_sentence(tmp_path, number):
    said = pytest.raises(OSError, match=r"a\.txt cannot be written: .+; set runs_root")
    with said as caught, files.replacing(tmp_path / "a.txt", "set runs_root"):
        raise OSError(number, "whatever")
    assert caught.value.errno == number and os.listdir(tmp_path) == []


@pytest.mark.parametrize(("free", "kind", "said"), [(0, OSError, "no space"), (1 << 30, RuntimeError, "pos")])
def test_a_library_that_hides_a_full_disk_is_seen_through(tmp_path, monkeypatch, free, kind, said):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    with pytest.raises(kind, match=said), files.explained(tmp_path / "a"):
        raise RuntimeError("unexpected pos 1335104 vs 1334992")


def tensors():
    one = torch.arange(6.0).reshape(2, 3)
    return {"a": one, "b": one, "c": one.T.bfloat16(), "d": torch.tensor(7), "e": torch.zeros(0, 3)}


def test_tensors_come_back_with_their_metadata(tmp_path):
    path = tmp_path / "new" / "x.safetensors"
    digest = files.save_tensors(tensors(), path, {"of": "images"})
    loaded, metadata = files.load_tensors(path)
    assert metadata == {"of": "images", "sha256": digest} and loaded.keys() == tensors().keys()
    for name, value in tensors().items():
        assert loaded[name].dtype == value.dtype and torch.equal(loaded[name], value)
    assert os.listdir(path.parent) == [path.name]
    (path.parent / "plain").touch()
    assert path.stat().st_mode == (path.parent / "plain").stat().st_mode  # as any file: others may read it
    save_file({"a": torch.ones(2)}, path)  # of others, without a digest
    assert files.load_tensors(path)[1] == {}


def test_the_digest_depends_on_names_types_shapes_and_numbers(tmp_path):
    one = torch.zeros(2, 3)
    given = [{"a": one}, {"b": one}, {"a": one.T}, {"a": one.int()}, {"a": one + torch.eye(2, 3)}]
    assert len({files.save_tensors(each, tmp_path / "x") for each in given}) == len(given)


def test_no_flipped_bit_of_a_tensor_passes(tmp_path):
    path = tmp_path / "x.safetensors"
    files.save_tensors(tensors(), path)
    sound = path.read_bytes()
    for place in range(len(sound) - 60, len(sound)):  # the numbers stand last
        path.write_bytes(sound[:place] + bytes([sound[place] ^ (1 << place % 8)]) + sound[place + 1 :])
        with pytest.raises(ValueError, match=r"x\.safetensors is damaged"):
            files.load_tensors(path)
    path.write_bytes(sound[:-40])
    with pytest.raises(ValueError, match=r"x\.safetensors is damaged"):
        files.load_tensors(path)


def test_archives_are_never_unpickled(tmp_path):
    path = tmp_path / "old.npz"
    np.savez(path, features=np.eye(2), ids=["a", "b"])
    assert files.load_arrays(path)["ids"].tolist() == ["a", "b"]
    whole = path.read_bytes()
    np.save(tmp_path / "array.npy", np.eye(3))
    np.savez(path, features=np.array([{"a": 1}], dtype=object))
    for content in (path.read_bytes(), b"", b"hello", whole[:200], (tmp_path / "array.npy").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"old\.npz is damaged"):
            files.load_arrays(path)


@pytest.mark.parametrize("load", [files.load_tensors, files.load_arrays])
def test_a_file_that_is_not_there(tmp_path, load):
    with pytest.raises(FileNotFoundError, match="no file .*nowhere"):
        load(tmp_path / "nowhere")
