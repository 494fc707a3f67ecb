"""BT2: features with extra coordinates, rotated so that the first ones match the old model."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compat_lib.losses.base import CompatibilityLoss, Step, prototype_table
from compat_lib.losses.heads import Classifier, FrozenClassifier, unit_rows
from compat_lib.names import check_number, checked_count
from compat_lib.old_system import OldSystem


class Rotation(nn.Module):
    """A learned rotation [d, d], orthogonal with determinant one; it starts as the identity.

    Q = ((I - A/4)^-1 (I + A/4))^2 of a skew matrix A, which near zero is exp(A), so that an entry of A is an
    angle in radians; the square reaches half a turn at a finite A. torch's own parametrisation is a matrix,
    which weight decay would pull back to the identity; here the free entries of A are one vector.

    >>> rotation = Rotation(2)
    >>> rotation.angles.data.fill_(4.0)                       # (I + A/4) / (I - A/4) is a quarter turn
    tensor([4.])
    >>> (rotation(torch.tensor([[1.0, 2.0]])) + 0.0).tolist()
    [[-1.0, -2.0]]
    """

    def __init__(self, width: int):
        super().__init__()
        self.angles = nn.Parameter(torch.zeros(width * (width - 1) // 2))
        self.register_buffer("places", torch.triu_indices(width, width, 1), persistent=False)
        self.width = width

    def matrix(self) -> Tensor:
        """Q: [d, d] of the parameters' type, with gradient."""
        upper = self.angles.new_zeros(self.width, self.width)
        quarter = upper.index_put(tuple(self.places), 0.25 * self.angles)
        quarter = quarter - quarter.T
        identity = torch.eye(self.width, dtype=quarter.dtype, device=quarter.device)
        # never singular; `solve` would ask a GPU for it in every step
        root = torch.linalg.solve_ex(identity - quarter, identity + quarter).result
        return root @ root

    def forward(self, rows: Tensor) -> Tensor:
        return rows @ self.matrix().T


class BasisTransformation(nn.Module):
    """The head of BT2: from the network's outputs [N, d_n + d_o] to stored features [N, d_n + extra].

    Source: BT^2 (arXiv 2211.03989), published code. The first d_n outputs, normalised, are the new part f. A
    linear layer on the rectified outputs gives `extra` more, normalised. h = [extra, Q1 (C f)]; its first d_o
    entries, turned by Q2, are the part b that is compared with old features; the others follow as they are.
    Q1 and Q2 are learned rotations. The published layer has d_o values of which all but the first `extra` are
    thrown away; here they are left out. d_o is at most d_n + extra, which is 1..d_o; C is the stretch.

    >>> head = BasisTransformation(new_width=4, old_width=3, extra=2, stretch=2.0)
    >>> head(torch.ones(5, 7)).shape
    torch.Size([5, 6])
    """

    def __init__(self, new_width: int, old_width: int, extra: int, stretch: float):
        super().__init__()
        self.new_width, self.width, self.stretch = new_width, old_width, stretch
        self.project = nn.Linear(new_width + old_width, extra)
        self.inner, self.outer = Rotation(new_width), Rotation(old_width)  # Q1, Q2

    def new_part(self, outputs: Tensor) -> Tensor:
        """f: unit rows [N, d_n] of the network's outputs [N, d_n + d_o]."""
        return unit_rows(outputs[:, : self.new_width].to(self.project.weight.dtype))

    def forward(self, outputs: Tensor) -> Tensor:
        """Stored features of the parameters' type; the first d_o coordinates are b."""
        with torch.autocast(outputs.device.type, enabled=False):
            extra = unit_rows(self.project(outputs.to(self.project.weight.dtype).relu()))
            basis = torch.cat([extra, self.inner(self.stretch * self.new_part(outputs))], dim=1)
            return torch.cat([self.outer(basis[:, : self.width]), basis[:, self.width :]], dim=1)


class BT2(CompatibilityLoss):
    """Classification and likeness to an oracle in one part of the features, likeness to the old in another.

    Source: BT^2 (arXiv 2211.03989) and its published code. The stored features have some coordinates more
    than the new model's, see BasisTransformation, because one space cannot hold the best new features and the
    old ones. The new part f is classified and held to the features n* of an independently trained new model;
    the part b is classified by the mean unit old features P of the classes, which are not normalised again,
    and held to the old features. The cross-test compares b, the first d_o coordinates.

    Args:
        influence_weight: lambda_2, factor of the influence term, at least 0; published 10.
        old_weight: lambda_3, factor of the likeness to old features, at least 0; published 5.
        oracle_weight: lambda_1, factor of the likeness to the oracle's features, at least 0; published 1.
        scale: s, factor of the inner products in the influence term, above 0. The published value is 1, at
            which the term cannot fall below ln(1 + (C - 1) / e^2) and never finishes.
        extra: coordinates beyond d_n, at least 1; published 32 (beside 128). More than d_o
            count as d_o, as in the published code; then b holds nothing of the new part.
        stretch: length of the new part beside that of the extra one, above 0; published 2.
    """

    name = "bt2"
    title = "BT2"
    paper = (
        "BT^2: Backward-compatible Training with Basis Transformation "
        "(Zhou et al., ICCV 2023, arXiv 2211.03989)"
    )
    needs = frozenset({"features", "prototypes", "oracle"})
    formulas = {
        "classification": r"\frac{1}{B}\sum_i \mathrm{CE}(W f_i, y_i)",
        "influence": r"\frac{1}{B}\sum_i \mathrm{CE}(s\,P \hat b_i, y_i)",
        "old_similarity": r"1 - \frac{1}{B}\sum_i \hat b_i \cdot \hat o_i",
        "oracle_similarity": r"1 - \frac{1}{B}\sum_i f_i \cdot \hat n^*_i",
    }
    published = {"scale": 1.0}
    learns = "the head: a linear layer and two rotations"

    def __init__(
        self,
        old: OldSystem,
        classifier: Classifier,
        *,
        influence_weight: float = 10.0,
        old_weight: float = 5.0,
        oracle_weight: float = 1.0,
        scale: float = 16.0,
        extra: int = 32,
        stretch: float = 2.0,
    ):
        super().__init__(old, classifier)
        check_number("scale", scale, 1e-6)
        check_number("stretch", stretch, 1e-6)
        extra = min(checked_count("extra", extra), old.width)
        if old.width > classifier.width + extra:
            raise ValueError(
                f"The method {self.name} has room for old features of at most {classifier.width} + {extra} "
                f"coordinates, the new ones and the extra ones, not {old.width}. Raise the new width or "
                f"extra to at least {old.width - classifier.width}."
            )
        if old.oracle_features.shape[1] != classifier.width:
            raise ValueError(
                f"The oracle's features have width {old.oracle_features.shape[1]}, the new model's "
                f"{classifier.width}. Train the oracle with the new width."
            )
        self.weights["influence"] = check_number("influence_weight", influence_weight)
        self.weights["old_similarity"] = check_number("old_weight", old_weight)
        self.weights["oracle_similarity"] = check_number("oracle_weight", oracle_weight)
        prototypes, present = prototype_table(old, "unit", self.name)
        self.old_classifier = FrozenClassifier(scale * prototypes, present=present)
        self.transformation = BasisTransformation(classifier.width, old.width, extra, stretch)

    @property
    def head(self) -> BasisTransformation:
        return self.transformation

    @classmethod
    def model_width(cls, old_width: int, new_width: int) -> int:
        return new_width + old_width

    def classified(self, embeddings: Tensor) -> Tensor:
        return self.head.new_part(embeddings)

    def terms(self, step: Step) -> dict[str, Tensor]:
        kind = self.classifier.weight.dtype
        stored, new = self.head(step.embeddings), self.head.new_part(step.embeddings)
        backward = unit_rows(stored[:, : self.head.width])
        old, oracle = unit_rows(step.old_features.to(kind)), unit_rows(step.oracle_features.to(kind))
        return {
            "classification": self.classifier.loss(new, step.labels, step.progress),
            "influence": F.cross_entropy(self.old_classifier(backward), step.labels),
            "old_similarity": 1.0 - (backward * old).sum(dim=1).mean(),
            "oracle_similarity": 1.0 - (new * oracle).sum(dim=1).mean(),
        }

    def comparable(self, new: Tensor, old: Tensor) -> tuple[Tensor, Tensor]:
        return new[:, : old.shape[1]], old
