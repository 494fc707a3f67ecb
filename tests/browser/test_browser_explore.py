"""The map of notebook 05 in a browser with the network off: a point's image stands beside the pointer."""

import numpy as np
import pytest

from companion import explore

pytestmark = [pytest.mark.browser, pytest.mark.slow]
# Where the first image's old feature lies on the screen, and the tips shown; Bokeh draws in shadow trees.
POINT = """(() => {
  const plot = Bokeh.documents[0].roots()[0], view = Bokeh.index.get_by_id(plot.id);
  const data = plot.renderers.map(r => r.data_source).find(s => s.get_column("picture"));
  const box = view.el.getBoundingClientRect(), at = side => data.get_column(`old_${side}`)[0];
  return [box.x + view.frame.x_scale.compute(at("x")), box.y + view.frame.y_scale.compute(at("y"))];
})()"""
TIPS = """(() => {
  const deep = root => [...root.querySelectorAll("*")].flatMap(
    e => [...(e.matches(".bk-Tooltip") ? [e] : []), ...(e.shadowRoot ? deep(e.shadowRoot) : [])]);
  return deep(document).map(tip => (tip.shadowRoot || tip).querySelector("img")?.src).filter(Boolean);
})()"""
STILL = "[...document.images].filter(i => i.src.startsWith('data:image/png')).length"


@pytest.fixture
def upgrade():
    labels = np.repeat(np.arange(4), 3)
    features = np.random.default_rng(0).normal(size=(12, 8)) + 3 * np.eye(8)[labels]
    images = np.arange(12, dtype=np.uint8)[:, None, None, None] * np.full((12, 3, 8, 8), 20, np.uint8)
    return explore.Upgrade(features, features + 0.3, labels, images)


def open_view(tab, file, *parts, width=1280):
    head = '<!DOCTYPE html><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    file.write_text(head + "<body>" + "".join(parts))
    tab.offline()
    tab.resize(width)
    tab.open(file.as_uri())


@pytest.mark.parametrize("width", [1280, 400])
def test_pointing_at_a_dot_shows_its_image(tab, upgrade, pictures, tmp_path, width):
    view = explore.map_view(upgrade, 4)
    open_view(tab, tmp_path / "a.html", explore.load_bokeh().data, view.html(), width=width)
    tab.wait_for(f"window.Bokeh && Bokeh.documents.length && {POINT}.every(Number.isFinite)", 20, "the map")
    assert tab.evaluate(STILL) == 0, "the still picture has made room"
    x, y = tab.evaluate(POINT)
    tab.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    assert upgrade.pictures[0] in tab.wait_for(f"(t => t.length && t)({TIPS})", 20, "a tip with its image")
    tab.picture(pictures / f"explore-map-{width}.png")
    assert tab.problems == [] and tab.requests == [(tmp_path / "a.html").as_uri()]
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_without_the_script_the_still_picture_stays(tab, upgrade, tmp_path):
    open_view(tab, tmp_path / "a.html", explore.map_view(upgrade, 4).html())
    assert tab.evaluate(STILL) == 1 and tab.problems == []
