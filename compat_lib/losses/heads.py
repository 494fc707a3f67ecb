"""Classifiers over embeddings: linear, CosFace, ArcFace or a simplex; frozen tables of the old model.

All arithmetic is done in the type of the parameters (float32), also inside autocast, because a margin of
0.3 radians on a cosine near one is lost in the eight bits of bfloat16.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compat_lib.distributed import agreed, gathered, largest, share, shared, shares, summed
from compat_lib.names import check_choice, check_number

KINDS = ("linear", "cosface", "arcface", "simplex")
COSINE_LIMIT = 1.0 - 1e-6  # the slope of ArcFace's target function is infinite at a cosine of one


def arcface(cosines: Tensor, margin: float) -> Tensor:
    """Target cosines [N] after an additive angular margin in radians, 0..pi/2.

    Source: ArcFace (Deng et al., CVPR 2019, arXiv 1801.07698), with the published code's continuation
    ``t - m sin(pi - m)`` where the angle plus the margin would pass pi. Deviation: cosines are clamped to
    +-(1 - 1e-6) first, so that the gradient is finite everywhere.

    >>> arcface(torch.tensor([0.0]), margin=math.pi / 6)     # cos(90 degrees + 30 degrees)
    tensor([-0.5000])
    """
    cosines = cosines.clamp(-COSINE_LIMIT, COSINE_LIMIT)
    sines = ((1.0 - cosines) * (1.0 + cosines)).sqrt()  # more exact near one than 1 - cosine^2
    turned = cosines * math.cos(margin) - sines * math.sin(margin)
    return torch.where(cosines > -math.cos(margin), turned, cosines - margin * math.sin(margin))


def unit_rows(features: Tensor) -> Tensor:
    """Rows divided by their length.

    A row no longer than 1e-12 (6e-5 in float16) has no direction: it becomes zeros and has no gradient.

    >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    lengths = features.norm(dim=1, keepdim=True)
    nothing = lengths <= max(1e-12, torch.finfo(features.dtype).tiny)
    return features / lengths.masked_fill(nothing, math.inf)


def fit_width(features: Tensor, width: int) -> Tensor:
    """Rows [N, D] cut to their first `width` coordinates, or padded with zeros up to `width`.

    Source: the rule by which BCT and Dual-Tuning send features through the other model's classifier.

    >>> fit_width(torch.tensor([[1, 2, 3]]), 2).tolist(), fit_width(torch.tensor([[1, 2, 3]]), 4).tolist()
    ([[1, 2]], [[1, 2, 3, 0]])
    """
    missing = width - features.shape[1]
    return features[:, :width] if missing <= 0 else F.pad(features, (0, missing))


def row_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over the rows that have a target, zero when no row has one.

    Logits [N, C], minus infinity for classes that do not take part; targets int64 [N], -1 for none.

    >>> row_cross_entropy(torch.zeros(2, 4), torch.tensor([3, -1]))      # ln 4, the second row is left out
    tensor(1.3863)
    """
    counted = targets >= 0
    losses = -F.log_softmax(logits, dim=1).gather(1, targets.clamp(min=0)[:, None])[:, 0]
    return losses.where(counted, 0.0).sum() / counted.sum().clamp(min=1)


def simplex(width: int) -> Tensor:
    """The vertices of a regular simplex, float32 [width + 1, width] unit rows with one cosine, -1 / width.

    Source: the stationary classifier of arXiv 2405.02581, of K = width + 1 preallocated classes: rows of the
    identity and one of (1 - sqrt(K)) / (K - 1), minus their mean.

    >>> simplex(1).tolist()
    [[1.0], [-1.0]]
    """
    last = torch.full((1, width), (1 - math.sqrt(width + 1)) / width, dtype=torch.float64)
    rows = torch.cat([torch.eye(width, dtype=torch.float64), last])
    return unit_rows(rows - rows.mean(dim=0)).float()


class Classifier(nn.Module):
    """The classifier of a model: linear, CosFace, ArcFace, or the vertices of a simplex, which stay.

    Source: ArcFace (arXiv 1801.07698), CosFace (arXiv 1801.09414); MixBCT's published training code uses
    scale 64 and margin 0.5, which does not train at 32 pixels, hence the smaller defaults and the ramp.

    Args:
        kind: "linear" (W x + b on raw embeddings), "cosface" or "arcface" (scale x cosine, with a margin), or
            "simplex" (W x, with a fixed W: models that were trained one after another share it).
        width: D, coordinates of an embedding.
        num_classes: C.
        scale: s, the factor on cosines, above 0. Not used by "linear" and "simplex".
        margin: m, radians 0..pi/2 for "arcface", cosine units 0..1 for "cosface". Not used by others.
        ramp: fraction of training, 0..1, over which the margin grows linearly from 0 to `margin`; 0: at once.
        label_smoothing: fraction, 0..1, spread evenly over all classes.
        sample: fraction of the classes, above 0 up to 1, that a step's softmax runs over: those of the batch,
            the others drawn anew, as Partial FC (arXiv 2203.15565) does. Deviation: the rows that were not
            drawn go on by their momentum and weight decay. Draws come from torch's global generator.
        vertices: int64 [C], the simplex's vertex of each class, 0..D; None: 0..C-1. Only for "simplex".
    Raises:
        ValueError: a simplex of D + 1 vertices for more classes.
    """

    def __init__(
        self,
        kind: str,
        width: int,
        num_classes: int,
        *,
        scale: float = 32.0,
        margin: float = 0.3,
        ramp: float = 0.3,
        label_smoothing: float = 0.0,
        sample: float = 1.0,
        vertices: Tensor | None = None,
    ):
        super().__init__()
        self.kind, self.width, self.num_classes = check_choice("kind", kind, KINDS), width, num_classes
        self.scale = check_number("scale", scale, 1e-6)
        self.margin = check_number("margin", margin, 0, 1 if kind == "cosface" else math.pi / 2)
        self.ramp = check_number("ramp", ramp, 0, 1)
        self.label_smoothing = check_number("label_smoothing", label_smoothing, 0, 1)
        self.sample = check_number("sample", sample, 1e-6, 1)
        self.first, self.dealt = 0, False  # the class of the first row here; see `deal`
        if kind == "simplex":
            rows = torch.arange(num_classes) if vertices is None else vertices
            if int(rows.max()) > width:
                raise ValueError(
                    f"the simplex in {width} coordinates has {width + 1} vertices, but {int(rows.max()) + 1} "
                    f"are asked for: set the widths to {int(rows.max())} or more, or choose another loss"
                )
            self.weight = nn.Parameter(simplex(width)[rows], requires_grad=False)
        else:
            self.weight = nn.Parameter(torch.empty(num_classes, width).normal_(0.0, 0.01))
        self.bias = nn.Parameter(torch.zeros(num_classes)) if kind == "linear" else None

    def margin_at(self, progress: float) -> float:
        """The margin in force when the fraction `progress` (0..1) of the training is done."""
        return self.margin * min(1.0, progress / self.ramp) if self.ramp > 0 else self.margin

    def logits(self, embeddings: Tensor, labels: Tensor | None = None, progress: float = 1.0) -> Tensor:
        """Scores [N, C] of embeddings [N, D], not normalised; with the margin when labels [N] are given.

        `progress` is the fraction of the training that is done, 0..1.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            return self._scores(embeddings, self.weight, self.bias, labels, progress)

    def _scores(
        self,
        embeddings: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor | None,
        progress: float,
        here: Tensor | None = None,
    ) -> Tensor:
        """Scores of the classes of `weight`; labels count its rows, and hold where `here` (bool [N]) does."""
        embeddings = embeddings.to(weight.dtype)
        if self.kind in ("linear", "simplex"):
            return F.linear(embeddings, weight, bias)
        cosines = F.linear(unit_rows(embeddings), unit_rows(weight))
        if labels is not None:
            own, margin = labels[:, None], self.margin_at(progress)
            target = cosines.gather(1, own)
            shifted = arcface(target, margin) if self.kind == "arcface" else target - margin
            if here is not None:
                shifted = shifted.where(here[:, None], target)
            cosines = cosines.scatter(1, own, shifted)
        return self.scale * cosines

    def loss(self, embeddings: Tensor, labels: Tensor, progress: float = 1.0) -> Tensor:
        """Mean cross-entropy of the logits with the margin; arguments as in `logits`, float32 scalar."""
        if self.dealt or self.sample < 1:
            return self._loss_of_part(embeddings, labels, progress)
        logits = self.logits(embeddings, labels, progress)
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def _loss_of_part(self, embeddings: Tensor, labels: Tensor, progress: float) -> Tensor:
        """The same over the classes that take part, of which this process has its own if dealt out."""
        with torch.autocast(embeddings.device.type, enabled=False):
            own, last = labels - self.first, len(self.weight) - 1
            here = (own >= 0) & (own <= last)
            own, weight, bias = own.clamp(0, last), self.weight, self.bias
            if self.sample < 1:
                rows = self._drawn(own, here)
                own = torch.searchsorted(rows, own).clamp(max=len(rows) - 1)
                weight, bias = weight[rows], None if bias is None else bias[rows]
            if self.dealt:
                embeddings = shared(embeddings)
            logits = self._scores(embeddings, weight, bias, own, progress, here)
            most = logits.detach().amax(dim=1)
            logits = logits - (largest(most) if self.dealt else most)[:, None]
            target = logits.gather(1, own[:, None])[:, 0].where(here, 0.0)
            counts = torch.full_like(target, logits.shape[1])
            parts = torch.stack([logits.exp().sum(dim=1), target, logits.sum(dim=1), counts])
            total, target, every, count = summed(parts) if self.dealt else parts
            smooth = self.label_smoothing
            return (total.log() - (1 - smooth) * target - smooth * every / count).mean()

    def _drawn(self, own: Tensor, here: Tensor) -> Tensor:
        """Rows that take part in a step, int64 in order: those that the batch has, and random others."""
        rows = len(self.weight)
        keys = torch.rand(rows)  # other ones in each process, as are the rows if they were dealt out
        keys = (keys if self.dealt else agreed(keys)).to(own.device)
        keys = keys.scatter_reduce(0, own, 2.0 * here, "amax")
        # Room for a batch of as many classes as images, so that nobody need count them.
        return keys.topk(min(rows, max(round(self.sample * rows), len(own)))).indices.sort().values

    def deal(self) -> None:
        """Keep this process's share of the rows only; the other processes keep the others."""
        mine = share(self.num_classes)
        self.first, self.dealt = mine.start, True
        self._keep(lambda rows: rows[mine].clone())

    def collect(self) -> None:
        """Undo `deal`: all rows in every process."""
        counts = shares(self.num_classes)
        self.first, self.dealt = 0, False
        self._keep(lambda rows: gathered(rows, counts))

    @torch.no_grad()
    def _keep(self, part: Callable[[Tensor], Tensor]) -> None:
        self.weight = nn.Parameter(part(self.weight), requires_grad=self.weight.requires_grad)
        self.bias = None if self.bias is None else nn.Parameter(part(self.bias))

    def extra_repr(self) -> str:
        return f"{self.kind}, {self.width} -> {self.num_classes}, scale={self.scale}, margin={self.margin}"


class FrozenClassifier(nn.Module):
    """A fixed table of class vectors that new embeddings are scored against: old classifier or prototypes.

    The table is a buffer outside the state dictionary: no optimiser sees it, checkpoints do not repeat it.

    Args:
        weight: [C, d] floating point.
        bias: [C] or None; only without `scale`.
        scale: None for inner products with the rows as they are, a number above 0 for scale x cosine.
        present: bool [C] or None for all; absent classes score minus infinity and cannot be targets.

    >>> table = FrozenClassifier(torch.tensor([[3.0, 0.0], [0.0, 1.0]]), scale=4.0)
    >>> table(torch.tensor([[2.0, 0.0, 7.0]])).tolist()          # the third coordinate is cut off
    [[4.0, 0.0]]
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        scale: float | None = None,
        present: Tensor | None = None,
    ):
        super().__init__()
        weight = weight.detach()
        self.scale = scale
        self.register_buffer("weight", weight if scale is None else unit_rows(weight), persistent=False)
        self.register_buffer("bias", None if bias is None else bias.detach(), persistent=False)
        absent = None if present is None or bool(present.all()) else ~present
        self.register_buffer("absent", absent, persistent=False)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Scores [N, C] float32 of embeddings [N, D]; D is cut or padded with zeros to the table's width."""
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = fit_width(embeddings.to(self.weight.dtype), self.weight.shape[1])
            if self.scale is None:
                logits = F.linear(embeddings, self.weight, self.bias)
            else:
                logits = self.scale * F.linear(unit_rows(embeddings), self.weight)
            return logits if self.absent is None else logits.masked_fill(self.absent, -math.inf)
