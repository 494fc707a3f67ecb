"""Files that are there whole or not at all, a sentence where a disk is full, and arrays that are whole again.

Tensors are kept as safetensors with a digest, since that format has no checksum of its own; archives of
NumPy are read without ever unpickling.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

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


def save_tensors(
    tensors: Mapping[str, Tensor],
    path: str | Path,
    metadata: Mapping[str, str] | None = None,
    advice: str = "",
) -> str:
    """Write a safetensors file in one piece, see :func:`replacing`, with a digest of its tensors.

    Args:
        tensors: by name, of any type and shape; two names may hold the same tensor.
        path: of the file.
        metadata: texts to keep beside them; not "sha256", which is the digest.
        advice: as in :func:`replacing`.

    Returns:
        the digest, SHA-256 of names, types, shapes and bytes.
    """
    import torch  # here, for those who want files without it
    from safetensors.torch import save_file

    copies = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in tensors.items()
    }
    digest = _digest(copies)
    with replacing(path, advice) as part:
        save_file(copies, part, {**(metadata or {}), "sha256": digest})
    return digest


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; those that :func:`save_tensors` wrote are compared with
    their digest.

    Raises:
        FileNotFoundError: "There is no file model.safetensors".
        ValueError: "model.safetensors is damaged: its numbers are not those that were written" or "... is
            damaged, or no safetensors file".
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path}")
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged, or no safetensors file ({error})") from error
    if metadata.get("sha256", digest := _digest(tensors)) != digest:
        raise ValueError(f"{path} is damaged: its numbers are not those that were written")
    return tensors, metadata


def _digest(tensors: Mapping[str, Tensor]) -> str:
    import torch

    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(repr((name, str(value.dtype), tuple(value.shape))).encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def load_arrays(path: str | Path) -> dict[str, Any]:
    """Arrays of an npz archive by name; nothing in it is unpickled, because pickled objects can run code.

    Raises:
        FileNotFoundError: "There is no file old.npz".
        ValueError: "old.npz is damaged, or no npz archive of plain arrays of numbers and text (...)".
    """
    import numpy as np

    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path}")
    try:
        archive = np.load(path, allow_pickle=False)
        with archive:
            return {name: archive[name] for name in archive.files}
    except PermissionError:
        raise
    except Exception as error:  # damaged archives raise anything, MemoryError for a size that they claim
        raise ValueError(
            f"{path} is damaged, or no npz archive of plain arrays of numbers and text ({error}); write it "
            "with numpy.savez(path, features=...)"
        ) from error


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
