"""The pages in a real browser, network off: complete, quiet, readable on a wide and a small screen."""

import json
import re
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


def open_page(tab, page: Path, width: int) -> None:
    """A page from disk, network off."""
    tab.offline()
    tab.resize(width)
    tab.open(page.as_uri())


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_complete_quiet_and_readable(tab, site, pictures, name, width):
    open_page(tab, site / f"{name}.html", width)
    tab.picture(pictures / f"{name}-{width}.png", whole=True)
    assert tab.problems == []
    assert tab.requests and all(address.startswith(("file:", "data:", "blob:")) for address in tab.requests)
    assert tab.evaluate(TOO_WIDE) == []
    assert tab.evaluate(NOT_SHOWN) == []
    assert name == "search" or tab.evaluate("document.querySelectorAll('h1').length") >= 1


def test_the_master_shows_its_pictures_and_its_tables(tab, site):
    open_page(tab, site / "index.html", 1280)
    assert tab.evaluate("document.images.length") >= 5
    assert tab.evaluate("document.querySelectorAll('.cell_output table').length") >= 5
    assert tab.evaluate("[...document.images].every(i => i.getBoundingClientRect().width > 100)")
    sizes = "[...document.querySelectorAll('article p')].map(p => parseFloat(getComputedStyle(p).fontSize))"
    assert min(tab.evaluate(sizes)) >= 12


def test_solutions_open_with_a_click(tab, site):
    open_page(tab, site / "index.html", 1280)
    cells = read_cells(plan.NOTEBOOKS / "99_all_tables.ipynb")
    number = sum("solution" in cell["metadata"].get("tags", []) for cell in cells)
    folds = "[...document.querySelectorAll('details')].filter(d => d.innerText.startsWith('Solution'))"
    assert tab.evaluate(f"(window.folds = {folds}).length") == number > 0
    visible = "folds[0].querySelector('.highlight').checkVisibility()"
    assert not tab.evaluate(visible)
    tab.evaluate("folds[0].querySelector('summary').click()")
    assert tab.evaluate(visible)


def test_the_search_finds_a_method_without_a_server(tab, site, pictures):
    open_page(tab, site / "index.html", 1280)
    tab.click(".sidebar-search")
    tab.type("credible mixbct")
    tab.press("Enter")
    tab.wait_for("document.querySelectorAll('ul.search li a').length > 0", 10, "hits")
    found = tab.evaluate("[...document.querySelectorAll('ul.search li a')].map(a => a.getAttribute('href'))")
    assert any(address.startswith("methods.html") for address in found)
    tab.picture(pictures / "search-hits-1280.png")
    assert tab.problems == []


@pytest.mark.parametrize(
    ("html", "words"),
    [
        ('<img src="gone.png">', r"not loaded: \S+gone\.png"),
        ('<script src="https://example.org/a.js"></script>', r"not loaded: https://example\.org/a\.js"),
        ("<script>console.error('oh')</script>", "console: oh"),
        ("<script>no.such.thing</script>", "exception: ReferenceError"),
    ],
)
def test_the_browser_tells_what_is_wrong_with_a_page(tab, tmp_path, html, words):
    """Otherwise the tests above would prove nothing."""
    page = tmp_path / "a.html"
    page.write_text(f"<!DOCTYPE html><body>{html}</body>")
    open_page(tab, page, 1280)
    tab.evaluate("new Promise(done => setTimeout(done, 200))")
    assert re.search(words, "\n".join(tab.problems))


def test_the_measures_see_what_is_too_wide_and_what_is_not_shown(tab, tmp_path):
    page = tmp_path / "a.html"
    head = '<!DOCTYPE html><head><meta name="viewport" content="width=device-width"></head>'
    page.write_text(
        head + '<body><div style="overflow-x: auto"><p style="width: 900px">held</p></div>'
        '<p style="width: 500px">free</p><img src="data:image/png;base64,AAAA" alt="torn">'
    )
    open_page(tab, page, 400)
    wide = tab.evaluate(TOO_WIDE)
    assert wide[0] == "the page" and wide[1].endswith("free") and len(wide) == 2
    assert [text[:4] for text in tab.evaluate(NOT_SHOWN)] == ["torn"]


def test_no_name_leads_anywhere(tab):
    """With the network on as well: the browser was started so."""
    tab.send("Page.navigate", url="http://example.org/")
    tab.wait_for("document.readyState === 'complete'", 10, "the error page")
    assert any("ERR_NAME_NOT_RESOLVED" in problem for problem in tab.problems)
