"""AdvBCT's scores of an upgrade: what it costs the new model, what it brings, and one number of both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real

from compat_lib.evaluation.compatibility import update_gain

NAMES = ("p_up", "p_comp", "p_1")
Values = float | None | Mapping[str, float | None]


@dataclass(frozen=True)
class UpgradeScores:
    """AdvBCT's three scores in per cent, averaged over the data sets; None where one of them has none."""

    up: float | None  # 50: the compatible model is as good as the oracle in its self-test
    comp: float | None  # 50: the cross-test is as good as the old system; 73.1: as good as the oracle
    one: float | None  # harmonic mean of both, taken in each data set
    by_set: dict[str, dict[str, float | None]]  # data set -> "p_up", "p_comp", "p_1" in per cent

    @property
    def metrics(self) -> dict[str, float | None]:
        """Flat names: "p_up", "p_comp" and "p_1", in per cent."""
        return dict(zip(NAMES, (self.up, self.comp, self.one), strict=True))

    def summary(self) -> str:
        """Return one line for reading."""
        shown = ", ".join(f"{name} {'n/a' if v is None else f'{v:.2f}'}" for name, v in self.metrics.items())
        sets = f"{len(self.by_set)} data set{'s' if len(self.by_set) != 1 else ''}"
        return f"{shown} (per cent, 50 is neutral; {sets})"


def upgrade_scores(new_self: Values, cross: Values, old_self: Values, oracle_self: Values) -> UpgradeScores:
    """Return AdvBCT's P_up, P_comp and P_1.

    Source: AdvBCT (arXiv 2305.02610); the definitions are inferred from its table of results, of which three
    blocks of four agree within 0.01 (its code does not hold them). With s the logistic function, in each
    data set

    - P_up = s((new/new - oracle) / oracle), the oracle being the independent new model's new/new;
    - P_comp = s(update gain), see `update_gain`;
    - P_1 = 2 P_up P_comp / (P_up + P_comp);

    then each is averaged over the data sets. A mean over fewer data sets for one method than for another
    would not be comparable: where one is missing, the average is missing.

    Args:
        new_self, cross, old_self, oracle_self: new/new, new/old, old/old and the oracle's new/new of one
            metric, such as mAP; numbers from 0 in one unit (fractions or per cent), None where not measured;
            or mappings from the names of the same data sets to such numbers.

    Raises:
        ValueError: "the values are given for different data sets ...", "a value of -0.1 was given ...".

    >>> upgrade_scores(0.8, 0.5, 0.5, 0.8).metrics  # as good as the oracle, the cross-test as the old system
    {'p_up': 50.0, 'p_comp': 50.0, 'p_1': 50.0}
    """
    sides = [x if isinstance(x, Mapping) else {"": x} for x in (new_self, cross, old_self, oracle_self)]
    names = list(sides[0])
    if not names or any(set(side) != set(names) for side in sides):
        raise ValueError(
            "the values are given for different data sets, or for none: "
            f"{'; '.join(str(sorted(side)) for side in sides)}; give all four for the same data sets"
        )
    for side in sides:
        for value in side.values():
            known = isinstance(value, Real) and math.isfinite(value) and value >= 0
            if value is not None and not known:
                raise ValueError(f"a value of {value} was given; give numbers from 0, or None")
    by_set = {name: _scores(*(side[name] for side in sides)) for name in names}
    averages = [_mean([scores[name] for scores in by_set.values()]) for name in NAMES]
    return UpgradeScores(*averages, by_set)


def _scores(
    new_self: float | None, cross: float | None, old_self: float | None, oracle_self: float | None
) -> dict[str, float | None]:
    gain = update_gain(cross, old_self, oracle_self)
    change = (new_self - oracle_self) / oracle_self if new_self is not None and oracle_self else None
    up, comp = (None if x is None else 100 * _logistic(x) for x in (change, gain))
    one = None if up is None or comp is None or not up + comp else 2 * up * comp / (up + comp)
    return dict(zip(NAMES, (up, comp, one), strict=True))


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _mean(values: list[float | None]) -> float | None:
    return None if None in values else math.fsum(values) / len(values)
