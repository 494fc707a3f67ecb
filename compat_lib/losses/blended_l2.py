"""Blended L2: weakened L2 to a point between the own old feature and the mean of its class."""

from torch import Tensor

from compat_lib.losses.base import Step, prototype_table
from compat_lib.losses.heads import Classifier, unit_rows
from compat_lib.losses.weakened_l2 import WeakenedL2
from compat_lib.names import check_number
from compat_lib.old_system import OldSystem


class BlendedL2(WeakenedL2):
    """Classification plus the distance, above a threshold, to a blend of own old feature and class mean.

    Source: none; a rival of this project's own method, unpublished. The own old feature is a noisy target,
    the mean of the class's old features a clean one that knows nothing of the image; this lies between them.

    Args:
        weight: lambda, factor of the distance term, at least 0.
        threshold: tau, distance of unit features up to which nothing is paid, 0..2.
        share: s of the class mean, 0..1. With 0 the method is weakened L2.
    """

    name = "blended_l2"
    title = "Blended L2 (ours, unpublished)"
    paper = "This project's own method, 2026; unpublished"
    published = {}
    formulas = {
        "distance": r"\frac{1}{B}\sum_i \max(0, \lVert \hat n_i - \hat t_i \rVert_2 - \tau),"
        r" \quad t_i = (1 - s)\,\hat o_i + s\,\hat p_{y_i}"
    }

    def __init__(
        self,
        old: OldSystem,
        classifier: Classifier,
        *,
        weight: float = 10.0,
        threshold: float = 0.4,
        share: float = 0.5,
    ):
        super().__init__(old, classifier, weight=weight, threshold=threshold)
        self.share = check_number("share", share, 0, 1)
        self.register_buffer("means", unit_rows(prototype_table(old, "raw", self.name)[0]), persistent=False)

    def targets(self, step: Step) -> Tensor:
        return (1 - self.share) * unit_rows(step.old_features) + self.share * self.means[step.labels]
