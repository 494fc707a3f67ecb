"""What a configuration builds, and what it cannot: networks, classifiers, schedules, refusals."""

from __future__ import annotations

import os
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from compat_lib.config import ExperimentConfig
from compat_lib.data.augmentation import Augmentation
from compat_lib.data.decoding import height_width
from compat_lib.data.images import DISTRACTOR, ImageSet
from compat_lib.losses import build_method, find_method
from compat_lib.losses.base import CompatibilityLoss
from compat_lib.losses.heads import Classifier
from compat_lib.models import EmbeddingModel, build_model, refuse_model
from compat_lib.networks.backbones import digests
from compat_lib.old_system import OldSystem
from compat_lib.training import TrainingSettings


def network(config: ExperimentConfig, side: str, width: int, images: ImageSet) -> EmbeddingModel:
    """The "old" or "new" side's network for images like these, as its training starts."""
    return build_model(**_asked(config, side), width=width, channels=images.images.shape[1])


def _asked(config: ExperimentConfig, side: str) -> dict[str, Any]:
    return {
        "name": getattr(config, f"{side}_backbone"),
        "weights": getattr(config, f"{side}_weights"),
        "head": getattr(config, f"{side}_head"),
        "size": config.size,
    }


def network_made_of(config: ExperimentConfig, side: str) -> dict[str, str]:
    """What the "old" or "new" side's network is made of besides its name, see `backbones.digests`."""
    if side == "old" and config.old_features is not None:
        return {}
    asked, prefix = _asked(config, side), "old " if side == "old" else ""
    return {f"{prefix}{part}": value for part, value in digests(asked["name"], asked["weights"]).items()}


def compared(method: CompatibilityLoss, new: Tensor, old: Tensor) -> tuple[Tensor, Tensor] | None:
    """(query, gallery): new and old features as the cross-test takes them, by the method in evaluation mode.

    Args:
        method: it keeps the mode that it was in.
        new: float32 ``[N, d_n]``, stored features of the new model.
        old: float32 ``[M, d_o]``, stored features of the old model.

    Returns:
        two float32 tensors of one width on the CPU; None where the method has no cross-test.
    """
    was_training, device = method.training, method.classifier.weight.device
    method.eval()
    with torch.inference_mode():
        pair = method.comparable(new.to(device), old.to(device))
    method.train(was_training)
    return None if pair is None else tuple(side.float().cpu().contiguous() for side in pair)


def classifier_of(
    config: ExperimentConfig, loss: str, width: int, classes: int, vertices: Tensor | None = None
) -> Classifier:
    """A fresh classifier with the configuration's scale, margin and smoothing.

    Args:
        vertices: int64 [classes], the class's number among all of the data set, which is its vertex of a
            simplex: both sides, and all generations, know a class by the same.
    """
    return Classifier(
        "linear" if loss == "softmax" else loss,
        width,
        classes,
        scale=config.scale,
        margin=config.margin,
        ramp=config.margin_ramp,
        label_smoothing=config.label_smoothing,
        sample=config.classifier_sample,
        vertices=vertices,
    )


def settings_of(config: ExperimentConfig, epochs: int, lr: float, seed: int) -> TrainingSettings:
    """The schedule that every method shares."""
    own = {"epochs": epochs, "lr": lr, "seed": seed}
    names = [item.name for item in fields(TrainingSettings) if item.name not in own]
    return TrainingSettings(**own, **{name: getattr(config, name) for name in names})


def task(config: ExperimentConfig) -> dict[str, Any]:
    """The task's recipe, which all methods share."""
    if config.task_loss == "none":
        return {}
    return {"task_loss": config.task_loss, "task_weight": config.task_weight}


def refuse_impossible(config: ExperimentConfig) -> None:
    """Build everything once on a stand-in of two classes, so that what cannot work is refused at once."""
    cores = os.cpu_count() or 1
    if config.threads > cores:
        raise ValueError(
            f"threads is {config.threads}, but this machine has {cores} cores; choose 0 to {cores}"
        )
    try:
        device = torch.device(config.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device is {config.device!r}, which is not there ({str(error).splitlines()[0]}); choose "
            f"cpu, or cuda"
        ) from None
    with torch.random.fork_rng(devices=[]):  # looking leaves no trace
        _build_on_stand_in(config)


def _build_on_stand_in(config: ExperimentConfig) -> None:
    Augmentation.of(config).check(*height_width(config.size))
    kind = find_method(config.method)
    new_width = kind.model_width(config.old_width, config.new_width)
    sides = {"old": config.old_width} if config.old_features is None else {}
    for side, width in (sides | {"new": new_width}).items():
        refuse_model(**_asked(config, side), width=width)
    left = {
        "classifier_weight": torch.ones(2, config.old_width),
        "class_map": torch.tensor([0, 1]),
        "model": nn.Identity(),
    }
    stand_in = OldSystem.from_arrays(
        torch.eye(4, config.old_width) + 0.5,
        torch.tensor([0, 0, 1, 1]),
        **(left if config.old_features is None else {}),
    ).with_oracle(torch.eye(4, config.new_width) + 0.5)
    classifier = classifier_of(config, config.new_loss, config.new_width, 2)
    build_method(config.method, stand_in, classifier, **task(config), **config.method_options)


def refuse_distractors(images: ImageSet, config: ExperimentConfig) -> None:
    """Refuse to take re-identification's distractors for one person: theirs would be most of all pairs."""
    if "query" in images.extras and DISTRACTOR in images.classes:
        raise ValueError(
            f"the test part of {config.dataset} has distractors, of many people and of none, which protocol "
            f"{config.protocol!r} would take for one person: set protocol to reid"
        )


def refuse_few_vertices(config: ExperimentConfig, classes: int) -> None:
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


def refuse_lonely(images: ImageSet, part: str, config: ExperimentConfig) -> None:
    """Refuse a part whose classes have one image each: there would be nothing to find."""
    if int(torch.bincount(images.labels).max()) < 2:
        where = f" ({config.dataset_options['path']}/{part})" if "path" in config.dataset_options else ""
        raise ValueError(
            f"the {part} part of {config.dataset}{where} has no class with two images, so that nothing can "
            f"be found or verified in it: add images, or merge classes"
        )
