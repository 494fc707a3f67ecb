"""What a sentence says of a name that is not known, or of a number that is no count."""

from __future__ import annotations

from collections.abc import Iterable
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
