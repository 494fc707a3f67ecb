"""NCCL: pull every new embedding to a queue of old features of its class, among all classes' old features."""

import torch
from torch import Tensor

from compat_lib.losses.base import CompatibilityLoss, Step
from compat_lib.losses.heads import Classifier, unit_rows
from compat_lib.names import check_number, checked_count
from compat_lib.old_system import OldSystem

ANCHORS_AT_ONCE = 64  # of a contrast: their scores stay in the processor's cache


class Contrast(torch.autograd.Function):
    """Sum over i of the cross-entropy of softmax(anchors_i . queue) against weights_i: a scalar.

    Anchors [B, d], queue [Q, d] and weights [B, Q], which need not sum to one. Only the anchors have a
    gradient; it is taken with the value, in place and in blocks, which saves a third of the time.
    """

    @staticmethod
    def forward(ctx, anchors: Tensor, queue: Tensor, weights: Tensor) -> Tensor:
        loss, gradients = anchors.new_zeros(()), []
        for rows, own in zip(anchors.split(ANCHORS_AT_ONCE), weights.split(ANCHORS_AT_ONCE), strict=True):
            logs = (rows @ queue.T).log_softmax(dim=1)
            loss -= torch.dot(logs.flatten(), own.flatten())
            slopes = logs.exp_().mul_(own.sum(dim=1, keepdim=True)).sub_(own)  # to the scores
            gradients.append(slopes @ queue)
        ctx.save_for_backward(torch.cat(gradients))
        return loss

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient * ctx.saved_tensors[0], None, None


class NCCL(CompatibilityLoss):
    """Classification plus two contrastive terms of each image against a queue of old features.

    Source: NCCL (arXiv 2108.03372), in the form of the published code of MixBCT's comparison. Every old
    feature of the anchor's class is a positive, weighted by its cosine with the anchor's own old feature; the
    second term compares vectors of cosines with the new classes instead of features. The batch enters the
    queue before the losses, so each anchor's own old feature is a positive of weight one; an anchor without
    positives (in a batch larger than the queue) counts as zero. Deviations: in the published code the second
    term has no gradient, empty slots of the queue count as negatives, and the cosines with the classes are
    kept as they were when a row entered; here they are those of the present classifier, constant to the
    gradient. All old features take part, as in the published training, whose script that selects credible
    ones keeps them all.

    Args:
        feature_weight: alpha, factor of the contrast of features, at least 0; published 1, here chosen
            on validation identities.
        logit_weight: beta, factor of the contrast of logits, at least 0; published 0.01.
        temperature: tau of both terms, at least 0.001; published 1.
        queue: Q, old features that are kept, at least 1; published 8192.
    """

    name = "nccl"
    title = "NCCL"
    paper = (
        "Neighborhood Consensus Contrastive Learning for Backward-Compatible Representation (Wu et al., "
        "AAAI 2022, arXiv 2108.03372)"
    )
    needs = frozenset({"features"})
    one_width = True
    whole_classifier = True
    dropped = {"credible": "all"}
    published = {"feature_weight": 1.0, "logit_weight": 0.01, "temperature": 1.0}
    formulas = {
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
        feature_weight: float = 9.07,
        logit_weight: float = 0.908,
        temperature: float = 0.136,
        queue: int = 8192,
    ):
        super().__init__(old, classifier)
        self.weights["feature_contrast"] = check_number("feature_weight", feature_weight)
        self.weights["logit_contrast"] = check_number("logit_weight", logit_weight)
        self.temperature = check_number("temperature", temperature, 1e-3)
        checked_count("queue", queue)
        self.register_buffer("queue_features", torch.zeros(queue, old.width))
        self.register_buffer("queue_labels", torch.full((queue,), -1))
        # the last step, and how many rows had entered the queue before it and after it
        self.register_buffer("queue_progress", torch.tensor([-1, 0, 0]))
        self._progress: list[int] | None = None  # the same, known without asking a GPU; None: ask
        self.register_load_state_dict_post_hook(lambda module, keys: setattr(module, "_progress", None))

    def terms(self, step: Step) -> dict[str, Tensor]:
        classes = unit_rows(self.classifier.weight)
        new, old = unit_rows(step.embeddings.to(classes)), unit_rows(step.old_features.to(classes))
        labels = step.labels
        filled = self._enqueue(step, old)
        queue, queue_labels = self.queue_features[:filled], self.queue_labels[:filled]
        # [B, filled]: w_ij / |J_i| for the positives j of anchor i, zero elsewhere
        ones = torch.ones_like(queue_labels)  # bincount would wait for a GPU
        counts = queue_labels.new_zeros(len(classes)).index_add_(0, queue_labels, ones)
        positives = counts[labels].clamp(min=1)
        weights = (old @ queue.T).add_(1).masked_fill_(labels[:, None] != queue_labels, 0.0)
        weights.div_(2 * positives[:, None])

        def contrast(anchors: Tensor) -> Tensor:
            return Contrast.apply(anchors / self.temperature, queue, weights) / len(anchors)

        # b . a = (n W'W) . o: the queue of features serves, and the cheaper order of the products is taken
        logits = torch.linalg.multi_dot([new, classes.T, classes.detach()])
        return {
            "classification": self.classification(step),
            "feature_contrast": contrast(new),
            "logit_contrast": contrast(logits),
        }

    @torch.no_grad()
    def _enqueue(self, step: Step, old: Tensor) -> int:
        """Writes the rows over the oldest ones of the ring; the number of slots that are then filled."""
        number = step.epoch * step.batches + step.batch
        last, before, after = self._progress or self.queue_progress.tolist()
        if number != last:  # a step that is computed again takes its own slots again
            before = after
        size, count = len(self.queue_labels), len(old)
        newest = torch.arange(max(0, count - size), count, device=old.device)
        places = (before + newest) % size
        self.queue_features[places], self.queue_labels[places] = old[newest], step.labels[newest]
        self._progress = [number, before, before + count]
        self.queue_progress.copy_(torch.tensor(self._progress), non_blocking=True)
        return min(before + count, size)
