"""Which entries a gallery has, who made each, and where its feature lies: the segments, read in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SHIFT = 32  # a key is segment number x 2**32 + row


@dataclass(frozen=True)
class Entries:
    """The entries at one moment, in the order of their ids; never changed, only replaced.

    Args:
        ids: int64 [N], rising.
        owners: int32 [N], numbers of the models that made the features.
        keys: int64 [N], where each feature lies; no two features ever have the same.
    """

    ids: np.ndarray
    owners: np.ndarray
    keys: np.ndarray

    @classmethod
    def none(cls) -> Entries:
        """The entries of an empty gallery."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, ids: np.ndarray) -> np.ndarray:
        """The places of these ids, int64 [n]; -1 for an id that is not there."""
        return places(self.ids, ids)

    def of(self, owner: int) -> tuple[np.ndarray, np.ndarray]:
        """Keys (rising) and ids of one model's entries, int64 [n] each."""
        mine = self.owners == owner
        keys, ids = self.keys[mine], self.ids[mine]
        order = np.argsort(keys, kind="stable")
        return keys[order], ids[order]

    def after(self, segments: Sequence[tuple[int, int, np.ndarray]]) -> Entries:
        """The entries after further segments: the last word on each id counts.

        Args:
            segments: (segment number, model number or -1 for removal, ids int64 [n]) in the order of writing.

        >>> first = Entries.none().after([(0, 0, np.array([7, 3])), (1, 0, np.array([5]))])
        >>> later = first.after([(2, 1, np.array([3])), (3, -1, np.array([5]))])
        >>> later.ids.tolist(), later.owners.tolist()
        ([3, 7], [1, 0])
        """
        ids, owners, keys = [self.ids], [self.owners], [self.keys]
        for number, owner, given in segments:
            ids.append(given)
            owners.append(np.full(len(given), owner, np.int32))
            keys.append((number << SHIFT) + np.arange(len(given)))
        all_ids, all_owners, all_keys = (np.concatenate(parts) for parts in (ids, owners, keys))
        order = np.argsort(all_ids, kind="stable")
        ordered = all_ids[order]
        last = order[np.append(ordered[1:] != ordered[:-1], True)] if len(order) else order
        kept = last[all_owners[last] >= 0]
        return Entries(all_ids[kept], all_owners[kept], all_keys[kept])


def places(rising: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The place of each wanted value in a rising array, int64 [n]; -1 where it is not.

    >>> places(np.array([2, 5, 9]), np.array([9, 3, 2])).tolist()
    [2, -1, 0]
    """
    if not len(rising):
        return np.full(len(wanted), -1)
    found = np.searchsorted(rising, wanted).clip(max=len(rising) - 1)
    return np.where(rising[found] == wanted, found, -1)
