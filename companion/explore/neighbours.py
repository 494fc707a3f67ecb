"""What a user sees: the nearest images of a query in the old gallery and in one that is being backfilled."""

from __future__ import annotations

import numpy as np

from companion.explore.markup import View, heading, note, row, thumbnail, view
from companion.explore.upgrade import NO_CROSS, Upgrade
from compat_lib.evaluation.search import top_k


def neighbour_view(
    upgrade: Upgrade, query: int, share: float = 0.5, *, order: str = "random", count: int = 8
) -> View:
    """Nearest images of a query: before the upgrade, on its first day, and while the gallery is backfilled.

    Args:
        upgrade: the features and images; all other images are the gallery.
        query: row of the image that is searched.
        share: fraction of the gallery, 0 to 1, that the new model has embedded again.
        order: which images were embedded first: "random", or "farthest" from the mean of their class.
        count: images in a strip.

    Raises:
        ValueError: "there is no image 2000 ...", "share must lie between 0 and 1 ...".
    """
    if not 0 <= query < len(upgrade):
        raise ValueError(f"there is no image {query}; there are 0 to {len(upgrade) - 1}")
    label = upgrade.labels[query]
    others = int((upgrade.labels == label).sum()) - 1
    asked = thumbnail(upgrade.images[query], f"the query, {upgrade.name(label)}", upgrade.name(label))
    parts = [heading(f"Query: image {query}, {upgrade.name(label)}"), row([asked])]
    before = nearest(upgrade, query, None, count=count)
    parts += _strip(upgrade, label, "Before: old query, old gallery", before)
    said = [f"before the upgrade {_right(upgrade, label, before)}"]
    if upgrade.cross is None:
        parts.append(note(NO_CROSS))
    else:
        now = nearest(upgrade, query, 0.0, count=count)
        mixed = nearest(upgrade, query, share, order=order, count=count)
        parts += _strip(upgrade, label, "First day: new query, old gallery", now)
        parts += _strip(upgrade, label, f"Later: new query, {share:.0%} of the gallery embedded again", mixed)
        said += [f"on the first day {_right(upgrade, label, now)}"]
        said += [
            f"with {share:.0%} backfilled {_right(upgrade, label, mixed)} ({mixed[2].sum()} new entries)"
        ]
    text = (
        f"{upgrade.title}: right images among the first {min(count, len(upgrade) - 1)}: {', '.join(said)}. "
        f"The gallery holds {others} other images of {upgrade.name(label)}."
    )
    return view(parts, text)


def nearest(
    upgrade: Upgrade, query: int, share: float | None, *, order: str = "random", count: int = 8
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The nearest gallery images of one query, itself left out.

    Args:
        upgrade, query, order, count: as in `neighbour_view`.
        share: fraction of the gallery that is new; None for the old query in the old gallery.

    Returns:
        cosines float [k], falling; rows int [k]; and bool [k], which of them are new entries.

    >>> picture = np.zeros((3, 1, 8, 8), np.uint8)
    >>> toy = Upgrade([[1, 0], [1, 1], [0, 1]], [[1, 0], [0, 1], [1, 1]], [0, 0, 1], picture)
    >>> [nearest(toy, 0, share)[1].tolist() for share in (None, 0.0, 1.0)]
    [[1, 2], [1, 2], [2, 1]]
    """
    size = len(upgrade)
    if share is not None and not 0 <= share <= 1:
        raise ValueError(f"share must lie between 0 and 1, not {share}")
    fresh = np.zeros(size, bool)
    if share is not None:
        fresh[upgrade.order(order)[: round(share * size)]] = True
    asked = slice(query, query + 1)
    # An entry that is backfilled meets the query as it is, the others in the forms of the cross-test.
    sides = [(upgrade.old[asked], upgrade.old, ~fresh)] if share is None else []
    if share is not None:
        sides = [
            (upgrade.cross[0][asked], upgrade.cross[1], ~fresh),
            (upgrade.new[asked], upgrade.new, fresh),
        ]
    scores, rows = [], []
    for features, gallery, kept in sides:
        members = np.flatnonzero(kept & (np.arange(size) != query))
        if len(members):
            best, places = top_k(features, gallery[members], min(count, len(members)))
            scores.append(best[0])
            rows.append(members[places[0]])
    scores, rows = np.concatenate(scores), np.concatenate(rows)
    first = np.lexsort((rows, -scores))[:count]
    return scores[first], rows[first], fresh[rows[first]]


def _strip(upgrade: Upgrade, label: int, title: str, found: tuple[np.ndarray, ...]) -> list[str]:
    from companion.plots.style import NEW, OLD

    figures = []
    for score, other, fresh in zip(*found, strict=True):
        right = upgrade.labels[other] == label
        entry, name = ("new", "old")[not fresh], upgrade.name(upgrade.labels[other])
        alt = f"{name}, {'right' if right else 'wrong'}, {entry} entry, cosine {score:.2f}"
        caption = f"{'✓' if right else '✗'} {score:.2f}\n{entry} entry"
        kind, colour = ("right" if right else "wrong"), (NEW if fresh else OLD)
        figures.append(thumbnail(upgrade.images[other], alt, caption, kind, colour))
    return [heading(title), row(figures)]


def _right(upgrade: Upgrade, label: int, found: tuple[np.ndarray, ...]) -> int:
    return int((upgrade.labels[found[1]] == label).sum())
