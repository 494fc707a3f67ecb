"""Is a new model compatible with the old one? Self-tests, cross-test, criterion, gain and AdvBCT's scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit
from torch import Tensor

from compat_lib.evaluation.bootstrap import (
    bootstrap_mean,
    bootstrap_tar,
    drawn_record,
    identity_weights,
    interval,
)
from compat_lib.evaluation.counting import Counts, count
from compat_lib.evaluation.inputs import UnitRows, codes, fractions
from compat_lib.evaluation.pairs import PairScores, SameImages
from compat_lib.evaluation.ranking import Retrieval, rank, scores
from compat_lib.evaluation.records import HEADLINES, PAIRS, Readable, Record, Records, tar_name
from compat_lib.evaluation.tar import FARS, Verification, verify
from compat_lib.names import one_each

RANKS = (1, 5)
HEADLINE = HEADLINES["pairs"]  # the metric of the criterion and of the update gain


@dataclass(frozen=True)
class Comparison(Readable):
    """All metrics of one old and one new model on one test set."""

    records: Records  # of old/old, new/old, new/new, with their draws; value None: not measurable


@dataclass(frozen=True)
class Queries:
    """Images that search a gallery of other images, as both models see them."""

    old: Any  # float [Nq, d_old], or None
    new: Any  # float [Nq, d_new]
    labels: Any  # whole numbers or names [Nq]
    ids: Any = None  # image ids [Nq]; None: no query stands in the gallery


def compare(
    old: Any,
    new: Any,
    labels: Any,
    *,
    queries: Queries | None = None,
    ids: Any = None,
    cross: tuple[Any, Any] | None = None,
    fars: Sequence[float] = FARS,
    draws: int = 200,
    seed: int = 0,
) -> Comparison:
    """Return verification and retrieval metrics of old/old, new/old and new/new with 95 % intervals.

    Without `queries`, one set of images is query set and gallery: old/old and new/new use unordered pairs and
    leave-one-out retrieval; new/old uses new queries against the old gallery without the pairs of the same
    image, in both orders. With `queries`, every query meets every gallery image but those with its own id.
    Memory does not grow with the number of pairs. In the bootstrap a drawn identity brings its queries, and
    for verification its gallery images too.

    Args:
        old, new: [N, d_old], or None, and [N, d_new] features of the same images.
        queries: the query images, where `old`, `new` and `labels` are those of the gallery alone.
        ids: image ids [N] of the gallery, given together with those of the queries.
        cross: [Nq, d] and [N, d], the query and the gallery side of new/old where these are not the new
            features of the queries and the old ones of the gallery, but transformed or cut or padded.

    Returns:
        records of "tar@far=1e-3" and so on, "map", "rank1" and "rank5". Their value is None where not
        measurable: a FAR below one impostor pair, old/old without old features, new/old without `cross` when
        there are no old features or the widths differ.

    Raises:
        ValueError: also for no genuine or no impostor pair, ids without queries, and equal ids with unequal
            labels.

    >>> points = [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]]
    >>> result = compare(points, points, [0, 0, 1, 1], fars=[0.5], draws=0)
    >>> len({one.value for one in result.records.select(metric="map")})  # the same for all three pairs
    1
    """
    fars = tuple(dict.fromkeys(fractions(fars, "a FAR")))
    old, new = _both(old, new, "")
    if queries is None:
        if ids is not None:
            raise ValueError("ids were given without queries: inside one set no image meets itself")
        query_old, query_new = old, new
        numbers = codes(labels, None, (len(new), 0), "labels")
        known, each = numbers[0], (np.arange(len(new)),) * 2
    else:
        query_old, query_new = _both(queries.old, queries.new, "query ")
        numbers = codes(queries.labels, labels, (len(query_new), len(new)), "labels")
        known, each = np.concatenate(numbers), (queries.ids, ids)
        if queries.ids is not None:
            _check_labels(each, numbers)
    weights = identity_weights(known, draws, seed)
    sides = dict(zip(PAIRS, ((query_old, old), (query_new, old), (query_new, new)), strict=True))
    if cross is not None:
        names = "cross-test's query", "cross-test's gallery"
        sides["new", "old"] = tuple(map(UnitRows, cross, names))
    records: list[Record] = []
    for pair, (query, gallery) in sides.items():
        there = query is not None and gallery is not None
        if there and (pair != ("new", "old") or cross is not None or query.shape[1] == gallery.shape[1]):
            # Inside one set and model the order of the two does not matter.
            unordered = queries is None and pair != ("new", "old")
            found = pair_test(query, gallery, numbers, each, fars, weights, unordered=unordered).records
        else:
            nothing = np.full(draws, np.nan)
            names = [*map(tar_name, fars), "map", *(f"rank{k}" for k in RANKS)]
            found = [Record(None, None, name, None, draws=nothing) for name in names]
        records += Records(found).changed(query=pair[0], gallery=pair[1])
    return Comparison(Records(records))


def _both(old: Any, new: Any, role: str) -> tuple[UnitRows | None, UnitRows]:
    new = UnitRows(new, f"new {role}".strip())
    old = None if old is None else UnitRows(old, f"old {role}".strip())
    if old is not None:
        one_each(old, f"old {role}features", len(new), "new ones")
    return old, new


def _check_labels(ids: tuple[Any, Any], numbers: tuple[np.ndarray, np.ndarray]) -> None:
    # The bootstrap takes excluded pairs for pairs of one identity.
    same = SameImages(*codes(*ids, [len(side) for side in numbers], "ids"))
    rows, columns = same.places(0, len(numbers[0]))
    wrong = int((numbers[0][rows] != numbers[1][columns]).sum())
    if wrong:
        raise ValueError(
            f"{wrong} pairs of a query and a gallery image have equal ids and unequal labels; an id names "
            "one image: check ids and labels"
        )


@dataclass(frozen=True, eq=False)
class PairTest:
    """One query model against one gallery model, with what the numbers were made from."""

    records: Records  # without names of models; with intervals and draws
    counts: Counts  # histogram of the cosines
    verification: Verification
    retrieval: Retrieval


def pair_test(
    query: UnitRows | Tensor,
    gallery: UnitRows | Tensor,
    identities: tuple[np.ndarray, np.ndarray],
    ids: tuple[Any, Any],
    fars: tuple[float, ...],
    weights: np.ndarray,
    *,
    unordered: bool,
) -> PairTest:
    """Return TAR at every FAR, mAP and rank-k of one query model against one gallery model.

    Args:
        query, gallery: unit rows [Nq, D], [Ng, D].
        identities: whole numbers from 0 of both sides, the rows of `weights` [identities, draws].
        ids: image ids of both sides, or (None, None).
        unordered: verify every unordered pair inside `query`, which is the gallery too.
    """
    queries = identities[0]
    ordered = PairScores(query, queries, gallery, identities[1], query_ids=ids[0], gallery_ids=ids[1])
    pairs = PairScores(query, queries) if unordered else ordered
    counts = count(pairs)
    verified = verify(pairs, counts, fars)
    retrieved = rank(ordered, RANKS)
    drawn = np.full((len(fars), weights.shape[1]), np.nan)
    if drawn.size:
        drawn = bootstrap_tar(pairs, counts, weights, fars)
        drawn[~np.array(verified.measurable)] = np.nan
    by_query = (bootstrap_mean(x, queries, weights[np.unique(queries)]) for x in scores(retrieved).values())
    values = verified.values | retrieved.values
    draws = (*drawn, *by_query)
    records = Records(drawn_record(*one) for one in zip(values, values.values(), draws, strict=True))
    return PairTest(records, counts, verified, retrieved)


def one_set_test(
    query: Any, gallery: Any, labels: Any, *, fars: Sequence[float] = FARS, draws: int = 200, seed: int = 0
) -> PairTest:
    """Return new/old, or new/new where the gallery is None, as `compare` has it inside one set of images.

    `query` and `gallery` are float [N, d] of the same images; the rest as in `compare`.
    """
    fars = tuple(dict.fromkeys(fractions(fars, "a FAR")))
    asking = UnitRows(query, "query")
    asked = asking if gallery is None else UnitRows(gallery, "gallery")
    numbers = codes(labels, None, (len(asking), 0), "labels")
    weights = identity_weights(numbers[0], draws, seed)
    each = (np.arange(len(asking)),) * 2
    return pair_test(asking, asked, numbers, each, fars, weights, unordered=gallery is None)


def criterion(records: Records, metric: str = HEADLINE) -> bool | None:
    """Return whether the new model is compatible: new/old strictly better than old/old.

    The empirical compatibility criterion of BCT (Shen et al., CVPR 2020, arXiv 2003.11942). None when either
    side was not measured (None or nan).

    >>> criterion(Records([Record("old", "old", "map", 0.5), Record("new", "old", "map", 0.6)]), "map")
    True
    """
    cross, bar = records.value("new", "old", metric), records.value("old", "old", metric)
    return None if _unknown(cross, bar) else cross > bar


def update_gain(cross: float | None, old_self: float | None, oracle_self: float | None) -> float | None:
    """Return the share of the possible gain that the upgrade brings without backfilling.

    (new/old - old/old) / (oracle - old/old), the oracle being the new model trained without compatibility.
    None when the oracle is not better than the old model, or a value was not measured (None or nan).

    >>> update_gain(0.75, 0.5, 1.0)
    0.5
    """
    if _unknown(cross, old_self, oracle_self) or not oracle_self > old_self:
        return None
    return (cross - old_self) / (oracle_self - old_self)


def _unknown(*values: float | None) -> bool:
    return any(value is None or value != value for value in values)  # nan differs from itself


def gain_interval(
    cross: np.ndarray, old_self: np.ndarray, oracle_self: np.ndarray
) -> tuple[float, float] | None:
    """Return the 95 % interval of the update gain from paired bootstrap draws.

    The draws, float64 [draws] of one metric, come from `compare` on the same labels with the same seed. None
    when the denominator is positive in fewer than 97.5 % of the draws: its own interval then holds zero.
    """
    cross, old_self, oracle_self = (np.asarray(x, np.float64) for x in (cross, old_self, oracle_self))
    room = oracle_self - old_self
    known = room > 0  # nan compares false
    if not len(known) or known.mean() < 0.975:
        return None
    return interval((cross - old_self)[known] / room[known])


def upgrade_scores(
    new_self: float | None, cross: float | None, old_self: float | None, oracle_self: float | None
) -> dict[str, float | None]:
    """Return AdvBCT's "p_up", "p_comp" and "p_1" in per cent; None where a value was not measured.

    Source: AdvBCT (arXiv 2305.02610); the definitions are inferred from its table of results, of which three
    blocks of four agree within 0.01 (its code does not hold them). With s the logistic function

    - P_up = s((new/new - oracle) / oracle): 50 where the compatible model is as good as the oracle;
    - P_comp = s(update gain), see `update_gain`: 50 where the cross-test is as good as the old system, 73.1
      where it is as good as the oracle;
    - P_1 = 2 P_up P_comp / (P_up + P_comp).

    The paper takes them in each data set and then the mean over the data sets.

    Args:
        new_self, cross, old_self, oracle_self: one metric of all four, as fractions or per cent.

    >>> upgrade_scores(0.8, 0.5, 0.5, 0.8)  # as good as the oracle, the cross-test as the old system
    {'p_up': 50.0, 'p_comp': 50.0, 'p_1': 50.0}
    """
    gain = update_gain(cross, old_self, oracle_self)
    known = not _unknown(new_self, oracle_self) and oracle_self
    change = (new_self - oracle_self) / oracle_self if known else None
    up, comp = (None if x is None else 100 * float(expit(x)) for x in (change, gain))
    one = None if up is None or comp is None or not up + comp else 2 * up * comp / (up + comp)
    return {"p_up": up, "p_comp": comp, "p_1": one}
