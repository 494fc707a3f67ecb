"""FastFill: FCT whose transformation also says how wrong it may be, which orders the backfill."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from compat_lib.losses.fct import FCT, GalleryTransform
from compat_lib.losses.heads import Classifier, FrozenClassifier
from compat_lib.names import check_number
from compat_lib.old_system import OldSystem

SMOOTHING = 0.1  # of the labels under the new classifier; as published


class UncertainTransform(GalleryTransform):
    """FCT's network with one more output: the logarithm of a variance."""

    def __init__(self, old_width: int, new_width: int, *, expansion: int = 4):
        super().__init__(old_width, new_width, expansion=expansion)
        self.mixer[-1] = nn.Linear(expansion * new_width, new_width + 1)

    def both(self, old: Tensor) -> tuple[Tensor, Tensor]:
        """Estimates [N, d_n] of new features, and [N] how uncertain each is."""
        found = super().forward(old)
        return found[:, :-1], found[:, -1]

    def forward(self, old: Tensor) -> Tensor:
        return self.both(old)[0]

    def uncertainty(self, old: Tensor) -> Tensor:
        """How uncertain the estimates of a whole gallery are, [N], in evaluation mode."""
        return self.carry_over(old, lambda rows: self.both(rows)[1])


class FastFill(FCT):
    """Independent training; the gallery is transformed, and its most uncertain entries are embedded first.

    Source: FastFill (arXiv 2303.04766), without side information. FCT's transformation is fitted by its
    squared error (the mean over coordinates) plus the cross-entropy of its estimates under the frozen new
    classifier, of labels smoothed by 0.1; both together are the loss l of a row, whose log-variance s the
    network also gives: the fit minimises the mean of exp(-s) l / 2 + u s. Deviations: those of FCT.

    Args:
        discrimination: factor of the cross-entropy in l, at least 0; published 1, beside errors of raw
            features. Those of unit rows are far smaller, so that here the cross-entropy of 1 rules.
        uncertainty: u, above 0; published 0.5.
        expansion: as in FCT; published 16.
        fit_epochs: as in FCT; published 80.
        fit_batch_size: as in FCT; published 1024.
        fit_lr: as in FCT; published 5e-4.
        fit_weight_decay: as in FCT; published 3.05e-5.
    """

    name = "fastfill"
    title = "FastFill (no side information)"
    paper = "FastFill: Efficient Compatible Model Update (Jaeckle et al., ICLR 2023, arXiv 2303.04766)"
    published = FCT.published | {"discrimination": 1.0, "uncertainty": 0.5}
    kind = UncertainTransform

    def __init__(
        self,
        old: OldSystem,
        classifier: Classifier,
        *,
        discrimination: float = 6.07,
        uncertainty: float = 0.331,
        expansion: int = 4,
        fit_epochs: int = 40,
        fit_batch_size: int = 256,
        fit_lr: float = 0.00865,
        fit_weight_decay: float = 0.000116,
    ):
        super().__init__(
            old,
            classifier,
            expansion=expansion,
            fit_epochs=fit_epochs,
            fit_batch_size=fit_batch_size,
            fit_lr=fit_lr,
            fit_weight_decay=fit_weight_decay,
        )
        self.discrimination = check_number("discrimination", discrimination)
        self.uncertainty = check_number("uncertainty", uncertainty, 1e-6)
        self.register_buffer("labels", old.labels, persistent=False)

    def finish(self, embed: Callable[[], Tensor]) -> None:
        scale = self.classifier.scale if self.classifier.kind in ("arcface", "cosface") else None
        frozen = FrozenClassifier(self.classifier.weight, self.classifier.bias, scale)

        def loss(transform: UncertainTransform, old: Tensor, new: Tensor, rows: Tensor) -> Tensor:
            return self.fit_loss(*transform.both(old), new, frozen, self.labels[rows])

        super().finish(embed, loss=loss)

    def fit_loss(
        self, estimates: Tensor, s: Tensor, new: Tensor, classifier: FrozenClassifier, labels: Tensor
    ) -> Tensor:
        """The mean of a batch: estimates and unit new features [N, d_n], log-variances and labels [N]."""
        squares = (estimates - new).square().mean(dim=1)
        wrong = F.cross_entropy(classifier(estimates), labels, label_smoothing=SMOOTHING, reduction="none")
        return (0.5 * (-s).exp() * (squares + self.discrimination * wrong) + self.uncertainty * s).mean()

    def backfill_order(self, old: Tensor) -> Tensor | None:
        return self.transform.uncertainty(old).argsort(descending=True, stable=True) if self.fitted else None
