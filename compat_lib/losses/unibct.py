"""UniBCT: BCT with old prototypes that are refined by what the new model finds central in each class."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from compat_lib.losses.base import CompatibilityLoss, Step
from compat_lib.losses.heads import Classifier, FrozenClassifier, row_cross_entropy, unit_rows
from compat_lib.names import check_number
from compat_lib.old_system import OldSystem


def refine_prototypes(
    new: Tensor,
    old: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    propagation: float = 0.9,
    temperature: float = 0.05,
) -> Tensor:
    """Old prototypes that weigh each sample by its place in the new model's graph of its class.

    Source: structural prototype refinement of UniBCT (arXiv 2203.01583). Within a class with unit new
    features N and unit old features O, E is the softmax of the rows of N N^T / theta without the diagonal,
    the old features are propagated, Z = (1 - lambda) (I - lambda E)^-1 O, and the prototype is the mean of Z.
    We solve for the weights of the samples in that mean instead, which are the PageRank of the graph.
    Deviation: MixBCT's published script takes the softmax down the columns, with which every weight is 1 / n
    and the refinement a no-op, and leaves the features' lengths as they are.

    New features [N, d_n] and old ones [N, d_o] of the same samples are normalised here; labels, int64 [N],
    are in any order; lambda (0 gives the mean of the unit old features) and theta are those of `UniBCT`. The
    result is float32 [C, d_o] on the device of `old`, not normalised; zeros for a class without samples.

    >>> old = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    >>> new = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])    # steps 1 -> 3, 2 -> 3, 3 -> 2: weights
    >>> # 3/18, 7/18 and 8/18
    >>> refine_prototypes(new, old, torch.zeros(3, dtype=torch.int64), 1, propagation=0.5, temperature=0.01)
    tensor([[0.6111, 0.3889]])
    """
    refined = torch.zeros(num_classes, old.shape[1], dtype=torch.float64)
    labels = labels.cpu()
    members = labels.argsort(stable=True).split(torch.bincount(labels, minlength=num_classes).tolist())
    for label, rows in enumerate(members):
        if len(rows):
            graph, itself = _unit(new, rows), torch.eye(len(rows), dtype=torch.float64)
            scores = graph @ graph.T / temperature
            if len(rows) > 1:  # a class of one steps to itself
                scores = scores.masked_fill(itself.bool(), -math.inf)
            transitions = scores.softmax(dim=1)
            share = torch.full((len(rows),), 1 / len(rows), dtype=torch.float64)
            weights = (1 - propagation) * torch.linalg.solve(itself - propagation * transitions.T, share)
            refined[label] = weights @ _unit(old, rows)
    return refined.float().to(old.device)


def _unit(features: Tensor, rows: Tensor) -> Tensor:
    return unit_rows(features[rows.to(features.device)].detach().cpu().double())


class UniBCT(CompatibilityLoss):
    """Classification plus, after a first phase without it, classification by refined old prototypes.

    Source: UniBCT (arXiv 2203.01583), in the form of MixBCT's comparison with the refinement as it is meant,
    see `refine_prototypes`. Training begins without the prototype term. At the start of two epochs
    (published: 10 and 20 of 35, counted from 0) the prototypes are refined with the new features of the whole
    training set; the first time switches the term on. Deviations: all features are normalised before the
    refinement and the prototypes after it, where the published code normalises neither and the scale of the
    logits jumps.

    Args:
        scale: s, factor of the cosines with the prototypes, above 0. The published value is 1, at which the
            term cannot fall below ln(1 + (C - 1) / e^2) and never finishes.
        weight: factor of the prototype term, at least 0; published 1, here chosen on validation identities.
        propagation: lambda, share of a sample's propagated feature that comes from others, 0..0.999;
            published 0.9.
        temperature: theta, divisor of the cosines between new features, above 0; published 0.05.
        start_share: share of the epochs, 0..1, after which the term switches on with the first refinement;
            published 10/35. The nearest whole number of epochs counts: 0 of 1, 1 of 3, 6 of 20. With 1 the
            term is never on.
        refresh_share: share of the epochs, start_share..1, after which the prototypes are refined again;
            published 20/35. With 1, or where it falls on the first refinement, there is no second one.
    """

    name = "unibct"
    title = "UniBCT"
    paper = (
        "Towards Universal Backward-Compatible Representation Learning "
        "(Zhang et al., IJCAI 2022, arXiv 2203.01583)"
    )
    needs = frozenset({"features"})
    one_width = True
    formulas = {
        "prototype": r"\frac{1}{B}\sum_i \mathrm{CE}(s\,\hat P^* \hat n_i, y_i),"
        r" \quad p^*_c = \frac{1}{n_c} \sum_j z_j, \quad Z = (1 - \lambda)(I - \lambda E)^{-1} \hat O_c",
    }
    dropped = {"refine": "row"}
    published = {"scale": 1.0, "weight": 1.0, "propagation": 0.9, "temperature": 0.05}

    def __init__(
        self,
        old: OldSystem,
        classifier: Classifier,
        *,
        scale: float = 9.56,
        weight: float = 11.6,
        propagation: float = 0.326,
        temperature: float = 0.137,
        start_share: float = 0.286,
        refresh_share: float = 0.571,
    ):
        super().__init__(old, classifier)
        self.weights["prototype"] = check_number("weight", weight)
        self.refinement = {
            "propagation": check_number("propagation", propagation, 0, 0.999),
            "temperature": check_number("temperature", temperature, 1e-6),
        }
        self.start_share = check_number("start_share", start_share, 0, 1)
        self.refresh_share = check_number("refresh_share", refresh_share, start_share, 1)
        self.old = old
        present = torch.bincount(old.labels, minlength=old.num_classes) > 0
        self.refined = FrozenClassifier(
            old.prototypes("unit"), scale=check_number("scale", scale, 1e-6), present=present
        )
        # it changes during training: unlike a table of the old system it belongs into the checkpoint
        self.refined.register_buffer("weight", self.refined.weight)

    def start_epoch(self, epoch: int, epochs: int, embed: Callable[[], Tensor]) -> None:
        if self.start_share < 1 and _nearest(self.start_share * epochs) == epochs:
            raise ValueError(
                f"start_share is {self.start_share:g}, but the term only starts with an epoch, and of "
                f"{epochs} none is left then: train for more, take less, or 1 to leave the term out"
            )
        if epoch in (_nearest(self.start_share * epochs), _nearest(self.refresh_share * epochs)):
            prototypes = refine_prototypes(
                embed(), self.old.features, self.old.labels, self.old.num_classes, **self.refinement
            )
            self.refined.weight.copy_(unit_rows(prototypes))

    def terms(self, step: Step) -> dict[str, Tensor]:
        if step.epoch < _nearest(self.start_share * step.epochs):
            prototype = step.embeddings.new_zeros(())
        else:
            prototype = row_cross_entropy(self.refined(step.embeddings), step.labels)
        return {"classification": self.classification(step), "prototype": prototype}


def _nearest(value: float) -> int:
    return math.floor(value + 0.5)
