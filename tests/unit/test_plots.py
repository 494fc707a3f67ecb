"""Pictures: what is drawn, where the legend is, and that equal data give equal bytes."""

import json

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex

from companion import plots
from compat_lib.losses import METHODS


@pytest.fixture(autouse=True)
def fresh_figures():
    plots.use_style()
    yield
    plt.close("all")


@pytest.fixture
def ax():
    return plt.subplots()[1]


@pytest.fixture(scope="module")
def features():
    generator = np.random.default_rng(0)
    prototypes = generator.normal(size=(4, 16))
    labels = np.repeat(np.arange(4), 6)
    old = prototypes[labels] + 0.5 * generator.normal(size=(24, 16))
    return old, old + 0.1, prototypes, labels


@pytest.fixture(scope="module")
def joint(features):
    return plots.joint_tsne(*features[:3])


def legend_texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def assert_legend_off_the_data(ax):
    ax.figure.canvas.draw()
    assert not ax.get_legend().get_window_extent().overlaps(ax.get_window_extent())


# -- maps ------------------------------------------------------------------------------------------


def test_old_is_blue_new_is_orange(ax, features, joint):
    plots.draw_map(ax, joint, features[3])
    colours = {to_hex(colour) for artist in ax.collections for colour in artist.get_facecolors()}
    assert colours == {plots.OLD.lower(), plots.NEW.lower()}
    assert [text.get_text() for text in ax.texts].count("1") == 2  # old and new side of the first identity
    assert f"trustworthiness {joint.trustworthiness:.2f}" in ax.get_title()
    assert_legend_off_the_data(ax)


def test_joint_map_repeats_whatever_the_length_of_features(ax, features, joint):
    old, new, prototypes, labels = features
    again = plots.joint_tsne(torch.tensor(4 * old), torch.tensor(new), torch.tensor(prototypes))
    for name in ("old", "new", "prototypes"):  # 4 is a power of two: exact in floating point
        assert np.array_equal(getattr(again, name), getattr(joint, name))
    assert joint.old.shape == (24, 2) and joint.prototypes.shape == (4, 2)
    alone = plots.joint_tsne(old)
    assert alone.new is None and alone.prototypes is None and 0 < alone.trustworthiness <= 1
    assert plots.model_map(ax, old, new, labels).prototypes.shape == (4, 2)
    assert plots.model_map(ax, old, new[:, :8], labels) is None


def test_circle_numbers_only_gathered_classes(ax):
    labels = torch.tensor([0, 0, 1, 1])
    old = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    new = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.0, -1.0]])  # the second class is scattered
    stars = torch.tensor([[0.95, 0.05], [0.05, 0.95]])
    plots.draw_circle(ax, old, new, labels, prototypes=stars, classifier=stars, marked=labels == 0)
    for colour, numbers in ((plots.NEW, ["1"]), (plots.OLD, ["1", "2"])):
        assert [text.get_text() for text in ax.texts if text.get_color() == colour] == numbers


def test_image_strip(ax):
    images = torch.zeros(5, 3, 4, 6, dtype=torch.uint8)
    images[:, 0] = 255
    plots.image_strip(ax, images, list("abcde"), plots.NEW, columns=3, title="rejected")
    assert len(ax.images) == 5 and len(ax.patches) == 5
    assert ax.images[0].get_array()[0, 0].tolist() == [255, 0, 0]
    assert [text.get_text() for text in ax.texts] == list("abcde")
    plots.image_strip(plt.subplots()[1], images[:, :1])


# -- distributions ---------------------------------------------------------------------------------


def test_cosine_row_titles_give_the_overlap():
    figure, axes = plt.subplots(1, 4)
    edges = [-1.0, 0.0, 1.0]
    cases = {"old/old": ([5, 5], [100, 100], "100.0"), "new/old, MixBCT": ([1, 3], [300, 100], "50.0")}
    cases |= {"new/new": ([0, 4], [7, 0], "0.0"), "none": ([0, 0], [3, 1], "0.0")}
    plots.cosine_row(axes, {name: (edges, *counts) for name, (*counts, _) in cases.items()}, {"new/new": 0.5})
    titles = [ax.get_title().replace("\n", ", ") for ax in axes]
    assert titles == [f"{name}, overlap {share}%" for name, (*_, share) in cases.items()]
    assert {ax.get_xlim() for ax in axes} == {(-1.0, 1.0)}
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["same identity", "different identities", "threshold at FAR 1e-3"]


def test_model_cosines_asks_the_gallery_with_the_query(features):
    old, _, _, labels = features
    generator = np.random.default_rng(1)
    noise = (generator.normal(size=(24, 3)), generator.normal(size=(24, 3)))
    overlaps = []
    for cross in (None, noise):
        axes = plt.subplots(1, 3)[1]
        plots.model_cosines(axes, old, old.copy(), labels, cross=cross)
        overlaps.append([float(ax.get_title().split("overlap ")[1].rstrip("%")) for ax in axes])
    assert len({*overlaps[0], overlaps[1][0], overlaps[1][2]}) == 1  # equal models
    assert overlaps[1][1] > overlaps[1][0]  # chance, whatever the models do by themselves
    plots.model_cosines(plt.subplots(1, 3)[1], old, old[:, :8], labels)
    shown = plt.gcf().axes
    assert "old features have 16 coordinates" in shown[1].texts[0].get_text()
    assert [bool(ax.get_title()) for ax in shown] == [True, False, True]


def test_value_histogram_shares_colours_and_nan(ax):
    groups = {"old": [1.0, 2.0, np.nan], "new model": [3.0], "independent": []}
    plots.value_histogram(ax, groups, xlabel="x (cm)", bins=2)
    assert legend_texts(ax) == ["old (n = 2)", "new model (n = 1)", "independent (n = 0)"]
    colours = [to_hex(patch.get_edgecolor()) for patch in ax.get_legend().get_patches()]
    assert colours == [plots.OLD.lower(), plots.NEW.lower(), plots.ORACLE.lower()]
    assert max(path.vertices[:, 1].max() for c in ax.collections for path in c.get_paths()) == 1.0
    assert_legend_off_the_data(ax)


def test_values_that_rounding_alone_tells_apart_are_drawn(ax):
    plots.value_histogram(ax, {"old": [1.0, 1 - 1e-16, 1 + 3e-16]}, xlabel="cosine")
    assert ax.collections


def test_spread_leaves_out_the_image_itself_and_lone_images():
    _, axes = plt.subplots(2, 1)
    old = np.array([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    plots.feature_spread(axes, {"old": old}, [0, 0, 1])
    assert legend_texts(axes[1]) == ["old (n = 2)"]  # the third identity has one image
    places = np.concatenate([path.vertices[:, 0] for c in axes[1].collections for path in c.get_paths()])
    assert places.min() <= 0 <= places.max()  # with itself in the mean the cosine would be 0.71


def test_prototype_heatmap_and_alignment(ax):
    plots.prototype_heatmap(ax, 3 * np.eye(3), np.eye(3))
    assert np.array_equal(ax.collections[0].get_array().reshape(3, 3), np.eye(3))
    assert ax.get_title() == "own class 1.00, others 0.00"
    other = plt.subplots()[1]
    vectors = np.eye(3)[:, [1, 0, 2]]
    vectors[2] = 0  # a class without samples
    plots.prototype_alignment(other, np.eye(3), {"new": vectors})
    assert legend_texts(other) == ["new (n = 2)"]


# -- curves ----------------------------------------------------------------------------------------

CURVES = {
    "independent": ([0.0, 0.5, 1.0], [0.01, 0.5, 0.9]),
    "bct": ([0.0, 0.5, 1.0], [0.6, 0.7, 0.9], [0.55, 0.65, 0.85], [0.65, 0.75, 0.95]),
    "mixbct": ([0.0, 0.5, 1.0], [0.62, 0.72, 0.88]),
}


def test_backfill_curve(ax):
    shares, values = [0.0, 0.5, 1.0], [0.4, None, 0.9]
    plots.backfill_curve(ax, {"mixbct": (shares, values, [0.3] * 3, [1.0] * 3)}, old_old=0.3, oracle=0.95)
    assert legend_texts(ax) == ["mixbct", "old/old, before the upgrade", "oracle new/new"]
    reference = {line.get_color(): line.get_ydata()[0] for line in ax.lines[1:]}
    assert reference == {plots.OLD: 0.3, plots.ORACLE: 0.95}
    assert np.isnan(ax.lines[0].get_ydata()[1]) and ax.yaxis.get_major_formatter()(0.5) == "50"


def test_first_day_says_what_is_lost_and_gained(ax):
    plots.first_day(ax, CURVES["independent"], CURVES["bct"], 0.5, title="BCT")
    texts = [text.get_text() for legend in ax.figure.legends for text in legend.get_texts()]
    assert texts == [
        "new model, trained independently:\n-49.0 points on the first day",
        "new model, trained with BCT:\n+10.0 points on the first day",
        "old system, no upgrade",
    ]


def test_a_panel_shows_its_own_curve_before_the_others():
    figure = plots.backfill_panels(CURVES, old_old=0.5, oracle=0.9, titles={"bct": "BCT"})
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["independent\n1.0 to 90.0", "BCT\n60.0 to 90.0", "mixbct\n62.0 to 88.0"]
    for ax, (name, curve) in zip(figure.axes, CURVES.items(), strict=True):
        colour = plots.method_style(name)["color"].lower()
        own = [line for line in ax.lines if (to_hex(line.get_color()), line.get_ls()) == (colour, "-")]
        assert [line.get_ydata().tolist() for line in own] == [curve[1]]
        (others,) = [one for one in ax.collections if isinstance(one, LineCollection)]
        assert len(others.get_segments()) == 3
    assert [len(ax.collections) - 1 for ax in figure.axes] == [0, 1, 0]  # one band
    low, high = figure.axes[0].get_ylim()
    assert 0.4 < low < 0.5 and 0.9 < high < 1.0  # the independent curve comes in from below
    assert plots.backfill_panels(CURVES).axes[0].get_ylim()[0] < 0.01  # without a bound nothing is far below


def test_curves_of_a_history_say_what_is_absent(ax):
    history = [
        {"epoch": 1, "loss/classification": 3.0, "loss/prototype": 1.0, "val/new_new/map": None},
        {"epoch": 2, "loss/classification": 2.0, "loss/prototype": 0.5, "val/new_new/map": 0.7},
    ]
    plots.loss_curves(ax, history)
    assert legend_texts(ax) == ["classification", "prototype"]
    assert ax.lines[0].get_xdata().tolist() == [1, 2]
    other = plt.subplots()[1]
    plots.validation_curves(other, {"bct": history}, "val/new_new/map", titles={"bct": "BCT"})
    assert other.lines[0].get_xydata().tolist() == [[2.0, 0.7]]
    assert legend_texts(other) == ["BCT"] and other.get_ylabel() == "new/new mAP,\nvalidation (%)"
    third, absent = (plt.subplots()[1] for _ in range(2))
    held = {f"val/constraint{k}/share": k / 10 for k in (1, 2, 3, 4)}
    plots.constraint_curves(third, [{"epoch": 0} | held])
    assert [line.get_ydata()[0] for line in third.lines] == [0.1, 0.2, 0.3, 0.4]
    assert "cannot be compared" in plots.constraint_curves(absent, [{"epoch": 0}]).texts[0].get_text()


def test_validation_panels_skip_epochs_and_methods_without_the_metric():
    name = "val/new_new/tar@far=1e-2"
    looks = {"bct": [{"epoch": 1}, {"epoch": 2, name: 0.25}, {"epoch": 3, name: 0.75}]}
    looks |= {"l2": [{"epoch": 1}], "mixbct": [{"epoch": 1, name: 0.5}]}
    figure = plots.validation_panels(looks, titles={"mixbct": "MixBCT"})
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["bct\n75.0", "MixBCT\n50.0"]
    assert "Too few" in plots.validation_panels({"l2": looks["l2"]}).texts[0].get_text()


def test_roc(ax):
    plots.roc_curves(ax, {"old_old": ([0.0, 0.1, 1.0], [0.2, 0.5, 1.0]), "new/new": ([0.1, 1.0], [0.8, 1.0])})
    assert [line.get_color() for line in ax.lines] == [plots.OLD, plots.NEW]
    assert legend_texts(ax) == ["old/old", "new/new"]
    assert ax.lines[0].get_xdata().tolist() == [0.1, 1.0]  # zero has no place on a logarithmic axis
    assert ax.get_xscale() == "log"


# -- methods ---------------------------------------------------------------------------------------


def test_scatter_has_bars_and_writes_a_stranger_at_the_edge(ax):
    ends = {"self_low": 0.8, "self_high": 0.95, "cross_low": 0.5, "cross_high": 0.7}
    points = {"independent": {"self": 0.9, "cross": 0.001}, "bct": {"self": 0.9, "cross": 0.6} | ends}
    points["l2"] = {"self": None, "cross": 0.5}
    plots.self_cross_scatter(ax, points, old_old=0.45)
    at = {container.get_label(): container for container in ax.containers}
    assert list(at) == ["independent: 0.1, far below", "bct"]
    segments = [segment for collection in at["bct"][2] for segment in collection.get_segments()]
    assert sorted(segments[0][:, 0].tolist()) == pytest.approx([0.8, 0.95])
    assert 0.3 < ax.get_ylim()[0] < at["independent: 0.1, far below"][0].get_ydata()[0] < 0.45


@pytest.mark.parametrize(
    ("crosses", "old_old"), [((0.001, 0.01), 0.5), ((0.3, 0.6), 0.5), ((0.001, 0.6), None)]
)
def test_all_below_or_none_far_below_share_one_scale(ax, crosses, old_old):
    pairs = zip(("independent", "bct"), crosses, strict=True)
    points = {name: {"self": 0.9, "cross": cross} for name, cross in pairs}
    plots.self_cross_scatter(ax, points, old_old=old_old)
    assert [container[0].get_ydata()[0] for container in ax.containers] == list(crosses)


def test_gain_dots(ax):
    gains = {
        "bct": {"gain": 0.4, "gain_low": 0.3, "gain_high": 0.5, "criterion": True},
        "l2": {"gain": -0.1, "gain_low": None, "gain_high": None, "criterion": False},
        "independent": {"gain": -1.62, "gain_low": -1.95, "gain_high": -1.29},
        "mixbct": {"gain": None},
    }
    plots.gain_dots(ax, gains)
    assert [text.get_text() for text in ax.texts] == ["◂ -1.62 [-1.95, -1.29]", "missing"]
    faces = [container[0].get_markerfacecolor() for container in ax.containers]
    assert faces == [plots.method_style("bct")["color"], "white"]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(gains)
    assert -0.5 < ax.get_xlim()[0] < -0.1
    alone = plots.gain_dots(plt.subplots()[1], {"independent": gains["independent"]})
    assert alone.get_xlim()[0] < -1.95  # alone it presses nothing together


def test_cross_test_dots(ax):
    plots.cross_test_dots(ax, {"bct": {"cross": 0.5}, "l2": {"cross": None}}, old_old=0.4, oracle=0.9)
    assert [text.get_text() for text in ax.texts] == ["50.0", "missing"]
    assert_legend_off_the_data(ax)


# -- style -----------------------------------------------------------------------------------------


def test_methods_are_told_apart_and_keep_their_looks():
    styles = {name: plots.method_style(name) for name in METHODS}
    assert len({(style["color"], style["marker"]) for style in styles.values()}) == len(METHODS)
    assert not {plots.OLD, plots.NEW} & {style["color"] for style in styles.values()}
    assert styles["independent"]["color"] == plots.ORACLE
    assert plots.method_style("a later one") == plots.method_style("a later one")
    assert plots.method_style("bct (weight=1)")["marker"] == styles["bct"]["marker"]


def test_equal_data_give_equal_bytes(tmp_path, features, joint):
    paths = []
    for folder in ("a", "b"):
        figure, ax = plt.subplots(figsize=(4, 3))
        plots.draw_map(ax, joint, features[3])
        paths.append(plots.save_figure(figure, "joint-map", tmp_path / folder, {"notebook": "03", "seed": 0}))
    for suffix in (".png", ".svg", ".json"):
        assert paths[0].with_suffix(suffix).read_bytes() == paths[1].with_suffix(suffix).read_bytes()
    record = json.loads(paths[0].with_suffix(".json").read_text())
    assert record == {"figure": "joint-map", "notebook": "03", "seed": 0}
    svg = paths[0].with_suffix(".svg").read_text()
    assert "<dc:date>" not in svg and "font-family" not in svg


def test_long_titles_and_the_label_of_all_panels_stay_in_the_picture(tmp_path):
    figure, axis = plt.subplots(figsize=(4, 3))
    figure.suptitle("every method on the images of the house " * 3)
    figure.supylabel("mAP (%)")
    axis.set_title("softmax to ArcFace, " * 6)
    path = plots.save_figure(figure, "long", tmp_path)
    figure.canvas.draw()
    for text in (*figure.texts, axis.title):
        extent = text.get_window_extent()
        assert extent.x0 >= 0 and extent.x1 <= figure.bbox.width
    assert plt.imread(path)[:, 0, :3].min() == 1.0, "ink on the left edge"


def test_a_legend_below_leaves_the_axis_alone(ax):
    ax.plot([0, 1], [0, 1], label="a line")
    plots.legend_below(ax)
    ax.figure.canvas.draw()
    (legend,) = ax.figure.legends
    assert ax.get_legend() is None
    assert not legend.get_window_extent().overlaps(ax.get_window_extent())
