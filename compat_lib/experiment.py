"""The pipeline of one experiment, step by step as the notebooks call it.

    experiment = Experiment(config)
    experiment.data, experiment.scenario     # images and who trains on what
    experiment.old                           # the old model: trained, or read when it exists
    experiment.new                           # the new model by the configured method, likewise
    experiment.evaluate()                    # metrics into the run folder; the run is complete

Each step first looks into the run folder, so a notebook that is run again, or was killed, repeats
nothing that had finished. Two processes that want the same model do not train it twice: the second
waits for the first.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from compat_lib import data as datasets
from compat_lib.adapters import fit_procrustes, fit_ridge
from compat_lib.config import ExperimentConfig, project_path
from compat_lib.data.images import ImageSet, Splits
from compat_lib.data.scenarios import Scenario, split
from compat_lib.evaluation.compatibility import (
    Comparison,
    compare,
    criterion,
    mixed_gallery_curve,
    tar_name,
)
from compat_lib.evaluation.pairs import verification
from compat_lib.losses import build_method, method_options
from compat_lib.losses.contract import CompatibilityLoss
from compat_lib.losses.margins import Classifier
from compat_lib.models import EmbeddingModel, build_model, embed
from compat_lib.old_system import OldSystem
from compat_lib.runs import (
    Run,
    environment,
    is_complete,
    read_history,
    read_json,
    write_history,
    write_json,
)
from compat_lib.training import TrainingSettings, train

FARS = (1e-2, 1e-3, 1e-4)
HEADLINE = "tar@far=1e-3"  # the metric of the criterion and of the update gain


@dataclass(frozen=True)
class Side:
    """One trained model, old or new, with what the evaluation needs of it.

    Args:
        model: the embedding model, in evaluation mode.
        classifier: its classifier.
        test: float32 ``[N_test, width]``, embeddings of the test images, un-normalised.
        val: the same of the validation images.
        history: one dictionary an epoch.
    """

    model: EmbeddingModel
    classifier: Classifier
    test: Tensor
    val: Tensor
    history: list[dict[str, float]]


class Experiment:
    """One configuration and, lazily, everything that follows from it.

    Args:
        config: the validated configuration.
        say: receives one line an epoch and a word on what was found finished.
    """

    def __init__(self, config: ExperimentConfig, say: Callable[[str], None] = print) -> None:
        self.config = config
        self.say = say
        if config.threads:
            torch.set_num_threads(config.threads)

    # -- data ------------------------------------------------------------------------------------

    @cached_property
    def data(self) -> Splits:
        """Training, validation and test images of the data set."""
        config = self.config
        return datasets.load(
            config.dataset,
            root=config.data_root or os.environ.get("COMPAT_DATA") or project_path("data"),
            size=config.image_size,
            seed=config.data_seed,
            **config.dataset_options,
        )

    @cached_property
    def scenario(self) -> Scenario:
        """Which training images the old and the new model see."""
        config = self.config
        return split(
            self.data.train.labels, config.scenario, share=config.old_share, shuffle_seed=config.shuffle_seed
        )

    @cached_property
    def old_images(self) -> ImageSet:
        """The old model's training set, labelled 0..C_o-1."""
        return self._training_set(self.scenario.old_rows, self.scenario.old_labels, self.scenario.old_classes)

    @cached_property
    def new_images(self) -> ImageSet:
        """The new model's training set, labelled 0..C_n-1."""
        return self._training_set(self.scenario.new_rows, self.scenario.new_labels, self.scenario.new_classes)

    def _training_set(self, rows: Tensor, labels: Tensor, classes: Tensor) -> ImageSet:
        names = [self.data.train.classes[index] for index in classes.tolist()]
        return self.data.train.with_labels(rows, labels, names)

    # -- the old side ----------------------------------------------------------------------------

    @cached_property
    def old(self) -> Side:
        """The deployed model: trained by this experiment, or read from its folder."""
        folder = self.config.old_folder
        with _only_one(folder):
            if not is_complete(folder):
                self._train_old(folder)
            return self._read_side(folder, self.config.old_backbone, self.config.old_loss, self.old_images)

    @cached_property
    def old_system(self) -> OldSystem:
        """What a method may use of the old model: features of the new training set, and the rest.

        Raises:
            ValueError: the old features belong to other images, because the data or their split changed.
        """
        model = self.old.model
        path = self.config.old_folder / "old_system" / "images.json"
        if read_json(path)["digest"] != self.new_images.digest():
            raise ValueError(
                f"the old features in {path.parent} were extracted on another training set than the data "
                f"give now: delete {self.config.folder} to run the experiment anew"
            )
        return OldSystem.load(path.parent, model=model)

    @property
    def old_run(self) -> Run:
        """The old model's run folder; trains it when there is none."""
        _ = self.old
        return Run(self.config.old_folder)

    def _train_old(self, folder: Path) -> None:
        config, images = self.config, self.old_images
        started = time.time()
        torch.manual_seed(2 * config.seed)  # even seeds for old models, odd ones for new models
        model = self._build(config.old_backbone, config.old_width)
        classifier = self._classifier(config.old_loss, config.old_width, images.num_classes)
        method = build_method("independent", None, classifier)
        settings = self._settings(config.old_epochs, config.old_lr, 2 * config.seed)
        self.say(f"old model: {images.num_classes} classes, {len(images)} images")
        history = self._train(model, method, images, settings, folder)
        features = self._embed(model, self.new_images.images)
        OldSystem.from_arrays(
            features,
            self.new_images.labels,
            num_classes=self.new_images.num_classes,
            classifier_weight=classifier.weight.detach().cpu(),
            classifier_bias=None if classifier.bias is None else classifier.bias.detach().cpu(),
            classifier_scale=None if config.old_loss == "softmax" else config.scale,
            class_map=self.scenario.class_map,
        ).save(folder / "old_system")
        write_json(folder / "old_system" / "images.json", {"digest": self.new_images.digest()})
        side = self._measure(model, method, history, folder)
        result = compare(None, side.test, self.data.test.labels, fars=FARS, draws=config.bootstrap_draws)
        metrics = _renamed(result.metrics, "new_new", "old_old")
        draws = _renamed(result.draws, "new_new", "old_old")
        self._finish(folder, metrics, draws, side, images, started, run_id=folder.name, method="old")

    # -- the new side ----------------------------------------------------------------------------

    @cached_property
    def new(self) -> Side:
        """The new model, trained by the configured method, or read from the run folder."""
        folder = self.config.run_folder
        self._same_options(folder)
        with _only_one(folder):
            if not (folder / "features.safetensors").is_file():
                self._train_new(folder)
            return self._read_side(folder, self.config.new_backbone, self.config.new_loss, self.new_images)

    def _options(self) -> dict[str, Any]:
        """The method's options with their defaults filled in."""
        return method_options(self.config.method) | self.config.method_options

    def _same_options(self, folder: Path) -> None:
        """Refuse a run of an earlier version of the package whose defaults were others."""
        path = folder / "options.json"
        if path.is_file() and (theirs := read_json(path)) != self._options():
            raise ValueError(
                f"the run in {folder} was made with the options {theirs}, which were the defaults then; now "
                f"they are {self._options()}. Delete the folder to run it anew, or name the options in "
                f"method_options"
            )

    def _train_new(self, folder: Path) -> None:
        config, images = self.config, self.new_images
        torch.manual_seed(2 * config.seed + 1)
        model = self._build(config.new_backbone, config.new_width)
        classifier = self._classifier(config.new_loss, config.new_width, images.num_classes)
        method = build_method(config.method, self.old_system, classifier, **config.method_options)
        write_json(folder / "options.json", self._options())
        epochs = config.epochs
        if config.budget == "passes":
            epochs = round(epochs / method.embedded_share)
        settings = self._settings(epochs, config.lr, 2 * config.seed + 1)
        self.say(f"{method.title}: {images.num_classes} classes, {len(images)} images, {epochs} epochs")
        history = self._train(model, method, images, settings, folder, old=self.old_system)
        self._measure(model, method, history, folder)

    def evaluate(self) -> Run:
        """Measure the new model against the old one and complete the run folder.

        Returns:
            the run; when its metrics are there already, nothing is computed.
        """
        folder = self.config.run_folder
        self._same_options(folder)
        if is_complete(folder):
            self.say(f"{self.config.run_id}: read from {folder}")
            return Run(folder)
        started = time.time()
        old, new, labels = self.old.test, self.new.test, self.data.test.labels
        result = compare(old, new, labels, fars=FARS, draws=self.config.bootstrap_draws)
        metrics, draws = dict(result.metrics), dict(result.draws)
        metrics["criterion"] = criterion(metrics, HEADLINE)
        if old.shape[1] == new.shape[1]:
            metrics |= mixed_gallery_curve(old, new, labels).metrics
        if self.config.method == "independent":
            for prefix, adapted in self._adapters().items():
                metrics |= _renamed(adapted.metrics, "new_old", f"{prefix}/new_old")
                draws |= _renamed(adapted.draws, "new_old", f"{prefix}/new_old")
        self._finish(folder, metrics, draws, self.new, self.new_images, started)
        return Run(folder)

    def _adapters(self) -> dict[str, Comparison]:
        """The cross-test of the independent model after a linear map, fitted on the training set."""
        source, target = self.old_system.features, self._embed(self.new.model, self.new_images.images)
        maps = {"ridge": fit_ridge, "procrustes": fit_procrustes}
        results = {}
        for name, fit in maps.items():
            to_new, to_old = fit(source, target), fit(target, source)
            pairs = {
                f"adapter/{name}": (to_new.apply(self.old.test), self.new.test),
                f"adapter/{name}-query": (self.old.test, to_old.apply(self.new.test)),
            }
            for prefix, (gallery, query) in pairs.items():
                result = compare(
                    gallery, query, self.data.test.labels, fars=FARS, draws=self.config.bootstrap_draws
                )
                results[prefix] = result
        return results

    # -- shared by both sides --------------------------------------------------------------------

    def _build(self, backbone: str, width: int) -> EmbeddingModel:
        channels = self.data.train.images.shape[1]
        return build_model(backbone, width=width, channels=channels, size=self.config.image_size)

    def _classifier(self, loss: str, width: int, classes: int) -> Classifier:
        config = self.config
        return Classifier(
            "linear" if loss == "softmax" else loss,
            width,
            classes,
            scale=config.scale,
            margin=config.margin,
            ramp=config.margin_ramp,
            label_smoothing=config.label_smoothing,
        )

    def _settings(self, epochs: int, lr: float, seed: int) -> TrainingSettings:
        config = self.config
        return TrainingSettings(
            epochs=epochs,
            batch_size=config.batch_size,
            lr=lr,
            weight_decay=config.weight_decay,
            warmup=config.warmup,
            clip=config.clip,
            shift=config.shift,
            flip=config.flip,
            seed=seed,
            precision=config.precision,
            device=config.device,
        )

    def _train(
        self,
        model: EmbeddingModel,
        method: CompatibilityLoss,
        images: ImageSet,
        settings: TrainingSettings,
        folder: Path,
        old: OldSystem | None = None,
    ) -> list[dict[str, float]]:
        old_val = None if old is None or self.config.old_width != self.config.new_width else self.old.val

        def validate(model: EmbeddingModel) -> dict[str, float]:
            labels = self.data.val.labels
            features = self._embed(model, self.data.val.images)
            values = {"new_new": verification(features, labels, fars=FARS[:2])}
            if old_val is not None:
                rows = torch.arange(len(labels))
                values["new_old"] = verification(
                    features, labels, old_val, labels, query_ids=rows, gallery_ids=rows, fars=FARS[:2]
                )
            return {
                f"{pair}/{tar_name(far)}": tar
                for pair, value in values.items()
                for far, tar in zip(value.fars, value.tar, strict=True)
            }

        return train(
            model,
            method,
            images.images,
            images.labels,
            settings,
            old=old,
            checkpoint=folder / "checkpoint.pt",
            validate=validate,
            validate_every=self.config.validate_every,
            say=self.say,
        )

    def _embed(self, model: nn.Module, images: Tensor) -> Tensor:
        return embed(model, images, device=self.config.device, precision=self.config.precision)

    def _measure(
        self, model: EmbeddingModel, method: CompatibilityLoss, history: list[dict[str, float]], folder: Path
    ) -> Side:
        """Embed test and validation images, keep everything, and drop the checkpoint."""
        test, val = self._embed(model, self.data.test.images), self._embed(model, self.data.val.images)
        weights = {f"model.{name}": value for name, value in model.state_dict().items()}
        weights |= {f"classifier.{name}": value for name, value in method.classifier.state_dict().items()}
        weights = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
        write_history(folder / "history.csv", history)
        _save_tensors(weights, folder / "model.safetensors")
        # Written last of the three: its presence says that training is over.
        _save_tensors({"test": test, "val": val}, folder / "features.safetensors")
        (folder / "checkpoint.pt").unlink(missing_ok=True)
        return Side(model.eval(), method.classifier, test, val, history)

    def _read_side(self, folder: Path, backbone: str, loss: str, images: ImageSet) -> Side:
        features = load_file(folder / "features.safetensors")
        weights = load_file(folder / "model.safetensors")
        width = features["test"].shape[1]
        model = self._build(backbone, width)
        classifier = self._classifier(loss, width, images.num_classes)
        for prefix, module in (("model.", model), ("classifier.", classifier)):
            module.load_state_dict(
                {name.removeprefix(prefix): v for name, v in weights.items() if name.startswith(prefix)}
            )
        model.eval().requires_grad_(False).to(self.config.device)
        classifier.requires_grad_(False)
        history = read_history(folder / "history.csv")
        return Side(model, classifier, features["test"], features["val"], history)

    def _finish(
        self,
        folder: Path,
        metrics: dict[str, object],
        draws: dict[str, object],
        side: Side,
        images: ImageSet,
        started: float,
        run_id: str | None = None,
        method: str | None = None,
    ) -> None:
        """Write the run's files, metrics last."""
        config, history = self.config, side.history
        steps = len(history) * max(1, len(images) // config.batch_size)
        metrics = metrics | {
            "train/epochs": len(history),
            "train/steps": steps,
            "train/seconds": sum(row["seconds"] for row in history),
            "train/seconds_per_epoch": sum(row["seconds"] for row in history) / len(history),
            "train/backbone_images": sum(row["backbone_images"] for row in history),
        }
        facts = {
            "images": {"train": len(images), "val": len(self.data.val), "test": len(self.data.test)},
            "classes": {
                "train": images.num_classes,
                "val": self.data.val.num_classes,
                "test": self.data.test.num_classes,
            },
            "test_digest": self.data.test.digest(),
            "parameters": sum(p.numel() for p in side.model.parameters()),
        }
        identity = {
            "experiment_id": config.experiment_id,
            "run_id": run_id or config.run_id,
            "old_run_id": config.old_folder.name,
        }
        described = config.to_dict() | ({"method": method} if method else {}) | identity
        # Where the data and the runs lay is nobody's business, and differs between machines.
        described = {name: v for name, v in described.items() if name not in ("data_root", "runs_root")}
        write_json(folder / "config.json", described | {"facts": facts})
        write_json(
            folder / "environment.json",
            environment()
            | {"device": config.device, "started": _clock(started), "finished": _clock(time.time())},
        )
        write_json(
            folder / "draws.json", {name: [_short(v) for v in list(row)] for name, row in draws.items()}
        )
        write_json(folder / "metrics.json", metrics)


def _renamed(values: Mapping[str, Any], pair: str, name: str) -> dict[str, Any]:
    """The entries of one pair of models, under another name."""
    return {
        f"{name}/{key.removeprefix(pair + '/')}": v for key, v in values.items() if key.startswith(f"{pair}/")
    }


def _only_one(folder: Path) -> FileLock:
    """A lock that the operating system releases when its holder dies."""
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / ".lock")


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    temporary = path.with_name(f".{path.name}")
    save_file(tensors, temporary)
    temporary.replace(path)


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _short(value: float) -> float:
    """Five digits are enough for an interval, and keep the file small."""
    return float(f"{float(value):.5g}")
