"""What each way to upgrade a gallery costs, in hours, gigabytes and a price, from your own numbers.

    scenario = Scenario(gallery_images=1e8, images_per_second=400, price_per_hour=2)
    costs = all_costs(scenario, relative_training=1.04)
    costs["backfill"].price_once, costs["compatible"].full_hours

These are the formulas of notebook 08, which explains their letters. A price is in a currency of your choice,
the same one everywhere. Nothing is rounded, and no cost depends on how good a model is.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import NamedTuple

HOUR = 3600  # seconds
DAYS_PER_MONTH = 365.25 / 12
WAYS = {
    "keep": "keep the old model",
    "reembed": "embed everything again",
    "dual": "two indexes side by side",
    "adapter": "adapter on the stored features",
    "compatible": "compatible training",
    "backfill": "compatible training, then backfill",
}
_MAY_BE_ZERO = ["price_per_hour", "price_per_million_reads", "bytes_beside", "price_per_gigabyte_month"]
_MAY_BE_ZERO += ["queries_per_day", "patience_hours"]


@dataclass(frozen=True)
class Scenario:
    """The numbers of one gallery, or their texts; rates and hourly prices are of all machines together.

    >>> Scenario(gallery_images="1e6").gallery_images
    1000000.0
    """

    gallery_images: float = 1e8  # G, entries
    images_per_second: float = 400.0  # r, that the new model embeds, reading and decoding included
    old_images_per_second: float = 800.0  # r_o, the same of the old model
    price_per_hour: float = 2.0  # p, of the machines that embed and train
    price_per_million_reads: float = 0.4  # c, for fetching a million stored images
    width: float = 256  # d, numbers in a feature
    bytes_per_number: float = 4.0  # b, 4 for float32, 2 for float16, 1 for 8 bits
    bytes_beside: float = 16.0  # o, that an index keeps beside each feature (id, graph, model's name)
    price_per_gigabyte_month: float = 3.0  # m, of the memory or disk in which the index lies
    queries_per_day: float = 1e6  # Q
    training_images: float = 5e6  # N
    training_epochs: float = 20  # E
    training_images_per_second: float = 250.0  # t, through the new network in training
    vectors_per_second: float = 1e6  # a, stored features that an adapter maps, reading and writing included
    months: float = 6.0  # M, how long the upgrade is meant to last
    patience_hours: float = 24.0  # how long users may wait for the better model once it is trained

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            given, zero = getattr(self, field.name), field.name in _MAY_BE_ZERO
            try:
                number = math.nan if isinstance(given, bool) else float(given)
            except (TypeError, ValueError, OverflowError):
                number = math.nan
            if not (0 < number < math.inf or (zero and number == 0)):
                allowed = "of at least 0" if zero else "above 0"
                raise ValueError(f"{field.name} must be a number {allowed}, not {given!r}.")
            object.__setattr__(self, field.name, number)


@dataclass(frozen=True)
class Cost:
    """What one way costs."""

    training_hours: float  # of the new model
    pairing_hours: float  # features of the training images by the old model, or by both
    embedding_hours: float  # the gallery, by the new model
    mapping_hours: float  # the gallery, by an adapter
    first_hours: float  # after the training, until the first answers are others, better or worse
    full_hours: float  # after the training, until nothing more is to come; both nan where nothing changes
    gigabytes: float  # of the index or indexes, when all is done
    peak_gigabytes: float  # during the change
    price_once: float
    price_per_month: float  # storage and embedding of queries
    upgrade_price: float  # once, and over all months what it costs beside one index asked by the new model


def training_hours(s: Scenario, relative_training: float = 1.0) -> float:
    """Hours of training, k N E / (3600 t), where k is the method's effort relative to plain training.

    >>> training_hours(Scenario(training_images=3600, training_epochs=10, training_images_per_second=5))
    2.0
    """
    return relative_training * (s.training_images * s.training_epochs / s.training_images_per_second) / HOUR


def pairing_hours(s: Scenario, both: bool = False) -> float:
    """Hours for old features of the training images, N / (3600 r_o); `both`: plus N / (3600 r), new ones."""
    seconds = s.training_images / s.old_images_per_second
    return (seconds + (s.training_images / s.images_per_second if both else 0.0)) / HOUR


def embedding_hours(s: Scenario) -> float:
    """Hours to embed the gallery by the new model, G / (3600 r)."""
    return s.gallery_images / s.images_per_second / HOUR


def mapping_hours(s: Scenario) -> float:
    """Hours to map the stored features by an adapter, G / (3600 a)."""
    return s.gallery_images / s.vectors_per_second / HOUR


def gigabytes(s: Scenario, copies: int = 1) -> float:
    """Size of the index, copies G (d b + o) / 10^9."""
    return copies * s.gallery_images * (s.width * s.bytes_per_number + s.bytes_beside) / 1e9


def query_hours_per_month(s: Scenario, models: tuple[str, ...] = ("new",)) -> float:
    """Hours a month to embed the queries, 30.4375 Q / 3600 times 1/r (new model), 1/r_o (old) or both."""
    rates = {"new": s.images_per_second, "old": s.old_images_per_second}
    return sum(s.queries_per_day * DAYS_PER_MONTH / rates[model] for model in models) / HOUR


def embedding_price(s: Scenario) -> float:
    """Price of embedding the gallery by the new model, p G / (3600 r) + c G / 10^6."""
    return embedding_hours(s) * s.price_per_hour + s.gallery_images / 1e6 * s.price_per_million_reads


def price_per_month(s: Scenario, copies: int = 1, models: tuple[str, ...] = ("new",)) -> float:
    """Price a month of index and queries, m times gigabytes + p times the queries' hours."""
    stored = gigabytes(s, copies) * s.price_per_gigabyte_month
    return stored + query_hours_per_month(s, models) * s.price_per_hour


def cost(s: Scenario, way: str, relative_training: float = 1.0) -> Cost:
    """What one way of `WAYS` costs; k, `relative_training`, counts for "compatible" and "backfill" alone."""
    trained, compatible = way != "keep", way in ("compatible", "backfill")
    embedded = way in ("reembed", "dual", "backfill")
    embedding = embedding_hours(s) if embedded else 0.0
    mapping = mapping_hours(s) if way == "adapter" else 0.0
    training = training_hours(s, relative_training if compatible else 1.0) if trained else 0.0
    pairing = pairing_hours(s, both=not compatible) if compatible or way == "adapter" else 0.0
    once = (training + pairing + mapping) * s.price_per_hour
    once += embedding_price(s) if embedded else 0.0
    copies = 2 if way == "dual" else 1
    monthly = price_per_month(s, copies, {"keep": ("old",), "dual": ("old", "new")}.get(way, ("new",)))
    beside = s.months * (monthly - price_per_month(s)) if trained else 0.0
    full = embedding + mapping if trained else math.nan
    hours = (training, pairing, embedding, mapping, 0.0 if compatible else full, full)
    sizes = (gigabytes(s, copies), gigabytes(s, 2 if way in ("reembed", "dual", "adapter") else 1))
    return Cost(*hours, *sizes, once, monthly, once + beside)


def all_costs(s: Scenario, relative_training: float = 1.0) -> dict[str, Cost]:
    return {way: cost(s, way, relative_training) for way in WAYS}


def break_even_images(s: Scenario, relative_training: float = 1.0) -> float:
    """Size of the gallery from which compatible training costs less than embedding everything again.

    What it costs beyond plain training, ((k - 1) N E / t + N / r_o) p / 3600, does not depend on G; what it
    saves, p / (3600 r) + c / 10^6 for each image, does. 0 where it costs nothing more.
    """
    extra = training_hours(s, relative_training - 1) + pairing_hours(s)
    saved = embedding_price(s) / s.gallery_images
    if extra <= 0:
        return 0.0
    return extra * s.price_per_hour / saved if saved else math.inf


class Measured(NamedTuple):
    """A measured number with its 95 % interval; nan where it is not known."""

    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Quality:
    """What users get by one way, fractions 0..1."""

    first: Measured  # on the day on which the way has changed something
    final: Measured
    gain: Measured = Measured(0.0, 0.0, 0.0)  # of the first day over the old system, paired


def better_hours(cost: Cost, quality: Quality, kept: Quality) -> float:
    """Hours after the training until answers are better than the old system's beyond the noise; nan: never.

    The first answers count where the interval of their gain lies above zero. Otherwise a way that embeds the
    gallery is better when that is done, if the interval of its end lies above that of the old system, `kept`.
    """
    if quality.gain.low > 0:
        return cost.first_hours
    return cost.full_hours if cost.embedding_hours and quality.final.low > kept.final.high else math.nan


def shown_better(cost: Cost, quality: Quality, kept: Quality) -> str:
    """`better_hours` in words, with what is worse in the meantime; "undecided" where it ends in the noise."""
    hours = better_hours(cost, quality, kept)
    if not math.isnan(hours):
        return shown_hours(hours) + (", worse until then" if quality.gain.high < 0 else "")
    if not math.isnan(cost.full_hours) and math.isnan(quality.final.value):
        return "not measured"
    below = quality.final.high < kept.final.low if cost.embedding_hours else quality.gain.high < 0
    return "never" if below or math.isnan(cost.full_hours) else "undecided"


def recommended(s: Scenario, costs: dict[str, Cost], quality: dict[str, Quality]) -> str:
    """The way to take with these numbers, one of `WAYS`.

    Embedding everything again where users can wait for it and it costs no more. Otherwise compatible training
    where its first day is better beyond the noise, with backfill where that promises more beyond the noise.
    Otherwise an adapter that is better beyond the noise, and as the last resort embedding again.
    """
    again = costs["reembed"]
    cheap = again.upgrade_price <= costs["backfill"].upgrade_price
    if again.full_hours <= s.patience_hours and cheap:
        return "reembed"
    if quality["compatible"].gain.low > 0:
        more = quality["backfill"].final.low > quality["backfill"].first.high
        return "backfill" if more else "compatible"
    if "adapter" in quality and quality["adapter"].gain.low > 0:
        return "adapter"
    return "reembed"


def shown_hours(hours: float) -> str:
    """A time in the unit in which one thinks of it.

    >>> shown_hours(0.0278), shown_hours(1.5), shown_hours(69.4), shown_hours(0), shown_hours(math.nan)
    ('100 seconds', '90 minutes', '2.9 days', 'at once', 'never')
    """
    if hours == 0 or math.isnan(hours):
        return "never" if hours else "at once"
    units = {"days": 24, "hours": 1, "minutes": 1 / 60, "seconds": 1 / HOUR}
    unit = next((unit for unit, length in units.items() if hours >= 2 * length), "seconds")
    amount = hours / units[unit]
    return f"{amount:,.0f} {unit}" if amount >= 10 else f"{amount:.2g} {unit}"


def shown_amount(amount: float) -> str:
    """A price or a count with as many digits as matter.

    >>> shown_amount(1234.5), shown_amount(3.14159), shown_amount(0)
    ('1,234', '3.14', '0')
    """
    return f"{amount:,.0f}" if abs(amount) >= 100 else f"{amount:.3g}"
