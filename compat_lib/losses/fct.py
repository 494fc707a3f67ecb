"""FCT: the new model trains on its own, and a fitted transformation carries the old gallery over to it."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compat_lib.adam import Adam
from compat_lib.losses.base import CompatibilityLoss, Step, check_number
from compat_lib.losses.heads import Classifier, unit_rows
from compat_lib.old_arrays import numbers
from compat_lib.old_system import OldSystem

ROWS_AT_ONCE = 8192  # rows of a gallery that are transformed together
WARMUP_SHARE = 5 / 80  # epochs of linear warm-up, of all epochs; as published


class GalleryTransform(nn.Module):
    """A network that turns old features into what the new model would give for the same images.

    Source: the transformation of FCT (Ramanujan et al., CVPR 2022, arXiv 2112.02805) and its published code.
    The old feature passes through two layers (2 d_o, then 2 d_n values) and the side information through two
    of its own; both together pass through two hidden layers and a linear one. All layers but the last are
    linear without bias, batch normalisation and ReLU. Without side information the old feature takes its
    place, as in the published code. Deviation: all inputs are normalised here, and the fit aims at normalised
    new features, because features are compared by their cosine; the published code takes both as they are.

    Args:
        old_width: d_o, at least 1.
        new_width: d_n, at least 1.
        side_width: coordinates of the side information, 0 for none.
        expansion: values of a hidden layer for each coordinate of a new feature, at least 1; published 16
            (2048 for 128 coordinates).
    Raises:
        ValueError: "old_width must be a whole number of at least 1, not 0."

    >>> transform = GalleryTransform(old_width=3, new_width=2).eval()
    >>> transform(torch.ones(5, 3)).shape
    torch.Size([5, 2])
    """

    def __init__(self, old_width: int, new_width: int, *, side_width: int = 0, expansion: int = 4):
        super().__init__()
        self.old_width = _whole("old_width", old_width, 1)
        self.side_width = _whole("side_width", side_width, 0)
        _whole("new_width", new_width, 1)
        hidden = _whole("expansion", expansion, 1) * new_width
        second = side_width or old_width
        self.gallery = nn.Sequential(_layer(old_width, 2 * old_width), _layer(2 * old_width, 2 * new_width))
        self.side = nn.Sequential(_layer(second, 2 * second), _layer(2 * second, 2 * new_width))
        self.mixer = nn.Sequential(
            _layer(4 * new_width, hidden), _layer(hidden, hidden), nn.Linear(hidden, new_width)
        )

    def forward(self, old: Tensor, side: Tensor | None = None) -> Tensor:
        """Estimates of new features, not normalised, with gradient.

        Args:
            old: [N, d_o] floating point, old features of any length.
            side: [N, side_width], the side information of the same images, or None without any.
        Returns:
            [N, d_n] of the parameters' type.
        Raises:
            ValueError: "The transformation takes old features of width 32, not 64."; "The transformation was
                built without side information, but some was given. ..."
        """
        self._check(old, side)
        with torch.autocast(old.device.type, enabled=False):
            kind = self.mixer[-1].weight.dtype
            old = unit_rows(old.to(kind))
            side = old if side is None else unit_rows(side.to(kind))
            return self.mixer(torch.cat([self.gallery(old), self.side(side)], dim=1))

    @torch.no_grad()
    def carry_over(self, old: Tensor, side: Tensor | None = None) -> Tensor:
        """Estimates of new features of a whole gallery, in evaluation mode and in bounded memory.

        Args:
            old: as in `forward`, on the device of the parameters.
            side: as in `forward`.
        Returns:
            [N, d_n] of the parameters' type, not normalised, without gradient.

        >>> GalleryTransform(old_width=3, new_width=2).carry_over(torch.ones(0, 3)).shape
        torch.Size([0, 2])
        """
        self._check(old, side)
        was_training = self.training
        self.eval()
        blocks = old.split(ROWS_AT_ONCE)
        sides = [None] * len(blocks) if side is None else side.split(ROWS_AT_ONCE)
        parts = [self(rows, beside) for rows, beside in zip(blocks, sides, strict=True)]
        self.train(was_training)
        return torch.cat(parts)

    def _check(self, old: Tensor, side: Tensor | None) -> None:
        if old.ndim != 2 or old.shape[1] != self.old_width:
            raise ValueError(
                f"The transformation takes old features of width {self.old_width}, not {list(old.shape)[1:]}."
            )
        if (side is None) != (self.side_width == 0):
            built, given = ("without", "some was") if self.side_width == 0 else ("with", "none was")
            raise ValueError(
                f"The transformation was built {built} side information, but {given} given. Set side_width "
                "to its number of coordinates, 0 for none."
            )
        if side is not None and side.shape != (len(old), self.side_width):
            raise ValueError(
                f"The side information must be {len(old)} rows of width {self.side_width}, not "
                f"{list(side.shape)}."
            )


def fit_transform(
    old,
    new,
    side=None,
    *,
    expansion: int = 4,
    epochs: int = 40,
    batch_size: int = 256,
    lr: float = 5e-4,
    weight_decay: float = 3.05e-5,
    seed: int = 0,
) -> GalleryTransform:
    """A transformation fitted to paired features: what FCT trains, usable without any training loop.

    Source: FCT (arXiv 2112.02805) and its published code: mean squared error, Adam with weight decay in the
    gradient on all parameters, a rate that rises for 5/80 of the epochs and then follows half a cosine by the
    epoch, and batch normalisation in evaluation mode in the second half of the epochs. Deviations: see
    GalleryTransform on normalisation; an epoch's batches differ by one row at most; and the defaults are for
    some ten thousand rows, of which the published ones would make too few steps of too large a network.

    Args:
        old: [N, d_o] real numbers (numpy or torch), old features; N at least 2.
        new: [N, d_n], new features of the same images.
        side: [N, s], side information on the same images that the old system stored, or None.
        expansion: see GalleryTransform; published 16.
        epochs: passes over the rows, at least 1; published 80.
        batch_size: rows of a batch, at least 2 (the last rows join the others); published 1024.
        lr: learning rate, above 0; published 5e-4.
        weight_decay: at least 0; published 3.05e-5.
        seed: for the start and the order of the rows; equal arguments give equal bits.
    Returns:
        the transformation in evaluation mode, without gradients, on the device of `old`. The global random
        generator is left alone.
    Raises:
        ValueError: "There are 5 old and 4 new features. ..."; "The transformation is fitted to 1 row. ...";
            "new features hold 2 values that are not finite, first in row 7. ..."

    >>> transform = fit_transform([[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]], epochs=200)
    >>> transform.carry_over(torch.eye(2)).argmax(dim=1).tolist()
    [1, 0]
    """
    tables = {"old": numbers("old features", old, 2), "new": numbers("new features", new, 2)}
    if side is not None:
        tables["side"] = numbers("side", side, 2)
    counts = {name: len(table) for name, table in tables.items()}
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise ValueError(f"There are {shown} features. Pass one row of each for every image, in one order.")
    if counts["old"] < 2:
        raise ValueError(
            "The transformation is fitted to 1 row, but batch normalisation needs two. Pass more."
        )
    _whole("epochs", epochs, 1)
    _whole("batch_size", batch_size, 2)
    check_number("lr", lr, 1e-12)
    check_number("weight_decay", weight_decay)
    old = unit_rows(tables["old"])
    new = unit_rows(tables["new"].to(old.device))
    side = tables["side"].to(old.device) if "side" in tables else None
    with torch.random.fork_rng(devices=[]), torch.autocast(old.device.type, enabled=False):
        torch.manual_seed(_whole("seed", seed, 0))
        width = 0 if side is None else side.shape[1]
        transform = GalleryTransform(old.shape[1], new.shape[1], side_width=width, expansion=expansion)
        transform.to(old.device)
        adam = Adam([{"params": list(transform.parameters())}], lr=lr, weight_decay=weight_decay)
        for epoch in range(epochs):
            adam.groups[0]["lr"] = lr * _rate(epoch, epochs)
            transform.train(2 * epoch < epochs)
            order = torch.randperm(len(old)).to(old.device)
            # nearly equal batches: a last one of a single row would have no variance
            for rows in order.tensor_split(max(1, len(old) // batch_size)):
                adam.zero_grad()
                estimate = transform(old[rows], None if side is None else side[rows])
                F.mse_loss(estimate, new[rows]).backward()
                adam.step()
        adam.zero_grad()
    return transform.eval().requires_grad_(False)


class FCT(CompatibilityLoss):
    """Independent training; afterwards the old gallery is transformed into the new model's features.

    Source: Forward Compatible Training for Large-Scale Embedding Retrieval Systems (Ramanujan et al., CVPR
    2022, arXiv 2112.02805). It is forward compatible: the new model pays nothing, to the bit, but the gallery
    does not stay as it is; every stored feature passes once through a transformation, see GalleryTransform
    and `fit_transform`. In the paper the old system stores side information for this day; here none is
    available. The transformation is fitted to the training set when the training is over; before that there
    is no cross-test.

    Args:
        old: the old system, with features of any width.
        classifier: the new model's classifier.
        expansion: values of a hidden layer for each coordinate of a new feature, at least 1; published 16
            (2048 for 128 coordinates), with which the fit takes several times as long.
        fit_epochs: passes over the training set's features, at least 1; published 80.
        fit_batch_size: rows of a batch of the fit, at least 2; published 1024. Smaller batches make more
            steps, without which a small training set is not fitted.
        fit_lr: learning rate of Adam, above 0; published 5e-4.
        fit_weight_decay: at least 0; published 3.05e-5.
    Raises:
        ValueError: "expansion must be a whole number of at least 1, not 0."
    """

    name = "fct"
    title = "FCT (no side information)"
    paper = (
        "Forward Compatible Training for Large-Scale Embedding Retrieval Systems "
        "(Ramanujan et al., CVPR 2022, arXiv 2112.02805)"
    )
    needs = frozenset({"features"})
    formulas = {"classification": r"\frac{1}{B}\sum_i \mathrm{CE}(W n_i, y_i)"}
    published = {"expansion": 16, "fit_epochs": 80, "fit_batch_size": 1024}
    learns = "a transformation of the gallery, fitted after the training"

    def __init__(
        self,
        old: OldSystem,
        classifier: Classifier,
        *,
        expansion: int = 4,
        fit_epochs: int = 40,
        fit_batch_size: int = 256,
        fit_lr: float = 5e-4,
        fit_weight_decay: float = 3.05e-5,
    ):
        super().__init__(old, classifier)
        self.fit_options = {
            "expansion": _whole("expansion", expansion, 1),
            "epochs": _whole("fit_epochs", fit_epochs, 1),
            "batch_size": _whole("fit_batch_size", fit_batch_size, 2),
            "lr": check_number("fit_lr", fit_lr, 1e-12),
            "weight_decay": check_number("fit_weight_decay", fit_weight_decay),
        }
        self.register_buffer("old_features", old.features, persistent=False)
        with torch.random.fork_rng(devices=[]):  # the new model's random numbers stay those of `independent`
            transform = GalleryTransform(old.width, classifier.width, expansion=expansion)
        # frozen until it is fitted, which the training loop has no part in
        self.transform = transform.requires_grad_(False)
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    def terms(self, step: Step) -> dict[str, Tensor]:
        return {"classification": self.classification(step)}

    def finish(self, embed: Callable[[], Tensor]) -> None:
        seed = int(torch.randint(2**31, ()))
        self.transform = fit_transform(self.old_features, embed(), seed=seed, **self.fit_options)
        self.fitted.fill_(True)

    def comparable(self, new: Tensor, old: Tensor) -> tuple[Tensor, Tensor] | None:
        return (new, self.transform.carry_over(old)) if self.fitted else None


def _layer(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU())


def _rate(epoch: int, epochs: int) -> float:
    """Factor of the learning rate in an epoch: linear warm-up, then half a cosine."""
    warm = round(WARMUP_SHARE * epochs)
    if epoch < warm:
        return (epoch + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (epoch - warm) / (epochs - warm)))


def _whole(name: str, value: int, low: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"{name} must be a whole number of at least {low}, not {value!r}.")
    return value
