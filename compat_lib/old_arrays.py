"""A user's arrays of an old system: taken from NumPy, torch, pandas or lists, or refused with a sentence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor


def numbers(name: str, value: Any, dimensions: int) -> Tensor | None:
    """A user's array (NumPy, torch, pandas, lists) as finite float32 of 1 or 2 dimensions; None stays None.

    Raises:
        TypeError, ValueError: "features must be real numbers, not complex64", "features hold 2 values that
            are not finite, first in row 7; ...", and for another shape.

    >>> numbers("classifier_bias", [1, 2], 1)
    tensor([1., 2.])
    """
    if value is None:
        return None
    tensor = _tensor(name, value, ("float", "bfloat", "int", "uint", "bool"), torch.float32)
    if tensor.ndim != dimensions or not tensor.numel():
        shape = "[rows, width]" if dimensions == 2 else "[classes]"
        raise ValueError(f"{name} must have the shape {shape} and not be empty, not {list(tensor.shape)}")
    if len(wrong := (~tensor.isfinite()).nonzero()):
        raise ValueError(
            f"{name} hold {len(wrong)} values that are not finite, first in row {int(wrong[0, 0])}; extract "
            "them again, or leave these rows out of the training set"
        )
    return tensor


def integers(name: str, value: Any) -> Tensor | None:
    """A user's array as int64 of one dimension; None stays None."""
    if value is None:
        return None
    tensor = _tensor(name, value, ("int", "uint"), torch.int64)
    if tensor.ndim != 1:
        raise ValueError(f"{name} must have one dimension, not the shape {list(tensor.shape)}")
    return tensor


def _tensor(name: str, value: Any, kinds: tuple[str, ...], dtype: torch.dtype) -> Tensor:
    """A tensor of this type; rows in their order, whatever index a pandas table has."""
    if isinstance(value, list | tuple) and len(value) and isinstance(value[0], Tensor):
        value = torch.stack(list(value))
    if not isinstance(value, Tensor):
        value = np.asarray(value)
        value = np.array(value.tolist()) if value.dtype == object else value  # such as pandas' Int64
    kind = value.dtype.name if isinstance(value, np.ndarray) else str(value.dtype).removeprefix("torch.")
    if not kind.startswith(kinds):
        what = "real numbers" if "float" in kinds else "whole numbers"
        raise TypeError(f"{name} must be {what}, not {value.dtype}; convert them where that is what they are")
    if isinstance(value, np.ndarray):
        with np.errstate(over="ignore"):  # what becomes infinite is refused with its row
            value = torch.from_numpy(np.require(value, str(dtype).removeprefix("torch."), "CW"))
    return value.detach().to(dtype).contiguous()


def common_width(**tables: Tensor | None) -> int:
    """The one width of all tables that are there."""
    widths = {name: table.shape[1] for name, table in tables.items() if table is not None}
    if not widths:
        raise ValueError("give at least one of features with labels, prototypes and classifier_weight")
    if len(set(widths.values())) > 1:
        shown = ", ".join(f"{name} have width {width}" for name, width in widths.items())
        raise ValueError(f"the old system's arrays disagree: {shown}; all must come from one old model")
    return next(iter(widths.values()))


def count_classes(
    num_classes: int | None, labels: Tensor | None, prototypes: Tensor | None, class_map: Tensor | None
) -> int:
    """How many new classes there are: as the user says, as tables by class say, or as the labels go."""
    if num_classes is not None:
        if not isinstance(num_classes, int | np.integer) or num_classes < 1:
            raise ValueError(f"num_classes must be a whole number of at least 1, not {num_classes!r}")
        return int(num_classes)
    for table in (class_map, prototypes):
        if table is not None:
            return len(table)
    if labels is None or not len(labels):
        raise ValueError("how many new classes there are is not known; pass num_classes or labels")
    count, distinct = int(labels.max()) + 1, len(labels.unique())
    if count > 1000 + 10 * distinct:  # tables with a row for each class would not fit into memory
        raise ValueError(
            f"labels go up to {count - 1}, but only {distinct} are distinct; number the classes from 0, as "
            "numpy.unique(labels, return_inverse=True) does, or pass num_classes"
        )
    return count


def check_rows(
    features: Tensor | None, labels: Tensor | None, prototypes: Tensor | None, num_classes: int
) -> None:
    """Refuse features, labels and prototypes that do not belong together."""
    if features is not None and (labels is None or len(features) != len(labels)):
        count = "none" if labels is None else len(labels)
        raise ValueError(f"features have {len(features)} rows but labels {count}; give one for each image")
    if prototypes is not None and len(prototypes) != num_classes:
        raise ValueError(f"prototypes have {len(prototypes)} rows, but there are {num_classes} new classes")
    if labels is not None and len(wrong := ((labels < 0) | (labels >= num_classes)).nonzero()):
        row = int(wrong[0])
        raise ValueError(
            f"labels must be 0 to {num_classes - 1}, but row {row} has {int(labels[row])}; number the new "
            "classes from 0, and pass num_classes if the largest label has no sample"
        )


def check_classifier(
    weight: Tensor | None,
    bias: Tensor | None,
    scale: float | None,
    class_map: Tensor | None,
    num_classes: int,
) -> None:
    """Refuse an old classifier whose parts, or whose class map, do not belong together."""
    rows = 0 if weight is None else len(weight)
    if bias is not None and len(bias) != rows:
        raise ValueError(f"classifier_bias has {len(bias)} values but classifier_weight {rows} rows")
    if scale is not None and (weight is None or bias is not None or not 0 < scale < math.inf):
        raise ValueError(
            f"classifier_scale must be above 0, not {scale!r}, and belongs to a cosine classifier: pass it "
            "with classifier_weight and without classifier_bias"
        )
    if class_map is None:
        return
    if len(class_map) != num_classes:
        raise ValueError(f"class_map has {len(class_map)} entries, but there are {num_classes} new classes")
    largest = math.inf if weight is None else rows - 1
    if len(wrong := ((class_map < -1) | (class_map > largest)).nonzero()):
        label = int(wrong[0])
        raise ValueError(
            f"class_map must hold old labels up to {largest}, or -1 for a class that the old model never "
            f"saw, but new label {label} maps to {int(class_map[label])}"
        )
