"""Where a gallery's features are searched: in this process's memory by FAISS, an index for each model."""

import functools
import importlib.util
import math
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from compat_lib.deploy.gallery_database import as_table
from compat_lib.deploy.gallery_models import mapped
from compat_lib.deploy.gallery_search import BLOCK, as_json
from compat_lib.deploy.gallery_store import State, Store
from compat_lib.names import check_choice, checked_count

# kind of index -> its options; None: chosen by the number of entries
KINDS: dict[str, dict[str, Any]] = {
    "flat": {},
    "ivf": {"nlist": None, "nprobe": None},
    "hnsw": {"m": 16, "ef_construction": 40, "ef_search": 64},
    "milvus": {"uri": None, "index_type": "FLAT"},
}
EXACT_BELOW = 4096  # entries of a model that are searched one by one whatever the kind
TRAINING_ROWS = 64  # features for each cell


class Part(NamedTuple):
    """Features that are searched together: what one model made of the entries, or beside them."""

    model: str
    table: str = "entries"  # or "beside"
    adapter: bytes | None = None  # what maps them first


def keys_of(
    database: sqlite3.Connection, state: State, part: Part, among: str | None = None, given: tuple = ()
) -> np.ndarray:
    """The keys of a part, int64 [n], rising; those among the keys that a query of the database gives."""
    sql = f"SELECT key FROM {part.table} WHERE model = ?" + (f" AND key IN ({among})" if among else "")
    rows = database.execute(f"{sql} ORDER BY key", (state.code(part.model), *given))
    return np.fromiter((row[0] for row in rows), np.int64)


def features_of(
    store: Store, database: sqlite3.Connection, part: Part, keys: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, list]]:
    """Blocks (keys, features float32 [n, width], ids) that together are those of these rising keys."""
    sql = f"SELECT feature, checksum, id FROM {part.table} WHERE key IN (SELECT value FROM json_each(?))"
    for start in range(0, len(keys), BLOCK):
        block = keys[start : start + BLOCK]
        rows = database.execute(f"{sql} ORDER BY key", (as_json(block),)).fetchall()
        features = as_table(store.folder, rows)
        ids = [row[2] for row in rows]
        yield block, features if part.adapter is None else mapped(features, part.adapter), ids


def index_options(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """The options of a kind of index, checked, defaults filled in."""
    check_choice("the index", kind, KINDS)
    for name, value in given.items():
        if name not in KINDS[kind]:
            allowed = ", ".join(KINDS[kind]) or "none"
            raise ValueError(f"the index {kind!r} has no option {name}; its options: {allowed}")
        if kind == "milvus":
            if not isinstance(value, str | None):
                such = "'http://localhost:19530' or 'FLAT'"
                raise ValueError(f"{name} is {value!r}; give text, such as {such}")
        elif value is not None or KINDS[kind][name] is not None:
            checked_count(name, value, least=4 if name == "m" else 1)  # graphs of m 2 and 3 fall apart
    if kind == "milvus" and importlib.util.find_spec("pymilvus") is None:
        raise ImportError(
            "the index 'milvus' needs the packages pymilvus and milvus-lite; install them, by hand or as the "
            "extra 'milvus' of compat_lib, or choose another index"
        )
    return KINDS[kind] | given


@functools.cache
def _faiss() -> Any:
    import faiss  # here, because it takes most of a second and writing to a gallery needs no index

    # A fork carries none of its threads over, and a child would wait for them without end.
    os.register_at_fork(after_in_child=lambda: faiss.omp_set_num_threads(1))
    return faiss


class ModelIndex:
    """The entries of one model, searchable by inner product of unit rows.

    *flat* compares with every entry. *ivf* sorts entries into cells around centres found by k-means, trained
    on a random sample of this model's own entries when they first number `EXACT_BELOW` (nlist cells, or fewer
    where a cell would have less than 39 entries), and looks into the nearest cells; it is trained again when
    the entries have become four times as many, or half. *hnsw* walks through a graph of neighbours, from
    which nothing can be taken out: a replaced entry stays as a waypoint and is left out of the answers; when
    more than half of the graph would be such entries, it is built again. Where they would return too few,
    both compare with every entry instead. `kind`, with all its options, is of `KINDS`; below `EXACT_BELOW`
    entries every kind is flat.
    """

    def __init__(self, kind: str, options: dict[str, Any], width: int) -> None:
        self.kind, self.options, self.width = kind, options, width
        self.keys = np.empty(0, np.int64)  # rising
        self._start("flat", 0)

    def _start(self, form: str, size: int) -> None:
        faiss = _faiss()
        self.form, self._built = form, size  # what is built now, and entries when it was built
        self._rows, self._live = np.empty(0, np.int64), np.empty(0, bool)  # hnsw: key of each row
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

    def follow(self, keys: np.ndarray, load: Callable[[np.ndarray], Iterable]) -> None:
        """Make these rising keys, int64 [n], the entries; `load` gives (keys, features, ...) of some of them,
        part by part."""
        gone = np.setdiff1d(self.keys, keys, assume_unique=True)
        new = np.setdiff1d(keys, self.keys, assume_unique=True)
        if self._worn(len(keys), len(new)) and (len(gone) or len(new)):
            self._start(self.kind if len(keys) >= EXACT_BELOW else "flat", len(keys))
            new = keys
            if self.form == "ivf":
                sample = np.random.default_rng(0).permutation(keys)[: TRAINING_ROWS * self._index.nlist]
                self._index.train(np.concatenate([features for _, features, *_ in load(np.sort(sample))]))
        elif self.form == "hnsw":
            self._live[np.isin(self._rows, gone)] = False
        elif len(gone):
            self._index.remove_ids(gone)
        for part, features, *_ in load(new):
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
        """As of `InMemory`."""
        # Many answers from few cells or a narrow walk would be few and poor.
        exact = self.form == "flat" or 4 * k > len(self.keys)
        scores, rows = self._some(queries, k, exact)
        short = np.flatnonzero((rows < 0).any(axis=1))
        if len(short) and not exact:
            scores[short], rows[short] = self._some(queries[short], k, exact=True)
        return scores, self._rows[rows] if self.form == "hnsw" else rows

    def _some(self, queries: np.ndarray, k: int, exact: bool) -> tuple[np.ndarray, np.ndarray]:
        faiss, index, params = _faiss(), self._index, None
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


class InMemory:
    """The indexes that a process makes for itself of a store's features, each when it is first searched."""

    shared = False  # nobody else changes them while they are searched

    def __init__(self, store: Store, kind: str, options: dict[str, Any]) -> None:
        self.store, self.kind, self.options = store, kind, options
        self._turn = threading.RLock()  # searches of several threads take turns
        self.indexes: dict[Part, tuple[int, ModelIndex]] = {}  # with the change that each is at

    def changed(self) -> None:
        """Nothing: an index is brought up to date when it is searched."""

    def search(
        self, database: sqlite3.Connection, state: State, part: Part, queries: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cosines float32 [Nq, k] in this state of the gallery, best first, and keys int64 [Nq, k].

        Args:
            queries: float32 [Nq, width] of unit length.
            k: from 1 to the number of features in the part.
        """
        with self._turn:
            # Taken out meanwhile, because an index that was left half way is wrong.
            change, index = self.indexes.pop(part, (None, None))
            if change != state.change:
                index = index or ModelIndex(self.kind, self.options, queries.shape[1])
                load = functools.partial(features_of, self.store, database, part)
                index.follow(keys_of(database, state, part), load)
                used = {None, *(model.adapter for model in state.models.values())}
                self.indexes = {other: kept for other, kept in self.indexes.items() if other.adapter in used}
            self.indexes[part] = state.change, index
            return index.search(queries, k)
