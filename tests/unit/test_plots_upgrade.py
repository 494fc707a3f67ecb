"""Pictures of one upgrade: what they compute, and what they say instead of a picture."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from companion import plots
from companion.toy import make_toy, train_toy


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def features(width=4, seed=0):
    labels = np.repeat(np.arange(6), 5)
    centres = np.random.default_rng(seed).normal(size=(6, width))
    return centres[labels] + 0.1 * np.random.default_rng(seed + 1).normal(size=(30, width)), labels


def test_equal_models_have_equal_histograms():
    old, labels = features()
    _, axes = plt.subplots(1, 3)
    plots.model_cosines(axes, old, old.copy(), labels, far=0.1)
    overlaps = [ax.get_title().split("overlap ")[1] for ax in axes]
    assert overlaps[0] == overlaps[1] == overlaps[2]


def test_unequal_widths_are_said_in_the_middle():
    old, labels = features(4)
    new, _ = features(6)
    _, axes = plt.subplots(1, 3)
    plots.model_cosines(axes, old, new, labels, far=0.1)
    assert "old features have 4 coordinates" in axes[1].texts[0].get_text()
    assert axes[0].get_title() and axes[2].get_title() and not axes[1].get_title()
    assert plots.model_map(axes[1], old, new, labels) is None


def test_map_shows_the_identities_asked_for():
    old, labels = features()
    _, ax = plt.subplots()
    joint = plots.model_map(ax, old, old, labels, identities=3)
    assert joint.old.shape == (15, 2) and joint.prototypes.shape == (3, 2)


def test_spread_leaves_out_the_image_itself_and_lone_images():
    _, axes = plt.subplots(2, 1)
    old = np.array([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    plots.feature_spread(axes, {"old": old}, [0, 0, 1])
    right = axes[1].get_legend().get_texts()[0].get_text()
    assert right == "old (n = 2)"  # the third identity has one image
    edges = axes[1].patches[0].get_data().edges
    assert edges[0] <= 0 <= edges[-1]  # with itself in the mean the cosine would be 0.71, without it is 0


def test_toy_row_writes_both_tests():
    toy = make_toy(images=4, outliers=1)
    run = train_toy("bct", toy)
    _, axes = plt.subplots(1, 2)
    plots.toy_row(axes, toy, run, title="BCT")
    assert axes[0].get_title().startswith("BCT, step 80")
    assert axes[1].get_title().startswith("step 300\nnew/new")
