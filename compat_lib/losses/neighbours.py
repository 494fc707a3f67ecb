"""Neighbours: every new embedding among all old features, near those of its class, not far from its own."""

import torch
from torch import Tensor

from compat_lib.losses.base import Step
from compat_lib.losses.heads import Classifier, unit_rows
from compat_lib.losses.mixbct import MixBCT
from compat_lib.losses.nccl import ANCHORS_AT_ONCE
from compat_lib.losses.weakened_l2 import excess
from compat_lib.names import check_choice, check_number, checked_count
from compat_lib.old_system import OldSystem, rows_of


class LogSums(torch.autograd.Function):
    """Logarithm of the sum over l of exp(anchors_i . table_l): [B] of anchors [B, d] and a table [N, d].

    Only the anchors have a gradient, the softmax mean of the table, which is taken with the value. The scores
    [B, N] are never there as a whole on a CPU.
    """

    @staticmethod
    def forward(ctx, anchors: Tensor, table: Tensor) -> Tensor:
        sums, means = [], []
        for rows in anchors.split(ANCHORS_AT_ONCE if anchors.device.type == "cpu" else len(anchors)):
            scores = rows @ table.T
            sums.append(scores.logsumexp(dim=1))
            means.append(scores.sub_(sums[-1][:, None]).exp_() @ table)
        ctx.save_for_backward(torch.cat(means))
        return torch.cat(sums)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient[:, None] * ctx.saved_tensors[0], None


class Neighbours(MixBCT):
    """Classification, a contrast of each image with all old features, and weakened L2 to its own.

    Source: none; this project's own method, unpublished. A new query must lie near the *other* old features
    of its class. L2 names one target a row, prototypes one a class; here every image has its own blend: the
    old features of its class, each weighted by its cosine with the image's own, pull it, those of all images
    push it away by their softmax. The contrast is NCCL's of features with the whole training set in place of
    a queue. Because old features do not change, what pulls a row (the weighted sum of its class) is computed
    once; a step multiplies B embeddings with N old features.

    Args:
        contrast_weight: factor of the contrast, at least 0.
        temperature: tau of the contrast, at least 0.001: small ones see only the nearest old features.
        positives: "class" lets all old features of the image's class pull it, "own" its own alone.
        rows: how many old features push at most, at least 1; of more, as many are drawn anew in each step,
            with replacement.
        distance_weight: factor of the distance to the own old feature, at least 0.
        threshold: distance of unit features up to which nothing is paid, 0..2.
        mix_ratio: share of a batch that is replaced by old features as in MixBCT, 0..1; such rows have no
            contrast and no distance.
    """

    name = "neighbours"
    title = "Neighbours (ours, unpublished)"
    paper = "This project's own method, 2026; unpublished"
    one_width = True
    formulas = {
        "contrast": r"\frac{1}{B}\sum_i \frac{1}{|P_i|}\sum_{j \in P_i} w_{ij} \left(\log\sum_{l=1}^{N}"
        r" e^{\hat n_i \cdot \hat o_l / \tau} - \hat n_i \cdot \hat o_j / \tau\right),"
        r" \quad P_i = \{ j \le N : y_j = y_i \}, \quad w_{ij} = \frac{1 + \hat o_i \cdot \hat o_j}{2}",
        "distance": r"\frac{1}{B}\sum_i \max(0, \lVert \hat n_i - \hat o_i \rVert_2 - t)",
    }

    def __init__(
        self,
        old: OldSystem,
        classifier: Classifier,
        *,
        contrast_weight: float = 14.2,
        temperature: float = 0.0852,
        positives: str = "class",
        rows: int = 2**16,
        distance_weight: float = 16.8,
        threshold: float = 0.251,
        mix_ratio: float = 0.0,
    ):
        super().__init__(old, classifier, mix_ratio=mix_ratio)
        self.weights["contrast"] = check_number("contrast_weight", contrast_weight)
        self.weights["distance"] = check_number("distance_weight", distance_weight)
        self.temperature = check_number("temperature", temperature, 1e-3)
        self.threshold = check_number("threshold", threshold, 0, 2)
        self.rows = checked_count("rows", rows)
        own = check_choice("positives", positives, ("class", "own")) == "own"
        table, pulls, shares = class_pulls(old, own)
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("pulls", pulls, persistent=False)
        self.register_buffer("shares", shares, persistent=False)

    def terms(self, step: Step) -> dict[str, Tensor]:
        rows, old, table = step.rows, step.old_features, self.table
        if step.embedded is not None:
            kept = step.places()
            rows, old = rows[kept], old[kept]
        if len(table) > self.rows:
            drawn = torch.randint(len(table), (self.rows,), generator=step.generator)
            table = table[drawn.to(table.device, non_blocking=True)]
        new = unit_rows(step.embeddings.to(table.dtype)) / self.temperature
        pulled = (new * self.pulls[rows]).sum(dim=1)
        return super().terms(step) | {
            "contrast": (self.shares[rows] * LogSums.apply(new, table) - pulled).mean(),
            "distance": excess(step.embeddings, old, self.threshold),
        }


def class_pulls(old: OldSystem, own: bool) -> tuple[Tensor, Tensor, Tensor]:
    """What pulls each row of the training set: its positives, weighted and divided by their number.

    With `own` the row itself is the one positive, of weight 1. Returns, float32 on the labels' device, the
    unit old features [N, d]; for each row i, [N, d], the sum over j of w_ij o_j / |P_i|; and [N], that of
    w_ij / |P_i|.
    """
    counts = torch.bincount(old.labels)
    table = torch.empty(len(old.labels), old.width, device=old.labels.device)
    pulls, shares = torch.empty_like(table), torch.ones_like(table[:, 0])
    for rows in old.labels.argsort(stable=True).split(counts[counts > 0].tolist()):
        mates = unit_rows(rows_of(old.features, rows))
        table[rows], total = mates, mates.sum(dim=0)
        if not own:  # w_ij is linear in o_j: no matrix of pairs is needed, whichever of n and d is larger
            pulls[rows] = (total + torch.linalg.multi_dot([mates, mates.T, mates])) / (2 * len(rows))
            shares[rows] = (len(rows) + mates @ total) / (2 * len(rows))
    return table, table if own else pulls, shares
