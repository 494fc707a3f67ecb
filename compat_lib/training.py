"""The one training loop: the same for the old model, the oracle and every method."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from compat_lib.checkpoint import Checkpoint
from compat_lib.data.batches import Augmentation, Batches
from compat_lib.data.encoded import EncodedImages
from compat_lib.data.images import seeded_generator
from compat_lib.losses.base import CompatibilityLoss, Step
from compat_lib.models import EmbeddingModel, autocast, embed
from compat_lib.old_system import OldSystem
from compat_lib.optimisation import TrainingSettings, build_optimiser, learning_rate


class NotFiniteError(RuntimeError):
    """A loss or a gradient stopped being a number; the sentence says where and the likely cause."""


def train(
    model: EmbeddingModel,
    method: CompatibilityLoss,
    images: Tensor | EncodedImages,
    labels: Tensor,
    settings: TrainingSettings,
    *,
    old: OldSystem | None = None,
    checkpoint: str | Path | None = None,
    made_of: Mapping[str, str] | None = None,
    validate: Callable[[EmbeddingModel], dict[str, float]] | None = None,
    validate_every: int = 1,
    say: Callable[[str], None] = print,
) -> list[dict[str, float]]:
    """Train ``model`` in place by ``method`` and return its history, one dictionary an epoch.

    Everything random depends on (seed, epoch, step) alone, so a run that was killed continues from
    its last finished epoch and ends with the weights of one that was never killed.

    Args:
        model: the new model (or the old one: it is trained by ``independent``).
        method: the loss; its parameters (the classifier and whatever else it learns) are trained too.
        images: uint8 ``[N, C, H, W]``, or encoded, the training set in its order.
        labels: int64 ``[N]``, 0..C-1.
        settings: schedule, augmentation, seed and device.
        old: the old system whose features belong to the rows of ``images``.
        checkpoint: a file written after each epoch and read when it exists; None keeps nothing.
        made_of: digests of the training images and the like; a checkpoint of others is refused.
        validate: called with the model; its numbers join the history.
        validate_every: epochs between two calls; the last epoch is always looked at.
        say: receives one line an epoch when the run is not interactive.

    Raises:
        NotFiniteError: a loss term or the gradient is not finite: epoch, term and likely cause.
        ValueError: the checkpoint belongs to other settings, or images and labels disagree.
    """
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} images and {len(labels)} labels: give one label an image")
    if old is not None and old.features is not None and len(old.features) != len(images):
        raise ValueError(
            f"the old system has features of {len(old.features)} rows, the training set has {len(images)}: "
            f"extract the old features on exactly this training set, in its order"
        )
    device = torch.device(settings.device)
    model.to(device)
    method.to(device)
    old_features = oracle_features = None
    if old is not None and old.features is not None:
        old_features = old.features.to(device)
    if old is not None and old.oracle_features is not None and "oracle" in method.needs:
        oracle_features = old.oracle_features.to(device)
    batches = Batches(
        images,
        labels,
        batch_size=settings.batch_size,
        seed=settings.seed,
        device=device,
        augmentation=Augmentation.of(settings),
        per_identity=settings.per_identity,
        workers=settings.workers,
    )
    optimiser = build_optimiser(model, method, settings)
    kept = None
    if checkpoint is not None:
        made_of = asdict(settings) | {"method": method.name} | dict(made_of or {})
        kept = Checkpoint(
            Path(checkpoint), {k: v for k, v in made_of.items() if k not in ("device", "workers")}, device
        )
    history = [] if kept is None else kept.read(model, method, optimiser)
    steps = settings.epochs * len(batches)
    bar = tqdm(
        total=steps, initial=len(history) * len(batches), disable=not _interactive(), unit="step", leave=False
    )
    embedded_images = 0

    def embed_all() -> Tensor:
        nonlocal embedded_images
        embedded_images += len(images)
        return embed(model, images, device=device, precision=settings.precision, workers=settings.workers)

    with _repeatable(device), bar:
        for epoch in range(len(history), settings.epochs):
            torch.manual_seed(seeded_generator(settings.seed, "epoch", epoch).initial_seed())
            sums: dict[str, Tensor] = {}
            embedded_images, began = 0, _clocks(device)
            model.train()
            method.train()
            method.start_epoch(epoch, settings.epochs, embed_all)
            for number, batch in enumerate(batches.epoch(epoch)):
                done = epoch * len(batches) + number
                generator = seeded_generator(settings.seed, "step", done)
                keep = method.rows_to_embed(batch.rows, batch.labels, generator)
                if keep is not None and int(keep.sum()) < 2:
                    raise ValueError(
                        f"{method.title} leaves {int(keep.sum())} of {len(keep)} rows to the network, whose "
                        f"batch normalisation needs two: lower the share that the method replaces"
                    )
                with autocast(device, settings.precision):
                    pixels = batch.pixels(keep)
                    embeddings = model(pixels)
                embeddings = embeddings.float()
                step = Step(
                    rows=batch.rows,
                    labels=batch.labels,
                    embeddings=embeddings,
                    embedded=keep,
                    old_features=None if old_features is None else old_features[batch.rows],
                    epoch=epoch,
                    epochs=settings.epochs,
                    batch=number,
                    batches=len(batches),
                    progress=done / steps,
                    generator=generator,
                    oracle_features=None if oracle_features is None else oracle_features[batch.rows],
                )
                terms = method(step)  # compatibility enters here
                loss = sum(method.weights[name] * term for name, term in terms.items())
                if not math.isfinite(loss.item()):
                    raise NotFiniteError(_cause(step, terms, settings))
                optimiser.zero_grad()
                loss.backward()
                norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
                if not math.isfinite(norm.item()):
                    raise NotFiniteError(
                        f"epoch {epoch + 1}, step {number + 1}: the loss is finite but its gradient is not "
                        f"(norm {norm.item()}); likely cause: a margin or a distance at its kink, or a "
                        f"learning rate of {settings.lr} that is too high"
                    )
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate(settings, done, steps)
                optimiser.step()
                embedded_images += len(embeddings)
                for name, term in {"total": loss, **terms}.items():
                    sums[name] = sums.get(name, 0.0) + term.detach()
                bar.update()
            row = {
                "epoch": epoch + 1,
                **_elapsed(began, device),
                "steps": len(batches),
                "lr": optimiser.param_groups[0]["lr"],
                "backbone_images": embedded_images,
                **{f"loss/{name}": float(total) / len(batches) for name, total in sums.items()},
            }
            if validate is not None and ((epoch + 1) % validate_every == 0 or epoch + 1 == settings.epochs):
                row |= {f"val/{name}": value for name, value in validate(model).items()}
            history.append(row)
            if kept is not None:
                kept.write(model, method, optimiser, history)
            if bar.disable:
                say(epoch_line(row, settings.epochs))
        torch.manual_seed(seeded_generator(settings.seed, "finish", settings.epochs).initial_seed())
        embedded_images, began = 0, _clocks(device)
        method.finish(embed_all)
        for name, took in _elapsed(began, device).items():
            history[-1][name] += took
        history[-1]["backbone_images"] += embedded_images
    return history


def epoch_line(row: dict[str, float], epochs: int) -> str:
    """One epoch of the history as one line of text, without the constraints: they are for pictures."""
    parts = [f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}", f"{row['seconds']:.1f} s"]
    for name, value in row.items():
        shown = name.startswith(("loss/", "val/")) and not name.startswith("val/constraint")
        if shown and value is not None:
            parts.append(f"{name.removeprefix('loss/')} {value:.3f}")
    return "  ".join(parts)


def _cause(step: Step, terms: dict[str, Tensor], settings: TrainingSettings) -> str:
    broken = [name for name, term in terms.items() if not math.isfinite(term.item())] or ["their sum"]
    if step.old_features is not None and not torch.isfinite(step.old_features).all():
        cause = "the old features hold values that are not finite: check the old system"
    elif not torch.isfinite(step.embeddings).all():
        cause = (
            f"the network itself diverged: lower the learning rate ({settings.lr}) or lengthen the warm-up"
        )
    else:
        cause = (
            "the embeddings are finite, so the term's own arithmetic overflowed: check its weight and scale"
        )
    return (
        f"epoch {step.epoch + 1}, step {step.batch + 1}: loss term {', '.join(broken)} is not finite; "
        f"likely cause: {cause}"
    )


def _clocks(device: torch.device) -> dict[str, float]:
    """Wall time, and on the CPU the time of all its cores, which other work on the machine hardly moves."""
    clocks = {"seconds": time.perf_counter()}
    return clocks | ({"processor_seconds": time.process_time()} if device.type == "cpu" else {})


def _elapsed(began: dict[str, float], device: torch.device) -> dict[str, float]:
    return {name: now - began[name] for name, now in _clocks(device).items()}


def _interactive() -> bool:
    """Whether somebody watches: a terminal, or a notebook that is not executed in batch."""
    if os.environ.get("TQDM_DISABLE"):  # tqdm's own switch; the workflow sets it
        return False
    return sys.stderr.isatty() or "ipykernel" in sys.modules


@contextlib.contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    """Algorithms that repeat to the bit on CUDA; on the CPU equal thread counts already do."""
    if device.type != "cuda":
        yield
        return
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
