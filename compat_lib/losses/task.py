"""The task's own loss beside the classification, as re-identification trains: the same for all methods."""

from collections.abc import Callable

from torch import Tensor

from compat_lib.losses.options import check_choice, check_number

KINDS = ("triplet", "circle")
TaskLoss = Callable[[Tensor, Tensor], Tensor]


def task_loss(kind: str, *, margin: float | None = None, gamma: float = 128.0) -> TaskLoss:
    """A metric loss on a batch that holds several images of an identity, from pytorch-metric-learning.

    Source: "triplet" is the batch-hard loss of In Defense of the Triplet Loss (Hermans et al., arXiv
    1703.07737): each row's farthest positive and nearest negative by Euclidean distance, embeddings as they
    are, a hinge, and the mean over the rows that have both. "circle" is Circle Loss (Sun et al., CVPR 2020,
    arXiv 2002.10857) on cosines, mean over all rows. The defaults are those of Dual-Tuning's published code.

    Args:
        kind: "triplet" or "circle".
        margin: at least 0; units of the distance for "triplet", default 0.3, and of the cosine for "circle",
            0..1, default 0.25.
        gamma: scale of the circle loss, above 0. Not used by "triplet".
    Returns:
        a function of embeddings [N, D], not normalised, and labels int64 [N], which gives a scalar; zero
        when no row has both a positive and a negative.

    >>> import torch
    >>> line, labels = torch.tensor([[0.0], [2.0], [3.0], [9.0]]), torch.tensor([0, 0, 1, 1])
    >>> task_loss("triplet", margin=1.0)(line, labels)     # (2 - 3 + 1)+, 2 - 1 + 1, 6 - 1 + 1, (6 - 7 + 1)+
    tensor(2.)
    """
    check_choice("task_loss", kind, KINDS)
    margin = (0.3 if kind == "triplet" else 0.25) if margin is None else margin
    check_number("margin", margin, 0, *([1] if kind == "circle" else []))
    check_number("gamma", gamma, 1e-6)
    # imported where it is used: it takes a second, and most runs have no task loss
    from pytorch_metric_learning import distances, losses, miners, reducers

    if kind == "circle":
        circle = losses.CircleLoss(m=margin, gamma=gamma, reducer=reducers.MeanReducer())
        return lambda embeddings, labels: circle(embeddings, labels)
    euclidean = distances.LpDistance(normalize_embeddings=False)
    mine = miners.BatchHardMiner(distance=euclidean)
    hinge = losses.TripletMarginLoss(margin, distance=euclidean, reducer=reducers.MeanReducer())
    return lambda embeddings, labels: hinge(embeddings, labels, mine(embeddings, labels))
