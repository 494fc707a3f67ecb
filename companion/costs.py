"""What each way to upgrade a gallery costs, in hours, gigabytes and a price, from your own numbers.

    scenario = Scenario(gallery_images=1e8, images_per_second=400, price_per_hour=2)
    costs = all_costs(scenario, relative_training=1.04)
    costs["backfill"].price_once, costs["compatible"].full_hours

A price is in a currency of your choice, the same one everywhere. Every formula is one short function; nothing
is rounded, and no cost depends on how good a model is. When answers are better: `cost_words.better_hours`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from numbers import Real

SECONDS_PER_HOUR = 3600
DAYS_PER_MONTH = 365.25 / 12
WAYS = {
    "keep": "keep the old model",
    "reembed": "embed everything again",
    "dual": "two indexes side by side",
    "adapter": "adapter on the stored features",
    "compatible": "compatible training",
    "backfill": "compatible training, then backfill",
}
_MAY_BE_ZERO = ("price_per_hour", "price_per_million_reads", "bytes_beside", "price_per_gigabyte_month")
_MAY_BE_ZERO += ("queries_per_day", "patience_hours")
LARGEST = 1e18  # and its inverse the smallest number: what is computed from them stays finite


@dataclasses.dataclass(frozen=True)
class Scenario:
    """The numbers of one gallery; rates and hourly prices are of all machines together.

    Args:
        gallery_images: G, entries.
        images_per_second: r, images that the new model embeds, reading and decoding included.
        old_images_per_second: r_o, the same of the old model.
        price_per_hour: p, of the machines that embed and train.
        price_per_million_reads: c, for fetching a million stored images.
        width: d, numbers in a feature.
        bytes_per_number: b, 4 for float32, 2 for float16, 1 for 8 bits.
        bytes_beside: o, bytes that an index keeps beside each feature (id, graph, model's name).
        price_per_gigabyte_month: m, of the memory or disk in which the index lies.
        queries_per_day: Q.
        training_images: N.
        training_epochs: E.
        training_images_per_second: t, images that one step of training takes through the new network.
        vectors_per_second: a, stored features that an adapter maps, reading and writing included.
        months: M, how long the upgrade is meant to last.
        patience_hours: how long users may wait for the better model once it is trained.

    Raises:
        ValueError: "gallery_images must be a number above 0, not 0." or "... from 1e-18 to 1e+18, not ..."

    >>> Scenario(gallery_images=1e6).gallery_images
    1000000.0
    """

    gallery_images: float = 1e8
    images_per_second: float = 400.0
    old_images_per_second: float = 800.0
    price_per_hour: float = 2.0
    price_per_million_reads: float = 0.4
    width: float = 256
    bytes_per_number: float = 4.0
    bytes_beside: float = 16.0
    price_per_gigabyte_month: float = 3.0
    queries_per_day: float = 1e6
    training_images: float = 5e6
    training_epochs: float = 20
    training_images_per_second: float = 250.0
    vectors_per_second: float = 1e6
    months: float = 6.0
    patience_hours: float = 24.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            zero = field.name in _MAY_BE_ZERO
            if not (zero and _is_number(value) and value == 0):
                _check(field.name, value, "of at least 0" if zero else "above 0")
            if not isinstance(value, int | float):  # NumPy's small types would overflow
                object.__setattr__(self, field.name, float(value))


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _check(name: str, value: object, allowed: str = "above 0") -> None:
    if not _is_number(value) or not value > 0 or value == math.inf:
        raise ValueError(f"{name} must be a number {allowed}, not {value!r}.")
    if not 1 / LARGEST <= value <= LARGEST:
        raise ValueError(f"{name} must be a number from {1 / LARGEST:g} to {LARGEST:g}, not {value!r}.")


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one way costs."""

    way: str  # of WAYS
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


def training_hours(scenario: Scenario, relative_training: float = 1.0) -> float:
    """Hours of training, k N E / (3600 t), where k is the method's effort relative to plain training.

    >>> training_hours(Scenario(training_images=3600, training_epochs=10, training_images_per_second=5))
    2.0
    """
    seconds = scenario.training_images * scenario.training_epochs / scenario.training_images_per_second
    return relative_training * seconds / SECONDS_PER_HOUR


def pairing_hours(scenario: Scenario, both: bool = False) -> float:
    """Hours for old features of the training images, N / (3600 r_o); `both`: plus N / (3600 r) for new ones.

    >>> pairing_hours(Scenario(training_images=3600, old_images_per_second=2, images_per_second=1), both=True)
    1.5
    """
    seconds = scenario.training_images / scenario.old_images_per_second
    seconds += scenario.training_images / scenario.images_per_second if both else 0.0
    return seconds / SECONDS_PER_HOUR


def embedding_hours(scenario: Scenario) -> float:
    """Hours to embed the gallery by the new model, G / (3600 r).

    >>> embedding_hours(Scenario(gallery_images=7200, images_per_second=4))
    0.5
    """
    return scenario.gallery_images / scenario.images_per_second / SECONDS_PER_HOUR


def mapping_hours(scenario: Scenario) -> float:
    """Hours to map the stored features by an adapter, G / (3600 a)."""
    return scenario.gallery_images / scenario.vectors_per_second / SECONDS_PER_HOUR


def gigabytes(scenario: Scenario, copies: int = 1) -> float:
    """Size of the index, copies G (d b + o) / 10^9.

    >>> gigabytes(Scenario(gallery_images=1e6, width=250, bytes_per_number=4, bytes_beside=0), copies=2)
    2.0
    """
    per_image = scenario.width * scenario.bytes_per_number + scenario.bytes_beside
    return copies * scenario.gallery_images * per_image / 1e9


def query_hours_per_month(scenario: Scenario, models: tuple[str, ...] = ("new",)) -> float:
    """Hours a month to embed the queries, 30.4375 Q / 3600 times 1/r for the new model and 1/r_o for the old.

    >>> query_hours_per_month(Scenario(queries_per_day=86400, images_per_second=24, old_images_per_second=12))
    30.4375
    """
    rates = {"new": scenario.images_per_second, "old": scenario.old_images_per_second}
    queries = scenario.queries_per_day * DAYS_PER_MONTH
    return sum(queries / rates[model] for model in models) / SECONDS_PER_HOUR


def embedding_price(scenario: Scenario) -> float:
    """Price of embedding the gallery by the new model, p G / (3600 r) + c G / 10^6."""
    reads = scenario.gallery_images / 1e6 * scenario.price_per_million_reads
    return embedding_hours(scenario) * scenario.price_per_hour + reads


def price_per_month(scenario: Scenario, copies: int = 1, models: tuple[str, ...] = ("new",)) -> float:
    """Price a month of index and queries, m times gigabytes + p times the queries' hours."""
    stored = gigabytes(scenario, copies) * scenario.price_per_gigabyte_month
    return stored + query_hours_per_month(scenario, models) * scenario.price_per_hour


def cost(scenario: Scenario, way: str, relative_training: float = 1.0) -> Cost:
    """What one way costs.

    Args:
        scenario: your numbers.
        way: one of WAYS.
        relative_training: k, effort of the compatible training relative to that of a plain one; it counts for
            "compatible" and "backfill" alone.
    Raises:
        ValueError: "There is no way 'wait'. Ways: keep, reembed, ..." or "relative_training must be ..."
    """
    if way not in WAYS:
        raise ValueError(f"There is no way {way!r}. Ways: {', '.join(WAYS)}.")
    _check("relative_training", relative_training)
    trained = way != "keep"
    compatible = way in ("compatible", "backfill")
    embedded = way in ("reembed", "dual", "backfill")
    embedding = embedding_hours(scenario) if embedded else 0.0
    mapping = mapping_hours(scenario) if way == "adapter" else 0.0
    training = training_hours(scenario, relative_training if compatible else 1.0) if trained else 0.0
    pairing = pairing_hours(scenario, both=not compatible) if compatible or way == "adapter" else 0.0
    once = (training + pairing + mapping) * scenario.price_per_hour
    once += embedding_price(scenario) if embedded else 0.0
    copies = 2 if way == "dual" else 1
    models = {"keep": ("old",), "dual": ("old", "new")}.get(way, ("new",))
    monthly = price_per_month(scenario, copies, models)
    beside = scenario.months * (monthly - price_per_month(scenario)) if trained else 0.0
    return Cost(
        way=way,
        training_hours=training,
        pairing_hours=pairing,
        embedding_hours=embedding,
        mapping_hours=mapping,
        first_hours=(0.0 if compatible else embedding + mapping) if trained else math.nan,
        full_hours=embedding + mapping if trained else math.nan,
        gigabytes=gigabytes(scenario, copies),
        peak_gigabytes=gigabytes(scenario, 2 if way in ("reembed", "dual", "adapter") else 1),
        price_once=once,
        price_per_month=monthly,
        upgrade_price=once + beside,
    )


def all_costs(scenario: Scenario, relative_training: float = 1.0) -> dict[str, Cost]:
    """What every way costs, by its name in the order of WAYS."""
    return {way: cost(scenario, way, relative_training) for way in WAYS}


def break_even_images(scenario: Scenario, relative_training: float = 1.0) -> float:
    """Size of the gallery from which compatible training costs less than embedding everything again.

    What it costs beyond plain training, ((k - 1) N E / t + N / r_o) p / 3600, does not depend on G; what it
    saves, p / (3600 r) + c / 10^6 for each image, does. 0 where it costs nothing more.

    Raises:
        ValueError: "relative_training must be ..."
    """
    _check("relative_training", relative_training)
    extra = training_hours(scenario, relative_training - 1) + pairing_hours(scenario)
    saved = embedding_price(scenario) / scenario.gallery_images
    if extra <= 0:
        return 0.0
    return extra * scenario.price_per_hour / saved if saved else math.inf


@dataclasses.dataclass(frozen=True)
class Quality:
    """What users get, fractions 0..1, each with its 95 % interval; nan where it was not measured.

    `gain` is the first day's quality minus the old system's, with the interval of the paired difference.
    """

    first: float  # on the day on which the way has changed something
    first_low: float
    first_high: float
    final: float
    final_low: float
    final_high: float
    gain: float = 0.0
    gain_low: float = 0.0
    gain_high: float = 0.0


def qualities(
    compatible: Mapping[str, float], adapter: Mapping[str, float] | None = None
) -> dict[str, Quality]:
    """The measured quality of each way.

    Args:
        compatible: a row of `companion.tables.self_cross`: "old_old", "new_old", "new_new" and "oracle",
            each with "_low" and "_high", and "margin" (new/old minus old/old) likewise.
        adapter: the row of an adapter of the same experiment, or None: the adapter is left out.
    Returns:
        Way -> quality. The first day of "reembed" and "dual" is the old system's, because the old index
        answers until the new one is complete; the end of both is the oracle's self-test.
    """

    def made(row: Mapping[str, float], first: str, final: str) -> Quality:
        ends = ("", "_low", "_high")
        values = [float(row[name + end]) for name in (first, final) for end in ends]
        gain = [float(row["margin" + end]) if first == "new_old" else 0.0 for end in ends]
        return Quality(*values, *gain)

    found = {
        "keep": made(compatible, "old_old", "old_old"),
        "reembed": made(compatible, "old_old", "oracle"),
        "dual": made(compatible, "old_old", "oracle"),
    }
    if adapter is not None:
        found["adapter"] = made(adapter, "new_old", "new_old")
    found["compatible"] = made(compatible, "new_old", "new_old")
    found["backfill"] = made(compatible, "new_old", "new_new")
    return found
