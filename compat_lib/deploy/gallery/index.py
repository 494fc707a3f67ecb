"""One FAISS index for the entries of one model: exact, by cells (IVF) or by a graph (HNSW).

An index is a cache of the segments. It follows the gallery by the keys of the entries: what is gone is taken
out, what is new is put in, and where neither serves any more it is built again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from compat_lib.deploy.gallery.checks import checked_count
from compat_lib.deploy.gallery.entries import places
from compat_lib.deploy.gallery.files import write_file

# kind of index -> its options; None: chosen by the number of entries
KINDS: dict[str, dict[str, int | None]] = {
    "flat": {},
    "ivf": {"nlist": None, "nprobe": None},
    "hnsw": {"m": 16, "ef_construction": 40, "ef_search": 64},
}
EXACT_BELOW = 4096  # entries of a model that are searched one by one whatever the kind
TRAINING_ROWS = 64  # features for each cell

Load = Callable[
    [np.ndarray], Iterable[tuple[np.ndarray, np.ndarray]]
]  # rising keys -> (keys, features) parts


def index_options(kind: str, given: dict[str, Any]) -> dict[str, int | None]:
    """The options of a kind of index, defaults filled in.

    Raises:
        ValueError: "the index 'lsh' is not known ..." or "the index 'ivf' has no option ef_search ..."

    >>> index_options("hnsw", {"ef_search": 100})
    {'m': 16, 'ef_construction': 40, 'ef_search': 100}
    """
    if kind not in KINDS:
        raise ValueError(f"the index {kind!r} is not known; choose one of {', '.join(KINDS)}")
    unknown = sorted(set(given) - set(KINDS[kind]))
    if unknown:
        allowed = ", ".join(KINDS[kind]) or "none"
        raise ValueError(f"the index {kind!r} has no option {', '.join(unknown)}; its options: {allowed}")
    for name, value in given.items():
        if value is not None or KINDS[kind][name] is not None:
            checked_count(name, value, least=4 if name == "m" else 1)  # graphs of m 2 and 3 fall apart
    return KINDS[kind] | given


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
        self.form = "flat"  # what is built now
        self._built = 0  # entries when it was built
        self._rows = np.empty(0, np.int64)  # hnsw: the key of each row of the graph
        self._live = np.empty(0, bool)
        self._index = self._new()

    def __len__(self) -> int:
        return len(self.keys)

    def follow(self, keys: np.ndarray, load: Load) -> None:
        """Make these the entries.

        Args:
            keys: int64 [n], rising.
            load: gives the features of some keys, part by part.
        """
        gone = self.keys[places(keys, self.keys) < 0]
        new = keys[places(self.keys, keys) < 0]
        if not len(gone) and not len(new):
            return
        if self._worn(len(keys), len(new)):
            self._build(keys, load)
        else:
            self._drop(gone)
            for part, features in load(new) if len(new) else ():
                self._add(part, features)
        self.keys = keys

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Cosines float32 [Nq, k], best first, and keys int64 [Nq, k]; -inf and -1 where there are fewer.

        Args:
            queries: float32 [Nq, width] of unit length.
            k: at least 1.
        """
        found = min(k, len(self))
        scores = np.full((len(queries), k), -np.inf, np.float32)
        keys = np.full((len(queries), k), -1, np.int64)
        if found and len(queries):
            scores[:, :found], keys[:, :found] = self._search(queries, found)
        return scores, keys

    # -- what FAISS does ---------------------------------------------------------------------------

    def _worn(self, size: int, new: int) -> bool:
        """Whether to build anew rather than to go on with what there is."""
        if self.form == "flat":
            return self.kind != "flat" and size >= EXACT_BELOW
        if self.form == "ivf":
            return size > 4 * self._built or 2 * size < self._built
        return len(self._rows) + new > 2 * size

    def _new(self) -> Any:
        """An empty index of the present form."""
        faiss = _faiss()
        if self.form == "hnsw":
            index = faiss.IndexHNSWFlat(self.width, self.options["m"], faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = self.options["ef_construction"]
            return index
        if self.form == "ivf":
            # FAISS asks for 39 entries a cell, and refuses fewer entries than cells.
            cells = min(self.options["nlist"] or int(4 * math.sqrt(self._built)), self._built // 39)
            centres = faiss.IndexFlatIP(self.width)
            return faiss.IndexIVFFlat(centres, self.width, cells, faiss.METRIC_INNER_PRODUCT)
        return faiss.IndexIDMap(faiss.IndexFlatIP(self.width))

    def _build(self, keys: np.ndarray, load: Load) -> None:
        self.form = self.kind if len(keys) >= EXACT_BELOW else "flat"
        self._built = len(keys)
        self._rows, self._live = np.empty(0, np.int64), np.empty(0, bool)
        self._index = self._new()
        if self.form == "ivf":
            sample = np.random.default_rng(0).permutation(keys)[: TRAINING_ROWS * self._index.nlist]
            self._index.train(np.concatenate([features for _, features in load(np.sort(sample))]))
        for part, features in load(keys):
            self._add(part, features)

    def _add(self, keys: np.ndarray, features: np.ndarray) -> None:
        if self.form == "hnsw":
            self._index.add(features)
            self._rows = np.append(self._rows, keys)
            self._live = np.append(self._live, np.ones(len(keys), bool))
        else:
            self._index.add_with_ids(features, keys)

    def _drop(self, keys: np.ndarray) -> None:
        if self.form == "hnsw":
            self._live[np.isin(self._rows, keys)] = False
        elif len(keys):
            self._index.remove_ids(keys)

    def _search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        if self.form == "flat":
            return _asked(self._index, queries, k)
        # Many answers from few cells or a narrow walk would be few and poor.
        exact = 4 * k > len(self)
        scores, rows = self._some(queries, k, exact)
        short = np.flatnonzero((rows < 0).any(axis=1))
        if len(short) and not exact:
            scores[short], rows[short] = self._some(queries[short], k, exact=True)
        return scores, self._rows[rows] if self.form == "hnsw" else rows

    def _some(self, queries: np.ndarray, k: int, exact: bool) -> tuple[np.ndarray, np.ndarray]:
        faiss = _faiss()
        if self.form == "ivf":
            cells = self._index.nlist
            for_k = -(-k * cells // len(self))  # cells of k entries
            wanted = self.options["nprobe"] or max(16, cells // 16, 8 * for_k)
            probes = cells if exact else min(cells, max(wanted, 2 * for_k))
            return _asked(self._index, queries, k, params=faiss.SearchParametersIVF(nprobe=probes))
        chosen = faiss.IDSelectorBitmap(np.packbits(self._live, bitorder="little"))
        if exact:
            every = faiss.downcast_index(self._index.storage)
            return _asked(every, queries, k, params=faiss.SearchParameters(sel=chosen))
        breadth = max(self.options["ef_search"], 2 * k)
        return _asked(
            self._index, queries, k, params=faiss.SearchParametersHNSW(sel=chosen, efSearch=breadth)
        )

    # -- the cache ---------------------------------------------------------------------------------

    def save(self, path: Path, stamp: Any) -> None:
        """Write the index to a file.

        Args:
            path: where.
            stamp: JSON; what the entries were when it was saved.
        """
        described = {"form": self.form, "built": self._built, "stamp": stamp, **self._kind()}
        arrays = {
            "described": np.frombuffer(json.dumps(described).encode(), np.uint8),
            "keys": self.keys,
            "rows": self._rows,
            "live": self._live,
            "index": _faiss().serialize_index(self._index),
        }
        write_file(path, lambda file: np.savez(file, **arrays))

    def load(self, path: Path, agrees: Callable[[Any], bool]) -> bool:
        """Take what a file holds; False where there is none, or it is damaged, or not of this index.

        Args:
            path: of the file.
            agrees: whether the entries of a stamp are still entries of the gallery.
        """
        try:
            with np.load(path) as file:  # checks each array's CRC-32
                arrays = dict(file)
            described = json.loads(arrays["described"].tobytes())
        except Exception:  # there is none, or an altered one, which can raise anything
            return False
        if any(described.get(name) != value for name, value in self._kind().items()):
            return False
        if not agrees(described["stamp"]):
            return False
        self.keys, self._rows, self._live = arrays["keys"], arrays["rows"], arrays["live"]
        self.form, self._built = described["form"], described["built"]
        self._index = _faiss().deserialize_index(arrays["index"])
        return True

    def _kind(self) -> dict[str, Any]:
        built = {name: value for name, value in self.options.items() if name not in ("nprobe", "ef_search")}
        return {"kind": self.kind, "options": built, "width": self.width}


def _faiss() -> Any:
    # Writing to a gallery needs no index; importing FAISS takes most of a second.
    try:
        import faiss
    except ImportError:
        raise ImportError(
            "searching a gallery needs FAISS: pip install faiss-cpu, or install compat_lib[workflow]"
        ) from None
    return faiss


def _asked(index: Any, queries: np.ndarray, k: int, **params) -> tuple[np.ndarray, np.ndarray]:
    """FAISS's own search, also where faiss.contrib.torch_utils has put one without params in its place."""
    return getattr(index, "search_numpy", index.search)(queries, k, **params)
