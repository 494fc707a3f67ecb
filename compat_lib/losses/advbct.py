"""AdvBCT: new features stay inside their class's old region, and cannot be told from old ones."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compat_lib.losses.base import CompatibilityLoss, Step, check_number, equal_widths
from compat_lib.losses.heads import Classifier, unit_rows
from compat_lib.losses.regions import kept_extent
from compat_lib.old_system import OldSystem

NEW, OLD = 0, 1  # classes of the discriminator
ROWS_AT_ONCE = 65_536


class _ReversedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return features.view_as(features)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradient, None


def reverse_gradient(features: Tensor, strength: float = 1.0) -> Tensor:
    """The features themselves; their gradient comes back multiplied by minus the strength.

    Source: Unsupervised Domain Adaptation by Backpropagation (Ganin and Lempitsky, ICML 2015, arXiv
    1409.7495): what stands before it learns to worsen what stands after it.

    Args:
        features: floating point, any shape.
        strength: rho, factor of the reversed gradient, at least 0.
    Returns:
        the same values, same type and shape.

    >>> features = torch.tensor([2.0, 3.0], requires_grad=True)
    >>> reverse_gradient(features, 0.5).sum().backward()
    >>> features.grad
    tensor([-0.5000, -0.5000])
    """
    return _ReversedGradient.apply(features, strength)


class AdvBCT(CompatibilityLoss):
    """Classification, an elastic boundary around each old class, and a discriminator that is to be fooled.

    Source: Boundary-Aware Backward-Compatible Representation via Adversarial Learning in Image Retrieval (Pan
    et al., CVPR 2023, arXiv 2305.02610), its published code, and the port in MixBCT's comparison, whose
    weights and radius are the defaults here. The centre of a class is the mean of its unit old features, and
    its radius r the largest distance from there that is no outlier, see `kept_extent`. The boundary term is
    the mean, over the rows that violate it, of how far a unit new feature lies beyond the learned radius R,
    which lies between r and the target radius; rows whose class keeps fewer than two old features never do.
    The adversarial term is the discriminator's loss on unit new features, whose gradient is reversed and
    grows during training, plus that on unit old ones; it fades linearly over the epochs. New and old rows
    pass through the discriminator, and its batch normalisation, one after the other. Deviation from AdvBCT's
    own code, not from the port's: the discriminator sees normalised features.

    Args:
        old: the old system, with features of the new model's width.
        classifier: the new model's classifier.
        boundary_weight: factor of the boundary term, at least 0; published 4 in MixBCT's comparison, 1 in
            AdvBCT's own code, here chosen on validation identities.
        adversarial_weight: factor of the adversarial term, at least 0; published 4 in MixBCT's comparison, 1
            in AdvBCT's own code.
        target_radius: T, end of the range of every learned radius, 0..2; published 0.4 in MixBCT's
            comparison, 1 in AdvBCT's own code.
        hidden: values of the discriminator's hidden layer, at least 1; published 100.
    Raises:
        ValueError: "The method advbct needs old and new features of one width, not 32 (old) and 64 (new).
            ..."; "The method advbct needs at least two rows in a batch, ..." while training.
    """

    name = "advbct"
    title = "AdvBCT"
    paper = (
        "Boundary-Aware Backward-Compatible Representation via Adversarial Learning in Image Retrieval "
        "(Pan et al., CVPR 2023, arXiv 2305.02610)"
    )
    needs = frozenset({"features"})
    published = {"boundary_weight": 4.0}
    formulas = {
        "classification": r"\frac{1}{B}\sum_i \mathrm{CE}(W n_i, y_i)",
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
        boundary_weight: float = 16.0,
        adversarial_weight: float = 4.0,
        target_radius: float = 0.4,
        hidden: int = 100,
    ):
        super().__init__(old, classifier)
        equal_widths(self.name, old, classifier, "")
        if isinstance(hidden, bool) or not isinstance(hidden, int) or hidden < 1:
            raise ValueError(f"hidden must be a whole number of at least 1, not {hidden!r}.")
        self.weights["boundary"] = check_number("boundary_weight", boundary_weight)
        self.weights["adversarial"] = check_number("adversarial_weight", adversarial_weight)
        self.target_radius = check_number("target_radius", target_radius, 0, 2)
        centres = old.prototypes("unit")
        blocks = torch.arange(len(old.labels), device=old.labels.device).split(ROWS_AT_ONCE)
        distances = [
            (unit_rows(old.features[rows].double()) - centres[old.labels[rows]]).norm(dim=1)
            for rows in blocks
        ]
        radii, counts = kept_extent(torch.cat(distances), old.labels, old.num_classes)
        self.register_buffer("old_centres", centres, persistent=False)
        self.register_buffer("old_radii", radii.float(), persistent=False)
        self.register_buffer("old_bounded", counts > 1, persistent=False)
        self.elasticity = nn.Parameter(torch.empty(old.num_classes).uniform_(-1, 1))  # v
        self.discriminator = nn.Sequential(
            nn.Linear(old.width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 2)
        )

    def elastic_radii(self) -> Tensor:
        """R: float32 [C], the learned radius of every class, between its own and the target radius."""
        # r + |r - T| sigma(v) below the target and r - |r - T| sigma(v) above it, in one
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
        if self.training and len(new) < 2:
            raise ValueError(
                f"The method {self.name} needs at least two rows in a batch, whose statistics its "
                f"discriminator takes, not {len(new)}. Change the batch size."
            )
        strength = 2.0 / (1.0 + math.exp(-10.0 * step.progress)) - 1.0
        of_new = self.discriminator(reverse_gradient(new, strength))
        of_old = self.discriminator(old)
        return F.cross_entropy(of_new, step.labels.new_full((len(new),), NEW)) + F.cross_entropy(
            of_old, step.labels.new_full((len(old),), OLD)
        )
