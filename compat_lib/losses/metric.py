"""Losses of metric learning as functions: triplet, circle, and the smoothed cross-entropy beside them.

All arithmetic is done in float32 at least, also inside autocast. A row that lacks a positive or a negative,
such as every row of a batch of one class, costs nothing and has no gradient.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from compat_lib.losses.base import check_choice, check_number
from compat_lib.losses.heads import unit_rows


def triplet_loss(
    anchors: Tensor,
    anchor_labels: Tensor,
    candidates: Tensor,
    candidate_labels: Tensor,
    *,
    margin: float = 0.3,
    mining: str = "hard",
    distance: str = "euclidean",
) -> Tensor:
    """Mean over the anchors of how much farther the positive lies than the negative, plus a margin.

    Source: In Defense of the Triplet Loss (Hermans et al., arXiv 1703.07737), batch-hard and soft margin, in
    the form of Dual-Tuning's published code. To train within one batch, pass it on both sides: the anchor
    itself then counts as a positive. Deviations: the soft margin is computed so that it cannot overflow,
    where the published code falls back to a hinge of 0.3; the weights of "soft" sum to one, where the
    published code adds 1e-6 to the sum of exp(-distance), so that far negatives seem to lie at distance zero.

    Args:
        anchors: [N, D] floating point, not normalised.
        anchor_labels: [N] integers.
        candidates: [M, D] floating point; the positives and negatives are found among them by label.
        candidate_labels: [M] integers.
        margin: at least 0, in units of the distance; 0 takes the soft margin ln(1 + e^gap).
        mining: "hard" takes the farthest positive and the nearest negative, "soft" the means of all, weighted
            by the softmax of the distance (positives) and of minus the distance (negatives).
        distance: "euclidean", at least 1e-6, or "cosine", 2 - 2 cos.
    Returns:
        scalar of the wider of the two types, float32 at least. Anchors without a positive or without a
        negative count as zero rows.
    Raises:
        ValueError: "anchors and candidates must be matrices of one width, not [4, 8] and [4, 6]. ..." and the
            like for labels, margin, mining and distance.

    >>> line, labels = torch.tensor([[0.0], [2.0], [3.0]]), torch.tensor([0, 0, 1])
    >>> triplet_loss(line, labels, line, labels, margin=0.5)       # (2 - 3 + 0.5)+, 2 - 1 + 0.5, 0 - 1 + 0.5
    tensor(0.5000)
    """
    _check_rows("anchor", anchors, anchor_labels)
    _check_rows("candidate", candidates, candidate_labels)
    if anchors.shape[1] != candidates.shape[1]:
        raise ValueError(
            f"anchors and candidates must be matrices of one width, not {list(anchors.shape)} and "
            f"{list(candidates.shape)}. Cut the wider side, or pad the narrower one, with fit_width."
        )
    check_number("margin", margin)
    check_choice("mining", mining, ("hard", "soft"))
    check_choice("distance", distance, ("euclidean", "cosine"))
    if len(anchors) == 0 or len(candidates) == 0:
        return 0.0 * (anchors.sum() + candidates.sum())
    distances = pairwise_distances(anchors, candidates, distance)
    positive = anchor_labels[:, None] == candidate_labels
    gaps = _mined(distances, positive, mining, 1) - _mined(distances, ~positive, mining, -1)
    losses = (gaps + margin).clamp(min=0) if margin > 0 else F.softplus(gaps)
    return losses.where(_both(positive, ~positive), 0.0).mean()


def circle_loss(features: Tensor, labels: Tensor, *, margin: float = 0.25, gamma: float = 128.0) -> Tensor:
    """Mean over the rows of ln(1 + sum of e^(positive scores) x sum of e^(negative scores)).

    Source: Circle Loss (Sun et al., CVPR 2020, arXiv 2002.10857), pairwise form: with cosine s a positive
    scores -gamma (1 + m - s)+ (s - 1 + m), a negative gamma (s + m)+ (s - m). The factors ()+ are constants
    for differentiation, as in the paper. A row is no positive of its own. Deviation: pairs of the other kind
    take no part in a sum, where the code that Dual-Tuning builds on leaves them in with a score of their own.

    Args:
        features: [N, D] floating point, not normalised.
        labels: [N] integers.
        margin: m, cosine units, 0..1.
        gamma: scale, above 0.
    Returns:
        scalar of the type of `features`, float32 at least. Rows without a positive or without a negative
        count as zero.
    Raises:
        ValueError: "margin must be a number between 0 and 1, not 2." and the like.

    >>> same = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> circle_loss(same, torch.tensor([0, 0, 1]), margin=0.5, gamma=8.0)   # 2/3 ln(1 + e^(-2) e^(-2))
    tensor(0.0121)
    """
    _check_rows("feature", features, labels)
    check_number("margin", margin, 0, 1)
    check_number("gamma", gamma, 1e-6)
    if len(features) == 0:
        return 0.0 * features.sum()
    cosines = _cosines(features, features)
    same = labels[:, None] == labels
    positive = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    now = cosines.detach()
    attract = -gamma * (1 + margin - now).clamp(min=0) * (cosines - (1 - margin))
    repel = gamma * (now + margin).clamp(min=0) * (cosines - margin)
    scores = _marked(attract, positive).logsumexp(dim=1) + _marked(repel, ~same).logsumexp(dim=1)
    return F.softplus(scores).where(_both(positive, ~same), 0.0).mean()


def smoothed_cross_entropy(
    logits: Tensor, targets: Tensor, *, smoothing: float = 0.0, adaptive: float = 0.0, divisor: str = "rows"
) -> Tensor:
    """Mean cross-entropy over the rows that have a target, with fixed or adaptive label smoothing.

    Source: the cross-entropy of the code that Dual-Tuning builds on. A row leaves 1 - epsilon on its target
    and shares epsilon evenly among the other classes; epsilon is constant for differentiation. Columns that
    are minus infinity are classes that do not take part.

    Args:
        logits: [N, C] floating point.
        targets: [N] int64, 0..C-1, or -1 for a row without a target.
        smoothing: epsilon of every row, fraction 0..1.
        adaptive: alpha, fraction 0..1; above 0 a row's epsilon is alpha times its own probability of its
            target, in place of `smoothing` (the published code's epsilon = -1).
        divisor: "rows" divides the sum by the number of rows with a target, "nonzero" (published) by the
            number of rows whose loss is not exactly zero.
    Returns:
        scalar of the type of `logits`; zero when no row has a target.

    >>> logits = torch.tensor([[0.0, 0.0], [200.0, 0.0]])
    >>> smoothed_cross_entropy(logits, torch.tensor([1, 0]))              # ln 2 and 0, divided by two rows
    tensor(0.3466)
    >>> smoothed_cross_entropy(logits, torch.tensor([1, 0]), divisor="nonzero")
    tensor(0.6931)
    """
    log_probabilities = F.log_softmax(logits, dim=1)
    losses = -log_probabilities.gather(1, targets.clamp(min=0)[:, None])[:, 0]
    if smoothing > 0 or adaptive > 0:
        epsilon = adaptive * (-losses.detach()).exp() if adaptive > 0 else smoothing
        absent = logits.detach() == -math.inf
        total = -log_probabilities.masked_fill(absent, 0.0).sum(dim=1)
        others = (logits.shape[1] - absent.sum(dim=1) - 1).clamp(min=1)
        losses = (1.0 - epsilon) * losses + epsilon * (total - losses) / others
    losses = losses.where(targets >= 0, 0.0)
    counted = targets >= 0 if divisor == "rows" else losses.detach() != 0
    return losses.sum() / counted.sum().clamp(min=1)


def pairwise_distances(anchors: Tensor, candidates: Tensor, distance: str = "euclidean") -> Tensor:
    """Distance of every anchor to every candidate.

    Args:
        anchors: [N, D] floating point.
        candidates: [M, D] floating point.
        distance: "euclidean", whose square is at least 1e-12, or "cosine", 2 - 2 cos, the squared Euclidean
            distance of the unit rows.
    Returns:
        [N, M] of the wider type, float32 at least; the gradient at equal rows is zero.

    >>> pairwise_distances(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
    tensor([[5., 2.]])
    """
    if distance == "cosine":
        return 2.0 - 2.0 * _cosines(anchors, candidates)
    anchors, candidates = _same_type(anchors, candidates)
    # A shift changes no distance, and without it a^2 - 2ab + b^2 of rows far from zero loses its digits.
    middle = candidates.detach().mean(dim=0)
    anchors, candidates = anchors - middle, candidates - middle
    with torch.autocast(anchors.device.type, enabled=False):
        products = anchors @ candidates.T
    lengths = anchors.square().sum(dim=1)[:, None] + candidates.square().sum(dim=1)
    squares = lengths - 2.0 * products
    rounding = 8 * torch.finfo(lengths.dtype).eps * lengths.detach()
    squares = squares.masked_fill(squares <= rounding, 0.0)  # rows that only rounding tells apart are equal
    return squares.clamp(min=1e-12).sqrt()  # the root has no slope at zero


def _cosines(anchors: Tensor, candidates: Tensor) -> Tensor:
    anchors, candidates = _same_type(anchors, candidates)
    with torch.autocast(anchors.device.type, enabled=False):
        return unit_rows(anchors) @ unit_rows(candidates).T


def _same_type(anchors: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
    kind = torch.promote_types(torch.promote_types(anchors.dtype, candidates.dtype), torch.float32)
    return anchors.to(kind), candidates.to(kind)


def _mined(distances: Tensor, mask: Tensor, mining: str, sign: int) -> Tensor:
    """[N]: the largest (sign 1) or smallest (sign -1) marked distance of each row, or their soft mean."""
    signed = _marked(sign * distances, mask)
    if mining == "hard":
        return sign * signed.amax(dim=1)
    return (signed.softmax(dim=1) * distances).sum(dim=1)


def _marked(scores: Tensor, mask: Tensor) -> Tensor:
    """The scores, minus infinity where the mask is False; a row without any mark is zero, hence finite."""
    return scores.masked_fill(~mask, -math.inf).masked_fill(~mask.any(dim=1, keepdim=True), 0.0)


def _both(positive: Tensor, negative: Tensor) -> Tensor:
    return positive.any(dim=1) & negative.any(dim=1)


def _check_rows(name: str, features: Tensor, labels: Tensor) -> None:
    if not isinstance(features, Tensor) or not isinstance(labels, Tensor):
        raise ValueError(
            f"{name}s and their labels must be tensors, not {type(features).__name__} and "
            f"{type(labels).__name__}. Convert them with torch.as_tensor."
        )
    if features.ndim != 2 or not features.is_floating_point():
        raise ValueError(
            f"{name}s must be a matrix of floating point numbers, one row each, not {features.dtype} "
            f"{list(features.shape)}."
        )
    if labels.shape != features.shape[:1]:
        raise ValueError(
            f"There are {len(features)} {name}s, which need as many labels, not labels of shape "
            f"{list(labels.shape)}."
        )
