"""BCT and weakened L2 together: the class's mean classifies, the own old feature keeps near."""

from torch import Tensor

from compat_lib.losses.base import Step, prototype_table
from compat_lib.losses.heads import Classifier, FrozenClassifier, row_cross_entropy
from compat_lib.losses.weakened_l2 import WeakenedL2
from compat_lib.names import check_number
from compat_lib.old_system import OldSystem


class BCTWeakenedL2(WeakenedL2):
    """The term of BCT, in its form of prototypes, and that of weakened L2, beside the classification.

    Source: none; a rival of this project's own method, unpublished: the simplest mixture of one target a
    class and one a row.

    Args:
        scale: s, factor of the cosines with the class means, above 0.
        influence_weight: factor of the influence term, at least 0.
        weight: factor of the distance term, at least 0.
        threshold: tau, distance of unit features up to which nothing is paid, 0..2.
    """

    name = "bct_weakened_l2"
    title = "BCT + weakened L2 (ours, unpublished)"
    paper = "This project's own combination, 2026; unpublished"
    published = {}
    formulas = WeakenedL2.formulas | {"influence": r"\frac{1}{B}\sum_i \mathrm{CE}(s\,\hat P \hat n_i, y_i)"}

    def __init__(
        self,
        old: OldSystem,
        classifier: Classifier,
        *,
        scale: float = 16.0,
        influence_weight: float = 10.0,
        weight: float = 10.0,
        threshold: float = 0.6,
    ):
        super().__init__(old, classifier, weight=weight, threshold=threshold)
        self.weights["influence"] = check_number("influence_weight", influence_weight)
        means, present = prototype_table(old, "raw", self.name)
        self.means = FrozenClassifier(means, scale=check_number("scale", scale, 1e-6), present=present)

    def terms(self, step: Step) -> dict[str, Tensor]:
        influence = row_cross_entropy(self.means(step.embeddings), step.labels)
        return super().terms(step) | {"influence": influence}
