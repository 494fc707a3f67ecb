"""What a gallery takes from its user, rows of features, ids and numbers, and what it answers."""

import collections
import json
import unicodedata
import uuid
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np

from compat_lib.names import checked_count

SCALE_ROWS = 2000  # most features of a side that a scale is taken from, evenly spaced
Owners = Mapping[int, tuple[int | str, int]]  # key of a feature -> id of the entry, number of the model
BLOCK = 16_384  # rows that are read, scaled and written at a time
UNSIGNED = (
    "unsigned numbers, taken as they are: subtract the zero point first if they are quantised, unpack them "
    "with numpy.unpackbits where they are packed bits, and view 16 bits as the half numbers that they may be"
)


def as_array(values: Any) -> np.ndarray:
    """NumPy's array, with NaN for what is masked; torch, which may hand over tensors, is not imported."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if str(values.dtype).startswith(("torch.bfloat16", "torch.float8")):  # NumPy has no such types
            values = values.float()
    if np.ma.isMA(values) and np.ma.is_masked(values):  # pandas' arrays have a mask
        values = values.astype(np.float64).filled(np.nan)
    return np.asarray(values)


def as_rows(features: Any, width: int | None, who: str) -> np.ndarray:
    """A NumPy table [n, width] of a list, an array or a torch tensor."""
    array = as_array(features)
    array = np.array(array.tolist()) if array.dtype == object else array  # such as pandas' Float64
    if array.ndim != 2 or array.dtype.kind not in "fiu" or width not in (None, array.shape[1]):
        there = f"the {who} have shape {array.shape} and type {array.dtype}"
        raise ValueError(f"{there}; give real numbers [n, {width or 'd'}]")
    if array.dtype.kind == "u":
        warnings.warn(f"the {who} are {UNSIGNED}", stacklevel=3)
        array = array.astype(np.result_type(array, np.int8))  # of which nothing is said again
    return array


@np.errstate(under="ignore")  # what is too small becomes zero, also where the caller raises
def unit_rows(array: np.ndarray) -> np.ndarray:
    """Rows of unit length, float32 [n, d]; NaN where a row has no direction: not finite, or all zero."""
    unit = np.full(array.shape, np.nan, np.float32)
    for start in range(0, len(array), BLOCK):  # in double precision, a block at a time
        block = array[start : start + BLOCK].astype(np.float64)
        largest = np.abs(block).max(axis=1, keepdims=True, initial=0)  # whose square may leave float64
        good = np.isfinite(largest[:, 0]) & (largest[:, 0] > 0)
        block = block[good] / largest[good]
        unit[start : start + BLOCK][good] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return unit


def checked_rows(features: Any, width: int | None, who: str) -> np.ndarray:
    """Features as float32 [n, width] of unit length; "2 of the queries of 'old-2024' hold NaN, ..."."""
    unit = unit_rows(as_rows(features, width, who))
    if (broken := np.isnan(unit).any(axis=1)).any():
        raise ValueError(
            f"{broken.sum()} of the {who} hold NaN, infinite values or nothing but zeros (the first: row "
            f"{broken.argmax()}); look for a diverged model or a corrupt image and leave these rows out"
        )
    return unit


def score_scale(queries: Any, entries: Any) -> tuple[float, float]:
    """Where the scores of strangers lie: their median, and how far above it their highest hundredth begins.

    Scores of new queries with new and with old entries have different distributions, so that in a mixed
    gallery one raw score means two things. On the scale (score - centre) / spread, 0 is a typical stranger
    and 1 is passed by one random pair in a hundred, whoever made the entry. No label is needed as long as
    random pairs are strangers. Before any entry is backfilled, take new features of other images in place of
    new entries.

    Args:
        queries, entries: [n, d], [m, d] real numbers, scaled to unit length here; features of different
            images, of which at most 2,000 evenly spaced ones of each side are used.

    Returns:
        (centre, spread) for `Gallery.search(scales=...)`; a ValueError for too few or equal pairs.

    >>> angles = np.linspace(0, np.pi, 101)
    >>> centre, spread = score_scale([[1.0, 0.0]], np.stack([np.cos(angles), np.sin(angles)], 1))
    >>> abs(round(centre, 3)), round(spread, 4)  # the second highest of 101 cosines is cos(pi / 100)
    (0.0, 0.9995)
    """
    asking = as_rows(queries, None, "features to compare")
    asked = as_rows(entries, asking.shape[1], "features to compare")
    thinned = (side[:: max(1, -(-len(side) // SCALE_ROWS))] for side in (asking, asked))
    asking, asked = (checked_rows(side, None, "features to compare") for side in thinned)
    scores = (asking @ asked.T).ravel()
    centre, high = np.quantile(scores, [0.5, 0.99]) if len(scores) else (0.0, 0.0)
    if len(scores) < 100 or high <= centre:
        raise ValueError(
            f"{len(scores)} pairs do not show which score one in 100 passes; give more features, of other "
            "images"
        )
    return float(centre), float(high - centre)


def as_ids(values: Any, repeats: bool = False) -> np.ndarray:
    """Ids [n]: int64, or text in NFC, in which two spellings of one name are equal."""
    one_by_one = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(one_by_one, str | bytes) or not isinstance(one_by_one, Iterable):
        raise ValueError(f"{values!r} is no list of ids; give a list, also of one: [{values!r}]")
    values = [one.item() if hasattr(one, "item") else one for one in one_by_one]  # NumPy's or torch's numbers
    if all(isinstance(one, str | PurePath | uuid.UUID) for one in values):
        values = [nfc(str(one)) for one in values]
    kind = str if values and isinstance(values[0], str) else int
    for one in values:
        if kind is str:
            good = isinstance(one, str) and one and one == one.encode("utf-8", "ignore").decode()
            good = good and "\0" not in one  # where SQLite's JSON ends
        else:
            good = isinstance(one, int) and not isinstance(one, bool) and 0 <= one < 2**63
        if not good:
            raise ValueError(
                f"the id {one!r} is neither text nor a whole number of at least 0 and below 2**63; give a "
                "list of one kind, one id for each entry"
            )
    if not repeats and len(set(values)) < len(values):
        one, times = collections.Counter(values).most_common(1)[0]
        raise ValueError(f"the id {one!r} was given {times} times; give each id once")
    return id_array(values)


def id_array(values: list) -> np.ndarray:
    return np.array(values, object if values and isinstance(values[0], str) else np.int64)


def as_json(values: np.ndarray) -> str:
    return json.dumps(values.tolist())


def nfc(name: Any) -> Any:
    return unicodedata.normalize("NFC", name) if isinstance(name, str) else name


def named(name: Any, width: Any) -> tuple[str, int]:
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"a model's name is text such as 'old-2024', not {name!r}")
    return nfc(name), checked_count(f"the width of {name!r}", width)


def in_words(entries: Mapping[str, int]) -> str:
    made = ", ".join(f"{number} {name}" for name, number in entries.items())
    return f"{sum(entries.values())} entries ({made})"


# -- answers -------------------------------------------------------------------------------------


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
        size, free = self.size / 1e6, self.free / 1e6
        return f"{in_words(self.entries)}, sound; {size:.1f} MB, of which {free:.1f} free"


def best_of(scores: np.ndarray, keys: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k highest scores of each row, best first, and their keys."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, best, axis=1), np.take_along_axis(keys, best, axis=1)


def each_once(scores: np.ndarray, keys: np.ndarray, owners: Owners) -> tuple[np.ndarray, np.ndarray]:
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


def as_hits(scores: np.ndarray, keys: np.ndarray, owners: Owners, models: Sequence[str]) -> Hits:
    """Hits with ids and names in place of keys and numbers; keys without an owner are no hits."""
    once, back = np.unique(keys, return_inverse=True)
    text = any(isinstance(one, str) for one, _ in owners.values())
    found = [owners.get(key, ("" if text else -1, -1)) for key in once.tolist()]
    ids = np.array([one for one, _ in found], object if text else np.int64)
    makers = np.array([*models, ""], object)[[code for _, code in found]]
    return Hits(ids[back].reshape(keys.shape), scores, makers[back].reshape(keys.shape))


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
        shapes = f"{before.ids.shape} and {after.ids.shape}"
        raise ValueError(f"answers of shapes {shapes}; give equal queries and k")
    sides = (np.where(hits.models == "", None, hits.ids).tolist() for hits in (before, after))
    pairs = zip(*sides, strict=True)
    shares = [len(set(old) & set(new) - {None}) / max(1, len(set(old) - {None})) for old, new in pairs]
    return np.array(shares, np.float64)
