"""Dual-Tuning: old prototypes as targets, and each model's features through the other's classifier."""

import torch
from torch import Tensor

from compat_lib.losses.base import (
    CompatibilityLoss,
    Step,
    check_choice,
    check_number,
    frozen_old_classifier,
    prototype_table,
)
from compat_lib.losses.heads import Classifier, FrozenClassifier, fit_width, unit_rows
from compat_lib.losses.metric import circle_loss, smoothed_cross_entropy, triplet_loss
from compat_lib.losses.mixing import RunningCentres
from compat_lib.old_system import OldSystem

FEATURES = ("embeddings", "pooled")


class DualTuning(CompatibilityLoss):
    """Classification, prototype transfer and mutual structural regularisation.

    Source: Dual-Tuning (Bai et al., IEEE Transactions on Multimedia 2023, arXiv 2108.02959). Reconstruction:
    the published code lacks the file with the losses; terms and constants follow its configuration files and
    the abstract. The loss is classification + lambda_c prototype + lambda_s (old_to_new + new_to_old), where
    "prototype" classifies new embeddings by the old class means of all new classes, "old_to_new" classifies
    old features by the trained classifier (its margin included; only the classifier learns from it), and
    "new_to_old" classifies new embeddings of shared classes by the old classifier. Features of another width
    are cut to their first coordinates or padded with zeros. Without shared classes features are enough.

    The other terms that the published code names are off until they have a weight: "n2o_triplet" between new
    and old features of the batch, "centre_triplet" between new features and old class means (negatives always
    weighted), and the task's own "triplet" and "circle"; triplets across models compare the first min(d_o,
    d_n) coordinates. Triplets want batches with several images of a class. MixCenter, a variant of
    "prototype", is on when new_centre_share is above 0. That code also names loss_KL and L2Loss without a
    definition; they are left out. A term whose weight is 0 is not computed.

    Args:
        old: the old system, with features; with the classifier and its class map when classes are shared.
        classifier: the new model's classifier.
        prototype_weight: lambda_c, factor of the prototype term, at least 0; published 0.1, which goes with
            unbounded inner products; with bounded cosines 10 was chosen on validation identities.
        structure_weight: lambda_s, factor of both structural terms, at least 0; published 0.2.
        new_to_old_factor: what new_to_old weighs beside old_to_new, at least 0: structure_weight times this;
            whether the two share lambda_s (1) is not published.
        logits: "cosine" (kappa x cosine with the prototypes) or "dot" (inner products as they are, which
            saturate for wide features); not published.
        kappa: factor of the cosines, above 0; not published. Not used by "dot".
        o2n_rows: "all" rows in old_to_new, or those of "shared" classes only; not published.
        new_to_old: False leaves new_to_old out (it counts as zero), for those who lost the old classifier.
        label_smoothing: epsilon of the three added terms, 0..1 (exclusive); published 0.
        adaptive_smoothing: alpha, 0..1 (exclusive); above 0 the epsilon of a row is alpha times its own
            probability of its class, in place of label_smoothing; published 0, or 0.2 where it is on.
        divisor: "rows" divides the three added terms by their number of rows, "nonzero" (published) by the
            number of rows whose loss is not exactly zero, which happens to "dot".
        average: "raw" class means of the features as they are (published), or "unit" of normalised ones.
        prototype_features: new features that meet the class means, in "prototype" and "centre_triplet":
            "embeddings" (published _bn) or "pooled", before the batch normalisation (published without _bn).
        new_centre_share: share of classes, drawn in every step, whose centre in "prototype" is the new
            model's running one, 0..1; published 0, and 0.5 in MixCenter. Guesses: those of RunningCentres,
            and that a batch moves the centres after its own loss.
        eta: what a running centre keeps of itself in a step, 0..1; published 0.7.
        queue: recent features that the running centres follow, at least 0 (0: the batch); published 4096.
        n2o_triplet_weight: factor of n2o_triplet, at least 0; published 0, or 1 where it is on.
        n2o_two_way: True lets old features be anchors too (published), False new ones only.
        n2o_features: "embeddings" or "pooled" new features in n2o_triplet; both occur in the published code.
        centre_triplet_weight: factor of centre_triplet, at least 0; not published.
        triplet_weight: factor of the task's triplet loss, at least 0; published 0, or 1 where it is on.
        circle_weight: factor of the task's circle loss, at least 0; published 0, or 1 where it is on.
        metric_features: features of the task's two losses, "pooled" (published) or "embeddings".
        triplet_margin: margin of all three triplets, at least 0; published 0.3; 0 is the soft margin.
        mining: "hard" (published) or "soft" mining in n2o_triplet and triplet.
        circle_margin: m of the circle loss, 0..1; published 0.25.
        circle_gamma: gamma of the circle loss, above 0; published 128.
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
        "n2o_triplet": r"\frac{1}{2B}\sum_{(a,b) \in \{(n,o),(o,n)\}} \sum_i \max(0, m"
        r" + \max_{y_j = y_i} \lVert a_i - b_j \rVert_2 - \min_{y_j \neq y_i} \lVert a_i - b_j \rVert_2)",
        "centre_triplet": r"\frac{1}{B}\sum_i \max(0, m + d_{i y_i}"
        r" - \frac{\sum_{c \neq y_i} e^{-d_{ic}} d_{ic}}{\sum_{c \neq y_i} e^{-d_{ic}}}),"
        r" \quad d_{ic} = \lVert n_i - p_c \rVert_2",
        "triplet": r"\frac{1}{B}\sum_i \max(0, m + \max_{y_j = y_i} \lVert n_i - n_j \rVert_2"
        r" - \min_{y_j \neq y_i} \lVert n_i - n_j \rVert_2)",
        "circle": r"\frac{1}{B}\sum_i \ln(1 + \sum_{y_j = y_i, j \neq i} e^{-\gamma \alpha_{ij}"
        r" (s_{ij} - 1 + m)} \sum_{y_k \neq y_i} e^{\gamma \beta_{ik} (s_{ik} - m)}), \quad"
        r" s_{ij} = \hat n_i \cdot \hat n_j, \quad \alpha = \max(0, 1 + m - s), \quad \beta = \max(0, s + m)",
    }
    reconstruction = True
    published = {"prototype_weight": 0.1, "divisor": "nonzero"}

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
        o2n_rows: str = "all",
        new_to_old: bool = True,
        label_smoothing: float = 0.0,
        adaptive_smoothing: float = 0.0,
        divisor: str = "rows",
        average: str = "raw",
        prototype_features: str = "embeddings",
        new_centre_share: float = 0.0,
        eta: float = 0.7,
        queue: int = 4096,
        n2o_triplet_weight: float = 0.0,
        n2o_two_way: bool = True,
        n2o_features: str = "embeddings",
        centre_triplet_weight: float = 0.0,
        triplet_weight: float = 0.0,
        circle_weight: float = 0.0,
        metric_features: str = "pooled",
        triplet_margin: float = 0.3,
        mining: str = "hard",
        circle_margin: float = 0.25,
        circle_gamma: float = 128.0,
    ):
        check_number("structure_weight", structure_weight)
        check_number("new_to_old_factor", new_to_old_factor)
        weights = {
            "prototype": prototype_weight,
            "old_to_new": structure_weight,
            "new_to_old": structure_weight * new_to_old_factor,
            "n2o_triplet": n2o_triplet_weight,
            "centre_triplet": centre_triplet_weight,
            "triplet": triplet_weight,
            "circle": circle_weight,
        }
        for term, weight in weights.items():
            if term not in ("old_to_new", "new_to_old"):
                check_number(f"{term}_weight", weight)
        check_choice("logits", logits, ("cosine", "dot"))
        check_number("kappa", kappa, 1e-6)
        check_choice("o2n_rows", o2n_rows, ("all", "shared"))
        check_choice("new_to_old", new_to_old, (True, False))
        check_number("label_smoothing", label_smoothing, 0, 0.999)
        check_number("adaptive_smoothing", adaptive_smoothing, 0, 0.999)
        check_choice("divisor", divisor, ("rows", "nonzero"))
        check_choice("average", average, ("raw", "unit"))
        check_choice("prototype_features", prototype_features, FEATURES)
        check_number("new_centre_share", new_centre_share, 0, 1)
        check_number("eta", eta, 0, 1)
        if check_number("queue", queue) != int(queue):
            raise ValueError(f"queue must be a whole number of at least 0, not {queue!r}.")
        check_choice("n2o_two_way", n2o_two_way, (True, False))
        check_choice("n2o_features", n2o_features, FEATURES)
        check_choice("metric_features", metric_features, FEATURES)
        check_number("triplet_margin", triplet_margin)
        check_choice("mining", mining, ("hard", "soft"))
        check_number("circle_margin", circle_margin, 0, 1)
        check_number("circle_gamma", circle_gamma, 1e-6)
        if label_smoothing > 0 and adaptive_smoothing > 0:
            raise ValueError(
                f"label_smoothing is {label_smoothing} and adaptive_smoothing {adaptive_smoothing}, but a "
                "row has one epsilon. Set one of them to 0."
            )
        super().__init__(old, classifier)
        self.weights |= {term: float(weight) for term, weight in weights.items() if weight > 0}
        self.o2n_rows, self.n2o_two_way, self.new_centre_share = o2n_rows, n2o_two_way, new_centre_share
        self.smoothing = {"smoothing": label_smoothing, "adaptive": adaptive_smoothing, "divisor": divisor}
        self.triplet_margin, self.mining = triplet_margin, mining
        self.circle = {"margin": circle_margin, "gamma": circle_gamma}
        sources = {
            "prototype": prototype_features,
            "centre_triplet": prototype_features,
            "n2o_triplet": n2o_features,
            "triplet": metric_features,
            "circle": metric_features,
        }
        self.sources = {term: source for term, source in sources.items() if term in self.weights}
        self.wants_pooled = "pooled" in self.sources.values()

        prototypes, present = prototype_table(old, average, self.name)
        self.register_buffer("prototypes", prototypes, persistent=False)
        self.register_buffer("prototype_present", present, persistent=False)
        self.prototype_classifier = FrozenClassifier(
            prototypes, scale=kappa if logits == "cosine" else None, present=present
        )
        self.unit_means = average == "unit"
        mixes = new_centre_share > 0 and prototype_weight > 0
        self.centres = RunningCentres(prototypes, eta=eta, queue=int(queue)) if mixes else None
        class_map = old.class_map
        if class_map is None:
            class_map = torch.full((old.num_classes,), -1, device=prototypes.device)
        self.register_buffer("class_map", class_map, persistent=False)
        self.old_classifier = self._old_classifier(old) if new_to_old and weights["new_to_old"] > 0 else None

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
        added = {term: getattr(self, f"_{term}")(step) for term in self.weights if term != "classification"}
        return {"classification": self.classification(step), **added}

    def _prototype(self, step: Step) -> Tensor:
        features, table = self._features(step, "prototype"), self.prototype_classifier
        if self.centres is None:
            return self._loss(table(features), step.labels)
        mixed = self.centres.mixed(self.prototypes, self.new_centre_share, step.generator)
        table = FrozenClassifier(mixed, scale=table.scale, present=self.prototype_present)
        if self.training:
            fitted = fit_width(features.detach(), self.prototypes.shape[1])
            self.centres.update(unit_rows(fitted) if self.unit_means else fitted, step.labels)
        return self._loss(table(features), step.labels)

    def _old_to_new(self, step: Step) -> Tensor:
        features = fit_width(step.old_features, self.classifier.width)
        logits = self.classifier.logits(features, step.labels, step.progress)
        shared = self.class_map[step.labels] >= 0
        return self._loss(logits, step.labels if self.o2n_rows == "all" else step.labels.where(shared, -1))

    def _new_to_old(self, step: Step) -> Tensor:
        if self.old_classifier is None:
            return step.embeddings.new_zeros(())
        return self._loss(self.old_classifier(step.embeddings), self.class_map[step.labels])

    def _n2o_triplet(self, step: Step) -> Tensor:
        new, old = _shared_width(self._features(step, "n2o_triplet"), step.old_features)
        loss = self._triplets(new, step.labels, old, step.labels)
        if self.n2o_two_way:  # the mean over the anchors of both ways
            loss = (loss + self._triplets(old, step.labels, new, step.labels)) / 2
        return loss

    def _centre_triplet(self, step: Step) -> Tensor:
        new, centres = _shared_width(self._features(step, "centre_triplet"), self.prototypes)
        classes = torch.arange(len(centres), device=centres.device)
        there = self.prototype_present
        return triplet_loss(
            new, step.labels, centres[there], classes[there], margin=self.triplet_margin, mining="soft"
        )

    def _triplet(self, step: Step) -> Tensor:
        features = self._features(step, "triplet")
        return self._triplets(features, step.labels, features, step.labels)

    def _triplets(self, *sides: Tensor) -> Tensor:
        return triplet_loss(*sides, margin=self.triplet_margin, mining=self.mining)

    def _circle(self, step: Step) -> Tensor:
        return circle_loss(self._features(step, "circle"), step.labels, **self.circle)

    def _features(self, step: Step, term: str) -> Tensor:
        return step.pooled if self.sources[term] == "pooled" else step.embeddings

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return smoothed_cross_entropy(logits, targets, **self.smoothing)

    def comparable(self, new: Tensor, old: Tensor) -> tuple[Tensor, Tensor]:
        return fit_width(new, old.shape[1]), old


def _shared_width(new: Tensor, old: Tensor) -> tuple[Tensor, Tensor]:
    """Both sides cut to their first min(d_o, d_n) coordinates."""
    width = min(new.shape[1], old.shape[1])
    return new[:, :width], old[:, :width]
