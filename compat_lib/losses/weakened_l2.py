"""Weakened L2: pull a new feature to the old feature of the same image until it is near enough."""

from torch import Tensor

from compat_lib.losses.base import CompatibilityLoss, Step
from compat_lib.losses.heads import Classifier
from compat_lib.losses.l2 import feature_distances
from compat_lib.names import check_number
from compat_lib.old_system import OldSystem


def excess(new: Tensor, old: Tensor, threshold: float) -> Tensor:
    """Mean over pairs of rows [N, d] of the distance of their unit features above a threshold; a scalar."""
    return (feature_distances(new, old) - threshold).clamp(min=0).mean()


class WeakenedL2(CompatibilityLoss):
    """Classification plus the distance between new and old unit feature, as far as it exceeds a threshold.

    Source: "weakened L2" of MixBCT's comparison (arXiv 2308.06948, published code). The distance is not
    squared: outside the threshold the pull is that of L2 regression, inside there is none.

    Args:
        weight: lambda, factor of the distance term, at least 0; published 10.
        threshold: tau, distance of unit features up to which nothing is paid, 0..2; published 0.2,
            here chosen on validation identities: at this scale all distances are above 0.2. With 0 the
            method is L2 regression, with 2 independent training.
    """

    name = "weakened_l2"
    title = "Weakened L2"
    paper = "Baseline of MixBCT: Towards Self-Adapting Backward-Compatible Training (arXiv 2308.06948)"
    needs = frozenset({"features"})
    one_width = True
    published = {"threshold": 0.2}
    formulas = {"distance": r"\frac{1}{B}\sum_i \max(0, \lVert \hat n_i - \hat o_i \rVert_2 - \tau)"}

    def __init__(
        self, old: OldSystem, classifier: Classifier, *, weight: float = 10.0, threshold: float = 0.6
    ):
        super().__init__(old, classifier)
        self.threshold = check_number("threshold", threshold, 0, 2)
        self.weights["distance"] = check_number("weight", weight)

    def terms(self, step: Step) -> dict[str, Tensor]:
        distance = excess(step.embeddings, self.targets(step), self.threshold)
        return {"classification": self.classification(step), "distance": distance}

    def targets(self, step: Step) -> Tensor:
        """What each embedding is pulled to, [B, d]; for methods that pull elsewhere."""
        return step.old_features
