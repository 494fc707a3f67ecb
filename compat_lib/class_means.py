"""Class means, and the rows near them: in double precision, block by block and on the CPU.

So memory stays bounded, and the bits are equal everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

ROWS_AT_ONCE = 65_536


def class_means(features: Tensor, labels: Tensor, num_classes: int, *, unit: bool = False) -> Tensor:
    """Mean of the features [N, d] of each class, float32 [C, d] on the CPU, not normalised.

    A class without samples has a row of zeros; labels, int64 [N], are 0..C-1; `unit` averages unit rows.

    >>> class_means(torch.tensor([[1.0], [5.0], [2.0]]), torch.tensor([1, 0, 1]), 3).tolist()
    [[5.0], [1.5], [0.0]]
    """
    sums = torch.zeros(num_classes, features.shape[1], dtype=torch.float64)
    for block, block_labels in _blocks(features, labels):
        sums.index_add_(0, block_labels, F.normalize(block, dim=1) if unit else block)
    return (sums / _counts(labels, num_classes).clamp(min=1)[:, None]).float()


def credible_rows(
    features: Tensor, labels: Tensor, num_classes: int, share: float, columns: bool = True
) -> Tensor:
    """The ceil(share x n) rows of each class of n rows that lie nearest to the mean of the class.

    Source: MixBCT (arXiv 2308.06948), published selection script: unit rows, then every column divided by its
    norm over the whole set. Deviations: rows are grouped by label wherever they stand, and the count allows
    for rounding.

    Returns bool [N] on the CPU; of equal distances the earlier row is kept. Without `columns` the division of
    the columns is left out; the other arguments are as in `class_means`.

    >>> credible_rows(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1]]), torch.zeros(3).long(), 1, 0.5)
    tensor([ True, False,  True])
    """
    counts = _counts(labels, num_classes)
    squares = torch.zeros(features.shape[1], dtype=torch.float64)
    sums = torch.zeros(num_classes, features.shape[1], dtype=torch.float64)
    for block, block_labels in _blocks(features, labels):
        block = F.normalize(block, dim=1)
        squares += block.square().sum(dim=0)
        sums.index_add_(0, block_labels, block)
    norms = squares.sqrt() if columns else torch.ones_like(squares)
    norms[norms == 0] = 1.0  # a column of zeros stays one
    means = sums / norms / counts.clamp(min=1)[:, None]
    blocks = _blocks(features, labels)
    apart = (F.normalize(block, dim=1) / norms - means[own] for block, own in blocks)
    distances = [torch.linalg.vector_norm(block, dim=1) for block in apart]
    labels = labels.cpu()
    # in single precision, since differences in the last bits of a double are ties
    ranks = pd.Series(torch.cat(distances).float().numpy()).groupby(labels.numpy()).rank(method="first")
    # 0.55 * 100 is 55.000...01 in floating point, and its ceiling would be 56
    kept = (share * counts.double() - 1e-9).ceil()
    return torch.tensor(ranks.to_numpy()) <= kept[labels]


def _blocks(features: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(features), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        yield features[rows].cpu().double(), labels[rows].cpu()


def _counts(labels: Tensor, num_classes: int) -> Tensor:
    return torch.bincount(labels.cpu(), minlength=num_classes)
