"""What a gallery gives back: hits, merged where an image has two features and compared; and its contents."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from compat_lib.deploy.gallery_database import as_ids, id_array, in_words


class Hits(NamedTuple):
    """What a search found, best first; where a query has fewer hits: id -1 or "", score -inf, model ""."""

    ids: np.ndarray  # [Nq, k] int64, or text
    scores: np.ndarray  # float32 [Nq, k]: cosines, or what the scales made of them
    models: np.ndarray  # text [Nq, k]: who made the entry


@dataclass(frozen=True)
class Contents:
    """What a gallery holds, as `Gallery.verify` has read it."""

    entries: dict[str, int]  # model -> entries
    size: int  # bytes on disk
    free: int  # bytes of the file that hold nothing; later entries fill them, or `compact` gives them back

    def __str__(self) -> str:
        return (
            f"{in_words(self.entries)}, sound; {self.size / 1e6:.1f} MB, of which {self.free / 1e6:.1f} free"
        )


def best_of(scores: np.ndarray, keys: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k highest scores of each row, best first, and their keys."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, best, axis=1), np.take_along_axis(keys, best, axis=1)


def each_once(
    scores: np.ndarray, keys: np.ndarray, owners: Mapping[int, tuple[int | str, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and keys best first, in which an image that has two features counts by its best score only."""
    scores, keys = best_of(scores, keys, keys.shape[1])
    for row, some in enumerate(keys.tolist()):
        met: set[int | str] = set()
        for place, key in enumerate(some):
            if key >= 0 and owners[key][0] in met:
                scores[row, place], keys[row, place] = -np.inf, -1
            elif key >= 0:
                met.add(owners[key][0])
    return scores, keys


def as_hits(
    scores: np.ndarray, keys: np.ndarray, owners: Mapping[int, tuple[int | str, int]], models: Sequence[str]
) -> Hits:
    """Hits with ids and names in place of keys and numbers; keys without an owner are no hits."""
    once, back = np.unique(keys, return_inverse=True)
    text = any(isinstance(one, str) for one, _ in owners.values())
    found = [owners.get(key, ("" if text else -1, -1)) for key in once.tolist()]
    ids = np.array([one for one, _ in found], object if text else np.int64)
    makers = np.array([*models, ""], object)[[code for _, code in found]]
    return Hits(ids[back].reshape(keys.shape), scores, makers[back].reshape(keys.shape))


def most_found(found: Any, ids: Any) -> np.ndarray:
    """The ids in the order of how often they were found, most first; ties in the order given.

    Counts of one week serve the next only as far as users ask for the same things.

    Args:
        found: ids of earlier hits of any shape, such as `Hits.ids`; those not asked for are left out.
        ids: [n], what to order.

    >>> most_found([[7, 5], [7, -1]], [5, 6, 7]).tolist()
    [7, 5, 6]
    """
    times = collections.Counter(np.asarray(found).ravel().tolist())
    return id_array(sorted(as_ids(ids).tolist(), key=lambda one: -times[one]))


def overlap(before: Hits, after: Hits) -> np.ndarray:
    """The share of answers to each query that two searches have in common, float64 [Nq], 0..1.

    On logged queries this shows what a swap would change before it is made: low shares are answers to look
    at, and not yet wrong ones.

    Args:
        before, after: answers to the same queries with the same k, such as of ``search({"old": ...}, k)`` and
            ``search({"new": ...}, k)`` while new features wait beside the entries.

    >>> asked = [[1, 2, 3]], [[0.9, 0.8, 0.7]], [["old"] * 3]
    >>> before, after = Hits(*map(np.array, asked)), Hits(np.array([[3, 1, 9]]), *map(np.array, asked[1:]))
    >>> overlap(before, after).round(2).tolist()
    [0.67]
    """
    if before.ids.shape != after.ids.shape:
        raise ValueError(
            f"answers of shapes {before.ids.shape} and {after.ids.shape}; give equal queries and k"
        )
    sides = zip(
        *(np.where(hits.models == "", None, hits.ids).tolist() for hits in (before, after)), strict=True
    )
    shares = [len(set(old) & set(new) - {None}) / max(1, len(set(old) - {None})) for old, new in sides]
    return np.array(shares, np.float64)
