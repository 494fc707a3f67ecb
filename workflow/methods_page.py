"""What docs/methods.md says of each method, read from its class; docs/templates/methods.md.j2 asks for it."""

import inspect
import re

import torch

from compat_lib.losses import METHODS, Classifier, CompatibilityLoss, build_method, method_options
from compat_lib.old_system import OldSystem

FIRST = ("independent", "l2", "weakened_l2", "bct", "dual_tuning", "mixbct")


def ordered() -> list[type[CompatibilityLoss]]:
    """All methods: the usual baselines and the two papers first, then the others by name."""
    names = [name for name in FIRST if name in METHODS]
    return [METHODS[name] for name in names + sorted(set(METHODS) - set(names))]


def needs(method: type[CompatibilityLoss]) -> str:
    """What must still be there of the old system."""
    ways = [", ".join(sorted(way)) or "nothing" for way in (method.needs, *method.other_needs)]
    return " *or* ".join(ways) + (", one width" if method.one_width else "")


def described(method: type[CompatibilityLoss]) -> tuple[str, dict[str, tuple[str, str, str]]]:
    """The prose of a class's docstring; and each option's default, published value and meaning.

    A docstring that does not describe the class, or an option of it, is a ValueError.
    """
    own = method.__dict__.get("__doc__") or ""  # getdoc would give that of the base
    prose, _, rest = inspect.cleandoc(own).partition("\nArgs:\n")
    items = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", rest, flags=re.MULTILINE)
    meanings = {name: " ".join(text.split()).replace("|", r"\|") for name, text in items}
    options = method_options(method.name)
    missing = [name for name in options if not meanings.get(name)]
    if missing or not prose:
        raise ValueError(
            f"{method.__module__.replace('.', '/')}.py: the docstring of {method.__name__} does not describe "
            f"{', '.join(missing) or 'it'}. Write what it does, a line 'Source: ...', and below "
            "'Args:' a line '    name: its meaning and range.' for each option."
        )
    told = {k: (repr(one), published(method, k, meanings[k]), meanings[k]) for k, one in options.items()}
    return prose.strip(), told


def published(method: type[CompatibilityLoss], option: str, meaning: str) -> str:
    """What the source says of an option: its value, that it is the default here, or nothing."""
    if option in method.published:
        return f"`{method.published[option]!r}`"
    return "as default" if "published" in meaning and "not published" not in meaning else "not stated"


def default_weights(method: type[CompatibilityLoss]) -> dict[str, float]:
    """The weights of the terms with every option at its default, read from a tiny instance."""
    features = torch.randn(40, 64, generator=torch.Generator().manual_seed(0))
    old = OldSystem.from_arrays(
        features, torch.arange(40) % 4, classifier_weight=torch.eye(4, 64), class_map=[0, 1, -1, -1]
    ).with_oracle(features)
    return build_method(method.name, old, Classifier("arcface", 64, 4)).weights
