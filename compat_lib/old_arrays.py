"""A user's arrays of an old system: taken in from numpy, torch or lists, or refused with a sentence."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


def _tensor(name: str, value) -> Tensor:
    if isinstance(value, np.ndarray) and value.dtype.kind in "iuf":  # torch knows no other layouts and types
        native = np.dtype(np.float64) if value.dtype.itemsize > 8 else value.dtype.newbyteorder("=")
        value = np.asarray(value, native, order="C")
    try:
        return torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        of = value.dtype if isinstance(value, np.ndarray) else "something else"
        raise TypeError(
            f"{name} must be an array of numbers (numpy, torch or nested lists), not {type(value).__name__} "
            f"of {of}."
        ) from error


def numbers(name: str, value, dimensions: int) -> Tensor | None:
    """A user's array as float32, finite and with the given number of dimensions (1 or 2); None stays None.

    Raises:
        TypeError: "features must be real numbers, not complex64."
        ValueError: "features must have the shape [rows, width] and not be empty, not [5]. ..." or "features
            hold 2 values that are not finite, first in row 7. ..."

    >>> numbers("classifier_bias", [1, 2], 1)
    tensor([1., 2.])
    """
    if value is None:
        return None
    tensor = _tensor(name, value)
    if tensor.is_complex():
        raise TypeError(f"{name} must be real numbers, not {str(tensor.dtype).removeprefix('torch.')}.")
    tensor = tensor.to(torch.float32).contiguous()
    shape = "[rows, width]" if dimensions == 2 else "[classes]"
    if tensor.ndim != dimensions or tensor.numel() == 0:
        raise ValueError(
            f"{name} must have the shape {shape} and not be empty, not {list(tensor.shape)}. Pass one row "
            "for each image or class."
        )
    wrong = ~tensor.isfinite()
    if wrong.any():
        row = int(wrong.flatten(1).any(dim=1).nonzero()[0]) if dimensions == 2 else int(wrong.nonzero()[0])
        raise ValueError(
            f"{name} hold {int(wrong.sum())} values that are not finite, first in row {row}. Extract them "
            "again, or leave these rows out of the training set."
        )
    return tensor


def integers(name: str, value) -> Tensor | None:
    """A user's array as int64 of one dimension; None stays None.

    Raises:
        TypeError: "labels must be whole numbers, not float32. ..."
        ValueError: "labels must have one dimension, not the shape [5, 1]."

    >>> integers("labels", [0, 1])
    tensor([0, 1])
    """
    if value is None:
        return None
    tensor = _tensor(name, value)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(
            f"{name} must be whole numbers, not {str(tensor.dtype).removeprefix('torch.')}. Convert them "
            "with .astype('int64') if they are."
        )
    if tensor.ndim != 1:
        raise ValueError(f"{name} must have one dimension, not the shape {list(tensor.shape)}.")
    return tensor.to(torch.int64).contiguous()


def check_rows(features: Tensor | None, labels: Tensor | None, num_classes: int) -> None:
    """Refuses features and labels that do not belong together, and labels outside 0..num_classes-1.

    Raises:
        ValueError: "features have 5 rows but labels 4. ..." or "labels must be 0 to 6, but row 3 has 9. ..."
    """
    if features is not None and labels is None:
        raise ValueError(
            f"features have {len(features)} rows but no labels were given. Pass labels, the new label of "
            "each row."
        )
    if labels is None:
        return
    if features is not None and len(features) != len(labels):
        raise ValueError(
            f"features have {len(features)} rows but labels {len(labels)}. Both must have one for each image "
            "of the new training set, in its order."
        )
    wrong = (labels < 0) | (labels >= num_classes)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"labels must be 0 to {num_classes - 1}, but row {row} has {int(labels[row])}. Number the new "
            "classes from 0, and pass num_classes if the largest label has no sample."
        )


def check_classifier(
    weight: Tensor | None,
    bias: Tensor | None,
    scale: float | None,
    class_map: Tensor | None,
    num_classes: int,
) -> None:
    """Refuses an old classifier whose parts, or whose class map, do not belong together.

    Raises:
        ValueError: "class_map must hold -1 to 29, but new label 3 maps to 30. ..." and the like.
    """
    if bias is not None and (weight is None or len(bias) != len(weight)):
        rows = "no rows" if weight is None else f"{len(weight)} rows"
        raise ValueError(
            f"classifier_bias has {len(bias)} values but classifier_weight {rows}. Pass both from one "
            "classifier."
        )
    if scale is not None:
        if weight is None or bias is not None:
            raise ValueError(
                "classifier_scale belongs to a cosine classifier: pass it with classifier_weight and without "
                "classifier_bias."
            )
        if (
            isinstance(scale, bool)
            or not isinstance(scale, int | float | np.number)
            or not 0 < scale < math.inf
        ):
            raise ValueError(f"classifier_scale must be a number above 0, not {scale!r}.")
    if class_map is None:
        return
    if len(class_map) != num_classes:
        raise ValueError(
            f"class_map has {len(class_map)} entries, but there are {num_classes} new classes. Give one old "
            "label for each new class, -1 where the old model never saw it."
        )
    largest = None if weight is None else len(weight) - 1
    wrong = class_map < -1 if largest is None else (class_map < -1) | (class_map > largest)
    if wrong.any():
        label = int(wrong.nonzero()[0])
        allowed = "-1 or an old label" if largest is None else f"-1 to {largest}"
        raise ValueError(
            f"class_map must hold {allowed}, but new label {label} maps to {int(class_map[label])}. Use the "
            "rows of classifier_weight as old labels and -1 for classes that the old model never saw."
        )


def names(name: str, value) -> np.ndarray:
    """A user's names or numbers of images or classes, as text [N].

    Raises:
        TypeError: "ids must be names or whole numbers, but row 3 holds None. ..."
        ValueError: "ids must have one dimension, not the shape [5, 1]."

    >>> names("labels", [7.0, 12]).tolist()
    ['7', '12']
    """
    array = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
    if array.ndim != 1:
        raise ValueError(f"{name} must have one dimension, not the shape {list(array.shape)}.")
    if array.dtype.kind == "U":
        return array
    texts = []
    for row, one in enumerate(array.tolist()):
        if isinstance(one, float) and one.is_integer():  # what pandas makes of whole numbers beside a gap
            one = int(one)
        if isinstance(one, bool) or not isinstance(one, str | int | bytes):
            raise TypeError(
                f"{name} must be names or whole numbers, but row {row} holds {one!r}. Give every row one, or "
                "leave the row out."
            )
        texts.append(one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one))
    return np.array(texts, dtype=str)


def by_class(tables: Mapping[str, object], classes: Sequence[str]) -> dict[str, object]:
    """Prototypes or an old classifier with the names of their rows, as arguments of OldSystem.from_arrays.

    Args:
        tables: "prototypes" [P, d] with "prototype_classes" [P]; "classifier_weight" [C_old, d] with
            "classifier_classes" [C_old], and perhaps "classifier_bias" [C_old] and "classifier_scale".
        classes: names of the C new classes, in the order in which they are numbered.
    Raises:
        ValueError: "prototypes come without prototype_classes, ...", "prototype_classes have 5 names, but
            prototypes 6 rows. ..." or "prototype_classes hold 'anna' twice. ..."

    >>> given = by_class({"prototypes": [[1.0], [2.0]], "prototype_classes": ["b", "x"]}, ["a", "b"])
    >>> given["num_classes"], given["prototypes"].tolist()
    (2, [[0.0], [1.0]])
    """
    place = {str(name): number for number, name in enumerate(classes)}
    given: dict[str, object] = {"num_classes": len(place)}
    for name, key in (("prototypes", "prototype_classes"), ("classifier_weight", "classifier_classes")):
        if tables.get(name) is None:
            continue
        if tables.get(key) is None:
            raise ValueError(f"{name} come without {key}, the class folder of each row. Save both together.")
        rows, called = numbers(name, tables[name], 2).numpy(), names(key, tables[key]).tolist()
        if len(called) != len(rows):
            raise ValueError(
                f"{key} have {len(called)} names, but {name} {len(rows)} rows. Give each a name."
            )
        if len(set(called)) < len(called):
            twice = next(one for one in called if called.count(one) > 1)
            raise ValueError(f"{key} hold {twice!r} twice. Give each class one row.")
        known = [(row, place[one]) for row, one in enumerate(called) if one in place]
        if name == "prototypes":
            given[name] = np.zeros((len(place), rows.shape[1]), np.float32)
            for row, label in known:
                given[name][label] = rows[row]
        else:
            given |= {name: rows, "class_map": np.full(len(place), -1, dtype=np.int64)}
            for row, label in known:
                given["class_map"][label] = row
            if tables.get("classifier_bias") is not None:
                given["classifier_bias"] = tables["classifier_bias"]
            if tables.get("classifier_scale") is not None:  # a file holds it as an array of one number
                given["classifier_scale"] = np.asarray(tables["classifier_scale"]).item()
    return given
