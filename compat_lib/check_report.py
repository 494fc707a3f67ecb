"""The report of a compatibility check: one HTML file with its pictures inside, which loads nothing.

matplotlib is loaded when a page is made; reading this module needs the core alone.
"""

from __future__ import annotations

import base64
import importlib
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from compat_lib import __version__
from compat_lib.check import CompatibilityCheck
from compat_lib.check_files import Source
from compat_lib.check_words import metric_far, shown, title
from compat_lib.evaluation.constraints import STATEMENTS
from compat_lib.evaluation.counting import PER_UNIT, Counts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 256  # of a histogram over [-1, 1]
POINTS = 400  # of a ROC curve
SIZE = (4.8, 3.9)  # inches; read at this width on a telephone, two or three side by side on a desk
DIFFERENCES = {
    "gain": "new/old - old/old",
    "backfill_gain": "new/new - new/old",
    "full_gain": "new/new - old/old",
    "adapter/ridge/gain": "ridge adapter - old/old",
    "adapter/ridge/over_new": "ridge adapter - new/old",
    "adapter/procrustes/gain": "Procrustes adapter - old/old",
    "adapter/procrustes/over_new": "Procrustes adapter - new/old",
}
STYLE = """
:root { --ink: #1d2430; --soft: #5b6675; --line: #d9dee6; --ground: #f6f7f9; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 17px/1.6 system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 1.5rem 1.25rem 3rem; overflow-wrap: break-word; }
h1 { font-size: 2rem; line-height: 1.25; margin: 0.3em 0 0.5em;
  padding-left: 0.5em; border-left: 0.3em solid; }
h1.yes { border-color: #117733; } h1.no { border-color: #b3261e; } h1.noise { border-color: #9c8a5a; }
h2 { font-size: 1.35rem; margin: 2em 0 0.6em; border-bottom: 1px solid var(--line); padding-bottom: 0.25em; }
p, ul { max-width: 50rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9em; font-variant-numeric: tabular-nums; }
th, td { padding: 0.35em 0.75em; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; }
th:first-child, td:first-child { text-align: left; font-weight: normal; }
thead th { border-bottom: 2px solid var(--soft); }
tbody tr:nth-child(even) { background: var(--ground); }
td small { display: block; color: var(--soft); white-space: nowrap; }
td code { font: 0.9em ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  overflow-wrap: anywhere; }
.one { white-space: nowrap; }
.facts td { text-align: left; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr));
  gap: 1.5rem; }
figure { margin: 0; }
figure img { width: 100%; max-width: 34rem; height: auto; display: block; }
figcaption { color: var(--soft); font-size: 0.88em; line-height: 1.45; margin-top: 0.3em; }
@media (max-width: 600px) {
  body { font-size: 16px; } main { padding: 1rem 0.8rem 2rem; } h1 { font-size: 1.5rem; }
  th, td { padding: 0.3em 0.4em; } table { font-size: 0.84em; }
}
"""


def require_pictures() -> None:
    """Load what the pictures need.

    Raises:
        ModuleNotFoundError: "the report needs matplotlib, which is not installed ...".
    """
    try:
        importlib.import_module("matplotlib.figure")
        importlib.import_module("compat_lib.plots")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the report needs {error.name}, which is not installed; install it with "
            "pip install compat_lib[workflow], or leave --report out"
        ) from error


def page(result: CompatibilityCheck, sources: Sequence[Source | None] = ()) -> str:
    """Return the report as an HTML page.

    Args:
        result: of `check_compatibility`.
        sources: the files of both sides, for the record; leave them out for arrays.

    Raises:
        ModuleNotFoundError: "the report needs matplotlib, which is not installed ...".
    """
    require_pictures()
    metrics = dict.fromkeys([result.metric, "map", "rank1"])
    names = list(
        metrics | dict.fromkeys(k.split("/", 1)[1] for k in result.draws if k.startswith("new_old/"))
    )
    verdict, kind = _verdict(result)
    rows = {text: test for test, text in result.tests.items()}
    differences = {text: what for what, text in DIFFERENCES.items() if f"{what}/map" in result.metrics}
    parts = [
        f'<h1 class="{kind}">{verdict}</h1>',
        f"<p>{_unbroken(escape(result.paragraph))}</p>",
        *([_list(result.notes)] if result.notes else []),
        "<h2>The tests</h2>",
        "<p>Query model / gallery model. An image is never compared with itself. Adapters map the stored old "
        "features into the new space.</p>",
        _table("test", rows, names, result.metrics),
        "<h2>The differences</h2>",
        "<p>What the swap gains, what a full backfill adds, and both together; then what an adapter gives "
        "instead. Paired draw by draw; where the interval leaves out zero, the difference is decided.</p>",
        _table("difference", differences, names, result.metrics, signed=True),
        "<h2>Pictures</h2>",
        f'<div class="pictures">{"".join(_pictures(result))}</div>',
        "<h2>Answer by answer</h2>",
        _answers(result.metrics),
        "<h2>What was measured</h2>",
        _facts(result, sources),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{verdict}: a compatibility check</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def _verdict(result: CompatibilityCheck) -> tuple[str, str]:
    text, kind = ("Compatible", "yes") if result.compatible else ("Not compatible", "no")
    known = result.metrics[f"gain/{result.metric}/low"] is not None
    return (f"{text}, within the noise", "noise") if known and not result.decided else (text, kind)


def _unbroken(text: str) -> str:
    # No line ends inside 1e-3.
    return re.sub(r"\d+e-\d+", r'<span class="one">\g<0></span>', text)


def _list(lines: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _table(
    head: str,
    rows: Mapping[str, str],
    names: Sequence[str],
    values: Mapping[str, float | None],
    *,
    signed: bool = False,
) -> str:
    lines = ["".join(f"<th>{_unbroken(escape(text))}</th>" for text in (head, *map(title, names)))]
    for text, prefix in rows.items():
        cells = (_cell(shown(values, f"{prefix}/{name}", signed=signed)) for name in names)
        lines.append(f"<td>{escape(text)}</td>{''.join(cells)}")
    body = "".join(f"<tr>{line}</tr>" for line in lines[1:])
    return f'<div class="scroll"><table><thead><tr>{lines[0]}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(text: str) -> str:
    # The number, and its interval below it.
    number, *interval = text.split(" ", 1)
    return f"<td>{number}{''.join(f'<small>{part}</small>' for part in interval)}</td>"


def _answers(values: Mapping[str, float | None]) -> str:
    rows = {
        "queries right at rank 1 with old/old and wrong with new/old": "changes/negative_flips",
        "queries wrong at rank 1 with old/old and right with new/old": "changes/positive_flips",
        "identities whose mean average precision falls": "changes/losing",
        "identities where it rises": "changes/gaining",
    }
    rows |= {f"pairs of {text}": f"constraint{k}/share" for k, text in enumerate(STATEMENTS, 1)}
    cells = "".join(
        f"<tr><td>{escape(text)}</td>{_cell(shown(values, name))}</tr>" for text, name in rows.items()
    )
    return (
        "<p>Shares, from 0 to 1. The last four are the constraints of backward compatibility, pair by pair; "
        "no two models meet them for all pairs, and by chance about half are met.</p>"
        f'<div class="scroll"><table><tbody>{cells}</tbody></table></div>'
    )


def _facts(result: CompatibilityCheck, sources: Sequence[Source | None]) -> str:
    values = result.metrics
    facts = {}
    for side, source in zip(("old features", "new features"), sources, strict=False):
        if source is not None:
            facts[side] = (
                f"{escape(source.name)}, {source.rows:,} rows of width {source.width}, {source.bytes:,} bytes"
                f"<br><code>SHA-256 {source.digest}</code>"
            )
    facts |= {
        "images compared": f"{values['images']:,} of {values['identities']:,} identities",
        "queries": f"{values['queries']:,}",
        "bootstrap draws, seed": f"{values['draws']:,}, {values['seed']}",
        "compat_lib": escape(__version__),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    cells = "".join(f"<tr><td>{name}</td><td>{text}</td></tr>" for name, text in facts.items())
    return f'<div class="scroll"><table class="facts"><tbody>{cells}</tbody></table></div>'


def _pictures(result: CompatibilityCheck) -> Iterable[str]:
    import matplotlib as mpl

    from compat_lib import plots

    drawings: list[tuple[Callable[[Any], None], str]] = [
        (
            lambda figure: _ways(figure, result),
            "What each way to go on gives, with its 95 % interval: right of the blue line is better than "
            "keeping the old model.",
        ),
        (
            lambda figure: _backfill(figure, result),
            "While the gallery is embedded again in random order; 0 % is new/old, 100 % new/new.",
        ),
        (
            lambda figure: _roc(figure, result),
            "The share of the pairs of one identity that are accepted, at every rate of false accepts.",
        ),
    ]
    drawings += [
        (
            lambda figure, pair=pair: _cosines(figure, result, pair),
            f"Cosines of {plots.PAIR_TITLES[pair]}. The less the two overlap, the better a threshold tells "
            "them apart.",
        )
        for pair in result.pictured.counts
    ]
    with mpl.rc_context():
        plots.use_style()
        for draw, caption in drawings:
            from matplotlib.figure import Figure

            figure = Figure(figsize=SIZE)
            draw(figure)
            data = io.BytesIO()
            figure.savefig(data, format="png", dpi=150, metadata={"Software": None})
            address = base64.b64encode(data.getvalue()).decode()
            yield (
                f'<figure><img src="data:image/png;base64,{address}" alt="{escape(caption)}">'
                f"<figcaption>{escape(caption)}</figcaption></figure>"
            )


def _ways(figure: Figure, result: CompatibilityCheck) -> None:
    from compat_lib import plots

    points, metric = {}, result.metric
    for test, text in result.tests.items():
        if test != "old_old":
            name = test.removesuffix("/new_old") if test.startswith("adapter/") else text
            keys = {"cross": "", "cross_low": "/low", "cross_high": "/high"}
            points[name] = {key: result.metrics[f"{test}/{metric}{end}"] for key, end in keys.items()}
    titles = {"adapter/ridge": "ridge\nadapter", "adapter/procrustes": "Procrustes\nadapter"}
    titles |= {"new/old": "new/old", "new/new": "new/new,\nfull backfill"}
    ax = figure.add_subplot()
    plots.cross_test_dots(
        ax, points, old_old=result.metrics[f"old_old/{metric}"], metric=metric, titles=titles
    )
    colours = {"new/old": plots.CROSS, "new/new": plots.NEW}
    for bars, name in zip(ax.containers, points, strict=True):
        colour = colours.get(name, plots.ADAPTED)
        for line in (bars[0], *bars[1]):
            line.set(color=colour, markeredgecolor=colour)
        for line in bars[2]:
            line.set_color(colour)
    ax.set_xlabel(title(metric))
    plots.legend_below(ax)


def _backfill(figure: Figure, result: CompatibilityCheck) -> None:
    from compat_lib import plots

    ax = figure.add_subplot()
    plots.backfill_curve(
        ax,
        {"new": (result.pictured.shares, result.pictured.curve)},
        old_old=result.metrics[f"old_old/{result.metric}"],
        metric=result.metric,
        titles={"new": "new queries"},
    )
    ax.lines[0].set(color=plots.NEW, marker="o")
    ax.set_ylim(bottom=0)
    plots.legend_below(ax)


def _roc(figure: Figure, result: CompatibilityCheck) -> None:
    from compat_lib import plots

    ax = figure.add_subplot()
    verified = result.pictured.verified
    lowest = max(1e-6, min(0.1, 1 / min(each.negatives for each in verified.values())))
    grid = np.geomspace(lowest, 1, POINTS)
    curves = {}
    for pair, each in verified.items():  # the highest TAR whose FAR is not above the grid's
        place = np.searchsorted(each.roc.far, grid, "right") - 1
        curves[pair] = grid, each.roc.tar[place]
    plots.roc_curves(ax, curves, lowest=lowest)
    far = metric_far(result.metric)
    if far is not None:
        ax.axvline(far, color="#222222", linewidth=1, linestyle=":", label=_operating(result.metric))
    plots.legend_below(ax, columns=4)


def _operating(metric: str) -> str:
    return title(metric).removeprefix("TAR at ")


def _cosines(figure: Figure, result: CompatibilityCheck, pair: str) -> None:
    from compat_lib import plots

    histograms = {name: histogram(counts) for name, counts in result.pictured.counts.items()}
    edges = next(iter(histograms.values()))[0]
    used = np.flatnonzero(sum(_visible(side) for _, *sides in histograms.values() for side in sides))
    low, high = used[0], used[-1] + 1  # the same range in the three pictures
    _, same, different = histograms[pair]
    shown_part = edges[low : high + 1], same[low:high], different[low:high]
    far = metric_far(result.metric)
    each = result.pictured.verified[pair]
    place = each.fars.index(far) if far is not None else None
    thresholds = None if place is None else {pair: each.thresholds[place]}
    plots.cosine_row(
        [figure.add_subplot()],
        {pair: shown_part},
        thresholds,
        threshold_label=f"threshold at {_operating(result.metric)}",
    )
    for legend in list(figure.legends):  # too wide for a figure of one axis
        legend.remove()
    plots.legend_below(figure.axes[0], columns=2)


def histogram(counts: Counts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return edges [BINS + 1] over [-1, 1] and the counts of same and different identities, int64 [BINS]."""
    sides = []
    for fine in (counts.same, counts.different):
        inside = fine[PER_UNIT : 3 * PER_UNIT].reshape(BINS, -1).sum(1)
        inside[-1] += fine[3 * PER_UNIT]  # cosines of exactly 1
        sides.append(inside)
    return np.linspace(-1, 1, BINS + 1), *sides


def _visible(counts: np.ndarray) -> np.ndarray:
    # What is more than a hair above the axis.
    return (counts > 0.002 * counts.max()).astype(int)
