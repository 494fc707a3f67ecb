"""Distilled query: weakened L2 to the point between old feature and rotated oracle feature of each image."""

from torch import Tensor

from compat_lib.adapters import Interpolation, fit_procrustes
from compat_lib.losses.base import Step
from compat_lib.losses.heads import Classifier
from compat_lib.losses.weakened_l2 import WeakenedL2
from compat_lib.names import check_number
from compat_lib.old_system import OldSystem


class DistilledQuery(WeakenedL2):
    """Classification plus the distance, above a threshold, to the interpolated query of old and oracle.

    Source: none; a rival of this project's own method, unpublished. Whoever runs the old model at query time
    asks with the point between its feature and that of an independently trained model, rotated by
    Procrustes (SLERP, arXiv 2609.39836). Here one model learns to give that point, and asks alone.

    Args:
        weight: lambda, factor of the distance term, at least 0.
        threshold: tau, distance of unit features up to which nothing is paid, 0..2.
        alpha: share of the oracle on the arc between both, 0..1. With 0 the method is weakened L2.
    """

    name = "distilled_query"
    title = "Distilled query (ours, unpublished)"
    paper = "This project's own method, 2026; unpublished"
    needs = frozenset({"features", "oracle"})
    published = {}
    formulas = {
        "distance": r"\frac{1}{B}\sum_i \max(0, \lVert \hat n_i - \hat t_i \rVert_2 - \tau),"
        r" \quad t_i = \mathrm{slerp}(\hat o_i, \hat n^*_i R; \alpha)"
    }

    def __init__(
        self,
        old: OldSystem,
        classifier: Classifier,
        *,
        weight: float = 23.2,
        threshold: float = 0.383,
        alpha: float = 0.455,
    ):
        super().__init__(old, classifier, weight=weight, threshold=threshold)
        rotation = fit_procrustes(old.oracle_features, old.features).matrix
        between = Interpolation(rotation, check_number("alpha", alpha, 0, 1))
        points = between.apply(old.features, old.oracle_features)
        self.register_buffer("points", points, persistent=False)

    def targets(self, step: Step) -> Tensor:
        return self.points[step.rows]
