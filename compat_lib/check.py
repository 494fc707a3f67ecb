"""May a new model be put before an old gallery? One call on the features of both, one answer with its noise.

    result = check_compatibility(old_features, new_features, labels)
    print(result.summary())

`python -m compat_lib check old.npz new.npz` asks the same of two files. The answer is BCT's empirical
criterion, new/old above old/old; everything else says how sure it is and what the alternatives would give.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compat_lib.check_files import Side, UnusableInput, checked_side, match
from compat_lib.check_measures import (
    BLOCK,
    CELLS,
    FARS,
    FITS,
    SHARES,
    Task,
    adapted_galleries,
    backfill_points,
    chance,
    choose_metric,
    choose_pairwise,
    choose_queries,
    choose_units,
    measure,
    values_of,
)
from compat_lib.check_words import ADAPTERS, metric_far, paragraph, shown, sign, title
from compat_lib.evaluation.changes import changes
from compat_lib.evaluation.compatibility import PAIRS, criterion
from compat_lib.evaluation.constraints import constraints
from compat_lib.evaluation.counting import Counts
from compat_lib.evaluation.inputs import UnitRows, codes
from compat_lib.evaluation.intervals import identity_weights
from compat_lib.evaluation.pairs import Verification

SAME = 1e-5  # the largest difference of two coordinates of unit rows that are the same feature


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

    compatible: bool  # new/old above old/old, the criterion
    decided: bool  # the interval of their difference leaves out zero
    metric: str  # in which the criterion was judged
    metrics: dict[str, float | None] = field(repr=False)  # flat names, with "/low" and "/high"
    paragraph: str
    notes: tuple[str, ...]  # what was left out, and what to be careful with
    draws: dict[str, np.ndarray] = field(repr=False)  # "new_old/map" -> float64 [draws]
    pictured: Pictured = field(repr=False)

    @property
    def strictly_compatible(self) -> bool:
        """Whether the whole 95 % interval of new/old minus old/old lies above zero."""
        return self.compatible and self.decided

    @property
    def tests(self) -> dict[str, str]:
        """Prefix of a test's metrics -> its name for reading, query model first."""
        names = {pair: pair.replace("_", "/") for pair in PAIRS}
        adapters = {f"adapter/{name}/new_old": f"new/old, {ADAPTERS[name]} adapter" for name in FITS}
        return names | {k: v for k, v in adapters.items() if f"{k}/{self.metric}" in self.metrics}

    def summary(self) -> str:
        """Return the paragraph, a table of the tests, and the notes, for a terminal."""
        columns = list(dict.fromkeys([self.metric, "map", "rank1"]))
        lines = [f"{'query/gallery':28}" + "".join(f"{title(name):23}" for name in columns)]
        for test, text in self.tests.items():
            cells = (shown(self.metrics, f"{test}/{name}") for name in columns)
            lines.append(f"{text:28}" + "".join(f"{cell:23}" for cell in cells))
        notes = [textwrap.fill(f"Note: {note}", 97) for note in self.notes]
        return "\n".join([textwrap.fill(self.paragraph, 97), "", *(line.rstrip() for line in lines), *notes])


def check_compatibility(
    old_features: Any,
    new_features: Any,
    labels: Any,
    *,
    new_labels: Any = None,
    ids: Any = None,
    new_ids: Any = None,
    metric: str | None = None,
    adapter: bool = True,
    queries: int | None = None,
    draws: int = 200,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
) -> CompatibilityCheck:
    """Return whether new queries do better against the old gallery than old ones, and what else would help.

    Compatible is new/old > old/old, strictly, BCT's empirical criterion (Shen et al., CVPR 2020, arXiv
    2003.11942); the paragraph says when that lies within the noise, and `strictly_compatible` asks for more.
    Every image is a gallery image, and a query that never meets itself; values and intervals are those of
    `compat_lib.evaluation.compare`. Differences are taken draw by draw of one bootstrap over identities.

    Where all images as queries would make more than about a hundred million pairs, some are drawn at random
    from those with another image of their identity, and search the whole gallery; the paragraph gives their
    number. A million images of width 128 take 4 GB. An adapter is a linear map from the old features to the
    new. It is fitted twice, on either half of the identities, and each gallery image is mapped by the one
    that did not see its identity.

    Args:
        old_features, new_features: real [N, D], NumPy, torch or lists, rows of any length.
        labels: whole numbers or names [N], the identities of the old rows.
        new_labels: those of the new rows; None: the same.
        ids, new_ids: whole numbers or names of the images, given together with new_labels where the rows of
            both are not the same images in the same order; images of one side only are left out.
        metric: "tar@far=F", "map", "rank1" or "rank5". None: TAR at FAR 1e-3 where at least 10 impostor pairs
            may pass, otherwise mAP.
        adapter: measure a ridge and a Procrustes adapter.
        queries: how many images ask, 1 or more. None: as many as make 10**8 pairs, and at least 2,000.
        draws: bootstrap draws; 0: no intervals.
        seed: of the draws, the queries, the halves and the order of the backfill.
        say: receives a line before each step.

    Raises:
        UnusableInput: a ValueError with a sentence for every input from which there is no answer, such as
            "the old features have 64 columns and the new ones 128 ...", and those of `checked_side` and
            `match` in compat_lib.check_files.

    >>> old = [[1.0, 0.0], [0.5, 0.9], [0.0, 1.0], [0.9, 0.5]]
    >>> new = [[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]
    >>> result = check_compatibility(old, new, [0, 0, 1, 1], draws=0)
    >>> result.metric, result.compatible, result.metrics["old_old/rank1"], result.metrics["new_old/rank1"]
    ('map', True, 0.0, 0.5)
    """
    if new_labels is None and new_ids is not None:
        raise UnusableInput("new_ids were given without new_labels; give the labels of the new rows too")
    return check_sides(
        checked_side("old", old_features, labels, ids),
        checked_side("new", new_features, labels if new_labels is None else new_labels, new_ids),
        metric=metric,
        adapter=adapter,
        queries=queries,
        draws=draws,
        seed=seed,
        say=say,
    )


def check_sides(
    old: Side,
    new: Side,
    *,
    metric: str | None = None,
    adapter: bool = True,
    queries: int | None = None,
    draws: int = 200,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
) -> CompatibilityCheck:
    """Return the same as `check_compatibility`, of two sides from `checked_side` or `read_side`."""
    say = say or (lambda line: None)
    _check_numbers(queries=(queries, 1), draws=(draws, 0), seed=(seed, 0))
    _check_widths(old, new)
    matched = match(old, new)
    labels = codes(matched.labels, None, (len(matched.labels), 0), "labels")[0]
    rows = choose_queries(labels, queries, seed)
    metric = choose_metric(metric, labels, rows)
    far = metric_far(metric)
    units = choose_units(labels, rows, CELLS // max(draws, 1))
    fars = FARS if far is None or far in FARS else (far, *FARS)
    task = Task(labels, units, rows, fars, identity_weights(units, draws, seed))
    say("scaling the features to unit length")
    after = UnitRows(new.features, "new")[matched.new_rows]
    before = UnitRows(old.features, "old")[matched.old_rows].to(after.device)
    same = _same(before, after)

    sides = {"old_old": (before, before), "new_old": (after, before), "new_new": (after, after)}
    tests = {}
    for pair, (query, gallery) in sides.items():
        say(f"{pair.replace('_', '/')}: {len(rows):,} queries, {len(labels):,} gallery images")
        tests[pair] = measure(query, gallery, task)
    for name, mapped in adapted_galleries(before, after, labels, seed) if adapter else ():
        say(f"new/old with the {name} adapter")
        tests[f"adapter/{name}/new_old"] = measure(after, mapped, task)

    say("answers that change, constraints, partial backfill")
    values = values_of(tests)
    values |= changes(
        tests["old_old"].retrieved, tests["new_old"].retrieved, labels[rows], draws=draws, seed=seed
    ).metrics
    some = choose_pairwise(labels, seed)
    place = torch.from_numpy(some).to(after.device)
    values |= constraints(before[place], after[place], labels[some], draws=draws, seed=seed).metrics
    curve = backfill_points(tests["new_old"], tests["new_new"], metric, before, after, task, seed)
    values |= {f"mixed/share={share:.2f}/{metric}": v for share, v in zip(SHARES, curve, strict=True)}
    values |= {f"chance/{name}": chance(name, labels, rows) for name in tests["old_old"].values}
    values |= _sizes(task) | {"draws": draws, "seed": seed}
    best = max(FITS, key=lambda name: values[f"adapter/{name}/new_old/{metric}"]) if adapter else None
    return CompatibilityCheck(
        compatible=bool(criterion(values, metric)) and not same,
        decided=sign(values, f"gain/{metric}") != 0,
        metric=metric,
        metrics=values,
        paragraph=paragraph(values, metric, same=same, adapter=best),
        notes=matched.notes + tuple(_notes(values, metric, matched.labels, task, before, after)),
        draws={f"{pair}/{name}": drawn for pair, test in tests.items() for name, drawn in test.draws.items()},
        pictured=Pictured(
            {pair: tests[pair].counts for pair in PAIRS},
            {pair: tests[pair].verified for pair in PAIRS},
            SHARES,
            curve,
        ),
    )


def _check_numbers(**numbers: tuple[Any, int]) -> None:
    for name, (value, least) in numbers.items():
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not (whole and value >= least) and not (value is None and name == "queries"):
            raise UnusableInput(f"{name} is {value!r}; give a whole number of at least {least}")


def _check_widths(old: Side, new: Side) -> None:
    widths = old.features.shape[1], new.features.shape[1]
    if widths[0] != widths[1]:
        raise UnusableInput(
            f"the old features have {widths[0]} columns and the new ones {widths[1]}, so a new query has no "
            "cosine with an old gallery image; give the new features as they would be compared with the "
            "gallery (cut, padded, or after the head or adapter that does so), or train the new model with "
            f"width {widths[0]}"
        )


def _same(before: Tensor, after: Tensor) -> bool:
    blocks = zip(before.split(BLOCK), after.split(BLOCK), strict=True)
    return all(bool(((a - b).abs() <= SAME).all()) for a, b in blocks)


def _sizes(task: Task) -> dict[str, int]:
    sizes, asked = np.bincount(task.labels), np.unique(task.labels[task.queries])
    return {
        "images": len(task.labels),
        "identities": len(sizes),
        "queries": len(task.queries),
        "query_identities": int((sizes[asked] > 1).sum()),  # those with a right answer
    }


def _notes(
    values: Mapping[str, Any], metric: str, names: np.ndarray, task: Task, before: Tensor, after: Tensor
) -> Iterator[str]:
    for what, rows in (("old", before), ("new", after)):
        empty = sum(int((~part.any(1)).sum()) for part in rows.split(BLOCK))
        if empty:
            yield (
                f"{empty} of the {what} features are all zeros; they have no direction, and their cosine "
                "with everything is 0."
            )
    if names.dtype.kind == "i" and (negative := names[names < 0]).size:
        yield (
            f"{len(negative)} images have a negative label, such as {negative[0]}, which was taken for an "
            "identity like any other; leave them out if it stands for unknown."
        )
    if values[f"old_old/{metric}"] == values[f"new_new/{metric}"] == 1:
        yield (
            f"Both models are perfect in {title(metric)} on these images, which cannot show a gain; take "
            "harder images, or a stricter metric."
        )
    if task.units is not task.labels:
        yield (
            "The bootstrap draws identities without a query in groups, so that its table fits into memory; "
            "they only count as impostors."
        )
