"""How a compatibility check measures one row of its table: by identities, by lists of relevant items, or by
the new model's own neighbours where there is nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from compat_lib.deploy import check_inputs as given
from compat_lib.deploy.feature_files import as_keys, read_by
from compat_lib.deploy.feature_tables import Refused, whole_numbers
from compat_lib.evaluation.bootstrap import bootstrap_mean, drawn_record, identity_weights
from compat_lib.evaluation.compatibility import RANKS, PairTest, pair_test
from compat_lib.evaluation.counting import PER_UNIT, Counts
from compat_lib.evaluation.ranking import Retrieval, top_k
from compat_lib.evaluation.records import Records

FARS = (1e-3, 1e-4)
CELLS = 10**7  # identities x draws that are held; beyond it identities without a query are drawn in groups
NEIGHBOURS = 10  # of the new model's own that are looked for
SCORES = 2**24  # cosines of queries and items that are held at a time
QRELS = {  # names of columns, of TREC's four or of a table with a header such as BEIR's
    "query": ("query", "query_id", "query-id", "qid", "topic"),
    "item": ("item", "doc", "document", "doc_id", "docid", "corpus-id", "corpus_id", "image", "id"),
    "relevance": ("relevance", "rel", "score", "label"),
}


@dataclass(frozen=True, eq=False)
class ByIdentity:
    """All pairs of images; those of one identity are right."""

    how = "identities"
    metric: str
    labels: np.ndarray  # int64 [N], identities from 0
    rows: np.ndarray  # int64 [Q], those that ask
    units: np.ndarray  # int64 [N], what the bootstrap draws: identities, or groups of them
    weights: np.ndarray  # int64 [units, draws]
    fars: tuple[float, ...]

    @classmethod
    def of(cls, labels: np.ndarray, asked: str | None, queries: int | None, draws: int, seed: int):
        """The measure of images with these identities."""
        rows = given.choose_queries(labels, queries, seed)
        metric = given.choose_metric(asked, labels, rows)
        far = given.metric_far(metric)
        fars = FARS if far is None or far in FARS else (far, *FARS)
        units = given.choose_units(labels, rows, CELLS // max(draws, 1))
        return cls(metric, labels, rows, units, identity_weights(units, draws, seed), fars)

    def test(self, query: Tensor, gallery: Tensor, among: np.ndarray | slice = slice(None)) -> PairTest:
        """Query and gallery features [N, D] of all images, measured; `among`: which of the queries ask."""
        rows = self.rows[among]
        # Inside one set and model the order of the two does not matter.
        unordered = query is gallery and len(rows) == len(self.units)
        identities, images = (self.units[rows], self.units), (rows, np.arange(len(self.units)))
        asking = query[torch.from_numpy(rows).to(query.device)]
        return pair_test(asking, gallery, identities, images, self.fars, self.weights, unordered=unordered)

    def asking(self, among: np.ndarray | slice = slice(None)) -> int:
        """Identities with a query that has a right answer."""
        return int((np.bincount(self.labels)[np.unique(self.labels[self.rows[among]])] > 1).sum())

    @property
    def owners(self) -> np.ndarray:
        """Whose the queries are [Q]: what is drawn."""
        return self.labels[self.rows]

    def chance(self) -> float:
        """What a ranking at random gives."""
        right = np.bincount(self.labels)[self.owners] - 1.0
        return chance(self.metric, right, len(self.labels) - 1)  # the gallery without the query itself


@dataclass(frozen=True, eq=False)
class ByLists:
    """Queries with a list each of items that are right; queries are drawn by the bootstrap."""

    metric: str
    rows: np.ndarray  # int64 [Q], those that ask
    items: np.ndarray  # int64 [G], those that are searched
    lists: list[np.ndarray]  # for each query its right items, places in `items`; neighbours: nearest first
    weights: np.ndarray  # int64 [Q, draws]
    how: str = "relevance"  # or "neighbours": the lists are the new model's own
    unknown: tuple[int, int] = (0, 0)  # pairs with an id that no image has, and queries that have no other
    fars: tuple[float, ...] = ()

    @classmethod
    def of(cls, relevance: pd.DataFrame, ids: np.ndarray, asked: str | None, draws: int, seed: int):
        """The measure of relevance lists: `judged_pairs`."""
        place = pd.Index(ids.astype(str))
        # What only has answers of relevance 0 is a query too, and nothing to find.
        asks = np.isin(np.arange(len(ids)), place.get_indexer(relevance["query"]))
        relevance = relevance[relevance["relevance"] > 0]
        pairs = np.stack([place.get_indexer(relevance[name]) for name in ("query", "item")], 1)
        known = np.unique(pairs[(pairs >= 0).all(axis=1) & (pairs[:, 0] != pairs[:, 1])], axis=0)
        strange = int((pairs < 0).any(axis=1).sum())
        if not len(known):
            one = relevance.iloc[0]
            raise ValueError(
                f"no pair of the relevance lists (the first: {one['query']!r}, {one['item']!r}) has both its "
                f"ids in the features (the first: {str(ids[0])!r}); the files hold queries and items, by "
                "their ids"
            )
        if (metric := (asked or "map").strip().lower()) not in ("map", *(f"rank{k}" for k in RANKS)):
            raise ValueError(f"with relevance lists the metric is map, rank1 or rank5, not {asked!r}")
        # A gallery is all that asks nothing, and all that is an answer.
        items = np.flatnonzero(~asks | np.isin(np.arange(len(ids)), known[:, 1]))
        rows, start = np.unique(known[:, 0], return_index=True)
        unknown = strange, relevance["query"].nunique() - len(rows)
        lists = np.split(np.searchsorted(items, known[:, 1]), start[1:])
        weights = identity_weights(np.arange(len(rows)), draws, seed)
        return cls(metric, rows, items, lists, weights, unknown=unknown)

    @classmethod
    def of_neighbours(cls, after: Tensor, asked: str | None, queries: int | None, draws: int, seed: int):
        """The measure of how far others find what the new model finds itself, [N, D]."""
        rows = given.choose_queries(np.zeros(len(after), np.int64), queries, seed)
        k, items = min(NEIGHBOURS, len(after) - 1), np.arange(len(after))
        names = [f"overlap@{k}", "nearest@1", f"nearest@{k}"]
        if k < 1 or asked not in (None, *names):
            raise ValueError(
                f"without labels only {' and '.join(names)} can be measured, on two images or more; give "
                f"labels for {asked or 'more'}"
            )
        ids = {"query_ids": rows, "gallery_ids": items}
        lists = list(top_k(after[torch.from_numpy(rows).to(after.device)], after, k, **ids)[1])
        weights = identity_weights(np.arange(len(rows)), draws, seed)
        return cls(asked or names[0], rows, items, lists, weights, "neighbours")

    def test(self, query: Tensor, gallery: Tensor, among: np.ndarray | slice = slice(None)) -> PairTest:
        """As of `ByIdentity`."""
        rows, weights = self.rows[among], self.weights[among]
        lists = [self.lists[n] for n in self.owners[among]]
        asking, searched = query[torch.from_numpy(rows)], gallery[torch.from_numpy(self.items)]
        places, nearest = _places(asking, searched, lists, rows, self.items)
        first = np.array([line[0] for line in places])
        average = np.array([(np.arange(1, len(line) + 1) / line).mean() for line in places])
        values = {"map": average} | {f"rank{k}": first <= k for k in RANKS}
        if self.how == "neighbours":
            k = len(lists[0])
            overlap = np.array([(line <= k).mean() for line in places])
            values = {f"overlap@{k}": overlap, "nearest@1": nearest <= 1, f"nearest@{k}": nearest <= k}
        records = Records(
            drawn_record(name, float(np.mean(each)), bootstrap_mean(each, np.arange(len(rows)), weights))
            for name, each in values.items()
        )
        hits = {k: float((first <= k).mean()) for k in RANKS}
        found = Retrieval(float(average.mean()), hits, average, first, len(rows), 0)
        return PairTest(records, None, None, found)

    def asking(self, among: np.ndarray | slice = slice(None)) -> int:
        """Queries."""
        return len(self.rows[among])

    @property
    def owners(self) -> np.ndarray:
        """Each query is its own."""
        return np.arange(len(self.rows))

    def chance(self) -> float:
        """What a ranking at random gives, taking queries for items that are searched themselves."""
        others = len(self.items) - int(np.isin(self.rows, self.items).all())
        if self.how == "neighbours":
            return min(1.0, int(self.metric.partition("@")[2]) / others)
        return chance(self.metric, np.array([len(line) for line in self.lists], float), others)


Measure = ByIdentity | ByLists


def _places(
    query: Tensor, gallery: Tensor, lists: Sequence[np.ndarray], rows: np.ndarray, items: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray]:
    """The places, from 1, of each query's right items, rising, and that of the first in its list.

    A query does not meet itself, and wrong items that tie with a right one come before it.
    """
    places, nearest = [], np.zeros(len(rows), np.int64)
    step = max(1, SCORES // len(items))
    for start in range(0, len(rows), step):
        asking = query[start : start + step].double()
        scores = torch.cat([asking @ part.double().T for part in gallery.split(given.BLOCK)], dim=1)
        scores = scores.round(decimals=12).float().cpu().numpy()  # the last digits hang on the order of sums
        scores[rows[start : start + step, None] == items] = -np.inf
        for line, right in zip(scores, lists[start : start + step], strict=True):
            mine, first = np.sort(line[right])[::-1], line[right[0]]
            nearest[len(places)] = (line >= first).sum()
            line[right] = -np.inf
            wrong = np.sort(line[line >= mine[-1]])
            places.append(len(wrong) - np.searchsorted(wrong, mine) + np.arange(1, len(mine) + 1))
    return places, nearest


def chance(name: str, right: np.ndarray, others: int) -> float:
    """What a ranking at random gives on average, over the queries with `right` > 0 answers among `others`."""
    if (far := given.metric_far(name)) is not None:
        return far
    right = right[right > 0]
    if name == "map":
        # R right ones among n: H_n / n + (R - 1) / (n - 1) (1 - H_n / n), with the harmonic number H_n.
        first = float((1 / np.arange(1, others + 1)).sum()) / others
        return float((first + (right - 1) / max(others - 1, 1) * (1 - first)).mean())
    miss = np.ones_like(right)
    for k in range(min(int(name.removeprefix("rank")), others)):
        miss *= np.maximum(others - right - k, 0) / (others - k)
    return float((1 - miss).mean())


def accepted(counts: Counts, threshold: float) -> tuple[float, float]:
    """Shares of the pairs of strangers and of one identity whose cosine reaches a threshold (to 2**-15)."""
    place = int(np.ceil((threshold + 2) * PER_UNIT))
    return counts.different[place:].sum() / counts.negatives, counts.same[place:].sum() / counts.positives


def threshold_of(counts: Counts, share: float) -> float:
    """The lowest threshold (to 2**-15) that no more than this share of the pairs of strangers reach."""
    above = np.cumsum(counts.different[::-1])
    return 1 - (int(np.searchsorted(above, share * counts.negatives, "right")) - 1) / PER_UNIT


def read_relevance(path: str | Path) -> pd.DataFrame:
    """A table for `judged_pairs` from relevance lists of TREC, or a table with a header.

    TREC's lines are ``query 0 item relevance``; a table (commas or tabs) has a column of queries, one of
    items, and perhaps one of relevance (`QRELS`).
    """
    return read_by(_relevance, path)


def _relevance(path: Path) -> pd.DataFrame:
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = file.readline().strip()
    except UnicodeDecodeError as error:
        raise Refused("relevance lists are text: lines, or a table with commas or tabs") from error
    mark = next((mark for mark in ",;\t" if mark in first), None)
    header = [name.strip(' "').lower() for name in first.split(mark)]
    found = {role: [name for name in header if name in names] for role, names in QRELS.items()}
    table = bool(found["query"] and found["item"])
    for role, names in found.items():
        if table and len(names) > 1:
            raise Refused(
                f"the {role} could be {' or '.join(map(repr, names))}; leave one of these columns, or give "
                "the others another name"
            )
    if not table and len(header) != 4:
        raise Refused(
            f"{first[:60]!r} is no line of relevance lists; write 'query 0 item relevance', or a "
            "table with the columns query, item and relevance"
        )
    options = {"sep": mark or r"\s+", "dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}
    frame = pd.read_csv(path, header=0 if table else None, **options)
    if table:
        frame.columns = header
        frame = frame.rename(columns={names[0]: role for role, names in found.items() if names})
    else:
        frame.columns = ["query", "once", "item", "relevance"]
    frame[["query", "item"]] = frame[["query", "item"]].apply(lambda column: whole_numbers(column.to_numpy()))
    if "relevance" in frame:
        frame["relevance"] = frame["relevance"].str.lower().replace({"true": "1", "false": "0"})
    return judged_pairs(frame)


def judged_pairs(table: pd.DataFrame) -> pd.DataFrame:
    """Pairs "query" and "item" of ids, text, and "relevance": 1, or 0 where the table says 0 or less."""
    if not {"query", "item"} <= set(table):
        raise Refused(f"relevance lists are a table with the columns query and item, not {list(table)}")
    numbers = pd.to_numeric(table.get("relevance", pd.Series(1, table.index)))
    if numbers.isna().any():
        raise Refused(f"row {int(numbers.isna().argmax())} has no relevance")
    pairs = table[["query", "item"]].apply(lambda column: as_keys("ids", column).astype(str))
    judged = pairs.assign(relevance=(numbers > 0).astype(int)).drop_duplicates()
    if (twice := judged.duplicated(["query", "item"])).any():
        query, item, _ = judged[twice].iloc[0]
        raise Refused(f"the pair {query!r}, {item!r} stands there with and without relevance; keep one")
    if not judged["relevance"].any():
        raise Refused("no pair has a relevance above 0")
    return judged
