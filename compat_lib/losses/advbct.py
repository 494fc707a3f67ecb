"""AdvBCT: new features stay inside their class's old region, and cannot be told from old ones."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compat_lib.losses.base import CompatibilityLoss, Step
from compat_lib.losses.heads import Classifier, unit_rows
from compat_lib.names import check_number, checked_count
from compat_lib.old_system import OldSystem

ROWS_AT_ONCE = 65_536


def reverse_gradient(features: Tensor, strength: float) -> Tensor:
    """The features to the bit; their gradient comes back multiplied by minus the strength.

    Source: Unsupervised Domain Adaptation by Backpropagation (Ganin and Lempitsky, ICML 2015, arXiv
    1409.7495): what stands before it learns to worsen what stands after it.

    >>> features = torch.tensor([2.0, 3.0], requires_grad=True)
    >>> reverse_gradient(features, 0.5).sum().backward()
    >>> features.grad
    tensor([-0.5000, -0.5000])
    """
    fixed = features.detach()
    return fixed - strength * (features - fixed)


def kept_extent(distances: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """The largest distance [C] of each class that is no outlier, and how many are none, int64 [C].

    Source: the radius of AdvBCT, published extraction script, which takes the angles of its LCE comparison in
    the same way. In a class of n >= 4 samples with sorted distances rho (counted from 0), q1 = rho[n // 4],
    q3 = rho[3n // 4] and IQR = q3 - q1, those outside [q1 - 1.5 IQR, q3 + 1.5 IQR] are dropped; a smaller
    class keeps all, one without samples has extent zero.

    Distances [N] of samples from the centres of their classes, in any unit; labels int64 [N], in any order.

    >>> kept_extent(torch.tensor([1.0, 2.0, 9.0, 2.0, 3.0, 0.5]), torch.tensor([0, 0, 0, 0, 0, 1]), 3)
    (tensor([3.0000, 0.5000, 0.0000]), tensor([4, 1, 0]))
    """
    counts = torch.bincount(labels, minlength=num_classes)
    extent, kept = distances.new_zeros(num_classes), torch.zeros_like(counts)
    for label, rho in enumerate(distances[labels.argsort()].split(counts.tolist())):
        rho, n = rho.sort().values, len(rho)
        if n >= 4:
            q1, q3 = rho[n // 4], rho[3 * n // 4]
            rho = rho[(rho >= q1 - 1.5 * (q3 - q1)) & (rho <= q3 + 1.5 * (q3 - q1))]
        if n:
            extent[label], kept[label] = rho[-1], len(rho)
    return extent, kept


def old_extents(
    old: OldSystem, centres: Tensor, distance: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """`kept_extent` of the old features around the centres [C, d]; distances in double precision."""
    blocks = zip(old.features.split(ROWS_AT_ONCE), old.labels.split(ROWS_AT_ONCE), strict=True)
    distances = torch.cat([distance(rows.double(), centres[labels].double()) for rows, labels in blocks])
    extent, kept = kept_extent(distances.cpu(), old.labels.cpu(), old.num_classes)
    return extent.float().to(centres.device), kept.to(centres.device)


class AdvBCT(CompatibilityLoss):
    """Classification, an elastic boundary around each old class, and a discriminator that is to be fooled.

    Source: AdvBCT (arXiv 2305.02610), its published code, and the port in MixBCT's comparison. The centre of
    a class is the mean of its unit old features, and its radius r the largest distance from there that is no
    outlier (beyond 1.5 interquartile ranges). The boundary term is the mean, over the rows beyond the learned
    radius R, of how far; rows whose class keeps fewer than two old features do not count. The adversarial
    term is the discriminator's loss on new rows, whose gradient is reversed and grows during training, then
    on old ones; it fades linearly over the epochs.
    Deviation from AdvBCT's own code, not from the port's: the discriminator sees normalised features.

    Args:
        boundary_weight: factor of the boundary term, at least 0; published 4 in MixBCT's comparison, 1 in
            AdvBCT's own code, here chosen on validation identities.
        adversarial_weight: factor of the adversarial term, at least 0; published 4 in MixBCT's comparison, 1
            in AdvBCT's own code.
        target_radius: T, end of the range of every learned radius, 0..2; published 0.4 in MixBCT's
            comparison, 1 in AdvBCT's own code.
        hidden: values of the discriminator's hidden layer, at least 1; published 100.
    """

    name = "advbct"
    title = "AdvBCT"
    paper = (
        "Boundary-Aware Backward-Compatible Representation via Adversarial Learning in Image Retrieval "
        "(Pan et al., CVPR 2023, arXiv 2305.02610)"
    )
    needs = frozenset({"features"})
    one_width = True
    published = {"boundary_weight": 4.0, "adversarial_weight": 4.0, "target_radius": 0.4}
    formulas = {
        "boundary": r"\frac{1}{|A|}\sum_{i \in A} (\lVert \hat n_i - c_{y_i} \rVert_2 - R_{y_i}),"
        r" \quad A = \{ i \in K : \lVert \hat n_i - c_{y_i} \rVert_2 > R_{y_i} \},"
        r" \quad R_k = r_k + (T - r_k)\,\sigma(v_k)",
        "adversarial": r"\frac{E - e + 1}{E} \left( \frac{1}{B}\sum_i \mathrm{CE}(g(\hat n_i), 0)"
        r" + \frac{1}{B}\sum_i \mathrm{CE}(g(\hat o_i), 1) \right)",
    }
    learns = "the discriminator and one radius for each class"

    def __init__(
        self,
        old: OldSystem,
        classifier: Classifier,
        *,
        boundary_weight: float = 15.1,
        adversarial_weight: float = 7.04,
        target_radius: float = 0.418,
        hidden: int = 100,
    ):
        super().__init__(old, classifier)
        self.weights["boundary"] = check_number("boundary_weight", boundary_weight)
        self.weights["adversarial"] = check_number("adversarial_weight", adversarial_weight)
        self.target_radius = check_number("target_radius", target_radius, 0, 2)
        centres = old.prototypes("unit")
        radii, counts = old_extents(old, centres, lambda rows, own: (unit_rows(rows) - own).norm(dim=1))
        self.register_buffer("old_centres", centres, persistent=False)
        self.register_buffer("old_radii", radii, persistent=False)
        self.register_buffer("old_bounded", counts > 1, persistent=False)
        self.elasticity = nn.Parameter(torch.empty(old.num_classes).uniform_(-1, 1))  # v
        checked_count("hidden", hidden)
        self.discriminator = nn.Sequential(
            nn.Linear(old.width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 2)
        )

    def elastic_radii(self) -> Tensor:
        """R: float32 [C], the learned radius of every class, between its own and the target radius."""
        return self.old_radii + (self.target_radius - self.old_radii) * self.elasticity.sigmoid()

    def terms(self, step: Step) -> dict[str, Tensor]:
        kind = self.elasticity.dtype
        new, old = unit_rows(step.embeddings.to(kind)), unit_rows(step.old_features.to(kind))
        return {
            "classification": self.classification(step),
            "boundary": self._boundary(new, step.labels),
            "adversarial": (step.epochs - step.epoch + 1) / step.epochs * self._adversarial(new, old, step),
        }

    def _boundary(self, new: Tensor, labels: Tensor) -> Tensor:
        beyond = (new - self.old_centres[labels]).norm(dim=1) - self.elastic_radii()[labels]
        beyond = beyond.where(self.old_bounded[labels], 0.0).clamp(min=0)
        return beyond.sum() / (beyond > 0).sum().clamp(min=1)

    def _adversarial(self, new: Tensor, old: Tensor, step: Step) -> Tensor:
        strength = 2.0 / (1.0 + math.exp(-10.0 * step.progress)) - 1.0
        of_new, of_old = self.discriminator(reverse_gradient(new, strength)), self.discriminator(old)
        new_class, old_class = torch.zeros_like(step.labels), torch.ones_like(step.labels)
        return F.cross_entropy(of_new, new_class) + F.cross_entropy(of_old, old_class)
