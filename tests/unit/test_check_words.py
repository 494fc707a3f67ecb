import pytest

from compat_lib.deploy.check.words import basis, metric_far, metric_name, paragraph, shown, title, verdict
from compat_lib.evaluation import tar_name

METRIC = "tar@far=1e-3"
DECIDED, OPEN, UNKNOWN = 0.01, 1.0, None  # half widths of an interval


def numbers(old, cross, new, adapter=None, width=DECIDED, metric=METRIC, chance=1e-3, **others):
    """The names that the paragraph reads; every number has an interval of this half width, or none."""

    def ends(name, value):
        if width is None:
            return {name: value}
        return {name: value, f"{name}/low": value - width, f"{name}/high": value + width}

    values = {f"chance/{metric}": chance}
    for name, value in (("old_old", old), ("new_old", cross), ("new_new", new)):
        values |= {f"{name}/{metric}": value, f"{name}/{metric}/low": value - 0.01}
        values[f"{name}/{metric}/high"] = value + 0.01
    values |= ends(f"gain/{metric}", cross - old) | ends(f"backfill_gain/{metric}", new - cross)
    values |= ends(f"full_gain/{metric}", new - old)
    if adapter is not None:
        values |= ends(f"adapter/ridge/new_old/{metric}", adapter)
        values |= ends(f"adapter/ridge/gain/{metric}", adapter - old)
        values |= ends(f"adapter/ridge/over_new/{metric}", adapter - cross)
        values |= {"adapter/identities": 150, "width": 64}
    values |= {"changes/negative_flips": 0.0123, "changes/positive_flips": 0.25}
    values |= {"images": 4000, "identities": 300, "queries": 4000, "query_identities": 250}
    return values | {"draws": 0 if width is None else 200, "seed": 0} | others


def words(*args, metric=METRIC, **options):
    values = numbers(*args, metric=metric, **options)
    adapter = "ridge" if f"adapter/ridge/gain/{metric}" in values else None
    return paragraph(values, metric, adapter=adapter)


def test_a_compatible_upgrade_word_by_word():
    assert words(0.5, 0.6, 0.75, adapter=0.4) == (
        "Compatible: in the old gallery new queries reach 0.600 [0.590, 0.610] in TAR at FAR 1e-3, old "
        "queries 0.500 [0.490, 0.510]. That gains +0.100 [+0.090, +0.110] over keeping the old model, and "
        "the gallery stays as it is. A full backfill (embedding the whole gallery again) would add +0.150 "
        "[+0.140, +0.160] and reach 0.750 [0.740, 0.760]. An adapter alone (a linear map of the stored old "
        "features into the new space, judged on identities to which it was not fitted; ridge is the better "
        "of two) would reach 0.400 [0.390, 0.410]: worse than new queries without it (-0.200 [-0.210, "
        "-0.190]), and worse than keeping the old model (-0.100 [-0.110, -0.090]). The swap "
        "breaks a right first answer for 1.2 % of the queries and mends a wrong one for 25.0 %."
    )


def test_an_adapter_that_saw_few_identities_is_not_called_the_best_there_is():
    few = words(0.5, 0.6, 0.75, adapter=0.4, **{"adapter/identities": 127})
    assert "It is fitted to 127 identities only, for 64 coordinates: more may lift it. The swap" in few
    assert "It is fitted" not in words(0.5, 0.6, 0.75, adapter=0.4, **{"adapter/identities": 128})


def test_its_basis_word_by_word():
    assert basis(numbers(0.5, 0.6, 0.75), METRIC) == (
        "Measured on 4,000 images of 300 identities, each of them a query. TAR at FAR 1e-3 is the share of "
        "the pairs of one identity that are accepted at a threshold which accepts 0.1 % of the pairs of "
        "different identities. Brackets are 95 % intervals over identities (200 draws, seed 0); compatible "
        "means that the one of new/old minus old/old lies above zero, not compatible that it lies below, "
        "and undecided that it holds zero."
    )


@pytest.mark.parametrize(
    "cross, width, start, part",
    [
        (0.6, DECIDED, "Compatible: ", "That gains +0.100 [+0.090, +0.110] over keeping the old model"),
        (0.4, DECIDED, "Not compatible: ", "The swap loses: -0.100 [-0.110, -0.090] against keeping"),
        (0.6, OPEN, "Undecided: ", "of the difference, +0.100 [-0.900, +1.100], holds zero: these images"),
        (0.4, OPEN, "Undecided: ", "of the difference, -0.100 [-1.100, +0.900], holds zero: these images"),
        (0.5, OPEN, "Undecided: ", "of the difference, +0.000 [-1.000, +1.000], holds zero: these images"),
        (0.5, 0.0, "Not compatible: ", "There is no gain over keeping the old model, and the criterion"),
        (0.5, UNKNOWN, "Not compatible: ", "There is no gain over keeping the old model, and the criterion"),
        (0.6, UNKNOWN, "Compatible: ", "nobody can say whether it is noise"),
        (0.4, UNKNOWN, "Not compatible: ", "nobody can say whether it is noise"),
    ],
)
def test_the_verdict(cross, width, start, part):
    text = words(0.5, cross, 0.8, width=width)
    assert text.startswith(start) and part in text
    assert verdict(numbers(0.5, cross, 0.8, width=width), METRIC) == start.lower().removesuffix(": ")
    assert "adapter" not in text.lower()


@pytest.mark.parametrize("cross", [0.6, 0.4])
def test_five_identities_decide_nothing(cross):
    # All of them move one way by chance in 2 of 2**5 cases, and then every draw says so.
    few = words(0.5, cross, 0.8, adapter=0.4, query_identities=5)
    assert few.startswith("Undecided: ") and "holds zero" not in few
    assert "but only 5 identities have two images or more, and with fewer than 6 chance" in few
    assert "whether that is more is not decidable" in few and "not clearly different from new queries" in few
    assert verdict(numbers(0.5, cross, 0.8, query_identities=6), METRIC) != "undecided"
    assert verdict(numbers(0.5, cross, 0.8, query_identities=5, width=None), METRIC) != "undecided"
    said = basis(numbers(0.5, cross, 0.8, query_identities=5), METRIC)
    assert "from which nothing is decided, because only 5 identities have two images" in said


@pytest.mark.parametrize("low, high", [(0.0, 0.2), (-0.2, 0.0), (-1e-9, 0.2)])
def test_an_interval_that_touches_zero_decides_nothing(low, high):
    values = {"gain/map": 0.1, "gain/map/low": low, "gain/map/high": high}
    assert verdict(values, "map") == "undecided"
    assert verdict(values, "map", same=True) == "not compatible"


@pytest.mark.parametrize(
    "old, cross, new, width, part",
    [
        (0.5, 0.6, 0.8, DECIDED, "would add +0.200 [+0.190, +0.210] and reach 0.800 [0.790, 0.810]. The"),
        (
            0.5,
            0.4,
            0.8,
            DECIDED,
            "reach 0.800 [0.790, 0.810]. Against today's old/old that is +0.300 [+0.290,",
        ),
        (
            0.5,
            0.4,
            0.3,
            DECIDED,
            "-0.200 [-0.210, -0.190] against today's old/old: by itself, too, the new model",
        ),
        (
            0.5,
            0.6,
            0.4,
            DECIDED,
            "-0.100 [-0.110, -0.090] against today's old/old: by itself, too, the new model",
        ),
        (
            0.5,
            0.7,
            0.6,
            DECIDED,
            "would not add to that: it would reach 0.600 [0.590, 0.610], a change of -0.100",
        ),
        (0.5, 0.6, 0.605, DECIDED, "whether that is more is not decidable (+0.005 [-0.005, +0.015])"),
        (0.5, 0.4, 0.505, DECIDED, "that is no clear difference (+0.005 [-0.005, +0.015])"),
        (
            0.5,
            0.6,
            0.8,
            UNKNOWN,
            "would add +0.200 and reach 0.800 [0.790, 0.810]. Against today's old/old that is",
        ),
        (
            0.5,
            0.6,
            0.55,
            UNKNOWN,
            "would not add to that: it would reach 0.550 [0.540, 0.560], a change of -0.050",
        ),
    ],
)
def test_what_a_full_backfill_adds(old, cross, new, width, part):
    assert part in words(old, cross, new, width=width)


@pytest.mark.parametrize(
    "cross, adapter, width, against_new, against_old",
    [
        (
            0.6,
            0.7,
            DECIDED,
            "better than new queries without it (+0.100",
            "better than keeping the old model (+0.200",
        ),
        (
            0.6,
            0.55,
            DECIDED,
            "worse than new queries without it (-0.050",
            "better than keeping the old model",
        ),
        (0.1, 0.3, DECIDED, "better than new queries without it", "worse than keeping the old model (-0.200"),
        (
            0.6,
            0.6,
            DECIDED,
            "not clearly different from new queries without it (+0.000",
            "better than keeping",
        ),
        (0.6, 0.505, DECIDED, "worse than new", "not clearly different from keeping the old model (+0.005"),
        (0.6, 0.7, UNKNOWN, "+0.100 against new queries without it", "+0.200 against keeping the old model."),
    ],
)
def test_what_an_adapter_reaches(cross, adapter, width, against_new, against_old):
    text = words(0.5, cross, 0.8, adapter=adapter, width=width)
    assert f"would reach {adapter:.3f}" in text
    assert f": {against_new}" in text and f", and {against_old}" in text


@pytest.mark.parametrize(
    "old, cross, chance, apart, doubt",
    [
        (0.5, 0.002, 1e-3, True, False),
        (0.5, 0.0, 1e-3, True, False),
        (0.5, 0.1, 1e-3, False, False),
        (0.5, 0.45, 0.44, False, False),
        (0.5, 0.441, 0.44, True, False),
        (0.505, 0.6, 0.5, False, True),  # its interval reaches down to chance
        (0.505, 0.4, 0.5, False, True),
    ],
)
def test_chance_is_named(old, cross, chance, apart, doubt):
    text = words(old, cross, 0.8, chance=chance)
    assert ("about what chance gives" in text) == apart
    assert ("not clearly better than chance" in text) == doubt


def test_the_same_features_need_no_more_words():
    text = paragraph(numbers(0.5, 0.5, 0.5), METRIC, same=True, adapter="ridge")
    assert text.startswith("Not compatible: both sides hold the same") and "Every test gives 0.500" in text
    assert "backfill" not in text and "adapter" not in text and "breaks" not in text


def test_what_it_was_measured_on():
    some = basis(numbers(0.5, 0.6, 0.8, queries=50, seed=3), METRIC)
    assert "of which 50, drawn at random (seed 3), are queries that search all the others" in some
    assert basis(numbers(0.5, 0.6, 0.8, width=None), METRIC).endswith("There are no intervals.")
    rough = basis(numbers(0.5, 0.6, 0.8, query_identities=7), METRIC)
    assert "seed 0), rough ones, because only 7 identities have two images or more; comp" in rough
    assert "only 1 identity has two images" in basis(numbers(0.5, 0.6, 0.8, query_identities=1), METRIC)


@pytest.mark.parametrize("metric", ["map", "rank1", "rank5", "tar@far=2.5e-2"])
def test_every_metric_is_explained(metric):
    text = words(0.5, 0.6, 0.8, metric=metric)
    assert f"in {title(metric)}, old queries" in text
    assert f"{title(metric)} is " in basis(numbers(0.5, 0.6, 0.8, metric=metric), metric)


@pytest.mark.parametrize("text", ["tar@far=0.001", "TAR@FAR=1E-3", " tar@far=.001", "tar@far=10e-4"])
def test_names_of_metrics(text):
    assert metric_name(text) == METRIC and metric_far(METRIC) == 1e-3


@pytest.mark.parametrize("far", [1e-10, 1e-4, 0.025, 0.3, 1.0, 1 / 3])
def test_names_are_those_of_the_evaluation(far):
    assert metric_name(f"tar@far={far!r}") == tar_name(far)


@pytest.mark.parametrize(
    "text", ["", "auc", "rank2", "tar", "tar@far=", "tar@far=0", "tar@far=2", "tar@far=1.2.3"]
)
def test_other_metrics_are_refused(text):
    with pytest.raises(ValueError, match="is not known; choose map, rank1, rank5, or tar@far=F"):
        metric_name(text)


def test_numbers_are_shown_with_the_digits_they_need():
    values = {"a": 0.1234, "b": 0.0, "b/low": -0.0001, "b/high": 0.5, "c": None, "d": -0.0}
    assert shown(values, "a") == "0.123" and shown(values, "c") == "n/a" and shown(values, "e") == "n/a"
    assert shown(values, "b", signed=True) == "+0.0000 [-0.0001, +0.5000]"
    assert shown(values, "d", signed=True) == "+0.000"
