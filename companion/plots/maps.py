"""A map of old and new features together, and a number that says how far to trust it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .style import as_array, unit_rows


@dataclass(frozen=True)
class JointMap:
    """Old features, new features and prototypes embedded together, with a number that judges the map."""

    old: np.ndarray  # [N, 2]
    new: np.ndarray | None  # [M, 2]
    prototypes: np.ndarray | None  # [C, 2]
    knn_agreement: float  # 0..1, see knn_agreement()
    neighbours: int


def knn_agreement(high: Any, low: Any, neighbours: int = 10) -> float:
    """Share of every point's nearest neighbours in the feature space that are also nearest in the map.

    Args:
        high: [N, D] points in the original space (Euclidean distance; unit rows give the cosine's order).
        low: [N, 2] the same points in the map.
        neighbours: how many neighbours to compare, at most N - 1.

    Returns:
        Mean share, 0..1; a random map gives about neighbours / (N - 1).

    >>> knn_agreement([[0, 0], [1, 0], [5, 0], [6, 0]], [[0, 0], [1, 0], [5, 0], [6, 0]], neighbours=1)
    1.0
    """
    from sklearn.neighbors import NearestNeighbors  # here: the other figures need not wait for it

    high, low = as_array(high), as_array(low)
    neighbours = min(neighbours, len(high) - 1)
    near_high = NearestNeighbors(n_neighbors=neighbours).fit(high).kneighbors(return_distance=False)
    near_low = NearestNeighbors(n_neighbors=neighbours).fit(low).kneighbors(return_distance=False)
    shared = [len(np.intersect1d(a, b)) for a, b in zip(near_high, near_low, strict=True)]
    return float(np.mean(shared) / neighbours)


def joint_tsne(
    old: Any,
    new: Any = None,
    prototypes: Any = None,
    *,
    perplexity: float = 20.0,
    neighbours: int = 10,
    components: int = 30,
    seed: int = 0,
) -> JointMap:
    """One t-SNE map of old features, new features and prototypes, the same on every call.

    Rows are normalised, reduced by PCA and embedded *together*: two maps made apart cannot be compared.
    PCA also gives the starting positions, and one thread keeps the order of summation.

    Args:
        old: [N, D] old features.  new: [M, D] new features or None.  prototypes: [C, D] or None.
        perplexity: t-SNE's neighbourhood size; lowered to a third of the points when there are few.
        neighbours: for the agreement number.
        components: PCA dimensions before t-SNE.
        seed: for t-SNE.

    Raises:
        ValueError: "old features have width …, new … : one map needs one feature space".
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    parts = [as_array(part).astype(np.float64) for part in (old, new, prototypes) if part is not None]
    widths = {part.shape[1] for part in parts}
    if len(widths) > 1:
        raise ValueError(
            f"old features, new features and prototypes have widths {[part.shape[1] for part in parts]}: "
            "one map needs one feature space; map them to the same width first"
        )
    points = np.concatenate(parts)
    if len(points) < 5:
        raise ValueError(f"{len(points)} points given: a t-SNE map needs at least 5")
    points = unit_rows(points)
    with threadpool_limits(1):
        size = min(components, *points.shape)
        reduced = PCA(size, svd_solver="full").fit_transform(points)
        start = np.zeros((len(points), 2))
        start[:, : min(2, size)] = reduced[:, :2]
        start *= 1e-4 / max(start[:, 0].std(), 1e-12)
        tsne = TSNE(
            perplexity=min(perplexity, (len(points) - 1) / 3), init=start, random_state=seed, n_jobs=1
        )
        flat = tsne.fit_transform(reduced).astype(np.float64)
        agreement = knn_agreement(points, flat, neighbours)
    n, m = len(parts[0]), 0 if new is None else len(parts[1])
    stars = flat[n + m :] if prototypes is not None else None
    moved = flat[n : n + m] if new is not None else None
    return JointMap(flat[:n], moved, stars, agreement, min(neighbours, len(points) - 1))
