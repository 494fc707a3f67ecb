"""What can be fitted after the new model was trained without the old one, and needs no training.

A linear map's direction is the caller's choice: old -> new transforms the whole gallery (a cheap backfill),
new -> old only the queries. An interpolation asks the old gallery with both models' features of a query.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from compat_lib.evaluation.inputs import as_tensor, codes, full_precision, paired_rows, unit_length
from compat_lib.files import load_tensors, save_tensors

ROWS_AT_ONCE = 65_536  # rows in double precision at a time, so that memory stays bounded
ALPHAS = tuple(k / 10 for k in range(11))  # weights of the new query: 0 is the old system, 1 the map alone
TUNED = 4_000  # images, of whole identities drawn at random, by which a weight is chosen
CLAMP = 1 - 1e-7  # the largest cosine of which an angle is taken; beyond it rows are interpolated on a line
SIDES = ("query", "gallery")


@dataclasses.dataclass(frozen=True, eq=False)
class LinearMap:
    """A fitted map x -> normalise(normalise(x) matrix)."""

    matrix: Tensor  # float32 [d_s, d_t]
    kind: str  # "procrustes" or "ridge"
    side: str | None = None  # what it maps: the new model's "query", or the old "gallery"; None: unsaid

    def apply(self, features) -> Tensor:
        """Features [N, d_s] (numpy or torch), mapped: float32 [N, d_t], unit rows, on their device."""
        features = as_tensor(features, "features")
        if features.shape[1] != len(self.matrix):
            raise ValueError(
                f"the map takes features of width {len(self.matrix)}, not {features.shape[1]}; it was fitted "
                f"from {len(self.matrix)} to {self.matrix.shape[1]} numbers, in this direction alone"
            )
        with full_precision(features.device):
            mapped = _unit(features, torch.float32) @ self.matrix.to(features.device)
        return _unit(mapped, torch.float32)

    def save(self, path: str | Path) -> None:
        """Write the map to a safetensors file, from which `load_adapter` reads it."""
        if self.side not in SIDES:
            raise ValueError(
                "say what the map is for: dataclasses.replace(map, side='query'), which maps queries of the "
                "new model to the old gallery, or 'gallery', which maps stored old features to the new space"
            )
        source, target = map(str, self.matrix.shape)
        about = {"kind": self.kind, "side": self.side, "source_width": source, "target_width": target}
        save_tensors({"matrix": self.matrix}, path, about)


def load_adapter(path: str | Path) -> LinearMap:
    """The map that `LinearMap.save`, or ``compat-lib check --save-adapter``, wrote; else a ValueError."""
    tensors, about = load_tensors(path)
    matrix, means = tensors.pop("matrix", None), tensors  # which earlier versions wrote, nearly always zeros
    if matrix is None or set(means) - {"source_mean", "target_mean"} or about.get("side") not in SIDES:
        raise ValueError(f"{path} holds no adapter; write one with compat-lib check --save-adapter")
    if any(mean.any() for mean in means.values()):
        raise ValueError(f"{path} holds an adapter that was fitted with means; fit it again, without them")
    return LinearMap(matrix, about["kind"], about["side"])


def fit_procrustes(source, target) -> LinearMap:
    """The rotation (and reflection) that brings paired features closest, in the sense of squares.

    Source: the orthogonal Procrustes problem (Schoenemann, Psychometrika 1966): U V^T of the singular value
    decomposition of source^T target. For unequal widths this is the polar factor: its rows or its columns,
    whichever are fewer, are orthonormal. `source` and `target` are features of the same images, normalised
    here.

    >>> quarter_turn = fit_procrustes([[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [-1.0, 0.0]])
    >>> quarter_turn.apply([[2.0, 0.0]]).tolist()
    [[0.0, 1.0]]
    """
    left, _, right = torch.linalg.svd(_moments(source, target)[1], full_matrices=False)
    return LinearMap((left @ right).float(), "procrustes")


def fit_ridge(source, target, *, penalty: float = 1e-3) -> LinearMap:
    """The linear map of least squared error with a penalty on its entries.

    Source: ridge regression (Hoerl and Kennard, Technometrics 1970), (S^T S + g I)^-1 S^T T on unit rows with
    g = penalty x trace(S^T S) / d_s, the mean eigenvalue: one value means the same for any number of rows and
    any width. Without penalty the solution of least norm is taken. The rest as in `fit_procrustes`.

    >>> half = fit_ridge([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], penalty=1.0)
    >>> half.matrix.round(decimals=3).tolist()
    [[0.5, 0.0], [0.0, 0.5]]
    """
    if not 0 <= penalty < float("inf"):
        raise ValueError(f"penalty must be at least 0, not {penalty}. 0 is plain least squares.")
    square, cross = _moments(source, target)
    values, vectors = torch.linalg.eigh(square)
    values = values.clamp(min=0)
    damped = values + penalty * values.mean()
    empty = damped <= len(values) * torch.finfo(values.dtype).eps * values.max()
    inverse = damped.where(~empty, 1.0).reciprocal().where(~empty, 0.0)
    matrix = vectors @ (inverse[:, None] * (vectors.T @ cross))
    return LinearMap(matrix.float(), "ridge")


ADAPTERS = {"procrustes": fit_procrustes, "ridge": fit_ridge}


@dataclasses.dataclass(frozen=True, eq=False)
class Interpolation:
    """A query between what the old and the new model say of it, asked in the old gallery as it is.

    The old model has to run at query time, beside the new one.
    """

    rotation: Tensor | None  # float32 [d_new, d_old], of Procrustes; None: new features as they are
    alpha: float  # weight of the new model's query

    def apply(self, old, new) -> Tensor:
        """Queries by both models [N, d_old], [N, d_new] as one, float32 [N, d_old] of unit length.

        sin((1 - a) t) / sin(t) old + sin(a t) / sin(t) new, with t the angle between both and a `alpha`; on
        the line where t is near 0 or pi. At 1/2 it is the midpoint (old + new) / |old + new|.

        A wider new feature is meant to be interpolated in its own space, where the old one ends in zeros,
        and then cut. Only the cosine of both knows of the coordinates beyond, so that they need no room:
        the rotated feature's first d_old coordinates are taken as long, or as short, as they are.
        """
        old, new = (_unit(side, torch.float32) for side in paired_rows(old, new, "old", "new"))
        if self.rotation is not None:
            with full_precision(new.device):
                new = new @ self.rotation.to(new.device)
        cosine = (old * new).sum(1)
        angle, line = cosine.clamp(-CLAMP, CLAMP).arccos(), cosine.abs() >= CLAMP
        weights = [
            torch.where(line, share, torch.sin(share * angle) / torch.sin(angle))[:, None]
            for share in (1 - self.alpha, self.alpha)
        ]
        return _unit(weights[0] * old + weights[1] * new, torch.float32)


def fit_interpolation(
    old,
    new,
    labels=None,
    *,
    alphas: Sequence[float] = ALPHAS,
    compatible: bool | None = None,
    rotation: Tensor | None = None,
) -> Interpolation:
    """Procrustes and the weight of SLERP that find most images' identities in the old gallery.

    Source: Ricci, Biondi and Pernici (NeurIPS 2026, arXiv 2609.39836): the rotation is that of
    `fit_procrustes`, and the weight the one of the best Recall@1 on the pairs themselves, each image asking
    the others. Of equal ones the nearest to 1/2 is taken. At most `TUNED` images are looked at.

    Args:
        old, new: [N, d_old], [N, d_new] features of the same images.
        labels: [N], identities; needed unless there is one weight and `compatible` says which map.
        alphas: weights of the new feature in 0..1 to choose from; (0.5,) is the midpoint.
        compatible: True: compare new features as they are, for a model trained to be compatible; False:
            rotate them; None: whichever finds more, where the widths are equal.
        rotation: [d_new, d_old] of `fit_procrustes` on other pairs, by which new features are rotated here.

    >>> pairs = [[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [-1.0, 0.0]]
    >>> turned = fit_interpolation(*pairs, alphas=[0.5], compatible=False)
    >>> turned.apply([[1.0, 0.0]], [[0.0, 2.0]]).tolist()
    [[1.0, 0.0]]
    """
    old, new = paired_rows(old, new, "old", "new")
    widths = old.shape[1], new.shape[1]
    if compatible and widths[0] != widths[1]:
        raise ValueError(f"features of width {widths[1]} and {widths[0]} need a map: compatible=False")
    if rotation is not None:
        rotations = [rotation]
    else:
        rotations = [] if compatible else [fit_procrustes(new, old).matrix]
        rotations += [None] if compatible is not False and widths[0] == widths[1] else []
    choices = [Interpolation(rotation, float(alpha)) for rotation in rotations for alpha in alphas]
    if any(not 0 <= one.alpha <= 1 for one in choices):
        raise ValueError(f"the weights of the new feature lie in 0..1, not {list(alphas)}")
    if len(choices) == 1:
        return choices[0]
    if labels is None:
        raise ValueError("a weight is chosen by labels; give one for each image, or one weight and a map")
    number = codes(labels, None, (len(old), 0), "labels")[0]
    turn = np.random.default_rng(0).permutation(int(number.max()) + 1)[number]
    rows = torch.from_numpy(np.argsort(turn, kind="stable")[:TUNED])
    some, number = (old[rows.to(old.device)], new[rows.to(new.device)]), number[rows.numpy()]
    found = [(-_recall(one.apply(*some), some[0], number), abs(one.alpha - 0.5)) for one in choices]
    return choices[min(range(len(found)), key=found.__getitem__)]


def _recall(query: Tensor, gallery: Tensor, number: np.ndarray) -> float:
    """Share of the queries whose nearest other image is of their identity; ties count as wrong."""
    gallery, labels = _unit(gallery, torch.float32), torch.from_numpy(number).to(query.device)
    hits = 0
    for rows in torch.arange(len(query), device=query.device).split(512):
        with full_precision(query.device):
            scores = query[rows] @ gallery.T
        scores[torch.arange(len(rows)), rows] = -torch.inf
        same = labels[rows][:, None] == labels
        best = [scores.masked_fill(hidden, -torch.inf).amax(1) for hidden in (~same, same)]
        hits += int((best[0] > best[1]).sum())
    return hits / len(query)


def _unit(features: Tensor, dtype: torch.dtype) -> Tensor:
    # Rows too large or too small for their squares take the way through double precision; zeros stay zero.
    rows = features.to(dtype)
    unit, length = F.normalize(rows, dim=1), torch.linalg.vector_norm(rows, dim=1)
    odd = ~((length > 1e-12) & (length < torch.inf))
    unit[odd] = unit_length(features[odd].double()).to(dtype)
    return unit


def _moments(source, target) -> tuple[Tensor, Tensor]:
    """S^T S and S^T T of unit rows, float64 on the CPU, in blocks of rows."""
    sides = paired_rows(source, target, "source", "target")
    widths = [side.shape[1] for side in sides]
    square = torch.zeros(widths[0], widths[0], dtype=torch.float64)
    cross = torch.zeros(widths[0], widths[1], dtype=torch.float64)
    for parts in zip(*(side.split(ROWS_AT_ONCE) for side in sides), strict=True):
        s, t = (_unit(part.cpu(), torch.float64) for part in parts)
        square += s.T @ s
        cross += s.T @ t
    return square, cross
