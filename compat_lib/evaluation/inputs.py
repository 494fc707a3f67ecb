"""What the evaluation is given: features as rows of unit length, labels and ids as whole numbers."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

ENTRIES = 2**21  # entries that are scaled to unit length together


class UnitRows:
    """The rows of a feature table, scaled to unit length at the moment they are taken.

    A gallery of a million is thus never held a second time. Rows of zeros stay zero. `side` is what the error
    messages call them, such as "query".

    >>> rows = UnitRows([[3.0, 4.0], [0.0, 0.0]], "query")
    >>> rows.shape, rows[torch.tensor([1, 0])].tolist()
    ((2, 2), [[0.0, 0.0], [0.6000000238418579, 0.800000011920929]])
    """

    def __init__(self, features: Any, side: str):
        self._features = as_tensor(features, f"{side} features")
        self.device, self.shape = self._features.device, tuple(self._features.shape)
        self.whole = True  # whole numbers so small that their products add up exactly in float32
        self.codes = True  # in each row zeros and one size, as in binary codes of length 1: their signs do so
        wrong: list[int] = []
        for part in slices(len(self), ENTRIES // self.shape[1]):
            rows = self._taken(part)
            wrong += (part.start + (~torch.isfinite(rows).all(1)).nonzero()[:, 0]).tolist()
            if self.whole:
                self.whole = bool((rows == rows.round()).all()) and float(rows.square().sum(1).max()) < 2**23
            if self.codes:
                size = rows.abs()
                self.codes = bool(((size == 0) | (size == size.amax(1, keepdim=True))).all())
        if wrong:
            raise ValueError(
                f"{len(wrong)} of the {len(self)} rows of the {side} features hold NaN or infinite values, "
                f"first row {wrong[0]}; look for a diverged model or a corrupt image and leave these rows out"
            )

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Return the rows of these numbers (int64 [n]) with unit length, float32 [n, D]."""
        unit = torch.empty(len(rows), self.shape[1], dtype=torch.float32, device=self.device)
        for part in slices(len(rows), ENTRIES // self.shape[1]):
            unit[part] = self.exact(rows[part])
        return unit

    def exact(self, rows: Tensor) -> Tensor:
        """Return the rows of these numbers with unit length, float64 [n, D]."""
        return unit_length(self._taken(rows))

    def multiples(self, rows: Tensor) -> Tensor:
        """Return the rows of these numbers as whole ones, float32 [n, D]; for `whole` and `codes` alone."""
        return (self._taken(rows) if self.whole else self._taken(rows).sign()).float()

    def _taken(self, rows: Tensor | slice) -> Tensor:
        return self._features[rows.to(self.device) if isinstance(rows, Tensor) else rows].double()


def refuse_unequal_widths(query: Tensor | UnitRows, gallery: Tensor | UnitRows) -> None:
    """Raise a ValueError where a query has no cosine with a gallery item."""
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"the query features have {query.shape[1]} columns and the gallery features {gallery.shape[1]}; "
            "cosines need equal widths; map one side into the other's space first"
        )


def slices(length: int, step: int) -> Iterator[slice]:
    """Yield slices that cover 0..length-1, of `step` each, or of 1 where that is less."""
    step = max(1, step)
    return (slice(start, min(start + step, length)) for start in range(0, length, step))


def unit_rows(features: Any, side: str) -> Tensor:
    """Return all rows of `features`, checked and scaled to unit length: float32 [N, D], detached.

    float64 where they are whole numbers or codes, many of whose cosines are equal and should tie.
    """
    rows = UnitRows(features, side)
    every = torch.arange(len(rows))
    return rows.exact(every) if rows.whole or rows.codes else rows[every]


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Keep products of float32 in float32, also where the user's program chose TF32, bfloat16 or autocast."""
    backends = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    chosen = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for backend, precision in zip(backends, chosen, strict=True):
            backend.fp32_precision = precision


def unit_length(rows: Tensor) -> Tensor:
    """Return float64 rows scaled to length 1; rows of zeros stay zero."""
    # Dividing by the largest entry first: squares of very large or very small numbers leave float64.
    largest = rows.abs().amax(1, keepdim=True)
    rows = rows / torch.where(largest > 0, largest, 1.0)
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(length > 0, length, 1.0)


def plain(values: Any) -> np.ndarray | Tensor:
    """Return a detached tensor or a NumPy array, with NaN for what is masked."""
    if isinstance(values, list | tuple) and len(values) and isinstance(values[0], Tensor):
        values = torch.stack(list(values))
    if np.ma.isMA(values) and np.ma.is_masked(values):  # pandas' arrays have a mask of their own
        values = values.astype(object).filled(np.nan)
    return values.detach() if isinstance(values, Tensor) else np.asarray(values)


def table(features: Any, what: str) -> np.ndarray | Tensor:
    """Return features as they are, an array or a detached tensor; ValueError if no table of real numbers."""
    features = plain(features)
    if features.dtype == object:  # such as pandas' Float64
        features = np.array(features.tolist())
    kind = features.dtype
    if isinstance(features, Tensor):
        odd = features.layout != torch.strided or features.is_meta or features.is_quantized
        kind = f"{kind}, {features.layout} on {features.device}" if odd else kind
        real = not (odd or features.is_complex())
    else:
        real = kind.kind in "fiub"
    if features.ndim != 2 or 0 in features.shape or not real:
        raise ValueError(
            f"the {what} have shape {tuple(features.shape)} and type {kind}; "
            "give one row of real numbers for each image: [N, D] with N and D at least 1"
        )
    return features


def as_tensor(features: Any, what: str) -> Tensor:
    """Return a table of features, see `table`, as a tensor, in the same memory where torch can read it."""
    values = table(features, what)
    if isinstance(values, Tensor):
        return values
    # torch takes neither foreign byte orders nor negative strides nor float128.
    dtype = values.dtype.newbyteorder("=") if values.itemsize <= 8 else np.dtype(np.float64)
    with warnings.catch_warnings():  # features mapped from a file are read-only; nothing is written here
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(values, dtype))


def paired_rows(first: Any, second: Any, *names: str) -> tuple[Tensor, Tensor]:
    """Return features of the same images by two models as tensors, see `as_tensor`; they must be finite."""
    sides = tuple(
        as_tensor(side, f"{name} features") for side, name in zip((first, second), names, strict=True)
    )
    if len(sides[0]) != len(sides[1]) or not all(torch.isfinite(side).all() for side in sides):
        raise ValueError(
            f"{names[0]} has {len(sides[0])} rows, {names[1]} {len(sides[1])}, all values must be finite. "
            "Row i of both must be the same image; leave images with NaN out on both sides."
        )
    return sides


def plain_array(values: Any) -> np.ndarray:
    """Return labels or ids as an array; names, also as pandas gives them, are of NumPy's type for text.

    Names are taken in Unicode's form NFC, in which two spellings of one name are equal.
    """
    array = plain(values)
    array = array.cpu().numpy() if isinstance(array, Tensor) else array
    if array.dtype.kind == "U" and isinstance(values, list | tuple):
        array = np.array(values, object)  # else what is no name becomes one, such as a missing label "nan"
    text = array.dtype.kind in "OT" and all(isinstance(value, str) for value in array.reshape(-1))
    array = array.astype(str) if text else array
    if array.dtype == object and all(type(value) is int for value in array.ravel().tolist()):
        array = np.array(array.tolist())  # as columns of a table that also holds text
    if array.dtype.kind == "U" and not "".join(array.ravel().tolist()).isascii():
        names = [unicodedata.normalize("NFC", one) for one in array.ravel().tolist()]
        array = np.array(names).reshape(array.shape)
    return array


def names_or_numbers(values: Any, what: str, length: int | None = None) -> np.ndarray:
    """Return labels or ids as an array [N] of whole numbers or of text; ValueError for anything else."""
    array = plain_array(values)
    if array.ndim != 1 or array.dtype.kind not in "iubUS" or len(array) != (length or len(array)):
        number = "each row" if length is None else f"each of {length} rows"
        odd = [one for one in array.tolist() if not isinstance(one, str)] if array.dtype == object else []
        raise ValueError(
            f"the {what} have shape {array.shape} and type {array.dtype}; give one whole number (or name) "
            f"for {number}{f', not {odd[0]!r}' if odd else ''}"
        )
    return array


def codes(
    query: Any, gallery: Any | None, lengths: Sequence[int], what: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of both sides as numbers 0..K-1 of the sorted distinct values, int64.

    `gallery` None: the values of the query; `lengths`: how many there should be; `what`: such as "labels".
    """
    sides = [names_or_numbers(query, f"query {what}", lengths[0])]
    if gallery is not None:
        sides.append(names_or_numbers(gallery, f"gallery {what}", lengths[1]))
    if len({side.dtype.kind in "US" for side in sides}) > 1:
        raise ValueError(f"one side's {what} are names and the other's are numbers; use one kind for both")
    if np.result_type(*sides).kind == "f":  # int64 and uint64: in float64 large numbers would fall together
        sides = [side.astype(object) for side in sides]
    inverse = np.unique(np.concatenate(sides), return_inverse=True)[1].astype(np.int64)
    first = inverse[: len(sides[0])]
    return first, (first if gallery is None else inverse[len(sides[0]) :])


def codes_of_ids(
    query_ids: Any, gallery_ids: Any, lengths: Sequence[int]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return `codes` of the image ids of both sides, or None where there are none."""
    if (query_ids is None) != (gallery_ids is None):
        raise ValueError("only one of query_ids and gallery_ids was given: give both, or neither")
    return None if query_ids is None else codes(query_ids, gallery_ids, lengths, "ids")


def whole_numbers(values: Any, what: str) -> tuple[int, ...]:
    """Return one whole number or several, or ValueError unless each is at least 1."""
    numbers = np.atleast_1d(values)
    if numbers.size and (numbers.ndim > 1 or numbers.dtype.kind not in "iu" or numbers.min() < 1):
        raise ValueError(f"{what} are {values!r}; give whole numbers of at least 1, such as (1, 5)")
    return tuple(numbers.tolist())


def fractions(values: Any, what: str) -> tuple[float, ...]:
    """Return one number or several as floats, or ValueError unless each is above 0 and at most 1."""
    numbers = tuple(np.atleast_1d(np.asarray(values, np.float64)).tolist())
    for number in numbers:
        if not 0 < number <= 1:
            raise ValueError(
                f"{what} of {number:g} was given; it is a fraction above 0 and at most 1, such as 1e-2"
            )
    return numbers
