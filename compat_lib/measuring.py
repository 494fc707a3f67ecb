"""What is measured: validation images in training, then an upgrade, and what needs no training of a network.

Maps are fitted on the training set, weights of interpolations chosen on the validation images, and all is
measured on the test images, which are queries and gallery here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compat_lib.adapters import Interpolation, fit_interpolation, fit_procrustes, fit_ridge
from compat_lib.config import ExperimentConfig
from compat_lib.data.images import Splits
from compat_lib.evaluation.backfill import QUARTERS
from compat_lib.evaluation.ceiling import ceiling
from compat_lib.evaluation.compatibility import tar_name
from compat_lib.evaluation.four_constraints import constraints
from compat_lib.evaluation.orders import margin
from compat_lib.evaluation.protocols.measure import measure_adapters, measure_protocol, one_test
from compat_lib.evaluation.rank_merge import merged_indexes_curve
from compat_lib.evaluation.records import Record, Records
from compat_lib.evaluation.tar import FARS, verification
from compat_lib.losses.base import CompatibilityLoss
from compat_lib.orthogonal_adapter import fit_orthogonal
from compat_lib.trained_model import TrainedModel, compared

MOST = 1000  # validation images that are looked at in training: enough for a curve, and much faster
Sides = tuple[Tensor, Tensor]  # features of the same images by the old and by the new model
Cross = tuple[Tensor, Tensor]  # query and gallery of a cross-test
Labelled = tuple[Tensor, Tensor, Tensor]  # the same, and the images' labels


@dataclass(frozen=True, eq=False)
class Adapted:
    """Both sides of a cross-test, in place of the features as they are."""

    query: Tensor  # float32 [N, d]
    gallery: Tensor  # float32 [N, d]
    alpha: float | None = None  # the weight of the new query, where it was chosen


def measure_upgrade(
    config: ExperimentConfig,
    data: Splits,
    old: TrainedModel,
    new: TrainedModel,
    train: Labelled | None = None,
) -> Records:
    """Every number of an upgrade: old/old, new/old and new/new, and the cross-test through adapters.

    Args:
        config: names the protocol and the bootstrap's draws.
        train: old and new features of the training images with their labels, by which maps are fitted for a
            model that was trained without the old one; None for any other method.
    """
    records, adapted, end = Records(), _adapted(data, old, new, train), 0
    for part, images in data.tests.items():
        rows = slice(end, end := end + len(images))
        own = {k: replace(a, query=a.query[rows], gallery=a.gallery[rows]) for k, a in adapted.items()}
        how = {"images": images, "lists": data.lists, "draws": config.bootstrap_draws}
        measured = _part(config.protocol, old.on(part), new.on(part), own, how)
        if train is not None:  # what needs no compatible model
            before, after = old.on(part).test, new.on(part).test
            measured += ceiling(config.protocol, before, images.labels, draws=config.bootstrap_draws)
            if config.protocol == "pairs":
                merged = merged_indexes_curve(before, after, images.labels, shares=QUARTERS, fars=())
                measured += merged.records.changed(adapter="rank-merge")
        records += measured.changed(part=part)
    return records


def measure_old(config: ExperimentConfig, data: Splits, old: TrainedModel) -> Records:
    """The old model's self-test on every test part; arguments as in `measure_upgrade`."""
    records = Records()
    for part, images in data.tests.items():
        test = (old.on(part).test, None, images, data.lists)
        found, _ = one_test(config.protocol, *test, draws=config.bootstrap_draws)
        records += found.changed(query="old", gallery="old", part=part)
    return records


def without_training(train: Labelled, val: Labelled, test: Sides) -> dict[str, Adapted]:
    """The rows of a new model that was trained without the old one, by the adapter's name.

    "ridge" and "procrustes" map the stored gallery to the new space, "ridge-query" and "procrustes-query" the
    queries to the old one. "procrustes-slerp" and "procrustes-midpoint" ask the stored gallery with old and
    rotated new query together, see `adapters.fit_interpolation`: the old model runs at query time.
    "lambda-orthogonal" maps both sides, "lambda-orthogonal-query" the queries alone, see
    `orthogonal_adapter.fit_orthogonal`. Maps are fitted on `train`, weights chosen on `val`.
    """
    (old, new), (*pairs, _) = test, train
    found = {}
    for name, fit in {"ridge": fit_ridge, "procrustes": fit_procrustes}.items():
        to_old = fit(*pairs[::-1])
        found[name] = Adapted(new, fit(*pairs).apply(old))
        found[f"{name}-query"] = Adapted(to_old.apply(new), old)
    for name, options in (("slerp", {}), ("midpoint", {"alphas": (0.5,)})):
        between = fit_interpolation(*val, rotation=to_old.matrix, **options)
        found[f"procrustes-{name}"] = _asked(between, test, chosen=not options)
    trained = fit_orthogonal(*train)
    query = trained.query(new)
    found["lambda-orthogonal"] = Adapted(query, trained.gallery(old))
    found["lambda-orthogonal-query"] = Adapted(query, trained.cut(old))
    return found


def with_old_query(val: Labelled, cross: Cross) -> dict[str, Adapted]:
    """A trained method's rows when the old model runs at query time beside the new one.

    "with-old-query" is the point between both queries at the weight that finds most of the validation images,
    "midpoint" the one half-way. Where the method transforms stored features, the old query takes the same
    way. `val` and `cross` hold the method's forms: gallery and query of the former, query and gallery of the
    latter, the test images.
    """
    options = {"with-old-query": {}, "midpoint": {"alphas": (0.5,)}}
    return {
        name: _asked(fit_interpolation(*val, compatible=True, **chosen), cross[::-1], chosen=not chosen)
        for name, chosen in options.items()
    }


def _asked(between: Interpolation, test: Sides, chosen: bool) -> Adapted:
    return Adapted(between.apply(*test), test[0], between.alpha if chosen else None)


def _part(
    protocol: str, old: TrainedModel, new: TrainedModel, adapted: dict[str, Adapted], how: dict[str, Any]
) -> Records:
    more = {"cross": new.cross, "certainty": _certainty(old), "learned": _learned(new, old)}
    records = measure_protocol(protocol, old.test, new.test, **more, **how)
    records += [
        Record("new", "old", "alpha", one.alpha, adapter=name)
        for name, one in adapted.items()
        if one.alpha is not None
    ]
    if adapted:
        forms = {name: (one.query, one.gallery) for name, one in adapted.items()}
        records += measure_adapters(protocol, old.test, forms, **how)
    return records


def _certainty(old: TrainedModel) -> np.ndarray | None:
    """How sure the old classifier is of each gallery image, for the order of backfill."""
    classifier, features = old.classifier, old.test
    if classifier is None or classifier.width != features.shape[1] or classifier.num_classes < 2:
        return None
    with torch.inference_mode():
        return margin(classifier.logits(features.to(classifier.weight.device)))


def _learned(new: TrainedModel, old: TrainedModel) -> np.ndarray | None:
    """The order of backfill that the method learnt, of the test images as a gallery."""
    with torch.inference_mode():
        order = new.method.backfill_order(old.test.to(new.classifier.weight.device))
    return None if order is None else order.cpu().numpy()


def _adapted(
    data: Splits, old: TrainedModel, new: TrainedModel, train: Labelled | None
) -> dict[str, Adapted]:
    """The adapters' rows of one test part after another."""
    if train is None and new.cross is None:
        return {}
    parts = [(old.on(part), new.on(part)) for part in data.tests]
    sides = [(before.test, after.test) if train is not None else after.cross for before, after in parts]
    test = tuple(torch.cat(side) for side in zip(*sides, strict=True))
    labels = data.val.labels
    if train is not None:
        return without_training(train, (old.val, new.val, labels), test)
    query, gallery = compared(new.method, new.val, old.val)
    return with_old_query((gallery, query, labels), test)


def whole_identities(labels: Tensor) -> Tensor:
    """Rows, int64, of identities with all their images, about MOST; two at least, those with pairs first.

    >>> labels = torch.tensor([0] + 4 * [1] + 996 * [2] + 2 * [3])
    >>> labels[whole_identities(labels)].unique().tolist()
    [1, 2]
    """
    images = torch.bincount(labels)
    order = (images < 2).long().argsort(stable=True)  # those without a pair last
    shown = order[images[order].cumsum(0) <= MOST]
    # Two at least: without pairs of different identities nothing can be measured.
    return torch.isin(labels, torch.cat([order[:2], shown])).nonzero()[:, 0]


def validate(
    method: CompatibilityLoss, features: Tensor, labels: Tensor, old: Tensor | None
) -> dict[str, float]:
    """Verification of new/new and new/old, and the shares of the four constraints that hold, by name.

    `features` float32 [N, d] are stored ones of the new model, which the method compares with `old` ones [N,
    d_o] of the same images; without these, of an old model's training, there is new/new alone.
    """
    values, tests = {}, {"new_new": verification(features, labels, fars=FARS[:2])}
    cross = None if old is None else compared(method, features, old)
    if cross is not None:
        ids = dict.fromkeys(("query_ids", "gallery_ids"), torch.arange(len(labels)))
        tests["new_old"] = verification(cross[0], labels, cross[1], labels, **ids, fars=FARS[:2])
    for pair, test in tests.items():
        values |= {f"{pair}/{tar_name(far)}": tar for far, tar in zip(test.fars, test.tar, strict=True)}
    if cross is not None:
        held = constraints(old, features, labels, cross=cross)
        values |= {f"constraint{k}/share": share for k, share in enumerate(held.share, start=1)}
    return values
