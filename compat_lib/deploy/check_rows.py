"""The rows of a compatibility check's table, (names, query features, gallery features), and what follows from
them: differences, thresholds, the backfill and groups."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from compat_lib.adapters import ADAPTERS, ALPHAS, LinearMap, fit_interpolation
from compat_lib.deploy import check_inputs as given
from compat_lib.deploy.check_measure import Measure, accepted, threshold_of
from compat_lib.deploy.check_pictures import MAPS
from compat_lib.deploy.check_result import Names
from compat_lib.deploy.check_verdict import COMPATIBLE, UNDECIDED, judged
from compat_lib.evaluation.backfill import QUARTERS
from compat_lib.evaluation.bootstrap import drawn_record
from compat_lib.evaluation.compatibility import HEADLINE, PairTest
from compat_lib.evaluation.counting import PER_UNIT, Counts
from compat_lib.evaluation.rank_merge import merged_sides, scale_of_strangers
from compat_lib.evaluation.records import Record, Records
from compat_lib.orthogonal_adapter import fit_orthogonal

ORDERED = 0.6  # least share of images nearer to their own other feature than to that of another, see in_order
LEARNED = 2_000, 100_000  # images of a half: with fewer a trained map is behind Procrustes; more take minutes
STEPS = 1_000  # of its training, at least

Tests = dict[Names, PairTest]


def rows_of(sides: given.Sides, adapter: bool, seed: int) -> Iterator[tuple[Names, Tensor, Tensor]]:
    """Names, query and gallery features of every row, one after the other: mapped features are large."""
    before, after = sides.before, sides.after
    yield ("old", "old", None), before, before
    if sides.equal_widths:
        yield ("new", "old", None), after, before
    else:
        narrow, wide = sorted((before.shape[1], after.shape[1]))
        if after.shape[1] == wide:
            yield ("new", "old", "cut"), F.normalize(after[:, :narrow], dim=1), before
        padded = (F.pad(side, (0, wide - side.shape[1])) for side in (after, before))
        yield ("new", "old", "pad"), *padded
    for name in MAPS if adapter else ():
        mapped = by_the_other_half(name, sides, seed)
        yield ("new", "old", name), *((mapped, before) if name.endswith("query") else (after, mapped))
    for name in ("midpoint", "slerp")[: 1 + (sides.labels is not None)] if adapter else ():
        yield ("new", "old", name), by_the_other_half(name, sides, seed), before
    if adapter and sides.labels is not None and len(before) >= 2 * LEARNED[0]:
        query, gallery = trained_by_the_other_half(sides, seed)
        yield (
            ("new", "old", "lambda-orthogonal-query"),
            query,
            F.normalize(before[:, : query.shape[1]], dim=1),
        )
        yield ("new", "old", "lambda-orthogonal"), query, gallery
    yield ("new", "new", None), after, after


def halves(sides: given.Sides, seed: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(seen, unseen) rows, of half of the identities, drawn at random, and the other way round; without
    labels each image is an identity."""
    each = np.arange(len(sides.before)) if sides.labels is None else sides.labels
    half = np.random.default_rng(seed).permutation(int(each.max()) + 1)[each] % 2
    one, other = (torch.from_numpy(np.flatnonzero(half == n)).to(sides.before.device) for n in (0, 1))
    return (one, other), (other, one)


def trained_by_the_other_half(sides: given.Sides, seed: int) -> tuple[Tensor, Tensor]:
    """Queries and gallery by the lambda-orthogonal maps that were trained on the other half of identities."""
    before, after, labels = sides.before, sides.after, sides.labels
    query, gallery = (before.new_empty(len(before), min(before.shape[1], after.shape[1])) for _ in range(2))
    for seen, unseen in halves(sides, seed):
        some = torch.randperm(len(seen), generator=torch.Generator().manual_seed(seed))[: LEARNED[1]]
        seen = seen[some.to(seen.device)]
        how = {"epochs": max(10, -(-STEPS * 256 // len(seen))), "batch_size": 256, "seed": seed}
        fitted = fit_orthogonal(before[seen], after[seen], labels[seen.cpu().numpy()], **how)
        query[unseen], gallery[unseen] = fitted.query(after[unseen]), fitted.gallery(before[unseen])
    return query, gallery


def by_the_other_half(name: str, sides: given.Sides, seed: int) -> Tensor:
    """Mapped or interpolated features, each image's by what the half without its identity was fitted to.

    `name`: "ridge-query" (new features in the old space), "ridge" (old ones in the new), likewise of
    Procrustes, "midpoint" or "slerp" (queries of both models). Without labels halves are of images.
    """
    before, after, labels = sides.before, sides.after, sides.labels
    mapped = torch.empty_like(after if name in ADAPTERS else before)
    kind, _, query = name.partition("-")
    source, target = (after, before) if query else (before, after)
    asked = (source,) if kind in ADAPTERS else (before, after)
    for seen, unseen in halves(sides, seed):
        if kind in ADAPTERS:
            fitted = ADAPTERS[kind](source[seen], target[seen])
        else:
            known = {"compatible": False} if labels is None else {"labels": labels[seen.cpu().numpy()]}
            alphas = ALPHAS if name == "slerp" else (0.5,)
            fitted = fit_interpolation(before[seen], after[seen], alphas=alphas, **known)
        for part in unseen.split(given.BLOCK):
            mapped[part] = fitted.apply(*(side[part] for side in asked)).to(mapped)
    return mapped


def best_map(records: Records, metric: str, sides: given.Sides) -> LinearMap | None:
    """The linear map that reaches most on identities that it had not seen, fitted to all images."""
    some = [one for one in records.select(metric=metric) if one.adapter in MAPS and one.value is not None]
    if not some:
        return None
    kind, _, query = max(some, key=lambda one: one.value).adapter.partition("-")
    pair = (sides.after, sides.before) if query else (sides.before, sides.after)
    return replace(ADAPTERS[kind](*pair), side=query or "gallery")


def differences(records: Records, what: str, other: tuple[str, str]) -> Iterator[Record]:
    """Every test minus the test ``other``, draw by draw, under the metric's name after ``what``."""
    for one in records:
        reference = records.find(*other, one.metric)
        if reference is None or one is reference or (one.query, what) == ("old", "over_swap"):
            continue
        yield _difference(one, reference, f"{what}/{one.metric}")


def _difference(one: Record, reference: Record, name: str) -> Record:
    found = Record(None, None, name, None)
    if one.value is not None and reference.value is not None:
        found = drawn_record(name, one.value - reference.value, one.draws - reference.draws)
    return replace(found, query=one.query, gallery=one.gallery, adapter=one.adapter)


def thresholds(tests: Tests, measure: Measure, threshold: float | None) -> Iterator[Record]:
    """For every row the threshold that accepts as many strangers as the old one does with old queries."""
    counts = tests["old", "old", None].counts
    if counts is None:
        return
    far = given.metric_far(measure.metric) or given.metric_far(HEADLINE)
    if threshold is None and far * counts.negatives < 1:
        return
    old = threshold_of(counts, far) if threshold is None else threshold
    share, _ = accepted(counts, old)
    yield Record("old", "old", "strangers", float(share))
    for (query, gallery, adapter), test in tests.items():
        own = old if (query, gallery) == ("old", "old") else threshold_of(test.counts, share)
        yield Record(query, gallery, "threshold", float(own), adapter=adapter)
        yield Record(query, gallery, "accepted", float(accepted(test.counts, own)[1]), adapter=adapter)


def mixed(sides: given.Sides, measure: Measure, tests: Tests, seed: int, *, merged: bool) -> Iterator[Record]:
    """The metric while a random share of the gallery is re-embedded.

    New queries ask one index; or, `merged`, each model's queries an index of its own, and both answers are
    merged by score (`evaluation.merged_indexes_curve`); an image without a label is an identity of its own.

    A TAR needs no further search: of a random share s of the gallery, on average, s of every kind of pair are
    of the new kind and the rest of the old one, so that the rates at a score are weighted means of those of
    two tests.
    """
    metric, far = measure.metric, given.metric_far(measure.metric)
    queries, before, after = sides.after, sides.before, sides.after
    kinds = tests["old" if merged else "new", "old", None], tests["new", "new", None]
    scales = [(0.0, 1.0)] * 2
    if merged:
        number = np.arange(len(before)) if sides.labels is None else sides.labels
        if far is not None:
            scales = [scale_of_strangers(side, number) for side in (before, after)]
        else:
            queries, (before, after) = merged_sides(before, after, number)
    if far is not None:
        rates = _rates([test.counts for test in kinds], scales)
    shuffled = torch.from_numpy(np.random.default_rng(seed).permutation(len(before)))
    quick = replace(measure, weights=measure.weights[:, :0], fars=())  # without the bootstrap
    names = {"query": "both", "adapter": "rank-merge"} if merged else {"query": "new"}
    for share in QUARTERS[1:-1] if merged else QUARTERS:
        if share in (0, 1):
            value = kinds[int(share)].records.value(None, None, metric)
        elif far is not None:
            strangers, own = ((1 - share) * old + share * new for old, new in zip(*rates, strict=True))
            value = float(own[np.argmax(strangers <= far)])
        else:
            gallery, new = before.clone(), shuffled[: round(share * len(shuffled))]
            gallery[new] = after[new]
            value = quick.test(queries, gallery).records.value(None, None, metric)
        yield Record(**names, gallery="mixed", metric=metric, value=value, order="random", share=share)


def _rates(kinds: Sequence[Counts], scales: Sequence[tuple[float, float]]) -> list[list[np.ndarray]]:
    """Of each test the shares of pairs of strangers and of one identity that reach each score, rising.

    `scales`: centre and spread of the scores of each, which are (cosine - centre) / spread.
    """
    edges = np.arange(len(kinds[0].same) + 1) / PER_UNIT - 2
    reached = np.unique(np.concatenate([(edges - centre) / spread for centre, spread in scales]))
    rates = []
    for counts, (centre, spread) in zip(kinds, scales, strict=True):
        place = np.ceil((centre + spread * reached + 2) * PER_UNIT - 1e-6).clip(0, len(edges) - 1)
        above = [np.r_[kind[::-1].cumsum()[::-1], 0] for kind in (counts.different, counts.same)]
        rates.append([one[place.astype(int)] / one[0] for one in above])
    return rates


def by_group(
    sides: given.Sides, measure: Measure, names: np.ndarray, doubtful: bool
) -> tuple[tuple[dict[str, Any], ...], list[Record]]:
    """Verdicts of groups' queries, which ask the whole gallery (not compatible if doubtful), and records."""
    found, records = [], []
    for name in np.unique(names).tolist():
        among = np.flatnonzero(names == name)
        about = {"group": name, "queries": len(among), "asking": measure.asking(among)}
        if about["asking"]:
            pair = [measure.test(query, sides.before, among) for query in (sides.before, sides.after)]
            one = [test.records.get(None, None, measure.metric) for test in pair]
            gain = _difference(one[1], one[0], "gain/" + measure.metric)
            verdict = judged(gain, about["asking"])[0]
            about["verdict"] = UNDECIDED if doubtful and verdict == COMPATIBLE else verdict
            who = [("old", one[0]), ("new", one[1]), ("new", gain)]
            records += [replace(x, query=q, gallery="old", metric=f"group={name}/{x.metric}") for q, x in who]
        found.append({"verdict": UNDECIDED} | about)
    return tuple(found), records


def in_order(query: Tensor, gallery: Tensor, labels: np.ndarray, seed: int) -> float:
    """Share of images that are nearer to their own feature in the gallery than to another of the identity."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # by identity, at random within
    pairs = np.stack([order[:-1], order[1:]])[:, labels[order[:-1]] == labels[order[1:]]]
    some = pairs[:, generator.permutation(pairs.shape[1])[: given.PAIRWISE]]
    one, other = (torch.from_numpy(row).to(query.device) for row in some)
    apart = (query[one] * gallery[one]).sum(1) - (query[one] * gallery[other]).sum(1)
    return float(((apart > 0).double() + 0.5 * (apart == 0).double()).mean())
