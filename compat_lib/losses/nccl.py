"""NCCL: pull every new embedding to a queue of old features of its class, among all classes' old features."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from compat_lib.losses.base import CompatibilityLoss, Step, check_choice, check_number, equal_widths
from compat_lib.losses.heads import Classifier, unit_rows
from compat_lib.old_system import OldSystem, class_means

SCORES_AT_ONCE = 2**18  # anchors x queue rows that are held together: a megabyte stays in the cache
# torch's attention on processors, with the logarithm of each sum that its public function keeps to itself
FUSED = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
FEW = 1 / 128  # share of positives among anchors x rows up to which a list of them is the faster way


class NCCL(CompatibilityLoss):
    """Classification plus two contrastive terms of each image against a queue of old features.

    Source: Neighborhood Consensus Contrastive Learning for Backward-Compatible Representation (Wu et al.,
    AAAI 2022, arXiv 2108.03372), in the form of the published code of MixBCT's comparison. Every old feature
    of the anchor's class is a positive, weighted by its cosine with the anchor's own old feature; the second
    term compares vectors of cosines with the new classes instead of features. The batch enters the queue
    before the losses, so each anchor's own old feature is a positive of weight one.

    Deviations, each with an option that undoes it: in the published code the second term has no gradient,
    empty slots of the queue count as negatives, and the queue also keeps the cosines with the classes, as
    they were when a row entered. The published script that selects credible old features keeps them all;
    `credible` follows its intention. A step that is computed twice in a row enters the queue once. Only in
    a batch larger than the queue can an anchor be without positives; it then counts as zero.

    Args:
        old: the old system, with features of the new model's width.
        classifier: the new model's classifier; its rows count as unit rows in the second term.
        feature_weight: alpha, factor of the contrast of features, at least 0; published 1, here chosen
            on validation identities.
        logit_weight: beta, factor of the contrast of logits, at least 0; published 0.01.
        temperature: tau of both terms, at least 0.001; published 1.
        queue: Q, old features that are kept, at least 1; published 8192.
        differentiable: True lets the contrast of logits train the network and, through the new embeddings'
            logits b, the classifier. With False, as published, it is only watched: the gradient is that of
            the other two terms.
        count_empty: True, as published, counts slots that are still empty as negatives of similarity zero.
        logits: "current" takes the old features' logits a from the present classifier and needs no memory for
            them; "stored", as published, keeps those of the step in which a row entered, Q x C numbers. Both
            are constants to the gradient.
        credible: "all" old features, as in the published training; "entropy" lets only rows whose old feature
            `credible_by_entropy` accepts enter the queue and the means of the two contrasts.
    Raises:
        ValueError: "The method nccl needs old and new features of one width, not 32 (old) and 64 (new). ..."
    """

    name = "nccl"
    title = "NCCL"
    paper = (
        "Neighborhood Consensus Contrastive Learning for Backward-Compatible Representation (Wu et al., "
        "AAAI 2022, arXiv 2108.03372)"
    )
    needs = frozenset({"features"})
    published = {"feature_weight": 1.0, "differentiable": False, "count_empty": True, "logits": "stored"}
    formulas = {
        "classification": r"\frac{1}{B}\sum_i \mathrm{CE}(W n_i, y_i)",
        "feature_contrast": r"-\frac{1}{B}\sum_i \frac{1}{|J_i|}\sum_{j \in J_i} w_{ij} \log"
        r" \frac{\exp(\hat n_i \cdot \hat o_j / \tau)}{\sum_{l=1}^{Q} \exp(\hat n_i \cdot \hat o_l / \tau)},"
        r" \quad J_i = \{ j : y_j = y_i \}, \quad w_{ij} = \frac{1 + \hat o_i \cdot \hat o_j}{2}",
        "logit_contrast": r"-\frac{1}{B}\sum_i \frac{1}{|J_i|}\sum_{j \in J_i} w_{ij} \log"
        r" \frac{\exp(b_i \cdot a_j / \tau)}{\sum_{l=1}^{Q} \exp(b_i \cdot a_l / \tau)},"
        r" \quad b_i = \hat W \hat n_i, \quad a_j = \hat W \hat o_j",
    }

    def __init__(
        self,
        old: OldSystem,
        classifier: Classifier,
        *,
        feature_weight: float = 10.0,
        logit_weight: float = 0.01,
        temperature: float = 1.0,
        queue: int = 8192,
        differentiable: bool = True,
        count_empty: bool = False,
        logits: str = "current",
        credible: str = "all",
    ):
        super().__init__(old, classifier)
        equal_widths(self.name, old, classifier, "")
        self.weights["feature_contrast"] = check_number("feature_weight", feature_weight)
        self.weights["logit_contrast"] = check_number("logit_weight", logit_weight)
        self.temperature = check_number("temperature", temperature, 1e-3)
        if isinstance(queue, bool) or not isinstance(queue, int) or queue < 1:
            raise ValueError(f"queue must be a whole number of at least 1, not {queue!r}.")
        check_choice("differentiable", differentiable, (True, False))
        check_choice("count_empty", count_empty, (True, False))
        check_choice("logits", logits, ("current", "stored"))
        check_choice("credible", credible, ("all", "entropy"))
        self.differentiable, self.count_empty, self.stored = differentiable, count_empty, logits == "stored"
        mask = None
        if credible == "entropy":
            mask = credible_by_entropy(old.features, old.labels, old.num_classes).to(old.features.device)
            if not mask.any():
                raise ValueError(
                    f"credible='entropy' leaves none of the {len(mask)} old features: all lie between "
                    "many class means. Use credible='all'."
                )
        self.register_buffer("credible", mask, persistent=False)
        self.register_buffer("queue_features", torch.zeros(queue, old.width))
        self.register_buffer("queue_labels", torch.full((queue,), -1))
        if self.stored:
            self.register_buffer("queue_logits", torch.zeros(queue, classifier.num_classes))
        # the last step, and how many rows had entered the queue before it and after it
        self.register_buffer("queue_progress", torch.tensor([-1, 0, 0]))

    def terms(self, step: Step) -> dict[str, Tensor]:
        classes = unit_rows(self.classifier.weight)
        new, old = unit_rows(step.embeddings.to(classes)), unit_rows(step.old_features.to(classes))
        labels = step.labels
        if self.credible is not None:
            kept = self.credible[step.rows]
            new, old, labels = new[kept], old[kept], labels[kept]
        filled = self._enqueue(step, old, labels, classes.detach())
        queue = self.queue_features[:filled]
        tables = [queue, self.queue_logits[:filled]] if self.stored else [queue]
        mass, pulls = positives(old, labels, tables, self.queue_labels[:filled])
        empty = len(self.queue_labels) - filled if self.count_empty else 0

        def contrast(anchors: Tensor, table: Tensor, pull: Tensor) -> Tensor:
            return Contrast.apply(anchors / self.temperature, table, mass, pull, empty)

        if self.stored:
            feature_contrast = contrast(new, tables[0], pulls[0])
            logit_contrast = contrast(new @ classes.T, tables[1], pulls[1])
        else:  # b . a = (n W'W) . o: the queue of features serves, and the cheaper order is taken
            logits = torch.linalg.multi_dot([new, classes.T, classes.detach()])
            feature_contrast, logit_contrast = contrast(torch.stack([new, logits]), queue, pulls[0])
        return {
            "classification": self.classification(step),
            "feature_contrast": feature_contrast,
            "logit_contrast": logit_contrast if self.differentiable else logit_contrast.detach(),
        }

    @torch.no_grad()
    def _enqueue(self, step: Step, old: Tensor, labels: Tensor, classes: Tensor) -> int:
        """Writes the rows over the oldest ones of the ring; the number of slots that are then filled."""
        number = step.epoch * step.batches + step.batch
        last, before, after = self.queue_progress.tolist()
        if number != last:  # a step that is computed again takes its own slots again
            before = after
        slots, count = len(self.queue_labels), len(labels)
        first = max(0, count - slots)
        places = torch.arange(before + first, before + count, device=labels.device) % slots
        self.queue_features.index_copy_(0, places, old[first:])
        self.queue_labels.index_copy_(0, places, labels[first:])
        if self.stored:
            self.queue_logits.index_copy_(0, places, old[first:] @ classes.T)
        self.queue_progress.copy_(torch.tensor([number, before, before + count]))
        return min(before + count, slots)


class Contrast(torch.autograd.Function):
    """Mean over the anchors of sum_j w_j (ln sum_l exp(anchor . row_l) - anchor . row_j) / |J|.

    The gradient goes to the anchors only. Beside the sum of exponentials it needs the sum of the rows
    weighted by them, which `attend` gives in the same pass: so no exponential is taken twice.

    Args:
        anchors: [..., B, d] floating point, divided by the temperature.
        table: [F, d], the filled rows of the queue.
        mass: [B], sum of w_j / |J| over the anchor's positives.
        pull: [B, d], sum of w_j row_j / |J|.
        empty: slots that count as negatives of similarity zero.
    Returns:
        [...]; zero when there is no anchor.

    >>> anchor, row = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
    >>> Contrast.apply(anchor, torch.eye(2), torch.ones(1), row, 2)     # ln 4
    tensor(1.3863)
    """

    @staticmethod
    def forward(ctx, anchors: Tensor, table: Tensor, mass: Tensor, pull: Tensor, empty: int) -> Tensor:
        batch = max(1, len(mass))
        totals, means = attend(anchors, table)
        if empty:
            filled, totals = totals, torch.logaddexp(totals, totals.new_full((), math.log(empty)))
            means = means * (filled - totals).exp()[..., None]
        ctx.save_for_backward((means * mass[:, None]).sub_(pull).div_(batch))
        return (mass * totals - (anchors * pull).sum(dim=-1)).sum(dim=-1) / batch

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return gradient[..., None, None] * slopes, None, None, None, None


def attend(anchors: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """The anchors' attention to the rows of a table that are keys and values at once.

    Args:
        anchors: [..., d] floating point.
        table: [F, d] of the same dtype.
    Returns:
        [...], ln sum_l exp(anchor . row_l), and [..., d], the rows' mean weighted by these exponentials.

    >>> attend(torch.zeros(1, 2), torch.eye(2))
    (tensor([0.6931]), tensor([[0.5000, 0.5000]]))
    """
    if FUSED is not None and anchors.device.type == "cpu" and anchors.numel():
        rows = table[None, None]  # one sequence of one head
        means, logs = FUSED(anchors.view(1, 1, -1, table.shape[1]), rows, rows, scale=1.0)
        return logs.view(anchors.shape[:-1]), means.view(anchors.shape)
    scores = anchors @ table.T
    return scores.logsumexp(dim=-1), scores.softmax(dim=-1) @ table


@torch.no_grad()
def positives(
    old: Tensor, labels: Tensor, tables: list[Tensor], table_labels: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """What the queue's rows of an anchor's class weigh, and their weighted sums.

    Few positives are listed one by one. Many (a queue of few classes) are found by masks in blocks of the
    queue sorted by label, where each block meets only the anchors within its range of labels.

    Args:
        old: [B, d] floating point, unit old features of the anchors.
        labels: int64 [B].
        tables: [F, d] unit old features in the queue, and other tables of as many rows.
        table_labels: int64 [F].
    Returns:
        [B], sum of w_j / |J| over the positives j, w_j = (1 + cosine) / 2, and for each table
        [B, columns], sum of w_j row_j / |J|; zero where there is no positive.

    >>> old = torch.tensor([[1.0, 0.0]])
    >>> positives(old, torch.tensor([3]), [torch.eye(2)], torch.tensor([3, 3]))     # weights 1 and 1/2
    (tensor([0.7500]), [tensor([[0.5000, 0.2500]])])
    """
    sorted_labels, order = table_labels.sort(stable=True)
    first = torch.searchsorted(sorted_labels, labels)
    counts = torch.searchsorted(sorted_labels, labels, right=True) - first
    mass = old.new_zeros(len(old))
    if int(counts.sum()) <= FEW * len(old) * len(order):
        starts = counts.cumsum(0) - counts
        anchors = torch.repeat_interleave(counts)
        listed = order[torch.arange(len(anchors), device=old.device) + (first - starts)[anchors]]
        weights = old.index_select(0, anchors).mul_(tables[0].index_select(0, listed)).sum(dim=1).add_(1)
        mass.index_add_(0, anchors, weights)
        pulls = [
            F.embedding_bag(listed, table, starts, mode="sum", per_sample_weights=weights) for table in tables
        ]
    else:
        pulls = [old.new_zeros(len(old), table.shape[1]) for table in tables]
        size = max(1, SCORES_AT_ONCE // len(old))
        for part, near in zip(order.split(size), sorted_labels.split(size), strict=True):
            met = ((labels >= near[0]) & (labels <= near[-1])).nonzero()[:, 0]
            rows = [table[part] for table in tables]
            weights = (old[met] @ rows[0].T).add_(1).mul_(labels[met, None] == near)
            mass[met] += weights.sum(dim=1)
            for pull, row in zip(pulls, rows, strict=True):
                pull[met] += weights @ row
    halves = 0.5 / counts.clamp(min=1).to(mass)
    return mass * halves, [pull * halves[:, None] for pull in pulls]


@torch.no_grad()
def credible_by_entropy(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Which old features are near to few class means, judged by the entropy of a softmax over all of them.

    Source: reconstruction of NCCL's selection (arXiv 2108.03372) with the terms of the published script of
    MixBCT's comparison, whose softmax runs over a single class and so keeps everything. With p_i = softmax
    over k of -|o_i - m_k| / v_k, row i is credible when the entropy of p_i is at most half of ln C. Unit
    rows, m_k their class mean as it is, v_k the variance of the distances within class k. A class of fewer
    than three rows says nothing about a variance and takes the mean of the others'. Classes without rows
    do not take part.

    Args:
        features: [N, d] floating point, old features, normalised here.
        labels: int64 [N], 0..C-1.
        num_classes: C.
    Returns:
        bool [N] on the CPU.

    >>> rows = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.7, 0.7], [0.0, 1.0], [0.1, 0.9], [0.7, 0.7]])
    >>> credible_by_entropy(rows, torch.tensor([0, 0, 0, 1, 1, 1]), 2).tolist()     # two stand in between
    [True, True, False, True, True, False]
    """
    means = class_means(features, labels, num_classes, unit=True).double()
    labels = labels.cpu()
    counts = torch.bincount(labels, minlength=num_classes)
    size = max(1, SCORES_AT_ONCE // num_classes)

    def blocks():
        return (unit_rows(rows.cpu().double()) for rows in features.split(size))

    pairs = zip(blocks(), labels.split(size), strict=True)
    own = torch.cat([torch.linalg.vector_norm(rows - means[y], dim=1) for rows, y in pairs])
    average = torch.zeros(num_classes, dtype=own.dtype).index_add_(0, labels, own) / counts
    spread = torch.zeros_like(average).index_add_(0, labels, (own - average[labels]).square()) / counts
    measured = counts >= 3
    pooled = spread[measured].mean() if measured.any() else 0.0
    present = counts > 0
    spread = spread.where(measured, pooled).clamp(min=1e-12)[present]
    limit = 0.5 * math.log(int(present.sum()))
    kept = []
    for rows in blocks():
        logs = (-torch.cdist(rows, means[present]) / spread).log_softmax(dim=1)
        kept.append(-(logs.exp() * logs).sum(dim=1) <= limit)
    return torch.cat(kept)
