"""docs/methods.md from the classes of compat_lib.losses: one section a method.

python workflow/methods_page.py
"""

import inspect
import re
import sys
from pathlib import Path

import torch

from compat_lib.losses import METHODS, Classifier, CompatibilityLoss, build_method, method_options
from compat_lib.old_system import OldSystem

PAGE = Path(__file__).parent.parent / "docs" / "methods.md"
FIRST = ("independent", "l2", "weakened_l2", "bct", "dual_tuning", "mixbct")  # then the others by name

HEAD = """\
# Methods

*Written by `make docs` from the classes in [`compat_lib/losses`](../compat_lib/losses); do not edit.*

Every method is trained by the same loop on the same batches. Its loss is the sum of its **terms**, each
times its **weight**; the first term is always the new model's own classification loss. *Needs* is what must
still be there of the old system while the new model trains: `features` (one old feature vector for each
training image), `prototypes` (their class means, or these alone), `classifier` (the old one, with its class
map), and for some methods an `oracle`, a new model trained without compatibility, which costs a second
training; *one width* means that the new features must be as wide as the old ones. Where a default differs
from what is published, a [search](choosing_options.md) on validation identities chose it.

## Symbols

| symbol | meaning |
| --- | --- |
| $x_i, y_i$ | image and its label among the $C$ classes of the new training set, $i = 1..B$ in a batch |
| $o_i, n_i$ | its old feature (fixed, width $d_o$) and its new embedding (trained, width $d_n$) |
| $\\hat a$ | $a / \\lVert a \\rVert_2$, the direction of a vector or of every row of a table |
| $W, w_c$ | new classifier and its row for class $c$; a margin, where there is one, is understood |
| $V, \\mu$ | old classifier, and the map from new to old labels of shared classes |
| $I$ | rows of the batch whose class is shared |
| $P, p_c$ | old prototypes: class means of old features by new label |
| $\\mathrm{CE}(z, y)$ | $-\\log \\mathrm{softmax}(z)_y$ |
| $T, T'$ | cut to the first coordinates, or filled with zeros, to the other side's width |
| $K$ | rows of the batch whose class keeps two old features or more when outliers are left out |
| $R$ | rows of the batch that carry their old feature |

## Overview

"""


def page() -> str:
    """The whole page as text: the usual baselines and the two papers first."""
    names = [name for name in FIRST if name in METHODS]
    methods = [METHODS[name] for name in names + sorted(set(METHODS) - set(names))]
    lines = ["| method | name | needs | learns besides network and classifier |", "| --- | --- | --- | --- |"]
    for method in methods:
        title = f"[{method.title}](#{method.name})" + (" (reconstruction)" if method.reconstruction else "")
        ways = [", ".join(sorted(needs)) or "nothing" for needs in (method.needs, *method.other_needs)]
        needs = " *or* ".join(ways) + (", one width" if method.one_width else "")
        lines.append(f"| {title} | `{method.name}` | {needs} | {method.learns or 'nothing'} |")
    return HEAD + "\n".join(lines) + "\n" + "".join(map(section, methods))


def section(method: type[CompatibilityLoss]) -> str:
    """One method: what it does, its terms and its options."""
    summary, options = described(method)
    weights = default_weights(method)
    lines = [f'\n## <a id="{method.name}"></a>{method.title}\n', f"*{method.paper}*\n", summary, ""]
    lines += ["| term | weight | |", "| --- | --- | --- |"]
    for term, formula in method.formulas.items():
        weight = f"{weights[term]:g}" if term in weights else "0 (off)"
        lines.append(f"| {term.replace('_', ' ')} | {weight} | $" + formula.replace("|", r"\vert ") + "$ |")
    if options:
        lines += ["", "| option | default | published | meaning |", "| --- | --- | --- | --- |"]
    for name, default in method_options(method.name).items():
        meaning = options[name].replace("|", r"\|")
        lines.append(f"| `{name}` | `{default!r}` | {published(method, name, meaning)} | {meaning} |")
    return "\n".join(lines) + "\n"


def published(method: type[CompatibilityLoss], option: str, meaning: str) -> str:
    """What the source says of an option: its value, that it is the default here, or nothing."""
    if option in method.published:
        return f"`{method.published[option]!r}`"
    return "as default" if "published" in meaning and "not published" not in meaning else "not stated"


def described(method: type[CompatibilityLoss]) -> tuple[str, dict[str, str]]:
    """The prose of a class's docstring, and what it says of each argument; ValueError where nothing."""
    own = method.__dict__.get("__doc__") or ""  # getdoc would give that of the base
    prose, _, rest = inspect.cleandoc(own).partition("\nArgs:\n")
    items = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", rest, flags=re.MULTILINE)
    options = {name: " ".join(text.split()) for name, text in items}
    missing = [name for name in method_options(method.name) if not options.get(name)]
    if missing or not prose:
        raise ValueError(
            f"{method.__module__.replace('.', '/')}.py: the docstring of {method.__name__} does not describe "
            f"{', '.join(missing) or 'it'}. Write what it does, a line 'Source: ...', and below "
            "'Args:' a line '    name: its meaning and range.' for each option."
        )
    return prose.strip(), options


def default_weights(method: type[CompatibilityLoss]) -> dict[str, float]:
    """The weights of the terms with every option at its default, read from a tiny instance."""
    features = torch.randn(40, 64, generator=torch.Generator().manual_seed(0))
    old = OldSystem.from_arrays(
        features, torch.arange(40) % 4, classifier_weight=torch.eye(4, 64), class_map=[0, 1, -1, -1]
    ).with_oracle(features)
    return build_method(method.name, old, Classifier("arcface", 64, 4)).weights


def main() -> None:
    try:
        PAGE.write_text(page(), encoding="utf-8")
    except ValueError as error:
        sys.exit(f"make docs: {error}")
    print(f"wrote {PAGE.name}: {len(METHODS)} methods")


if __name__ == "__main__":
    main()
