"""One panel a method: its own curve in front, the others behind, scales and labels that can be read."""

import matplotlib.pyplot as plt
import pytest

from companion import plots
from companion.plots.panels import backfill_panels, panel_grid, validation_panels


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def backfill(figures=2, columns=2, **references):
    plots.use_style()
    curves = {
        "independent": ([0.0, 0.5, 1.0], [0.01, 0.5, 0.9]),
        "bct": ([0.0, 0.5, 1.0], [0.6, 0.7, 0.9], [0.55, 0.65, 0.85], [0.65, 0.75, 0.95]),
        "mixbct": ([0.0, 0.5, 1.0], [0.62, 0.72, 0.88]),
    }
    fig, axes = plt.subplots(figures, columns, sharex=True, sharey=True, squeeze=False)
    backfill_panels(axes.flat, curves, titles={"bct": "BCT"}, **references)
    return fig, axes.flatten()


def test_a_panel_shows_its_own_curve_before_the_others():
    fig, axes = backfill(old_old=0.5, oracle=0.9)
    assert [ax.get_title(loc="left") for ax in axes[:3]] == [
        "independent\n0.01 to 0.90",
        "BCT\n0.60 to 0.90",
        "mixbct\n0.62 to 0.88",
    ]
    for ax, name in zip(axes, ("independent", "bct", "mixbct"), strict=False):
        own = [line for line in ax.lines if line.get_color() == plots.method_style(name)["color"]]
        own = [line for line in own if line.get_linestyle() == "-"]
        assert len(own) == 1 and own[0].get_zorder() == max(line.get_zorder() for line in ax.lines)
        assert len([line for line in ax.lines if line.get_color() == "#C8C8C8"]) == 3
    assert [len(ax.collections) for ax in axes] == [0, 1, 0, 0]  # one band
    assert axes[2].lines[3].get_ydata().tolist() == [0.62, 0.72, 0.88]
    assert not axes[3].axison
    (legend,) = fig.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["old/old, before the upgrade", "oracle new/new", "the other methods"]


def test_a_curve_from_far_below_does_not_set_the_scale():
    _, axes = backfill(old_old=0.5)
    low, high = axes[0].get_ylim()
    assert 0.4 < low < 0.5 and 0.9 < high < 1.0
    assert {ax.get_ylim() for ax in axes[:3]} == {(low, high)}
    _, axes = backfill()  # nothing says what far is
    assert axes[0].get_ylim()[0] < 0.01


def test_a_curve_that_enters_from_below_says_from_where():
    _, axes = backfill(old_old=0.5)
    words = [[text.get_text() for text in ax.texts] for ax in axes[:3]]
    assert words == [["from 0.01"], [], []]
    (mark,) = [line for line in axes[0].lines if line.get_marker() == "^"]
    x, low = mark.get_xdata()[0], axes[0].get_ylim()[0]
    # the curve rises from 0.01 at no share to 0.5 at a half
    assert 0.01 + x * (0.5 - 0.01) / 0.5 == pytest.approx(low)
    _, axes = backfill()  # the whole curve is in the panel
    assert not axes[0].texts


def test_the_lowest_panel_of_every_column_carries_the_shares():
    fig, axes = backfill()
    fig.canvas.draw()
    shown = [any(label.get_visible() for label in ax.get_xticklabels()) for ax in axes[:3]]
    assert shown == [False, True, True]


def test_too_few_panels_are_refused():
    with pytest.raises(ValueError, match="3 curves need as many axes; got 1"):
        backfill(1, 1)


@pytest.mark.parametrize(("count", "shape"), [(1, (1, 1)), (3, (1, 3)), (4, (2, 3)), (14, (5, 3))])
def test_a_grid_has_room_for_all_and_at_most_three_in_a_row(count, shape):
    fig, axes = panel_grid(count)
    grid = axes[0].get_gridspec()
    assert (grid.nrows, grid.ncols) == shape and len(axes) == shape[0] * shape[1] >= count


def test_validation_panels_skip_epochs_and_methods_without_the_metric():
    name = "val/new_new/tar@far=1e-2"
    histories = {
        "bct": [{"epoch": 1}, {"epoch": 2, name: 0.25}, {"epoch": 3, name: "0.75"}],
        "l2": [{"epoch": 1}],
        "mixbct": [{"epoch": 1, name: 0.5}],
    }
    fig, axes = panel_grid(3)
    validation_panels(axes, histories, titles={"mixbct": "MixBCT"})
    assert [ax.get_title(loc="left") for ax in axes[:2]] == ["bct\n0.75", "MixBCT\n0.50"]
    own = [line for line in axes[0].lines if line.get_color() == plots.method_style("bct")["color"]]
    assert own[0].get_xydata().tolist() == [[2.0, 0.25], [3.0, 0.75]]
    assert not axes[2].axison
    assert "validation" in fig.get_supylabel()
    (legend,) = fig.legends
    assert legend.get_title().get_text() == "epoch"
