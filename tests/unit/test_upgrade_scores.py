import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compat_lib.evaluation.compatibility import update_gain
from compat_lib.evaluation.upgrade_scores import upgrade_scores

# AdvBCT's table of results (arXiv 2305.02610, picture in its repository), mAP in per cent: self-test and
# cross-test on RParis, ROxford and GLDv2; then P_up, P_comp and P_1 as printed.
SETS = ("RParis", "ROxford", "GLDv2")
PRINTED = {
    "ext-data": (
        (75.45, 49.15, 10.03),
        (81.15, 63.85, 16.48),
        {
            "BCT": ((80.58, 56.34, 14.61), (77.37, 49.66, 11.30), (48.02, 54.71, 51.13)),
            "UniBCT": ((80.93, 57.24, 16.06), (78.30, 50.97, 13.25), (48.90, 59.19, 53.52)),
            "Hot-refresh": ((79.57, 58.15, 13.88), (76.53, 50.05, 10.35), (47.78, 52.50, 50.03)),
            "AdvBCT": ((82.78, 62.13, 15.71), (78.55, 52.31, 11.49), (49.55, 58.09, 53.45)),
            "independent": ((81.15, 63.85, 16.48), (4.93, 1.20, 0.2), (50.0, 7.19, None)),
        },
    ),
    "ext-class": (
        (74.29, 54.34, 11.43),
        (81.15, 63.85, 16.48),
        {
            "BCT": ((79.45, 58.94, 14.79), (76.13, 53.43, 12.26), (48.33, 52.79, 50.41)),
            "LCE": ((81.26, 60.49, 16.07), (76.78, 54.29, 12.04), (49.37, 53.95, 51.51)),
            "UniBCT": ((76.92, 59.07, 14.80), (74.55, 57.82, 12.31), (48.09, 54.78, 51.17)),
            "Hot-refresh": ((78.93, 60.31, 14.0), (75.33, 51.68, 10.41), (48.06, 47.26, 47.57)),
            "AdvBCT": ((82.05, 64.51, 16.44), (77.16, 54.82, 12.05), (50.16, 54.87, 52.35)),
            "independent": ((81.15, 63.85, 16.48), (4.93, 1.29, 0.2), (50.0, 3.38, None)),
        },
    ),
    "ext-backbone": (
        (75.45, 49.15, 10.03),
        (87.66, 76.56, 22.12),
        {
            "BCT": ((85.54, 68.66, 19.11), (78.95, 54.42, 12.78), (47.81, 55.86, 51.52)),
            "LCE": ((87.49, 75.16, 21.85), (79.36, 57.18, 13.30), (49.73, 57.31, 53.25)),
            "UniBCT": ((84.37, 67.42, 21.57), (78.91, 56.18, 13.42), (48.48, 56.80, 52.31)),
            "Hot-refresh": ((86.78, 75.10, 20.61), (78.81, 57.84, 12.41), (49.19, 56.53, 52.60)),
            "AdvBCT": ((86.79, 75.71, 20.77), (79.08, 59.03, 12.75), (49.31, 57.30, 53.01)),
            "independent": ((87.66, 76.56, 22.12), (4.81, 2.26, 0.2), (50.0, 15.44, None)),
        },
    ),
}
ROWS = [(block, method) for block, (_, _, methods) in PRINTED.items() for method in methods]


def by_set(values, factor=1.0):
    return {name: factor * value for name, value in zip(SETS, values, strict=True)}


@pytest.mark.parametrize("block, method", ROWS)
@pytest.mark.parametrize("unit", [1.0, 0.01], ids=["per cent", "fractions"])
def test_rows_of_the_published_table(block, method, unit):
    old, oracle, methods = PRINTED[block]
    new_self, cross, printed = methods[method]
    result = upgrade_scores(*(by_set(x, unit) for x in (new_self, cross, old, oracle)))
    for score, expected in zip((result.up, result.comp, result.one), printed, strict=True):
        if expected is not None:
            assert score == pytest.approx(expected, abs=0.01)


def test_one_data_set_by_hand():
    # The self-test loses a tenth of the oracle; the cross-test brings a half of the possible gain.
    result = upgrade_scores(0.81, 0.7, 0.5, 0.9)
    up, comp = 100 / (1 + math.exp(0.1)), 100 / (1 + math.exp(-0.5))
    assert result.metrics == pytest.approx({"p_up": up, "p_comp": comp, "p_1": 2 / (1 / up + 1 / comp)})
    assert result.by_set == {"": result.metrics}
    assert result.summary() == "p_up 47.50, p_comp 62.25, p_1 53.88 (per cent, 50 is neutral; 1 data set)"


@settings(deadline=None)
@given(old=st.floats(0.01, 0.98), share=st.floats(0.01, 0.99))
def test_neutral_points(old, share):
    oracle = old + share * (1 - old)
    kept = upgrade_scores(oracle, old, old, oracle)  # the old gallery answers as before
    assert (kept.up, kept.comp, kept.one) == pytest.approx((50, 50, 50))
    swap = upgrade_scores(oracle, oracle, old, oracle)
    assert swap.comp == pytest.approx(100 / (1 + math.exp(-1)))
    assert min(swap.up, swap.comp) <= swap.one <= max(swap.up, swap.comp)
    better = upgrade_scores(oracle * 1.01, oracle, old, oracle)
    assert better.up > 50 and better.comp == swap.comp


def test_what_cannot_be_scored_is_none():
    assert upgrade_scores(0.8, None, 0.5, 0.9).comp is None
    weak = upgrade_scores(0.8, 0.6, 0.5, 0.5)  # the oracle is not better than the old model: no gain
    assert update_gain(0.6, 0.5, 0.5) is None
    assert weak.up is not None and weak.comp is None and weak.one is None
    assert upgrade_scores(0.0, 0.0, 0.0, 0.0).metrics == {"p_up": None, "p_comp": None, "p_1": None}
    cross = {"a": 0.6, "b": None}
    result = upgrade_scores(*({"a": x, "b": x} if x else cross for x in (0.8, 0, 0.5, 0.9)))
    assert result.comp is None and result.by_set["a"]["p_comp"] > 50
    assert "p_comp n/a" in result.summary() and "2 data sets" in result.summary()


def test_far_below_the_old_system_there_is_no_overflow():
    assert upgrade_scores(0.5, 0.0, 0.5, 0.5 + 1e-6).comp == pytest.approx(0.0)


@pytest.mark.parametrize(
    "values, message",
    [
        (({"a": 1}, {"b": 1}, {"a": 1}, {"a": 1}), "different data sets, or for none"),
        (({}, {}, {}, {}), "different data sets, or for none"),
        ((0.5, {"a": 1}, 0.5, 0.5), "different data sets"),
        ((-0.1, 0.5, 0.5, 0.5), "a value of -0.1 was given"),
        ((float("nan"), 0.5, 0.5, 0.5), "a value of nan was given"),
    ],
)
def test_bad_input_gets_a_sentence(values, message):
    with pytest.raises(ValueError, match=message):
        upgrade_scores(*values)
