"""Metrics as tidy records, one number each: what evaluations return, ``metrics.json`` holds and tables read.

records.get("new", "old", "map").value          # query model first
records.select(gallery="mixed", order="random") # the backfill curve
records.frame()                                 # one row a record, for pandas
"""

from __future__ import annotations

import dataclasses
import math
from collections import namedtuple
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

PAIRS = (("old", "old"), ("new", "old"), ("new", "new"))  # query model, gallery model
# The metric of the criterion and of the update gain, by protocol, and what its papers print.
HEADLINES = {
    "pairs": "tar@far=1e-3",
    "ijb": "tar@far=1e-4",
    "reid": "map",
    "leave-one-out": "top1",
    "landmarks": "map",
}
PRINTED = {
    "pairs": ("tar@far=1e-2", "tar@far=1e-3", "tar@far=1e-4", "map", "rank1"),
    "ijb": (*(f"tar@far=1e-{k}" for k in range(6, 0, -1)), "auc", "top1", "tpir@fpir=1e-2", "tpir@fpir=1e-1"),
    "reid": ("rank1", "rank5", "rank10", "map", "minp"),
    "leave-one-out": ("top1", "top5", "map"),
    "landmarks": ("map", "easy/map", "hard/map", "mp@10", "hard/mp@10"),
}


@dataclass(frozen=True)
class Record:
    """One measured number.

    Args:
        query: model that embeds the queries, "old" or "new"; None where no gallery is asked.
        gallery: model of the gallery, "old", "new" or "mixed" (a gallery during its backfill); None likewise.
        metric: its name: "tar@far=1e-3", "map", "rank1", "constraint1/share", "negative_flips", ...
        value: the number, a fraction unless the metric says otherwise; None: not measurable.
        low, high: 95 % interval over the test identities, or None.
        adapter: map that was fitted afterwards, "ridge" (of the gallery) or "ridge-query" (of the queries).
        order: order of the backfill, "random", "uncertain" or "farthest".
        share: share of the gallery that is re-embedded, 0..1.
        draws: float64 [draws], the bootstrap draws behind the interval, or None.
        part: which test images, where a data set has more than one such part ("in-domain"); None: its test.
    """

    query: str | None
    gallery: str | None
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    adapter: str | None = None
    order: str | None = None
    share: float | None = None
    draws: np.ndarray | None = field(default=None, repr=False, compare=False)
    part: str | None = None


COLUMNS = tuple(f.name for f in dataclasses.fields(Record) if f.name != "draws")
# What tells two records apart.
Key = namedtuple(
    "Key", ("query", "gallery", "metric", "adapter", "order", "share", "part"), defaults=[None] * 4
)


class Records(Sequence[Record]):
    """An immutable list of records that is asked by names.

    >>> r = Records([Record("old", "old", "map", 0.5), Record("new", "old", "map", 0.6, 0.5, 0.7)])
    >>> r.get("new", "old", "map").value, str(r.select(query="old").frame()["value"].tolist())
    (0.6, '[0.5]')
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._records = tuple(records)
        self._by_key = {Key(*(getattr(one, name) for name in Key._fields)): one for one in self._records}
        if len(self._by_key) != len(self._records):
            raise ValueError(f"two records have the same {', '.join(Key._fields)}")

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index):
        return self._records[index]

    def __add__(self, other: Iterable[Record]) -> Records:
        return Records((*self._records, *other))

    def __repr__(self) -> str:
        return f"Records({len(self)}: {', '.join(dict.fromkeys(one.metric for one in self))})"

    def find(self, query: str | None, gallery: str | None, metric: str, **where: Any) -> Record | None:
        """The one record of these names, and in `where` of this adapter, order, share and part; or None."""
        return self._by_key.get(Key(query, gallery, metric, **where))

    def get(self, query: str | None, gallery: str | None, metric: str, **where: Any) -> Record:
        """The one record of these names; KeyError, with the metrics of these two models, if there is none."""
        found = self.find(query, gallery, metric, **where)
        if found is None:
            there = dict.fromkeys(one.metric for one in self if (one.query, one.gallery) == (query, gallery))
            raise KeyError(
                f"no {metric!r} of {query}/{gallery} {where or ''}; there are {', '.join(there) or 'none'}"
            )
        return found

    def value(self, query: str | None, gallery: str | None, metric: str, **where: Any) -> float | None:
        """The value of the one record of these names; None where it was not measurable."""
        return self.get(query, gallery, metric, **where).value

    def select(self, **where: Any) -> Records:
        """The records whose fields have these values, in their order."""
        return Records(one for one in self if all(getattr(one, k) == v for k, v in where.items()))

    def changed(self, **fields: Any) -> Records:
        """The same records with some fields set, such as ``adapter="ridge"``."""
        return Records(dataclasses.replace(one, **fields) for one in self)

    def summary(self) -> str:
        """One line for each pair of models: every number as it is, with its interval."""
        lines: dict[str, list[str]] = {}
        for one in self:
            pair = "/".join(filter(None, (one.query, one.gallery)))
            number = shown(one.value, one.low, one.high, percent=False, digits=4)
            lines.setdefault(f"{pair}: " if pair else "", []).append(f"{one.metric} {number}")
        return "\n".join(pair + ", ".join(found) for pair, found in lines.items())

    def frame(self) -> pd.DataFrame:
        """One row a record: query, gallery, metric, value, low, high, adapter, order, share, part."""
        return pd.DataFrame([[getattr(one, name) for name in COLUMNS] for one in self], columns=list(COLUMNS))

    def plain(self) -> list[dict[str, Any]]:
        """The records without draws as dictionaries for JSON; what a record does not have is left out."""
        kept = ("metric", "value")
        return [
            {n: _number(getattr(one, n)) for n in COLUMNS if n in kept or getattr(one, n) is not None}
            for one in self
        ]

    @classmethod
    def from_plain(cls, rows: Iterable[Mapping[str, Any]]) -> Records:
        """What :meth:`plain` wrote; ValueError for a row without a metric or with an unknown field."""
        try:
            return cls(Record(**{"query": None, "gallery": None, "value": None} | dict(row)) for row in rows)
        except TypeError as error:
            raise ValueError(f"these are no records of metrics ({error})") from None


class Readable:
    """A result whose `records` are its numbers."""

    about = ""  # what they were measured on, with places for fields of the result

    def summary(self) -> str:
        """Return one line for each pair of models, and what was measured."""
        return self.records.summary() + (f" ({self.about.format(self)})" if self.about else "")


class Measured(Readable):
    """A result that names no models; its `values` are its numbers by metric, None where not measurable."""

    @property
    def records(self) -> Records:
        """The values as records."""
        return Records(Record(None, None, name, value) for name, value in self.values.items())


def rates(kind: str, levels: Sequence[float], values: Sequence[float], measurable: Sequence[bool]) -> dict:
    """Rates at levels by name, None where not measurable.

    >>> rates("tar@far", [1e-3, 0.025], [0.5, 0.9], [False, True])
    {'tar@far=1e-3': None, 'tar@far=2.5e-2': 0.9}
    """
    found = {}
    for level, value, known in zip(levels, values, measurable, strict=True):
        digits, exponent = f"{level:e}".split("e")
        found[f"{kind}={digits.rstrip('0').rstrip('.')}e{int(exponent)}"] = value if known else None
    return found


def tar_name(far: float) -> str:
    """Return the name of TAR at a FAR.

    >>> tar_name(1e-3), tar_name(0.025)
    ('tar@far=1e-3', 'tar@far=2.5e-2')
    """
    return next(iter(rates("tar@far", [far], [0.0], [True])))


def _number(value: Any) -> Any:
    """A plain number for JSON; NaN and infinities, which JSON cannot name, are None."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def shown(
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    *,
    percent: bool = True,
    digits: int = 1,
    signed: bool = False,
) -> str:
    """A number with its interval as every table and sentence shows it.

    >>> shown(0.498, 0.443, 0.536), shown(0.01, signed=True), shown(None), shown(0.5, percent=False, digits=3)
    ('49.8 [44.3, 53.6]', '+1.0', 'n/a', '0.500')
    """

    def one(number: float) -> str:
        return f"{100 * number if percent else number:{'+' if signed else ''}.{digits}f}"

    if value is None or value != value:
        return "n/a"
    if low is None or high is None or low != low or high != high:
        return one(value)
    return f"{one(value)} [{one(low)}, {one(high)}]"


def metric_for(protocol: str, wanted: str = HEADLINES["pairs"]) -> str:
    """The metric of a protocol that stands where `wanted` is asked of all pairs.

    >>> metric_for("reid"), metric_for("leave-one-out", "map"), metric_for("reid", "tar@far=1e-2")
    ('map', 'map', 'map')
    """
    there = protocol == "pairs" or wanted in PRINTED[protocol] and wanted != HEADLINES["pairs"]
    return wanted if there else HEADLINES[protocol]


def metric_title(metric: str) -> str:
    """A metric's name for people.

    >>> metric_title("tar@far=1e-3"), metric_title("map"), metric_title("rank1")
    ('TAR@FAR=1e-3', 'mAP', 'rank-1')
    """
    titles = {
        "map": "mAP",
        "minp": "mINP",
        "auc": "AUC",
        "easy/map": "mAP, easy",
        "hard/map": "mAP, hard",
        "mp@10": "mP@10",
        "hard/mp@10": "mP@10, hard",
        "negative_flips": "right before, wrong now",
        "positive_flips": "wrong before, right now",
    }
    starts = {"tar@far=": "TAR@FAR=", "tpir@fpir=": "TPIR@FPIR=", "rank": "rank-", "top": "top-"}
    for start, words in starts.items():
        if metric.startswith(start):
            return words + metric.removeprefix(start)
    return titles.get(metric, metric)
