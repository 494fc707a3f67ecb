"""The site: links between its pages, its search, and what it does when a notebook has not run."""

import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import nbformat
import plan
import pytest
import site_search
import website
from stub_project import make_project
from test_workflow import PIXEL


class Addresses(HTMLParser):
    """Every address and every id in a page; written apart from the code that makes the pages."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links, self.loaded, self.ids = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "action"):
                (self.loaded if tag == "link" else self.links).append(value)
            elif name in ("src", "srcset", "poster", "data", "background"):
                self.loaded.append(value)
            elif name == "id":
                self.ids.append(value)


def broken(site: Path) -> list[str]:
    """Everything in a site that leads or loads from nowhere."""
    pages = {path.name: Addresses(path.read_text(encoding="utf-8")) for path in site.glob("*.html")}
    found = []
    for name, page in pages.items():
        found += [
            f"{name} loads {address[:60]}" for address in page.loaded if not address.startswith("data:")
        ]
        for link in page.links:
            if re.match(r"https?:|mailto:", link):
                continue
            file, _, anchor = unquote(link).partition("#")
            target = pages.get(file or name)
            if target is None:
                found.append(f"{name}: no page {link}")
            elif anchor and anchor not in target.ids:
                found.append(f"{name}: no anchor {link}")
    for section in sections(site):
        file, _, anchor = section["address"].partition("#")
        if file not in pages or (anchor and anchor not in pages[file].ids):
            found.append(f"search: {section['address']}")
    return found


def sections(site: Path) -> list[dict]:
    """What the search page holds."""
    text = (site / "search.html").read_text(encoding="utf-8")
    return json.loads(re.search(r"<script[^>]*application/json[^>]*>(.*?)</script>", text, re.DOTALL)[1])


def links(page: Path) -> list[str]:
    """Where the text of a page leads to, without its navigation."""
    text = re.sub(r"<nav.*?</nav>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return Addresses(text).links


@pytest.fixture
def stub(tmp_path, project, monkeypatch):
    """A stub project with documents, in which every notebook has run."""
    root = make_project(tmp_path / "stub", project)
    monkeypatch.setattr(plan, "ROOT", root)
    monkeypatch.setattr(plan, "NOTEBOOKS", root / "notebooks")
    (root / "docs").mkdir()
    (root / "docs" / "methods.md").write_text(
        "# Methods\n\n| a | b |\n| --- | --- |\n| [BCT](#bct) | [code](../compat_lib/losses) |\n\n"
        '## <a id="bct"></a>BCT\n\nThe *influence* loss, $\\alpha$. See [glossary](glossary.md#old-model).\n'
    )
    (root / "docs" / "glossary.md").write_text(
        "# Words\n\n## Old model?\n\nThe one in use.\n\n## Old model?\n"
    )
    (root / "picture.png").write_bytes(PIXEL)
    (root / "README.md").write_text(
        "# Read me\n\n![p](picture.png)\n\n[zero](notebooks/00_start_here.ipynb), "
        "[three](notebooks/03_mixbct.ipynb#Part), [four](notebooks/04_other_methods.ipynb), [l](LICENSE)\n"
    )
    source = "# Three\n\n[zero](00_start_here.ipynb), [BCT](../docs/methods.md#bct), [part](#Part)\n\n## Part"
    for job in jobs():
        run(root, job, source if job.notebook.stem == "03_mixbct" else f"# {job.notebook.stem}")
    return root


def jobs() -> list[plan.Job]:
    preset, path, root = plan.read("tiny")
    arguments = (preset, path, root)
    return [*plan.experiment_jobs(preset), *plan.page_jobs(*arguments), *plan.site_jobs(*arguments)]


def run(root: Path, job: plan.Job, text: str, *cells) -> None:
    """Leave what a run of a notebook leaves behind."""
    target = root / "runs" / job.target
    target.parent.mkdir(parents=True, exist_ok=True)
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text), *cells])
    nbformat.write(content, target)
    (root / "runs" / job.page).touch()


def job_of(stem: str) -> plan.Job:
    return next(job for job in jobs() if job.notebook.stem == stem)


def test_links_between_notebooks_and_documents_become_links_between_pages(stub):
    site = website.build("tiny").parent
    assert site == stub / "runs" / "tiny" / "site"
    assert links(site / "03_mixbct.html") == ["00_start_here.html", "methods.html#bct", "#Part"]
    assert links(site / "methods.html") == ["#bct", "glossary.html#old-model"]
    assert links(site / "about.html") == ["00_start_here.html", "03_mixbct.html#Part", "index.html#runs"]
    assert "<em>code</em>" in (site / "methods.html").read_text(), "no page lies behind this link"
    assert "data:image/png;base64," in (site / "about.html").read_text()
    assert broken(site) == []


def test_the_checker_sees_what_is_broken(stub):
    site = website.build("tiny").parent
    page = site / "about.html"
    page.write_text(page.read_text() + '<a href="gone.html">x</a><a href="#no">y</a><img src="a.png">')
    (site / "03_mixbct.html").write_text("<h1>empty</h1>")
    found = broken(site)
    for words in (
        "about.html: no page gone.html",
        "about.html: no anchor #no",
        "about.html loads a.png",
        "about.html: no anchor 03_mixbct.html#Part",
        "search: 03_mixbct.html#Part",
    ):
        assert words in found


def test_every_page_has_one_look_and_the_way_to_the_others(stub):
    site = website.build("tiny").parent
    pages = [path.read_text() for path in site.glob("*.html")]
    assert len(pages) == len(jobs()) + 5  # three documents, the index, the search
    looks = {re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1] for page in pages}
    ways = {re.search(r"<nav.*?</nav>", page, re.DOTALL)[0] for page in pages}
    assert len(looks) == len(ways) == 1
    assert 'href="index.html"' in ways.pop()


def test_the_index_shows_every_run_and_what_has_failed(stub):
    job = job_of("05_explore_features")
    (stub / "runs" / job.page).unlink()
    (stub / "runs" / job.failed_copy).touch()
    (stub / "runs" / job_of("08_costs").page).unlink()
    run(stub, job_of("00_start_here"), "# Zero\n\n[five](05_explore_features.ipynb)")
    site = website.build("tiny").parent
    index = (site / "index.html").read_text()
    assert '<li class="failed">05_explore_features: no page, failed</li>' in index
    assert '<li class="missing">08_costs: no page, missing</li>' in index
    assert index.count('<td data-label="state">done</td>') == 3, "the old model and two runs"
    rows = re.findall(r'<td data-label="(?:run|setting)">(.*?)</td>', index)
    assert [re.sub("<.*?>", "", words) for words in rows[::2]] == [
        *("Old model, seed 0", "L2 regression, seed 0", "MixBCT, seed 0"),
    ]
    assert set(rows[1::2]) == {"Portraits, open-class, softmax to ArcFace"}
    assert "<em>five</em>" in (site / "00_start_here.html").read_text()
    assert not (site / "05_explore_features.html").exists() and broken(site) == []


def test_further_runs_of_a_notebook_carry_their_name(stub):
    (stub / "configs" / "tiny.yml").write_text(
        "methods:\n  - {method: l2}\n  - {method: bct}\n  - {method: mixbct}\n"
        "  - {method: mixbct, budget: passes}\n"
    )
    for job in jobs():
        run(stub, job, f"# {job.notebook.stem}")
    site = website.build("tiny").parent
    names = sorted(path.stem for path in site.glob("0[34]*.html"))
    assert [re.sub(r"-[0-9a-f]{6}$", "", name) for name in names] == [
        "03_mixbct",
        "03_mixbct-mixbct-passes-s0",
        "04_other_methods-bct-s0",
        "04_other_methods-l2-s0",
    ]


def test_the_search_knows_words_of_the_text_and_no_code(stub):
    folded = nbformat.v4.new_code_cell("secret_name = 1", metadata={"tags": ["solution"]})
    folded.outputs = [nbformat.v4.new_output("stream", text="printed")]
    run(stub, job_of("00_start_here"), "# Zero\n\nA </script> tag, <b>bold</b>.\n\n## Later\n\nMore.", folded)
    site = website.build("tiny").parent
    known = {section["address"]: section for section in sections(site)}
    bct = known["methods.html#bct"]
    assert bct["title"] == "BCT" and bct["page"] == "Methods"
    assert bct["text"].startswith("The influence loss, α. See"), "a formula within a sentence stays"
    sections_of = site_search.sections_of
    (alone,) = sections_of('<h2>A</h2><p>b</p><math display="block"><mi>x</mi></math>', "a.html", "A")
    assert alone["text"] == "b"
    assert known["00_start_here.html#Later"]["text"] == "More."
    everything = json.dumps(list(known.values()))
    assert "secret_name" not in everything and "printed" not in everything
    assert "bold" in known["00_start_here.html#Zero"]["text"]


def test_no_text_can_leave_the_element_that_holds_the_search():
    box = site_search.search_box([{"text": "</script><script>alert(1)</script>"}])
    assert "</script><script>alert" not in box and "alert(1)" in box


def test_an_older_site_stays_when_a_page_cannot_be_made(stub):
    before = website.build("tiny").read_text()
    html = nbformat.v4.new_output("display_data", {"text/html": '<img src="https://example.org/a.png">'})
    cell = nbformat.v4.new_code_cell("x", outputs=[html])
    run(stub, job_of("00_start_here"), "# Zero", cell)
    with pytest.raises(ValueError, match=r"00_start_here\.ipynb would fetch https://example\.org/a\.png"):
        website.build("tiny")
    assert (stub / "runs" / "tiny" / "site" / "index.html").read_text() == before


@pytest.mark.parametrize(
    ("preset", "words"),
    [("tiny", "no notebook of tiny has run: make site PRESET=tiny"), ("tine", "there is no preset")],
)
def test_nothing_to_show_is_a_sentence(stub, monkeypatch, capsys, preset, words):
    shutil.rmtree(stub / "runs")
    monkeypatch.setattr(sys, "argv", ["website.py", "--preset", str(stub / "configs" / f"{preset}.yml")])
    assert website.main() == 1
    message = capsys.readouterr().err
    assert words in message and "Traceback" not in message


@pytest.mark.slow
def test_every_link_in_the_notebooks_and_documents_leads_somewhere(project, tmp_path):
    """The real ones; the notebooks as committed, without outputs."""
    preset, path, root = plan.read("smoke", str(tmp_path))
    arguments = (preset, path, root)
    for job in (*plan.experiment_jobs(preset), *plan.page_jobs(*arguments), *plan.site_jobs(*arguments)):
        target = root / job.target
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(job.notebook, target)
        (root / job.page).touch()
    site = website.build("smoke", str(tmp_path)).parent
    assert broken(site) == []
    documents = {path.stem for path in (project / "docs").glob("*.md")}
    assert documents <= {path.stem for path in site.glob("*.html")}
    methods = re.findall(r'<a id="(\w+)">', (project / "docs" / "methods.md").read_text(encoding="utf-8"))
    assert {f"methods.html#{name}" for name in methods} <= {section["address"] for section in sections(site)}
