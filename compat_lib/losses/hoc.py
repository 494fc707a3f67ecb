"""HOC: higher-order compatibility, a new embedding recognises its own old feature among other classes'."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from compat_lib.losses.base import CompatibilityLoss, Step
from compat_lib.losses.heads import Classifier, unit_rows
from compat_lib.names import check_number
from compat_lib.old_system import OldSystem


class HOC(CompatibilityLoss):
    """Classification plus a contrast of each new embedding's own old feature with the other classes'.

    Source: Stationary Representations (arXiv 2405.02581) and its published code. It is RACT's contrast
    without the new-new negatives, with all of the batch's other classes, at temperature 1 / scale.
    Deviations: the published code multiplies entries of the own class by zero, so that each adds exp(0) to
    the sum, and takes the old feature as the anchor; here they are left out, and the new embedding is the
    anchor, as the paper has it.
    The paper trains both generations with stationary classifiers, `old_loss` and `new_loss` "simplex".

    Args:
        scale: mu, factor of the cosines, above 0; published 10.
        weight: factor of the contrast, at least 0; published 9 (0.9 beside 0.1 times the classification).
    """

    name = "hoc"
    title = "HOC"
    paper = (
        "Stationary Representations: Optimally Approximating Compatibility and Implications for Improved "
        "Model Replacements (Biondi et al., CVPR 2024, arXiv 2405.02581)"
    )
    needs = frozenset({"features"})
    one_width = True
    published = {"scale": 10.0, "weight": 9.0}
    formulas = {
        "contrast": r"-\frac{1}{B}\sum_i \log \frac{e^{\mu \hat n_i \cdot \hat o_i}}"
        r"{\sum_j e^{\mu \hat n_i \cdot \hat o_j}}, \quad y_j \neq y_i \text{ or } j = i",
    }

    def __init__(self, old: OldSystem, classifier: Classifier, *, scale: float = 15.4, weight: float = 11.5):
        super().__init__(old, classifier)
        self.scale = check_number("scale", scale, 1e-6)
        self.weights["contrast"] = check_number("weight", weight)

    def terms(self, step: Step) -> dict[str, Tensor]:
        new, old = unit_rows(step.embeddings), unit_rows(step.old_features)
        own = torch.arange(len(new), device=new.device)
        same_class = (step.labels[:, None] == step.labels) & (own[:, None] != own)
        logits = (self.scale * (new @ old.to(new.dtype).T)).masked_fill(same_class, -math.inf)
        return {"classification": self.classification(step), "contrast": F.cross_entropy(logits, own)}
