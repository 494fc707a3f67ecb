"""Costs of an upgrade against sums made by hand, and the words that they lead to."""

import math
from fractions import Fraction

import numpy as np
import pytest

from companion import costs as module
from companion.cost_words import advice, better_hours, recommended, shown_better, shown_hours, shown_quality
from companion.costs import WAYS, Quality, Scenario, all_costs, break_even_images, cost, qualities

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


def test_keeping_the_old_model_costs_index_and_queries_alone():
    kept = cost(HAND, "keep")
    assert kept.price_once == 0 and kept.training_hours == 0 and kept.upgrade_price == 0
    assert kept.gigabytes == kept.peak_gigabytes == pytest.approx(3.6)
    assert kept.price_per_month == pytest.approx(36 + 3 * QUERIES_OLD)
    assert math.isnan(kept.first_hours) and math.isnan(kept.full_hours)


def test_embedding_everything_again_by_hand():
    again = cost(HAND, "reembed")
    assert (again.training_hours, again.embedding_hours) == pytest.approx((20, 20))
    assert again.price_once == pytest.approx(20 * 3 + 20 * 3 + 36)
    assert again.first_hours == again.full_hours == pytest.approx(20)
    assert again.gigabytes == pytest.approx(3.6) and again.peak_gigabytes == pytest.approx(7.2)
    assert again.price_per_month == pytest.approx(36 + 3 * QUERIES_NEW)
    assert again.upgrade_price == pytest.approx(again.price_once)


def test_two_indexes_double_the_memory_and_ask_two_models():
    dual, again = cost(HAND, "dual"), cost(HAND, "reembed")
    assert dual.price_once == again.price_once and dual.full_hours == again.full_hours
    assert dual.gigabytes == dual.peak_gigabytes == pytest.approx(7.2)
    assert dual.price_per_month == pytest.approx(72 + 3 * (QUERIES_NEW + QUERIES_OLD))
    assert dual.upgrade_price == pytest.approx(156 + 2 * (36 + 3 * QUERIES_OLD))


def test_an_adapter_needs_pairs_and_no_image():
    adapter = cost(HAND, "adapter")
    # 360,000 images by the old model in half an hour, by the new one in an hour; 2 h for the stored features
    assert (adapter.pairing_hours, adapter.mapping_hours) == pytest.approx((1.5, 2))
    assert adapter.embedding_hours == 0 and adapter.full_hours == adapter.first_hours == pytest.approx(2)
    assert adapter.price_once == pytest.approx(3 * (20 + 1.5 + 2))
    assert adapter.peak_gigabytes == pytest.approx(7.2) and adapter.gigabytes == pytest.approx(3.6)


def test_compatible_training_leaves_the_gallery_alone():
    first = cost(HAND, "compatible", relative_training=1.1)
    assert (first.training_hours, first.pairing_hours) == pytest.approx((22, 0.5))
    assert first.embedding_hours == first.mapping_hours == first.first_hours == first.full_hours == 0
    assert first.price_once == pytest.approx(3 * 22.5)
    assert first.peak_gigabytes == first.gigabytes == pytest.approx(3.6)


def test_backfill_adds_the_gallery_and_nothing_to_the_first_day():
    first, later = (cost(HAND, way, relative_training=1.1) for way in ("compatible", "backfill"))
    assert later.price_once - first.price_once == pytest.approx(20 * 3 + 36)
    assert later.first_hours == 0 and later.full_hours == pytest.approx(20)


def test_only_compatible_ways_pay_for_the_methods_effort():
    plain, dear = all_costs(HAND), all_costs(HAND, relative_training=2.0)
    changed = {way for way in WAYS if plain[way].price_once != dear[way].price_once}
    assert changed == {"compatible", "backfill"}
    assert list(plain) == list(WAYS)


def test_break_even_is_where_both_ways_cost_the_same():
    # extra: 2 h of training and half an hour of pairs at 3 = 7.5; an image costs 3 / 360,000 + 5 / 10^6
    expected = 7.5 / (3 / 360_000 + 5e-6)
    images = break_even_images(HAND, 1.1)
    assert images == pytest.approx(expected)
    at = Scenario(**{**HAND.__dict__, "gallery_images": images})
    again, first = cost(at, "reembed"), cost(at, "compatible", 1.1)
    assert again.price_once == pytest.approx(first.price_once)
    assert break_even_images(HAND, 0.5) == 0  # half the effort saves more than the pairs cost
    free = Scenario(**{**HAND.__dict__, "price_per_hour": 0.0, "price_per_million_reads": 0.0})
    assert break_even_images(free, 1.1) == math.inf


@pytest.mark.parametrize("scale", [10.0, 1000.0])
def test_what_grows_with_the_gallery_and_what_does_not(scale):
    large = Scenario(**{**HAND.__dict__, "gallery_images": HAND.gallery_images * scale})
    small, big = all_costs(HAND), all_costs(large)
    assert big["reembed"].full_hours == pytest.approx(scale * small["reembed"].full_hours)
    assert big["compatible"].price_once == small["compatible"].price_once
    assert big["keep"].gigabytes == pytest.approx(scale * small["keep"].gigabytes)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("gallery_images", 0, "above 0"),
        ("images_per_second", -1, "above 0"),
        ("width", float("nan"), "above 0"),
        ("months", float("inf"), "above 0"),
        ("training_images", "many", "above 0"),
        ("training_epochs", True, "above 0"),
        ("price_per_hour", -0.1, "of at least 0"),
        ("queries_per_day", None, "of at least 0"),
    ],
)
def test_impossible_numbers_are_refused(field, value, allowed):
    with pytest.raises(ValueError, match=f"{field} must be a number {allowed}, not"):
        Scenario(**{field: value})


@pytest.mark.parametrize("value", [10**400, 1e300, 1e-300])
def test_what_overflows_is_refused(value):
    with pytest.raises(ValueError, match="gallery_images must be a number from 1e-18 to 1e[+]18, not"):
        Scenario(gallery_images=value)


@pytest.mark.parametrize(
    "many, few", [("gallery_images", "images_per_second"), ("width", "vectors_per_second")]
)
def test_the_largest_and_the_smallest_numbers_stay_finite(many, few):
    scenario = Scenario(**{many: 1e18, few: 1e-18})
    costs = all_costs(scenario, 1.04)
    assert all(math.isfinite(one.upgrade_price) and math.isfinite(one.gigabytes) for one in costs.values())
    said = " ".join(advice(scenario, costs, qualities(row(0.5, 0.6, 0.8, 0.9)), method="M"))
    assert "nan" not in said and " inf" not in said


@pytest.mark.parametrize("kind", [np.int64, np.float32, np.uint8, Fraction])
def test_numbers_of_other_libraries_are_numbers(kind):
    assert all_costs(Scenario(gallery_images=kind(200))) == all_costs(Scenario(gallery_images=200.0))


def test_what_may_be_zero():
    free = Scenario(
        price_per_hour=0, price_per_million_reads=0, price_per_gigabyte_month=0, queries_per_day=0
    )
    assert all(one.price_once == one.price_per_month == 0 for one in all_costs(free).values())


def test_unknown_ways_and_efforts_are_refused():
    with pytest.raises(ValueError, match="There is no way 'wait'. Ways: keep, reembed"):
        cost(HAND, "wait")
    for wrong in (0, -1, math.nan, math.inf, "1", None, True):
        for call in (lambda k: cost(HAND, "keep", relative_training=k), lambda k: break_even_images(HAND, k)):
            with pytest.raises(ValueError, match="relative_training must be a number above 0"):
                call(wrong)
    with pytest.raises(ValueError, match="relative_training must be a number from 1e-18 to 1e[+]18"):
        cost(HAND, "backfill", relative_training=1e300)


def row(old, cross, self_test, oracle, margin=(0.1, 0.05, 0.15)):
    values = {"old_old": old, "new_old": cross, "new_new": self_test, "oracle": oracle}
    found = {}
    for name, value in values.items():
        found |= {name: value, f"{name}_low": value - 0.02, f"{name}_high": value + 0.02}
    return found | dict(zip(("margin", "margin_low", "margin_high"), margin, strict=True))


def test_qualities_take_the_numbers_of_the_right_test():
    found = qualities(row(0.5, 0.6, 0.8, 0.9), row(0.5, 0.58, 0.9, 0.9, margin=(0.08, 0.01, 0.1)))
    assert list(found) == list(WAYS)
    ends = {way: (one.first, one.final) for way, one in found.items()}
    assert ends == {
        "keep": (0.5, 0.5),
        "reembed": (0.5, 0.9),
        "dual": (0.5, 0.9),
        "adapter": (0.58, 0.58),
        "compatible": (0.6, 0.6),
        "backfill": (0.6, 0.8),
    }
    assert found["backfill"].final_low == pytest.approx(0.78)
    assert (found["compatible"].gain_low, found["adapter"].gain_low) == (0.05, 0.01)
    assert found["reembed"].gain_low == 0
    assert "adapter" not in qualities(row(0.5, 0.6, 0.8, 0.9))


def with_numbers(**changes):
    scenario = Scenario(**{**HAND.__dict__, **changes})
    return scenario, all_costs(scenario, 1.1)


def test_who_can_wait_embeds_everything_again():
    found = qualities(row(0.5, 0.6, 0.8, 0.9))
    assert recommended(*with_numbers(patience_hours=24), found) == "reembed"  # it takes 20
    assert recommended(*with_numbers(patience_hours=19), found) == "backfill"


def test_backfill_is_only_advised_where_it_promises_more():
    scenario = with_numbers(patience_hours=1)
    assert recommended(*scenario, qualities(row(0.5, 0.6, 0.8, 0.9))) == "backfill"
    assert recommended(*scenario, qualities(row(0.5, 0.6, 0.61, 0.9))) == "compatible"


def test_a_method_within_the_noise_is_not_advised():
    scenario = with_numbers(patience_hours=1)
    doubtful = row(0.5, 0.51, 0.8, 0.9, margin=(0.01, -0.01, 0.03))
    adapter = row(0.5, 0.55, 0.9, 0.9, margin=(0.05, 0.02, 0.08))
    assert recommended(*scenario, qualities(doubtful, adapter)) == "adapter"
    assert recommended(*scenario, qualities(doubtful)) == "reembed"
    unknown = row(0.5, 0.6, 0.8, 0.9, margin=(math.nan,) * 3)
    assert recommended(*scenario, qualities(unknown)) == "reembed"


def test_the_words_follow_the_numbers():
    scenario, all_ways = with_numbers(patience_hours=1)
    found = qualities(row(0.5, 0.6, 0.8, 0.9), row(0.5, 0.58, 0.9, 0.9))
    said = advice(scenario, all_ways, found, method="BCT", relative_training=1.1)
    text = "\n".join(said)
    assert "better beyond the noise; the query model may be changed today" in said[0]
    assert "7.2 million images again takes 20 hours, longer than your patience of 60 minutes" in text
    assert "costs 96 beside 60 for the training" in text
    assert "It costs 7.5 more than plain training, as much as embedding 562,500 images again" in text
    assert "0.100 short of a model without ties" in text
    assert "within the noise of the first day" in text
    assert "7.2 instead of 3.6 GB" in text
    assert said[-1].startswith("**With these numbers: compatible training, then backfill.**")
    worse = qualities(row(0.5, 0.4, 0.8, 0.9, margin=(-0.1, -0.15, -0.05)))
    assert "do not change the query model" in advice(scenario, all_ways, worse, method="L2")[0]


def test_words_for_a_method_that_costs_less_than_plain_training():
    scenario, _ = with_numbers()
    found = qualities(row(0.5, 0.6, 0.91, 0.9))
    said = "\n".join(
        advice(scenario, all_costs(scenario, 0.7), found, method="MixBCT", relative_training=0.7)
    )
    # 6 of 20 hours saved, half an hour of pairs more: 5.5 h at 3
    assert "costs 16.5 less than plain training" in said
    assert "no less than a model without ties" in said


def when_better(found, **changes):
    """What is said of each way, in the order of WAYS."""
    _, all_ways = with_numbers(**changes)
    return {way: shown_better(all_ways[way], one, found["keep"]) for way, one in found.items()}


def test_answers_are_better_at_once_only_where_they_are_better():
    good = qualities(row(0.5, 0.6, 0.8, 0.9), row(0.5, 0.58, 0.9, 0.9, margin=(0.08, 0.01, 0.1)))
    again = {"keep": "never", "reembed": "20 hours", "dual": "20 hours"}
    assert when_better(good) == again | {"adapter": "2 hours", "compatible": "at once", "backfill": "at once"}
    below = (-0.1, -0.15, -0.05)
    worse = qualities(row(0.5, 0.4, 0.8, 0.9, margin=below), row(0.5, 0.4, 0.9, 0.9, margin=below))
    later = {"adapter": "never", "compatible": "never", "backfill": "20 hours, worse until then"}
    assert when_better(worse) == again | later


def test_a_first_day_within_the_noise_is_undecided():
    for margin in ((0.01, -0.01, 0.03), (-0.01, -0.03, 0.01), (0.1, math.nan, math.nan)):
        found = qualities(row(0.5, 0.51, 0.8, 0.9, margin), row(0.5, 0.51, 0.9, 0.9, margin))
        said = when_better(found)
        assert said["adapter"] == said["compatible"] == "undecided"
        assert said["backfill"] == "20 hours"


def test_a_model_that_ends_no_better_never_makes_better_answers():
    # the old system's interval is 0.48 to 0.52; the ends' intervals are as wide
    below = (-0.1, -0.15, -0.05)
    assert when_better(qualities(row(0.5, 0.4, 0.45, 0.46, below)))["backfill"] == "never"
    assert when_better(qualities(row(0.5, 0.4, 0.45, 0.45, below)))["reembed"] == "never"
    near = when_better(qualities(row(0.5, 0.4, 0.53, 0.53, below)))
    assert near["backfill"] == near["reembed"] == "undecided"
    empty = qualities(row(0.5, 0.6, 0.8, math.nan))
    assert when_better(empty)["reembed"] == "not measured"


def test_hours_until_better_and_their_words_agree():
    _, all_ways = with_numbers()
    found = qualities(row(0.5, 0.4, 0.8, 0.9, margin=(-0.1, -0.15, -0.05)))
    hours = {way: better_hours(all_ways[way], one, found["keep"]) for way, one in found.items()}
    assert hours["reembed"] == hours["dual"] == hours["backfill"] == pytest.approx(20)
    assert math.isnan(hours["keep"]) and math.isnan(hours["compatible"])


def test_the_last_sentence_promises_nothing_that_is_not_measured():
    scenario, all_ways = with_numbers(patience_hours=1)
    below = (-0.1, -0.15, -0.05)
    nothing = qualities(row(0.5, 0.4, 0.5, 0.51, below), row(0.5, 0.4, 0.51, 0.51, below))
    said = advice(scenario, all_ways, nothing, method="L2")
    assert "answers are not better beyond the noise at any time" in said[-1]
    assert "and worse than the old system" in "".join(said)
    unmoved = qualities(row(0.5, 0.4, 0.8, 0.9, below), row(0.5, 0.5, 0.9, 0.9, (0, -0.1, 0.1)))
    said = advice(scenario, all_ways, unmoved, method="L2")
    assert "answers are better after 20 hours" in said[-1]
    assert "and not better beyond the noise than the old system" in "".join(said)


def test_missing_numbers_are_said():
    assert shown_quality(Quality(*[math.nan] * 6)) == "not measured"
    assert shown_quality(Quality(0.5, math.nan, math.nan, 0.6, math.nan, math.nan), "first") == "0.500"
    assert shown_hours(math.nan) == "never"


def test_nothing_heavy_is_needed():
    assert not {"torch", "numpy", "pandas"} & set(vars(module))
