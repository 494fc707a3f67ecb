"""Leave-one-out retrieval inside one validation set, as for ImageNet and Places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from compat_lib.evaluation.inputs import table
from compat_lib.evaluation.ranking import Retrieval, retrieval


def leave_one_out(
    query: Any, labels: Any, gallery: Any = None, *, cut: bool = False, ranks: Sequence[int] = (1, 5)
) -> Retrieval:
    """Return top-k accuracy and mAP when a validation set is query and gallery at once.

    Source: the ImageNet and Places protocol of openBCT (BCT, arXiv 2003.11942), FCT (arXiv 2112.02805) and
    BT2 (arXiv 2211.03989). Each image is a query; the item at the same position, the same image, is removed;
    top-k counts the queries with a right item among the first k; average precision is over the whole
    ranking. A query whose class has no other image is skipped. These sources rank by the L2 distance of
    normalised features, whose square is 2 - 2 cos: the order is that of the cosine, which is used here.
    FCT's "cosine" divides by the L1 norm, which is not a cosine and is not offered. Ties are pessimistic,
    see `retrieval`.

    Args:
        query: float [N, D], any length of row; NumPy or torch (computed where the tensor lies).
        labels: whole numbers or names [N].
        gallery: float [N, D'], another model's features of the same images in the same order: the cross test
            is the new model's `query` and the old model's `gallery`. None: the query features, the self test.
        cut: whether features of unequal widths are both cut to their first min(D, D') coordinates, before
            they are normalised, as BT2 does. False: they are refused.
        ranks: the k of top-k, 1 or more.

    Raises:
        ValueError: "there are 3 query and 4 gallery features ...", "the query features have 64 columns and
            the gallery features 128 ...", "no query has a right item in the gallery ...", and for NaN.

    >>> new = [[1.0, 0.1, 5.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    >>> old = [[1.0, 0.0], [1.0, 0.2], [0.0, 1.0]]
    >>> result = leave_one_out(new, [0, 0, 1], old, cut=True)
    >>> result.rank, result.average_precision.tolist()  # the class of one image is skipped
    ({1: 1.0, 5: 1.0}, [1.0, 1.0, nan])
    """
    if gallery is None:
        return retrieval(query, labels, ranks=ranks)
    query, gallery = table(query, "query features"), table(gallery, "gallery features")
    note, widths = "", (query.shape[1], gallery.shape[1])
    if len(query) != len(gallery):
        raise ValueError(
            f"there are {len(query)} query and {len(gallery)} gallery features; give both models' "
            "features of the same images in the same order"
        )
    if widths[0] != widths[1]:
        if not cut:
            raise ValueError(
                f"the query features have {widths[0]} columns and the gallery features {widths[1]}; "
                "give cut=True to keep the first ones of both, or map one side into the other's space"
            )
        query, gallery = query[:, : min(widths)], gallery[:, : min(widths)]
        note = f" Both sides were cut to their first {min(widths)} coordinates."
    images = np.arange(len(query))
    result = retrieval(query, labels, gallery, labels, query_ids=images, gallery_ids=images, ranks=ranks)
    return replace(result, note=result.note + note)
