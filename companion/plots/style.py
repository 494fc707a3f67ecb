"""One look for every figure, and one way to save them."""

import re
import textwrap
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from IPython.display import Image, display
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from compat_lib.evaluation.inputs import plain_array
from compat_lib.files import replacing
from compat_lib.runs import write_json

Titles = Mapping[str, str] | None  # of methods by name; None: the names themselves
Bound = float | None  # what a metric is compared with, where it is known
OLD = "#0072B2"
NEW = "#E8740C"
ORACLE = "#7F7F7F"
CROSS = "#8E4A9E"  # new query, old gallery: between the two
ADAPTED = "#9C8A5A"
INK = "#222222"

PAIR_COLOURS = {"old/old": OLD, "new/old": CROSS, "new/new": NEW}

# Colours that stay apart for the common colour-blindnesses and are neither the blue of old nor the orange of
# new; the marker says the same thing again for print in grey.
_METHODS = {
    "old": (OLD, "o"),
    "independent": (ORACLE, "s"),
    "l2": ("#999933", "^"),
    "weakened_l2": ("#CDBB3C", "<"),
    "bct": ("#2A9D8F", "D"),
    "bc_emb": ("#44AA99", "v"),
    "unibct": ("#117733", "d"),
    "lce": ("#661100", "8"),
    "nccl": ("#56B4C9", "h"),
    "advbct": ("#882255", "*"),
    "hot_refresh": ("#AA4499", ">"),
    "hoc": ("#DDAA33", "p"),
    "neighbours": ("#1B7837", "X"),
    "bct_weakened_l2": ("#5AAE61", "D"),
    "blended_l2": ("#A6761D", "<"),
    "distilled_query": ("#7570B3", "*"),
    "dual_tuning": ("#CC6677", "v"),
    "mixbct": ("#332288", "o"),
    "bt2": ("#B8860B", "P"),
    "fct": ("#5F6B8A", "X"),
    "fastfill": ("#3B4A73", "d"),
    "adapter/lambda-orthogonal": (ADAPTED, "v"),
    "adapter/lambda-orthogonal-query": (ADAPTED, "^"),
    "adapter/procrustes": (ADAPTED, "P"),
    "adapter/procrustes-query": (ADAPTED, "X"),
    "adapter/procrustes-midpoint": (ADAPTED, "D"),
    "adapter/procrustes-slerp": (ADAPTED, "*"),
    "adapter/ridge": (ADAPTED, "p"),
    "adapter/ridge-query": (ADAPTED, "H"),
}
_SPARE = (("#117733", "h"), ("#882255", "<"), ("#88CCEE", ">"), ("#DDCC77", "d"), ("#44AA99", "8"))

PNG_DPI = 150


def use_style() -> None:
    """Set seaborn's defaults to the look of this project (call it once, after the imports)."""
    sizes = dict.fromkeys(("font.size", "axes.titlesize", "axes.labelsize"), 11)
    sizes |= dict.fromkeys(("legend.fontsize", "xtick.labelsize", "ytick.labelsize"), 10)
    bare = dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False)
    look = {"figure.figsize": (8.0, 4.5), "figure.constrained_layout.use": True, "axes.edgecolor": INK}
    look |= {"grid.color": "#E3E3E3", "grid.linewidth": 0.7, "lines.linewidth": 1.8}
    look |= {"image.interpolation": "nearest"}
    sns.set_theme(style="whitegrid", font="DejaVu Sans", rc=sizes | bare | look)


def method_style(name: str) -> dict[str, Any]:
    """Colour and marker of a method for matplotlib, the same in every figure and every session.

    A variant (what follows a blank, comma or bracket) has the method's marker and a paler shade of its
    colour. A name that is not listed gets a colour from its spelling: a method that comes later keeps it.

    >>> method_style("mixbct"), method_style("mixbct (equal passes)")
    ({'color': '#332288', 'marker': 'o'}, {'color': '#9d95c6', 'marker': 'o'})
    """
    base = re.split(r"[ ,(]", name)[0]
    colour, marker = _METHODS.get(base) or _SPARE[zlib.crc32(base.encode()) % len(_SPARE)]
    if base != name:
        colour = mpl.colors.to_hex(0.48 * np.array(mpl.colors.to_rgb(colour)) + 0.52)
    return {"color": colour, "marker": marker}


def unit_rows(rows: Any) -> np.ndarray:
    """Rows of length one, float64; zero rows stay zero."""
    rows = plain_array(rows).astype(float)
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


def in_percent(*axes: Any) -> None:
    """Write the fractions of an x- or y-axis in per cent; its label says so."""
    for axis in axes:
        axis.set_major_formatter(lambda value, _: f"{100 * value:.6g}")


def wrapped(titles: Mapping[str, str], width: int = 20) -> dict[str, str]:
    """Titles with line breaks, for narrow figures.

    >>> wrapped({"a": "ridge adapter, gallery to new"})
    {'a': 'ridge adapter,\\ngallery to new'}
    """
    return {name: textwrap.fill(title, width, break_long_words=False) for name, title in titles.items()}


def legend_outside(ax: Axes, **options: Any) -> None:
    """Put the legend to the right of the axis, where it covers no data."""
    ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0, **options)


def legend_below(ax: Axes, columns: int = 2) -> None:
    """Move an axis's legend below the figure, for narrow pages."""
    handles, labels = ax.get_legend_handles_labels()
    if ax.get_legend() is not None:
        ax.get_legend().remove()
    if handles:
        ax.figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def say_instead(ax: Axes, text: str) -> Axes:
    """A sentence in the place of a picture that cannot be drawn."""
    ax.axis("off")
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes)
    return ax


def save_figure(
    fig: Figure, name: str, folder: str | Path = "figures", provenance: Mapping[str, Any] | None = None
) -> Path:
    """Write a figure as PNG (its path is returned) and SVG, and a JSON that says where it came from.

    Equal data give equal bytes: no date and no version in the files, and fixed element names in the SVG.
    `provenance` is what made the figure (notebook, parameters, digest of the data, commit); plain values.
    """
    path = Path(folder) / f"{name}.png"
    before = fig.canvas, fig.dpi
    fig.dpi = PNG_DPI
    for text in (*fig.texts, *(axes.title for axes in fig.axes)):
        # A title of a long setting goes on in the next line, not beyond the picture; an upright label stays.
        text.set_wrap(not text.get_rotation())
    # By their canvases: Figure.savefig lays out and draws everything twice for each format. Text as outlines:
    # the picture looks the same where the font is not installed.
    with mpl.rc_context({"svg.hashsalt": "compat_lib", "svg.fonttype": "path"}):
        with replacing(path) as part:
            FigureCanvasAgg(fig).print_png(part, metadata={"Software": None})
        fig.set_layout_engine("none")  # keeps what the first drawing has laid out
        with replacing(path.with_suffix(".svg")) as part:
            FigureCanvasSVG(fig).print_svg(part, metadata={"Date": None, "Creator": None})
    fig.set_canvas(before[0])
    fig.dpi = before[1]
    write_json(path.with_suffix(".json"), {"figure": name, **(provenance or {})})
    return path


def show_figure(
    fig: Figure, name: str, folder: str | Path = "figures", provenance: Mapping[str, Any] | None = None
) -> None:
    """Write a figure as ``save_figure`` does and show the PNG in the notebook; the figure is closed."""
    path = save_figure(fig, name, folder, provenance)
    display(Image(path.read_bytes(), width=round(fig.get_figwidth() * 100)))
    plt.close(fig)
