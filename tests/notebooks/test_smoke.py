"""The site at the smoke preset: every notebook runs, and what it records would catch a broken method.

Its pages are then opened in a real browser with the network off: complete, quiet, readable on both screens.

The ranges come from chance (a gallery of 50 identities with 8 images each has a mean average precision
near 0.04 for features without meaning, and TAR@FAR=1e-2 near 0.01) and from what a method is for. They
leave room for other seeds and processors; they do not repeat one run's numbers.
"""

import json
import os
import re
import subprocess
import sys

import nbformat
import plan
import pytest
from execute import read_cells

from compat_lib.presets import load_preset
from compat_lib.runs import list_runs

pytestmark = pytest.mark.slow
METHODS = ("independent", "bct", "dual_tuning", "mixbct")  # each a notebook of its own, or another part of 04
WIDTHS = (1280, 400)
PAGES = ("index", "methods", "about", "runs", "search")
# Whatever reaches beyond the right edge and lies in no box that scrolls or cuts.
TOO_WIDE = """(() => {
  const width = document.documentElement.clientWidth, root = document.documentElement;
  const held = e => e && e !== document.body &&
    (["auto", "scroll", "hidden"].includes(getComputedStyle(e).overflowX) || held(e.parentElement));
  const wide = [...(document.querySelector("article") || document.body).querySelectorAll("*")].filter(
    e => e.getBoundingClientRect().right > width + 1 && !held(e.parentElement) && !held(e));
  const page = Math.max(root.scrollWidth, document.body.scrollWidth) > width ? ["the page"] : [];
  const names = wide.map(e => e.tagName + "." + e.className + " " + e.textContent.slice(0, 40));
  return [...page, ...names].slice(0, 5);
})()"""
NOT_SHOWN = """[...document.images].filter(i => !(i.complete && i.naturalWidth > 0))
  .map(i => i.alt + i.src.slice(0, 80))"""


@pytest.fixture(scope="module")
def finished(project, tmp_path_factory):
    """The runs root after ``make site PRESET=smoke``, without L2, whose notebook is that of BCT."""
    root = tmp_path_factory.mktemp("smoke")
    command = [sys.executable, str(project / "workflow" / "reproduce.py"), "--preset", "smoke", "--site"]
    command += ["--cores", "2", "--runs-root", str(root)]
    command += ["--set", f"methods={json.dumps([{'method': name} for name in METHODS])}"]
    environment = os.environ | {"COMPAT_DATA": str(root / "data")}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return root


@pytest.fixture(scope="module")
def configs(project, finished):
    preset = load_preset(finished / "smoke" / "smoke.yml", runs_root=str(finished))
    return {config.method: config for config in preset.experiments}


def recorded(path):
    """What the last code cell of an executed notebook printed."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    text = "".join(output.get("text", "") for output in cells[-1].outputs)
    return json.loads(text[text.index("{") : text.rindex("}") + 1])


def test_the_old_model_is_far_above_chance_and_described(configs):
    values = recorded(configs["independent"].old_folder / "notebook.ipynb")
    assert 0.2 < values["old_old/map"] < 0.9
    assert values["nearest_prototype_right"] > 0.2  # of 140 classes that it never saw
    assert values["same_from_arrays"]


def test_the_oracle_is_better_than_the_old_model_and_not_compatible(configs):
    values = recorded(configs["independent"].run_folder / "notebook.ipynb")
    assert values["new_new/map"] > values["old_old/map"] + 0.05
    assert values["new_old/map"] < 0.1
    assert values["new_old/tar@far=1e-2"] < 0.05
    for adapter in ("procrustes", "ridge"):
        assert values[f"adapter/{adapter}/new_old/map"] > 0.3


@pytest.mark.parametrize("method", [name for name in METHODS if name != "independent"])
def test_each_method_makes_new_queries_meet_the_old_gallery(configs, method):
    values = recorded(configs[method].run_folder / "notebook.ipynb")
    assert values["new_old/map"] > values["oracle/new_old/map"] + 0.2
    assert values["new_old/tar@far=1e-2"] > values["oracle/new_old/tar@far=1e-2"] + 0.1
    assert values["new_new/map"] > 0.4
    # the new model keeps most of what it could be
    assert values["new_new/map"] > 0.75 * values["oracle/new_new/map"]


def test_mixbct_embeds_about_thirty_per_cent_fewer_images(configs):
    mixed = recorded(configs["mixbct"].run_folder / "notebook.ipynb")["backbone_images"]
    every = recorded(configs["bct"].run_folder / "notebook.ipynb")["backbone_images"]
    assert 0.68 < mixed / every < 0.73


def test_methods_turn_class_means_towards_the_old_prototypes(configs):
    for method in ("dual_tuning", "mixbct"):
        values = recorded(configs[method].run_folder / "notebook.ipynb")
        assert values["alignment"] > values["oracle/alignment"] + 0.3


def test_the_first_notebook_shows_the_two_errors(finished):
    values = recorded(finished / "smoke" / "start_here.ipynb")
    assert values["same_width_rank1"] < 0.15  # two networks of equal width
    assert values["random_new_old"] < 0.05
    assert values["procrustes_new_old"] > 0.1
    assert values["compatible_new_old"] > 0.1
    toy = values["toy_cross_test"]
    assert toy["independent"] < 0.7 and all(toy[name] > 0.9 for name in toy if name != "independent")


def test_the_master_counts_the_runs(finished):
    values = recorded(finished / "smoke" / "all_tables.ipynb")
    assert values["missing_runs"] == 0
    assert values["complete_runs"] >= len(METHODS)
    assert len(list_runs(finished)) >= len(METHODS) + 1


def test_pages_need_no_network_and_show_pictures(finished):
    pages = sorted((finished / "smoke" / "site").glob("*.html"))
    names = {page.name for page in pages}
    ran = {"00_start_here.html", "01_old_system.html", "02_dual_tuning.html", "03_mixbct.html", "index.html"}
    assert ran | {f"{stem}.html" for stem in plan.FOR_THE_SITE} <= names
    assert sum(name.startswith("04_other_methods-") for name in names) == 2
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"']https?:", text), page
        if page.name in ran or page.name.startswith("04_"):
            assert re.search(r'<img[^>]+src="_images/', text), f"{page} shows no picture"


# -- its pages in a browser ----------------------------------------------------------------------


@pytest.fixture
def site(finished):
    return finished / "smoke" / "site"


@pytest.mark.browser
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_complete_quiet_and_readable(open_page, site, pictures, name, width):
    page = open_page((site / f"{name}.html").as_uri(), width)
    page.screenshot(path=pictures / f"{name}-{width}.png")
    assert page.problems == []
    assert page.asked and all(address.startswith(("file:", "data:", "blob:")) for address in page.asked)
    assert page.evaluate(TOO_WIDE) == []
    assert page.evaluate(NOT_SHOWN) == []
    assert name == "search" or page.locator("h1").count() >= 1


@pytest.mark.browser
def test_the_master_shows_its_pictures_and_its_tables_and_solutions_open_with_a_click(open_page, site):
    page = open_page((site / "index.html").as_uri())
    assert page.locator("img").count() >= 4 and page.locator(".cell_output table").count() >= 5
    assert page.evaluate("[...document.images].every(i => i.getBoundingClientRect().width > 100)")
    sizes = "[...document.querySelectorAll('article p')].map(p => parseFloat(getComputedStyle(p).fontSize))"
    assert min(page.evaluate(sizes)) >= 12
    cells = read_cells(plan.NOTEBOOKS / "99_all_tables.ipynb")
    folds = page.locator("details:has(> summary:has-text('Solution'))")
    assert folds.count() == sum("solution" in cell["metadata"].get("tags", []) for cell in cells) > 0
    code = folds.first.locator(".highlight").first
    assert not code.is_visible()
    folds.first.locator("summary").first.click()
    assert code.is_visible()


@pytest.mark.browser
def test_the_search_finds_a_method_without_a_server(open_page, site, pictures):
    page = open_page((site / "index.html").as_uri())
    page.locator(".sidebar-search").fill("credible mixbct")
    page.keyboard.press("Enter")
    hits = page.locator("ul.search li a")
    hits.first.wait_for()
    assert any(hit.get_attribute("href").startswith("methods.html") for hit in hits.all())
    page.screenshot(path=pictures / "search-hits-1280.png")
    assert page.problems == []


@pytest.mark.browser
def test_the_measures_see_what_is_too_wide_and_what_is_not_shown(open_page, tmp_path):
    page = tmp_path / "a.html"
    head = '<!DOCTYPE html><head><meta name="viewport" content="width=device-width"></head>'
    page.write_text(
        head + '<body><div style="overflow-x: auto"><p style="width: 900px">held</p></div>'
        '<p style="width: 500px">free</p><img src="data:image/png;base64,AAAA" alt="torn">'
    )
    shown = open_page(page.as_uri(), 400)
    wide = shown.evaluate(TOO_WIDE)
    assert wide[0] == "the page" and wide[1].endswith("free") and len(wide) == 2
    assert [text[:4] for text in shown.evaluate(NOT_SHOWN)] == ["torn"]
