"""Checks of what a user sets: options of methods and classifiers, each refused with one sentence."""

import math
import numbers

import numpy as np


def check_number(name: str, value: float, low: float = 0.0, high: float = math.inf) -> float:
    """The value as a float when it is a finite number within low..high; numpy's scalars are numbers.

    >>> check_number("mix_ratio", 0.3, 0, 1)
    0.3
    """
    number = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not low <= value <= high:
        raise ValueError(f"{name} must be a number {_range(low, high)}, not {value!r}.")
    return float(value)


def check_whole(name: str, value: int, low: int) -> int:
    """The value as an int when it is a whole number of at least `low`."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < low:
        raise ValueError(f"{name} must be a whole number {_range(low, math.inf)}, not {value!r}.")
    return int(value)


def check_choice(name: str, value: object, allowed: tuple) -> object:
    """The value when it is one of the allowed ones; 1 is not True."""
    plain = value.item() if isinstance(value, np.generic) else value
    if not any(type(plain) is type(one) and plain == one for one in allowed):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}.")
    return plain


def _range(low: float, high: float) -> str:
    return f"of at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
