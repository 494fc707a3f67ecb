"""Files that are there whole or not at all, and a sentence where a disk is full or read-only."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

_MARK = f".part-{socket.gethostname()}-"  # a process number means something on its own machine only


@contextlib.contextmanager
def replacing(path: str | Path, advice: str = "") -> Iterator[Path]:
    """A path beside ``path`` to write to; it takes the place of ``path`` when the block ends well.

    A reader, or a kill, sees the old file or the new one, never a part. What killed processes left behind of
    earlier attempts at the same file is removed.

    Args:
        path: the file to write; its folder is made.
        advice: what the user can do where the disk is full or read-only, such as the parameter to change.

    Raises:
        OSError: the disk is full, read-only or not ours; the sentence names the file and the advice.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder) / "a.txt") as part:
    ...         _ = part.write_text("whole")
    ...     sorted(p.name for p in Path(folder).iterdir())
    ['a.txt']
    """
    path = Path(path)
    part = path.with_name(f".{path.name}{_MARK}{os.getpid()}")
    with explained(path, advice):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        try:
            yield part
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str, advice: str = "") -> None:
    """Write a text file in one piece, see :func:`replacing`."""
    with replacing(path, advice) as part:
        part.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def explained(path: str | Path, advice: str = "") -> Iterator[None]:
    """Add the path and the advice to an error that says that a disk is full, read-only or not ours.

    Libraries that write by their own means hide the cause (torch: "unexpected pos", safetensors: an error of
    its own); an error while the disk is full is therefore taken for one about the disk.

    Raises:
        OSError: with the errno of the cause.
    """
    try:
        yield
    except Exception as error:
        number = getattr(error, "errno", None)
        if number is None and _is_full(Path(path)):
            number = errno.ENOSPC
        words = {
            errno.ENOSPC: "no space is left on the disk",
            errno.EDQUOT: "the disk quota is used up",
            errno.EROFS: "the disk is read-only",
            errno.EACCES: "this folder belongs to somebody else",
            errno.EPERM: "this folder belongs to somebody else",
        }
        if number not in words:
            raise
        hint = f"; {advice}" if advice else ""
        raise OSError(number, f"{path} cannot be written: {words[number]}{hint}") from error


def _is_full(path: Path) -> bool:
    folder = next((p for p in (path, *path.parents) if p.is_dir()), None)
    if folder is None or not hasattr(os, "statvfs"):
        return False
    free = os.statvfs(folder)
    return free.f_bavail * free.f_frsize < 64 * 1024


def _remove_leftovers(path: Path) -> None:
    """Remove parts of this file whose writers are dead."""
    for left in path.parent.glob(f".{path.name}{_MARK}*"):
        number = left.name.rpartition("-")[2]
        if number.isdigit() and int(number) != os.getpid() and not _lives(int(number)):
            left.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
