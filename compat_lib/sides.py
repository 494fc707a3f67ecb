"""One trained model, old or new: how it is compared, and its files in a run folder.

    keep_side(folder, model, method, history, features)    # when training is over
    side = read_side(folder, model, method, device="cpu")  # ever after, into freshly built parts

Files: ``model.safetensors`` (the network and all that its method learned), ``history.csv`` and, written last,
``features.safetensors``, whose presence says that training is over.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from compat_lib.losses.base import CompatibilityLoss
from compat_lib.losses.heads import Classifier
from compat_lib.models import EmbeddingModel
from compat_lib.runs import read_history, write_history

_FEATURES = "features.safetensors"


@dataclass(frozen=True)
class Side:
    """One trained model, old or new, with what the evaluation needs of it.

    Args:
        model: images to stored features, in evaluation mode: the network, then the method's head if any.
        method: the method that trained it, with the classifier and whatever else was learned.
        test: float32 ``[N_test, width]``, features of the test images, un-normalised.
        val: the same of the validation images.
        history: one dictionary an epoch.
        query: float32 ``[N_test, d]``, the test features as the cross-test takes them; None where the method
            gives no way to compare new features with old ones. None for an old model.
        gallery: float32 ``[N_test, d]``, the old test features as the cross-test takes them, likewise.
    """

    model: nn.Module
    method: CompatibilityLoss
    test: Tensor
    val: Tensor
    history: list[dict[str, float]]
    query: Tensor | None = None
    gallery: Tensor | None = None

    @property
    def classifier(self) -> Classifier:
        """The model's own classifier."""
        return self.method.classifier


def deployed(model: EmbeddingModel, method: CompatibilityLoss) -> nn.Module:
    """What maps images to stored features: the network, then the method's head if it has one."""
    return model if method.head is None else nn.Sequential(model, method.head)


def compared(method: CompatibilityLoss, new: Tensor, old: Tensor) -> tuple[Tensor, Tensor] | None:
    """New and old features as the cross-test takes them, by the method in evaluation mode.

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


def is_kept(folder: Path) -> bool:
    """Whether the training of this folder's model is over."""
    return (folder / _FEATURES).is_file()


def keep_side(
    folder: Path,
    model: EmbeddingModel,
    method: CompatibilityLoss,
    history: list[dict[str, float]],
    features: dict[str, Tensor],
) -> None:
    """Write a trained model's files.

    Args:
        folder: the run folder.
        features: ``test`` and ``val`` of a :class:`Side`, and ``query`` and ``gallery`` where there are any.
    """
    weights = {f"model.{name}": value for name, value in model.state_dict().items()}
    weights |= {f"method.{name}": value for name, value in method.state_dict().items()}
    write_history(folder / "history.csv", history)
    save_tensors(weights, folder / "model.safetensors")
    save_tensors(features, folder / _FEATURES)


def read_side(folder: Path, model: EmbeddingModel, method: CompatibilityLoss, device: str) -> Side:
    """What :func:`keep_side` wrote, read into freshly built parts, frozen and in evaluation mode.

    Raises:
        ValueError: the weights do not fit: another version of the package wrote them.
    """
    features = load_file(folder / _FEATURES)
    weights = load_file(folder / "model.safetensors")
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
    return Side(whole, method, **features, history=read_history(folder / "history.csv"))


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file beside its name, then rename it: a kill leaves no half file."""
    temporary = path.with_name(f".{path.name}")
    # Copies: two names of one tensor (query and test, say) are not allowed in such a file.
    copies = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in tensors.items()
    }
    save_file(copies, temporary, metadata)
    temporary.replace(path)
