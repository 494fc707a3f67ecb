"""Where a title is broken that stands in a narrow place: beside an axis, in a column of a table."""

import textwrap


def in_lines(title: str, width: int) -> list[str]:
    """A title in lines: broken at blanks, and where one word is too long for a line, after an underscore.

    Args:
        title: without line breaks, such as a method's name with its options in brackets.
        width: letters a line; a word without a place to break it keeps its length.

    >>> in_lines("Dual-Tuning (prototype_weight=1.0)", 20)
    ['Dual-Tuning', '(prototype_', 'weight=1.0)']
    """
    lines = []
    for line in textwrap.wrap(title, width, break_long_words=False):
        while len(line) > width and (cut := line.rfind("_", 0, width) + 1):
            lines.append(line[:cut])
            line = line[cut:]
        lines.append(line)
    return lines
