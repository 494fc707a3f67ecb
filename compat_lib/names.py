"""Names, numbers and choices that a user sets, each refused with one sentence."""

from __future__ import annotations

import math
import numbers
from collections.abc import Collection, Iterable, Sized
from difflib import get_close_matches
from typing import Any

import numpy as np


def instead(given: object, allowed: Iterable[str]) -> str:
    """The allowed names, and the nearest to the given one if any is near: the end of a refusal.

    >>> instead("mixbtc", ["bct", "l2", "mixbct"]), instead("x", ["bct", "l2"])
    ('bct, l2, mixbct (nearest: mixbct)', 'bct, l2')
    """
    names = list(allowed)
    near = get_close_matches(str(given).lower(), names, 1)
    return (", ".join(names) or "none") + "".join(f" (nearest: {name})" for name in near)


def checked_count(name: str, value: Any, least: int = 1) -> int:
    """A whole number of at least 1, or another least one; "k is 0; give a whole number of at least 1"."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} is {value!r}; give a whole number of at least {least}")
    return int(value)


def check_number(name: str, value: float, low: float = 0.0, high: float = math.inf) -> float:
    """The value as a float when it is a finite number within low..high; numpy's scalars are numbers.

    >>> check_number("mix_ratio", 0.3, 0, 1)
    0.3
    """
    number = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not low <= value <= high:
        span = f"of at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
        raise ValueError(f"{name} must be a number {span}, not {value!r}.")
    return float(value)


def one_each(values: Sized, what: str, count: int, of: str) -> None:
    """Refuse unequal numbers: "there are 2 ids for 3 features of 'old'; give one each"."""
    if len(values) != count:
        raise ValueError(f"there are {len(values)} {what} for {count} {of}; give one each")


def check_choice(name: str, value: object, allowed: Collection) -> object:
    """The value when it is one of the allowed ones; 1 is not True."""
    plain = value.item() if isinstance(value, np.generic) else value
    if not any(type(plain) is type(one) and plain == one for one in allowed):
        raise ValueError(f"{name} is {value!r}; choose one of {instead(value, map(str, allowed))}")
    return plain
