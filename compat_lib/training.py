"""The one training loop: the same for the old model, the oracle and every method."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from compat_lib import distributed
from compat_lib.checkpoint import Checkpoint, Interrupted, Progress, noted_sigterm
from compat_lib.config import WHERE
from compat_lib.data.augmentation import whole_pixels
from compat_lib.data.batches import Augmentation, Batches
from compat_lib.data.encoded import EncodedImages
from compat_lib.data.images import ImageSet, seeded_generator, torch_defaults
from compat_lib.files import map_rows, tensor_digest, write_rows
from compat_lib.finite import Watch
from compat_lib.losses.base import CompatibilityLoss, Step
from compat_lib.models import EmbeddingModel, autocast, embed, resolve_precision
from compat_lib.names import one_each
from compat_lib.old_system import ROWS_AT_ONCE, OldSystem, refuse_unlike, rows_of
from compat_lib.optimisation import InParts, TrainingSettings, build_optimiser, learning_rate
from compat_lib.user_arrays import numbers, refuse_outside


@torch_defaults()
def train(
    model: EmbeddingModel,
    method: CompatibilityLoss,
    images: Tensor | EncodedImages,
    labels: Tensor,
    settings: TrainingSettings,
    *,
    old: OldSystem | None = None,
    checkpoint: str | Path | None = None,
    made_of: Mapping[str, Any] | None = None,
    validate: Callable[[EmbeddingModel], dict[str, float]] | None = None,
    validate_every: int = 1,
    say: Callable[[str], None] = print,
) -> list[dict[str, float]]:
    """Train ``model`` in place by ``method`` and return its history, one dictionary an epoch.

    Everything random depends on (seed, epoch, step) alone, so a run that was killed continues from its last
    checkpoint and ends with the weights of one that was never killed. Under torchrun all processes call this
    with the same arguments, and each embeds its part of every batch, see `compat_lib.distributed`. Trainings
    in threads of one process would draw from each other's random numbers; `Experiment` lets them take turns.

    Args:
        model: the new model (or the old one: it is trained by ``independent``).
        method: the loss; its parameters (the classifier and whatever else it learns) are trained too.
        images: uint8 ``[N, C, H, W]``, or encoded, the training set in its order.
        labels: int64 ``[N]``, 0..C-1, of any framework.
        settings: schedule, augmentation, seed and device.
        old: the old system whose features belong to the rows of ``images``.
        checkpoint: a file written after each epoch, and within one as the settings ask, and read when it
            exists; None keeps nothing.
        made_of: digests of the training images and the like; a checkpoint of others is refused. None: digests
            of images, labels and old tensors, and what method and classifier hold in numbers and texts.
        validate: called with the model; its numbers join the history.
        validate_every: epochs between two calls; the last epoch is always looked at.
        say: receives one line an epoch when the run is not interactive.

    A loss term or gradient that is not finite is a NotFiniteError with its likely cause. SIGTERM raises
    Interrupted when the step, or what was done after the last, was finished and the checkpoint written.
    """
    one_each(labels, "labels", len(images), "images")
    labels = numbers("labels", labels, 1, whole=True)
    refuse_outside("labels", labels, 0, method.classifier.num_classes - 1)
    if old is not None:
        refuse_unlike(old, model, labels)
    if checkpoint is not None and made_of is None:
        made_of = _digests(images, labels, old, method)
    device = torch.device(settings.device)
    model.to(device)
    method.to(device)
    old_features = None if old is None else old.features
    if old_features is not None and old.mapped is None:  # else only a batch's rows come to the device
        old_features = old_features.to(device)
    asked = old is not None and "oracle" in method.needs
    oracle_features = old.oracle_features.to(device) if asked else None
    batches = Batches(
        images,
        labels,
        batch_size=settings.batch_size,
        seed=settings.seed,
        device=device,
        augmentation=Augmentation.of(settings),
        per_identity=settings.per_identity,
        workers=settings.workers,
        rank=distributed.rank(),
        world=distributed.world(),
    )
    if settings.compile:
        model.compile()
    network = InParts(model, settings.accumulate) if settings.accumulate > 1 else model
    network = distributed.parallel(network, device, settings.sync_batchnorm)
    classifier = method.classifier
    if 1 < distributed.world() <= classifier.num_classes and not method.whole_classifier:
        classifier.deal()
    optimiser = build_optimiser(model, method, settings)
    half = resolve_precision(device, settings.precision) == "float16"
    scaler = torch.amp.GradScaler(device.type, enabled=half)
    watch = Watch(settings.lr, device, skips=half)
    kept, at, parts = None, Progress(), {"model": model, "method": method}
    parts |= {"optimiser": optimiser, "scaler": scaler}
    if checkpoint is not None:
        made_of = asdict(settings) | {"method": method.name, **made_of}
        kept = Checkpoint(Path(checkpoint), {k: v for k, v in made_of.items() if k not in WHERE}, device)
        at = kept.read(parts)
    steps, done = settings.epochs * len(batches), len(at.history) * len(batches) + at.step
    if (settings.warmup_steps or 0) > steps:
        say(f"warmup_steps is {settings.warmup_steps}, and the training has {steps}: the rate stays below lr")
    bar = tqdm(total=steps, initial=done, disable=not _interactive(), unit="step", leave=False)

    def write() -> None:
        watch.look()
        if kept is not None:
            kept.write(parts, at)

    def embed_all() -> Tensor:
        at.images += len(images)
        how = {"device": device, "precision": settings.precision, "workers": settings.workers}
        return embed_together(model, images, **how)

    fork = torch.random.fork_rng([device] if device.type == "cuda" else [])  # the caller's draws go on
    plain = torch.autocast(device.type, enabled=False)  # also where the caller is inside it
    with fork, plain, _repeatable(device), bar, noted_sigterm() as sigterm:
        written = time.monotonic()
        for epoch in range(len(at.history), settings.epochs):
            began = _clocks(device)
            model.train()
            method.train()
            if at.step == 0:
                torch.manual_seed(seeded_generator(settings.seed, "epoch", epoch).initial_seed())
                method.start_epoch(epoch, settings.epochs, embed_all)
            for batch in batches.epoch(epoch, at.step):
                done = epoch * len(batches) + at.step
                generator = seeded_generator(settings.seed, "step", done)
                # What the network drops out differs between processes, and not after a resume.
                torch.manual_seed(generator.initial_seed() + distributed.rank())
                keep = method.rows_to_embed(batch.of_all, labels[batch.of_all], generator)
                own, counts = _dealt(keep)
                pixels = batch.pixels(own)
                refuse_few(method, min(counts or [len(pixels)]), len(batch.of_all), settings.accumulate)
                with autocast(device, settings.precision):
                    embeddings = network(pixels)
                rows = batch.of_all.to(device, non_blocking=True)
                known = None
                if old_features is not None:  # mapped ones are asked where they lie: no number comes back
                    asked = rows if old.mapped is None else batch.of_all
                    known = rows_of(old_features, asked).to(device, non_blocking=True)
                step = Step(
                    rows=rows,
                    labels=batches.labels[rows],
                    embeddings=distributed.gathered(embeddings.float(), counts),
                    embedded=keep,
                    old_features=known,
                    epoch=epoch,
                    epochs=settings.epochs,
                    batch=at.step,
                    batches=len(batches),
                    progress=done / steps,
                    generator=generator,
                    oracle_features=None if oracle_features is None else oracle_features[rows],
                )
                terms = method(step)  # compatibility enters here
                loss = sum(method.weights[name] * term for name, term in terms.items())
                optimiser.zero_grad()
                scaler.scale(loss).backward()
                distributed.average_gradients(method, classifier if classifier.dealt else None)
                scaler.unscale_(optimiser)
                norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
                watch.note(step, loss, terms, norm)
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate(settings, done, steps)
                scaler.step(optimiser)
                scaler.update()
                at.step, at.images = at.step + 1, at.images + len(step.embeddings)
                for name, term in {"total": loss, **terms}.items():
                    at.sums[name] = at.sums.get(name, 0.0) + term.detach()
                bar.update()
                late = time.monotonic() - written > 60 * settings.checkpoint_minutes > 0
                due = settings.checkpoint_steps and at.step % settings.checkpoint_steps == 0
                due, stop = distributed.any_process(bool(late or due), bool(sigterm))
                if stop or due and at.step < len(batches):
                    at.took, began = _elapsed(began, device, at.took), _clocks(device)
                    write()
                    written = time.monotonic()
                if stop:
                    say(f"stopped after epoch {epoch + 1}, step {at.step}; the same call goes on from there")
                    raise Interrupted
            # First what waits for the device: its time belongs to the epoch.
            losses = {f"loss/{name}": float(total) / len(batches) for name, total in at.sums.items()}
            row = {
                "epoch": epoch + 1,
                **_elapsed(began, device, at.took),
                "steps": len(batches),
                "lr": optimiser.param_groups[0]["lr"],
                "backbone_images": at.images,
                **losses,
            }
            if validate is not None and ((epoch + 1) % validate_every == 0 or epoch + 1 == settings.epochs):
                row |= {f"val/{name}": value for name, value in validate(model).items()}
            at = Progress([*at.history, row])
            write()
            written = time.monotonic()
            if bar.disable:
                say(epoch_line(row, settings.epochs))
            if distributed.any_process(bool(sigterm))[0]:  # while it looked at the validation images
                raise Interrupted
        if classifier.dealt:
            classifier.collect()
        torch.manual_seed(seeded_generator(settings.seed, "finish", settings.epochs).initial_seed())
        began = _clocks(device)
        method.finish(embed_all)
        at.history[-1] |= _elapsed(began, device, at.history[-1])
        at.history[-1]["backbone_images"] += at.images
        if distributed.any_process(bool(sigterm))[0]:
            raise Interrupted
    return at.history


def embed_together(
    model: nn.Module, images: Tensor | EncodedImages, out: Path | None = None, **how: Any
) -> Tensor:
    """What `embed` gives, in all processes, of which each embeds its share of the images."""
    if distributed.world() == 1:
        return embed(model, images, out=out, **how)
    distributed.same_buffers(model)
    mine = torch.arange(len(images))[distributed.share(len(images))]
    own = images.subset(mine) if isinstance(images, EncodedImages) else images[mine]
    if out is None:
        return distributed.gathered(embed(model, own, **how), distributed.shares(len(images)))
    files = [out.with_name(f"{out.stem}-{rank}.npy") for rank in range(distributed.world())]
    embed(model, own, out=files[distributed.rank()], **how)
    distributed.any_process(True)  # all have written theirs
    if distributed.rank() == 0:
        write_rows(out, len(images), (rows for file in files for rows in map_rows(file).split(ROWS_AT_ONCE)))
        for file in files:
            file.unlink()
    distributed.any_process(True)
    return map_rows(out)


def refuse_few(method: CompatibilityLoss, left: int, rows: int, parts: int) -> None:
    """Refuse that so few of a batch's rows go through the network, in so many parts."""
    if left < 2 * parts:
        raise ValueError(
            f"{method.title} leaves {left} of {rows} rows to the network, whose batch normalisation needs "
            f"two in each part of a batch (accumulate is {parts}): lower the share that it replaces"
        )


def _dealt(keep: Tensor | None) -> tuple[Tensor | None, list[int] | None]:
    """This process's part of which rows of a batch are embedded, and how many each process embeds."""
    if keep is None or distributed.world() == 1:
        return keep, None
    parts = keep.view(distributed.world(), -1)
    return parts[distributed.rank()], parts.sum(dim=1).tolist()


def epoch_line(row: dict[str, float], epochs: int) -> str:
    """One epoch of the history as one line of text, without the constraints: they are for pictures."""
    parts = [f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}", f"{row['seconds']:.1f} s"]
    for name, value in row.items():
        if name.startswith(("loss/", "val/")) and "val/constraint" not in name and value is not None:
            parts.append(f"{name.removeprefix('loss/')} {value:.3f}")
    return "  ".join(parts)


def _clocks(device: torch.device) -> dict[str, float]:
    """Wall time, and on the CPU the time of all its cores, which other work on the machine hardly moves."""
    clocks = {"seconds": time.perf_counter()}
    return clocks | ({"processor_seconds": time.process_time()} if device.type == "cpu" else {})


def _elapsed(began: dict[str, float], device: torch.device, before: dict[str, float]) -> dict[str, float]:
    return {name: now - began[name] + before.get(name, 0.0) for name, now in _clocks(device).items()}


def _interactive() -> bool:
    """Whether somebody watches: a terminal, or a notebook that is not executed in batch."""
    if os.environ.get("TQDM_DISABLE"):  # tqdm's own switch; the workflow sets it
        return False
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def _digests(
    images: Tensor | EncodedImages, labels: Tensor, old: OldSystem | None, method: CompatibilityLoss
) -> dict[str, Any]:
    """What a training is made of whose caller does not say it."""
    images = images if isinstance(images, EncodedImages) else whole_pixels(images)
    made_of = {"images": ImageSet(images, labels, ()).digest()}
    for name, value in ({} if old is None else vars(old)).items():
        if isinstance(value, Tensor) and not (name == "features" and old.mapped):
            made_of[f"old {name}"] = tensor_digest(value)
    for place, part in method.named_modules():  # an option is an attribute of one of them
        for name, value in vars(part).items():
            values = value.values() if isinstance(value, dict) else [value]
            plain = all(isinstance(one, str | int | float) for one in values)
            if plain and name[0] != "_" and name != "training":
                made_of[f"{place}.{name}".lstrip(".")] = repr(value)
    return made_of


@contextlib.contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    """Algorithms that repeat to the bit on CUDA; on the CPU equal thread counts already do."""
    if device.type != "cuda":
        yield
        return
    on = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(on, warn_only=warn_only)
