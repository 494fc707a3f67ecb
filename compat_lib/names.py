"""What a sentence says of a name that is not known."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def instead(given: object, allowed: Iterable[str]) -> str:
    """The allowed names, and the nearest to the given one if any is near: the end of a refusal.

    >>> instead("mixbtc", ["bct", "l2", "mixbct"]), instead("x", ["bct", "l2"])
    ('bct, l2, mixbct (nearest: mixbct)', 'bct, l2')
    """
    names = list(allowed)
    near = get_close_matches(str(given).lower(), names, 1)
    return (", ".join(names) or "none") + "".join(f" (nearest: {name})" for name in near)
