"""What the costs of an upgrade mean, in sentences that are computed from the numbers: which way for whom."""

from __future__ import annotations

import math
from collections.abc import Mapping

from companion.costs import WAYS, Cost, Quality, Scenario, break_even_images, embedding_price


def shown_hours(hours: float) -> str:
    """A time in the unit in which one thinks of it.

    >>> shown_hours(0.0278), shown_hours(1.5), shown_hours(69.4), shown_hours(0)
    ('100 seconds', '90 minutes', '2.9 days', 'at once')
    """
    if math.isnan(hours):
        return "never"
    if hours == 0:
        return "at once"
    for unit, length in (("days", 24), ("hours", 1), ("minutes", 1 / 60)):
        if hours >= 2 * length:
            return f"{hours / length:,.0f} {unit}" if hours >= 10 * length else f"{hours / length:.2g} {unit}"
    seconds = 3600 * hours
    return f"{seconds:,.0f} seconds" if seconds >= 10 else f"{seconds:.2g} seconds"


def shown_price(price: float) -> str:
    """A price with as many digits as matter.

    >>> shown_price(1234.5), shown_price(3.14159), shown_price(0)
    ('1,234', '3.14', '0')
    """
    if price == 0:
        return "0"
    return f"{price:,.0f}" if abs(price) >= 100 else f"{price:.3g}"


def shown_images(images: float) -> str:
    """A number of images in words.

    >>> shown_images(2.5e6), shown_images(1e8), shown_images(900)
    ('2.5 million', '100 million', '900')
    """
    for name, size in (("billion", 1e9), ("million", 1e6)):
        if images >= 0.9995 * size:  # or it would be 1e+03 of the smaller
            return f"{images / size:.3g} {name}"
    return f"{images:,.0f}"


def shown_quality(quality: Quality, when: str = "final") -> str:
    """A quality with its interval; `when` is "first" or "final".

    >>> shown_quality(Quality(0.5, 0.4, 0.6, 0.9, 0.85, 0.95), "first")
    '0.500 [0.400, 0.600]'
    """
    value, low, high = (getattr(quality, when + end) for end in ("", "_low", "_high"))
    if math.isnan(value):
        return "not measured"
    return f"{value:.3f}" + ("" if math.isnan(low) else f" [{low:.3f}, {high:.3f}]")


def better_hours(cost: Cost, quality: Quality, kept: Quality) -> float:
    """Hours after the training until answers are better than the old system's beyond the noise; nan: never.

    The first answers count where the interval of their gain lies above zero. Otherwise a way that embeds the
    gallery is better when that is done, if the interval of its end lies above the old system's.

    Args:
        cost: of one way.
        quality: of the same way.
        kept: of the way "keep".

    >>> from companion.costs import cost
    >>> old = Quality(0.5, 0.4, 0.6, 0.5, 0.4, 0.6)
    >>> worse = Quality(0.4, 0.3, 0.5, 0.8, 0.7, 0.9, gain=-0.1, gain_low=-0.2, gain_high=-0.05)
    >>> hour = Scenario(gallery_images=3600, images_per_second=1)
    >>> better_hours(cost(hour, "backfill"), worse, old), better_hours(cost(hour, "compatible"), worse, old)
    (1.0, nan)
    """
    if quality.gain_low > 0:
        return cost.first_hours
    return cost.full_hours if cost.embedding_hours and quality.final_low > kept.final_high else math.nan


def shown_better(cost: Cost, quality: Quality, kept: Quality) -> str:
    """When a way's answers are better than the old system's beyond the noise, after the training.

    "never" where they stay as they are or end beyond the noise below the old system's, "undecided" where what
    they end at is within the noise, or the noise is not known. What is worse in the meantime is said.

    Args:
        cost, quality, kept: as in `better_hours`.

    >>> from companion.costs import cost
    >>> old = Quality(0.5, 0.4, 0.6, 0.5, 0.4, 0.6)
    >>> shown_better(cost(Scenario(), "keep"), old, old)
    'never'
    """
    hours = better_hours(cost, quality, kept)
    if not math.isnan(hours):
        return shown_hours(hours) + (", worse until then" if quality.gain_high < 0 else "")
    if math.isnan(cost.full_hours):
        return "never"
    if math.isnan(quality.final):
        return "not measured"
    below = quality.final_high < kept.final_low if cost.embedding_hours else quality.gain_high < 0
    return "never" if below else "undecided"


def recommended(scenario: Scenario, costs: Mapping[str, Cost], quality: Mapping[str, Quality]) -> str:
    """The way to take with these numbers, one of WAYS.

    Embedding everything again where users can wait for it and it costs no more. Otherwise compatible training
    where its first day is better beyond the noise, with backfill where that promises more beyond the noise.
    Otherwise an adapter that is better beyond the noise, and as the last resort embedding again.
    """
    again, later = costs["reembed"], costs["backfill"]
    if again.full_hours <= scenario.patience_hours and again.upgrade_price <= later.upgrade_price:
        return "reembed"
    if quality["compatible"].gain_low > 0:
        more = quality["backfill"].final_low > quality["backfill"].first_high
        return "backfill" if more else "compatible"
    if "adapter" in quality and quality["adapter"].gain_low > 0:
        return "adapter"
    return "reembed"


def advice(
    scenario: Scenario,
    costs: Mapping[str, Cost],
    quality: Mapping[str, Quality],
    *,
    method: str,
    relative_training: float = 1.0,
) -> list[str]:
    """Sentences for readers in different positions, the last one for the given numbers.

    Args:
        scenario, costs, quality: of one gallery; see `companion.costs`.
        method: title of the compatible method.
        relative_training: k, as given to `all_costs`.
    """
    again, first = costs["reembed"], costs["compatible"]
    said = [_first_day(quality, method)]
    wait = "within" if again.full_hours <= scenario.patience_hours else "longer than"
    said.append(
        f"**You still have every image.** Embedding {shown_images(scenario.gallery_images)} images again "
        f"takes {shown_hours(again.full_hours)}, {wait} your patience of "
        f"{shown_hours(scenario.patience_hours)}, and costs {shown_price(embedding_price(scenario))} beside "
        f"{shown_price(again.price_once - embedding_price(scenario))} for the training. It ends at "
        f"{shown_quality(quality['reembed'])}, the best that a new model without ties reaches."
    )
    said.append(_compatible(scenario, first, quality, method, relative_training))
    if "adapter" in quality:
        said.append(_adapter(costs["adapter"], quality))
    dual = costs["dual"]
    said.append(
        "**You must be able to go back within a second.** Two indexes keep both systems alive: "
        f"{dual.gigabytes:,.3g} instead of {again.gigabytes:,.3g} GB, and two models for each query, "
        f"{shown_price(dual.price_per_month - again.price_per_month)} more a month. What answers merged from "
        "both would be worth is not measured here."
    )
    way = recommended(scenario, costs, quality)
    hours = better_hours(costs[way], quality[way], quality["keep"])
    better = "not better beyond the noise at any time" if math.isnan(hours) else f"better {_after(hours)}"
    said.append(
        f"**With these numbers: {WAYS[way]}.** It costs {shown_price(costs[way].upgrade_price)} over "
        f"{scenario.months:g} months; counted from the end of the training, answers are "
        f"{better}, and nothing more is to come {_after(costs[way].full_hours)}."
    )
    return said


def _after(hours: float) -> str:
    return "from the first minute" if hours == 0 else f"after {shown_hours(hours)}"


def _first_day(quality: Mapping[str, Quality], method: str) -> str:
    day = quality["compatible"]
    if day.gain_low > 0:
        verdict = "better beyond the noise; the query model may be changed today"
    elif day.gain_high < 0:
        verdict = "worse beyond the noise; do not change the query model without backfill"
    else:
        verdict = "not better beyond the noise; measure on more images before you change the query model"
    return (
        f"**Everybody.** On the untouched gallery the new model by {method} reaches "
        f"{shown_quality(day, 'first')}, the old one {shown_quality(quality['keep'])}: {verdict}."
    )


def _compatible(
    scenario: Scenario, first: Cost, quality: Mapping[str, Quality], method: str, relative_training: float
) -> str:
    extra = (relative_training - 1) * first.training_hours / relative_training + first.pairing_hours
    enough = break_even_images(scenario, relative_training)
    price = extra * scenario.price_per_hour
    if price > 0:
        what = (
            f"It costs {shown_price(price)} more than plain training, as much as embedding "
            f"{shown_images(enough)} images again"
        )
    else:
        what = f"By its measured effort it costs {shown_price(-price)} less than plain training"
    end = quality["backfill"]
    gap = quality["reembed"].final - end.final
    if gap > 0:
        finish = f"{shown_quality(end)}, {gap:.3f} short of a model without ties"
    else:
        finish = f"{shown_quality(end)}, no less than a model without ties"
    return (
        f"**You cannot wait, or part of the images is gone.** {method} works without touching the gallery. "
        f"{what}. What is embedded again later, in whatever order and at whatever pace, ends at {finish}."
    )


def _adapter(cost: Cost, quality: Mapping[str, Quality]) -> str:
    mapped, day = quality["adapter"], quality["compatible"]
    if mapped.first_low > day.first_high:
        beside = "more than"
    elif mapped.first_high < day.first_low:
        beside = "less than"
    else:
        beside = "within the noise of"
    return (
        "**The new model is there and was trained without the old one.** An adapter maps every stored "
        f"feature in {shown_hours(cost.full_hours)} without an image, and reaches {shown_quality(mapped)}, "
        f"{beside} the first day of the compatible model and {_beside_old(mapped)} the old system. It must "
        "be fitted on images that both models have seen."
    )


def _beside_old(day: Quality) -> str:
    if day.gain_low > 0:
        return "better than"
    return "worse than" if day.gain_high < 0 else "not better beyond the noise than"
