"""Hot refresh (RACT): a new embedding is nearer to its old feature than to any other class, old or new."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from compat_lib.losses.base import CompatibilityLoss, Step
from compat_lib.losses.heads import Classifier, unit_rows
from compat_lib.names import check_number, checked_count
from compat_lib.old_system import OldSystem


class HotRefresh(CompatibilityLoss):
    """Classification plus a contrast of each new embedding's own old feature with the hardest other classes.

    Source: RACT (arXiv 2201.09724) and its published code. Negatives are rows of the batch with another
    label; the hardest ones of each kind, new-old and new-new, are those with the largest cosines. Deviations:
    rows with fewer negatives than asked for use those they have, where the published code fails on small
    batches; and the new features of the negatives carry a gradient too, where the published code gathers them
    from all processes without.

    Args:
        temperature: tau, divisor of the cosines, above 0; published 0.01.
        negatives: k, number of the hardest negatives of each kind, a whole number of at least 1; published
            10.
        weight: factor of the contrast, at least 0; published 1.
    """

    name = "hot_refresh"
    title = "Hot refresh (RACT)"
    paper = (
        "Hot-Refresh Model Upgrades with Regression-Alleviating Compatible Training in Image Retrieval "
        "(Zhang et al., ICLR 2022, arXiv 2201.09724)"
    )
    needs = frozenset({"features"})
    one_width = True
    dropped = {"form": "ract"}
    published = {"temperature": 0.01, "weight": 1.0}
    formulas = {
        "contrast": r"-\frac{1}{B}\sum_i \log \frac{e^{\hat n_i \cdot \hat o_i / \tau}}"
        r"{e^{\hat n_i \cdot \hat o_i / \tau} + \sum_j e^{\hat n_i \cdot \hat o_j / \tau}"
        r" + \sum_j e^{\hat n_i \cdot \hat n_j / \tau}},"
        r" \quad y_j \neq y_i, \; k \text{ hardest of each sum}",
    }

    def __init__(
        self,
        old: OldSystem,
        classifier: Classifier,
        *,
        temperature: float = 0.0709,
        negatives: int = 10,
        weight: float = 1.6,
    ):
        super().__init__(old, classifier)
        self.temperature = check_number("temperature", temperature, 1e-6)
        self.negatives = checked_count("negatives", negatives)
        self.weights["contrast"] = check_number("weight", weight)

    def terms(self, step: Step) -> dict[str, Tensor]:
        new, old = unit_rows(step.embeddings), unit_rows(step.old_features)
        others = step.labels[:, None] != step.labels
        own = (new * old).sum(dim=1, keepdim=True)
        past = self._hardest(new @ old.to(new.dtype).T, others)
        logits = torch.cat([own, past, self._hardest(new @ new.T, others)], dim=1)
        first = torch.zeros_like(step.labels)  # the positive stands in the first column
        contrast = F.cross_entropy(logits / self.temperature, first)
        return {"classification": self.classification(step), "contrast": contrast}

    def _hardest(self, cosines: Tensor, others: Tensor) -> Tensor:
        """The largest cosines of each row among the other classes, minus infinity where there are too few."""
        return cosines.masked_fill(~others, -math.inf).topk(min(self.negatives, len(cosines)), dim=1).values
