"""L2 regression: pull every new feature to the old feature of the same image."""

from torch import Tensor

from compat_lib.losses.base import CompatibilityLoss, Step
from compat_lib.losses.heads import Classifier, unit_rows
from compat_lib.names import check_number
from compat_lib.old_system import OldSystem


def feature_distances(new: Tensor, old: Tensor) -> Tensor:
    """Distance between the unit features of each pair of rows [N, d], not squared: [N], 0..2.

    Where the two features are equal the gradient is zero by definition.

    >>> import torch
    >>> feature_distances(torch.tensor([[3.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, -1.0]]))
    tensor([0., 2.])
    """
    squares = (unit_rows(new) - unit_rows(old)).square().sum(dim=1)
    apart = squares != 0  # the root has no slope at zero: such rows are left out before it is taken
    return squares.where(apart, 1.0).sqrt().where(apart, 0.0)


class L2(CompatibilityLoss):
    """Classification plus the distance between the new and the old unit feature of each image.

    Source: the L2 baseline of MixBCT's comparison (arXiv 2308.06948, published code). The distance is not
    squared, so its pull does not fade near the old feature.

    Args:
        weight: lambda, factor of the distance term, at least 0; published 10.
    """

    name = "l2"
    title = "L2 regression"
    paper = "Baseline of MixBCT (Liang et al., arXiv 2308.06948) and of BCT (Shen et al., arXiv 2003.11942)"
    needs = frozenset({"features"})
    one_width = True
    published = {"weight": 10.0}
    formulas = {"distance": r"\frac{1}{B}\sum_i \lVert \hat n_i - \hat o_i \rVert_2"}

    def __init__(self, old: OldSystem, classifier: Classifier, *, weight: float = 10.6):
        super().__init__(old, classifier)
        self.weights["distance"] = check_number("weight", weight)

    def terms(self, step: Step) -> dict[str, Tensor]:
        distances = feature_distances(step.embeddings, step.old_features)
        return {"classification": self.classification(step), "distance": distances.mean()}
