"""The four constraints of backward compatibility: how many pairs satisfy each, and by how much."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from companion.explore.charts import Chart, side_by_side
from companion.explore.markup import RIGHT, WRONG, View, sentence, table, view
from companion.explore.upgrade import NO_CROSS, Upgrade
from compat_lib.evaluation.constraints import ROUNDING, STATEMENTS

QUERIES = 150  # more of them do not change a histogram that one can read
BINS = 60  # an even number: zero is an edge
SHORT = (
    "1  same: d(new, old) ≤ d(old, old)",
    "2  different: d(new, old) ≥ d(old, old)",
    "3  same: d(new, new) ≤ d(new, old)",
    "4  different: d(new, new) ≥ d(new, old)",
)


def constraint_view(upgrade: Upgrade, identities: int | Sequence[int] | None = None) -> View:
    """By how much the pairs of some identities satisfy or break each of MixBCT's four constraints.

    Args:
        upgrade: the features.
        identities: whose images are the queries of the pairs, a number or labels as in `map_view`; None:
            all. Of more than QUERIES images, that many are taken, evenly spaced. The other side of a pair is
            any image.
    """
    if upgrade.cross is None:
        return sentence(NO_CROSS)
    labels = upgrade.identities if identities is None else upgrade.picked(identities)
    rows = np.flatnonzero(np.isin(upgrade.labels, labels))
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(QUERIES, len(rows))).round().astype(int))]
    slacks = slack(upgrade, rows)
    shares = [float((values >= -ROUNDING).mean()) if len(values) else None for values in slacks]
    charts = [_chart(*one) for one in zip(slacks, shares, SHORT, strict=True)]
    lines = []
    for statement, values, share, whole in zip(STATEMENTS, slacks, shares, upgrade.held.share, strict=True):
        mean = f"{values.mean():+.3f}" if len(values) else "no pair"
        lines.append([statement, _percent(share), _percent(whole), mean])
    header = ("constraint", "these pairs", "all pairs", "mean slack, these")
    who = upgrade.name(int(labels[0])) if len(labels) == 1 else f"{len(labels)} identities"
    text = (
        f"{upgrade.title}: pairs of {len(rows)} images of {who} with all {len(upgrade)} images. Half of the "
        "pairs would satisfy a constraint by chance."
    )
    return view([side_by_side(charts), table(header, lines)], text)


def slack(upgrade: Upgrade, rows: np.ndarray) -> list[np.ndarray]:
    """The slack of every pair of these queries with another image, one array for each constraint.

    Source: MixBCT (arXiv 2308.06948), in cosine distance as in `compat_lib.evaluation.constraints`, which
    gives the shares of all pairs; here are the numbers behind them.

    Args:
        upgrade: the features.
        rows: int [n], the images i of the pairs i, j; j is any other image.

    Returns:
        four float arrays; positive is satisfied. 1 and 3 hold the pairs of one identity, 2 and 4 the others.
    """
    query, gallery = upgrade.cross
    sides = ((upgrade.old, upgrade.old), (query, gallery), (upgrade.new, upgrade.new))
    before, across, after = (a[rows] @ b.T for a, b in sides)
    same = upgrade.labels[rows][:, None] == upgrade.labels[None]
    different = ~same
    same[np.arange(len(rows)), rows] = False  # no image is compared with itself
    return [
        (across - before)[same],
        (before - across)[different],
        (after - across)[same],
        (across - after)[different],
    ]


def _chart(values: np.ndarray, share: float | None, title: str) -> Chart:
    wide = max(0.05, float(np.abs(values).max(initial=0.0)))
    edges = np.linspace(-wide, wide, BINS + 1)
    place = np.clip(((values + wide) * (BINS / (2 * wide))).astype(int), 0, BINS - 1)
    heights = np.bincount(place, minlength=BINS) / max(len(values), 1)
    chart = Chart(
        (-wide, wide),
        (0, max(1.05 * heights.max(), 1e-3)),
        size=(400, 190),
        title=f"{title}: {_percent(share)} hold",
        xlabel="slack in cosine: below 0 broken, above satisfied",
        ylabel="share of pairs",
    )
    half = BINS // 2
    chart.area(edges[: half + 1], heights[:half], WRONG, 0.7)
    return chart.area(edges[half:], heights[half:], RIGHT, 0.7).rule(x=0)


def _percent(share: float | None) -> str:
    return "no pair" if share is None else f"{share:.1%}"
