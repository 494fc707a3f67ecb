"""Linear maps between two feature spaces, fitted after the new model was trained without the old one.

This is what one would try before training a compatible model. The direction is the caller's choice and is
part of every result: old -> new transforms the whole gallery (a cheap backfill), new -> old transforms only
the query and leaves the gallery as it is.
"""

import dataclasses
from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor

from compat_lib.evaluation.inputs import as_tensor, table

ROWS_AT_ONCE = 65_536  # rows in double precision at a time, so that memory stays bounded


@dataclasses.dataclass(frozen=True, eq=False)
class LinearMap:
    """A fitted map x -> normalise((normalise(x) - source_mean) matrix + target_mean).

    Args:
        matrix: float32 [d_s, d_t].
        source_mean: float32 [d_s], zeros when fitted without centring.
        target_mean: float32 [d_t], zeros when fitted without centring.
        kind: "procrustes" or "ridge".
    """

    matrix: Tensor
    source_mean: Tensor
    target_mean: Tensor
    kind: str

    def apply(self, features) -> Tensor:
        """Features of the source space, mapped into the target space.

        Args:
            features: [N, d_s] real numbers (numpy or torch), normalised or not.
        Returns:
            float32 [N, d_t], unit rows, on the device of `features`.
        Raises:
            ValueError: "The map takes features of shape [N, 64], not [10, 32]." or "the features have shape
                ..." for what is no table of real numbers.
        """
        features = as_tensor(table(features, "features"))
        if features.shape[1] != len(self.matrix):
            raise ValueError(
                f"The map takes features of shape [N, {len(self.matrix)}], not {list(features.shape)}. It "
                "maps the space it was fitted on as source; fit another for the other direction."
            )
        matrix, source_mean, target_mean = (
            one.to(features.device) for one in (self.matrix, self.source_mean, self.target_mean)
        )
        centred = F.normalize(features.float(), dim=1) - source_mean
        return F.normalize(centred @ matrix + target_mean, dim=1)


def fit_procrustes(source, target, *, centre: bool = False) -> LinearMap:
    """The rotation (and reflection) that brings paired features closest, in the sense of squares.

    Source: the orthogonal Procrustes problem (Schoenemann, Psychometrika 1966): U V^T of the singular value
    decomposition of source^T target. For unequal widths this is the polar factor: its rows or its columns,
    whichever are fewer, are orthonormal.

    Args:
        source: [N, d_s] real numbers (numpy or torch), normalised here.
        target: [N, d_t], the features of the same images in the other space, normalised here.
        centre: subtract the mean of each side first, and add the target's mean back in `apply`.
    Raises:
        ValueError: "source has 10 rows, target 9. ..." or values that are not finite.

    >>> quarter_turn = fit_procrustes([[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [-1.0, 0.0]])
    >>> quarter_turn.apply([[2.0, 0.0]]).tolist()
    [[0.0, 1.0]]
    """
    _, cross, source_mean, target_mean = _moments(source, target, centre)
    left, _, right = torch.linalg.svd(cross, full_matrices=False)
    return LinearMap((left @ right).float(), source_mean.float(), target_mean.float(), "procrustes")


def fit_ridge(source, target, *, penalty: float = 1e-3, centre: bool = False) -> LinearMap:
    """The linear map of least squared error with a penalty on its entries.

    Source: ridge regression (Hoerl and Kennard, Technometrics 1970), (S^T S + g I)^-1 S^T T on unit rows. The
    penalty is relative: g = penalty x trace(S^T S) / d_s, the mean eigenvalue, so that one value means the
    same for any number of rows and any width. With penalty 0 and directions without data, the solution of
    least norm is taken.

    Args:
        source: [N, d_s] real numbers (numpy or torch), normalised here.
        target: [N, d_t], the features of the same images in the other space, normalised here.
        penalty: at least 0, in units of the mean eigenvalue of S^T S.
        centre: subtract the mean of each side first, and add the target's mean back in `apply`.
    Raises:
        ValueError: "penalty must be at least 0, not -1." or what `fit_procrustes` refuses.

    >>> half = fit_ridge([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], penalty=1.0)
    >>> half.matrix.round(decimals=3).tolist()
    [[0.5, 0.0], [0.0, 0.5]]
    """
    if not isinstance(penalty, Real) or not 0 <= penalty < float("inf"):
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


def _moments(source, target, centre: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """S^T S, S^T T and the means of unit rows, float64 on the CPU, in blocks of rows."""
    source, target = as_tensor(table(source, "source features")), as_tensor(table(target, "target features"))
    for name, features in (("source", source), ("target", target)):
        if not torch.isfinite(features).all():
            raise ValueError(f"{name} holds values that are not finite. Leave these rows out on both sides.")
    if len(source) != len(target):
        raise ValueError(
            f"source has {len(source)} rows, target {len(target)}. Row i of both must be the same image."
        )

    def blocks():
        for start in range(0, len(source), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            yield tuple(F.normalize(side[rows].cpu().double(), dim=1) for side in (source, target))

    source_mean = torch.zeros(source.shape[1], dtype=torch.float64)
    target_mean = torch.zeros(target.shape[1], dtype=torch.float64)
    if centre:
        for s, t in blocks():
            source_mean += s.sum(dim=0) / len(source)
            target_mean += t.sum(dim=0) / len(source)
    square = torch.zeros(source.shape[1], source.shape[1], dtype=torch.float64)
    cross = torch.zeros(source.shape[1], target.shape[1], dtype=torch.float64)
    for s, t in blocks():
        s, t = s - source_mean, t - target_mean
        square += s.T @ s
        cross += s.T @ t
    return square, cross, source_mean, target_mean
