"""Angles of a mixed batch: against loops, against MixBCT itself, and at the ends of every control."""

import math
import re

import numpy as np
import pytest
import torch

from companion import explore
from compat_lib.old_system import credible_rows


def make_sample(classes=5, each=10, width=6, seed=0, absent=1):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    centres = rng.normal(size=(classes + absent, width))
    old, new = (centres[labels] + noise * rng.normal(size=(len(labels), width)) for noise in (0.9, 0.4))
    weight = centres + 0.2 * rng.normal(size=centres.shape)
    return explore.TrainingSample(old, new, labels, weight, title="toy")


@pytest.fixture(scope="module")
def sample():
    return make_sample()


def angle(a, b):
    return math.degrees(
        math.acos(sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b))
    )


@pytest.mark.parametrize("side", ["old", "new"])
@pytest.mark.parametrize("target", ["classifier row", "old prototype"])
def test_angles_and_probabilities_against_a_loop(sample, side, target):
    features, scale = getattr(sample, side).astype(float), 7.0
    tables = {label: sample.weight[label].astype(float) for label in range(6)}
    if target == "old prototype":  # classes without images have none
        tables = {c: sample.old[sample.labels == c].astype(float).mean(0) for c in range(5)}
    for row in (0, 13, 49):
        own = int(sample.labels[row])
        angles = {c: angle(features[row], table) for c, table in tables.items()}
        powers = {c: math.exp(scale * math.cos(math.radians(a))) for c, a in angles.items()}
        assert sample.angles(side, target)[row] == pytest.approx(angles[own], abs=0.01)
        chance = powers[own] / sum(powers.values())
        assert sample.probabilities(side, target, scale)[row] == pytest.approx(chance, rel=1e-4)


def test_replaced_rows_are_credible_and_as_many_as_asked(sample):
    for share in (0.5, 0.9, 1.0):
        credible = credible_rows(
            torch.from_numpy(sample.old), torch.from_numpy(sample.labels), 6, share
        ).numpy()
        assert (sample.credible(share) == credible).all()
        previous = np.zeros(50, bool)
        for ratio in (0.0, 0.1, 0.3, 0.5):
            used = sample.replaced(ratio, share)
            assert used.sum() == round(50 * ratio) and not (used & ~credible).any()
            assert not (previous & ~used).any()  # a larger ratio adds rows and drops none
            previous = used
    assert sample.replaced(0.6, 0.5).sum() == 25  # no more than there are


def test_the_global_random_numbers_stay_as_they_are():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    explore.angle_view(make_sample(), 0.3)
    assert torch.equal(torch.rand(2), expected)


def test_the_sentence_gives_the_numbers_of_the_batch(sample):
    view = explore.angle_view(sample, 0.4, 0.8, 5.0)
    used, credible = sample.replaced(0.4, 0.8), sample.credible(0.8)
    assert f"{used.sum()} of 50 rows are old features, drawn from {credible.sum()} credible ones" in view.text
    new, old = (sample.angles(side, "classifier row") for side in ("new", "old"))
    shown = [int(number) for number in re.findall(r"(\d+)°", view.text)]
    middles = [np.median(new[~used]), np.median(old[used]), np.median(old[~credible])]
    assert shown == [round(middle) for middle in middles]
    chances = {side: sample.probabilities(side, "classifier row", 5.0) for side in ("old", "new")}
    losses = -np.log(np.where(used, chances["old"], chances["new"]).astype(float))
    assert f"old features carry {losses[used].sum() / losses.sum():.0%} of the loss" in view.text
    assert f"{chances['new'][~used].mean():.1%} for new features" in view.text


def test_without_mixing_there_are_no_old_features(sample):
    text = explore.angle_view(sample, 0.0, 1.0).text
    assert text.startswith("toy: 0 of 50 rows") and "old ones mixed in none" in text
    assert "not credible" not in text and "0% of the loss" in text


def test_a_scale_of_nearly_zero_guesses(sample):
    for side, target, classes in (("new", "classifier row", 6), ("old", "old prototype", 5)):
        assert sample.probabilities(side, target, 1e-6) == pytest.approx(np.full(50, 1 / classes), rel=1e-4)


def test_sweeps_draw_three_lines_of_controls(sample):
    view = explore.sweep_view(sample, 0.2, 0.7, 16.0, target="old prototype")
    assert "mix ratio 0.2, credible share 0.7, scale 16, measured against the old prototype" in view.text
    assert view.html.count('class="cx-chart"') == 3


def test_controls_outside_their_range_are_refused(sample):
    with pytest.raises(ValueError, match="mix_ratio must be a number between 0 and 1, not 1.5"):
        explore.angle_view(sample, 1.5)
    with pytest.raises(ValueError, match="scale must be above 0, not 0"):
        explore.angle_view(sample, scale=0)
    with pytest.raises(ValueError, match="the target 'mean' is not known; choose one of classifier row or"):
        explore.angle_view(sample, target="mean")


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"weight": np.ones((2, 3))}, "old features have width 2, new ones 2 and the classifier 3"),
        ({"labels": [0, 1, 2]}, r"labels must lie in 0\.\.1, one for each row of the classifier; got 0\.\.2"),
        ({"labels": [0, 1]}, "there are 3 old rows, 3 new rows and 2 labels"),
    ],
)
def test_a_sample_that_does_not_fit_is_refused(changes, sentence):
    given = {"old": np.ones((3, 2)), "new": np.ones((3, 2)), "labels": [0, 1, 1], "weight": np.eye(2)}
    with pytest.raises(ValueError, match=sentence):
        explore.TrainingSample(**(given | changes))
