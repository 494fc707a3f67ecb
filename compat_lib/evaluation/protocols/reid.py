"""Re-identification: CMC, mAP and mINP under the camera rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from compat_lib.evaluation.inputs import UnitRows, codes, whole_numbers
from compat_lib.evaluation.pairs import PairScores
from compat_lib.evaluation.ranking import Retrieval, rankings, result


@dataclass(frozen=True)
class Reid(Retrieval):
    """Re-identification quality: that of the ranking and mINP."""

    minp: float  # mean inverse negative penalty
    inverse_negative_penalty: np.ndarray = field(repr=False)  # float64 [Nq], nan for a query that is skipped

    @property
    def values(self) -> dict[str, float]:
        """The metrics by name."""
        return super().values | {"minp": self.minp}


def reid(
    query: Any,
    query_identities: Any,
    query_cameras: Any,
    gallery: Any,
    gallery_identities: Any,
    gallery_cameras: Any,
    *,
    ranks: Sequence[int] = (1, 5, 10),
) -> Reid:
    """Return CMC (rank-k), mAP and mINP of queries against a gallery seen by other cameras.

    Source: the evaluation of FastReID (Market-1501 rule) that Dual-Tuning uses; mINP of AGW (arXiv
    2001.04193). The distance is 1 - cosine. For each query the gallery items with its identity and its camera
    are removed; a query without a right item left is skipped and not counted. With right items at ranks
    r_1 < ... < r_m, AP is the mean of j / r_j and INP is m / r_m.

    Deviations: ties are pessimistic, wrong items first; a query with fewer than k items keeps its last CMC
    value.

    A cross-test passes new queries and an old gallery. For data without cameras give one camera to the
    queries and another one to the gallery. Leave out what the data set calls junk, identity -1 in
    Market-1501; distractors (identity 0 there) stay as wrong items.

    Args:
        ranks: the k of CMC@k; range(1, 51) is a curve.

    >>> result = reid([[1, 0], [0, 1]], [7, 8], [1, 1], [[1, 0], [3, 1], [1, 1]], [7, 0, 7], [1, 2, 2])
    >>> result.average_precision.tolist()  # its own camera's item is removed, the distractor comes first
    [0.5, nan]
    >>> result.rank, result.queries, result.excluded
    ({1: 0.0, 5: 1.0, 10: 1.0}, 1, 1)
    """
    identities, cameras = (query_identities, gallery_identities), (query_cameras, gallery_cameras)
    query, gallery = UnitRows(query, "query"), UnitRows(gallery, "gallery")
    return reid_of_rows(query, gallery, identities, cameras, whole_numbers(ranks, "the ranks"))


def reid_of_rows(
    query: UnitRows | Tensor,
    gallery: UnitRows | Tensor,
    identities: tuple[Any, Any],
    cameras: tuple[Any, Any],
    ranks: Sequence[int] = (1, 5, 10),
) -> Reid:
    """Return `reid` of unit rows as `PairScores` takes them; the queries' identities and cameras first."""
    lengths = len(query), len(gallery)
    labels = codes(*identities, lengths, "identities")
    seen_by = codes(*cameras, lengths, "cameras")
    # The number of an identity as one camera sees it.
    views = [i * sum(lengths) + c for i, c in zip(labels, seen_by, strict=True)]
    pairs = PairScores(query, labels[0], gallery, labels[1], query_ids=views[0], gallery_ids=views[1])

    precision, penalty = np.full(lengths[0], np.nan), np.full(lengths[0], np.nan)
    first = np.zeros(lengths[0], np.int64)
    for rows, ranked in rankings(pairs):
        right = labels[1][ranked] == labels[0][rows, None]
        right &= views[1][ranked] != views[0][rows, None]  # what is excluded comes last
        line, places = np.nonzero(right)
        places += 1
        line, start, matches = np.unique(line, return_index=True, return_counts=True)
        number = np.arange(len(places)) - np.repeat(start, matches) + 1
        where = rows[line]
        if len(line):
            precision[where] = np.add.reduceat(number / places, start) / matches
            first[where], penalty[where] = places[start], matches / places[start + matches - 1]
    ranked = result(pairs, precision, first, ranks)
    return Reid(**vars(ranked), minp=float(penalty[first > 0].mean()), inverse_negative_penalty=penalty)
