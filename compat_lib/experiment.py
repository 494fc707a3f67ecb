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
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from safetensors import safe_open
from torch import Tensor, nn

from compat_lib import data as datasets
from compat_lib.adapters import fit_procrustes, fit_ridge
from compat_lib.config import ExperimentConfig, project_path, shown_path
from compat_lib.data.images import ImageSet, Splits
from compat_lib.data.scenarios import Scenario, split
from compat_lib.evaluation.compatibility import Comparison, compare, tar_name
from compat_lib.evaluation.constraints import constraints
from compat_lib.evaluation.ordering import margin
from compat_lib.evaluation.pairs import verification
from compat_lib.losses import build_method, find_method, method_options
from compat_lib.losses.base import CompatibilityLoss
from compat_lib.losses.heads import Classifier
from compat_lib.measurements import FARS, measure
from compat_lib.models import EmbeddingModel, build_model, embed
from compat_lib.old_system import OldSystem
from compat_lib.runs import Run, environment, is_complete, read_json, write_json
from compat_lib.sides import Side, compared, deployed, is_kept, keep_side, read_side, save_tensors
from compat_lib.training import TrainingSettings, train


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
        """The deployed model: trained by this experiment, read from its folder, or an earlier new model."""
        folder = self.config.old_folder
        with _only_one(folder):
            if not is_complete(folder):
                self._make_old(folder)
            return self.predecessor.new if self.predecessor else self._read_old(folder)

    @cached_property
    def predecessor(self) -> Experiment | None:
        """The experiment whose new model plays the old one here; None when the old model is our own.

        Raises:
            ValueError: there is no such run, its training images are others, or its network is not the one
                that the configuration names as the old one.
        """
        config = self.config
        if config.old_run is None:
            return None
        folder = project_path(config.runs_root) / config.old_run
        if not is_complete(folder):
            raise ValueError(
                f"old_run is {config.old_run!r}, but there is no finished run in {folder}: run it first"
            )
        fields = {k: v for k, v in Run(folder).config.items() if k in ExperimentConfig.__dataclass_fields__}
        where = {k: getattr(config, k) for k in ("data_root", "runs_root", "device", "threads")}
        earlier = Experiment(ExperimentConfig.from_dict(fields | where), say=self.say)
        if earlier.new.classifier.width != earlier.new.test.shape[1]:
            raise ValueError(
                f"{config.old_run} stores features of width {earlier.new.test.shape[1]} and classifies "
                f"{earlier.new.classifier.width} of them: no method here reads such an old model; go on from "
                f"another method than {earlier.config.method}"
            )
        theirs = (earlier.config.new_backbone, earlier.config.new_loss, earlier.new.test.shape[1])
        ours = (config.old_backbone, config.old_loss, config.old_width)
        if theirs != ours:
            raise ValueError(
                f"the new model of {config.old_run} has (backbone, loss, width) {theirs}, but the old side "
                f"of this experiment is {ours}: take ExperimentConfig.next_generation, or set old_* to these"
            )
        if earlier.new_images.digest() != self.new_images.digest():
            raise ValueError(
                f"the model of {config.old_run} was trained on other images than this experiment's: keep "
                f"data set, scenario and their seeds through all generations"
            )
        return earlier

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

    def _make_old(self, folder: Path) -> None:
        started = time.time()
        if self.predecessor is None:
            features = self._train_old(folder)
            side, class_map = self._read_old(folder), self.scenario.class_map
            images, loss = self.old_images, self.config.old_loss
        else:
            side, features = self.predecessor.new, self.predecessor.training_features
            images, loss = self.new_images, self.predecessor.config.new_loss
            class_map = torch.arange(images.num_classes)
        bias = side.classifier.bias
        OldSystem.from_arrays(
            features,
            self.new_images.labels,
            num_classes=self.new_images.num_classes,
            classifier_weight=side.classifier.weight.detach().cpu(),
            classifier_bias=None if bias is None else bias.detach().cpu(),
            classifier_scale=None if loss == "softmax" else self.config.scale,
            class_map=class_map,
        ).save(folder / "old_system")
        write_json(folder / "old_system" / "images.json", {"digest": self.new_images.digest()})
        result = compare(None, side.test, self.data.test.labels, fars=FARS, draws=self.config.bootstrap_draws)
        metrics = _renamed(result.metrics, "new_new", "old_old")
        draws = _renamed(result.draws, "new_new", "old_old")
        self._finish(folder, metrics, draws, side, images, started, run_id=folder.name, method="old")

    def _train_old(self, folder: Path) -> Tensor:
        """Train and keep the old model; its features of the new training set."""
        config, images = self.config, self.old_images
        model, method = self._old_parts()
        settings = self._settings(config.old_epochs, config.old_lr, 2 * config.seed)
        self.say(f"old model: {images.num_classes} classes, {len(images)} images")
        history = self._train(model, method, images, settings, folder)
        self._keep(model, method, history, folder)
        return self._embed(model, self.new_images.images)

    def _read_old(self, folder: Path) -> Side:
        return read_side(folder, *self._old_parts(), self.config.device)

    def _old_parts(self) -> tuple[EmbeddingModel, CompatibilityLoss]:
        config = self.config
        torch.manual_seed(2 * config.seed)  # even seeds for old models, odd ones for new models
        model = self._build(config.old_backbone, config.old_width)
        classifier = self._classifier(config.old_loss, config.old_width, self.old_images.num_classes)
        return model, build_method("independent", None, classifier)

    # -- the new side ----------------------------------------------------------------------------

    @cached_property
    def new(self) -> Side:
        """The new model, trained by the configured method, or read from the run folder."""
        folder = self.config.run_folder
        self._same_options(folder)
        with _only_one(folder):
            if not is_kept(folder):
                self._train_new(folder)
            return read_side(folder, *self._new_parts(), self.config.device)

    @property
    def compared(self) -> tuple[Tensor, Tensor]:
        """Old and new test features as the cross-test takes them; as they are where there is no such test."""
        if self.new.query is None or self.new.gallery is None:
            return self.old.test, self.new.test
        return self.new.gallery, self.new.query

    @cached_property
    def oracle(self) -> Experiment:
        """The same experiment without compatible training; this one itself when it has none."""
        config = self.config
        if config.method == "independent":
            return self
        changes = {"method": "independent", "method_options": {}, "budget": "steps"}
        return Experiment(config.changed(**changes), say=self.say)

    @cached_property
    def training_features(self) -> Tensor:
        """The new model's features of its training set, float32 ``[N, width]``; kept in the run folder."""
        side, digest = self.new, self.new_images.digest()
        path = self.config.run_folder / "training_features.safetensors"
        with _only_one(self.config.run_folder):
            if path.is_file():
                with safe_open(path, "pt") as file:
                    if (file.metadata() or {}).get("digest") == digest:
                        return file.get_tensor("features")
            features = self._embed(side.model, self.new_images.images)
            save_tensors({"features": features}, path, {"digest": digest})
        return features

    @cached_property
    def _known(self) -> OldSystem:
        """What the method is told: the old system, and the oracle's features when it needs them."""
        if "oracle" not in find_method(self.config.method).needs:
            return self.old_system
        return self.old_system.with_oracle(self.oracle.training_features)

    def _new_parts(self) -> tuple[EmbeddingModel, CompatibilityLoss]:
        config, kind, known = self.config, find_method(self.config.method), self._known
        torch.manual_seed(2 * config.seed + 1)
        model = self._build(config.new_backbone, kind.model_width(config.old_width, config.new_width))
        classifier = self._classifier(config.new_loss, config.new_width, self.new_images.num_classes)
        return model, build_method(config.method, known, classifier, **config.method_options)

    def _options(self) -> dict[str, Any]:
        """The method's options with their defaults filled in."""
        return method_options(self.config.method) | self.config.method_options

    def _same_options(self, folder: Path) -> None:
        """Refuse a run of an earlier version of the package whose defaults were others.

        An option that the run does not know came later, and at its default changes nothing.
        """
        path = folder / "options.json"
        if not path.is_file():
            return
        theirs = method_options(self.config.method) | read_json(path)
        if theirs != self._options():
            raise ValueError(
                f"the run in {folder} was made with the options {theirs}, which were the defaults then; now "
                f"they are {self._options()}. Delete the folder to run it anew, or name the options in "
                f"method_options"
            )

    def _train_new(self, folder: Path) -> None:
        config, images = self.config, self.new_images
        model, method = self._new_parts()
        write_json(folder / "options.json", self._options())
        epochs = config.epochs
        if config.budget == "passes":
            epochs = round(epochs / method.embedded_share)
        settings = self._settings(epochs, config.lr, 2 * config.seed + 1)
        self.say(f"{method.title}: {images.num_classes} classes, {len(images)} images, {epochs} epochs")
        history = self._train(model, method, images, settings, folder, old=self._known)
        self._keep(model, method, history, folder, self.old.test)

    def evaluate(self) -> Run:
        """Measure the new model against the old one and complete the run folder.

        Returns:
            the run; when its metrics are there already, nothing is computed.
        """
        folder = self.config.run_folder
        self._same_options(folder)
        if is_complete(folder):
            self.say(f"{self.config.run_id}: read from {shown_path(folder)}")
            return Run(folder)
        started = time.time()
        new, gallery = self.new, self.new.gallery
        metrics, draws = measure(
            self.old.test,
            new.test,
            self.data.test.labels,
            cross=None if gallery is None else (new.query, gallery),
            certainty=self._certainty(),
            draws=self.config.bootstrap_draws,
        )
        if self.config.method == "independent":
            for prefix, adapted in self._adapters().items():
                metrics |= _renamed(adapted.metrics, "new_old", f"{prefix}/new_old")
                draws |= _renamed(adapted.draws, "new_old", f"{prefix}/new_old")
        self._finish(folder, metrics, draws, self.new, self.new_images, started)
        return Run(folder)

    def _certainty(self) -> np.ndarray | None:
        """How sure the old classifier is of each gallery image, for the order of backfill."""
        classifier, features = self.old.classifier, self.old.test
        if classifier.width != features.shape[1] or classifier.num_classes < 2:
            return None
        with torch.inference_mode():
            return margin(classifier.logits(features.to(classifier.weight.device)))

    def _adapters(self) -> dict[str, Comparison]:
        """The cross-test of the independent model after a linear map, fitted on the training set."""
        source, target = self.old_system.features, self.training_features
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
            per_identity=config.per_identity,
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
        def validate(model: EmbeddingModel) -> dict[str, float]:
            labels = self.data.val.labels
            features = self._embed(deployed(model, method), self.data.val.images)
            values = {"new_new": verification(features, labels, fars=FARS[:2])}
            pair = None if old is None else compared(method, features, self.old.val)
            if pair is not None:
                rows = torch.arange(len(labels))
                values["new_old"] = verification(
                    pair[0], labels, pair[1], labels, query_ids=rows, gallery_ids=rows, fars=FARS[:2]
                )
            looks = {
                f"{pair}/{tar_name(far)}": tar
                for pair, value in values.items()
                for far, tar in zip(value.fars, value.tar, strict=True)
            }
            if pair is not None:
                held = constraints(self.old.val, features, labels, cross=pair)
                looks |= {f"constraint{k}/share": share for k, share in enumerate(held.share, start=1)}
            return looks

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

    def _keep(
        self,
        model: EmbeddingModel,
        method: CompatibilityLoss,
        history: list[dict[str, float]],
        folder: Path,
        old_test: Tensor | None = None,
    ) -> None:
        """Embed test and validation images, keep everything, and drop the checkpoint."""
        whole = deployed(model, method)
        features = {
            "test": self._embed(whole, self.data.test.images),
            "val": self._embed(whole, self.data.val.images),
        }
        pair = None if old_test is None else compared(method, features["test"], old_test)
        if pair is not None:
            features["query"], features["gallery"] = pair
        keep_side(folder, model, method, history, features)
        (folder / "checkpoint.pt").unlink(missing_ok=True)

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
        metrics = metrics | {
            "train/epochs": len(history),
            "train/steps": int(sum(row["steps"] for row in history)),
            "train/seconds": sum(row["seconds"] for row in history),
            "train/backbone_images": sum(row["backbone_images"] for row in history),
        }
        if all("processor_seconds" in row for row in history):
            metrics["train/processor_seconds"] = sum(row["processor_seconds"] for row in history)
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


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _short(value: float) -> float:
    """Five digits are enough for an interval, and keep the file small."""
    return float(f"{float(value):.5g}")
