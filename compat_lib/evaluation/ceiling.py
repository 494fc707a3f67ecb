"""What the old gallery could give a query that knows whom it shows: a bound to hold new/old against."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from compat_lib.evaluation.compatibility import Queries, compare
from compat_lib.evaluation.records import Records
from compat_lib.evaluation.tar import FARS

SIZE = 5  # images behind a query
ADAPTER = "mean-of-five"


def mean_queries(features: Tensor, labels: Tensor, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries that are the mean of SIZE old features of one identity each.

    Every identity's images are dealt into groups at random, each group one query; images that are left over
    ask nothing, nor do identities of SIZE images or fewer.

    Args:
        features: float [N, d], of one model; rows are normalised before they are averaged.
        labels: int64 [N].
        seed: of the groups.

    Returns:
        means float [Q, d], their labels int64 [Q], and the group of each row, int64 [N], Q and above for
        those without one.
    """
    rows = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    rows = rows[labels[rows].argsort(stable=True)]  # identity after identity, in random order inside
    sizes = torch.bincount(labels)
    # inside its identity
    place = torch.arange(len(rows)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    groups = torch.where(sizes > SIZE, sizes // SIZE, 0)
    grouped = place < (SIZE * groups).repeat_interleave(sizes)
    number = (groups.cumsum(0) - groups).repeat_interleave(sizes) + place // SIZE
    asked = rows[grouped].view(-1, SIZE)
    group = torch.empty_like(rows)
    group[rows] = torch.where(grouped, number, len(asked) + torch.arange(len(rows)))
    return F.normalize(features, dim=1)[asked].mean(dim=1), labels[asked[:, 0]], group


def ceiling(protocol: str, old: Tensor, labels: Tensor, *, draws: int = 200) -> Records:
    """Return old/old with the adapter "mean-of-five": `mean_queries` ask all images but their own group.

    Not a method, since it needs to know the identity of the query: the old features themselves allow
    so much, and what new/old lacks to it is not the old gallery's fault. Source: ours.

    Args:
        protocol: "pairs", or "leave-one-out", which names rank-k top-k; others have no such record.
        old: float [N, d] old features of the test images.
        labels: int64 [N] of them.
        draws: bootstrap draws over identities.
    """
    means, asked, group = mean_queries(old, labels)
    if protocol not in ("pairs", "leave-one-out") or not len(means):
        return Records()
    queries = Queries(None, means, asked, torch.arange(len(means)))
    fars = FARS if protocol == "pairs" else ()
    found = compare(None, old, labels, queries=queries, ids=group, fars=fars, draws=draws).records
    found = found.select(query="new", gallery="new").changed(query="old", gallery="old", adapter=ADAPTER)
    if protocol == "pairs":
        return found
    return Records(replace(one, metric=one.metric.replace("rank", "top")) for one in found)
