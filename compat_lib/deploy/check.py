"""Is a new model compatible with the old one? Features of both in; a verdict and its numbers out.

    result = check_compatibility(old_features, new_features, labels)
    result.verdict, result.sentence
    print(result.summary())

``python -m compat_lib check old.npz new.npz --report page.html`` asks the same of two files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compat_lib.deploy.check_inputs import BLOCK, Sides, UnusableInput, bring_together
from compat_lib.deploy.check_measures import (
    CELLS,
    chance,
    choose_metric,
    choose_queries,
    choose_units,
    mapped_by_the_other_half,
    metric_far,
    metric_name,
    mixed_tar,
)
from compat_lib.deploy.check_result import (
    COMPATIBLE,
    NOT_COMPARABLE,
    NOT_COMPATIBLE,
    UNDECIDED,
    CompatibilityCheck,
    Names,
    title,
)
from compat_lib.evaluation.bootstrap import identity_weights
from compat_lib.evaluation.compatibility import HEADLINE, RANKS, PairTest, pair_test
from compat_lib.evaluation.paired import paired_comparison
from compat_lib.evaluation.pairs import PairScores
from compat_lib.evaluation.ranking import rank
from compat_lib.evaluation.records import Record, Records, metric_title
from compat_lib.evaluation.upgrade import changes

FARS = (1e-3, 1e-4)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the gallery, re-embedded
DECIDING = 6  # identities, below which all move one way by chance in more than one case of twenty: 2 / 2**5
ENDS = 40  # draws, below which less than one lies beyond an end of a 95 % interval
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
    compatible. Where it holds zero, where fewer than six identities with two images ask, or with fewer than
    40 draws, the verdict is "undecided", and ``above`` tells what the plain criterion says. Every image is a
    gallery image, and a query that never meets itself; values and intervals are those of
    ``compat_lib.evaluation.compare``.

    Features of unequal width have no cosine: the verdict is "not comparable as they are", with both
    self-tests and what an adapter of the gallery or of the queries would reach.

    Where all images as queries would make more than about a hundred million pairs, some are drawn at random
    from those with another image of their identity, and search the whole gallery. An adapter is a linear map
    between the models. It is fitted twice, on either half of the identities, and each image is mapped by the
    one that did not see its identity.

    Args:
        old_features, new_features, labels, new_labels, ids, new_ids: as in
            ``compat_lib.deploy.check_inputs.bring_together``, which tells what is left out.
        metric: "tar@far=F", "map", "rank1" or "rank5". None: TAR at FAR 1e-3 where at least 10 impostor pairs
            may pass, otherwise mAP, which a note tells.
        adapter: measure a ridge and a Procrustes adapter.
        queries: how many images ask, 1 or more. None: as many as make 10**8 pairs, and at least 2,000.
        draws: bootstrap draws.
        seed: of the draws, the queries, the halves and the order of the backfill.
        say: receives a line before each step.

    Raises:
        UnusableInput: a ValueError with a sentence for every input from which there is no answer.

    >>> old = [[1.0, 0.0], [0.5, 0.9], [0.0, 1.0], [0.9, 0.5]]
    >>> new = [[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]
    >>> result = check_compatibility(old, new, [0, 0, 1, 1], draws=0)
    >>> result.verdict, result.above  # two identities are no evidence
    ('undecided', True)
    >>> [result.records.value(model, "old", "rank1") for model in ("old", "new")]
    [0.0, 0.5]
    """
    for name, value, least in (("queries", queries, 1), ("draws", draws, 0), ("seed", seed, 0)):
        if value is not None and value < least:
            raise UnusableInput(f"{name} is {value}; give a whole number of at least {least}")
    asked = None if metric is None else metric_name(metric)
    sides = bring_together(
        old_features, new_features, labels, new_labels=new_labels, ids=ids, new_ids=new_ids
    )
    labels = sides.labels
    rows = choose_queries(labels, queries, seed)
    metric = choose_metric(asked, labels, rows)
    units = choose_units(labels, rows, CELLS // max(draws, 1))
    tests = dict(_tests(sides, rows, units, metric, adapter, draws, seed, say or (lambda line: None)))

    records = Records(
        one
        for (query, gallery, name), test in tests.items()
        for one in test.records.changed(query=query, gallery=gallery, adapter=name)
    )
    records += [
        *_differences(records, "gain", ("old", "old")),
        *_differences(records, "over_swap", ("new", "old")),
        Record(None, None, f"chance/{metric}", chance(metric, labels, rows)),
    ]
    if sides.equal_widths:
        before, after = (tests[model, "old", None].retrieval for model in ("old", "new"))
        records += changes(before, after, labels[rows], draws=draws, seed=seed).records
        curve = {0.0: records.value("new", "old", metric), 1.0: records.value("new", "new", metric)}
        for share in SHARES[1:-1]:
            curve[share] = _backfilled(sides, rows, units, metric, share, tests, seed)
        records += [Record("new", "mixed", metric, curve[s], order="random", share=s) for s in SHARES]

    sizes = np.bincount(labels)
    asking = int((sizes[np.unique(labels[rows])] > 1).sum())
    basis = {"images": len(labels), "identities": len(sizes), "queries": len(rows), "asking": asking}
    verdict, reason = decide(sides, records, metric, asking)
    notes = [*sides.notes, *_cautions(sides, records, metric, asked, adapter, units is not labels)]
    return CompatibilityCheck(
        verdict, reason, metric, records, tuple(notes), basis | {"draws": draws, "seed": seed}, tests
    )


def _tests(
    sides: Sides,
    rows: np.ndarray,
    units: np.ndarray,
    metric: str,
    adapter: bool,
    draws: int,
    seed: int,
    say: Callable[[str], None],
) -> Iterator[tuple[Names, PairTest]]:
    """Measure every query model against every gallery that it can be compared with, one after the other."""
    before, after = sides.before, sides.after
    far = metric_far(metric)
    fars = FARS if far is None or far in FARS else (far, *FARS)
    weights = identity_weights(units, draws, seed)

    def test(names: Names, query: Tensor, gallery: Tensor) -> tuple[Names, PairTest]:
        say(f"{title(*names)}: {len(rows):,} queries, {len(units):,} gallery images")
        # Inside one set and model the order of the two does not matter.
        unordered = query is gallery and len(rows) == len(units)
        identities, ids = (units[rows], units), (rows, np.arange(len(units)))
        return names, pair_test(
            _asking(query, rows), gallery, identities, ids, fars, weights, unordered=unordered
        )

    yield test(("old", "old", None), before, before)
    if sides.equal_widths:
        yield test(("new", "old", None), after, before)
    if adapter:
        for name, mapped in mapped_by_the_other_half(before, after, sides.labels, seed):
            yield test(("new", "old", name), after, mapped)
    if adapter and not sides.equal_widths:
        for name, mapped in mapped_by_the_other_half(after, before, sides.labels, seed):
            yield test(("new", "old", f"{name}-query"), mapped, before)
    yield test(("new", "new", None), after, after)


def _asking(features: Tensor, rows: np.ndarray) -> Tensor:
    every = len(rows) == len(features)
    return features if every else features[torch.from_numpy(rows).to(features.device)]


def _backfilled(
    sides: Sides, rows: np.ndarray, units: np.ndarray, metric: str, share: float, tests: dict, seed: int
) -> float:
    """The metric with a random share of the gallery re-embedded."""
    far = metric_far(metric)
    if far is not None:
        return mixed_tar(tests["new", "old", None].counts, tests["new", "new", None].counts, share, far)
    gallery = sides.before.clone()
    shuffled = np.random.default_rng(seed).permutation(len(gallery))
    new = torch.from_numpy(shuffled[: round(share * len(gallery))]).to(gallery.device)
    gallery[new] = sides.after[new]
    ids = {"query_ids": rows, "gallery_ids": np.arange(len(units))}
    found = rank(PairScores(_asking(sides.after, rows), units[rows], gallery, units, **ids), RANKS)
    return found.map if metric == "map" else found.rank[int(metric.removeprefix("rank"))]


def decide(sides: Sides, records: Records, metric: str, asking: int) -> tuple[str, str]:
    """Return the verdict and its reason, which ends a sentence."""
    widths = sides.before.shape[1], sides.after.shape[1]
    if widths[0] != widths[1]:
        reached = [one for one in records.select(metric=metric) if one.adapter]
        best = max(reached, key=lambda one: one.value, default=None)
        tail = "" if best is None else f" ({title(best.query, best.gallery, best.adapter)}, reaches most)"
        return NOT_COMPARABLE, (
            f"the old features have {widths[0]} columns and the new ones {widths[1]}, so a new query has no "
            f"cosine with an old gallery image; map one side to the other{tail}, or train the new model with "
            f"width {widths[0]}"
        )
    if all(
        bool(((a - b).abs() <= SAME).all())
        for a, b in zip(sides.before.split(BLOCK), sides.after.split(BLOCK), strict=True)
    ):
        return NOT_COMPATIBLE, "both sides hold the same features, so there is no upgrade to judge"
    gain = records.get("new", "old", f"gain/{metric}")
    if asking < DECIDING:
        return UNDECIDED, (
            f"only {asking} identit{'y' if asking == 1 else 'ies'} with two images ask, and of fewer than "
            f"{DECIDING} chance may move all one way: add images of others"
        )
    if gain.draws is None or np.isfinite(gain.draws).sum() < ENDS:
        return UNDECIDED, f"fewer than {ENDS} draws make no interval, and nobody can say whether it is noise"
    if gain.low == gain.high == 0:
        return NOT_COMPATIBLE, "there is no gain over the old model, and the criterion asks for one"
    if gain.low > 0 and sides.mostly_alike:
        return UNDECIDED, "most old features are one vector, against which any model looks better"
    if gain.low > 0:
        return COMPATIBLE, "new queries may search the gallery as it is"
    if gain.high < 0:
        return NOT_COMPATIBLE, "the swap loses against keeping the old model"
    return UNDECIDED, "the interval of the difference holds zero, so these images cannot tell"


def _differences(records: Records, what: str, other: tuple[str, str]) -> Iterator[Record]:
    """Every test minus the test ``other``, draw by draw, under the metric's name after ``what``."""
    for one in records:
        reference = records.find(*other, one.metric)
        itself = (one.query, one.gallery, one.adapter) == (*other, None)
        if reference is None or itself or (what == "over_swap" and one.query == "old"):
            continue
        value = low = high = drawn = None
        if one.value is not None and reference.value is not None:
            drawn = one.draws - reference.draws
            options = {"draws_a": one.draws, "draws_b": reference.draws} if drawn.size else {}
            found = paired_comparison(one.value, reference.value, **options)
            value = found.value
            low, high = (found.low, found.high) if np.isfinite(found.low) else (None, None)
        yield replace(one, metric=f"{what}/{one.metric}", value=value, low=low, high=high, draws=drawn)


def _cautions(
    sides: Sides, records: Records, metric: str, asked: str | None, adapter: bool, grouped: bool
) -> Iterator[str]:
    if metric != (asked or HEADLINE):
        yield f"Judged in {metric_title(metric)}: there are too few pairs for {metric_title(HEADLINE)}."
    old, new = records.get("old", "old", metric), records.get("new", "new", metric)
    if (old.value if old.low is None else old.low) <= records.value(None, None, f"chance/{metric}"):
        yield (
            "The old model itself is not clearly better than chance: check that features and labels belong "
            "together."
        )
    if old.value == new.value == 1:
        yield (
            f"Both models are perfect in {metric_title(metric)} on these images, which cannot show a gain; "
            "take harder images, or a stricter metric."
        )
    fitted, width = (int(sides.labels.max()) + 1) // 2, sides.before.shape[1]
    if adapter and fitted < 2 * width:
        yield f"Adapters are fitted to {fitted:,} identities, for {width} coordinates: more may lift them."
    if grouped:
        yield "Identities without a query are drawn in groups, to save memory; they only count as impostors."
