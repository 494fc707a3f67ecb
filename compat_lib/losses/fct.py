"""FCT: the new model trains on its own, and a fitted transformation carries the old gallery over to it."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compat_lib.losses.base import CompatibilityLoss, Step
from compat_lib.losses.heads import Classifier, unit_rows
from compat_lib.names import check_number, checked_count, one_each
from compat_lib.old_system import OldSystem
from compat_lib.optimisation import TrainingSettings, learning_rate
from compat_lib.user_arrays import numbers

ROWS_AT_ONCE = 8192  # rows of a gallery that are transformed together
WARMUP_SHARE = 5 / 80  # epochs of linear warm-up, of all epochs; as published


def _layer(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU())


class GalleryTransform(nn.Module):
    """A network that turns old features into what the new model would give for the same images.

    Source: the transformation of FCT (arXiv 2112.02805) and its published code. In the paper the second
    branch sees side information that the old system stored; without it the old feature takes its place, as in
    the published code. Deviation: inputs are normalised here, and the fit aims at normalised new features,
    because features are compared by their cosine.

    >>> GalleryTransform(old_width=3, new_width=2).eval()(torch.ones(5, 3)).shape
    torch.Size([5, 2])
    """

    def __init__(self, old_width: int, new_width: int, *, expansion: int = 4):
        super().__init__()
        hidden = expansion * new_width
        self.gallery = nn.Sequential(_layer(old_width, 2 * old_width), _layer(2 * old_width, 2 * new_width))
        self.side = nn.Sequential(_layer(old_width, 2 * old_width), _layer(2 * old_width, 2 * new_width))
        self.mixer = nn.Sequential(
            _layer(4 * new_width, hidden), _layer(hidden, hidden), nn.Linear(hidden, new_width)
        )

    def forward(self, old: Tensor) -> Tensor:
        """Estimates [N, d_n], not normalised, of the new features that belong to old ones [N, d_o]."""
        with torch.autocast(old.device.type, enabled=False):
            old = unit_rows(old.to(self.mixer[-1].weight.dtype))
            return self.mixer(torch.cat([self.gallery(old), self.side(old)], dim=1))

    @torch.no_grad()
    def carry_over(self, old: Tensor, part: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """What `forward`, or `part`, gives for a whole gallery, in evaluation mode and in bounded memory."""
        was_training = self.training
        self.eval()
        found = torch.cat([(part or self)(rows) for rows in old.split(ROWS_AT_ONCE)])
        self.train(was_training)
        return found


def fit_transform(
    old: Tensor,
    new: Tensor,
    *,
    expansion: int = 4,
    epochs: int = 40,
    batch_size: int = 256,
    lr: float = 5e-4,
    weight_decay: float = 3.05e-5,
    seed: int = 0,
    kind: type[GalleryTransform] = GalleryTransform,
    loss: Callable[..., Tensor] | None = None,
) -> GalleryTransform:
    """A transformation fitted to paired features: what FCT trains, usable without any training loop.

    Source: FCT (arXiv 2112.02805) and its published code: mean squared error, Adam with weight decay in the
    gradient on all parameters, a rate that rises for 5/80 of the epochs and then follows half a cosine by the
    epoch, and batch normalisation in evaluation mode in the second half of the epochs. Deviations: see
    GalleryTransform on normalisation; an epoch's batches differ by one row at most; and the defaults are for
    some ten thousand rows, of which the published ones would make too few steps of too large a network.

    Args:
        old, new: [N, d_o] and [N, d_n] real numbers, features of the same images; N at least 2.
        seed: for the start and the order of the rows; the global random generator is left alone.
        loss: of (transformation, old features of a batch, new ones, rows), instead of the squared error.

    The rest is as in the options of FCT. Returns the transformation in evaluation mode, without gradients, on
    the device of `old`.

    >>> old, new = torch.eye(2), torch.eye(2).flip(0)
    >>> fit_transform(old, new, epochs=200).carry_over(old).argmax(dim=1).tolist()
    [1, 0]
    """
    old, new = numbers("old features", old, 2), numbers("new features", new, 2)
    one_each(new, "new features", len(old), "old ones")
    old, new = unit_rows(old), unit_rows(new.to(old.device))
    with torch.random.fork_rng(devices=[]), torch.autocast(old.device.type, enabled=False):
        torch.manual_seed(seed)
        transform = kind(old.shape[1], new.shape[1], expansion=expansion).to(old.device)
        adam = torch.optim.Adam(transform.parameters(), lr=lr, weight_decay=weight_decay)
        schedule = TrainingSettings(lr=lr, warmup=WARMUP_SHARE)
        for epoch in range(epochs):
            adam.param_groups[0]["lr"] = learning_rate(schedule, epoch, epochs)
            transform.train(2 * epoch < epochs)
            order = torch.randperm(len(old)).to(old.device)
            # nearly equal batches: a last one of a single row would have no variance
            for rows in order.tensor_split(max(1, len(old) // batch_size)):
                adam.zero_grad()
                if loss is None:
                    F.mse_loss(transform(old[rows]), new[rows]).backward()
                else:
                    loss(transform, old[rows], new[rows], rows).backward()
                adam.step()
        adam.zero_grad()
    return transform.eval().requires_grad_(False)


class FCT(CompatibilityLoss):
    """Independent training; afterwards the old gallery is transformed into the new model's features.

    Source: FCT (arXiv 2112.02805) and its published code. The new model pays nothing, to the bit, but every
    stored feature of the gallery passes once through a transformation, see GalleryTransform and
    `fit_transform`. In the paper the old system stores side information for this day; here none is available.
    The transformation is fitted to the training set when the training is over; before that there is no
    cross-test.

    Args:
        expansion: values of a hidden layer for each coordinate of a new feature, at least 1; published 16
            (2048 for 128 coordinates), with which the fit takes several times as long.
        fit_epochs: passes over the training set's features, at least 1; published 80.
        fit_batch_size: rows of a batch of the fit, at least 2; published 1024. Smaller batches make more
            steps, without which a small training set is not fitted.
        fit_lr: learning rate of Adam, above 0; published 5e-4.
        fit_weight_decay: at least 0; published 3.05e-5.
    """

    name = "fct"
    title = "FCT (no side information)"
    paper = (
        "Forward Compatible Training for Large-Scale Embedding Retrieval Systems "
        "(Ramanujan et al., CVPR 2022, arXiv 2112.02805)"
    )
    needs = frozenset({"features"})
    published = {
        "expansion": 16,
        "fit_epochs": 80,
        "fit_batch_size": 1024,
        "fit_lr": 0.0005,
        "fit_weight_decay": 3.05e-05,
    }
    learns = "a transformation of the gallery, fitted after the training"
    kind = GalleryTransform
    asks = "new model; gallery mapped"

    def __init__(
        self,
        old: OldSystem,
        classifier: Classifier,
        *,
        expansion: int = 4,
        fit_epochs: int = 40,
        fit_batch_size: int = 256,
        fit_lr: float = 0.00194,
        fit_weight_decay: float = 0.000101,
    ):
        super().__init__(old, classifier)
        self.fit_options = {
            "expansion": checked_count("expansion", expansion),
            "epochs": checked_count("fit_epochs", fit_epochs),
            "batch_size": checked_count("fit_batch_size", fit_batch_size, 2),
            "lr": check_number("fit_lr", fit_lr, 1e-12),
            "weight_decay": check_number("fit_weight_decay", fit_weight_decay),
        }
        self.register_buffer("old_features", old.features, persistent=False)
        with torch.random.fork_rng(devices=[]):  # the new model's random numbers stay those of `independent`
            transform = self.kind(old.width, classifier.width, expansion=expansion)
        # frozen until it is fitted, which the training loop has no part in
        self.transform = transform.requires_grad_(False)
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    def terms(self, step: Step) -> dict[str, Tensor]:
        return {"classification": self.classification(step)}

    def finish(self, embed: Callable[[], Tensor], **how: Callable[..., Tensor]) -> None:
        seed, how = int(torch.randint(2**31, ())), self.fit_options | {"kind": self.kind} | how
        self.transform = fit_transform(self.old_features, embed(), seed=seed, **how)
        self.fitted.fill_(True)

    def comparable(self, new: Tensor, old: Tensor) -> tuple[Tensor, Tensor] | None:
        return (new, self.transform.carry_over(old)) if self.fitted else None
