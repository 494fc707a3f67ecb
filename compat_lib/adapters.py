"""Linear maps between two feature spaces, fitted after the new model was trained without the old one.

The direction is the caller's choice: old -> new transforms the whole gallery (a cheap backfill), new -> old
transforms only the query and leaves the gallery as it is.
"""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from compat_lib.evaluation.inputs import as_tensor, unit_length

ROWS_AT_ONCE = 65_536  # rows in double precision at a time, so that memory stays bounded


@dataclasses.dataclass(frozen=True, eq=False)
class LinearMap:
    """A fitted map x -> normalise((normalise(x) - source_mean) matrix + target_mean)."""

    matrix: Tensor  # float32 [d_s, d_t]
    source_mean: Tensor  # float32 [d_s], zeros when fitted without centring
    target_mean: Tensor  # float32 [d_t], likewise
    kind: str  # "procrustes" or "ridge"

    def apply(self, features) -> Tensor:
        """Features [N, d_s] (numpy or torch), mapped: float32 [N, d_t], unit rows, on their device."""
        features = as_tensor(features, "features")
        device = features.device
        centred = _unit(features, torch.float32) - self.source_mean.to(device)
        return _unit(centred @ self.matrix.to(device) + self.target_mean.to(device), torch.float32)


def fit_procrustes(source, target, *, centre: bool = False) -> LinearMap:
    """The rotation (and reflection) that brings paired features closest, in the sense of squares.

    Source: the orthogonal Procrustes problem (Schoenemann, Psychometrika 1966): U V^T of the singular value
    decomposition of source^T target. For unequal widths this is the polar factor: its rows or its columns,
    whichever are fewer, are orthonormal.

    Args:
        source, target: [N, d_s], [N, d_t] features of the same images (numpy or torch), normalised here.
        centre: subtract the mean of each side first, and add the target's mean back in `apply`.

    >>> quarter_turn = fit_procrustes([[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [-1.0, 0.0]])
    >>> quarter_turn.apply([[2.0, 0.0]]).tolist()
    [[0.0, 1.0]]
    """
    _, cross, source_mean, target_mean = _moments(source, target, centre)
    left, _, right = torch.linalg.svd(cross, full_matrices=False)
    return LinearMap((left @ right).float(), source_mean.float(), target_mean.float(), "procrustes")


def fit_ridge(source, target, *, penalty: float = 1e-3, centre: bool = False) -> LinearMap:
    """The linear map of least squared error with a penalty on its entries.

    Source: ridge regression (Hoerl and Kennard, Technometrics 1970), (S^T S + g I)^-1 S^T T on unit rows with
    g = penalty x trace(S^T S) / d_s, the mean eigenvalue: one value means the same for any number of rows and
    any width. Without penalty the solution of least norm is taken. Arguments as in `fit_procrustes`.

    >>> half = fit_ridge([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], penalty=1.0)
    >>> half.matrix.round(decimals=3).tolist()
    [[0.5, 0.0], [0.0, 0.5]]
    """
    if not 0 <= penalty < float("inf"):
        raise ValueError(f"penalty must be at least 0, not {penalty}. 0 is plain least squares.")
    square, cross, source_mean, target_mean = _moments(source, target, centre)
    values, vectors = torch.linalg.eigh(square)
    values = values.clamp(min=0)
    damped = values + penalty * values.mean()
    empty = damped <= len(values) * torch.finfo(values.dtype).eps * values.max()
    inverse = damped.where(~empty, 1.0).reciprocal().where(~empty, 0.0)
    matrix = vectors @ (inverse[:, None] * (vectors.T @ cross))
    return LinearMap(matrix.float(), source_mean.float(), target_mean.float(), "ridge")


ADAPTERS = {"procrustes": fit_procrustes, "ridge": fit_ridge}


def _unit(features: Tensor, dtype: torch.dtype) -> Tensor:
    # Rows too large or too small for their squares take the way through double precision; zeros stay zero.
    rows = features.to(dtype)
    unit, length = F.normalize(rows, dim=1), torch.linalg.vector_norm(rows, dim=1)
    odd = ~((length > 1e-12) & (length < torch.inf))
    unit[odd] = unit_length(features[odd].double()).to(dtype)
    return unit


def _moments(source, target, centre: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """S^T S, S^T T and the means of unit rows, float64 on the CPU, in blocks of rows."""
    sides = as_tensor(source, "source features"), as_tensor(target, "target features")
    if len(sides[0]) != len(sides[1]) or not all(torch.isfinite(side).all() for side in sides):
        raise ValueError(
            f"source has {len(sides[0])} rows, target {len(sides[1])}, and all values must be finite. Row i "
            "of both must be the same image; leave images with NaN out on both sides."
        )

    def blocks():
        for parts in zip(*(side.split(ROWS_AT_ONCE) for side in sides), strict=True):
            yield tuple(_unit(part.cpu(), torch.float64) for part in parts)

    widths = [side.shape[1] for side in sides]
    means = [torch.zeros(width, dtype=torch.float64) for width in widths]
    for part in blocks() if centre else ():
        for mean, rows in zip(means, part, strict=True):
            mean += rows.sum(dim=0) / len(sides[0])
    square = torch.zeros(widths[0], widths[0], dtype=torch.float64)
    cross = torch.zeros(widths[0], widths[1], dtype=torch.float64)
    for s, t in blocks():
        s, t = s - means[0], t - means[1]
        square += s.T @ s
        cross += s.T @ t
    return square, cross, *means
