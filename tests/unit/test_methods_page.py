"""docs/methods.md says what the classes say, of every method, with formulas that can be rendered."""

import re

import latex2mathml.converter
import methods_page
import pytest
import readme

from compat_lib.losses import METHODS, method_options


@pytest.fixture(scope="module")
def page():
    return readme.Results().render("docs/methods.md")


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_has_a_section_with_its_terms_options_and_source(page, name):
    method = METHODS[name]
    text = re.search(rf'<a id="{name}">.*?(?=\n## |\Z)', page, flags=re.DOTALL)[0]
    assert method.paper in text
    for option, default in method_options(name).items():
        line = re.search(rf"^\| `{option}` \| `(.*?)` \| (.+?) \| (.+) \|$", text, flags=re.MULTILINE)
        assert line and line[1] == repr(default) and len(line[3]) > 20
    for term, formula in method.formulas.items():
        assert f"| {term.replace('_', ' ')} |" in text
        assert "<math" in latex2mathml.converter.convert(formula)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) in (4, 5) for row in rows)


def test_the_published_column_says_nothing_that_is_not_known():
    published = methods_page.published
    bct = METHODS["bct"]
    assert published(bct, "scale", "any text") == "`1.0`"
    assert published(bct, "variant", "form; published 1.") == "as default"
    assert published(bct, "variant", "form; not published.") == "not stated"
    assert published(bct, "variant", "form.") == "not stated"


@pytest.fixture
def registered():
    """The methods of the package, and what a test adds to them as long as it runs.

    Whoever has followed CONTRIBUTING.md has a method Pull of their own; it makes room meanwhile.
    """
    before = dict(METHODS)
    METHODS.pop("pull", None)
    yield
    METHODS.clear()
    METHODS.update(before)


def add_method(source: str) -> None:
    """Run the text of a file of compat_lib/losses, without such a file."""
    exec(compile(source, "pull.py", "exec"), {"__name__": "compat_lib.losses.pull"})


def test_the_class_that_contributing_shows_gets_its_section(project, registered):
    page = (project / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"```python\n([^`]*class \w+\(CompatibilityLoss\):.*?)```", page, flags=re.DOTALL)
    add_method(source)
    page = readme.Results().render("docs/methods.md")
    assert '\n## <a id="pull"></a>Pull\n' in page and "| `weight` | `1.0` | not stated | " in page


OPTION = """
from compat_lib.losses.base import CompatibilityLoss
class Pull(CompatibilityLoss):
    {doc}
    name, title, paper = "pull", "Pull", "nobody, 2026"
    def __init__(self, old, classifier, *, weight: float = 1.0):
        super().__init__(old, classifier)
"""


@pytest.mark.parametrize("doc", ["", '"""Pulls."""'])
def test_a_method_that_is_not_described_is_refused_with_the_file_and_what_to_write(registered, doc):
    add_method(OPTION.format(doc=doc))
    words = r"losses/pull\.py: the docstring of Pull does not describe weight\. Write .*'Args:'"
    with pytest.raises(ValueError, match=words):
        readme.Results().render("docs/methods.md")
