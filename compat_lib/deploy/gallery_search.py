"""What a gallery's search is made of: rows of unit length, who may meet whom, and one FAISS index a model."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

# kind of index -> its options; None: chosen by the number of entries
KINDS: dict[str, dict[str, int | None]] = {
    "flat": {},
    "ivf": {"nlist": None, "nprobe": None},
    "hnsw": {"m": 16, "ef_construction": 40, "ef_search": 64},
}
EXACT_BELOW = 4096  # entries of a model that are searched one by one whatever the kind
TRAINING_ROWS = 64  # features for each cell
SCALE_ROWS = 2000  # most features of a side that a scale is taken from, evenly spaced
BLOCK = 16_384  # rows that are read, scaled and written at a time

Load = Callable[[np.ndarray], Iterable[tuple[np.ndarray, np.ndarray]]]  # keys -> parts (keys, features)


def as_rows(features: Any, width: int | None, who: str) -> np.ndarray:
    """A NumPy table [n, width] of a list, an array or a torch tensor, which is never imported for it."""
    if hasattr(features, "detach"):
        features = features.detach().cpu()
        if str(features.dtype) == "torch.bfloat16":  # NumPy has no such type
            features = features.float()
    array = np.asarray(features)
    if array.ndim != 2 or array.dtype.kind not in "fiu" or width not in (None, array.shape[1]):
        raise ValueError(
            f"the {who} have shape {array.shape} and type {array.dtype}; give real numbers "
            f"[n, {width or 'd'}]"
        )
    if array.dtype == np.uint8:
        warnings.warn(
            f"the {who} are unsigned 8-bit numbers and are compared as they are; subtract the zero point of "
            "quantised features first, and unpack packed bits to -1 and 1",
            stacklevel=3,
        )
    return array


def unit_rows(array: np.ndarray) -> np.ndarray:
    """Rows of unit length, float32 [n, d]; NaN where a row has no direction: not finite, or all zero.

    >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [nan, nan]]
    """
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


def score_scale(queries: Any, entries: Any, share: float = 0.01) -> tuple[float, float]:
    """Where the scores of strangers lie: their median, and how far above it their highest hundredth begins.

    Scores of new queries with new and with old entries have different distributions, so that in a mixed
    gallery one raw score means two things. On the scale (score - centre) / spread, 0 is a typical stranger
    and 1 is passed by one random pair in a hundred, whoever made the entry. No label is needed as long as
    random pairs are strangers. Before any entry is backfilled, take new features of other images in place of
    new entries.

    Args:
        queries, entries: [n, d], [m, d] real numbers, scaled to unit length here; features of different
            images, of which at most 2,000 evenly spaced ones of each side are used.
        share: of random pairs that pass 1, between 0 and 0.5.

    Returns:
        (centre, spread) for `Gallery.search(scales=...)`.

    Raises:
        ValueError: too few or equal pairs, and what is wrong with rows.

    >>> centre, spread = score_scale([[1.0, 0.0]], [[0.0, 1.0], [0.6, 0.8], [1.0, 0.0]], share=0.4)
    >>> round(centre, 3), round(spread, 3)
    (0.6, 0.08)
    """
    if not 0 < share < 0.5:
        raise ValueError(f"share is {share!r}; give a fraction between 0 and 0.5, such as 0.01")
    asking = as_rows(queries, None, "features to compare")
    asked = as_rows(entries, asking.shape[1], "features to compare")
    thinned = (side[:: max(1, -(-len(side) // SCALE_ROWS))] for side in (asking, asked))
    asking, asked = (checked_rows(side, None, "features to compare") for side in thinned)
    scores = (asking @ asked.T).ravel()
    centre, high = np.quantile(scores, [0.5, 1 - share]) if len(scores) else (0.0, 0.0)
    if len(scores) * share < 1 or high <= centre:
        raise ValueError(
            f"{len(scores)} pairs do not show which score one in {1 / share:.0f} passes; give more features, "
            "of different images"
        )
    return float(centre), float(high - centre)


# -- the index -----------------------------------------------------------------------------------


def index_options(kind: str, given: dict[str, Any]) -> dict[str, int | None]:
    """The options of a kind of index, checked, defaults filled in.

    >>> index_options("hnsw", {"ef_search": 100})
    {'m': 16, 'ef_construction': 40, 'ef_search': 100}
    """
    if kind not in KINDS:
        raise ValueError(f"the index {kind!r} is not known; choose one of {', '.join(KINDS)}")
    for name, value in given.items():
        if name not in KINDS[kind]:
            allowed = ", ".join(KINDS[kind]) or "none"
            raise ValueError(f"the index {kind!r} has no option {name}; its options: {allowed}")
        if value is not None or KINDS[kind][name] is not None:
            checked_count(name, value, least=4 if name == "m" else 1)  # graphs of m 2 and 3 fall apart
    return KINDS[kind] | given


def checked_count(name: str, value: Any, least: int = 1) -> int:
    """A whole number of at least 1, or another least one; "k is 0; give a whole number of at least 1"."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} is {value!r}; give a whole number of at least {least}")
    return int(value)


class ModelIndex:
    """The entries of one model, searchable by inner product of unit rows.

    *flat* compares with every entry. *ivf* sorts entries into cells around centres found by k-means, trained
    on a random sample of this model's own entries when they first number `EXACT_BELOW` (nlist cells, or fewer
    where a cell would have less than 39 entries), and looks into the nearest cells; it is trained again when
    the entries have become four times as many, or half. *hnsw* walks through a graph of neighbours, from
    which nothing can be taken out: a replaced entry stays as a waypoint and is left out of the answers; when
    more than half of the graph would be such entries, it is built again. Where they would return too few,
    both compare with every entry instead.

    Args:
        kind: of `KINDS`; below `EXACT_BELOW` entries every kind is flat.
        options: all options of the kind.
        width: numbers in a feature.
    """

    def __init__(self, kind: str, options: dict[str, Any], width: int) -> None:
        self.kind, self.options, self.width = kind, options, width
        self.keys = np.empty(0, np.int64)  # rising
        self._start("flat", 0)

    def _start(self, form: str, size: int) -> None:
        import faiss  # here, because it takes most of a second and writing to a gallery needs no index

        self.form, self._built = form, size  # what is built now, and entries when it was built
        self._rows, self._live = (
            np.empty(0, np.int64),
            np.empty(0, bool),
        )  # hnsw: key of each row of the graph
        if form == "hnsw":
            self._index = faiss.IndexHNSWFlat(self.width, self.options["m"], faiss.METRIC_INNER_PRODUCT)
            self._index.hnsw.efConstruction = self.options["ef_construction"]
        elif form == "ivf":
            # FAISS asks for 39 entries a cell, and refuses fewer entries than cells.
            cells = min(self.options["nlist"] or int(4 * math.sqrt(size)), size // 39)
            centres = faiss.IndexFlatIP(self.width)
            self._index = faiss.IndexIVFFlat(centres, self.width, cells, faiss.METRIC_INNER_PRODUCT)
        else:
            self._index = faiss.IndexIDMap(faiss.IndexFlatIP(self.width))

    def follow(self, keys: np.ndarray, load: Load) -> None:
        """Make these the entries.

        Args:
            keys: int64 [n], rising.
            load: gives the features of some keys, part by part.
        """
        gone = np.setdiff1d(self.keys, keys, assume_unique=True)
        new = np.setdiff1d(keys, self.keys, assume_unique=True)
        if self._worn(len(keys), len(new)) and (len(gone) or len(new)):
            self._start(self.kind if len(keys) >= EXACT_BELOW else "flat", len(keys))
            new = keys
            if self.form == "ivf":
                sample = np.random.default_rng(0).permutation(keys)[: TRAINING_ROWS * self._index.nlist]
                self._index.train(np.concatenate([features for _, features in load(np.sort(sample))]))
        elif self.form == "hnsw":
            self._live[np.isin(self._rows, gone)] = False
        elif len(gone):
            self._index.remove_ids(gone)
        for part, features in load(new):
            if self.form == "hnsw":
                self._index.add(features)
                self._rows = np.append(self._rows, part)
                self._live = np.append(self._live, np.ones(len(part), bool))
            else:
                self._index.add_with_ids(features, part)
        self.keys = keys

    def _worn(self, size: int, new: int) -> bool:
        """Whether to build anew rather than to go on with what there is."""
        if self.form == "flat":
            return self.kind != "flat" and size >= EXACT_BELOW
        if self.form == "ivf":
            return size > 4 * self._built or 2 * size < self._built
        return len(self._rows) + new > 2 * size

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Cosines float32 [Nq, k], best first, and keys int64 [Nq, k].

        Args:
            queries: float32 [Nq, width] of unit length.
            k: from 1 to the number of entries.
        """
        # Many answers from few cells or a narrow walk would be few and poor.
        exact = self.form == "flat" or 4 * k > len(self.keys)
        scores, rows = self._some(queries, k, exact)
        short = np.flatnonzero((rows < 0).any(axis=1))
        if len(short) and not exact:
            scores[short], rows[short] = self._some(queries[short], k, exact=True)
        return scores, self._rows[rows] if self.form == "hnsw" else rows

    def _some(self, queries: np.ndarray, k: int, exact: bool) -> tuple[np.ndarray, np.ndarray]:
        import faiss

        index, params = self._index, None
        if self.form == "ivf":
            cells = index.nlist
            for_k = -(-k * cells // len(self.keys))  # cells of k entries
            wanted = self.options["nprobe"] or max(16, cells // 16, 8 * for_k)
            probes = cells if exact else min(cells, max(wanted, 2 * for_k))
            params = faiss.SearchParametersIVF(nprobe=probes)
        if self.form == "hnsw":
            chosen = faiss.IDSelectorBitmap(np.packbits(self._live, bitorder="little"))
            if exact:
                index, params = faiss.downcast_index(index.storage), faiss.SearchParameters(sel=chosen)
            else:
                breadth = max(self.options["ef_search"], 2 * k)
                params = faiss.SearchParametersHNSW(sel=chosen, efSearch=breadth)
        # FAISS's own search, also where faiss.contrib.torch_utils has put one without params in its place.
        return getattr(index, "search_numpy", index.search)(queries, k, params=params)
