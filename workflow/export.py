"""Export an executed notebook as one HTML file that loads nothing: pictures inside, formulas as MathML.

    python workflow/export.py NOTEBOOK.ipynb PAGE.html --pictures-from notebooks

nbconvert's own pages fetch MathJax, require.js and mermaid from the network. Here formulas become
MathML, which browsers draw themselves, code is folded behind a line that one can click, solutions of
exercises likewise, and a page with a reference that a browser would fetch is refused.
"""

import argparse
import base64
import html
import mimetypes
import os
import re
import sys
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

# jsonschema, which nbformat loads, takes two seconds to build a grammar of addresses that no notebook needs.
sys.modules.setdefault("rfc3987_syntax", None)

import nbformat
from jinja2 import pass_context
from latex2mathml.converter import convert as mathml
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from traitlets.config import Config

HERE = Path(__file__).resolve().parent
# No scripts: they would need the network.
SHOWN = ["text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/latex", "text/plain"]
FETCHING = {  # attributes whose address a browser loads by itself, by tag
    **dict.fromkeys(
        ("img", "script", "iframe", "source", "video", "audio", "embed", "input", "track"), {"src"}
    ),
    "link": {"href"},
    "object": {"data"},
    "image": {"href", "xlink:href"},
    "use": {"href", "xlink:href"},
}
WIDGET = "application/vnd.jupyter.widget-view+json"
LONG_CELL = 55  # letters; a table with such a cell holds sentences
MANY_COLUMNS = 5  # more than a telephone has room for
INTERVAL = re.compile(r"\[([-+−]?[\d.]+), ([-+−]?[\d.]+)\]")
SLIDERS = '<p class="sliders">In JupyterLab there are sliders here.</p>'


class FetchedReferences(HTMLParser):
    """Collects every address in a page that a browser would load by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.in_style = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.in_style = tag == "style"
        for name, value in attributes:
            value = (value or "").strip()
            if name in FETCHING.get(tag, ()) or name in ("poster", "background"):
                self.keep(value)
            elif name == "srcset":
                for part in value.split(", "):
                    self.keep(part.split(" ")[0])
            elif name == "style":
                self.handle_css(value)

    def handle_endtag(self, tag: str) -> None:
        self.in_style = False

    def handle_data(self, data: str) -> None:
        if self.in_style:
            self.handle_css(data)

    def handle_css(self, text: str) -> None:
        for address in re.findall(r"url\(\s*['\"]?([^'\")]*)|@import\s+['\"]([^'\"]*)", text):
            self.keep("".join(address))

    def keep(self, address: str) -> None:
        if address and not address.startswith(("data:", "#")):
            self.found.append(address)


def fetched_references(page: str) -> list[str]:
    """Addresses that a browser would load when it opens ``page``; links to follow do not count.

    >>> fetched_references('<a href="https://a.org">a</a><img src="data:image/png;base64,AA">')
    []
    >>> fetched_references('<img src="b.png"><style>p { background: url(c.png) }</style>')
    ['b.png', 'c.png']
    """
    parser = FetchedReferences()
    parser.feed(page)
    parser.close()
    return parser.found


def formula(body: str, display: str) -> str:
    """A formula as MathML; as the source, in a code font, when it holds something unknown."""
    try:
        return mathml(body.strip(), display=display)
    except Exception:  # the converter raises its own and others' errors; the source is still readable
        return f'<code class="formula">{html.escape(body)}</code>'


def plain(text: str) -> str:
    """HTML without its tags."""
    return html.unescape(re.sub(r"<[^>]+>", "", text)).strip()


def unbroken(text: str) -> str:
    """HTML whose intervals stay on one line however narrow the page is.

    >>> unbroken("0.5 [0.4, 0.6]") == "0.5 [0.4,\N{NO-BREAK SPACE}0.6]"
    True
    """
    return INTERVAL.sub("[\\1,\N{NO-BREAK SPACE}\\2]", text)


def jupyter_anchor(heading: str) -> str:
    """The address of a heading in JupyterLab, which notebooks use in their links."""
    return heading.replace(" ", "-")


def nowhere(address: str) -> None:
    """The page of a link to a file, for a page that lies alone: there is none."""


def leads_beside(pages: list[str]) -> Callable[[str], str | None]:
    """The function that turns a link to a notebook into the address of its page in the same folder, or None.

    Args:
        pages: "NOTEBOOK.ipynb=PAGE.html" for each page that lies there.
    """
    known = dict(pair.split("=", 1) for pair in pages)

    def lead(link: str) -> str | None:
        file, mark, anchor = link.partition("#")
        page = known.get(Path(unquote(file)).name)
        return f"{page}{mark}{anchor}" if page else None

    return lead


class Renderer(IPythonRenderer):
    """Markdown as HTML with MathML and with pictures inside.

    Args:
        lead: gives the address of a link to a file (a page beside this one), or None where there is none.
        anchor: gives the id of a heading from its text.
        anchors: the ids of the page so far.
    """

    def __init__(
        self,
        lead: Callable[[str], str | None] = nowhere,
        anchor: Callable[[str], str] = jupyter_anchor,
        anchors: Counter | None = None,
        **others,
    ) -> None:
        super().__init__(**others)
        self.lead, self.anchor = lead, anchor
        self.anchors = Counter() if anchors is None else anchors

    def inline_math(self, body: str) -> str:
        return formula(body, "inline")

    def block_math(self, body: str) -> str:
        return f'<span class="formula scroll">{formula(body, "block")}</span>'

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(f"\\begin{{{name}}}{body}\\end{{{name}}}")

    def heading(self, text: str, level: int, **attributes) -> str:
        """A heading with an id. nbconvert writes formulas in headings in a way that browsers do not draw."""
        address = self.anchor(plain(text))
        self.anchors[address] += 1
        if self.anchors[address] > 1:
            address += f"-{self.anchors[address] - 1}"
        own = f'id="{html.escape(address)}"'
        return f"<h{level}{'' if own in text else ' ' + own}>{text}</h{level}>\n"

    def table(self, text: str) -> str:
        """A table in a box of its own, so that a wide one scrolls there and not the page.

        One with whole sentences or many columns is unreadable so: on a small screen style.css sets its cells
        below each other, each with the heading of its column.
        """
        text = unbroken(text)
        heads = [plain(head) for head in re.findall(r"<th[^>]*>(.*?)</th>", text, flags=re.DOTALL)]
        cells = re.findall(r"<td[^>]*>(.*?)</td>", text, flags=re.DOTALL)
        longest = max(map(len, map(plain, cells)), default=0)
        if len(heads) < 3 or (longest < LONG_CELL and len(heads) < MANY_COLUMNS):
            return f'<div class="scroll"><table>\n{text}</table></div>\n'

        def labelled(row: re.Match) -> str:
            names = iter(heads)
            return re.sub(r"<td\b", lambda _: f'<td data-label="{html.escape(next(names))}"', row[0])

        text = re.sub(r"<tr>.*?</tr>", labelled, text, flags=re.DOTALL)
        return f'<div class="scroll"><table class="words">\n{text}</table></div>\n'

    def paragraph(self, text: str) -> str:
        return super().paragraph(unbroken(text))

    def link(self, text: str, url: str, title: str | None = None) -> str:
        """A link, or its text where it leads to a file that has no page."""
        address = url if re.match(r"[a-z]+:|#", url) else self.lead(url)
        return super().link(text, address, title) if address else f"<em>{text}</em>"

    def _src_to_base64(self, src: str) -> str:
        """A picture beside the notebooks as a data address (nbconvert takes none from a folder above)."""
        if src.startswith("data:"):
            return src
        file = Path(self.path) / src
        if not file.is_file():
            raise FileNotFoundError(
                f"the picture {src} is not there: a page can only hold pictures from disk"
            )
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"


class PageExporter(HTMLExporter):
    """nbconvert's HTML exporter with the template in ``page/`` and nothing from the network; for one page."""

    def __init__(self, pictures: Path, **rendering) -> None:
        self.rendering = {"anchors": Counter(), "path": str(pictures), **rendering}
        config = Config({"NbConvertBase": {"display_data_priority": SHOWN}})
        super().__init__(
            config=config,
            template_name="page",
            extra_template_basedirs=[str(HERE)],
            embed_images=True,
        )

    @pass_context
    def markdown2html(self, context, source: str) -> str:
        """The filter by which nbconvert renders markdown, in the text and in outputs."""
        attachments = context.get("cell", {}).get("attachments", {})
        renderer = Renderer(escape=False, attachments=attachments, embed_images=True, **self.rendering)
        return MarkdownWithMath(renderer=renderer).render(source)


def title_of(notebook: nbformat.NotebookNode, otherwise: str) -> str:
    """The first heading of a notebook as plain text."""
    for cell in notebook.cells:
        found = (
            re.search(r"^#\s+(.+)$", cell.source, flags=re.MULTILINE)
            if cell.cell_type == "markdown"
            else None
        )
        if found:
            return re.sub(r"[*_`$\\]", "", found.group(1)).strip()
    return otherwise


def number_solutions(content: nbformat.NotebookNode) -> None:
    """Give each cell with the tag ``solution`` its number, for the line behind which it is folded."""
    tagged = [cell for cell in content.cells if "solution" in cell.metadata.get("tags", [])]
    for number, cell in enumerate(tagged, 1):
        cell.metadata["solution"] = number


def instead_of(widget: str) -> str | None:
    """What a page shows in the place of a widget.

    Args:
        widget: the text that stands beside it: a sentence meant for pages, the repr of its parts, or the
            first state of a progress bar, which is stale.
    """
    if re.fullmatch(r"[A-Z][^(){}<>=]*\.", widget):
        return f'<p class="sliders">{html.escape(widget)}</p>'
    return SLIDERS if re.match(r"\w+\(", widget) else None


def replace_widgets(content: nbformat.NotebookNode) -> None:
    """Put one line in the place of a cell's widgets, which are drawn by scripts from the network."""
    for cell in content.cells:
        if cell.cell_type != "code":
            continue
        kept, said = [], set()
        for output in cell.outputs:
            data = output.get("data", {})
            if WIDGET not in data:
                kept.append(output)
                continue
            line = instead_of(data.get("text/plain", "").strip())
            if line and line not in said:
                kept.append(nbformat.v4.new_output("display_data", {"text/html": line}))
                said.add(line)
        cell.outputs = kept


def render(
    content: nbformat.NotebookNode, name: str, pictures: Path, above: str = "", below: str = "", **rendering
) -> str:
    """The page of a notebook as text.

    Args:
        content: the executed notebook; changed in place.
        name: what error messages call it, and its title if it has no heading.
        pictures: folder from which the addresses of pictures in the text count.
        above, below: HTML before and after the notebook, such as a navigation.
        rendering: ``lead`` and ``anchor`` of ``Renderer``.

    Raises:
        FileNotFoundError: a picture in the text does not exist.
        ValueError: the page would fetch something; the sentence names it.
    """
    number_solutions(content)
    replace_widgets(content)
    resources = {"metadata": {"name": title_of(content, name)}, "above": above, "below": below}
    text, _ = PageExporter(pictures, **rendering).from_notebook_node(content, resources)
    if references := fetched_references(text):
        short = ", ".join(sorted({reference[:80] for reference in references}))
        raise ValueError(f"the page of {name} would fetch {short}; it must hold everything itself")
    return text


def export(notebook: Path, page: Path, pictures: Path, **around) -> None:
    """Write the page of an executed notebook, under its own name only when it is complete.

    Args:
        notebook: an executed ``.ipynb`` file.
        page: the ``.html`` file to write.
        pictures, around: see ``render``, which also says what is refused.
    """
    text = render(nbformat.read(notebook, as_version=4), notebook.name, pictures, **around)
    part = page.with_name(f".{page.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, page)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("page", type=Path)
    parser.add_argument("--pictures-from", type=Path, help="folder that pictures in the text are relative to")
    parser.add_argument(
        "--beside",
        nargs="*",
        default=[],
        help="NOTEBOOK.ipynb=PAGE.html of pages in the same folder, to link to",
    )
    options = parser.parse_args()
    pictures = options.pictures_from or options.notebook.parent
    try:
        export(options.notebook, options.page, pictures, lead=leads_beside(options.beside))
    except (FileNotFoundError, ValueError) as error:
        print(f"No page for {options.notebook}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
