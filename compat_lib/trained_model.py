"""A trained model in its run folder, old or new, with what the evaluation needs of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compat_lib.files import load_tensors, save_tensors, tensor_digest
from compat_lib.losses.base import CompatibilityLoss
from compat_lib.losses.heads import Classifier
from compat_lib.models import evaluating
from compat_lib.runs import ADVICE, read_history, refuse_changed, write_history

_FEATURES, _MODEL, _HISTORY = "features.safetensors", "model.safetensors", "history.csv"


@dataclass(frozen=True)
class TrainedModel:
    """One trained model, old or new; of an old side that is a file of features, these alone."""

    model: nn.Module | None  # images to stored features, in evaluation mode: with the method's head if any
    method: CompatibilityLoss | None  # with the classifier and whatever else was learned
    test: Tensor  # float32 [N_test, width], features of the test images, un-normalised
    val: Tensor  # the same of the validation images
    history: list[dict[str, float]]  # one dictionary an epoch
    # New and old test features as the cross-test takes them, float32 [N_test, d]; None for an old model, and
    # where the method gives no way to compare new features with old ones.
    query: Tensor | None = None
    gallery: Tensor | None = None
    others: dict[str, Tensor] = field(default_factory=dict)  # of other test parts, as `named`

    def on(self, part: str | None) -> TrainedModel:
        """The same model with the features of another test part as its test; None: this one."""
        if part is None:
            return self
        return replace(self, **{k: self.others.get(named(k, part)) for k in ("test", "query", "gallery")})

    @property
    def as_old(self) -> dict[str, str]:
        """What tells an old model from another one of the same configuration, as one trained elsewhere is."""
        return {"old model": tensor_digest(self.test)}

    @property
    def classifier(self) -> Classifier | None:
        """The model's own classifier."""
        return None if self.method is None else self.method.classifier

    @property
    def old_classifier(self) -> dict[str, Any]:
        """What `OldSystem.from_arrays` takes of the classifier, if there is one."""
        one = self.classifier
        if one is None:
            return {}
        return {
            "classifier_weight": one.weight.detach().cpu(),
            "classifier_bias": None if one.bias is None else one.bias.detach().cpu(),
            "classifier_scale": one.scale if one.kind in ("arcface", "cosface") else None,
        }

    @property
    def cross(self) -> tuple[Tensor, Tensor] | None:
        """(query, gallery) of the cross-test on the test images; None where there is no such test."""
        return None if self.query is None else (self.query, self.gallery)


def named(features: str, part: str | None) -> str:
    """The name in a run's file of features of a test part; None: the data set's test.

    >>> named("test", None), named("test", "in-domain")
    ('test', 'in-domain/test')
    """
    return f"{part}/{features}" if part else features


def is_trained(folder: Path) -> bool:
    """Whether the training of this folder's model is over."""
    return (folder / _FEATURES).is_file()


def keep_model(
    folder: Path,
    model: nn.Module | None,
    method: CompatibilityLoss | None,
    history: list[dict[str, float]],
    features: dict[str, Tensor],
    made_of: dict[str, str],
) -> None:
    """Write a trained model's files to its run folder, the features last.

    Args:
        features: the tensors of a `TrainedModel`, those of other test parts as `named`.
        made_of: digests of what it was trained and measured on, by name.
    """
    write_history(folder / _HISTORY, history)
    if model is not None:
        weights = {f"model.{name}": value for name, value in model.state_dict().items()}
        weights |= {f"method.{name}": value for name, value in method.state_dict().items()}
        save_tensors(weights, folder / _MODEL, advice=ADVICE)
    save_tensors(features, folder / _FEATURES, made_of, advice=ADVICE)


def read_model(
    folder: Path,
    model: nn.Module | None,
    method: CompatibilityLoss | None,
    device: str,
    made_of: dict[str, str],
    source: str = "",
) -> TrainedModel:
    """What :func:`keep_model` wrote, read into freshly built parts, frozen and in evaluation mode."""
    features, known = load_tensors(folder / _FEATURES)
    # A run of before this was kept does not say which old model it was trained by.
    refuse_changed(folder, {"old model": made_of.get("old model")} | known, made_of, source)
    kept = {name: features.pop(name) for name in [*features] if "/" not in name}
    kept |= {"others": features, "history": read_history(folder / _HISTORY)}
    if model is None:
        return TrainedModel(None, None, **kept)
    weights, _ = load_tensors(folder / _MODEL)
    for prefix, module in (("model.", model), ("method.", method)):
        state = {name.removeprefix(prefix): v for name, v in weights.items() if name.startswith(prefix)}
        try:
            module.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(
                f"the model in {folder} was written by another version of the package ({error}): delete "
                f"the folder to train it anew"
            ) from error
    whole = deployed(model, method).eval().requires_grad_(False).to(device)
    method.eval().requires_grad_(False)
    return TrainedModel(whole, method, **kept)


def deployed(model: nn.Module, method: CompatibilityLoss) -> nn.Module:
    """What maps images to stored features: the network, then the method's head if it has one."""
    return model if method.head is None else nn.Sequential(model, method.head)


def compared(method: CompatibilityLoss, new: Tensor, old: Tensor) -> tuple[Tensor, Tensor] | None:
    """(query, gallery): new and old features as the cross-test takes them, by the method in evaluation mode.

    Of stored features float32 ``[N, d_n]`` and ``[M, d_o]``, two float32 tensors of one width on the CPU;
    None where the method has no cross-test. The method keeps the mode that it was in.
    """
    device = method.classifier.weight.device
    with evaluating(method), torch.inference_mode():
        pair = method.comparable(new.to(device), old.to(device))
    return None if pair is None else tuple(side.float().cpu().contiguous() for side in pair)
