"""Files that are there whole or not at all, a sentence where a disk is full, and arrays that are whole again.

Tensors are kept as safetensors with a digest, since that format has no checksum of its own.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

_MARK = f".part-{socket.gethostname()}-"  # a process number means something on its own machine only
FULL_CHECK_BYTES = 2**30  # larger files are told apart by size: hashing costs more than it protects
_CAUSES = {
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "this folder belongs to somebody else",
    errno.EPERM: "this folder belongs to somebody else",
}


@contextlib.contextmanager
def replacing(path: str | Path, advice: str = "") -> Iterator[Path]:
    """A path beside ``path`` to write to; it takes the place of ``path`` when the block ends well.

    A reader, or a kill, sees the old file or the new one, never a part. What killed processes left behind of
    earlier attempts at the same file is removed.

    An OSError for a disk that is full, read-only or not ours names the file and the advice: what the user can
    do, such as the parameter to change. The file's folder is made.
    """
    path = Path(path)
    if path.exists() and not path.is_file() or Path("/dev") in path.absolute().parents:
        yield path  # a pipe or a device, such as /dev/stdout, is written to and stays what it is
        return
    part = path.with_name(f".{path.name}{_MARK}{os.getpid()}")
    with explained(path, advice):
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{path.name}{_MARK}*"):
            try:
                os.kill(int(left.name.rpartition("-")[2]), 0)  # signal 0 only asks whether it lives
            except ProcessLookupError:
                left.unlink(missing_ok=True)
            except (ValueError, OSError):  # no number, or somebody else's process
                pass
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
    """Write a safetensors file in one piece, see :func:`replacing`; returns its digest, of names and bytes.

    Args:
        tensors: by name, of any type and shape; two names may hold the same tensor.
        metadata: texts to keep beside them; not "sha256", which is the digest.
    """
    import torch  # here, for those who want files without it
    from safetensors.torch import save_file

    whole = torch.contiguous_format
    copies = {k: value.detach().cpu().clone(memory_format=whole) for k, value in tensors.items()}
    digest = _digest(copies)
    with replacing(path, advice) as part:
        part.touch()  # with the permissions of any new file, which save_file would keep to the owner
        mode = part.stat().st_mode
        save_file(copies, part, {**(metadata or {}), "sha256": digest})
        part.chmod(mode)
    return digest


def write_rows(path: str | Path, count: int, blocks: Iterable[Tensor]) -> None:
    """Write tensors [n, ...] that follow each other as one .npy file of ``count`` rows, in one piece.

    Block by block, and written, not mapped: a full disk is an error and kills nothing.
    """
    with replacing(path) as part, part.open("wb") as out:
        for number, block in enumerate(blocks):
            rows = block.cpu().contiguous().numpy()
            if number == 0:
                header = {"descr": rows.dtype.str, "fortran_order": False, "shape": (count, *rows.shape[1:])}
                np.lib.format.write_array_header_1_0(out, header)
            out.write(memoryview(rows).cast("B"))


def map_rows(path: str | Path) -> Tensor:
    """The rows of an .npy file, memory-mapped: only those that are taken are read, and none is changed."""
    import torch

    try:
        # copy-on-write, because torch knows no array that cannot be written
        return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
    except (ValueError, EOFError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged, or no .npy file of numbers ({error})") from error


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file, compared with the digest where it has one.

    FileNotFoundError where there is none, ValueError where it is damaged or no safetensors file.
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


def file_identity(path: str | Path) -> dict[str, int | str]:
    """What tells a file from another one of its name: "bytes" and, where hashing is cheap, "sha256"."""
    size = Path(path).stat().st_size
    return {"bytes": size} | ({"sha256": file_sha256(path)} if size <= FULL_CHECK_BYTES else {})


def file_sha256(*paths: str | Path) -> str:
    """The SHA-256 of a file, or of several as if they were one, hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with Path(path).open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def tensor_digest(values: Tensor) -> str:
    """Return the SHA-256 (hex) of a tensor's type, shape and values."""
    total = hashlib.sha256(f"{values.dtype} {list(values.shape)}".encode())
    total.update(memoryview(values.contiguous().cpu().numpy()).cast("B"))
    return total.hexdigest()


def _digest(tensors: Mapping[str, Tensor]) -> str:
    import torch

    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(repr((name, str(value.dtype), tuple(value.shape))).encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def load_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Arrays of an npz archive by name; nothing in it is unpickled, because pickled objects can run code.

    FileNotFoundError where there is none, ValueError where it is damaged or no archive of plain arrays.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
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
    """
    try:
        yield
    except Exception as error:
        number, place = getattr(error, "errno", None), Path(path).absolute()
        folder = next(one for one in (place, *place.parents) if one.is_dir())
        if number is None and shutil.disk_usage(folder).free < 64 * 1024:
            number = errno.ENOSPC
        if number not in _CAUSES:
            raise
        hint = f"; {advice}" if advice else ""
        raise OSError(number, f"{path} cannot be written: {_CAUSES[number]}{hint}") from error
