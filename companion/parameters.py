"""The parameters of a notebook: those of its first cell, and of the cell that papermill puts behind it."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from compat_lib.config import ExperimentConfig
from compat_lib.names import instead

INJECTED = "# Parameters"  # how papermill's cell begins
FIELDS = ExperimentConfig.__dataclass_fields__
KINDS = {bool: "True or False", str: "text", list: "a list", dict: "a dictionary"}  # others check themselves


def literals(source: str) -> dict[str, Any]:
    """Names and values of a parameters cell; a ValueError where it holds something else than name = literal.

    >>> literals("lr = 0.1  # highest\\nsettings = {}")
    {'lr': 0.1, 'settings': {}}
    """
    values = {}
    for statement in ast.parse(source).body:
        try:
            (target,) = statement.targets
            values[target.id] = ast.literal_eval(statement.value)
        except (AttributeError, ValueError):
            line = ast.unparse(statement)
            raise ValueError(f"only lines of the form name = literal may stand there; got: {line}") from None
    return values


def refuse_unsuitable(declared: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse a parameter that a notebook does not declare, of which papermill only warns, or of another kind.

    Of the `declared` values of the notebook None stands for a text that is not there.
    """
    for name, value in given.items():
        if name not in declared:
            more = "; other fields of ExperimentConfig go into settings" if "settings" in declared else ""
            raise ValueError(f"unknown parameter {name}; the notebook has {instead(name, declared)}{more}")
        kind = str if declared[name] is None else type(declared[name])
        if kind in KINDS and not isinstance(value, kind) and (value is not None or kind is not str):
            raise ValueError(f"{name} must be {KINDS[kind]}; got {value!r} ({type(value).__name__})")


def checked_parameters(names: Mapping[str, Any], **fixed: Any) -> dict[str, Any]:
    """Fields of ExperimentConfig among a notebook's globals(), those in its `settings`, and the fixed ones.

    What `refuse_unsuitable` refuses, and settings that hold another value of a fixed field, are a ValueError.
    """
    for own, injected in pairwise(names.get("In", ())):  # the cells that ran
        if injected.startswith(INJECTED):
            given = [target.id for line in ast.parse(injected).body for target in line.targets]
            refuse_unsuitable(literals(own), {name: names[name] for name in given})
    settings = names.get("settings", {})
    if settled := [f"{name} {value}" for name, value in fixed.items() if settings.get(name, value) != value]:
        raise ValueError(f"this notebook is about {', '.join(settled)}; leave it out of settings")
    return {name: names[name] for name in FIELDS if name in names} | settings | fixed
