"""L2 regression: pull every new feature to the old feature of the same image."""

from torch import Tensor

from compat_lib.losses.contract import CompatibilityLoss, Step, check_number, equal_widths
from compat_lib.losses.margins import Classifier, unit_rows
from compat_lib.old_system import OldSystem


class L2(CompatibilityLoss):
    """Classification plus the distance between the new and the old unit feature of each image.

    Source: the L2 baseline and "weakened L2" of MixBCT's comparison (arXiv 2308.06948, published code). The
    distance is not squared, so its pull does not fade near the old feature; where the two features are
    equal the gradient is zero by definition.

    Args:
        old: the old system, with features of the new model's width.
        classifier: the new model's classifier.
        weight: lambda, factor of the distance term, at least 0; published 10.
        threshold: tau, distance up to which nothing is paid, 0..2; 0 is L2, 0.2 the published weakened L2.
    Raises:
        ValueError: "The method l2 needs old and new features of one width, not 32 (old) and 64 (new). ..."
    """

    name = "l2"
    title = "L2 regression"
    paper = "Baseline of MixBCT (Liang et al., arXiv 2308.06948) and of BCT (Shen et al., arXiv 2003.11942)"
    needs = frozenset({"features"})
    formulas = {
        "classification": r"\frac{1}{B}\sum_i \mathrm{CE}(W n_i, y_i)",
        "distance": r"\frac{1}{B}\sum_i \max(0, \lVert \hat n_i - \hat o_i \rVert_2 - \tau)",
    }

    def __init__(
        self, old: OldSystem, classifier: Classifier, *, weight: float = 10.0, threshold: float = 0.0
    ):
        super().__init__(old, classifier)
        equal_widths(self.name, old, classifier, "")
        self.threshold = check_number("threshold", threshold, 0, 2)
        self.weights["distance"] = check_number("weight", weight)

    def terms(self, step: Step) -> dict[str, Tensor]:
        squares = (unit_rows(step.embeddings) - unit_rows(step.old_features)).square().sum(dim=1)
        apart = squares > 0  # the root has no slope at zero: such rows are left out before it is taken
        distances = squares.where(apart, 1.0).sqrt().where(apart, 0.0)
        return {
            "classification": self.classification(step),
            "distance": (distances - self.threshold).clamp(min=0).mean(),
        }
