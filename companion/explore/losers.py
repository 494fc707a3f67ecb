"""Who got worse: every identity's gain or loss, and the queries whose first answer changed."""

from __future__ import annotations

import numpy as np

from companion.explore.charts import Chart
from companion.explore.markup import (
    RIGHT,
    WRONG,
    View,
    heading,
    note,
    row,
    sentence,
    thumbnail,
    trio,
    view,
)
from companion.explore.upgrade import NO_CROSS, Upgrade

SIDES = ("lose", "gain")


def change_view(upgrade: Upgrade, who: str = "lose", count: int = 3, *, each: int = 2) -> View:
    """The change of every identity on the day of the swap, and the queries behind the greatest ones.

    Before: old queries in the old gallery; now: new queries in the same, untouched gallery.

    Args:
        upgrade: the features and images.
        who: "lose" or "gain".
        count: identities whose queries are shown, those that change most first.
        each: queries of each identity.

    Raises:
        ValueError: "who must be lose or gain ...".
    """
    if who not in SIDES:
        raise ValueError(f"who must be lose or gain, not {who!r}")
    if upgrade.cross is None:
        return sentence(NO_CROSS)
    changes = upgrade.changes
    table = changes.by_identity
    sign = -1 if who == "lose" else 1
    places = np.argsort(sign * -table.difference, kind="stable")[:count]
    places = places[sign * table.difference[places] > 0]
    parts = [
        _chart(table.difference, places).html(),
        heading(f"Those that {who} most" if len(places) else f"No identity {who}s"),
    ]
    for place in places:
        parts += _identity(upgrade, int(place), who, each)
    return view(parts, _text(upgrade))


def flips(upgrade: Upgrade, label: int | None = None, *, who: str = "lose") -> np.ndarray:
    """Queries whose first answer turned from right to wrong ("lose") or the other way ("gain"), rows int [n].

    Args:
        upgrade: the features.
        label: of one identity; None: of all, those of the identities that change most first.
        who: "lose" or "gain".

    >>> picture = np.zeros((4, 1, 8, 8), np.uint8)
    >>> old = [[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]
    >>> turned = [[0.0, 1.0], *old[1:]]  # the new model puts image 0 beside 2 and 3
    >>> flips(Upgrade(old, turned, [0, 0, 1, 1], picture)).tolist()
    [0]
    """
    if upgrade.cross is None:  # nothing was compared
        return np.zeros(0, np.int64)
    found = np.flatnonzero(upgrade.outcome == (1 if who == "lose" else 2))
    if label is not None:
        return found[upgrade.labels[found] == label]
    table = upgrade.changes.by_identity
    sign = 1 if who == "lose" else -1
    rank = np.argsort(np.argsort(sign * table.difference, kind="stable"), kind="stable")
    rank_of = dict(zip(table.identities.tolist(), rank.tolist(), strict=True))
    keys = [rank_of.get(int(label), len(rank)) for label in upgrade.labels[found]]
    return found[np.argsort(keys, kind="stable")]


def _chart(difference: np.ndarray, marked: np.ndarray) -> Chart:
    low, high = min(difference.min(), -0.05), max(difference.max(), 0.05)
    x = np.arange(1, len(difference) + 1)
    chart = Chart(
        (0, len(x) + 1),
        (1.12 * low, 1.12 * high),
        size=(760, 230),
        xlabel="identities, from the greatest loss to the greatest gain",
        ylabel="mean AP now - before",
        alt=f"Change of the mean average precision of {len(x)} identities",
    )
    width = max(1.0, min(12.0, 560 / len(x)))
    for colour, side in ((WRONG, difference < 0), (RIGHT, difference > 0)):
        chart.sticks(x[side], difference[side], colour, width)
    return chart.rule(y=0).marks(x[marked], difference[marked])


def _identity(upgrade: Upgrade, place: int, who: str, each: int) -> list[str]:
    table = upgrade.changes.by_identity
    label = int(table.identities[place])
    before, now = table.precision_before[place], table.precision_after[place]
    rows = flips(upgrade, label, who=who)
    turned = "from right to wrong" if who == "lose" else "from wrong to right"
    parts = [
        heading(
            f"{upgrade.name(label)}: mean AP {before:.2f} → {now:.2f}; {len(rows)} of {table.queries[place]} "
            f"first answers turn {turned}"
        )
    ]
    if not len(rows):
        parts.append(note("No first answer changed: right images moved further down the list."))
    figures = [trio(_three(upgrade, int(query))) for query in rows[:each]]
    return [*parts, row(figures)] if figures else parts


def _three(upgrade: Upgrade, query: int) -> list[str]:
    label = upgrade.labels[query]
    asked = thumbnail(upgrade.images[query], f"query, {upgrade.name(label)}", f"query\nimage {query}")
    figures = [asked]
    for when, (scores, rows) in upgrade.first.items():
        other = rows[query]
        right = upgrade.labels[other] == label
        name = upgrade.name(upgrade.labels[other])
        alt = f"first answer {when}: {name}, {'right' if right else 'wrong'}, cosine {scores[query]:.2f}"
        caption = f"{when} {'✓' if right else '✗'}\n{scores[query]:.2f}"
        figures.append(thumbnail(upgrade.images[other], alt, caption, "right" if right else "wrong"))
    return figures


def _text(upgrade: Upgrade) -> str:
    changes = upgrade.changes
    lost, won = changes.forgetting, changes.gain
    means = [f" (mean AP {x:+.3f})" if x else "" for x in (-(lost or 0.0), won or 0.0)]
    return (
        f"{upgrade.title}: of {len(changes.by_identity.identities)} identities {changes.losing:.0%} lose"
        f"{means[0]} and {changes.gaining:.0%} gain{means[1]}. Of all queries {changes.negative_flips:.1%} "
        "had a right first answer and have a wrong one now; "
        f"{changes.positive_flips:.1%} went the other way."
    )
