"""Costs of an upgrade against sums made by hand, and the way that they lead to."""

import math

import pytest

from companion.costs import (
    WAYS,
    Measured,
    Quality,
    Scenario,
    all_costs,
    break_even_images,
    cost,
    recommended,
    shown_better,
)

# Chosen so that every product is a number one can check in the head.
HAND = Scenario(
    gallery_images=7_200_000,
    images_per_second=100,  # 72,000 s = 20 h for the gallery
    old_images_per_second=200,
    price_per_hour=3,
    price_per_million_reads=5,  # 36 for the gallery
    width=100,
    bytes_per_number=4,
    bytes_beside=100,  # 500 bytes a vector: 3.6 GB
    price_per_gigabyte_month=10,  # 36 a month
    queries_per_day=86_400,  # 1 a second: 730.5 h x 3600 queries a month
    training_images=360_000,
    training_epochs=10,
    training_images_per_second=50,  # 72,000 s = 20 h
    vectors_per_second=1000,  # 2 h
    months=2,
    patience_hours=24,
)
# One query a second, each a hundredth of a second of the new model: a hundredth of all hours of a month.
QUERIES_NEW = 730.5 / 100  # hours a month
QUERIES_OLD = 730.5 / 200


NAN = math.nan
BY_HAND = {  # gigabytes and peak; the others are made of hours at 3, and of 36 for reading or for a month
    "keep": {
        **dict(training_hours=0, embedding_hours=0, price_once=0, upgrade_price=0, gigabytes=3.6),
        **dict(peak_gigabytes=3.6, price_per_month=36 + 3 * QUERIES_OLD, first_hours=NAN, full_hours=NAN),
    },
    "reembed": {
        **dict(training_hours=20, embedding_hours=20, price_once=20 * 3 + 20 * 3 + 36, upgrade_price=156),
        **dict(first_hours=20, full_hours=20, gigabytes=3.6, peak_gigabytes=7.2),
        **dict(price_per_month=36 + 3 * QUERIES_NEW),
    },
    "dual": {  # two indexes double the memory, and ask two models
        **dict(price_once=156, full_hours=20, gigabytes=7.2, peak_gigabytes=7.2),
        **dict(price_per_month=72 + 3 * (QUERIES_NEW + QUERIES_OLD)),
        **dict(upgrade_price=156 + 2 * (36 + 3 * QUERIES_OLD)),
    },
    # 360,000 images by the old model in half an hour, by the new one in an hour; 2 h for the stored features
    "adapter": {
        **dict(pairing_hours=1.5, mapping_hours=2, embedding_hours=0, first_hours=2, full_hours=2),
        **dict(price_once=3 * (20 + 1.5 + 2), gigabytes=3.6, peak_gigabytes=7.2),
    },
    "compatible": {  # with 1.1 times the training
        **dict(training_hours=22, pairing_hours=0.5, embedding_hours=0, mapping_hours=0, first_hours=0),
        **dict(full_hours=0, price_once=3 * 22.5, gigabytes=3.6, peak_gigabytes=3.6),
    },
    "backfill": dict(price_once=3 * 22.5 + 20 * 3 + 36, first_hours=0, full_hours=20),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_by_hand(way):
    found = cost(HAND, way, relative_training=1.1).__dict__
    assert {name: found[name] for name in BY_HAND[way]} == pytest.approx(BY_HAND[way], nan_ok=True)


def test_break_even_is_where_both_ways_cost_the_same():
    # extra: 2 h of training and half an hour of pairs at 3 = 7.5; an image costs 3 / 360,000 + 5 / 10^6
    expected = 7.5 / (3 / 360_000 + 5e-6)
    images = break_even_images(HAND, 1.1)
    assert images == pytest.approx(expected)
    at = with_numbers(gallery_images=images)[0]
    again, first = cost(at, "reembed"), cost(at, "compatible", 1.1)
    assert again.price_once == pytest.approx(first.price_once)
    assert break_even_images(HAND, 0.5) == 0  # half the effort saves more than the pairs cost
    assert break_even_images(with_numbers(price_per_hour=0, price_per_million_reads=0)[0], 1.1) == math.inf


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("gallery_images", 0, "above 0"),
        ("images_per_second", -1, "above 0"),
        ("width", float("nan"), "above 0"),
        ("months", float("inf"), "above 0"),
        ("vectors_per_second", 10**400, "above 0"),
        ("training_images", "many", "above 0"),
        ("training_epochs", True, "above 0"),
        ("price_per_hour", -0.1, "of at least 0"),
        ("queries_per_day", None, "of at least 0"),
    ],
)
def test_impossible_numbers_are_refused(field, value, allowed):
    with pytest.raises(ValueError, match=f"{field} must be a number {allowed}, not"):
        Scenario(**{field: value})


def test_a_price_may_be_zero():
    free = dict.fromkeys(("price_per_hour", "price_per_million_reads", "price_per_gigabyte_month"), 0)
    ways = all_costs(Scenario(**free, queries_per_day=0))
    assert all(one.price_once == one.price_per_month == 0 for one in ways.values())


def around(value):
    return Measured(value, value - 0.02, value + 0.02)


def qualities(cross, end, oracle=0.9, gain=(0.1, 0.05, 0.15), adapter=None):
    """What ways reach where the old system stands at 0.5 [0.48, 0.52]; `adapter`: its cross-test and gain."""
    old = around(0.5)
    found = {"keep": Quality(old, old), "reembed": Quality(old, around(oracle))}
    found |= {"dual": found["reembed"], "compatible": Quality(around(cross), around(cross), Measured(*gain))}
    found["backfill"] = Quality(around(cross), around(end), Measured(*gain))
    if adapter is not None:
        found["adapter"] = Quality(around(adapter[0]), around(adapter[0]), Measured(*adapter[1]))
    return found


def with_numbers(**changes):
    scenario = Scenario(**{**HAND.__dict__, **changes})
    return scenario, all_costs(scenario, 1.1)


NOISE = (0.01, -0.01, 0.03)


@pytest.mark.parametrize(
    ("patience", "found", "way"),
    [
        (24, {"cross": 0.6, "end": 0.8}, "reembed"),  # it takes 20 hours
        (19, {"cross": 0.6, "end": 0.8}, "backfill"),
        (1, {"cross": 0.6, "end": 0.61}, "compatible"),  # a backfill would promise no more
        (1, {"cross": 0.51, "end": 0.8, "gain": NOISE, "adapter": (0.55, (0.05, 0.02, 0.08))}, "adapter"),
        (1, {"cross": 0.51, "end": 0.8, "gain": NOISE}, "reembed"),  # a method within the noise
        (1, {"cross": 0.6, "end": 0.8, "gain": (math.nan,) * 3}, "reembed"),
    ],
)
def test_what_is_recommended(patience, found, way):
    assert recommended(*with_numbers(patience_hours=patience), qualities(**found)) == way


def when_better(found):
    """What is said of each way."""
    _, all_ways = with_numbers()
    return {way: shown_better(all_ways[way], one, found["keep"]) for way, one in found.items()}


BELOW = (-0.1, -0.15, -0.05)
AGAIN = {"keep": "never", "reembed": "20 hours", "dual": "20 hours"}


def test_answers_are_better_at_once_only_where_they_are_better():
    good = when_better(qualities(0.6, 0.8, adapter=(0.58, (0.08, 0.01, 0.1))))
    assert good == AGAIN | {"adapter": "2 hours", "compatible": "at once", "backfill": "at once"}
    worse = when_better(qualities(0.4, 0.8, gain=BELOW, adapter=(0.4, BELOW)))
    later = {"adapter": "never", "compatible": "never", "backfill": "20 hours, worse until then"}
    assert worse == AGAIN | later


@pytest.mark.parametrize("gain", [(0.01, -0.01, 0.03), (-0.01, -0.03, 0.01), (0.1, math.nan, math.nan)])
def test_a_first_day_within_the_noise_is_undecided(gain):
    said = when_better(qualities(0.51, 0.8, gain=gain, adapter=(0.51, gain)))
    assert said["adapter"] == said["compatible"] == "undecided" and said["backfill"] == "20 hours"


def test_a_model_that_ends_no_better_never_makes_better_answers():
    assert when_better(qualities(0.4, 0.45, gain=BELOW))["backfill"] == "never"
    assert when_better(qualities(0.4, 0.45, oracle=0.45, gain=BELOW))["reembed"] == "never"
    near = when_better(qualities(0.4, 0.53, oracle=0.53, gain=BELOW))
    assert near["backfill"] == near["reembed"] == "undecided"
    assert when_better(qualities(0.6, 0.8, oracle=math.nan))["reembed"] == "not measured"
