"""Backfill: a gallery that is embedded again image by image, in one order or another, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compat_lib.evaluation.backfill_ranking import rank_steps
from compat_lib.evaluation.compatibility import RANKS
from compat_lib.evaluation.inputs import fractions, unit_rows
from compat_lib.evaluation.orders import ORDERS, backfill_order
from compat_lib.evaluation.paired import PairedComparison, paired_scores
from compat_lib.evaluation.pairs import PairScores
from compat_lib.evaluation.records import Record, Records, shown
from compat_lib.evaluation.tar import verify_steps

SHARES = tuple(i / 10 for i in range(11))
QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)  # the shares at which the published code of hot refresh measures

Point = dict[str, float | None]  # "map", "rank1", "tar@far=1e-2", ...; None where not measurable


@dataclass(frozen=True)
class BackfillCurve:
    """Metrics with a gallery of which a growing share was embedded again."""

    shares: tuple[float, ...]
    points: tuple[Point, ...]  # one for each share
    order: str = "random"
    # float64 [shares, Nq], nan for a query without a right item
    average_precision: np.ndarray | None = field(default=None, repr=False, compare=False)

    @property
    def records(self) -> Records:
        """Every metric at every share, and the area of each, "area/map". A curve of one share has no area."""
        found = [
            Record("new", "mixed", name, value, order=self.order, share=share)
            for share, point in zip(self.shares, self.points, strict=True)
            for name, value in point.items()
        ]
        if len(set(self.shares)) > 1:
            found += [
                Record("new", "mixed", f"area/{name}", self.area(name), order=self.order)
                for name in self.points[0]
            ]
        return Records(found)

    def values(self, name: str) -> np.ndarray:
        """Return one metric for every share, float64; nan where not measurable."""
        return np.array([point[name] for point in self.points], np.float64)

    def area(self, name: str) -> float | None:
        """Return the mean height of a metric's curve, by trapezia, or None where that is not measurable.

        >>> points = ({"map": 0.4}, {"map": 0.5}, {"map": 0.8})
        >>> round(BackfillCurve((0.0, 0.5, 1.0), points).area("map"), 3)
        0.55
        """
        if len(set(self.shares)) < 2:
            return None
        area = float(_mean_height(self.shares, self.values(name)))
        return area if np.isfinite(area) else None

    @property
    def area_by_query(self) -> np.ndarray:
        """The area under every query's own average precision, float64 [Nq]; their mean is area("map")."""
        return _mean_height(self.shares, self.average_precision)


@dataclass(frozen=True)
class BackfillOrders:
    """The curves of several orders, and how each differs from the random one."""

    curves: dict[str, BackfillCurve]
    over_random: dict[str, PairedComparison]  # order -> area under its mAP curve minus the random order's

    @property
    def records(self) -> Records:
        """Those of the curves, and "area_over_random/map" of every order but the random one."""
        found = [one for curve in self.curves.values() for one in curve.records]
        for order, compared in self.over_random.items():
            numbers = [None if np.isnan(x) else x for x in (compared.value, compared.low, compared.high)]
            found.append(Record("new", "mixed", "area_over_random/map", *numbers, order=order))
        return Records(found)

    def summary(self) -> str:
        """Return one line for each order: does it help or hurt?"""
        lines = []
        for order, found in self.over_random.items():
            said = {"better": "helps", "worse": "hurts"}.get(found.verdict, "helps or hurts: not decidable")
            over = shown(found.value, found.low, found.high, percent=False, digits=4, signed=True)
            area = self.curves[order].area("map")
            lines.append(
                f"order {order}: {said}; mean mAP while backfilling {area:.4f}, {over} over the random order"
            )
        return "\n".join(lines)


def mixed_gallery_curve(
    old: Any,
    new: Any,
    labels: Any,
    *,
    shares: Sequence[float] = SHARES,
    order: str | Sequence[int] = "random",
    certainty: Any = None,
    cross: tuple[Any, Any] | None = None,
    seed: int = 0,
    fars: Sequence[float] = (1e-2,),
) -> BackfillCurve:
    """Return the metrics while the gallery is embedded again image by image.

    Source: backfilling in the order of uncertainty as in hot-refresh model upgrades (RACT, arXiv 2201.09724)
    and FastFill (arXiv 2303.04766); here image by image instead of by whole batches. Queries are always new.
    The gallery's images are the queries and every ordered pair of two different images counts: share 0 is
    new/old and share 1 is new/new. The images backfilled at a share include those of every smaller share.

    Args:
        old, new: [N, D] features of the same gallery images.
        shares: 0 to 1, of the gallery that is new; rounded to whole images.
        order: which images come first. "random"; "uncertain": the least certain; "farthest": the old feature
            farthest from the mean of its class; or all row numbers 0..N-1. Ties are in random order.
        certainty: float [N], for "uncertain": higher is more certain, such as `margin(logits)`.
        cross: (query form [N, d], gallery form [N, d]) in which a new query meets an old gallery item, when
            that is not (query, old) themselves. An item that is backfilled meets the query as it is.
        seed: of the random order, and of ties.
        fars: () measures retrieval only, in about half of the time.

    >>> old = [[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.8, 0.6]]
    >>> new = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    >>> curve = mixed_gallery_curve(old, new, [0, 0, 1, 1], shares=(0, 0.5, 1), order=[1, 3, 0, 2], fars=())
    >>> curve.values("rank1").tolist()
    [0.5, 1.0, 1.0]
    """
    sides = all_pairs(*mixed_forms(old, new, None, cross), labels)
    rows = backfill_order(old, labels, order, certainty=certainty, seed=seed)
    return curve_of(sides, rows, shares, fars, order if isinstance(order, str) else "given")


def all_pairs(queries: Tensor, before: Tensor, after: Tensor, labels: Any) -> tuple[PairScores, PairScores]:
    """Return the ordered pairs of two different images, with the gallery as it is and as it will be.

    All are unit rows [N, D] of the same images.
    """
    ids = dict.fromkeys(("query_ids", "gallery_ids"), np.arange(len(queries)))
    return tuple(PairScores(queries, labels, gallery, labels, **ids) for gallery in (before, after))


def curve_of(
    sides: tuple[PairScores, PairScores],
    rows: np.ndarray,
    shares: Sequence[float],
    fars: Sequence[float],
    order: str = "random",
) -> BackfillCurve:
    """Return the curve of a gallery, of `all_pairs`, whose rows become new in this order, int64 [N]."""
    shares, fars = tuple(map(float, shares)), fractions(fars, "a FAR")
    if not all(0 <= share <= 1 for share in shares):
        raise ValueError(f"the shares are {shares}; give fractions of the gallery from 0 to 1")
    # How many rows are new in each gallery, ascending; a row becomes new in the first gallery with more new
    # rows than come before it.
    levels, at = np.unique([round(share * len(rows)) for share in shares], return_inverse=True)
    steps = np.searchsorted(levels, np.argsort(rows), side="right"), len(levels)
    ranked = rank_steps(*sides, *steps, RANKS)
    points = [one.values for one in ranked]
    if fars:
        verified = verify_steps(*sides, *steps, fars)
        points = [point | one.values for point, one in zip(points, verified, strict=True)]
    precision = np.stack([ranked[k].average_precision for k in at])
    return BackfillCurve(shares, tuple(points[k] for k in at), order, precision)


def backfill_orders(
    old: Any,
    new: Any,
    labels: Any,
    *,
    certainty: Any = None,
    orders: Mapping[str, Sequence[int]] | None = None,
    shares: Sequence[float] = SHARES,
    cross: tuple[Any, Any] | None = None,
    fars: Sequence[float] = (1e-2,),
    draws: int = 200,
    seed: int = 0,
) -> BackfillOrders:
    """Return the curves of every order, and the area under each one's mAP minus that of the random order.

    The difference is paired by query; its interval is a bootstrap over the identities. `certainty`
    is for the order "uncertain", left out without it; `orders` are further ones by name. The rest as in
    `mixed_gallery_curve`.
    """
    chosen: dict[str, Any] = {name: name for name in ORDERS if name != "uncertain" or certainty is not None}
    chosen |= dict(orders or {})
    sides = all_pairs(*mixed_forms(old, new, None, cross), labels)
    curves = {}
    for name, order in chosen.items():
        rows = backfill_order(old, labels, order, certainty=certainty, seed=seed)
        curves[name] = curve_of(sides, rows, shares, fars, name)
    compared = {}
    for name, curve in curves.items():
        if name != "random" and len(set(curve.shares)) > 1:
            areas = curve.area_by_query, curves["random"].area_by_query
            compared[name] = paired_scores(*areas, labels, draws=draws, seed=seed)
    return BackfillOrders(curves, compared)


def mixed_forms(
    old: Any, new: Any, query: Any, cross: tuple[Any, Any] | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, and the gallery's rows before and after backfilling, of one width.

    Their products are the cosines in which each kind of row meets a new query; see `mixed_gallery_curve`.
    """
    after = unit_rows(new, "new")
    asked = after if query is None else unit_rows(query, "query")
    before = unit_rows(old if cross is None else cross[1], "old").to(after.device)
    crossed = asked if cross is None else unit_rows(cross[0], "cross query").to(after.device)
    images = [len(before) == len(after), len(crossed) == len(asked)]
    widths = [crossed.shape[1] == before.shape[1], asked.shape[1] == after.shape[1]]
    if not all(images + widths):
        raise ValueError(
            f"old queries and gallery have shapes {tuple(crossed.shape)} and {tuple(before.shape)}, new ones "
            f"{tuple(asked.shape)} and {tuple(after.shape)}; a mixed gallery needs the same images and, for "
            "each, equal widths; cross=(query, gallery) gives the forms that meet in the old gallery"
        )
    exact = torch.promote_types(before.dtype, after.dtype)  # codes on one side only shall still tie
    before, after = before.to(exact), after.to(exact)
    if crossed.shape == asked.shape and torch.equal(crossed, asked):
        return asked, before, after
    # A query carries both of its forms side by side, a gallery item the one that applies and zeros.
    return (
        torch.cat([crossed, asked], 1),
        torch.cat([before, torch.zeros_like(after)], 1),
        torch.cat([torch.zeros_like(before), after], 1),
    )


def _mean_height(shares: Sequence[float], heights: np.ndarray) -> np.ndarray:
    # Along the first axis.
    place = np.argsort(shares, kind="stable")
    x = np.asarray(shares, np.float64)[place]
    return np.trapezoid(heights[place], x, axis=0) / (x[-1] - x[0])
