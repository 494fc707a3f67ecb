"""A user's arrays as tensors, refused by name and row where they are no numbers of the right shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compat_lib.class_means import ROWS_AT_ONCE
from compat_lib.evaluation.inputs import plain
from compat_lib.files import map_rows
from compat_lib.names import checked_count


def numbers(name: str, value: Any, dimensions: int, *, whole: bool = False) -> Tensor | None:
    """A user's array (NumPy, torch, pandas, lists) as finite float32, or int64 if `whole`; None stays None.

    Rows are taken in their order, whatever index a pandas table has; other numbers are a TypeError, another
    shape or values that are not finite a ValueError.

    >>> numbers("classifier_bias", [1, 2], 1)
    tensor([1., 2.])
    """
    if value is None:
        return None
    value = plain(value)
    value = np.array(value.tolist()) if value.dtype == object else value  # such as pandas' Int64
    kind = value.dtype.name if isinstance(value, np.ndarray) else str(value.dtype).removeprefix("torch.")
    if not kind.startswith(("int", "uint") if whole else ("int", "uint", "float", "bfloat", "bool")):
        raise TypeError(f"{name} must be {'whole' if whole else 'real'} numbers, not {value.dtype}")
    if isinstance(value, np.ndarray):
        with np.errstate(over="ignore"):  # what becomes infinite is refused with its row
            value = torch.from_numpy(np.require(value, np.int64 if whole else np.float32, "CW"))
    value = value.to(torch.int64 if whole else torch.float32).contiguous()
    if value.ndim != dimensions or not value.numel():
        shape = "[rows, width]" if dimensions == 2 else "[rows]"
        raise ValueError(f"{name} must have the shape {shape} and not be empty, not {list(value.shape)}")
    if len(wrong := (~value.isfinite()).nonzero()):
        raise ValueError(
            f"{name} hold {len(wrong)} values that are not finite, first in row {int(wrong[0, 0])}; extract "
            "them again, or leave these rows out"
        )
    return value


def refuse_outside(name: str, labels: Tensor, low: int, high: float) -> None:
    """Refuse labels, int64 [N], that do not count classes from 0."""
    if len(wrong := ((labels < low) | (labels > high)).nonzero()):
        raise ValueError(
            f"{name} must hold {low} to {high}, but row {int(wrong[0])} has {int(labels[wrong[0]])}; "
            "number the classes from 0"
        )


def mapped_numbers(path: Path) -> Tensor:
    """Features that stay on disk, checked block by block: float16 or float32 [N, d], finite."""
    features = map_rows(path)
    if features.dtype not in (torch.float16, torch.float32) or features.ndim != 2 or not features.numel():
        raise ValueError(
            f"{path} must hold float16 or float32 of the shape [rows, width], not {features.dtype} of "
            f"{list(features.shape)}; write it with numpy.save"
        )
    for start in range(0, len(features), ROWS_AT_ONCE):
        wrong = (~features[start : start + ROWS_AT_ONCE].isfinite().all(dim=1)).nonzero()
        if len(wrong):
            raise ValueError(
                f"{path} holds values that are not finite, first in row {start + int(wrong[0])}; extract "
                "them again, or leave these rows out"
            )
    return features


def count_classes(given: Any, labels: Tensor | None, *tables: Tensor | None) -> int:
    """How many new classes there are: as the user says, as tables by class say, or as the labels go."""
    if given is not None:
        return checked_count("num_classes", given)
    if sizes := [len(table) for table in tables if table is not None]:
        return sizes[0]
    if labels is None:
        raise ValueError("how many new classes there are is not known; pass num_classes or labels")
    count, distinct = int(labels.max()) + 1, len(labels.unique())
    if count > 1000 + 10 * distinct:  # tables with a row for each class would not fit into memory
        raise ValueError(
            f"labels go up to {count - 1}, but only {distinct} are distinct; number the classes from 0, as "
            "numpy.unique(labels, return_inverse=True) does, or pass num_classes"
        )
    return count
