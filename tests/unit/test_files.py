"""Files written in one piece, and what killed writers leave."""

import errno
import os
import subprocess
import sys

import pytest

from compat_lib import files


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError), files.replacing(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


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
    path = tmp_path / "a.txt"
    said = pytest.raises(OSError, match=r"a\.txt cannot be written: .+; set runs_root")
    with said as caught, files.replacing(path, "set runs_root"):
        raise OSError(number, "whatever")
    assert caught.value.errno == number and os.listdir(tmp_path) == []


def test_a_library_that_hides_a_full_disk_is_seen_through(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_is_full", lambda path: True)
    with pytest.raises(OSError, match="no space is left"), files.explained(tmp_path / "a"):
        raise RuntimeError("unexpected pos 1335104 vs 1334992")
    monkeypatch.setattr(files, "_is_full", lambda path: False)
    with pytest.raises(RuntimeError, match="unexpected"), files.explained(tmp_path / "a"):
        raise RuntimeError("unexpected pos 1335104 vs 1334992")
