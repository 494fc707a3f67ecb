"""Dual-Tuning: old prototypes as targets, and each model's features through the other's classifier."""

import torch
from torch import Tensor

from compat_lib.losses.contract import (
    CompatibilityLoss,
    Step,
    check_choice,
    check_number,
    frozen_old_classifier,
    prototype_table,
)
from compat_lib.losses.margins import Classifier, FrozenClassifier, fit_width, row_cross_entropy
from compat_lib.old_system import OldSystem


class DualTuning(CompatibilityLoss):
    """Classification, prototype transfer and mutual structural regularisation.

    Source: Dual-Tuning (Bai et al., IEEE Transactions on Multimedia 2023, arXiv 2108.02959). Reconstruction:
    the published code lacks the file with the losses; terms and constants follow its configuration files and
    the abstract. The loss is classification + lambda_c prototype + lambda_s (old_to_new + new_to_old), where
    "prototype" classifies new embeddings by the old class means of all new classes, "old_to_new" classifies
    old features by the trained classifier (its margin included; only the classifier learns from it), and
    "new_to_old" classifies new embeddings of shared classes by the old classifier. Features of another width
    are cut to their first coordinates or padded with zeros. Without shared classes features are enough.

    Args:
        old: the old system, with features; with the classifier and its class map when classes are shared.
        classifier: the new model's classifier.
        prototype_weight: lambda_c, factor of the prototype term, at least 0; published 0.1, which goes with
            unbounded inner products; with bounded cosines 1 was chosen on validation identities.
        structure_weight: lambda_s, factor of both structural terms, at least 0; published 0.2.
        logits: "cosine" (kappa x cosine with the prototypes) or "dot" (inner products as they are, which
            saturate for wide features); not published.
        kappa: factor of the cosines, above 0; not published. Not used by "dot".
        o2n_rows: "all" rows in old_to_new, or those of "shared" classes only; not published.
        new_to_old: False leaves new_to_old out (it counts as zero), for those who lost the old classifier.
        label_smoothing: epsilon of the three added terms, 0..1 (exclusive); published 0.
        average: "raw" class means of the features as they are (published), or "unit" of normalised ones.
    Raises:
        ValueError: "The method dual_tuning needs the old classifier, because 30 classes are shared. ..."
    """

    name = "dual_tuning"
    title = "Dual-Tuning"
    paper = (
        "Dual-Tuning: Joint Prototype Transfer and Structure Regularization for Compatible Feature Learning "
        "(Bai et al., IEEE Transactions on Multimedia 2023, arXiv 2108.02959)"
    )
    needs = frozenset({"features"})
    formulas = {
        "classification": r"\frac{1}{B}\sum_i \mathrm{CE}(W n_i, y_i)",
        "prototype": r"\frac{1}{B}\sum_i \mathrm{CE}_\epsilon(\kappa\,\hat P\,\widehat{T(n_i)}, y_i)",
        "old_to_new": r"\frac{1}{B}\sum_i \mathrm{CE}_\epsilon(W\,T'(o_i), y_i)",
        "new_to_old": r"\frac{1}{|I|}\sum_{i \in I} \mathrm{CE}_\epsilon(V\,T(n_i), \mu(y_i))",
    }
    reconstruction = True
    published = {"prototype_weight": 0.1}

    def __init__(
        self,
        old: OldSystem,
        classifier: Classifier,
        *,
        prototype_weight: float = 1.0,
        structure_weight: float = 0.2,
        logits: str = "cosine",
        kappa: float = 16.0,
        o2n_rows: str = "all",
        new_to_old: bool = True,
        label_smoothing: float = 0.0,
        average: str = "raw",
    ):
        check_number("prototype_weight", prototype_weight)
        check_number("structure_weight", structure_weight)
        check_choice("logits", logits, ("cosine", "dot"))
        check_number("kappa", kappa, 1e-6)
        check_choice("o2n_rows", o2n_rows, ("all", "shared"))
        check_choice("new_to_old", new_to_old, (True, False))
        check_number("label_smoothing", label_smoothing, 0, 0.999)
        check_choice("average", average, ("raw", "unit"))
        super().__init__(old, classifier)
        self.weights |= {
            "prototype": float(prototype_weight),
            "old_to_new": float(structure_weight),
            "new_to_old": float(structure_weight),
        }
        self.o2n_rows, self.label_smoothing = o2n_rows, label_smoothing
        prototypes, present = prototype_table(old, average, self.name)
        self.prototype_classifier = FrozenClassifier(
            prototypes, scale=kappa if logits == "cosine" else None, present=present
        )
        class_map = old.class_map
        if class_map is None:
            class_map = torch.full((old.num_classes,), -1, device=prototypes.device)
        self.register_buffer("class_map", class_map, persistent=False)
        self.old_classifier = self._old_classifier(old) if new_to_old and structure_weight > 0 else None

    def _old_classifier(self, old: OldSystem) -> FrozenClassifier | None:
        """The old classifier when new_to_old can use it, None when no class is shared."""
        if old.classifier_weight is not None and old.class_map is None:
            raise ValueError(
                f"The method {self.name} needs the class map of the old classifier. Pass class_map=[C], the "
                "old label of each new class or -1, or switch the term off with new_to_old=False."
            )
        shared = int((self.class_map >= 0).sum())
        if shared == 0:
            return None
        if old.classifier_weight is None:
            raise ValueError(
                f"The method {self.name} needs the old classifier, because {shared} classes are shared. Pass "
                "classifier_weight=[C_old, d], or switch the term off with new_to_old=False."
            )
        return frozen_old_classifier(old)

    def terms(self, step: Step) -> dict[str, Tensor]:
        old_labels = self.class_map[step.labels]
        prototype = self._loss(self.prototype_classifier(step.embeddings), step.labels)

        old_features = fit_width(step.old_features, self.classifier.width)
        old_logits = self.classifier.logits(old_features, step.labels, step.progress)
        chosen = step.labels if self.o2n_rows == "all" else step.labels.where(old_labels >= 0, -1)
        old_to_new = self._loss(old_logits, chosen)

        new_to_old = prototype.new_zeros(())
        if self.old_classifier is not None:
            new_to_old = self._loss(self.old_classifier(step.embeddings), old_labels)
        return {
            "classification": self.classification(step),
            "prototype": prototype,
            "old_to_new": old_to_new,
            "new_to_old": new_to_old,
        }

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return row_cross_entropy(logits, targets, self.label_smoothing)
