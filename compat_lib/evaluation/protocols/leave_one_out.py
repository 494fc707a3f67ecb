"""Leave-one-out retrieval inside one validation set, as for ImageNet and Places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compat_lib.evaluation.inputs import table
from compat_lib.evaluation.ranking import Retrieval, retrieval


def leave_one_out(
    query: Any, labels: Any, gallery: Any = None, *, cut: bool = False, ranks: Sequence[int] = (1, 5)
) -> Retrieval:
    """Return top-k accuracy and mAP when a validation set is query and gallery at once.

    Source: the ImageNet and Places protocol of openBCT (BCT, arXiv 2003.11942), FCT (arXiv 2112.02805) and
    BT2 (arXiv 2211.03989). The item at the query's own position, the same image, is removed. Top-k is the
    share of queries with a right item among the first k; average precision is over the whole ranking; a query
    whose class has no other image is skipped. The order by cosine, used here, is the sources' order by the L2
    distance of normalised features. FCT's "cosine" divides by the L1 norm and is not offered. Ties are
    pessimistic, see `retrieval`.

    Args:
        gallery: [N, D'], another model's features of the same images in the same order (cross-test: the old
            model's); None: the query features (self-test).
        cut: cut features of unequal widths to their first min(D, D') coordinates, before they are normalised,
            as BT2 does. False: they are refused.

    >>> new = [[1.0, 0.1, 5.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    >>> old = [[1.0, 0.0], [1.0, 0.2], [0.0, 1.0]]
    >>> result = leave_one_out(new, [0, 0, 1], old, cut=True)
    >>> result.rank, result.average_precision.tolist()  # the class of one image is skipped
    ({1: 1.0, 5: 1.0}, [1.0, 1.0, nan])
    """
    query, gallery = (table(x, "features") for x in (query, query if gallery is None else gallery))
    if cut:
        width = min(query.shape[1], gallery.shape[1])
        query, gallery = query[:, :width], gallery[:, :width]
    images = np.arange(len(query))
    return retrieval(query, labels, gallery, labels, query_ids=images, gallery_ids=images, ranks=ranks)
