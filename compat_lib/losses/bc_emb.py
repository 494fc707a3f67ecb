"""BC-Aligner: the new model is trained together with a linear map back to its predecessor's features."""

import torch
from torch import Tensor, nn

from compat_lib.losses.base import CompatibilityLoss, Step
from compat_lib.losses.heads import Classifier, unit_rows
from compat_lib.names import check_number
from compat_lib.old_system import OldSystem

RATE = 0.1  # of the recipe, see ExperimentConfig.lr: the largest at which no direction of M may overshoot


class BCEmb(CompatibilityLoss):
    """Classification plus the distance of each old feature from a learned linear map M of the new one.

    Source: BC-Aligner of Learning Backward Compatible Embeddings (arXiv 2206.03040) and its published code. A
    query asks the old gallery as M n; new features themselves are free. In a chain M leads to the model just
    before, and the maps of the generations before that, which are frozen and composed, go on to older
    galleries: A_1 is the identity, A_2 leads from the old model to the one before it, and so on to A_G. The
    distance is taken at all of these, see `OldSystem.maps`. With one old model G is 1.

    Deviations: the source has no unit rows, since its features are compared by inner products, and takes the
    mean of the squares over coordinates; the sum over those of unit rows is as large as that mean where a
    coordinate's variance is one. M is trained by the optimiser of the rest, not by an Adam of its own; it is
    a multiple of what is trained, small enough for the rate of the recipe whatever the features and the older
    maps.

    Args:
        weight: lambda, factor of the squared distances, at least 0; published 16, of the sum of three such
            means (users, items, and items that were not bought), here chosen on validation identities.
    """

    name = "bc_emb"
    title = "BC-Aligner"
    paper = "Learning Backward Compatible Embeddings (Hu et al., KDD 2022, arXiv 2206.03040)"
    needs = frozenset({"features"})
    published = {"weight": 16.0}
    formulas = {
        "alignment": r"\frac{1}{G B}\sum_i \sum_{g=1}^{G} \lVert A_g (\hat o_i - M \hat n_i) \rVert_2^2",
    }
    learns = "a linear map of queries to old features"
    asks = "new model, map"

    def __init__(self, old: OldSystem, classifier: Classifier, *, weight: float = 3.79):
        super().__init__(old, classifier)
        self.weights["alignment"] = check_number("weight", weight)
        self.widths = [old.width, *map(len, old.maps)]  # of the galleries, the nearest first
        back = torch.cat([torch.eye(old.width), *old.maps])
        self.register_buffer("back", back, persistent=False)
        # the curvature of the weighted term in M, at most: unit rows have no second moment above one
        curvature = 2 * max(weight, 1.0) * torch.linalg.matrix_norm(back, 2) ** 2 / len(self.widths)
        self.register_buffer("factor", (RATE * curvature).rsqrt())
        start = nn.Linear(classifier.width, old.width, bias=False).weight.detach()
        self.map = nn.Parameter(start / self.factor)

    def terms(self, step: Step) -> dict[str, Tensor]:
        old = unit_rows(step.old_features.to(self.map.dtype))
        apart = (old - unit_rows(step.embeddings) @ self.matrix.T) @ self.back.T  # by all A_g at once
        squares = apart.square().sum(dim=1).mean() / len(self.widths)
        return {"classification": self.classification(step), "alignment": squares}

    @property
    def matrix(self) -> Tensor:
        """M, [d_o, d_n], with gradient."""
        return self.factor * self.map

    @property
    def maps(self) -> tuple[Tensor, ...]:
        return (self.back @ self.matrix).detach().cpu().split(self.widths)

    def comparable(self, new: Tensor, old: Tensor) -> tuple[Tensor, Tensor]:
        return new @ self.matrix.T, old
