"""What a training step of each method costs, relative to training without compatibility.

Every registered method trains the new model of the quick preset (resnet-small, width 64, batches of 256
random images of 32 pixels, ArcFace over 420 classes) in the shipped loop, and the loop's own history gives
the time. The methods take turns epoch by epoch, each continuing from its checkpoint and each turn beginning
with another one, so that whatever else the machine does meets all alike. An epoch is compared with the
oracle's in the same turn, and the median over the turns is shown, with the range of their middle half:
it is wide where others use the machine as well, and more rounds help. The first two turns only warm up.

What a method computes before an epoch is timed apart: UniBCT refines its prototypes before 2 of 20 epochs,
and each time embeds the whole training set. These seconds are spread over all steps of the schedule and added
to the median, so that the ratio is that of the whole training; what they add stands beside it. The number
of epochs is therefore best left at 20; the number of steps in an epoch hardly matters, because both grow with
the training set. What a method fits once after the training (FCT) has a column of its own.

Last, what the loop itself costs: the throughput of the oracle's training as a share of that of the same
network's bare forward and backward, on pixels that lie on the device. On a GPU 0.9 is the goal, and 0.75 of
the oracle's time for MixBCT; neither has been measured there yet.

    python benchmarks/training_overhead.py
    python benchmarks/training_overhead.py --device cuda --network resnet50 --size 224
    python benchmarks/training_overhead.py --methods bct nccl --rounds 3 --threads 1
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch

from compat_lib.data.augmentation import to_float
from compat_lib.losses import METHODS, Classifier, build_method
from compat_lib.losses.base import CompatibilityLoss
from compat_lib.models import EmbeddingModel, autocast, build_model
from compat_lib.old_system import OldSystem
from compat_lib.training import TrainingSettings, train

BASE = "independent"  # the oracle's training
CLOCKS = {"seconds": time.perf_counter, "processor_seconds": time.process_time}  # as the history names them
WARM = 2  # turns that are not counted
LIMITS = {"mixbct": 0.80, "nccl": 1.75}  # NCCL's with its queue of 8,192
LIMIT = 1.10  # of every other method without a second network
SECOND_NETWORK = frozenset({"model", "oracle"})  # who needs these is reported without a limit


class Pause(Exception):
    """One epoch is over and its checkpoint is written."""


class Candidate:
    """One method with a model of its own, trained an epoch at a time."""

    def __init__(
        self,
        name: str,
        old: OldSystem,
        images: torch.Tensor,
        settings: TrainingSettings,
        folder: Path,
        network: str = "resnet-small",
    ):
        torch.manual_seed(0)
        kind = METHODS[name]
        classifier = Classifier("arcface", old.width, old.num_classes, scale=32.0, margin=0.3, ramp=0.3)
        self.name, self.images, self.settings, self.old = name, images, settings, old
        self.checkpoint = folder / f"{name}.pt"
        self.model: EmbeddingModel = build_model(
            network, width=kind.model_width(old.width, old.width), channels=3, size=images.shape[-1]
        )
        self.method: CompatibilityLoss = build_method(name, old, classifier)
        self.epochs: list[dict[str, float]] = []  # seconds of the steps alone
        self.refreshes: list[dict[str, float]] = []  # seconds before each epoch's first step
        self.fit = 0.0  # seconds after the last epoch
        refresh = self.method.start_epoch

        def start_epoch(*arguments) -> None:
            began = {key: clock() for key, clock in CLOCKS.items()}
            refresh(*arguments)
            self.refreshes.append({key: clock() - began[key] for key, clock in CLOCKS.items()})

        self.method.start_epoch = start_epoch

    def train_epoch(self) -> None:
        """Train one epoch, the next of the schedule."""
        last = len(self.epochs) + 1 == self.settings.epochs

        def pause(line: str) -> None:
            if not last:
                raise Pause

        history = None
        with contextlib.suppress(Pause):
            history = train(
                self.model,
                self.method,
                self.images,
                self.old.labels,
                self.settings,
                old=self.old,
                checkpoint=self.checkpoint,
                say=pause,
            )
        row = torch.load(self.checkpoint, weights_only=True)["history"][-1]
        if history is not None:  # the loop adds the fit to its last epoch
            self.fit = history[-1]["seconds"] - row["seconds"]
        # On a GPU the loop does not tell the processor's time, and the other clock's stands for it.
        self.epochs.append({key: row.get(key, row["seconds"]) - self.refreshes[-1][key] for key in CLOCKS})


def bare(network: str, pixels: torch.Tensor, width: int, repeats: int = 20) -> float:
    """Return the median seconds of a network's forward and backward on float pixels [B, 3, H, W]."""
    model = build_model(network, width=width, channels=3, size=pixels.shape[-1]).to(pixels.device)
    took = []
    for _ in range(WARM + repeats):
        start = time.perf_counter()
        with autocast(pixels.device, "auto"):
            embeddings = model(pixels)
        loss = embeddings.float().square().mean()
        loss.backward()
        next(model.parameters()).grad.sum().item()  # waits for the device
        took.append(time.perf_counter() - start)
    return median(took[WARM:])


def make_old(rows: int, classes: int, width: int) -> OldSystem:
    """Return an old system with all that a method may ask for: noisy copies of random class centres."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(rows) % classes
    old, oracle = (
        torch.randn(classes, width, generator=generator)[labels]
        + torch.randn(rows, width, generator=generator)
        for _ in range(2)
    )
    known = max(1, 3 * classes // 10)  # the old model saw 30 % of the classes
    class_map = torch.where(torch.arange(classes) < known, torch.arange(classes), -1)
    return OldSystem.from_arrays(
        old,
        labels,
        classifier_weight=torch.randn(known, width, generator=generator) / width**0.5,
        classifier_bias=torch.zeros(known),
        class_map=class_map,
        num_classes=classes,
        model=build_model("convnet", width=width, channels=3),
    ).with_oracle(oracle)


def limit(name: str) -> float | None:
    """Return the ratio that a method should stay below; None where it has none."""
    if name == BASE or METHODS[name].needs & SECOND_NETWORK:
        return None
    return LIMITS.get(name, LIMIT)


def measure(
    methods: Sequence[str],
    *,
    epochs: int,
    steps: int,
    rounds: int,
    batch: int,
    classes: int,
    size: int,
    width: int,
    network: str = "resnet-small",
    device: str = "cpu",
) -> dict[str, dict[str, float | None]]:
    """Return for each method its milliseconds a step and its ratios to the oracle's training."""
    rows = batch * steps
    images = torch.randint(
        0, 256, (rows, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    old = make_old(rows, classes, width)
    settings = TrainingSettings(epochs=epochs, batch_size=batch, device=device)
    methods = [BASE, *(name for name in methods if name != BASE)]
    runs: list[dict[str, Candidate]] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            made = (old, images, settings, Path(folder), network)
            runs.append({name: Candidate(name, *made) for name in methods})
            for turn in range(epochs):
                first = turn % len(methods)
                for name in methods[first:] + methods[:first]:
                    runs[-1][name].train_epoch()
    results = {}
    for name in methods:
        results[name] = result = {"limit": limit(name), "fit_seconds": median(run[name].fit for run in runs)}
        for key in CLOCKS:
            turns = [
                (ours[key], theirs[key])
                for run in runs
                for ours, theirs in zip(run[name].epochs[WARM:], run[BASE].epochs[WARM:], strict=True)
            ]
            oracle = median(theirs for _, theirs in turns)
            refreshes = median(sum(one[key] for one in run[name].refreshes) for run in runs)
            added = refreshes / epochs / oracle
            result[f"{key}/refresh"] = added
            ratios = torch.tensor([ours / theirs for ours, theirs in turns], dtype=torch.float64)
            low, middle, high = ratios.quantile(ratios.new_tensor([0.25, 0.5, 0.75])).tolist()
            result[f"{key}/ratio"] = middle + added
            result[f"{key}/low"], result[f"{key}/high"] = low + added, high + added
            result[f"{key}/step"] = (median(ours for ours, _ in turns) + refreshes / epochs) / steps
    alone = bare(network, to_float(images[:batch].to(device)), width)
    results[BASE]["of_bare"] = alone / results[BASE]["seconds/step"]
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--methods", nargs="+", choices=sorted(METHODS), default=sorted(METHODS), metavar="NAME"
    )
    parser.add_argument("--epochs", type=int, default=20, help="epochs of the schedule, more than two")
    parser.add_argument("--steps", type=int, default=12, help="steps of an epoch")
    parser.add_argument("--rounds", type=int, default=1, help="whole schedules")
    parser.add_argument("--batch", type=int, default=256, help="rows of a batch")
    parser.add_argument("--classes", type=int, default=420)
    parser.add_argument("--size", type=int, default=32, help="side of an image in pixels")
    parser.add_argument("--width", type=int, default=64, help="coordinates of an embedding")
    parser.add_argument("--network", default="resnet-small", help="any name of compat_lib.models.build_model")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's own number")
    options = vars(parser.parse_args())
    if options["epochs"] <= WARM:
        parser.error(f"--epochs is {options['epochs']}; give more than {WARM}, which only warm up")
    if threads := options.pop("threads"):
        torch.set_num_threads(threads)
    os.environ["TQDM_DISABLE"] = "1"  # the loop then tells when an epoch is over
    results = measure(**options)
    shown = {key: value for key, value in options.items() if key != "methods"}
    print(f"{shown}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print("method          ms/step   ratio   middle half  of CPU  refresh  limit      fit")
    for name, result in results.items():
        allowed = "" if result["limit"] is None else f"{result['limit']:.2f}"
        over = result["limit"] is not None and result["processor_seconds/ratio"] > result["limit"]
        print(
            f"{name:14s} {1000 * result['seconds/step']:8.1f} {result['seconds/ratio']:7.3f} "
            f"{result['seconds/low']:7.3f}-{result['seconds/high']:.3f} "
            f"{result['processor_seconds/ratio']:7.3f} {result['seconds/refresh']:8.3f} {allowed:>6s} "
            f"{result['fit_seconds']:6.1f} s" + ("  over the limit" if over else "")
        )
    print(f"the oracle's throughput: {results[BASE]['of_bare']:.2f} of a bare forward and backward")
    print(json.dumps(shown | {"results": results}))


if __name__ == "__main__":
    main()
