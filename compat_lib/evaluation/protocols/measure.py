"""An experiment's test by the protocol that its configuration names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compat_lib.evaluation.backfill import (
    QUARTERS,
    BackfillCurve,
    backfill_orders,
    mixed_forms,
    mixed_gallery_curve,
)
from compat_lib.evaluation.bootstrap import bootstrap_mean, drawn_record, identity_weights
from compat_lib.evaluation.compatibility import one_set_test
from compat_lib.evaluation.four_constraints import constraints
from compat_lib.evaluation.orders import backfill_order
from compat_lib.evaluation.pairs import expand
from compat_lib.evaluation.protocols.landmarks import landmark_map, revisited
from compat_lib.evaluation.protocols.needs import JUDGED, Images, Lists, cameras, judged, query_rows
from compat_lib.evaluation.protocols.reid import Reid, reid, reid_of_rows
from compat_lib.evaluation.protocols.templates import measure_lists, pool_templates
from compat_lib.evaluation.ranking import Retrieval, retrieval, scores
from compat_lib.evaluation.records import PAIRS, Records
from compat_lib.evaluation.tar import FARS
from compat_lib.evaluation.upgrade import changes


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
    if protocol == "leave-one-out" and cross is None:
        width = min(old.shape[1], new.shape[1])
        cross = new[:, :width], old[:, :width]
    sides = dict(zip(PAIRS, ((old, None), cross, (new, None)), strict=True))
    tests = {
        pair: one_test(protocol, *side, images, lists, draws=draws) for pair, side in sides.items() if side
    }
    blank = tests["new", "new"][0].changed(value=None, low=None, high=None, draws=None)
    records = Records()
    for pair in PAIRS:
        found = tests[pair][0] if pair in tests else blank
        records += found.changed(query=pair[0], gallery=pair[1])
    before, after = (tests[pair][1] if pair in tests else None for pair in PAIRS[:2])
    if after is None:  # no cross-test, or no whole ranking
        return records
    changed = changes(before, after, _asking(protocol, images), draws=draws).records
    if protocol == "reid":
        return records + changed + mixed_reid(old, new, images, cross).records
    sides = (old, new, images.labels)
    if protocol == "leave-one-out":
        curve = mixed_gallery_curve(*sides, cross=cross, shares=QUARTERS, fars=())
        return records + changed + curve.records
    learnt = {} if learned is None else {"learned": learned}
    how = {"cross": cross, "draws": draws, "certainty": certainty, "orders": learnt}
    # The orders are compared at the same few shares, and by retrieval alone: half of the time.
    orders = backfill_orders(*sides, **how, shares=QUARTERS, fars=()).records
    known = {(one.metric, one.order, one.share) for one in orders}
    finer = mixed_gallery_curve(*sides, cross=cross, fars=FARS[:1]).records
    records += [one for one in finer if (one.metric, one.order, one.share) not in known]
    records += orders
    return records + constraints(*sides, cross=cross, draws=draws).records + changed


def one_test(
    protocol: str, query: Tensor, gallery: Tensor | None, images: Images, lists: Lists, *, draws: int = 200
) -> tuple[Records, Retrieval | None]:
    """Return one query model against one gallery model by a protocol, and their ranking where it is whole.

    The records have no names of models.

    Args:
        query, gallery: float [N, d] features of all test images as queries and as gallery items; gallery
            None: the self-test.
        protocol, images, lists, draws: as in `measure_protocol`.
    """
    if protocol == "pairs":
        test = one_set_test(query, gallery, images.labels, draws=draws)
        return test.records, test.retrieval
    gallery = query if gallery is None else gallery
    if protocol not in RANKED:
        return (_ijb if protocol == "ijb" else _landmarks)(query, gallery, images, lists, draws), None
    ranked = RANKED[protocol](query, gallery, images)
    values = scores(ranked, "rank" if protocol == "reid" else "top")
    values["map"] = values.pop("map")  # last
    if protocol == "reid":
        values["minp"] = ranked.inverse_negative_penalty
    return _means(values, _asking(protocol, images), draws), ranked


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
    records, before = Records(), None
    if protocol == "pairs" or protocol in RANKED:
        before = RANKED.get(protocol, RANKED["leave-one-out"])(old, old, images)
    for adapter, sides in forms.items():
        found, after = one_test(protocol, *sides, images, lists, draws=draws)
        if before is not None:
            flips = changes(before, after, _asking(protocol, images), draws=draws).records
            found += [one for one in flips if one.metric.endswith("_flips")]
        records += found.changed(query="new", gallery="old", adapter=adapter)
    return records


def _reid(query: Tensor, gallery: Tensor, images: Images) -> Reid:
    asked, camera = query_rows(images), cameras(images)
    sides = ((query, asked), (gallery, ~asked))
    query, gallery = ((side[rows], images.labels[rows], camera[rows]) for side, rows in sides)
    return reid(*query, *gallery)


def _leave_one_out(query: Tensor, gallery: Tensor, images: Images) -> Retrieval:
    """A validation set as query and gallery at once, no image compared with itself.

    Source: the ImageNet and Places protocol of openBCT (BCT, arXiv 2003.11942), FCT (arXiv 2112.02805) and
    BT2 (arXiv 2211.03989), which cuts unequal widths to the first min(d), before rows are normalised. The
    order by cosine is theirs by the L2 distance of normalised rows; FCT's "cosine" divides by the L1 norm and
    is not offered.
    """
    width, own = min(query.shape[1], gallery.shape[1]), np.arange(len(query))
    sides = (query[:, :width], images.labels, gallery[:, :width], images.labels)
    return retrieval(*sides, query_ids=own, gallery_ids=own)


RANKED = {"leave-one-out": _leave_one_out, "reid": _reid}  # whole rankings, query by query


def _asking(protocol: str, images: Images) -> Tensor:
    """The labels of the queries."""
    return images.labels[query_rows(images)] if protocol == "reid" else images.labels


def mixed_reid(
    old: Tensor, new: Tensor, images: Images, cross: tuple[Tensor, Tensor], shares: Sequence[float] = QUARTERS
) -> BackfillCurve:
    """Return "map", "rank1" and "minp" of new queries while a share of the gallery holds new features.

    TEST.OLDRATE of Dual-Tuning's code is 100 (1 - share); which images are new is drawn image by image with
    a seed, where that takes whole batches. Arguments as in `measure_protocol`.
    """
    asked = query_rows(images)
    sides = (cross[0][asked], cross[1][~asked])
    queries, before, after = mixed_forms(old[~asked], new[~asked], new[asked], sides)
    people, seen_by = ((side[asked], side[~asked]) for side in (images.labels, cameras(images)))
    places = torch.from_numpy(backfill_order(old[~asked], people[1], seed=0)).to(after.device)

    points, precision = [], []
    for share in shares:
        gallery, new_rows = before.clone(), places[: round(share * len(after))]
        gallery[new_rows] = after[new_rows]
        found = reid_of_rows(queries, gallery, people, seen_by)
        points.append({"map": found.map, "rank1": found.rank[1], "minp": found.minp})
        precision.append(found.average_precision)
    return BackfillCurve(tuple(shares), tuple(points), "random", np.stack(precision))


def _ijb(query: Tensor, gallery: Tensor, images: Images, lists: Lists, draws: int) -> Records:
    extras = images.extras
    pooling = extras["template"], extras["media"], extras.get("detector")
    probe, enrolled = (pool_templates(side, *pooling) for side in (query, gallery))
    return measure_lists(enrolled, probe, lists)


def _landmarks(query: Tensor, gallery: Tensor, images: Images, lists: Lists, draws: int) -> Records:
    asked = query_rows(images)
    sides, labels = (query[asked], gallery[~asked]), images.labels[asked]
    if "easy" in lists:
        return _means(revisited(*sides, *(judged(lists, name, images) for name in JUDGED)), labels, draws)
    if "relevant" not in lists:
        lists = {"relevant": same_class(images)}
    found = landmark_map(*sides, judged(lists, "relevant", images), k=min(100, int((~asked).sum())))
    return _means({"map": found}, labels, draws)


def same_class(images: Images) -> Tensor:
    """Return int64 [n, 2] rows (query, gallery item) of one class: what is relevant where no list says it."""
    asked = query_rows(images)
    rows, items = asked.nonzero()[:, 0], (~asked).nonzero()[:, 0]
    items = items[images.labels[items].argsort(stable=True)]
    known = images.labels[items].contiguous()
    start, stop = (torch.searchsorted(known, images.labels[rows], right=side) for side in (False, True))
    asking, found = expand(start.numpy(), stop.numpy())
    return torch.stack([rows[asking], items[found]], 1)


def _means(values: Mapping[str, np.ndarray], labels: Tensor, draws: int) -> Records:
    """The mean over the queries that count, with its interval over identities."""
    weights = identity_weights(labels, draws)
    means = {n: float(np.nanmean(v)) if np.isfinite(v).any() else None for n, v in values.items()}
    return Records(drawn_record(n, means[n], bootstrap_mean(v, labels, weights)) for n, v in values.items())
