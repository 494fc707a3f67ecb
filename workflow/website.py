"""Build the site of a preset from what its runs have left: pages that link to each other, and a search.

    python workflow/website.py --preset quick        (the last step of make site)

Everything lies in one folder, ``<runs root>/<preset>/site``, and needs neither a network nor a server.
A notebook that has not run has no page: the index says so, and links to it become plain text.
(Not called site.py: Python has a module of that name, which it imports before anything else.)
"""

import argparse
import html
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import export
import nbformat
import plan
from execute import NotebookError
from reproduce import state
from site_search import search_box, sections_of

RUNS = "index.html#runs"
TITLE = "compat_lib: upgrade the model, keep the gallery"
PAGE_OF = {  # the others: their own name and heading
    "README.md": ("about.html", "About this package, and its results"),
    "results/README.md": ("results.html", "Runs by the authors"),
}
# On the index: title, for whom, notebooks, documents. A document that is not named comes last.
GROUPS = (
    (
        "Start here",
        "The two errors that people make, the words, and a plan for two lectures and a lab.",
        ("00_start_here",),
        ("docs/glossary.md", "docs/teaching.md", "README.md"),
    ),
    (
        "See the features",
        "What the old model has left behind, and what happens to features when the model changes.",
        ("01_old_system", "05_explore_features"),
        (),
    ),
    (
        "How the methods work",
        "Each method's idea, terms, options and pictures.",
        ("02_dual_tuning", "03_mixbct", "04_other_methods"),
        ("docs/methods.md", "docs/choosing_options.md"),
    ),
    (
        "Decide on Monday",
        "You run a gallery and have a new model: what to check, what it costs, how to switch.",
        ("06_upgrade_a_gallery", "07_your_own_system", "08_costs"),
        ("docs/protocols.md",),
    ),
    (
        "Compare",
        "Every run in one set of tables, and the papers' claims with a verdict.",
        ("99_all_tables",),
        ("results/README.md",),
    ),
)
RUN_COLUMNS = ("run", "state", "setting", "notebook", "folder")
IN_NAVIGATION = {  # address: words; those that are there
    "00_start_here.html": "Start here",
    "05_explore_features.html": "See",
    "methods.html": "Methods",
    "06_upgrade_a_gallery.html": "Decide",
    "99_all_tables.html": "All tables",
    "glossary.html": "Glossary",
}


@dataclass(frozen=True)
class Page:
    """One page: its file's name, its title, what it is made of, and what it is the page of.

    ``source`` is an executed notebook or a document; ``origin`` the file in the repository to which
    links lead; ``label`` what the index calls a run, empty for documents.
    """

    name: str
    title: str
    source: Path
    origin: Path
    label: str = ""


def document_pages() -> list[Page]:
    """One page for each document, whether or not it is named in a group."""
    root = plan.ROOT
    files = [root / "README.md", root / "results" / "README.md", *sorted((root / "docs").glob("*.md"))]
    pages = []
    for file in files:
        if file.is_file():
            heading = re.search(r"^#\s+(.+)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            own = f"{file.stem}.html", heading.group(1) if heading else file.stem
            name, title = PAGE_OF.get(file.relative_to(root).as_posix(), own)
            pages.append(Page(name, title, file, file))
    return pages


def notebook_pages(jobs: list[plan.Job], runs_root: Path) -> list[Page]:
    """One page for each notebook that has run.

    The first run of a notebook takes the notebook's name; further ones, and all of the notebook that runs
    any method, take the name of their run as well.
    """
    folders = Counter(job.result.parent.name for job in jobs if job.result)
    pages, taken = [], set()
    for job in jobs:
        if state(job, runs_root) != "done":
            continue
        name = stem = job.notebook.stem
        if job.result and (stem == plan.OTHER_METHODS or stem in taken):
            folder = job.result.parent
            run = folder.name if folders[folder.name] == 1 else f"{folder.parent.name}-{folder.name}"
            name = f"{stem}-{run}"
        taken.add(name)
        title = plan.title_of(job.notebook)
        pages.append(Page(f"{name}.html", title, runs_root / job.target, job.notebook, job.label))
    return pages


def addresses(pages: list[Page]) -> dict[Path, str]:
    """The page of each file of the repository that has one; the first, where it has several."""
    found = {}
    for page in pages:
        several = page.origin.stem == plan.OTHER_METHODS
        found.setdefault(page.origin.resolve(), RUNS if several else page.name)
    return found


def leads_from(folder: Path, pages: dict[Path, str]) -> Callable[[str], str | None]:
    """The function that turns a link in a file of ``folder`` into the address of a page, or None."""

    def lead(link: str) -> str | None:
        file, _, anchor = link.partition("#")
        page = pages.get((folder / unquote(file)).resolve())
        return f"{page}#{anchor}" if page and anchor and "#" not in page else page

    return lead


def github_anchor(heading: str) -> str:
    """The address that GitHub gives a heading of a document.

    >>> github_anchor("Is the upgrade good?")
    'is-the-upgrade-good'
    """
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def navigation(names: set[str]) -> str:
    """The line at the top of every page."""
    links = [f'<a href="{name}">{words}</a>' for name, words in IN_NAVIGATION.items() if name in names]
    return (
        '<nav class="site"><a class="home" href="index.html">compat_lib</a>'
        + "".join(links)
        + '<form action="search.html" role="search"><input type="search" name="q" placeholder="Search" '
        'aria-label="Search this site"></form></nav>'
    )


def document(text: str) -> nbformat.NotebookNode:
    """A document as a notebook of one cell, so that it goes through the same template."""
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])


def written(page: Page, by_origin: dict[Path, str], bar: str) -> str:
    """A page's text, with the navigation and with links to the others."""
    folder = page.origin.parent
    lead = leads_from(folder, by_origin)
    if page.label:
        content, rendering = nbformat.read(page.source, as_version=4), {}
    else:
        content, rendering = document(page.source.read_text(encoding="utf-8")), {"anchor": github_anchor}
    return export.render(content, page.origin.name, folder, above=bar, lead=lead, **rendering)


def cards(pages: list[Page], jobs: list[plan.Job], runs_root: Path) -> str:
    """The groups of the index, each with its pages."""
    by_origin = addresses(pages)
    titles = {page.origin.resolve(): page.title for page in pages}
    states = {job.notebook.stem: state(job, runs_root) for job in reversed(jobs)}
    named = {name for group in GROUPS for name in group[3]}
    rest = [page.origin.relative_to(plan.ROOT).as_posix() for page in pages if not page.label]
    rest = tuple(name for name in rest if name not in named)
    shown = (*GROUPS, ("More", "", (), rest)) if rest else GROUPS

    def item(path: Path) -> str:
        page = by_origin.get(path.resolve())
        if page:
            return f'<li><a href="{page}">{html.escape(titles[path.resolve()])}</a></li>'
        how = states.get(path.stem)
        return f'<li class="{how}">{html.escape(path.stem)}: no page, {how}</li>' if how else ""

    parts = []
    for title, words, notebooks, documents in shown:
        paths = [plan.NOTEBOOKS / f"{stem}.ipynb" for stem in notebooks]
        items = "".join(map(item, [*paths, *(plan.ROOT / name for name in documents)]))
        parts.append(f'<section class="card"><h2>{title}</h2><p>{words}</p><ul>{items}</ul></section>')
    return '<div class="cards">' + "\n".join(parts) + "</div>"


def table_of_runs(pages: list[Page], jobs: list[plan.Job], runs_root: Path) -> str:
    """Every run that the preset asks for, with its page or its state."""
    addresses_of = {page.source: page.name for page in pages}
    words_of = plan.names(jobs)
    rows = []
    for job in jobs:
        if not job.result:
            continue
        name, how = addresses_of.get(runs_root / job.target), state(job, runs_root)
        setting, words = map(html.escape, words_of[job.target])
        words = f'<a href="{html.escape(name)}">{words}</a>' if name else words
        folder = html.escape(job.result.parent.relative_to(runs_root).as_posix())
        cells = (words, how, setting, job.notebook.stem, f"<code>{folder}</code>")
        # The headings as labels too: on a small screen the cells of a row stand below each other.
        labelled = zip(RUN_COLUMNS, cells, strict=True)
        row = "".join(f'<td data-label="{column}">{cell}</td>' for column, cell in labelled)
        rows.append(f'<tr class="{how}">{row}</tr>')
    head = "<thead><tr>" + "".join(f"<th>{column}</th>" for column in RUN_COLUMNS) + "</tr></thead>"
    table = (
        f'<div class="scroll"><table class="runs words">{head}<tbody>{"".join(rows)}</tbody></table></div>'
    )
    return f'<h2 id="runs">Every run of this preset</h2>\n{table}'


def build(preset_name: str, runs_root: str | None = None) -> Path:
    """Write the site and return its index; an older site stays until the new one is complete.

    Raises:
        FileNotFoundError: no such preset, or nothing of it has run.
        ValueError: a page would fetch something.
    """
    preset, path, root = plan.read(preset_name, runs_root)
    jobs = [*plan.page_jobs(preset, path, root), *plan.site_jobs(preset, path, root)]
    jobs = [*sorted(jobs, key=lambda job: job.label), *plan.experiment_jobs(preset)]
    executed = notebook_pages(jobs, root)
    if not executed:
        raise FileNotFoundError(f"no notebook of {preset.name} has run: make site PRESET={preset.name}")
    pages = [*executed, *document_pages()]
    by_origin, bar = addresses(pages), navigation({page.name for page in pages})
    target = root / preset.name / "site"
    part = target.with_name(".site.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    known = []
    for page in pages:
        text = written(page, by_origin, bar)
        (part / page.name).write_text(text, encoding="utf-8")
        known += sections_of(text, page.name, page.title)
    index = f"# {TITLE}\n\nThe notebooks, run with the preset *{preset.name}*, and the documents. "
    index += "Everything lies in this folder; nothing is fetched from a network."
    below = cards(pages, jobs, root) + table_of_runs(pages, jobs, root)
    for name, text, rest in (("index.html", index, below), ("search.html", "# Search", search_box(known))):
        text = export.render(document(text), name, plan.ROOT, above=bar, below=rest)
        (part / name).write_text(text, encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    os.replace(part, target)
    return target / "index.html"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="quick", help="a name in configs/, or a path to a .yml file")
    parser.add_argument("--runs-root", help="where the runs are, from the repository's root (default: runs)")
    options = parser.parse_args()
    try:
        index = build(options.preset, options.runs_root)
    except (FileNotFoundError, ValueError) as error:
        print(f"make site: {error}", file=sys.stderr)
        return 1
    except NotebookError as error:
        print(f"make site: {error.where}: {error.what}", file=sys.stderr)
        return 1
    print(f"Open {index} in a browser; it needs neither a network nor a server.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
