"""The map of notebook 05 in a browser with the network off: a point's image stands beside the pointer."""

import numpy as np
import pytest

from companion import explore

pytestmark = [pytest.mark.browser, pytest.mark.slow]
# Where the first image's old feature lies on the screen.
POINT = """(() => {
  const plot = Bokeh.documents[0].roots()[0], view = Bokeh.index.get_by_id(plot.id);
  const data = plot.renderers.map(r => r.data_source).find(s => s.get_column("picture"));
  const box = view.el.getBoundingClientRect(), at = side => data.get_column(`old_${side}`)[0];
  return [box.x + view.frame.x_scale.compute(at("x")), box.y + view.frame.y_scale.compute(at("y"))];
})()"""
STILL = "[...document.images].filter(i => i.src.startsWith('data:image/png')).length"


@pytest.fixture
def upgrade():
    labels = np.repeat(np.arange(4), 3)
    features = np.random.default_rng(0).normal(size=(12, 8)) + 3 * np.eye(8)[labels]
    images = np.arange(12, dtype=np.uint8)[:, None, None, None] * np.full((12, 3, 8, 8), 20, np.uint8)
    return explore.Upgrade(features, features + 0.3, labels, images)


def write(file, *parts):
    head = '<!DOCTYPE html><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    file.write_text(head + "<body>" + "".join(parts))
    return file.as_uri()


@pytest.mark.parametrize("width", [1280, 400])
def test_pointing_at_a_dot_shows_its_image(open_page, upgrade, pictures, tmp_path, width):
    view = explore.map_view(upgrade, 4)
    address = write(tmp_path / "a.html", explore.load_bokeh().data, view.html())
    page = open_page(address, width)
    page.wait_for_function(f"window.Bokeh && Bokeh.documents.length && {POINT}.every(Number.isFinite)")
    assert page.evaluate(STILL) == 0, "the still picture has made room"
    page.mouse.move(*page.evaluate(POINT))
    tips = page.locator(".bk-Tooltip img")
    tips.first.wait_for()
    assert upgrade.pictures[0] in [tip.get_attribute("src") for tip in tips.all()]
    page.screenshot(path=pictures / f"explore-map-{width}.png")
    assert page.problems == [] and {one for one in page.asked if not one.startswith("data:")} == {address}
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_without_the_script_the_still_picture_stays(open_page, upgrade, tmp_path):
    page = open_page(write(tmp_path / "a.html", explore.map_view(upgrade, 4).html()))
    assert page.evaluate(STILL) == 1 and page.problems == []
