"""Independent training: the new model without any compatibility term."""

from torch import Tensor

from compat_lib.losses.base import CompatibilityLoss, Step


class Independent(CompatibilityLoss):
    """The classification loss alone: the oracle of the self-test, and a cross-test near chance.

    Source: the "independent" or "plain" model of every paper on compatible training. It has no options.
    """

    name = "independent"
    title = "Independent"
    paper = "No compatibility term; the reference model of BCT (Shen et al., CVPR 2020, arXiv 2003.11942)"

    def terms(self, step: Step) -> dict[str, Tensor]:
        return {"classification": self.classification(step)}
