"""The search of the site: what it knows of each page, cut out of the finished pages."""

import json
from html.parser import HTMLParser
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parent / "page" / "search.html"


class Sections(HTMLParser):
    """Cuts a page into the texts under its headings.

    Code, outputs, formulas of a line of their own and what is folded stay out: one searches for words of the
    text. A formula within a sentence stays, as its letters, because the sentence needs it.
    """

    LEFT_OUT = {"script", "style", "details", "nav", "svg", "button", "head"}
    WITHOUT_END = {"br", "img", "hr", "input", "meta", "link", "col", "source", "wbr"}
    APART = {"p", "li", "td", "th", "tr", "pre", "h4"}

    def __init__(self) -> None:
        super().__init__()
        self.sections: list[dict[str, str]] = []
        self.inside: list[str] = []  # what is open since something was left out
        self.heading = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attributes}
        if self.inside or tag in self.LEFT_OUT or self.left_out(tag, known):
            if tag not in self.WITHOUT_END:
                self.inside.append(tag)
        elif tag in ("h1", "h2", "h3"):
            self.sections.append({"anchor": known.get("id", ""), "title": "", "text": ""})
            self.heading = True
        elif self.heading and "id" in known:
            self.sections[-1]["anchor"] = known["id"]
        elif self.sections and tag in self.APART:
            self.sections[-1]["text"] += " "

    def left_out(self, tag: str, known: dict[str, str]) -> bool:
        """Whether an element stays out because of what its attributes say."""
        alone = tag == "math" and known.get("display") == "block"
        return alone or "output" in known.get("class", "").split()

    def handle_endtag(self, tag: str) -> None:
        if tag in self.inside:
            while self.inside.pop() != tag:
                pass
        elif tag in ("h1", "h2", "h3"):
            self.heading = False

    def handle_data(self, data: str) -> None:
        if self.sections and not self.inside:
            self.sections[-1]["title" if self.heading else "text"] += data


def sections_of(text: str, name: str, title: str) -> list[dict[str, str]]:
    """What the search knows of a page: for each heading its address, title, page and text.

    Args:
        text: the finished page.
        name: its file's name.
        title: what the search calls the page.

    >>> sections_of('<h2 id="a">One <i>word</i></h2><p>Text</p><pre>code</pre>', "b.html", "B")
    [{'address': 'b.html#a', 'title': 'One word', 'page': 'B', 'text': 'Text code'}]
    """
    parser = Sections()
    parser.feed(text)
    parser.close()
    return [
        {
            "address": name + (f"#{section['anchor']}" if section["anchor"] else ""),
            "title": " ".join(section["title"].split()),
            "page": title,
            "text": " ".join(section["text"].split()),
        }
        for section in parser.sections
    ]


def search_box(sections: list[dict[str, str]]) -> str:
    """The search page's HTML, with everything that it knows inside: a file opened from disk fetches none."""
    # No text of a page can end the element that holds it.
    known = json.dumps(sections, ensure_ascii=False).replace("<", "\\u003c")
    return TEMPLATE.read_text(encoding="utf-8").replace("SECTIONS", known)
