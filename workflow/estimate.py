"""What a preset asks for before anyone starts: images, steps, parameters, memory, a time by a measured step.

    python workflow/estimate.py --preset paper/bt2-cifar100       (make estimate PRESET=...)

Each side's network takes a real training step (after one that warms up) on two random images, and on twice as
many until the images beyond two take a third of a second; the time of a whole batch lies on that line. Counts
are those that the preset declares as published, so that no data are needed; a preset that declares none reads
its data set.
"""

import argparse
import sys
import time
from dataclasses import replace
from functools import cache

import plan
import torch

from companion.costs import HOUR, shown_hours
from companion.titles import setting_title
from compat_lib.config import ExperimentConfig
from compat_lib.data.augmentation import to_float
from compat_lib.data.decoding import height_width
from compat_lib.losses import build_method
from compat_lib.models import EmbeddingModel, autocast, build_model
from compat_lib.presets import Preset
from compat_lib.recipe import classifier_of, settings_of
from compat_lib.training import train

ENOUGH = 0.3  # seconds that more images add to a step: then they can be told from what every step takes
MOMENTS = {"sgd": 1, "adam": 2, "adamw": 2}  # numbers that an optimiser keeps for each parameter
GIGA = 1e9
RECIPE = (
    *("image_size", "image_height", "device", "precision", "optimiser", "task_loss"),
    *("per_identity", "shift", "flip", "pad", "erase", "resized_crop", "scale", "margin"),
)  # of a configuration: what a step's time depends on


def counts(preset: Preset, config: ExperimentConfig) -> tuple[dict[str, list[int]], int]:
    """(images, classes) of the old and the new side, and the channels of an image."""
    if preset.published:
        old, new = preset.published["old"], preset.published["new"]
        return {"old": [old[0] or round(new[0] * old[1] / new[1]), old[1]], "new": new}, 3
    from compat_lib.experiment import Experiment  # takes two seconds, which published counts spare

    experiment = Experiment(config, say=lambda line: None)
    sides = {"new": experiment.new_images} | ({"old": experiment.old_images} if trains_old(config) else {})
    found = {side: [len(images), images.num_classes] for side, images in sides.items()}
    return found, sides["new"].images.shape[1]


def trains_old(config: ExperimentConfig) -> bool:
    """Whether the old model is neither that of an earlier run nor a file of features."""
    return config.old_run is None and config.old_features is None


@cache
def measured(
    name: str, width: int, head: str, loss: str, classes: int, share: int, channels: int, recipe: tuple
) -> tuple[int, int, float, float, int]:
    """Parameters of network and classifier, bytes of activations an image, seconds a step, its batch."""
    config = ExperimentConfig(**dict(recipe), new_loss=loss, new_width=width)
    size = height_width(config.size)
    torch.manual_seed(0)
    model = build_model(name, width=width, channels=channels, size=size, head=head)
    classifier = classifier_of(config, loss, width, classes)
    method = build_method("independent", None, classifier, task_loss=config.task_loss)
    parameters = [sum(p.numel() for p in module.parameters()) for module in (model, classifier)]
    settings = settings_of(config, epochs=1, lr=1e-4, seed=0)
    took, batch = {}, 1
    while batch < share and took.get(batch, 0.0) - took.get(2, 0.0) < ENOUGH:
        batch = min(2 * batch, share)
        pixels = torch.randint(256, (batch, channels, *size), dtype=torch.uint8)
        labels = torch.arange(batch) // 2 % classes  # two of each, for a task loss
        now = replace(settings, batch_size=batch, per_identity=0, epochs=2 if batch == 2 else 1)
        history = train(model, method, pixels, labels, now, say=lambda line: None)
        # The very first step warms up. Of a processor its own time counts: other work hardly moves it.
        took[batch] = history[-1].get("processor_seconds", history[-1]["seconds"])
    half, pixels = max(2, batch // 2), pixels.to(config.device)
    kept = [activations(model, part, config) for part in (pixels, pixels[:half])]
    # A difference, since autocast's copies of the weights are kept once for all images.
    remembered = kept[0] / batch if half == batch else (kept[0] - kept[1]) / (batch - half)
    slope = max(took[batch] - took[2], 0.0) / max(batch - 2, 1)  # of one more image
    return *parameters, remembered, took[batch] + slope * (share - batch), batch


def activations(model: EmbeddingModel, pixels: torch.Tensor, config: ExperimentConfig) -> int:
    """Bytes that the network keeps of a batch for the gradient."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    model.train()
    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with autocast(config.device, config.precision), hooks:
        output = model(to_float(pixels))  # kept until here, so that no storage is used twice
    del output
    return sum(kept.values())


def estimate(preset: Preset, device: str) -> None:
    """Print the estimate of every setting of a preset."""
    guess = "; how many images is not published: a share as that of the classes"
    by_setting = {}
    for config in preset.experiments:
        by_setting.setdefault(config.experiment_id, []).append(config)
    for configs in by_setting.values():
        config = configs[0].changed(device=device, old_weights=None, new_weights=None)
        print(f"\n{setting_title(config.to_dict())}")
        sides, channels = counts(preset, config)
        share = max(2, config.batch_size // preset.processes)
        recipe = tuple((name, getattr(config, name)) for name in RECIPE)
        total, old_models = 0.0, {one.old_folder for one in configs if trains_old(one)}  # one a seed
        for side, number in (("old", len(old_models)), ("new", len(configs))):
            if number == 0:
                continue
            name, width, *_ = asked = [
                getattr(config, f"{side}_{part}") for part in ("backbone", "width", "head", "loss")
            ]
            epochs = config.old_epochs if side == "old" else config.epochs
            images, classes = sides[side]
            own = -(-classes // preset.processes)  # the classifier is dealt out
            network, dealt, remembered, seconds, batch = measured(*asked, own, share, channels, recipe)
            steps = images // min(config.batch_size, images)
            per_parameter = 4 * (2 + MOMENTS[config.optimiser])
            taken = preset.published.get(side, [images])[0] is None
            parts = config.accumulate
            again = 4 / 3 if parts > 1 else 1  # each part passes forward twice
            print(
                f"  {side}  {name}, {width} coordinates: {images:,} images of {classes:,} classes; "
                f"{epochs} epochs of {steps:,} steps, {epochs * steps:,} in all{guess * taken}"
            )
            print(
                f"       {network / 1e6:.1f} M parameters, classifier {width * classes / 1e6:.1f} M; memory "
                f"{(network + dealt) * per_parameter / GIGA:.2f} GB for them with gradients and "
                f"{config.optimiser}, {remembered * share / parts / GIGA:.2f} GB for "
                f"a batch's activations{f', a part of {parts} at a time' * (parts > 1)}"
            )
            how = "measured" if batch == share else f"measured with {batch} of its {share} images, and scaled"
            hours = epochs * steps * again * seconds / HOUR
            print(f"       a step of {again * seconds:.3g} s ({how}): {shown_hours(hours)} a model")
            total += number * hours
        features = sides["new"][0] * config.old_width * 4 / GIGA
        print(f"  old features of the new side's images: {features:.2f} GB")
        print(
            f"  {len(configs)} new models, each by the oracle's step, and {len(old_models)} old ones: "
            f"{shown_hours(total)}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="quick", help="a name in configs/, or a path to a .yml file")
    began = time.monotonic()
    try:
        preset, _, _ = plan.read(parser.parse_args().preset)
        wanted = torch.device(preset.experiments[0].device).type
        device = wanted if wanted == "cpu" or torch.cuda.is_available() else "cpu"
        together = f", {preset.processes} processes train one model" if preset.processes > 1 else ""
        print(f"Preset {preset.name}: {len(preset.experiments)} runs{together}")
        if device == "cpu":
            torch.set_num_threads(1)  # as the workflow's notebooks have
        place = "one core of this processor" if device == "cpu" else device
        slower = f"The device {wanted} is not here: measured on {place}, which is slower."
        print(f"Measured on {place}." if device == wanted else slower)
        if preset.published:
            print("Counts are the preset's; whether the data are here was not looked at.")
        estimate(preset, device)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        print(f"make estimate: {error}", file=sys.stderr)
        return 1
    print("\nNot counted: decoding slower than a step, looks, tests, what a method takes beyond the oracle.")
    if preset.processes > 1:
        print("The step is one process's share; the exchange between processes is not counted.")
    print(f"{time.monotonic() - began:.0f} s for this estimate")
    return 0


if __name__ == "__main__":
    sys.exit(main())
