"""BCT: the new embeddings must also be classified well by the old classifier, or by the old prototypes."""

from torch import Tensor

from compat_lib.losses.base import CompatibilityLoss, Step, prototype_table
from compat_lib.losses.heads import Classifier, FrozenClassifier, fit_width, row_cross_entropy
from compat_lib.names import check_choice, check_number
from compat_lib.old_system import OldSystem


class BCT(CompatibilityLoss):
    """Classification by the new classifier plus classification of the same embeddings by a frozen old one.

    Source: the "influence loss" of BCT (arXiv 2003.11942), in the forms of two published codes. Embeddings of
    another width are cut to their first coordinates or padded with zeros before they meet the old table.

    Args:
        variant: "prototypes" (form of MixBCT's comparison): scale x cosine with the class means of old
            features, all rows. "classifier" (form of openBCT): the old classifier on the embeddings as they
            are, mean over the rows whose class the old model knew, zero when there is none.
        scale: s, factor of the cosines in the variant "prototypes", above 0. The published value is 1, at
            which the loss cannot fall below ln(1 + (C - 1) / e^2) and never finishes.
        weight: factor of the influence term, at least 0; published 1, here chosen on validation identities.
        average: "raw" class means of the features as they are (published in MixBCT's comparison), or "unit"
            means of normalised ones (openBCT). Not used by "classifier".
    """

    name = "bct"
    title = "BCT"
    paper = "Towards Backward-Compatible Representation Learning (Shen et al., CVPR 2020, arXiv 2003.11942)"
    needs = frozenset({"prototypes"})
    formulas = {"influence": r"\frac{1}{B}\sum_i \mathrm{CE}(s\,\hat P \hat n_i, y_i)"}
    other_needs = (frozenset({"classifier"}),)
    published = {"scale": 1.0, "weight": 1.0}

    def __init__(
        self,
        old: OldSystem,
        classifier: Classifier,
        *,
        variant: str = "prototypes",
        scale: float = 10.8,
        weight: float = 22.4,
        average: str = "raw",
    ):
        check_choice("variant", variant, ("prototypes", "classifier"))
        check_choice("average", average, ("raw", "unit"))
        check_number("scale", scale, 1e-6)
        super().__init__(old, classifier, needs=frozenset({variant}))
        self.weights["influence"] = check_number("weight", weight)
        class_map = None
        if variant == "prototypes":
            prototypes, present = prototype_table(old, average, self.name)
            self.old_classifier = FrozenClassifier(prototypes, scale=scale, present=present)
        else:
            class_map = old.class_map
            if class_map is None:
                raise ValueError(
                    f"The method {self.name} needs the class map of the old classifier. Pass class_map=[C], "
                    "the old label of each new class or -1, or choose variant='prototypes'."
                )
            frozen = (old.classifier_weight, old.classifier_bias, old.classifier_scale)
            self.old_classifier = FrozenClassifier(*frozen)
        self.register_buffer("class_map", class_map, persistent=False)

    def terms(self, step: Step) -> dict[str, Tensor]:
        targets = step.labels if self.class_map is None else self.class_map[step.labels]
        influence = row_cross_entropy(self.old_classifier(step.embeddings), targets)
        return {"classification": self.classification(step), "influence": influence}

    def comparable(self, new: Tensor, old: Tensor) -> tuple[Tensor, Tensor]:
        return fit_width(new, old.shape[1]), old
