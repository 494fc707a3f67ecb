"""How far the old features of a class reach from its centre, without the outliers."""

import torch
from torch import Tensor


def kept_extent(distances: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """The largest distance of each class that is not an outlier, and how many distances are none.

    Source: the radius of AdvBCT (Pan et al., CVPR 2023, arXiv 2305.02610), published extraction script, which
    takes the angles of its LCE comparison in the same way. In a class of n >= 4 samples with sorted distances
    rho (counted from 0), q1 = rho[n // 4], q3 = rho[3n // 4] and IQR = q3 - q1, those outside
    [q1 - 1.5 IQR, q3 + 1.5 IQR] are dropped; a smaller class keeps all. The script also keeps all where
    nothing would remain, which cannot happen, because q1 and q3 themselves remain.

    Args:
        distances: [N] floating point, finite, of each sample from its class centre, in any unit.
        labels: int64 [N], 0..C-1, in any order, on the same device.
        num_classes: C, at least 1.
    Returns:
        extent [C] of the type of `distances`, zero for a class without samples; count int64 [C] of the
        samples that were kept. Both are on the device of `distances` and carry no gradient.
    Raises:
        ValueError: "There are 5 distances for 4 labels. ..."; "distances hold 1 values that are not finite,
            first in row 3. ..."; "labels must lie within 0..2, but go from 0 to 7. ..."

    >>> kept_extent(torch.tensor([1.0, 2.0, 9.0, 2.0, 3.0, 0.5]), torch.tensor([0, 0, 0, 0, 0, 1]), 3)
    (tensor([3.0000, 0.5000, 0.0000]), tensor([4, 1, 0]))
    """
    distances = distances.detach()
    _check(distances, labels, num_classes)
    counts = torch.bincount(labels, minlength=num_classes)
    starts = counts.cumsum(0) - counts
    by_distance = distances.argsort()
    order = by_distance[labels[by_distance].argsort(stable=True)]  # by class, then by distance
    # in double precision, so that the fences are exact; the zero at the end is read for empty last classes
    rho = torch.cat([distances[order].double(), torch.zeros(1, dtype=torch.float64, device=distances.device)])
    q1, q3 = rho[starts + counts // 4], rho[starts + 3 * counts // 4]
    reach = torch.where(counts >= 4, 1.5 * (q3 - q1), torch.inf)
    below = torch.bincount(labels[distances < (q1 - reach)[labels]], minlength=num_classes)
    above = torch.bincount(labels[distances > (q3 + reach)[labels]], minlength=num_classes)
    farthest = rho[(starts + counts - above - 1).clamp(min=0)]
    extent = torch.where(counts > 0, farthest, 0.0).to(distances.dtype)
    return extent, counts - below - above


def _check(distances: Tensor, labels: Tensor, num_classes: int) -> None:
    if distances.ndim != 1 or not distances.is_floating_point():
        raise ValueError(
            f"distances must be one floating-point number a sample, not {distances.dtype} of shape "
            f"{tuple(distances.shape)}. Pass a tensor [N]."
        )
    if labels.ndim != 1 or labels.dtype != torch.int64:
        raise ValueError(
            f"labels must be one int64 number a sample, not {labels.dtype} of shape {tuple(labels.shape)}. "
            "Pass a tensor [N] of class numbers."
        )
    if len(labels) != len(distances):
        raise ValueError(f"There are {len(distances)} distances for {len(labels)} labels. Pass one for each.")
    broken = (~distances.isfinite()).nonzero()[:, 0]
    if len(broken):
        raise ValueError(
            f"distances hold {len(broken)} values that are not finite, first in row {int(broken[0])}. Check "
            "the features that they were computed from."
        )
    if len(labels) and (labels.min() < 0 or labels.max() >= num_classes):
        raise ValueError(
            f"labels must lie within 0..{num_classes - 1}, but go from {int(labels.min())} to "
            f"{int(labels.max())}. Pass the number of classes as num_classes."
        )
