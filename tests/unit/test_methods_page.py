"""docs/methods.md says what the classes say, of every method, with formulas that can be rendered."""

import re

import latex2mathml.converter
import methods_page
import pytest

from compat_lib.losses import METHODS, method_options


def test_the_page_is_what_the_classes_say():
    assert methods_page.PAGE.read_text(encoding="utf-8") == methods_page.page(), "run make docs"


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_has_a_section_with_its_terms_options_and_source(name):
    method = METHODS[name]
    text = methods_page.section(method)
    assert method.paper in text and f'<a id="{name}">' in text
    for option, default in method_options(name).items():
        line = re.search(rf"^\| `{option}` \| `(.*?)` \| (.+?) \| (.+) \|$", text, flags=re.MULTILINE)
        assert line and line[1] == repr(default) and len(line[3]) > 20
    for term, formula in method.formulas.items():
        assert f"| {term.replace('_', ' ')} |" in text
        assert "<math" in latex2mathml.converter.convert(formula)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) in (4, 5) for row in rows)


def test_the_published_column_says_nothing_that_is_not_known():
    published = methods_page._published
    bct = METHODS["bct"]
    assert published(bct, "scale", "any text") == "`1.0`"
    assert published(bct, "variant", "form; published 1.") == "as default"
    assert published(bct, "variant", "form; not published.") == "not stated"
    assert published(bct, "variant", "form.") == "not stated"
