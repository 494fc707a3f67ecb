"""May a new model be put before an old gallery? One call on both features, one answer and its noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compat_lib.deploy.check.choices import (
    CELLS,
    choose_halves,
    choose_metric,
    choose_pairwise,
    choose_queries,
    choose_units,
    known_metric,
)
from compat_lib.deploy.check.measures import (
    BLOCK,
    FARS,
    FITS,
    SHARES,
    Task,
    adapted_galleries,
    backfill_points,
    chance,
    measure,
    values_of,
)
from compat_lib.deploy.check.result import CompatibilityCheck, Pictured
from compat_lib.deploy.check.sides import Side, UnusableInput, checked_side, match
from compat_lib.deploy.check.words import basis, metric_far, paragraph, title, verdict
from compat_lib.evaluation.changes import changes
from compat_lib.evaluation.compatibility import PAIRS
from compat_lib.evaluation.constraints import constraints
from compat_lib.evaluation.inputs import UnitRows, codes
from compat_lib.evaluation.intervals import identity_weights

SAME = 1e-5  # the largest difference of two coordinates of unit rows that are the same feature


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

    BCT's empirical criterion (Shen et al., CVPR 2020, arXiv 2003.11942) is new/old > old/old. Here the 95 %
    interval of the difference must lie above zero to be called compatible and below it to be called not
    compatible; where it holds zero, or fewer than six identities have two images, the verdict is "undecided",
    and `above` tells what the plain criterion says. Every image is a gallery image, and a query that never
    meets itself; values and intervals are those of `compat_lib.evaluation.compare`, the differences are taken
    draw by draw of one bootstrap over identities.

    Where all images as queries would make more than about a hundred million pairs, some are drawn at random
    from those with another image of their identity, and search the whole gallery. An adapter is a linear map
    from the old features to the new. It is fitted twice, on either half of the identities, and each gallery
    image is mapped by the one that did not see its identity. `basis` and `notes` tell all that was drawn.

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
        draws: bootstrap draws; below 2 there are no intervals, and the difference itself decides.
        seed: of the draws, the queries, the halves and the order of the backfill.
        say: receives a line before each step.

    Raises:
        UnusableInput: a ValueError with a sentence for every input from which there is no answer, such as
            "the old features have 64 columns and the new ones 128 ...", and those of `checked_side` and
            `match` in compat_lib.deploy.check.sides.

    >>> old = [[1.0, 0.0], [0.5, 0.9], [0.0, 1.0], [0.9, 0.5]]
    >>> new = [[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]
    >>> result = check_compatibility(old, new, [0, 0, 1, 1], draws=0)
    >>> result.verdict, result.metric, result.metrics["old_old/rank1"], result.metrics["new_old/rank1"]
    ('compatible', 'map', 0.0, 0.5)
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
    if metric is not None:
        known_metric(metric)
    _check_widths(old, new)
    matched = match(old, new)
    labels = codes(matched.labels, None, (len(matched.labels), 0), "labels")[0]
    rows = choose_queries(labels, queries, seed)
    metric = choose_metric(metric, labels, rows)
    far = metric_far(metric)
    units = choose_units(labels, rows, CELLS // max(draws, 1))
    fars = FARS if far is None or far in FARS else (far, *FARS)
    task = Task(labels, units, rows, fars, identity_weights(units, draws, seed))
    halves, fitted = choose_halves(labels, seed)
    paired = choose_pairwise(labels, seed)
    say("scaling the features to unit length")
    after = UnitRows(new.features, "new")[matched.new_rows]
    before = UnitRows(old.features, "old")[matched.old_rows].to(after.device)

    sides = {"old_old": (before, before), "new_old": (after, before), "new_new": (after, after)}
    tests = {}
    for pair, (query, gallery) in sides.items():
        say(f"{pair.replace('_', '/')}: {len(rows):,} queries, {len(labels):,} gallery images")
        tests[pair] = measure(query, gallery, task)
    for name, mapped in adapted_galleries(before, after, halves, fitted) if adapter else ():
        say(f"new/old with the {name} adapter")
        tests[f"adapter/{name}/new_old"] = measure(after, mapped, task)

    say("answers that change, constraints, partial backfill")
    values = values_of(tests)
    values |= changes(
        tests["old_old"].retrieved, tests["new_old"].retrieved, labels[rows], draws=draws, seed=seed
    ).metrics
    place = torch.from_numpy(paired).to(after.device)
    values |= constraints(before[place], after[place], labels[paired], draws=draws, seed=seed).metrics
    curve = backfill_points(tests["new_old"], tests["new_new"], metric, before, after, task, seed)
    values |= {f"mixed/share={share:.2f}/{metric}": v for share, v in zip(SHARES, curve, strict=True)}
    values |= {f"chance/{name}": chance(name, labels, rows) for name in tests["old_old"].values}
    values |= _sizes(task) | {"draws": draws, "seed": seed}
    if adapter:
        fewest = min(len(np.unique(labels[half])) for half in fitted)
        values |= {"adapter/identities": fewest, "width": before.shape[1]}
    same = _same(before, after)
    best = max(FITS, key=lambda name: values[f"adapter/{name}/new_old/{metric}"]) if adapter else None
    notes = [*matched.notes, *_drawn(task, paired, halves, fitted if adapter else halves, seed)]
    notes += _cautions(values, metric, matched.labels, before, after)
    return CompatibilityCheck(
        verdict=verdict(values, metric, same=same),
        metric=metric,
        metrics=values,
        paragraph=paragraph(values, metric, same=same, adapter=best),
        basis=basis(values, metric),
        notes=tuple(notes),
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


def _drawn(
    task: Task, paired: np.ndarray, halves: list[np.ndarray], fitted: list[np.ndarray], seed: int
) -> Iterator[str]:
    # What stands for more than itself, besides the queries, of which `basis` tells.
    parts = []
    if any(len(some) < len(half) for some, half in zip(fitted, halves, strict=True)):
        numbers = " and ".join(f"{len(some):,}" for some in fitted)
        parts.append(f"the {numbers} images of the two halves to which the adapters are fitted")
    if len(paired) < len(task.labels):
        parts.append(f"the {len(paired):,} images between which the four constraints are counted")
    if parts:
        yield f"Drawn at random as well (seed {seed}): {', and '.join(parts)}."
    if task.units is not task.labels:
        yield (
            "The bootstrap draws identities without a query in groups, so that its table fits into memory; "
            "they only count as impostors."
        )


def _cautions(
    values: Mapping[str, Any], metric: str, names: np.ndarray, before: Tensor, after: Tensor
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
