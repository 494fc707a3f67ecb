"""What a configuration builds, and what it cannot: networks, classifiers, schedules, refusals."""

from __future__ import annotations

import math
import os
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from compat_lib.config import ExperimentConfig, project_path
from compat_lib.data import reader_of
from compat_lib.data.augmentation import Augmentation
from compat_lib.data.decoding import height_width
from compat_lib.data.images import DISTRACTOR, ImageSet, Splits
from compat_lib.evaluation.protocols.needs import refuse_protocol
from compat_lib.losses import build_method, find_method
from compat_lib.losses.heads import Classifier
from compat_lib.models import EmbeddingModel, build_model, refuse_model
from compat_lib.networks.backbones import digests
from compat_lib.old_system import OldSystem
from compat_lib.training import TrainingSettings, refuse_few


def network(config: ExperimentConfig, side: str, width: int, images: ImageSet) -> EmbeddingModel:
    """The "old" or "new" side's network for images like these, as its training starts."""
    return build_model(**_asked(config, side), width=width, channels=images.images.shape[1])


def _asked(config: ExperimentConfig, side: str) -> dict[str, Any]:
    parts = {"name": "backbone", "weights": "weights", "head": "head"}
    asked = {name: getattr(config, f"{side}_{part}") for name, part in parts.items()}
    return asked | {"size": config.size}


def network_made_of(config: ExperimentConfig, side: str) -> dict[str, str]:
    """What the "old" or "new" side's network is made of besides its name, see `backbones.digests`."""
    if side == "old" and config.old_features is not None:
        return {}
    asked = _asked(config, side)
    found = digests(asked["name"], asked["weights"])
    return {f"old {part}" if side == "old" else part: value for part, value in found.items()}


def classifier_of(
    config: ExperimentConfig, loss: str, width: int, classes: int, vertices: Tensor | None = None
) -> Classifier:
    """A fresh classifier with the configuration's scale, margin and smoothing.

    `vertices` int64 [classes] are the classes' numbers among all of the data set, which are their vertices of
    a simplex: both sides, and all generations, know a class by the same.
    """
    how = {"scale": config.scale, "margin": config.margin, "ramp": config.margin_ramp}
    how |= {"label_smoothing": config.label_smoothing, "sample": config.classifier_sample}
    kind = "linear" if loss == "softmax" else loss
    return Classifier(kind, width, classes, vertices=vertices, **how)


def settings_of(config: ExperimentConfig, epochs: int, lr: float, seed: int) -> TrainingSettings:
    """The schedule that every method shares."""
    shared = {item.name: getattr(config, item.name) for item in fields(TrainingSettings)}
    return TrainingSettings(**(shared | {"epochs": epochs, "lr": lr, "seed": seed}))


def refuse_impossible(config: ExperimentConfig) -> None:
    """Build everything once on a stand-in of two classes, so that what cannot work is refused at once."""
    cores = os.cpu_count() or 1
    if config.threads > cores:
        raise ValueError(
            f"threads is {config.threads}, but this machine has {cores} cores; choose 0 to {cores}"
        )
    try:
        device = torch.device(config.device)
        torch.empty(0, device=device).tolist()  # "meta" holds no numbers
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0]
        raise ValueError(
            f"device is {config.device!r}, which is not there ({why}); choose cpu, or cuda"
        ) from None
    with torch.random.fork_rng(devices=[]):  # looking leaves no trace
        _build_on_stand_in(config)


def _build_on_stand_in(config: ExperimentConfig) -> None:
    for prefix in ("", "old_") if config.old_dataset else ("",):
        name, options = (getattr(config, f"{prefix}{field}") for field in ("dataset", "dataset_options"))
        reader_of(name, options, config.stream)
    Augmentation.of(config).check(*height_width(config.size))
    width = find_method(config.method).model_width(config.old_width, config.new_width)
    known: dict[str, Any] = {}
    if config.old_features is None:
        refuse_model(**_asked(config, "old"), width=config.old_width)
        known = {"classifier_weight": torch.ones(2, config.old_width), "class_map": [0, 1]}
        known["model"] = nn.Identity()
    refuse_model(**_asked(config, "new"), width=width)
    rows = [0, 1] * config.batch_size  # so many that shares of them are those of a batch
    stand_in = OldSystem.from_arrays(torch.rand(len(rows), config.old_width), rows, **known)
    stand_in = stand_in.with_oracle(torch.rand(len(rows), config.new_width))
    classifier = classifier_of(config, config.new_loss, config.new_width, 2)
    method = build_method(
        config.method, stand_in, classifier, task_loss=config.task_loss, **config.method_options
    )
    left = math.ceil(method.embedded_share * config.batch_size - 1e-9)
    refuse_few(method, left, config.batch_size, config.accumulate)


def refuse_unmeasurable(config: ExperimentConfig, data: Splits) -> None:
    """Refuse data of which nothing could be measured, or that the simplex has no room for."""
    _refuse_lonely(data.val, "val", config)
    _refuse_few_vertices(config, data.train.num_classes)
    if config.protocol in ("pairs", "leave-one-out"):
        for part, images in data.tests.items():
            _refuse_lonely(images, part or "test", config)
        if "query" in data.test.extras and DISTRACTOR in data.test.classes:  # most of all pairs were theirs
            raise ValueError(
                f"the test part of {config.dataset} has distractors, of many people and of none, which "
                f"protocol {config.protocol!r} would take for one person: set protocol to reid"
            )
    refuse_protocol(config.protocol, data.name, data.test, data.lists)


def _refuse_few_vertices(config: ExperimentConfig, classes: int) -> None:
    """Refuse a simplex with fewer vertices than the data set has classes in training, and one of two sets."""
    for side in ("old", "new"):
        width = getattr(config, f"{side}_width")
        if getattr(config, f"{side}_loss") != "simplex":
            continue
        if config.old_dataset:
            raise ValueError(
                f"{side}_loss is 'simplex', whose vertices are the classes of one data set, but there is an "
                f"old_dataset, {config.old_dataset!r}: choose another {side}_loss"
            )
        if classes > width + 1:
            raise ValueError(
                f"{side}_loss is 'simplex' and {side}_width {width}, which has {width + 1} vertices for the "
                f"{classes} classes of {config.dataset} in training: set {side}_width to {classes - 1}"
            )


def _refuse_lonely(images: ImageSet, part: str, config: ExperimentConfig) -> None:
    """Refuse a part whose classes have one image each: there would be nothing to find."""
    if int(torch.bincount(images.labels).max()) < 2:
        where, path = "", config.dataset_options.get("path")
        if path is not None:
            apart = (project_path(path) / part).is_dir()
            where = f" ({path}/{part if apart else 'train, of which it is held out'})"
        raise ValueError(
            f"the {part} part of {config.dataset}{where} has no class with two images, so that nothing can "
            f"be found or verified in it: add images, or merge classes"
        )
