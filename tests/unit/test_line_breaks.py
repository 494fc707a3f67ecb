"""Titles in narrow places are broken where a reader expects it."""

import pytest

from companion.line_breaks import in_lines


@pytest.mark.parametrize(
    ("title", "width", "lines"),
    [
        ("ridge adapter, gallery to new", 20, ["ridge adapter,", "gallery to new"]),
        ("Dual-Tuning (prototype_weight=1.0)", 19, ["Dual-Tuning", "(prototype_", "weight=1.0)"]),
        ("BCT (a_long_name=1)", 9, ["BCT", "(a_long_", "name=1)"]),
        ("indivisible", 4, ["indivisible"]),
        ("x_indivisible", 4, ["x_", "indivisible"]),
    ],
)
def test_a_title_is_broken_at_blanks_and_a_long_word_after_underscores(title, width, lines):
    assert in_lines(title, width) == lines
