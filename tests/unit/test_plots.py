"""Pictures: what is drawn, where the legend is, and that equal data give equal bytes."""

import json

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex, to_rgb
from sklearn.datasets import make_blobs

from companion import plots
from companion.plots.style import _SPARE_COLOURS, _SPARE_MARKERS


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
    old, new, prototypes, _ = features
    return plots.joint_tsne(old, new, prototypes)


def colours(ax):
    return {to_hex(colour) for artist in ax.collections for colour in artist.get_facecolors()}


def legend_texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def assert_legend_off_the_data(ax):
    ax.figure.canvas.draw()
    assert not ax.get_legend().get_window_extent().overlaps(ax.get_window_extent())


def test_old_is_blue_new_is_orange(ax, features, joint):
    plots.draw_map(ax, joint, features[3])
    assert colours(ax) == {plots.OLD.lower(), plots.NEW.lower()}
    assert [text.get_text() for text in ax.texts].count("1") == 2  # old and new side of the first identity
    assert f"{10 * joint.knn_agreement:.1f} of 10 nearest neighbours are the same" in ax.get_title()
    assert_legend_off_the_data(ax)


def test_joint_map_repeats_and_keeps_the_rows_apart(features, joint):
    old, new, prototypes, _ = features
    again = plots.joint_tsne(torch.tensor(old), torch.tensor(new), torch.tensor(prototypes))
    for name in ("old", "new", "prototypes"):
        assert np.array_equal(getattr(again, name), getattr(joint, name))
    assert joint.old.shape == (24, 2) and joint.prototypes.shape == (4, 2)
    assert plots.joint_tsne(old, new).prototypes is None


def test_joint_map_is_blind_to_the_length_of_features(features, joint):
    old, new, prototypes, _ = features
    longer = plots.joint_tsne(4 * old, 2 * new, prototypes)  # powers of two: exact in floating point
    assert np.array_equal(longer.old, joint.old)


def test_joint_map_keeps_blobs_together():
    points, labels = make_blobs(60, 8, centers=3, cluster_std=0.2, random_state=0)
    joint = plots.joint_tsne(points[:30], points[30:])
    flat = np.concatenate([joint.old, joint.new])
    distances = np.linalg.norm(flat[:, None] - flat[None], axis=2) + 1e9 * np.eye(60)
    assert (labels[distances.argmin(axis=1)] == labels).all()


def test_joint_map_refuses_unequal_widths(features):
    with pytest.raises(ValueError, match=r"widths \[16, 8\]: one map needs one feature space"):
        plots.joint_tsne(features[0], features[1][:, :8])
    with pytest.raises(ValueError, match="at least 5"):
        plots.joint_tsne(features[0][:2], features[1][:2])


def test_knn_agreement_against_a_loop():
    generator = np.random.default_rng(1)
    high, low = generator.normal(size=(30, 5)), generator.normal(size=(30, 2))

    def near(points, i):
        order = sorted((np.linalg.norm(points[i] - points[j]), j) for j in range(len(points)) if j != i)
        return {j for _, j in order[:4]}

    expected = np.mean([len(near(high, i) & near(low, i)) / 4 for i in range(30)])
    assert plots.knn_agreement(high, low, 4) == pytest.approx(expected)
    assert plots.knn_agreement(high, 3 * high, 4) == 1.0


def test_circle_numbers_only_gathered_classes(ax):
    labels = torch.tensor([0, 0, 1, 1])
    old = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    new = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.0, -1.0]])  # the second class is scattered
    outlier = torch.tensor([True, False, False, False])
    prototypes = torch.tensor([[0.95, 0.05], [0.05, 0.95]])
    plots.draw_circle(ax, old, new, labels, prototypes=prototypes, classifier=prototypes, marked=outlier)
    orange = [text.get_text() for text in ax.texts if text.get_color() == plots.NEW]
    blue = [text.get_text() for text in ax.texts if text.get_color() == plots.OLD]
    assert orange == ["1"] and blue == ["1", "2"]


def test_cosine_row_titles_give_the_overlap():
    figure, axes = plt.subplots(1, 3)
    edges = [-1.0, 0.0, 1.0]
    plots.cosine_row(
        axes,
        {
            "old_old": (edges, [5, 5], [100, 100]),
            "new_old": (edges, [1, 3], [300, 100]),
            "new_new": (edges, [0, 4], [7, 0]),
        },
        {"new_new": 0.5},
    )
    titles = [ax.get_title() for ax in axes]
    assert titles == ["old/old, overlap 100.0%", "new/old, overlap 50.0%", "new/new, overlap 0.0%"]
    assert {ax.get_xlim() for ax in axes} == {(-1.0, 1.0)}
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "different identities",
        "same identity",
        "threshold",
    ]


def test_cosine_row_without_pairs():
    axes = plt.subplots(1, 1)[1]
    plots.cosine_row([axes], {"old_old": ([-1, 1], [0], [3])})
    assert axes.get_title() == "old/old, overlap 0.0%"


def test_image_strip(ax):
    images = torch.zeros(5, 3, 4, 6, dtype=torch.uint8)
    images[:, 0] = 255
    plots.image_strip(ax, images, list("abcde"), plots.NEW, columns=3, title="rejected")
    assert len(ax.images) == 5 and len(ax.patches) == 5
    assert ax.images[0].get_array()[0, 0].tolist() == [255, 0, 0]
    assert [text.get_text() for text in ax.texts] == list("abcde")
    plots.image_strip(plt.subplots()[1], images[:, :1])


@pytest.mark.parametrize(
    ("images", "captions", "message"),
    [
        (np.zeros((2, 3, 4, 4)), None, r"float64 \[2, 3, 4, 4\]: they must be uint8"),
        (np.zeros((2, 4, 4), np.uint8), None, "must be uint8"),
        (np.zeros((0, 3, 4, 4), np.uint8), None, "n >= 1"),
        (np.zeros((2, 3, 4, 4), np.uint8), ["a"], "1 captions for 2 images"),
    ],
)
def test_image_strip_refuses(ax, images, captions, message):
    with pytest.raises(ValueError, match=message):
        plots.image_strip(ax, images, captions)


def test_backfill_curve(ax):
    shares, values = [0.0, 0.5, 1.0], [0.4, None, 0.9]
    plots.backfill_curve(ax, {"mixbct": (shares, values, [0.3] * 3, [1.0] * 3)}, old_old=0.3, oracle=0.95)
    assert legend_texts(ax) == ["mixbct", "old/old, before the upgrade", "oracle new/new"]
    reference = {line.get_color(): line.get_ydata()[0] for line in ax.lines[1:]}
    assert reference == {plots.OLD: 0.3, plots.ORACLE: 0.95}
    assert np.isnan(ax.lines[0].get_ydata()[1])
    assert_legend_off_the_data(ax)


def test_training_curves_read_csv_rows(ax):
    history = [
        {"epoch": "0", "loss/classification": "3.0", "loss/prototype": "1.0", "val/new_new/map": ""},
        {"epoch": "1", "loss/classification": "2.0", "loss/prototype": "0.5", "val/new_new/map": "0.7"},
    ]
    plots.loss_curves(ax, history)
    assert legend_texts(ax) == ["classification", "prototype"]
    assert ax.lines[0].get_xdata().tolist() == [1, 2]
    other = plt.subplots()[1]
    plots.validation_curves(other, {"bct": history}, "val/new_new/map", titles={"bct": "BCT"})
    assert other.lines[0].get_xydata().tolist() == [[2.0, 0.7]]
    assert legend_texts(other) == ["BCT"]
    with pytest.raises(ValueError, match=r"no column 'loss/...' in the history; it has \['epoch'\]"):
        plots.loss_curves(ax, [{"epoch": 0}])


def test_scatter_leaves_out_what_is_missing(ax):
    points = {
        "independent": {"self": 0.9, "cross": 0.0},
        "bct": {
            "self": 0.9,
            "cross": 0.6,
            "self_low": 0.8,
            "self_high": 0.95,
            "cross_low": 0.5,
            "cross_high": 0.7,
        },
        "l2": {"self": None, "cross": 0.5},
    }
    plots.self_cross_scatter(ax, points, old_old=0.36)
    assert "l2" not in legend_texts(ax) and "bct" in legend_texts(ax)
    bars = [container for container in ax.containers if container.get_label() == "bct"][0]
    segments = [segment for collection in bars[2] for segment in collection.get_segments()]
    assert sorted(segments[0][:, 0].tolist()) == pytest.approx([0.8, 0.95])
    assert_legend_off_the_data(ax)


def test_a_stranger_to_the_gallery_is_drawn_at_the_edge(ax):
    points = {
        "independent": {"self": 0.8, "cross": 0.001, "self_low": 0.7, "self_high": 0.9, "cross_low": 0.0},
        "bct": {"self": 0.9, "cross": 0.62, "cross_low": 0.58, "cross_high": 0.66},
        "l2": {"self": 0.7, "cross": 0.55},
    }
    plots.self_cross_scatter(ax, points, old_old=0.5)
    bottom, top = ax.get_ylim()
    assert 0.4 < bottom < 0.5 and 0.66 < top < 0.7
    at = {container.get_label(): container[0].get_xydata()[0] for container in ax.containers}
    assert at["independent"][0] == 0.8 and bottom < at["independent"][1] < 0.5
    assert at["bct"].tolist() == [0.9, 0.62]
    assert [text.get_text() for text in ax.texts if text.get_text()] == ["0.001, far below"]
    assert legend_texts(ax) == ["oracle new/new", "old/old: the bound to beat", "independent", "bct", "l2"]


def test_a_stranger_is_drawn_at_its_place_where_the_axis_has_room_for_it(ax):
    """A smoke run: the bars of the others reach so far down that zero is on the axis anyway."""
    points = {
        "independent": {"self": 0.27, "cross": 0.001},
        "bct": {"self": 0.37, "cross": 0.11, "cross_low": 0.03, "cross_high": 0.25},
        "mixbct": {"self": 0.26, "cross": 0.07, "cross_low": 0.02, "cross_high": 0.13},
    }
    plots.self_cross_scatter(ax, points, old_old=0.12)
    at = {container.get_label(): container[0].get_xydata()[0] for container in ax.containers}
    assert at["independent"].tolist() == [0.27, 0.001]
    assert not [text for text in ax.texts if text.get_text()] and ax.get_ylim()[0] < 0


def test_points_that_lie_upon_each_other_share_a_marker_that_names_both(ax):
    points = {
        "bct": {"self": 0.9, "cross": 0.6},
        "adapter/procrustes": {"self": 0.8, "cross": 0.4},
        "adapter/ridge": {"self": 0.8, "cross": 0.402},
        "adapter/procrustes-query": {"self": 0.8, "cross": 0.4001},
    }
    plots.self_cross_scatter(ax, points, titles={"adapter/procrustes": "A", "adapter/procrustes-query": "B"})
    assert legend_texts(ax) == ["bct", "A\n= B", "adapter/ridge"]
    thin, thick = ax.containers[1][0], ax.containers[2][0]
    assert thin.get_zorder() > thick.get_zorder()


@pytest.mark.parametrize(
    ("crosses", "old_old"), [((0.001, 0.01), 0.5), ((0.3, 0.6), 0.5), ((0.001, 0.6), None)]
)
def test_all_below_or_none_far_below_share_one_scale(ax, crosses, old_old):
    points = {
        name: {"self": 0.9, "cross": cross}
        for name, cross in zip(("independent", "bct"), crosses, strict=True)
    }
    plots.self_cross_scatter(ax, points, old_old=old_old)
    assert ax.get_ylim()[0] < 0 and not [text for text in ax.texts if text.get_text()]
    heights = [container[0].get_ydata()[0] for container in ax.containers]
    assert heights == list(crosses)


def test_gain_dots(ax):
    gains = {
        "bct": {"gain": 0.4, "gain_low": 0.3, "gain_high": 0.5, "criterion": True},
        "l2": {"gain": -0.1, "gain_low": None, "gain_high": None, "criterion": False},
        "mixbct": {"gain": None},
    }
    plots.gain_dots(ax, gains)
    assert [text.get_text() for text in ax.texts] == ["missing"]
    faces = [container[0].get_markerfacecolor() for container in ax.containers]
    assert faces == [plots.method_style("bct")["color"], "white"]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(gains)


def test_roc(ax):
    plots.roc_curves(ax, {"old_old": ([0.0, 0.1, 1.0], [0.2, 0.5, 1.0]), "mixbct": ([0.1, 1.0], [0.8, 1.0])})
    assert [line.get_color() for line in ax.lines] == [plots.OLD, plots.method_style("mixbct")["color"]]
    assert ax.lines[0].get_xdata().tolist() == [0.1, 1.0]  # zero has no place on a logarithmic axis
    assert ax.get_xscale() == "log"


def test_prototype_heatmap_and_alignment(ax):
    plots.prototype_heatmap(ax, 3 * np.eye(3), np.eye(3))
    assert np.array_equal(ax.images[0].get_array(), np.eye(3))
    assert ax.get_title() == "own class 1.00, others 0.00"
    other = plt.subplots()[1]
    vectors = np.eye(3)[:, [1, 0, 2]]
    vectors[2] = 0  # a class without samples
    plots.prototype_alignment(other, np.eye(3), {"new": vectors}, bins=4)
    assert legend_texts(other) == ["new (n = 2)"]
    with pytest.raises(ValueError, match="prototypes have width 3, the other vectors 2"):
        plots.prototype_heatmap(ax, np.eye(3), np.ones((3, 2)))


def test_value_histogram_colours_and_nan(ax):
    plots.value_histogram(ax, {"old": [1.0, 2.0, np.nan], "new model": [3.0], "independent": []}, xlabel="x")
    assert legend_texts(ax) == ["old (n = 2)", "new model (n = 1)", "independent (n = 0)"]
    edges = [to_hex(patch.get_edgecolor()) for patch in ax.patches[1::2]]
    assert edges == [plots.OLD.lower(), plots.NEW.lower(), plots.ORACLE.lower()]


def test_style_of_a_later_method_comes_from_its_spelling():
    # The check value of CRC-32 is 0xCBF43926 for "123456789": 6 modulo 8 colours, and modulo 7 markers
    style = plots.method_style("123456789")
    assert style["color"] == _SPARE_COLOURS[0xCBF43926 % 8]
    assert style["marker"] == _SPARE_MARKERS[0xCBF43926 % 7]


def test_listed_methods_are_told_apart():
    names = ("independent", "l2", "bct", "dual_tuning", "mixbct")
    styles = [plots.method_style(name) for name in names]
    assert (
        len({style["color"] for style in styles}) == len({style["marker"] for style in styles}) == len(names)
    )
    assert not {plots.OLD, plots.NEW} & {style["color"] for style in styles}
    assert plots.method_style("independent")["color"] == plots.ORACLE


def draw_and_save(folder, joint, labels):
    figure, ax = plt.subplots(figsize=(4, 3))
    plots.draw_map(ax, joint, labels)
    path = plots.save_figure(figure, "joint-map", folder, {"notebook": "03", "seed": 0, "digest": "abc"})
    plt.close(figure)
    return path


def test_equal_data_give_equal_bytes(tmp_path, features, joint):
    first = draw_and_save(tmp_path / "a", joint, features[3])
    second = draw_and_save(tmp_path / "b", joint, features[3])
    for suffix in (".png", ".svg", ".json"):
        assert first.with_suffix(suffix).read_bytes() == second.with_suffix(suffix).read_bytes()
    record = json.loads(first.with_suffix(".json").read_text())
    assert record == {"figure": "joint-map", "notebook": "03", "seed": 0, "digest": "abc"}
    svg = first.with_suffix(".svg").read_text()
    assert "<dc:date>" not in svg and "font-family" not in svg


@pytest.mark.parametrize("name", ["../x", "a/b", "", "x.png", ".hidden"])
def test_save_figure_refuses_names_that_are_paths(tmp_path, name, ax):
    with pytest.raises(ValueError, match="use letters, digits"):
        plots.save_figure(ax.figure, name, tmp_path)


def test_a_variant_is_a_paler_shade_of_its_method():
    plain, variant = plots.method_style("mixbct"), plots.method_style("mixbct (equal passes)")
    assert plain["marker"] == variant["marker"] and plain["color"] != variant["color"]
    assert all(
        pale > full for pale, full in zip(to_rgb(variant["color"]), to_rgb(plain["color"]), strict=True)
    )


def test_a_legend_below_leaves_the_axis_alone():
    fig, ax = plt.subplots(figsize=(5.6, 4))
    names = ("bct", "mixbct", "mixbct (equal passes)")
    points = {name: {"self": 0.9, "cross": 0.5 + 0.01 * place} for place, name in enumerate(names)}
    plots.self_cross_scatter(ax, points, old_old=0.4)
    plots.legend_below(ax)
    fig.canvas.draw()
    assert ax.get_legend() is None
    (legend,) = fig.legends
    assert len(legend.get_texts()) == 4
    box = legend.get_window_extent()
    assert not box.overlaps(ax.get_tightbbox())
    assert box.x0 >= 0 and box.x1 <= fig.bbox.width and box.y0 >= 0


def test_a_gain_far_below_zero_is_drawn_at_the_edge(ax):
    gains = {
        "independent": {"gain": -1.62, "gain_low": -1.95, "gain_high": -1.29, "criterion": False},
        "bct": {"gain": 0.33, "gain_low": 0.27, "gain_high": 0.38, "criterion": True},
    }
    plots.gain_dots(ax, gains)
    left, right = ax.get_xlim()
    assert -0.5 < left < -0.1 and right > 1.0
    places = [container[0].get_xdata()[0] for container in ax.containers]
    assert left < places[0] < 0 and places[1] == 0.33
    assert [text.get_text() for text in ax.texts if text.get_text()] == ["-1.62 [-1.95, -1.29]"]
    other = plt.subplots()[1]
    plots.gain_dots(other, {"independent": gains["independent"]})  # alone it presses nothing together
    assert other.containers[0][0].get_xdata()[0] == -1.62 and other.get_xlim()[0] < -1.95
    (words,) = [text for text in ax.texts if text.get_text()]
    box = words.get_bbox_patch()
    assert box.get_facecolor() == (1, 1, 1, 1)
    assert words.get_zorder() > max(line.get_zorder() for line in ax.lines), "the line at zero lies below"


def test_a_gain_far_below_zero_is_drawn_at_its_place_where_the_axis_has_room_for_it(ax):
    gains = {
        "independent": {"gain": -0.84, "gain_low": -2.14, "gain_high": -0.3, "criterion": False},
        "mixbct": {"gain": -0.36, "gain_low": -1.16, "gain_high": 0.04, "criterion": False},
    }
    plots.gain_dots(ax, gains)
    assert ax.containers[0][0].get_xdata()[0] == -0.84 and ax.get_xlim()[0] < -2.14
    assert not [text for text in ax.texts if text.get_text()]


def test_titles_are_broken_at_blanks_and_underscores_only():
    title = "Dual-Tuning (prototype_weight=1.0)"
    assert plots.wrapped({"a": title}) == {"a": "Dual-Tuning\n(prototype_\nweight=1.0)"}
