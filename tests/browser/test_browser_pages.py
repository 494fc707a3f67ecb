"""The pages in a real browser, network off: complete, quiet, readable on a wide and a small screen."""

import json
import subprocess
import sys
from pathlib import Path

import pages
import plan
import pytest
from execute import read_cells

pytestmark = [pytest.mark.browser, pytest.mark.slow]
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
def site(tmp_path_factory) -> Path:
    """The pages of the preset smoke, of which only the master notebook has run.

    It shows the authors' runs, so nothing needs to be trained for it.
    """
    preset, path, root = plan.read("smoke", str(tmp_path_factory.mktemp("runs")))
    job = next(job for job in plan.page_jobs(preset, path, root) if job.notebook.stem == plan.ALL_TABLES)
    command = [sys.executable, str(plan.ROOT / "workflow" / "execute.py"), str(job.notebook)]
    command += [str(root / job.target), "--parameters", json.dumps(job.parameters)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return pages.build("smoke", str(root)).parent


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


def test_the_master_shows_its_pictures_and_its_tables_and_solutions_open_with_a_click(open_page, site):
    page = open_page((site / "index.html").as_uri())
    assert page.locator("img").count() >= 5 and page.locator(".cell_output table").count() >= 5
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


def test_the_search_finds_a_method_without_a_server(open_page, site, pictures):
    page = open_page((site / "index.html").as_uri())
    page.locator(".sidebar-search").fill("credible mixbct")
    page.keyboard.press("Enter")
    hits = page.locator("ul.search li a")
    hits.first.wait_for()
    assert any(hit.get_attribute("href").startswith("methods.html") for hit in hits.all())
    page.screenshot(path=pictures / "search-hits-1280.png")
    assert page.problems == []


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
