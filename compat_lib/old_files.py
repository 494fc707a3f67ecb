"""Files of an old system, in formats that cannot run code: safetensors, JSON, npz without pickle."""

import json
import lzma
import os
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

TENSORS = "old_system.safetensors"
DESCRIPTION = "old_system.json"
VERSION = 1
ARRAYS = ("features", "labels", "prototypes", "classifier_weight", "classifier_bias", "class_map")
SCALARS = ("classifier_scale", "num_classes")
# what NumPy raises when it reads an altered array or archive; the last: it claims more numbers than fit
DAMAGED = (ValueError, OSError, EOFError, KeyError, RuntimeError, SyntaxError, tokenize.TokenError)
DAMAGED += (zipfile.BadZipFile, zlib.error, lzma.LZMAError, MemoryError)


def write_folder(folder: str | Path, arrays: Mapping[str, Tensor | None], **scalars: float | None) -> None:
    """Writes old_system.safetensors and old_system.json, each to a temporary name that is then renamed.

    Args:
        folder: made when it does not exist.
        arrays: values by name, of ARRAYS; None is left out.
        scalars: values by name, of SCALARS.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in arrays.items() if value is not None}
    shapes = {name: list(value.shape) for name, value in tensors.items()}
    text = {"version": VERSION, **scalars, "shapes": shapes}
    # the description goes into both files, so that halves of two saves are not taken for one
    temporary = folder / f".{TENSORS}.{os.getpid()}"
    save_file(tensors, temporary, metadata={"description": json.dumps(text)})
    os.replace(temporary, folder / TENSORS)
    temporary = folder / f".{DESCRIPTION}.{os.getpid()}"
    temporary.write_text(json.dumps(text, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, folder / DESCRIPTION)


def read_folder(folder: str | Path) -> dict[str, object]:
    """What `write_folder` wrote, by name, as arguments of OldSystem.from_arrays.

    Raises:
        FileNotFoundError: "There is no file runs/old_system/old_system.json. ..."
        ValueError: "runs/old_system/old_system.safetensors is damaged or not a safetensors file. ..."
    """
    description, path = Path(folder) / DESCRIPTION, Path(folder) / TENSORS
    for file in (description, path):
        if not file.is_file():
            raise FileNotFoundError(
                f"There is no file {file}. An old system is a folder with {DESCRIPTION} and {TENSORS}; write "
                "one with OldSystem.save."
            )
    try:
        text = json.loads(description.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{description} is not readable as JSON. Save the old system again.") from error
    if not isinstance(text, dict) or text.get("version") != VERSION or "num_classes" not in text:
        raise ValueError(
            f"{description} does not describe an old system of version {VERSION}. Save the old system again "
            "with this version of the package."
        )
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
            written_with = (file.metadata() or {}).get("description")
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is damaged or not a safetensors file. Save the old system again."
        ) from error
    _check_names(path, tensors, ARRAYS)
    if written_with != json.dumps(text):
        raise ValueError(
            f"{description} and {path.name} come from different saves. Save the old system again."
        )
    return tensors | {name: text.get(name) for name in SCALARS}


def read_npz(path: str | Path) -> dict[str, object]:
    """Arrays and scalars of a numpy archive, by name, as arguments of OldSystem.from_arrays.

    Raises:
        FileNotFoundError: "There is no file old.npz. ..."
        ValueError: "old.npz is not an npz archive of plain arrays. ...", "old.npz: there is no field 'x' in
            an old system. ..." or "old.npz: 'features' holds Python objects, ..."
    """
    fields = (*ARRAYS, *SCALARS)
    arrays, there = read_archive(path, fields)
    _check_names(path, there, fields)
    for name in SCALARS:
        if name in arrays:
            if arrays[name].size != 1:
                raise ValueError(f"{path}: {name} must be one number, not {arrays[name].size}.")
            arrays[name] = arrays[name].reshape(()).item()
    return arrays


def read_archive(path: str | Path, wanted: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """Those of the wanted arrays that a numpy archive has, by name, and the names of all that it has.

    Raises:
        FileNotFoundError: "There is no file old.npz. ..."
        ValueError: "old.npz is not an npz archive of plain arrays. ..." or "old.npz: 'features' holds Python
            objects, ..."
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path}. Write it with numpy.savez(path, features=...).")
    refusal = f"{path} is not an npz archive of plain arrays. Write it with numpy.savez(path, features=...)."
    try:
        archive = np.load(path, allow_pickle=False)
    except PermissionError:
        raise
    except DAMAGED as error:
        raise ValueError(refusal) from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError(refusal)
    arrays = {}
    with archive:
        for name in set(wanted) & set(archive.files):
            try:
                arrays[name] = archive[name]
            except DAMAGED as error:
                raise ValueError(
                    f"{path}: {name!r} holds Python objects, or is damaged or larger than the memory, and is "
                    "not read, because pickled objects can run code. Save it as a plain array of numbers or "
                    "text."
                ) from error
        return arrays, list(archive.files)


def _check_names(path: str | Path, names, allowed: tuple[str, ...]) -> None:
    unknown = sorted(set(names) - set(allowed))
    if unknown:
        raise ValueError(
            f"{path}: there is no field {unknown[0]!r} in an old system. Fields: {', '.join(allowed)}. "
            "Rename or remove it."
        )
