"""The lesson plan and the glossary keep what they promise about the notebooks."""

import re
from pathlib import Path

import pytest
from execute import read_cells

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS, NOTEBOOKS = ROOT / "docs", ROOT / "notebooks"
PLACE = re.compile(r"\[(\d\d), ([^\]]+)\]\(\.\./notebooks/(\w+)\.ipynb\)")
COSTS = "08_costs"  # its letters hold in it alone, and stand in a table of its own
GREEK = {"alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "kappa", "lambda", "mu", "nu"}
GREEK |= {"xi", "rho", "sigma", "tau", "phi", "psi", "omega"}


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def prose(notebook: Path) -> str:
    """All text of a notebook; code only where it is in no code cell."""
    return "\n\n".join(cell["source"] for cell in read_cells(notebook) if cell["cell_type"] == "markdown")


def plain(words: str) -> str:
    """Small letters, one blank between words, no marks of emphasis or code."""
    return " ".join(re.sub(r"[*`]", "", words).casefold().split())


def sections(notebook: Path) -> list[tuple[str, str]]:
    """Headings, without their numbers, and the text below each up to the next one."""
    parts = re.split(r"^#+ (?:\d+ )?(.+)$", prose(notebook), flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def sections_called(notebook: Path, words: str) -> list[str]:
    """Texts below the headings that begin with these words."""
    return [plain(text) for heading, text in sections(notebook) if plain(heading).startswith(plain(words))]


def table_rows(text: str) -> list[list[str]]:
    """Cells of all rows of all tables, without rules between head and body."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("| ---")]
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]


def glossary() -> list[dict[str, str]]:
    head, *rows = table_rows(page("glossary.md"))
    return [dict(zip(head, row, strict=True)) for row in rows]


# -- glossary ------------------------------------------------------------------------------------


def test_the_glossary_is_sorted_and_complete_in_every_line():
    rows = glossary()
    words = [row["word"] for row in rows]
    assert len(rows) > 40
    assert words == sorted(words, key=str.casefold)
    every = [word.strip() for line in words for word in line.split(",")]
    assert len(every) == len(set(every)) and all(every)
    for row in rows:
        assert len(row["meaning"].split()) >= 4, f"{row['word']}: say what it means"
        assert PLACE.fullmatch(row["explained in"]), f"{row['word']}: [NN, heading](../notebooks/NAME.ipynb)"


@pytest.mark.parametrize("row", glossary(), ids=lambda row: row["word"])
def test_a_word_is_used_in_the_section_that_explains_it(row):
    number, heading, name = PLACE.fullmatch(row["explained in"]).groups()
    texts = sections_called(NOTEBOOKS / f"{name}.ipynb", heading)
    assert name.startswith(number) and texts, f"no section of {name} begins with {heading!r}"
    words = [plain(word) for word in row["word"].split(",")]
    assert any(word in text for word in words for text in texts), f"{words} in {heading!r} of {name}"


def symbols_of(row: dict[str, str]) -> list[str]:
    """What stands in a row's column of symbols, without the dollars."""
    return re.findall(r"\$([^$]+)\$", row["symbol"])


def formulas(text: str) -> str:
    """All formulas of a text, without the words in them."""
    found = (block or inline for block, inline in re.findall(r"\$\$(.+?)\$\$|\$([^$]+)\$", text, re.DOTALL))
    return "\n".join(re.sub(r"\\text\{[^}]*\}|_\{[a-z]\w+\}", " ", formula) for formula in found)


def holds(text: str, symbol: str) -> bool:
    """Whether a formula of the text has the symbol, alone and not as a part of another one."""
    return re.search(rf"(?<![A-Za-z\\_]){re.escape(symbol)}(?![A-Za-z_])", formulas(text)) is not None


def test_a_symbol_has_one_meaning():
    every = [symbol for row in glossary() for symbol in symbols_of(row)]
    assert len(every) > 20 and len(every) == len(set(every)), sorted(every)


@pytest.mark.parametrize("row", [row for row in glossary() if row["symbol"]], ids=lambda row: row["word"])
def test_a_symbol_is_explained_where_it_first_appears(row):
    _, heading, name = PLACE.fullmatch(row["explained in"]).groups()
    every = [path for path in sorted(NOTEBOOKS.glob("*.ipynb")) if path.stem != COSTS]
    assert symbols_of(row)
    for symbol in symbols_of(row):
        places = (
            (path.stem, title) for path in every for title, text in sections(path) if holds(text, symbol)
        )
        where, title = next(places)
        assert where == name and plain(title).startswith(plain(heading)), f"${symbol}$: {where}, {title}"


@pytest.mark.parametrize("notebook", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_letter_of_a_formula_is_in_the_glossary(notebook):
    if notebook.stem == COSTS:
        assert "hold in this notebook only" in prose(notebook)
        return
    known = " ".join(f"${symbol}$" for row in glossary() for symbol in symbols_of(row))
    greek = [rf"\{name}" for name in re.findall(r"\\([a-z]+)", formulas(prose(notebook))) if name in GREEK]
    capitals = re.findall(r"(?<![A-Za-z\\_])[A-Z](?![A-Za-z])", formulas(prose(notebook)))
    unknown = sorted({letter for letter in [*greek, *capitals] if f"${letter}" not in known})
    assert not unknown, f"{notebook.name} has {unknown}; say them in words, or add them to docs/glossary.md"


# -- lesson plan ---------------------------------------------------------------------------------


def test_every_section_that_the_lesson_plan_names_exists():
    named = PLACE.findall(page("teaching.md"))
    assert len(named) > 15
    for number, heading, name in named:
        assert name.startswith(number)
        assert sections_called(NOTEBOOKS / f"{name}.ipynb", heading), f"no {heading!r} in {name}"


# -- links ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted(NOTEBOOKS.glob("*.ipynb"))],
    ids=lambda path: path.name,
)
def test_every_relative_link_leads_somewhere(path):
    text = prose(path) if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")
    for link, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        target = path.parent / link if link else path
        assert target.exists(), f"{path.name} links to {link}, which is not there"
        if anchor and target.suffix == ".md":
            page_text = target.read_text(encoding="utf-8")
            headings = re.findall(r"^#+ (.+)$", page_text, flags=re.MULTILINE)
            names = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
            assert f'id="{anchor}"' in page_text or anchor in names, f"{path.name}: {link}#{anchor}"
