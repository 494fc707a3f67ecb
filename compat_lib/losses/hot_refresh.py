"""Hot refresh (RACT): a new embedding is nearer to its old feature than to any other class, old or new."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from compat_lib.losses.base import CompatibilityLoss, Step, check_choice, check_number, equal_widths
from compat_lib.losses.heads import Classifier, unit_rows
from compat_lib.old_system import OldSystem

FORMS = ("ract", "contra", "triplet-ract", "triplet")


class HotRefresh(CompatibilityLoss):
    """Classification plus a contrast of each new embedding's own old feature with the hardest other classes.

    Source: Hot-Refresh Model Upgrades (Zhang et al., ICLR 2022, arXiv 2201.09724) and its published code.
    Negatives are rows of the batch with another label; the hardest ones of each kind, new-old and new-new,
    are those with the largest cosines. Rows with fewer negatives than asked for use those they have, where
    the published code fails on small batches; a batch of one class costs nothing. Deviation: the new features
    of the negatives carry a gradient too; the published code gathers them from all processes without.

    Args:
        old: the old system, with features of the new model's width.
        classifier: the new model's classifier.
        form: "ract" contrasts the positive pair with new-old and new-new negatives in one softmax
            (published); "contra" leaves the new-new negatives out. "triplet-ract" and "triplet" are the same
            with a hinge on Euclidean distances, positive - negative + margin, averaged over the pairs of each
            kind; the two kinds are added.
        temperature: tau, divisor of the cosines, above 0; published 0.01. Not used by the triplet forms.
        negatives: k, number of the hardest negatives of each kind, a whole number of at least 1; published
            10.
        margin: distance of unit features, at least 0; published 0.8. Only used by the triplet forms.
        weight: factor of the contrast, at least 0; published 1.
    Raises:
        ValueError: "The method hot_refresh needs old and new features of one width, not 32 (old) and 64
            (new). ..."; "negatives must be a whole number of at least 1, not 2.5."
    """

    name = "hot_refresh"
    title = "Hot refresh (RACT)"
    paper = (
        "Hot-Refresh Model Upgrades with Regression-Alleviating Compatible Training in Image Retrieval "
        "(Zhang et al., ICLR 2022, arXiv 2201.09724)"
    )
    needs = frozenset({"features"})
    formulas = {
        "classification": r"\frac{1}{B}\sum_i \mathrm{CE}(W n_i, y_i)",
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
        form: str = "ract",
        temperature: float = 0.01,
        negatives: int = 10,
        margin: float = 0.8,
        weight: float = 1.0,
    ):
        check_choice("form", form, FORMS)
        if not isinstance(negatives, int) or isinstance(negatives, bool) or negatives < 1:
            raise ValueError(f"negatives must be a whole number of at least 1, not {negatives!r}.")
        super().__init__(old, classifier)
        equal_widths(self.name, old, classifier, "")
        self.form, self.negatives = form, negatives
        self.temperature = check_number("temperature", temperature, 1e-6)
        self.margin = check_number("margin", margin)
        self.weights["contrast"] = check_number("weight", weight)

    def terms(self, step: Step) -> dict[str, Tensor]:
        new, old = unit_rows(step.embeddings), unit_rows(step.old_features)
        positives = (new * old).sum(dim=1, keepdim=True)
        others = step.labels[:, None] != step.labels
        negatives = [self._hardest(new @ old.to(new.dtype).T, others)]
        if self.form in ("ract", "triplet-ract"):
            negatives.append(self._hardest(new @ new.T, others))
        if self.form in ("ract", "contra"):
            logits = torch.cat([positives, *negatives], dim=1) / self.temperature
            contrast = F.cross_entropy(logits, torch.zeros_like(step.labels))
        else:
            contrast = sum(self._hinge(positives, cosines) for cosines in negatives)
        return {"classification": self.classification(step), "contrast": contrast}

    def _hardest(self, cosines: Tensor, others: Tensor) -> Tensor:
        """The largest cosines of each row among the other classes, minus infinity where there are too few."""
        return cosines.masked_fill(~others, -math.inf).topk(min(self.negatives, len(cosines)), dim=1).values

    def _hinge(self, positives: Tensor, negatives: Tensor) -> Tensor:
        """Mean over the pairs that exist of (positive distance - negative distance + margin), at least 0."""
        there = negatives != -math.inf  # what is not a number is there, and is seen in the result
        excess = _distances(positives) - _distances(negatives.where(there, 0.0)) + self.margin
        return excess.clamp(min=0).where(there, 0.0).sum() / there.sum().clamp(min=1)


def _distances(cosines: Tensor) -> Tensor:
    return (2.0 - 2.0 * cosines).clamp(min=1e-12).sqrt()  # the root has no slope at zero
