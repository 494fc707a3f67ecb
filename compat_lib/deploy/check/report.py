"""The report of a compatibility check: one HTML file with its pictures inside, which loads nothing.

The pictures need matplotlib, which is loaded when a page is made.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape

from compat_lib import __version__
from compat_lib.deploy.check.pictures import pictures
from compat_lib.deploy.check.result import CompatibilityCheck
from compat_lib.deploy.check.sides import Source
from compat_lib.deploy.check.words import COMPATIBLE, UNDECIDED, shown, title
from compat_lib.evaluation.constraints import STATEMENTS

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
h1.yes { border-color: #117733; } h1.no { border-color: #b3261e; } h1.open { border-color: #9c8a5a; }
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
.basis, .notes { color: var(--soft); font-size: 0.92em; }
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


def page(result: CompatibilityCheck, sources: Sequence[Source | None] = ()) -> str:
    """Return the report as an HTML page.

    Args:
        result: of `check_compatibility`.
        sources: the files of both sides, for the record; leave them out for arrays.

    Raises:
        ModuleNotFoundError: "the report needs matplotlib, which is not installed ...".
    """
    measured = [name.removeprefix("new_old/") for name in result.draws if name.startswith("new_old/")]
    names = list(dict.fromkeys([result.metric, "map", "rank1", *measured]))
    verdict = result.verdict.capitalize()
    kind = {COMPATIBLE: "yes", UNDECIDED: "open"}.get(result.verdict, "no")
    rows = {text: test for test, text in result.tests.items()}
    differences = {text: what for what, text in DIFFERENCES.items() if f"{what}/map" in result.metrics}
    parts = [
        f'<h1 class="{kind}">{verdict}</h1>',
        f"<p>{_unbroken(escape(result.paragraph))}</p>",
        f'<p class="basis">{_unbroken(escape(result.basis))}</p>',
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
        f'<div class="pictures">{"".join(_figure(*drawn) for drawn in pictures(result))}</div>',
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


def _unbroken(text: str) -> str:
    # No line ends inside 1e-3.
    return re.sub(r"\d+e-\d+", r'<span class="one">\g<0></span>', text)


def _list(lines: Iterable[str]) -> str:
    return '<ul class="notes">' + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


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
        "no retrained model meets them for all pairs, and by chance about half are met.</p>"
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


def _figure(picture: bytes, caption: str) -> str:
    address = base64.b64encode(picture).decode()
    return (
        f'<figure><img src="data:image/png;base64,{address}" alt="{escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
