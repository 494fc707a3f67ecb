"""MixBCT: train on a batch in which some rows are the old model's features."""

import copy
import math

import torch
from torch import Tensor

from compat_lib.losses.base import CompatibilityLoss, Step, equal_widths
from compat_lib.losses.heads import Classifier, fit_width
from compat_lib.names import check_choice, check_number
from compat_lib.old_system import OldSystem


class MixBCT(CompatibilityLoss):
    """One classification loss over a batch that mixes new embeddings with credible old features.

    Source: MixBCT (Liang et al., arXiv 2308.06948) and its published code. The old features shape the
    classifier, the new embeddings follow the classifier; there is no other term. Deviations: the replaced
    rows are not embedded at all, where the published code embeds them and throws the result away (its batch
    statistics use all rows, ours the embedded ones); the draw has its own seed; a batch with fewer credible
    rows than asked for replaces those it has, where the published code stops.

    Args:
        mix_ratio: alpha, share of a batch that is replaced by old features, 0..1; published 0.3. With 0 the
            method is independent training to the bit.
        credible_share: T, share of each class's old features, nearest to their mean, that may be used, 0..1;
            published 0.9. With 0 nothing is replaced.
        old_margin_factor: factor of the margin on old rows, 0..1; published 1. The classifier is drawn to
            those of a weak old model that cannot keep the margin.
        old_scale_factor: factor of the classifier's scale on old rows, above 0; published 1.
        columns: True divides every column of the old features by its norm before the distances are taken, as
            the published code does; False takes the distances between unit rows as they are.
        pad: "refuse" old features of another width, as in the paper, or "zero" to fill narrower ones with
            zeros up to the new width.
    """

    name = "mixbct"
    title = "MixBCT"
    paper = "MixBCT: Towards Self-Adapting Backward-Compatible Training (Liang et al., arXiv 2308.06948)"
    needs = frozenset({"features"})
    formulas = {
        "classification": r"\frac{1}{B}\sum_i \mathrm{CE}(W m_i, y_i),"
        r" \quad m_i = o_i \text{ if } i \in R, \text{ else } n_i"
    }

    def __init__(
        self,
        old: OldSystem,
        classifier: Classifier,
        *,
        mix_ratio: float = 0.3,
        credible_share: float = 0.9,
        old_margin_factor: float = 1.0,
        old_scale_factor: float = 1.0,
        columns: bool = True,
        pad: str = "refuse",
    ):
        super().__init__(old, classifier)
        self.mix_ratio = check_number("mix_ratio", mix_ratio, 0, 1)
        check_number("credible_share", credible_share, 0, 1)
        self.old_margin_factor = check_number("old_margin_factor", old_margin_factor, 0, 1)
        self.old_scale_factor = check_number("old_scale_factor", old_scale_factor, 1e-6)
        check_choice("columns", columns, (True, False))
        check_choice("pad", pad, ("refuse", "zero"))
        if pad == "refuse" or old.width > classifier.width:
            advice = ", or pass pad='zero'" if old.width < classifier.width else ""
            equal_widths(self.name, old, classifier, advice)
        credible = old.credible(credible_share, columns)
        self.credible_fraction = float(credible.float().mean())
        self.credible = credible.cpu()  # rows are drawn there, so that no step waits for a GPU
        # how many batches had fewer credible rows than asked for; in the checkpoint, so a resumed run knows
        self.register_buffer("short_batches", torch.zeros((), dtype=torch.int64))

    @property
    def embedded_share(self) -> float:
        return 1.0 - min(self.mix_ratio, self.credible_fraction)

    def rows_to_embed(self, rows: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor | None:
        asked = math.floor(self.mix_ratio * len(rows) + 1e-9)  # 0.29 * 100 is 28.999... in floating point
        if asked == 0:
            return None
        candidates = self.credible[rows.cpu()].nonzero()[:, 0]
        if len(candidates) < asked:
            self.short_batches += 1
        if len(candidates) == 0:
            return None
        drawn = torch.randperm(len(candidates), generator=generator)[:asked]
        embedded = torch.ones(len(rows), dtype=torch.bool)
        embedded[candidates[drawn]] = False
        return embedded

    def terms(self, step: Step) -> dict[str, Tensor]:
        classifier, labels = self.classifier, step.labels
        if step.embedded is None:
            return {"classification": classifier.loss(step.embeddings, labels, step.progress)}
        old = fit_width(step.old_features, classifier.width).to(step.embeddings.dtype)
        new, past = step.places(), step.places(embedded=False)
        if self.old_margin_factor == self.old_scale_factor == 1:
            mixed = old.index_copy(0, new, step.embeddings)
            return {"classification": classifier.loss(mixed, labels, step.progress)}
        loss = len(past) * self._milder().loss(old[past], labels[past], step.progress)
        if len(new):
            loss = loss + len(new) * classifier.loss(step.embeddings, labels[new], step.progress)
        return {"classification": loss / len(labels)}

    def _milder(self) -> Classifier:
        """The classifier as old rows meet it: the same weights."""
        milder = copy.copy(self.classifier)
        milder.margin = self.old_margin_factor * milder.margin
        milder.scale = self.old_scale_factor * milder.scale
        return milder

    def comparable(self, new: Tensor, old: Tensor) -> tuple[Tensor, Tensor]:
        return new, fit_width(old, new.shape[1])
