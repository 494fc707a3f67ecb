"""Dual-Tuning: old prototypes as targets, and each model's features through the other's classifier."""

import torch
from torch import Tensor

from compat_lib.losses.base import CompatibilityLoss, Step, prototype_table
from compat_lib.losses.heads import Classifier, FrozenClassifier, fit_width, row_cross_entropy
from compat_lib.names import check_choice, check_number
from compat_lib.old_system import OldSystem


class DualTuning(CompatibilityLoss):
    """Classification, prototype transfer and mutual structural regularisation.

    Source: Dual-Tuning (arXiv 2108.02959). Reconstruction: the published code lacks the file with the losses;
    terms and constants follow its configuration files and the abstract. The loss is classification + lambda_c
    prototype + lambda_s (old_to_new + new_to_old), where "prototype" classifies new embeddings by the old
    class means of all new classes, "old_to_new" classifies old features by the trained classifier (its margin
    included; only the classifier learns from it; all rows, where the source is silent), and "new_to_old"
    classifies new embeddings of shared classes by the old classifier. Features of another width are cut to
    their first coordinates or padded with zeros. When classes are shared, the old classifier and its class
    map are needed besides features. A term whose weight is 0 is not computed.

    The published configurations run these terms, on embeddings after the batch normalisation but for MSMT17,
    and add the task's triplet loss (task_loss="triplet") in some. Terms that none of them runs or that the
    code does not define (triplets across models and to the centres, MixCenter, loss_KL, L2Loss) are left out.
    Deviation: the added terms are divided by their number of rows, not by the number of those whose loss is
    not exactly zero.

    Args:
        prototype_weight: lambda_c, factor of the prototype term, at least 0; published 0.1, which goes with
            unbounded inner products; with bounded cosines 10 was chosen on validation identities.
        structure_weight: lambda_s, factor of both structural terms, at least 0; published 0.2.
        new_to_old_factor: what new_to_old weighs beside old_to_new, at least 0: structure_weight times this;
            whether the two share lambda_s (1) is not published. 0 is for those who lost the old classifier.
        logits: "cosine" (kappa x cosine with the prototypes) or "dot" (inner products as they are, which
            saturate for wide features); not published.
        kappa: factor of the cosines, above 0; not published. Not used by "dot".
    """

    name = "dual_tuning"
    title = "Dual-Tuning"
    paper = (
        "Dual-Tuning: Joint Prototype Transfer and Structure Regularization for Compatible Feature Learning "
        "(Bai et al., IEEE Transactions on Multimedia 2023, arXiv 2108.02959)"
    )
    needs = frozenset({"features"})
    formulas = {
        "prototype": r"\frac{1}{B}\sum_i \mathrm{CE}(\kappa\,\hat P\,\widehat{T(n_i)}, y_i)",
        "old_to_new": r"\frac{1}{B}\sum_i \mathrm{CE}(W\,T'(o_i), y_i)",
        "new_to_old": r"\frac{1}{|I|}\sum_{i \in I} \mathrm{CE}(V\,T(n_i), \mu(y_i))",
    }
    reconstruction = True
    whole_classifier = True
    dropped = {"o2n_rows": "all"}
    published = {"prototype_weight": 0.1}

    def __init__(
        self,
        old: OldSystem,
        classifier: Classifier,
        *,
        prototype_weight: float = 10.0,
        structure_weight: float = 0.2,
        new_to_old_factor: float = 1.0,
        logits: str = "cosine",
        kappa: float = 16.0,
    ):
        super().__init__(old, classifier)
        structure = check_number("structure_weight", structure_weight)
        weights = {
            "prototype": check_number("prototype_weight", prototype_weight),
            "old_to_new": structure,
            "new_to_old": structure * check_number("new_to_old_factor", new_to_old_factor),
        }
        self.weights |= {term: weight for term, weight in weights.items() if weight > 0}
        check_choice("logits", logits, ("cosine", "dot"))
        check_number("kappa", kappa, 1e-6)
        prototypes, present = prototype_table(old, "raw", self.name)
        scale = kappa if logits == "cosine" else None
        self.prototype_classifier = FrozenClassifier(prototypes, scale=scale, present=present)
        nowhere = torch.full((old.num_classes,), -1, device=prototypes.device)
        class_map = nowhere if old.class_map is None else old.class_map
        self.register_buffer("class_map", class_map, persistent=False)
        self.old_classifier = self._old_classifier(old) if "new_to_old" in self.weights else None

    def _old_classifier(self, old: OldSystem) -> FrozenClassifier | None:
        """The old classifier when new_to_old can use it, None when no class is shared."""
        if old.classifier_weight is not None and old.class_map is None:
            raise ValueError(
                f"The method {self.name} needs the class map of the old classifier. Pass class_map=[C], the "
                "old label of each new class or -1, or leave the term out with new_to_old_factor=0."
            )
        shared = int((self.class_map >= 0).sum())
        if shared and old.classifier_weight is None:
            raise ValueError(
                f"The method {self.name} needs the old classifier, because {shared} classes are shared. Pass "
                "classifier_weight=[C_old, d], or leave the term out with new_to_old_factor=0."
            )
        frozen = (old.classifier_weight, old.classifier_bias, old.classifier_scale)
        return FrozenClassifier(*frozen) if shared else None

    def terms(self, step: Step) -> dict[str, Tensor]:
        new, labels = step.embeddings, step.labels
        terms = {}
        if "prototype" in self.weights:
            terms["prototype"] = row_cross_entropy(self.prototype_classifier(new), labels)
        if "old_to_new" in self.weights:
            old = fit_width(step.old_features, self.classifier.width)
            logits = self.classifier.logits(old, labels, step.progress)
            terms["old_to_new"] = row_cross_entropy(logits, labels)
        if "new_to_old" in self.weights:
            if self.old_classifier is None:  # no class is shared
                terms["new_to_old"] = new.new_zeros(())
            else:
                # -1 where the old model never saw the class
                terms["new_to_old"] = row_cross_entropy(self.old_classifier(new), self.class_map[labels])
        return {"classification": self.classification(step), **terms}

    def comparable(self, new: Tensor, old: Tensor) -> tuple[Tensor, Tensor]:
        return fit_width(new, old.shape[1]), old
