"""Is a new model compatible with the old one? Features of both in; a verdict and its numbers out.

    result = check_compatibility(old_features, new_features, labels)
    result.verdict, result.sentence
    print(result.summary())

`check_files`, or ``compat-lib check old.npz new.npz --report page.html``, asks the same of two files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compat_lib.adapters import ADAPTERS
from compat_lib.deploy import check_inputs as given
from compat_lib.deploy.check_result import VERDICTS, CompatibilityCheck, Names, title
from compat_lib.deploy.feature_files import FeatureTable, read_features
from compat_lib.evaluation.bootstrap import identity_weights
from compat_lib.evaluation.compatibility import HEADLINE, RANKS, PairTest, pair_test
from compat_lib.evaluation.four_constraints import constraints
from compat_lib.evaluation.paired import paired_comparison
from compat_lib.evaluation.pairs import PairScores
from compat_lib.evaluation.ranking import rank
from compat_lib.evaluation.records import Record, Records, metric_title
from compat_lib.evaluation.upgrade import changes

FARS = (1e-3, 1e-4)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the gallery, re-embedded
CELLS = 10**7  # identities x draws that are held; beyond it identities without a query are drawn in groups
DECIDING = 6  # identities, below which all move one way by chance in more than one case of twenty: 2 / 2**5
ENDS = 40  # draws, below which less than one lies beyond an end of a 95 % interval
SAME = 1e-5  # the largest difference of two coordinates of unit rows that are the same feature
FITS = ("ridge", "procrustes")
COMPATIBLE, UNDECIDED, NOT_COMPATIBLE, NOT_COMPARABLE = VERDICTS


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
    say: Callable[[str], None] = lambda line: None,
) -> CompatibilityCheck:
    """Return whether new queries do better against the old gallery than old ones, and what else would help.

    BCT's empirical criterion (Shen et al., CVPR 2020, arXiv 2003.11942) is new/old > old/old. Here the 95 %
    interval of the difference, over identities, must lie above zero to be called compatible and below it to
    be called not compatible; undecided where it holds zero, with fewer than six identities that ask or fewer
    than 40 draws. Features of unequal width have no cosine: they are not comparable as they are, and the
    tests are those of adapters of the gallery and of the queries.

    Every image is a gallery image, and a query that never meets itself; values and intervals are those of
    `evaluation.compare`. An adapter is fitted twice, and maps the half of the identities that it did not see.

    Args:
        old_features, new_features: real [N, d_old], [N', d_new], NumPy, torch or lists; rows of any length.
        labels, new_labels: whole numbers or names [N], [N']; one of them may be None.
        ids, new_ids: whole numbers or names of the images, each once; None: row i of both is the same image.
        metric: "tar@far=F", "map", "rank1" or "rank5". None: TAR at FAR 1e-3, or mAP with too few pairs.
        adapter: measure a ridge and a Procrustes adapter.
        queries: how many images ask, drawn at random. None: as many as make 10**8 pairs, and at least 2,000.
        draws, seed: bootstrap draws, and the seed of all that is drawn.
        say: receives a line before each step.

    Raises:
        ValueError: with a sentence for every input from which there is no answer.

    >>> old = [[1.0, 0.0], [0.5, 0.9], [0.0, 1.0], [0.9, 0.5]]
    >>> new = [[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]
    >>> result = check_compatibility(old, new, [0, 0, 1, 1], draws=0)
    >>> result.verdict, result.above  # two identities are no evidence
    ('undecided', True)
    """
    for name, value, least in (("queries", queries, 1), ("draws", draws, 0), ("seed", seed, 0)):
        if value is not None and value < least:
            raise ValueError(f"{name} is {value}; give a whole number of at least {least}")
    keys = {"new_labels": new_labels, "ids": ids, "new_ids": new_ids}
    sides = given.bring_together(old_features, new_features, labels, **keys)
    labels, asked = sides.labels, metric
    rows = given.choose_queries(labels, queries, seed)
    metric = given.choose_metric(asked, labels, rows)
    far = given.metric_far(metric)
    fars = FARS if far is None or far in FARS else (far, *FARS)
    units = given.choose_units(labels, rows, CELLS // max(draws, 1))
    weights = identity_weights(units, draws, seed)
    identities, images = (units[rows], units), (rows, np.arange(len(units)))
    tests, records = {}, Records()
    for names, query, gallery in _ways(sides, adapter, seed):
        say(f"{title(*names)}: {len(rows):,} queries, {len(units):,} gallery images")
        # Inside one set and model the order of the two does not matter.
        unordered = query is gallery and len(rows) == len(units)
        asking = query[torch.from_numpy(rows)]
        tests[names] = pair_test(asking, gallery, identities, images, fars, weights, unordered=unordered)
        records += tests[names].records.changed(query=names[0], gallery=names[1], adapter=names[2])
    records += [
        *_differences(records, "gain", ("old", "old")),
        *_differences(records, "over_swap", ("new", "old")),
        Record(None, None, f"chance/{metric}", chance(metric, labels, rows)),
    ]
    if sides.equal_widths:
        before, after = (tests[model, "old", None].retrieval for model in ("old", "new"))
        paired = given.choose_pairwise(labels, seed)
        pair = (side[torch.from_numpy(paired)] for side in (sides.before, sides.after))
        records += [
            *changes(before, after, labels[rows], draws=draws, seed=seed).records,
            *constraints(*pair, labels[paired], draws=draws, seed=seed).records,
            *_backfill(sides, rows, units, metric, tests, seed),
        ]
    sizes = np.bincount(labels)
    asking = int((sizes[np.unique(labels[rows])] > 1).sum())
    basis = {"images": len(labels), "identities": len(sizes), "queries": len(rows), "asking": asking}
    basis |= {"draws": draws, "seed": seed}
    verdict, reason = _decided(sides, records, metric, asking)
    notes = *sides.notes, *_cautions(sides, records, metric, asked, adapter, units is not labels)
    return CompatibilityCheck(verdict, reason, metric, records, notes, basis, tests)


def check_files(old: Path, new: Path, **options: Any) -> CompatibilityCheck:
    """The same of two files of features with labels and perhaps ids, which `files` and `notes` then tell of.

    Args, Raises:
        files as `read_features` reads them, and from metric to say the options of `check_compatibility`.
    """
    before, after = read_features(old), read_features(new)
    keys = {"new_labels": after.labels, "ids": before.ids, "new_ids": after.ids}
    result = check_compatibility(before.features, after.features, before.labels, **keys, **options)
    files = _file("old", before), _file("new", after)
    notes = [f"{files[n]['name']}: {note}" for n, one in enumerate((before, after)) for note in one.notes]
    return replace(result, notes=(*notes, *result.notes), files=files)


def _file(side: str, table: FeatureTable) -> dict[str, Any]:
    # Which file it was, whatever its name, which may hold bytes that are no text; or which parts.
    parts = sorted(path for path in table.path.rglob("*") if path.is_file()) or [table.path]
    name, digest, (rows, width) = os.fsencode(table.path.name), hashlib.sha256(), table.features.shape
    for part in parts:
        with part.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    size = {"rows": rows, "width": width, "bytes": sum(part.stat().st_size for part in parts)}
    return {"side": side, "name": name.decode("utf-8", "replace"), **size, "sha256": digest.hexdigest()}


def _ways(sides: given.Sides, adapter: bool, seed: int) -> Iterator[tuple[Names, Tensor, Tensor]]:
    """Names, query and gallery features of every test, one after the other: adapted features are large."""
    before, after = sides.before, sides.after
    yield ("old", "old", None), before, before
    if sides.equal_widths:
        yield ("new", "old", None), after, before
    for name in FITS if adapter else ():
        yield ("new", "old", name), after, mapped_by_the_other_half(name, before, after, sides.labels, seed)
    for name in FITS if adapter and not sides.equal_widths else ():
        mapped = mapped_by_the_other_half(name, after, before, sides.labels, seed)
        yield ("new", "old", f"{name}-query"), mapped, before
    yield ("new", "new", None), after, after


def mapped_by_the_other_half(
    name: str, source: Tensor, target: Tensor, labels: np.ndarray, seed: int
) -> Tensor:
    """The source in the target's space, each image mapped by the half that did not see its identity."""
    half = np.random.default_rng(seed).permutation(int(labels.max()) + 1)[labels] % 2
    rows = [torch.from_numpy(np.flatnonzero(half == side)).to(source.device) for side in (0, 1)]
    mapped = torch.empty_like(target)
    for seen, unseen in (rows, reversed(rows)):
        adapter = ADAPTERS[name](source[seen], target[seen])
        for part in unseen.split(given.BLOCK):
            mapped[part] = adapter.apply(source[part])
    return mapped


def _differences(records: Records, what: str, other: tuple[str, str]) -> Iterator[Record]:
    """Every test minus the test ``other``, draw by draw, under the metric's name after ``what``."""
    for one in records:
        reference = records.find(*other, one.metric)
        if reference is None or one is reference or (one.query, what) == ("old", "over_swap"):
            continue
        value = low = high = drawn = None
        if one.value is not None and reference.value is not None:
            drawn = one.draws - reference.draws
            options = {"draws_a": one.draws, "draws_b": reference.draws} if drawn.size else {}
            found = paired_comparison(one.value, reference.value, **options)
            value = found.value
            low, high = (found.low, found.high) if np.isfinite(found.low) else (None, None)
        yield replace(one, metric=f"{what}/{one.metric}", value=value, low=low, high=high, draws=drawn)


def _backfill(
    sides: given.Sides,
    rows: np.ndarray,
    units: np.ndarray,
    metric: str,
    tests: dict[Names, PairTest],
    seed: int,
) -> Iterator[Record]:
    """The metric while a random share of the gallery is re-embedded.

    A TAR needs no further search: of a random share s of the gallery, on average, s of every kind of pair are
    new/new and the rest new/old, so that the rates at a threshold are weighted means of those of both tests.
    """
    far, ids = given.metric_far(metric), {"query_ids": rows, "gallery_ids": np.arange(len(units))}
    cross, own = (tests["new", gallery, None] for gallery in ("old", "new"))
    shuffled = torch.from_numpy(np.random.default_rng(seed).permutation(len(units)))

    def above(kind: str) -> np.ndarray:  # from the highest threshold, which accepts nothing, to the lowest
        sides = [getattr(test.counts, kind)[::-1] for test in (cross, own)]
        rates = [np.cumsum(side) / side.sum() for side in sides]
        return np.r_[0.0, (1 - share) * rates[0] + share * rates[1]]

    for share in SHARES:
        if share in (0, 1):
            value = (own if share else cross).records.value(None, None, metric)
        elif far is not None:
            value = float(above("same")[np.searchsorted(above("different"), far, "right") - 1])
        else:
            gallery, new = sides.before.clone(), shuffled[: round(share * len(units))]
            gallery[new] = sides.after[new]
            pairs = PairScores(sides.after[torch.from_numpy(rows)], units[rows], gallery, units, **ids)
            found = rank(pairs, RANKS)
            value = found.map if metric == "map" else found.rank[int(metric.removeprefix("rank"))]
        yield Record("new", "mixed", metric, value, order="random", share=share)


def chance(name: str, labels: np.ndarray, queries: np.ndarray) -> float:
    """What a ranking at random gives on average, over the queries with a right answer."""
    if (far := given.metric_far(name)) is not None:
        return far
    others = len(labels) - 1  # the gallery without the query itself
    right = np.bincount(labels)[labels[queries]] - 1.0
    right = right[right > 0]
    if name == "map":
        # R right ones among n: H_n / n + (R - 1) / (n - 1) (1 - H_n / n), with the harmonic number H_n.
        first = float((1 / np.arange(1, others + 1)).sum()) / others
        return float((first + (right - 1) / max(others - 1, 1) * (1 - first)).mean())
    miss = np.ones_like(right)
    for k in range(min(int(name.removeprefix("rank")), others)):
        miss *= np.maximum(others - right - k, 0) / (others - k)
    return float((1 - miss).mean())


def _decided(sides: given.Sides, records: Records, metric: str, asking: int) -> tuple[str, str]:
    """The verdict and its reason, which ends a sentence."""
    widths = sides.before.shape[1], sides.after.shape[1]
    if not sides.equal_widths:
        mapped = [one for one in records.select(metric=metric) if one.adapter]
        best = max(mapped, key=lambda one: one.value, default=None)
        advice = f"train the new model with width {widths[0]}"
        if best is not None:
            enough = best.value >= records.value("old", "old", metric)
            named = title(best.query, best.gallery, best.adapter)
            maps = f"map one side to the other ({named}, reaches most), or " if enough else ""
            advice = maps + advice + ("" if enough else ": no linear map fitted here reaches old/old")
        return NOT_COMPARABLE, (
            f"the old features have {widths[0]} columns and the new ones {widths[1]}, so a new query has no "
            f"cosine with an old gallery image; {advice}"
        )
    blocks = zip(sides.before.split(given.BLOCK), sides.after.split(given.BLOCK), strict=True)
    if all(bool(((a - b).abs() <= SAME).all()) for a, b in blocks):
        return NOT_COMPATIBLE, "both sides hold the same features, so there is no upgrade to judge"
    gain = records.get("new", "old", f"gain/{metric}")
    if asking < DECIDING:
        return UNDECIDED, f"with {asking} identities that ask, fewer than {DECIDING}, all may move by chance"
    if np.isfinite(gain.draws).sum() < ENDS:
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


def _cautions(
    sides: given.Sides, records: Records, metric: str, asked: str | None, adapter: bool, grouped: bool
) -> list[str]:
    old, new = (records.get(model, model, metric) for model in ("old", "new"))
    by_chance = (old.value if old.low is None else old.low) <= records.value(None, None, f"chance/{metric}")
    fitted, width, name = (int(sides.labels.max()) + 1) // 2, sides.before.shape[1], metric_title(metric)
    too_few, perfect = asked is None and metric != HEADLINE, old.value == new.value == 1
    narrow, some = adapter and fitted < 2 * width, sides.equal_widths and len(sides.labels) > given.PAIRWISE
    cases = {
        f"Judged in {name}: there are too few pairs for {metric_title(HEADLINE)}.": too_few,
        "The old model is not clearly better than chance: do features and labels belong together?": by_chance,
        f"Both models are perfect in {name}; take harder images or a stricter metric to see a gain.": perfect,
        f"Adapters are fitted to {fitted:,} identities, for {width} coordinates: more may lift them.": narrow,
        "Identities without a query only count as impostors and are drawn in groups.": grouped,
        f"The constraints are counted between at most {given.PAIRWISE:,} images, drawn at random.": some,
    }
    return [note for note, holds in cases.items() if holds]
