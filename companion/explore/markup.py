"""What a view is: a piece of HTML that needs no script and no network, and a sentence that says the same."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from companion.explore.looks import PAGE

RIGHT, WRONG = (
    "#332288",
    "#CC6677",
)  # as in the other notebooks: neither the blue of old nor the orange of new

_UNTRUSTED = (
    '<p class="cx-untrusted">This picture needs a trusted notebook: run the cell again, or choose '
    "Trust Notebook in the command palette.</p>"
)


@dataclass(frozen=True)
class View:
    """A picture for a notebook and for a page, and its numbers as a sentence.

    >>> View("<p>a</p>", "One letter.")._repr_mimebundle_()
    {'text/html': '<p>a</p>', 'text/plain': 'One letter.'}
    """

    html: str
    text: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.text}


def view(parts: Sequence[str], text: str) -> View:
    """A view made of pieces of HTML, with its sentence below."""
    return View(f'<div class="cx"><style>{PAGE}</style>{_UNTRUSTED}{"".join(parts)}{note(text)}</div>', text)


def sentence(text: str) -> View:
    """A view that only says something, such as why there is no picture."""
    return view((), text)


def note(text: str) -> str:
    """A paragraph of plain text.

    >>> note("a < b")
    '<p class="cx-note">a &lt; b</p>'
    """
    return f'<p class="cx-note">{html.escape(text)}</p>'


def heading(text: str) -> str:
    """A line of text over a strip or a picture."""
    return f'<p class="cx-head">{html.escape(text)}</p>'


def legend(keys: Sequence[str]) -> str:
    """What colours and shapes mean; keys are made by `key`."""
    return f'<p class="cx-legend">{"".join(f"""<span class="cx-key">{one}</span>""" for one in keys)}</p>'


def key(colour: str, text: str, ring: bool = False) -> str:
    """A dot of a colour, or a ring, and what it means."""
    shape = "background:#fff;border:2px solid " if ring else "background:"
    boxed = ";box-sizing:border-box" if ring else ""
    return f'<span class="cx-dot" style="{shape}{colour}{boxed}"></span>{html.escape(text)}'


def thumbnail(image: np.ndarray, alt: str, caption: str = "", kind: str = "", colour: str = "") -> str:
    """An image with its caption.

    Args:
        image: uint8 [1 or 3, H, W].
        alt: what it shows, for those who do not see it.
        caption: text below.
        kind: "right", "wrong" or "" for its frame.
        colour: of a dot before the caption's last line, or "" for none.
    """
    lines = [html.escape(line) for line in caption.split("\n")]
    if colour:
        lines[-1] = f'<span class="cx-dot" style="background:{colour}"></span>{lines[-1]}'
    frame = f' class="cx-{kind}"' if kind else ""
    picture = f'<img src="{_png(image)}" alt="{html.escape(alt)}">'
    return f"<figure{frame}>{picture}<figcaption>{'<br>'.join(lines)}</figcaption></figure>"


def row(figures: Sequence[str]) -> str:
    """Images side by side, wrapped where the page is narrow."""
    return f'<div class="cx-row">{"".join(figures)}</div>'


def trio(figures: Sequence[str]) -> str:
    """Images that stay together on one line, for use in a row."""
    return f'<div class="cx-trio">{"".join(figures)}</div>'


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table of plain texts."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>" for line in lines
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _png(image: np.ndarray) -> str:
    file = io.BytesIO()
    _picture(image).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _picture(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))


def sprite(images: np.ndarray) -> tuple[str, int, int]:
    """All images in one picture, each in a square: a page reads one address faster than a thousand.

    Args:
        images: uint8 [n, C, h, w].

    Returns:
        the picture as a data address, and its columns and rows of images.
    """
    count, channels, height, width = images.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    sheet = np.full((rows * columns, channels, side, side), 255, np.uint8)
    sheet[:count, :, top : top + height, left : left + width] = images
    sheet = sheet.reshape(rows, columns, channels, side, side).transpose(2, 0, 3, 1, 4)
    file = io.BytesIO()
    _picture(sheet.reshape(channels, rows * side, columns * side)).save(file, "JPEG", quality=75)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}", columns, rows
