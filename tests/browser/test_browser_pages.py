"""The site in a real browser with the network off: complete, quiet, readable on a wide and a small screen."""

import json
import re
import subprocess
import sys
from pathlib import Path

import plan
import pytest
import website
from execute import read_cells

pytestmark = [pytest.mark.browser, pytest.mark.slow]
WIDTHS = (1280, 400)
PAGES = ("99_all_tables", "index", "methods", "about", "search")
# Whatever reaches beyond the right edge and lies in no box that scrolls or cuts.
TOO_WIDE = """(() => {
  const width = document.documentElement.clientWidth, root = document.documentElement;
  const held = e => e && e !== document.body &&
    (["auto", "scroll", "hidden"].includes(getComputedStyle(e).overflowX) || held(e.parentElement));
  const wide = [...document.body.querySelectorAll("*")].filter(
    e => e.getBoundingClientRect().right > width + 1 && !held(e.parentElement) && !held(e));
  const page = Math.max(root.scrollWidth, document.body.scrollWidth) > width ? ["the page"] : [];
  const names = wide.map(e => e.tagName + "." + e.className + " " + e.textContent.slice(0, 40));
  return [...page, ...names].slice(0, 5);
})()"""
NOT_SHOWN = """[...document.images].filter(i => !(i.complete && i.naturalWidth > 0))
  .map(i => i.alt + i.src.slice(0, 80))"""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site of the preset smoke, of which only the master notebook has run.

    It shows the authors' runs, so nothing needs to be trained for it.
    """
    preset, path, root = plan.read("smoke", str(tmp_path_factory.mktemp("runs")))
    job = next(job for job in plan.page_jobs(preset, path, root) if job.notebook.stem == plan.ALL_TABLES)
    command = [sys.executable, str(plan.ROOT / "workflow" / "execute.py"), str(job.notebook)]
    command += [str(root / job.target), "--parameters", json.dumps(job.parameters)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (root / job.page).touch()
    return website.build("smoke", str(root)).parent


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
    assert tab.requests == [(site / f"{name}.html").as_uri()], "a page asks for nothing but itself"
    assert tab.evaluate(TOO_WIDE) == []
    assert tab.evaluate(NOT_SHOWN) == []
    assert tab.evaluate("document.querySelectorAll('main h1').length") >= 1


def test_the_master_shows_its_pictures_and_its_tables(tab, site):
    open_page(tab, site / "99_all_tables.html", 1280)
    assert tab.evaluate("document.images.length") >= 5
    assert tab.evaluate("document.querySelectorAll('.output table').length") >= 5
    assert tab.evaluate("[...document.images].every(i => i.getBoundingClientRect().width > 100)")
    sizes = "[...document.querySelectorAll('p')].map(p => parseFloat(getComputedStyle(p).fontSize))"
    assert min(tab.evaluate(sizes)) >= 14


def test_code_and_solutions_open_with_a_click(tab, site):
    open_page(tab, site / "99_all_tables.html", 1280)
    solutions = "document.querySelectorAll('details.solution').length"
    cells = read_cells(plan.NOTEBOOKS / "99_all_tables.ipynb")
    assert (
        tab.evaluate(solutions) == sum("solution" in cell["metadata"].get("tags", []) for cell in cells) > 0
    )
    visible = "document.querySelector('details.solution .highlight').checkVisibility()"
    assert not tab.evaluate(visible)
    tab.click("details.solution > summary")
    assert tab.evaluate(visible)
    tab.click("#all-code")
    assert tab.evaluate("[...document.querySelectorAll('details.code')].every(fold => fold.open)")
    assert tab.evaluate("document.querySelectorAll('details.solution[open]').length") == 1


def test_the_search_finds_a_method_and_leads_to_it(tab, site, pictures):
    open_page(tab, site / "index.html", 1280)
    tab.click("nav input")
    tab.type("credible mixbct")
    tab.press("Enter")
    tab.wait_for("location.pathname.endsWith('search.html') && document.readyState == 'complete'", 10, "hits")
    found = tab.evaluate("[...document.querySelectorAll('#hits a')].map(a => a.getAttribute('href'))")
    assert "methods.html#mixbct" in found
    assert tab.evaluate("document.querySelectorAll('#hits mark').length") >= len(found)
    tab.picture(pictures / "search-hits-1280.png")
    tab.click("#hits a[href='methods.html#mixbct']")
    tab.wait_for("location.href.endsWith('methods.html#mixbct')", 10, "the page of the methods")
    tab.wait_for("document.readyState === 'complete'", 10, "the page of the methods")
    top = tab.evaluate("document.getElementById('mixbct').getBoundingClientRect().top")
    assert -5 < top < 200, "the page has not gone to the method"
    assert tab.problems == []


def test_what_one_types_into_the_search_stays_text(tab, site):
    open_page(tab, site / "search.html", 400)
    tab.click("#words")
    tab.type("<img src=x onerror=alert(1)> bct")
    assert tab.evaluate("document.querySelector('#count').textContent").startswith("0 sections")
    tab.evaluate(
        "(b => { b.value = 'bct'; b.dispatchEvent(new Event('input')); })(document.querySelector('#words'))"
    )
    assert tab.evaluate("document.querySelectorAll('#hits li').length") > 3
    assert tab.evaluate(TOO_WIDE) == [] and tab.problems == []


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
