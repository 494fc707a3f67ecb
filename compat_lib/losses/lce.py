"""LCE: new embeddings stay in the cone of their class's old features, and the classifier follows its axis."""

from torch import Tensor

from compat_lib.losses.advbct import old_extents
from compat_lib.losses.base import CompatibilityLoss, Step
from compat_lib.losses.heads import COSINE_LIMIT, Classifier, unit_rows
from compat_lib.names import check_number
from compat_lib.old_system import OldSystem


def angles_between(left: Tensor, right: Tensor) -> Tensor:
    """Angle of each pair of rows [N, d], not normalised: [N], radians; a right angle where one is zero.

    Cosines are clamped to +-(1 - 1e-6) first; no angle is below 0.0014.

    >>> import torch
    >>> angles_between(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]]))
    tensor([1.5708])
    """
    cosines = (unit_rows(left) * unit_rows(right)).sum(dim=1)
    return cosines.clamp(-COSINE_LIMIT, COSINE_LIMIT).acos()


class LCE(CompatibilityLoss):
    """Classification, a boundary around each old class, and alignment of the classifier with the old centres.

    Source: LCE (arXiv 2108.01958), in the form of AdvBCT's published comparison: c_y is the mean old unit
    feature of a class, theta_y the largest angle between c_y and its old features that is no outlier, and
    both terms are means over the rows whose class has at least two features that are no outliers. The paper's
    own code differs: its boundary compares cosines instead of angles and drops no outlier, its alignment is a
    mean square over all classes with weight 100, and it can learn a transformation between features of
    unequal width; none of this is here. Deviation from the comparison: cosines are clamped to +-(1 - 1e-6)
    before the arc cosine, whose slope is infinite at one.

    Args:
        boundary_weight: factor of the boundary term, at least 0; published 1, here chosen on validation
            identities.
        alignment_weight: factor of the alignment term, at least 0; published 1, here chosen likewise.
    """

    name = "lce"
    title = "LCE"
    paper = "Learning Compatible Embeddings (Meng et al., ICCV 2021, arXiv 2108.01958), as compared in AdvBCT"
    needs = frozenset({"features"})
    one_width = True
    whole_classifier = True
    published = {"boundary_weight": 1.0, "alignment_weight": 1.0}
    formulas = {
        "boundary": r"\frac{1}{|K|}\sum_{i \in K}"
        r" \max(0, \arccos(\hat c_{y_i} \cdot \hat n_i) - \theta_{y_i})",
        "alignment": r"\frac{1}{|K|}\sum_{i \in K} (1 - \hat c_{y_i} \cdot \hat w_{y_i})",
    }

    def __init__(
        self,
        old: OldSystem,
        classifier: Classifier,
        *,
        boundary_weight: float = 1.18,
        alignment_weight: float = 19.3,
    ):
        super().__init__(old, classifier)
        self.weights["boundary"] = check_number("boundary_weight", boundary_weight)
        self.weights["alignment"] = check_number("alignment_weight", alignment_weight)
        centres = unit_rows(old.prototypes("unit"))
        angles, counts = old_extents(old, centres, angles_between)
        self.register_buffer("old_centres", centres, persistent=False)
        self.register_buffer("old_angles", angles, persistent=False)
        self.register_buffer("old_known", counts > 1, persistent=False)

    def terms(self, step: Step) -> dict[str, Tensor]:
        centres, known = self.old_centres[step.labels], self.old_known[step.labels]
        outside = angles_between(step.embeddings, centres) - self.old_angles[step.labels]
        aligned = (centres * unit_rows(self.classifier.weight[step.labels])).sum(dim=1)
        count = known.sum().clamp(min=1)
        return {
            "classification": self.classification(step),
            "boundary": outside.clamp(min=0).where(known, 0.0).sum() / count,
            "alignment": (1.0 - aligned).where(known, 0.0).sum() / count,
        }
