"""What is measured after the training: an upgrade by its protocol, and what adapters make of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from compat_lib.adapted import Adapted, Labelled, with_old_query, without_training
from compat_lib.config import ExperimentConfig
from compat_lib.data.images import ImageSet, Splits
from compat_lib.evaluation.ceiling import ceiling
from compat_lib.evaluation.orders import margin
from compat_lib.evaluation.protocols.measure import measure_adapters, measure_protocol, one_test
from compat_lib.evaluation.rank_merge import merged_indexes_curve
from compat_lib.evaluation.records import Record, Records
from compat_lib.evaluation.upgrade import QUARTERS
from compat_lib.trained_model import TrainedModel, compared


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
        data: its test parts are measured, weights of interpolations are chosen on its validation images.
        old, new: the models with their features of both.
        train: old and new features of the training images with their labels, by which maps are fitted for a
            model that was trained without the old one; None for any other method.
    """
    records, adapted, end = Records(), _adapted(data, old, new, train), 0
    for part, images in data.tests.items():
        rows = slice(end, end := end + len(images))
        own = {
            name: replace(one, query=one.query[rows], gallery=one.gallery[rows])
            for name, one in adapted.items()
        }
        measured = _part(config, images, data.lists, old.on(part), new.on(part), own)
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
        found = one_test(config.protocol, *test, draws=config.bootstrap_draws)
        records += found.changed(query="old", gallery="old", part=part)
    return records


def _part(
    config: ExperimentConfig,
    images: ImageSet,
    lists: dict[str, Tensor],
    old: TrainedModel,
    new: TrainedModel,
    adapted: dict[str, Adapted],
) -> Records:
    measured = {"images": images, "lists": lists, "draws": config.bootstrap_draws}
    records = measure_protocol(
        config.protocol,
        old.test,
        new.test,
        cross=new.cross,
        certainty=_certainty(old),
        learned=_learned(new, old),
        **measured,
    )
    records += [
        Record("new", "old", "alpha", one.alpha, adapter=name)
        for name, one in adapted.items()
        if one.alpha is not None
    ]
    if adapted:
        forms = {name: (one.query, one.gallery) for name, one in adapted.items()}
        records += measure_adapters(config.protocol, old.test, forms, **measured)
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
    """What the cross-test takes instead of the features as they are, one test part after another."""
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
