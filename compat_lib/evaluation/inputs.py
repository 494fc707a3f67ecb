"""What the evaluation is given, checked: features as rows of unit length, labels and ids as numbers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

ENTRIES = 2**21  # entries that are scaled to unit length together


class UnitRows:
    """The rows of a feature table, scaled to unit length at the moment they are taken.

    A gallery of a million is thus never held a second time. Rows of zeros have no direction: they stay zero,
    and their cosine with everything is 0.

    Args:
        features: float [N, D], NumPy array (any strides and byte order) or torch tensor (its device is kept).
        side: what the error messages call them, such as "query".

    Raises:
        ValueError: "the query features have shape ...", "the query features cannot be read as a table of
            numbers ...", or "... of the N rows of the query features hold NaN or infinite values".

    >>> rows = UnitRows([[3.0, 4.0], [0.0, 0.0]], "query")
    >>> rows.shape, rows[torch.tensor([1, 0])].tolist()
    ((2, 2), [[0.0, 0.0], [0.6000000238418579, 0.800000011920929]])
    """

    def __init__(self, features: Any, side: str):
        features = table(features, f"{side} features")
        self.device = torch.device("cpu") if isinstance(features, np.ndarray) else features.device
        self.shape = tuple(features.shape)
        self._features = features
        isfinite = np.isfinite if isinstance(features, np.ndarray) else torch.isfinite
        broken = sum(int((~isfinite(features[part]).all(1)).sum()) for part in self._parts(len(self)))
        if broken:
            raise ValueError(
                f"{broken} of the {len(self)} rows of the {side} features hold NaN or infinite values; "
                "look for a diverged model or a corrupt image and leave these rows out"
            )

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Return the rows of these numbers (int64 [n]) with unit length, float32 [n, D]."""
        unit = torch.empty(len(rows), self.shape[1], device=self.device)
        for part in self._parts(len(rows)):
            if isinstance(self._features, np.ndarray):
                taken = torch.from_numpy(self._features[rows[part].cpu().numpy()].astype(np.float64))
            else:
                taken = self._features[rows[part].to(self.device)].double()
            # Dividing by the largest entry first: squares of very large or very small numbers leave float64.
            largest = taken.abs().amax(1, keepdim=True)
            taken /= torch.where(largest > 0, largest, 1.0)
            length = torch.linalg.vector_norm(taken, dim=1, keepdim=True)
            unit[part] = taken / torch.where(length > 0, length, 1.0)
        return unit

    def _parts(self, rows: int) -> Iterator[slice]:
        step = max(1, ENTRIES // self.shape[1])
        return (slice(start, start + step) for start in range(0, rows, step))


def unit_rows(features: Any, side: str) -> Tensor:
    """Return all rows of `features`, checked and scaled to unit length: float32 [N, D], detached.

    Arguments and errors are those of `UnitRows`, which does the same without holding the result.

    >>> unit_rows([[3.0, 4.0], [0.0, 0.0]], "query")
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    rows = UnitRows(features, side)
    return rows[torch.arange(len(rows))]


def table(features: Any, what: str) -> np.ndarray | Tensor:
    """Return features as they are, an array or a detached tensor, if they are a table of real numbers.

    Raises:
        ValueError: "the ... cannot be read as a table of numbers ..." or "the ... have shape ...".

    >>> table([[3, 4]], "query features").dtype.kind
    'i'
    """
    if isinstance(features, Tensor):
        features, real = features.detach(), not features.is_complex()
    else:
        try:
            if isinstance(features, np.ma.MaskedArray):  # what is masked is not there
                features = features.astype(np.float64).filled(np.nan)
            features = np.asarray(features)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"the {what} cannot be read as a table of numbers ({error}); "
                "give one row of real numbers for each image"
            ) from error
        real = features.dtype.kind in "fiub"
    if features.ndim != 2 or 0 in features.shape or not real:
        raise ValueError(
            f"the {what} have shape {tuple(features.shape)} and type {features.dtype}; "
            "give one row of real numbers for each image: [N, D] with N and D at least 1"
        )
    return features


def as_tensor(values: np.ndarray | Tensor) -> Tensor:
    """Return real numbers as a tensor, in the same memory where torch can read it."""
    if isinstance(values, Tensor):
        return values
    # torch takes neither foreign byte orders nor negative strides nor float128.
    dtype = values.dtype.newbyteorder("=") if values.itemsize <= 8 else np.dtype(np.float64)
    with warnings.catch_warnings():  # features mapped from a file are read-only; nothing is written here
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(values, dtype))


def plain_array(values: Any) -> np.ndarray:
    """Return labels, ids or numbers as an array; names are of NumPy's type for text.

    What is neither numbers nor names, or both, becomes an array of objects, for the caller to refuse.

    >>> plain_array(["b", "a"]).dtype.kind, plain_array(["b", 1]).dtype.kind, plain_array([[1], [1, 2]]).shape
    ('U', 'O', (0,))
    """
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    try:
        array = np.asarray(values)
        if array.dtype.kind == "U" and isinstance(values, list | tuple):
            array = np.asarray(values, object)  # NumPy would take the number 1 for the name "1"
    except (TypeError, ValueError, RuntimeError):  # such as rows of unequal length
        return np.empty(0, object)
    if array.dtype.kind in "OT" and all(isinstance(value, str) for value in array.reshape(-1)):
        return array.astype(str)  # such as names as pandas gives them
    return array


def real_numbers(values: Any, what: str) -> np.ndarray:
    """Return real numbers as float64 of any shape; None becomes nan.

    Raises:
        ValueError: "the values have shape ... and type ...; give real numbers".

    >>> real_numbers([1, None], "values").tolist()
    [1.0, nan]
    """
    array = plain_array(values)
    try:
        if array.dtype.kind in "fiubO" and not (array.dtype.kind == "O" and not array.size):
            return array.astype(np.float64)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"the {what} have shape {array.shape} and type {array.dtype}; give real numbers")


def codes(
    query: Any, gallery: Any | None, lengths: tuple[int, int], what: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of both sides as numbers 0..K-1 of the sorted distinct values.

    Raises:
        ValueError: "there are ... query labels for ... query features".
    """
    arrays = []
    for side, values, length in zip(("query", "gallery"), (query, gallery), lengths, strict=True):
        if values is None and side == "gallery":
            continue
        array = plain_array(values)
        if array.ndim != 1 or array.dtype.kind not in "iubUS":
            raise ValueError(
                f"the {side} {what} have shape {array.shape} and type {array.dtype}; "
                "give one whole number (or name) for each row"
            )
        if len(array) != length:
            raise ValueError(
                f"there are {len(array)} {side} {what} for {length} {side} features; give one each"
            )
        arrays.append(array)
    if len({array.dtype.kind in "US" for array in arrays}) > 1:
        raise ValueError(f"one side's {what} are names and the other's are numbers; use one kind for both")
    if np.result_type(*arrays).kind == "f":  # int64 and uint64: in float64 large numbers would fall together
        if any((array > np.iinfo(np.int64).max).any() for array in arrays):
            raise ValueError(
                f"one side's {what} hold numbers of 2**63 and more and the other's are signed; use one type "
                "for both"
            )
        arrays = [array.astype(np.int64) for array in arrays]
    inverse = np.unique(np.concatenate(arrays), return_inverse=True)[1].astype(np.int64)
    first = inverse[: lengths[0]]
    return first, (first if gallery is None else inverse[lengths[0] :])


def whole_number(value: Any, what: str, example: int) -> int:
    """Return a whole number of at least 1.

    Raises:
        ValueError: "k is 0; give a whole number of at least 1, such as 100".

    >>> whole_number(5.0, "k", 100)
    5
    """
    try:
        right = not isinstance(value, bool) and int(value) == value and value >= 1
    except (TypeError, ValueError, OverflowError):  # not a number, or not a finite one
        right = False
    if not right:
        raise ValueError(f"{what} is {value}; give a whole number of at least 1, such as {example}")
    return int(value)


def two_parts(values: Any, what: str, parts: str) -> tuple[Any, Any]:
    """Return the two parts of an argument.

    Raises:
        ValueError: "cross is not a pair; give (query features, gallery features)".

    >>> two_parts([1, 2], "cross", "query features, gallery features")
    (1, 2)
    """
    try:
        first, second = values
    except (TypeError, ValueError):
        raise ValueError(f"{what} is not a pair; give ({parts})") from None
    return first, second


def whole_numbers(values: Any, what: str) -> tuple[int, ...]:
    """Return the whole numbers of a list, each of at least 1.

    Raises:
        ValueError: "ranks are 5; give whole numbers of at least 1 in a list, such as (1, 5)".

    >>> whole_numbers(np.array([1.0, 5.0]), "ranks")
    (1, 5)
    """
    try:
        given = tuple(values)
        numbers = tuple(int(value) for value in given)
        right = [n == v and n >= 1 and not isinstance(v, bool) for n, v in zip(numbers, given, strict=True)]
    except (TypeError, ValueError, OverflowError):  # not a list, or not of numbers
        right = []
    if not right or not all(right):
        raise ValueError(f"{what} are {values}; give whole numbers of at least 1 in a list, such as (1, 5)")
    return numbers


def fractions(values: Any, what: str) -> tuple[float, ...]:
    """Return the numbers of a list as floats, each above 0 and at most 1; the list may be empty.

    Raises:
        ValueError: "the FARs are 0.1; give a list ..." or "a FAR of 10 was given; it is a fraction ...".

    >>> fractions([1, 0.5], "a FAR")
    (1.0, 0.5)
    """
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError) as error:
        name = what.split()[-1]
        raise ValueError(
            f"the {name}s are {values!r}; give a list of fractions above 0 and at most 1, such as [1e-2]"
        ) from error
    for number in numbers:
        if not 0 < number <= 1:
            raise ValueError(
                f"{what} of {number:g} was given; it is a fraction above 0 and at most 1, such as 1e-2"
            )
    return numbers


def check_widths(query: int, gallery: int) -> None:
    """Refuse query and gallery features of unequal width.

    Raises:
        ValueError: "the query features have 64 columns and the gallery features 128 ...".
    """
    if query != gallery:
        raise ValueError(
            f"the query features have {query} columns and the gallery features {gallery}; "
            "cosines need equal widths; map one side into the other's space first"
        )
