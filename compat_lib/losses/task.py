"""The task's own loss beside the classification, as re-identification trains: the same for all methods."""

from collections.abc import Callable

from torch import Tensor

from compat_lib.names import check_choice

MARGINS = {"triplet": 0.3, "circle": 0.25}  # units of the distance; of the cosine
SCALE = 128.0  # of the circle loss
KINDS = tuple(MARGINS)
TaskLoss = Callable[[Tensor, Tensor], Tensor]


def task_loss(kind: str) -> TaskLoss:
    """A metric loss on a batch that holds several images of an identity, from pytorch-metric-learning.

    Source: "triplet" is the batch-hard loss of In Defense of the Triplet Loss (Hermans et al., arXiv
    1703.07737): each row's farthest positive and nearest negative by Euclidean distance, embeddings as they
    are, a hinge, and the mean over the rows that have both. "circle" is Circle Loss (Sun et al., CVPR 2020,
    arXiv 2002.10857) on cosines, mean over all rows. Margins and scale are Dual-Tuning's, as published.

    Returns:
        a function of embeddings [N, D], not normalised, and labels int64 [N], which gives a scalar; zero
        when no row has both a positive and a negative.

    >>> import torch
    >>> line, labels = torch.tensor([[0.0], [2.0], [3.0], [9.0]]), torch.tensor([0, 0, 1, 1])
    >>> task_loss("triplet")(line, labels)     # (2 - 3 + 0.3)+, 2 - 1 + 0.3, 6 - 1 + 0.3, (6 - 7 + 0.3)+
    tensor(1.6500)
    """
    margin = MARGINS[check_choice("task_loss", kind, KINDS)]
    # imported where it is used: it takes a second, and most runs have no task loss
    from pytorch_metric_learning import distances, losses, miners, reducers

    if kind == "circle":
        circle = losses.CircleLoss(m=margin, gamma=SCALE, reducer=reducers.MeanReducer())
        return lambda embeddings, labels: circle(embeddings, labels)
    euclidean = distances.LpDistance(normalize_embeddings=False)
    mine = miners.BatchHardMiner(distance=euclidean)
    hinge = losses.TripletMarginLoss(margin, distance=euclidean, reducer=reducers.MeanReducer())
    return lambda embeddings, labels: hinge(embeddings, labels, mine(embeddings, labels))
