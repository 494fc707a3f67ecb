"""An experiment's test by the protocol that its configuration names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compat_lib.evaluation.backfill import BackfillCurve, mixed_forms, mixed_gallery_curve
from compat_lib.evaluation.bootstrap import bootstrap_mean, identity_weights, interval
from compat_lib.evaluation.compatibility import compare, cross_test
from compat_lib.evaluation.orders import backfill_order
from compat_lib.evaluation.protocols.identification import identification
from compat_lib.evaluation.protocols.landmarks import landmark_map, revisited
from compat_lib.evaluation.protocols.leave_one_out import leave_one_out
from compat_lib.evaluation.protocols.needs import Images, Lists, cameras, query_rows
from compat_lib.evaluation.protocols.reid import Reid, reid
from compat_lib.evaluation.protocols.roc import pair_list_scores, tar_at_far
from compat_lib.evaluation.protocols.templates import Templates, image_features, pool_templates
from compat_lib.evaluation.ranking import Retrieval, retrieval
from compat_lib.evaluation.records import PAIRS, Record, Records
from compat_lib.evaluation.tar import FARS
from compat_lib.evaluation.upgrade import QUARTERS, changes, measure

RANKS = (1, 5, 10)
JUDGED = ("easy", "hard", "junk")  # lists of Revisited Oxford and Paris


def measure_protocol(
    protocol: str,
    old: Tensor,
    new: Tensor,
    images: Images,
    lists: Lists,
    *,
    cross: tuple[Tensor, Tensor] | None,
    certainty: Any = None,
    learned: Any = None,
    draws: int = 200,
) -> Records:
    """Return every number of an upgrade by a protocol: of old/old, new/old and new/new.

    Args:
        protocol: "pairs", "ijb", "reid", "leave-one-out" or "landmarks".
        old, new: float [N, d_old], [N, d_new] features of the test images.
        images: the test images; their labels and extras are read, no pixel is.
        lists: those of the data set.
        cross: (new features as queries, old ones as the gallery) as the method compares them; None where it
            cannot. Leave-one-out then cuts both to the first min(d_old, d_new) coordinates, as BT2 does;
            elsewhere new/old has the value None.
        certainty: [N], how sure the old classifier is of each image, for the order of backfill, or None.
        learned: all rows in an order of backfill that the method learnt, or None; of "pairs".
        draws: bootstrap draws over identities; IJB has no intervals.

    Returns:
        records of the protocol's metrics; "pairs", "reid" and "leave-one-out" also the mixed gallery and who
        gets worse, where there is a cross-test.
    """
    if protocol == "pairs":
        orders = {"certainty": certainty, "learned": learned}
        return measure(old, new, images.labels, cross=cross, draws=draws, **orders)
    if protocol == "leave-one-out" and cross is None:
        width = min(old.shape[1], new.shape[1])
        cross = new[:, :width], old[:, :width]
    sides = dict(zip(PAIRS, ((old, old), cross, (new, new)), strict=True))
    ranked, found = {}, {}
    for pair, side in sides.items():
        if side is not None and protocol in RANKED:
            ranked[pair] = RANKED[protocol](*side, images)
            found[pair] = _ranked_records(ranked[pair], _asking(protocol, images), draws)
        elif side is not None:
            found[pair] = one_test(protocol, *side, images, lists, draws=draws)
    blank = found["new", "new"].changed(value=None, low=None, high=None, draws=None)
    records = Records()
    for query, gallery in PAIRS:
        records += found.get((query, gallery), blank).changed(query=query, gallery=gallery)
    if protocol not in RANKED or cross is None:
        return records
    before, after = (ranked[pair] for pair in PAIRS[:2])
    records += changes(before, after, _asking(protocol, images), draws=draws).records
    if protocol == "reid":
        return records + mixed_reid(old, new, images, cross).records
    curve = mixed_gallery_curve(old, new, images.labels, cross=cross, shares=QUARTERS, fars=())
    return records + curve.records


def one_test(
    protocol: str,
    query: Tensor,
    gallery: Tensor | None,
    images: Images,
    lists: Lists,
    *,
    draws: int = 200,
) -> Records:
    """Return one query model against one gallery model by a protocol, without names of models.

    Args:
        query, gallery: float [N, d] features of all test images as queries and as gallery items; gallery None
            or the same tensor: the self-test.
        protocol, images, lists, draws: as in `measure_protocol`.
    """
    gallery = query if gallery is None else gallery
    if protocol == "pairs":
        if gallery is not query:
            return cross_test(query, gallery, images.labels, draws=draws).records
        found = compare(None, query, images.labels, fars=FARS, draws=draws).records
        return found.select(query="new", gallery="new").changed(query=None, gallery=None)
    if protocol in RANKED:
        return _ranked_records(RANKED[protocol](query, gallery, images), _asking(protocol, images), draws)
    return (_ijb if protocol == "ijb" else _landmarks)(query, gallery, images, lists, draws)


def measure_adapters(
    protocol: str,
    old: Tensor,
    forms: Mapping[str, tuple[Tensor, Tensor]],
    images: Images,
    lists: Lists,
    *,
    draws: int = 200,
) -> Records:
    """Return new/old through each adapter, and by how many queries it is worse than old/old.

    Args:
        old: float [N, d_old] old features of the test images.
        forms: adapter -> (queries [N, d], gallery [N, d]) as they meet.
        protocol, images, lists, draws: as in `measure_protocol`; flips are of "pairs" and whole rankings.
    """
    asking, records, before = _asking(protocol, images), Records(), None
    if protocol == "pairs":
        ids = dict.fromkeys(("query_ids", "gallery_ids"), np.arange(len(old)))
        before = retrieval(old, images.labels, old, images.labels, **ids)
    elif protocol in RANKED:
        before = RANKED[protocol](old, old, images)
    for adapter, (query, gallery) in forms.items():
        if protocol == "pairs":
            test = cross_test(query, gallery, images.labels, draws=draws)
            found, after = test.records, test.retrieval
        elif before is not None:
            after = RANKED[protocol](query, gallery, images)
            found = _ranked_records(after, asking, draws)
        else:
            found = one_test(protocol, query, gallery, images, lists, draws=draws)
        if before is not None:
            flips = changes(before, after, asking, draws=draws).records
            found += [one for one in flips if one.metric.endswith("_flips")]
        records += found.changed(query="new", gallery="old", adapter=adapter)
    return records


def _leave_one_out(query: Tensor, gallery: Tensor, images: Images) -> Retrieval:
    return leave_one_out(query, images.labels, gallery, cut=True)


def _reid(query: Tensor, gallery: Tensor, images: Images) -> Reid:
    asked, camera = query_rows(images), cameras(images)
    sides = ((query, asked), (gallery, ~asked))
    query, gallery = ((side[rows], images.labels[rows], camera[rows]) for side, rows in sides)
    return reid(*query, *gallery, ranks=RANKS, fars=(), junk=())


RANKED = {"leave-one-out": _leave_one_out, "reid": _reid}  # whole rankings, query by query


def _asking(protocol: str, images: Images) -> Tensor:
    """The labels of the queries."""
    return images.labels[query_rows(images)] if protocol == "reid" else images.labels


def _ranked_records(found: Retrieval | Reid, labels: Tensor, draws: int) -> Records:
    first, name = found.first_match, "rank" if isinstance(found, Reid) else "top"
    values = {f"{name}{k}": np.where(first > 0, first <= k, np.nan) for k in found.rank}
    values["map"] = found.average_precision
    if isinstance(found, Reid):
        values["minp"] = found.inverse_negative_penalty
    return _means(values, labels, draws)


def mixed_reid(
    old: Tensor,
    new: Tensor,
    images: Images,
    cross: tuple[Tensor, Tensor],
    shares: Sequence[float] = QUARTERS,
) -> BackfillCurve:
    """Return "map", "rank1" and "minp" of new queries while a share of the gallery holds new features.

    TEST.OLDRATE of Dual-Tuning's code is 100 (1 - share); which images are new is drawn image by image with
    a seed, where that takes whole batches. Arguments as in `measure_protocol`.
    """
    asked = query_rows(images)
    sides = (cross[0][asked], cross[1][~asked])
    queries, before, after = mixed_forms(old[~asked], new[~asked], new[asked], sides)
    places = backfill_order(old[~asked], images.labels[~asked], "random", seed=0)
    points, precision = [], []
    for share in shares:
        rows = torch.from_numpy(places[: round(share * len(before))])
        mixed = before.clone()
        mixed[rows] = after[rows]
        features = mixed.new_zeros(len(asked), mixed.shape[1])
        features[asked], features[~asked] = queries, mixed
        found = _reid(features, features, images)
        points.append({"map": found.map, "rank1": found.rank[1], "minp": found.minp})
        precision.append(found.average_precision)
    return BackfillCurve(tuple(shares), tuple(points), "random", np.stack(precision))


def _ijb(query: Tensor, gallery: Tensor, images: Images, lists: Lists, draws: int) -> Records:
    probe, enrolled = _pooled(query, images), _pooled(gallery, images)
    first, second, same = lists["pairs"].numpy().T
    found = tar_at_far(pair_list_scores(enrolled, probe, first, second), same, reading="nearest").records
    if "probes" in lists:
        names = ("gallery1", "gallery2", "probes")
        known = [tuple(lists[name].numpy().T) for name in names]
        found += identification(enrolled, probe, *known).records
    return found


def _pooled(features: Tensor, images: Images) -> Templates:
    weighted = image_features(features, None, images.extras.get("detector"))
    return pool_templates(weighted, images.extras["template"].numpy(), images.extras["media"].numpy())


def _landmarks(query: Tensor, gallery: Tensor, images: Images, lists: Lists, draws: int) -> Records:
    asked = query_rows(images)
    sides, labels = (query[asked], gallery[~asked]), images.labels[asked]
    if "easy" in lists:
        found = revisited(*sides, *(_judged(lists[name], asked) for name in JUDGED))
        kinds = {"map": found.medium, "easy/map": found.easy, "hard/map": found.hard}
        return _means({name: one.average_precision for name, one in kinds.items()}, labels, draws)
    relevant = lists["relevant"] if "relevant" in lists else same_class(images)
    found = landmark_map(*sides, _judged(relevant, asked), k=min(100, int((~asked).sum())))
    return _means({"map": found.average_precision}, labels, draws)


def _judged(pairs: Tensor, asked: Tensor) -> list[np.ndarray]:
    """Gallery rows of each query, from int64 [n, 2] rows (query, gallery item) of the test set."""
    place = torch.where(asked, asked.cumsum(0), (~asked).cumsum(0)) - 1  # among the queries, or the gallery
    queries, items = place[pairs.long()].numpy().reshape(-1, 2).T
    order = np.argsort(queries, kind="stable")
    ends = np.cumsum(np.bincount(queries, minlength=int(asked.sum())))
    return np.split(items[order], ends[:-1])


def same_class(images: Images) -> Tensor:
    """Return int64 [n, 2] rows (query, gallery item) of one class: what is relevant where no list says it."""
    asked = query_rows(images)
    rows, items = asked.nonzero()[:, 0], (~asked).nonzero()[:, 0]
    items = items[images.labels[items].argsort(stable=True)]
    known = images.labels[items].contiguous()
    start, stop = (torch.searchsorted(known, images.labels[rows], right=side) for side in (False, True))
    found = [
        torch.stack([row.expand(b - a), items[a:b]], 1) for row, a, b in zip(rows, start, stop, strict=True)
    ]
    return torch.cat(found)


def _means(values: Mapping[str, np.ndarray], labels: Tensor, draws: int) -> Records:
    """The mean over the queries that count, with its interval over identities."""
    weights = identity_weights(labels, draws)
    records = []
    for name, value in values.items():
        drawn = bootstrap_mean(value, labels, weights)
        mean = float(np.nanmean(value)) if np.isfinite(value).any() else None
        records.append(Record(None, None, name, mean, *(interval(drawn) or (None, None)), draws=drawn))
    return Records(records)
