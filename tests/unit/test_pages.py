"""The pages: complete without a network, linked, searchable, and honest about what has not run."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pages
import plan
import pytest
from stub_project import make_project

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
WIDGET = {"application/vnd.jupyter.widget-view+json": {"model_id": "m1"}}
WIDGET["text/plain"] = "VBox(children=())"


class Addresses(HTMLParser):
    """Every address that a page leads to, and every one that a browser would load by itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links, self.loaded = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("src", "srcset", "poster", "data") or (tag == "link" and name == "href"):
                self.loaded.append(value)
            elif name == "href":
                self.links.append(value)


def shown(**data):
    kinds = {"png": "image/png", "html": "text/html", "plain": "text/plain"}
    return nbformat.v4.new_output("display_data", {kinds[kind]: value for kind, value in data.items()})


def tagged(tag: str, source: str, said: str):
    return nbformat.v4.new_code_cell(source, metadata={"tags": [tag]}, outputs=[shown(plain=said)])


def leave(root: Path, job: plan.Job, text: str, *cells) -> None:
    """What a run of a notebook leaves behind."""
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text), *cells])
    (root / "runs" / job.target).parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(content, root / "runs" / job.target)


@pytest.fixture(scope="module")
def site(tmp_path_factory, project):
    """The pages of a stub project in which every notebook but 08 has run."""
    root = make_project(tmp_path_factory.mktemp("pages") / "stub", project)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "ROOT", root)
        patch.setattr(plan, "NOTEBOOKS", root / "notebooks")
        (root / "docs").mkdir()
        (root / "docs" / "methods.md").write_text(
            "# Methods\n\n![p](../figures/p.png)\n\n## BCT\n\nThe *influence* loss, $\\alpha$.\n"
        )
        (root / "figures").mkdir()
        (root / "figures" / "p.png").write_bytes(PIXEL)
        (root / "README.md").write_text(
            "# Read me\n\n![p](figures/p.png)\n\n[three](notebooks/03_mixbct.ipynb), [licence](LICENSE)\n"
        )
        text = "# Three\n\n$$\\frac{a}{b}$$ $\\nosuch{x}$\n\n[zero](00_start_here.ipynb), "
        text += "[BCT](../docs/methods.md#bct), [all](99_all_tables.ipynb), [code](../compat_lib/config.py)"
        cells = [
            nbformat.v4.new_code_cell("plot()", outputs=[shown(png=base64.b64encode(PIXEL).decode())]),
            nbformat.v4.new_code_cell("frame", outputs=[shown(html="<table><tr><td>0.5</td></tr></table>")]),
            nbformat.v4.new_code_cell("slide()", outputs=[nbformat.v4.new_output("display_data", WIDGET)]),
            tagged("solution", "# Solution 1: x", "folded answer"),
            tagged("show-input", "open()", "y"),
        ]
        for job in plan.all_jobs(*plan.read("tiny")):
            stem = job.notebook.stem
            if stem == "03_mixbct":
                leave(root, job, text, *cells)
            elif stem == "99_all_tables":
                cells_99 = [
                    nbformat.v4.new_code_cell("setup_code()", outputs=[shown(plain="42 runs")]),
                    nbformat.v4.new_markdown_cell("## 1 The result\n\nfirst of all"),
                    nbformat.v4.new_code_cell("table()", outputs=[shown(plain="a table")]),
                ]
                leave(root, job, f"# Title of {stem}\n\nThe question.\n\nHow long it takes.", *cells_99)
            elif stem != "08_costs":
                leave(root, job, f"# Title of {stem}")
        yield pages.build("tiny").parent


def page(site: Path, name: str) -> str:
    return (site / f"{name}.html").read_text(encoding="utf-8")


def test_no_page_loads_anything_from_a_network_or_from_nowhere(site):
    for path in site.glob("*.html"):
        for address in Addresses(path.read_text(encoding="utf-8")).loaded:
            local = (path.parent / address.partition("?")[0]).is_file()
            assert address.startswith(("data:", "#")) or local, f"{path.name} loads {address}"
        assert not re.search(r"@import|url\(['\"]?https?:", path.read_text(encoding="utf-8"))


def test_links_between_notebooks_and_documents_lead_to_their_pages(site):
    found = Addresses(page(site, "03_mixbct")).links
    assert {"00_start_here.html", "methods.html#bct", "index.html"} <= set(found)
    assert "03_mixbct.html" in Addresses(page(site, "about")).links
    text = page(site, "03_mixbct") + page(site, "about")
    assert "config.py" not in text and "LICENSE" not in text, "what has no page is words, not a link"
    for path in site.glob("*.html"):
        for link in Addresses(path.read_text(encoding="utf-8")).links:
            if not re.match(r"https?:|mailto:|#", link):
                assert (site / link.partition("#")[0]).is_file(), f"{path.name}: {link}"


def test_the_first_page_is_the_master_opens_on_its_result_and_leads_to_the_rest(site):
    text = page(site, "index")
    assert "Title of 99_all_tables" in text
    assert {"00_start_here.html", "methods.html", "runs.html", "about.html"} <= set(Addresses(text).links)
    assert "The question." in text and "42 runs" in text and "a table" in text
    assert "How long it takes" not in text and "setup_code" not in text


def test_every_run_has_a_page_or_its_state(site):
    text = page(site, "runs")
    assert "MixBCT, seed 0" in text and "03_mixbct.html" in Addresses(text).links
    assert any(link.startswith("04_other_methods-l2-s0-") for link in Addresses(text).links)


def test_formulas_are_mathml_and_unknown_ones_stay_readable(site):
    text = page(site, "03_mixbct")
    assert "<mfrac>" in text and "nosuch" in text and "MathJax" not in text


def test_code_is_folded_but_where_it_is_the_subject_and_solutions_with_their_answers(site):
    text = page(site, "03_mixbct")
    folds = re.findall(r"<details.*?</details>", text, flags=re.DOTALL)
    assert len(folds) == 4 and "folded answer" in folds[-1] and "Solution 1" in folds[-1]
    outside = re.sub(r"<details.*?</details>", "", text, flags=re.DOTALL)
    assert "folded answer" not in outside and "<td>0.5</td>" in outside
    assert "open" in re.sub(r"<[^>]+>", "", outside.partition("In JupyterLab there are sliders")[2])


def test_a_widget_becomes_a_sentence(site):
    text = page(site, "03_mixbct")
    assert text.count("In JupyterLab there are sliders here.") == 1 and "VBox" not in text


def test_the_search_knows_the_text_of_notebooks_and_documents(site):
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert "influenc" in index and "03_mixbct" in index and (site / "search.html").is_file()


def test_nothing_to_show_is_a_sentence(site, tmp_path):
    with pytest.raises(FileNotFoundError, match="no notebook of tiny has run: make reproduce"):
        pages.build("tiny", str(tmp_path))
