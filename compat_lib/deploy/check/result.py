"""What a compatibility check returns."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field

import numpy as np

from compat_lib.deploy.check.measures import FITS
from compat_lib.deploy.check.words import ADAPTERS, COMPATIBLE, NOT_COMPATIBLE, shown, title
from compat_lib.evaluation.compatibility import PAIRS
from compat_lib.evaluation.counting import Counts
from compat_lib.evaluation.pairs import Verification

LINE = 97  # characters of a terminal's line


@dataclass(frozen=True, eq=False)
class Pictured:
    """What the pictures of a report are drawn from."""

    counts: dict[str, Counts] = field(repr=False)  # pair -> histogram of its cosines
    verified: dict[str, Verification] = field(repr=False)  # pair -> ROC curve and thresholds
    shares: tuple[float, ...]  # of the gallery, re-embedded in random order
    curve: tuple[float | None, ...]  # the metric at these shares


@dataclass(frozen=True, eq=False)
class CompatibilityCheck:
    """The answer, its numbers and its words."""

    verdict: str  # "compatible", "not compatible" or "undecided"
    metric: str  # in which the verdict was found
    metrics: dict[str, float | None] = field(repr=False)  # flat names, with "/low" and "/high"
    paragraph: str  # the answer
    basis: str  # what it was measured on
    notes: tuple[str, ...]  # what was left out or drawn at random, and what to be careful with
    draws: dict[str, np.ndarray] = field(repr=False)  # "new_old/map" -> float64 [draws]
    pictured: Pictured = field(repr=False)

    @property
    def compatible(self) -> bool:
        """Whether new/old is above old/old beyond the noise."""
        return self.verdict == COMPATIBLE

    @property
    def above(self) -> bool:
        """Whether new/old is above old/old at all: BCT's criterion as published, which knows no noise."""
        return self.metrics[f"gain/{self.metric}"] > 0 and self.verdict != NOT_COMPATIBLE

    @property
    def tests(self) -> dict[str, str]:
        """Prefix of a test's metrics -> its name for reading, query model first."""
        names = {pair: pair.replace("_", "/") for pair in PAIRS}
        adapters = {f"adapter/{name}/new_old": f"new/old, {ADAPTERS[name]} adapter" for name in FITS}
        return names | {k: v for k, v in adapters.items() if f"{k}/{self.metric}" in self.metrics}

    def summary(self) -> str:
        """Return the paragraph, a table of the tests, and what they were measured on, for a terminal."""
        columns = list(dict.fromkeys([self.metric, "map", "rank1"]))
        rows = [["query/gallery", *map(title, columns)]]
        for test, text in self.tests.items():
            rows.append([text, *(shown(self.metrics, f"{test}/{name}") for name in columns)])
        widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
        lines = ("  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)) for row in rows)
        table = "\n".join(line.rstrip() for line in lines)
        notes = [textwrap.fill(text, LINE) for text in (self.basis, *(f"Note: {x}" for x in self.notes))]
        return "\n\n".join([textwrap.fill(self.paragraph, LINE), table, "\n".join(notes)])
