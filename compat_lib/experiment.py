"""The pipeline of one experiment, step by step as the notebooks call it.

    experiment = Experiment(config)
    experiment.data, experiment.scenario     # images and who trains on what
    old = experiment.train_old()             # the old model: trained, or read when it has been
    new = experiment.train()                 # the new model by the configured method, likewise
    run = experiment.evaluate()              # metrics into the run folder; the run is complete

Each step first looks into the run folder, so a notebook that is run again, or was killed, repeats
nothing that had finished. Two processes that want the same model do not train it twice: the second
waits for the first. Processes that torchrun started run it together; the first one measures and
writes. What the configuration cannot do is refused before anything is trained.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn

from compat_lib import data as datasets
from compat_lib import distributed
from compat_lib.adapted import with_old_query, without_training
from compat_lib.config import ExperimentConfig, project_path, shown_path
from compat_lib.data.encoded import EncodedImages
from compat_lib.data.images import ImageSet, Splits, tensor_digest
from compat_lib.data.scenarios import Scenario, named_classes, other_set, split
from compat_lib.evaluation.compatibility import tar_name
from compat_lib.evaluation.four_constraints import constraints
from compat_lib.evaluation.orders import margin
from compat_lib.evaluation.protocols.measure import measure_adapters, measure_protocol, one_test
from compat_lib.evaluation.protocols.needs import refuse_protocol
from compat_lib.evaluation.rank_merge import merged_indexes_curve
from compat_lib.evaluation.records import Record, Records
from compat_lib.evaluation.tar import FARS, verification
from compat_lib.evaluation.upgrade import QUARTERS
from compat_lib.files import explained, load_tensors, map_rows, save_tensors
from compat_lib.losses import build_method, find_method, method_options
from compat_lib.losses.base import CompatibilityLoss
from compat_lib.models import EmbeddingModel
from compat_lib.old_features import read_old_features
from compat_lib.old_system import MAPPED, OldSystem
from compat_lib.recipe import (
    classifier_of,
    compared,
    network,
    network_made_of,
    refuse_distractors,
    refuse_few_vertices,
    refuse_impossible,
    refuse_lonely,
    settings_of,
    task,
)
from compat_lib.runs import (
    ADVICE,
    Run,
    TrainedModel,
    deployed,
    environment,
    is_complete,
    is_trained,
    keep_model,
    read_model,
    refuse_changed,
    write_json,
    write_metrics,
)
from compat_lib.shared_old import take_old
from compat_lib.training import TrainingSettings, embed_together, train

LOOK = 1000  # validation images of a look during training
# where and how, not what: passed on to other runs
_TRAINING = "training_features.safetensors"
_WHERE = ("data_root", "runs_root", "device", "threads", "workers", "checkpoint_steps", "checkpoint_minutes")


class Experiment:
    """One configuration, and the calls that train and measure by it.

    Args:
        config: the validated configuration.
        say: receives one line an epoch and a word on what was found finished.

    Raises:
        ValueError: the configuration asks for what cannot be: an unknown method, option, network or device,
            widths that the method cannot compare, or more threads than this machine has cores.
    """

    def __init__(self, config: ExperimentConfig, say: Callable[[str], None] = print) -> None:
        distributed.start(config.device)  # before anything touches a GPU: each process has its own
        self.config = config
        self._first = distributed.rank() == 0  # of several processes, the one that writes
        self.say = say if self._first else lambda line: None
        self._old: TrainedModel | None = None
        self._new: TrainedModel | None = None
        refuse_impossible(config)
        if config.threads:
            torch.set_num_threads(config.threads)

    # -- data ------------------------------------------------------------------------------------

    @cached_property
    def data(self) -> Splits:
        """Training, validation and test images of the data set."""
        return self._load(self.config.dataset, self.config.dataset_options)

    def _load(self, name: str, options: dict[str, Any]) -> Splits:
        config = self.config
        if "path" in options:  # a kernel starts in notebooks/, the workflow at the root
            options = options | {"path": project_path(options["path"])}
        return datasets.load(
            name,
            root=config.data_root or os.environ.get("COMPAT_DATA") or project_path("data"),
            size=config.size,
            seed=config.data_seed,
            stream=config.stream,
            **options,
        )

    @cached_property
    def scenario(self) -> Scenario:
        """Which training images the old and the new model see."""
        config, train, chosen = self.config, self.data.train, None
        if config.old_dataset or config.old_features:
            return other_set(train.labels)
        if config.old_classes:
            chosen = named_classes(config.old_classes, train.classes, also=self.data.val.classes)
        return split(
            train.labels,
            config.scenario,
            share=config.old_share,
            shuffle_seed=config.shuffle_seed,
            chosen=chosen,
        )

    @cached_property
    def old_images(self) -> ImageSet:
        """The old model's training set, labelled 0..C_o-1.

        Raises:
            ValueError: images of an `old_dataset` have another number of channels, or the old features come
                from a file.
        """
        config = self.config
        if config.old_features:
            raise ValueError(
                "old_features come from a file, and nothing says on which images their model was trained"
            )
        if config.old_dataset:
            images = self._load(config.old_dataset, config.old_dataset_options).train
            channels = [images.images.shape[1], self.data.train.images.shape[1]]
            if channels[0] != channels[1]:
                raise ValueError(
                    f"images of old_dataset {config.old_dataset} and dataset {config.dataset} have "
                    f"{channels[0]} and {channels[1]} channels: no network reads both"
                )
            return images
        return self._training_set(self.scenario.old_rows, self.scenario.old_labels, self.scenario.old_classes)

    @cached_property
    def new_images(self) -> ImageSet:
        """The new model's training set, labelled 0..C_n-1."""
        return self._training_set(self.scenario.new_rows, self.scenario.new_labels, self.scenario.new_classes)

    def _training_set(self, rows: Tensor, labels: Tensor, classes: Tensor) -> ImageSet:
        names = [self.data.train.classes[index] for index in classes.tolist()]
        return self.data.train.with_labels(rows, labels, names)

    @cached_property
    def _old_made_of(self) -> dict[str, str]:
        """What the old side's files belong to: they are refused when it has changed."""
        parts = {"training": self.new_images, "validation": self.data.val, "test": self.data.test}
        if self.config.old_dataset or self.config.old_classes:  # which the configuration does not determine
            parts["old training"] = self.old_images
        digests = {f"{part} images": images.digest() for part, images in parts.items()}
        digests |= {f"list {name}": tensor_digest(value) for name, value in self.data.lists.items()}
        if self._old_features is not None:
            digests |= {f"old {part} features": tensor_digest(v) for part, v in self._old_features.items()}
        return digests | network_made_of(self.config, "old")

    @cached_property
    def _old_features(self) -> dict[str, Tensor] | None:
        """The old features of train, val and test from a file; None where an old model is at hand."""
        if self.config.old_features is None:
            return None
        return read_old_features(self.config, self.data)

    @cached_property
    def _made_of(self) -> dict[str, str]:
        """The same of the new side; an option's default may be another one in a later version."""
        options = method_options(self.config.method) | self.config.method_options
        made_of = self._old_made_of | network_made_of(self.config, "new")
        return made_of | {"method options": json.dumps(options, sort_keys=True)}

    @property
    def _source(self) -> str:
        """Where the images come from, for a sentence about changed ones."""
        path = self.config.dataset_options.get("path")
        return f" in {path}" if path else ""

    # -- the old side ----------------------------------------------------------------------------

    @property
    def old(self) -> TrainedModel:
        """The old model, once :meth:`train_old` or :meth:`train` was called.

        Raises:
            RuntimeError: neither was called.
        """
        if self._old is None:
            raise RuntimeError("there is no old model yet: call experiment.train_old() first")
        return self._old

    def train_old(self) -> TrainedModel:
        """The deployed model: trained, read when it has been, or the new model of an earlier upgrade.

        Raises:
            ValueError: the data have changed since it was trained, or a part of them has no two images of
                one class, so that nothing could be measured.
        """
        if self._old is None:
            folder = self.config.old_folder
            refuse_lonely(self.data.val, "val", self.config)
            refuse_few_vertices(self.config, self.data.train.num_classes)
            if self.config.protocol in ("pairs", "leave-one-out"):
                refuse_lonely(self.data.test, "test", self.config)
                refuse_distractors(self.data.test, self.config)
            refuse_protocol(self.config.protocol, self.data.name, self.data.test, self.data.lists)
            with _only_one(folder):
                before = self._predecessor()
                if not distributed.agreed(is_complete(folder)):
                    self._provide_old(folder, before)
                self._old = before.new if before else self._read_old(folder)
        return self._old

    def _provide_old(self, folder: Path, before: Experiment | None) -> None:
        """Fill the old side's folder: from a file of features, another experiment's model, or by training."""
        if self._old_features is not None:
            self._keep_given(folder, self._old_features)
        elif before is not None:
            self._make_old(folder, before)
        else:  # who wants the same old model meanwhile waits, in whatever experiment
            with _only_one(folder.parent.parent / f".old-{self.config.old_side}"):
                found = take_old(self.config, self._old_made_of) if self._first else None
                if (found := distributed.agreed(found)) is not None:
                    self.say(f"old model: that of {shown_path(found)}, since only the new side differs")
                else:
                    self._make_old(folder, before)

    def _predecessor(self) -> Experiment | None:
        """The experiment whose new model plays the old one here, trained; None when the old model is our own.

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
        where = {k: getattr(config, k) for k in _WHERE}
        earlier = Experiment(ExperimentConfig.from_dict(fields | where), say=self.say)
        model = earlier.train()
        width = model.test.shape[1]
        if model.classifier.width != width:
            raise ValueError(
                f"{config.old_run} stores features of width {width} and classifies "
                f"{model.classifier.width} of them: no method here reads such an old model; go on from "
                f"another method than {earlier.config.method}"
            )
        theirs = (earlier.config.new_backbone, earlier.config.new_loss, width)
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
            RuntimeError: the old model is not trained yet.
        """
        return OldSystem.load(self.config.old_folder / "old_system", model=self.old.model)

    @property
    def old_run(self) -> Run:
        """The old model's run folder.

        Raises:
            RuntimeError: the old model is not trained yet.
        """
        _ = self.old
        return Run(self.config.old_folder)

    def _make_old(self, folder: Path, before: Experiment | None) -> None:
        started = time.time()
        if before is None:
            if not distributed.agreed(is_trained(folder)):
                self._train_old(folder)
            model, class_map, images = self._read_old(folder), self.scenario.class_map, self.old_images
            # What does not fit in memory as images may not fit as features either.
            encoded = isinstance(self.new_images.images, EncodedImages)
            on_disk = folder / "old_system" / MAPPED if encoded else None
            embedded = self.embed(model.model, self.new_images.images, on_disk)
            features, loss = on_disk or embedded, self.config.old_loss
        else:
            model, features = before.new, before.training_features()
            features = before._training_file or features
            images, loss = self.new_images, before.config.new_loss
            class_map = torch.arange(images.num_classes)
        if self._first:
            self._finish_old(folder, model, features, class_map, loss, images, started)
        distributed.agreed(None)

    def _finish_old(
        self,
        folder: Path,
        model: TrainedModel,
        features: Tensor,
        class_map: Tensor,
        loss: str,
        images: ImageSet,
        started: float,
    ) -> None:
        """Write what is left of the old system, then its run."""
        bias = model.classifier.bias
        OldSystem.from_arrays(
            features,
            self.new_images.labels,
            num_classes=self.new_images.num_classes,
            classifier_weight=model.classifier.weight.detach().cpu(),
            classifier_bias=None if bias is None else bias.detach().cpu(),
            classifier_scale=None if loss in ("softmax", "simplex") else self.config.scale,
            class_map=class_map,
        ).save(folder / "old_system")
        records = self._test(model.test).changed(query="old", gallery="old")
        self._finish(folder, records, model, images, started, run_id=folder.name, method="old")

    def _keep_given(self, folder: Path, features: dict[str, Tensor]) -> None:
        """The old side's run from features of a file, in the place of an old model's training."""
        started = time.time()
        if self._first:
            kept = {part: features[part] for part in ("test", "val")}
            images = self.new_images
            nothing_known = self.scenario.class_map  # of what the old model was trained on
            given = {"num_classes": images.num_classes, "class_map": nothing_known}
            OldSystem.from_arrays(features["train"], images.labels, **given).save(folder / "old_system")
            keep_model(folder, None, None, [], kept, self._old_made_of)
            model = self._read_old(folder)
            records = self._test(model.test).changed(query="old", gallery="old")
            self._finish(folder, records, model, images, started, run_id=folder.name, method="old")
        distributed.agreed(None)

    def _train_old(self, folder: Path) -> None:
        config, images = self.config, self.old_images
        model, method = self._old_parts()
        settings = settings_of(config, config.old_epochs, config.old_lr, 2 * config.seed)
        self.say(f"old model: {images.num_classes} classes, {len(images)} images")
        history = self._train(model, method, images, settings, folder)
        self._keep(model, method, history, folder)

    def _read_old(self, folder: Path) -> TrainedModel:
        return read_model(folder, *self._old_parts(), self.config.device, self._old_made_of, self._source)

    def _old_parts(self) -> tuple[EmbeddingModel, CompatibilityLoss] | tuple[None, None]:
        config = self.config
        if config.old_features:
            return None, None
        torch.manual_seed(2 * config.seed)  # even seeds for old models, odd ones for new models
        model = network(config, "old", config.old_width, self.data.train)
        vertices = None if config.old_dataset else self.scenario.old_classes
        classes = self.old_images.num_classes
        classifier = classifier_of(config, config.old_loss, config.old_width, classes, vertices)
        return model, build_method("independent", None, classifier, **task(config))

    # -- the new side ----------------------------------------------------------------------------

    @property
    def new(self) -> TrainedModel:
        """The new model, once :meth:`train` was called.

        Raises:
            RuntimeError: it was not.
        """
        if self._new is None:
            raise RuntimeError("there is no new model yet: call experiment.train() first")
        return self._new

    def train(self) -> TrainedModel:
        """The new model, trained by the configured method, or read from the run folder."""
        if self._new is None:
            folder = self.config.run_folder
            self.train_old()
            with _only_one(folder):
                if not distributed.agreed(is_trained(folder)):
                    self._train_new(folder)
                self._new = read_model(
                    folder, *self.new_parts(), self.config.device, self._made_of, self._source
                )
        return self._new

    @property
    def cross(self) -> tuple[Tensor, Tensor]:
        """(query, gallery): new and old test features as the cross-test takes them.

        Where the method gives no such test (unequal widths), the features as they are.
        """
        return self.new.cross or (self.new.test, self.old.test)

    @cached_property
    def oracle(self) -> Experiment:
        """The same experiment without compatible training; this one itself when it has none."""
        config = self.config
        if config.method == "independent":
            return self
        changes = {"method": "independent", "method_options": {}, "budget": "steps"}
        return type(self)(config.changed(**changes), say=self.say)

    def training_features(self) -> Tensor:
        """The new model's features of its training set, float32 ``[N, width]``; kept in the run folder.

        Memory-mapped where the images are encoded.
        """
        model, made_of, mapped = self.new, self._made_of, self._training_file
        path = mapped.with_suffix(".json") if mapped else self.config.run_folder / _TRAINING
        with _only_one(self.config.run_folder):
            if distributed.agreed(path.is_file()):
                if mapped:
                    tensors, known = {"features": map_rows(mapped)}, json.loads(path.read_text())
                else:
                    tensors, known = load_tensors(path)
                refuse_changed(path, known, made_of, self._source)
                return tensors["features"]
            features = self.embed(model.model, self.new_images.images, mapped)
            if self._first and mapped:
                write_json(path, made_of)  # last: the features are whole
            elif self._first:
                save_tensors({"features": features}, path, made_of, advice=ADVICE)
            distributed.agreed(None)
        return features

    @property
    def _training_file(self) -> Path | None:
        """Where these features lie memory-mapped; None: in memory."""
        encoded = isinstance(self.new_images.images, EncodedImages)
        return (self.config.run_folder / _TRAINING).with_suffix(".npy") if encoded else None

    def new_parts(self) -> tuple[EmbeddingModel, CompatibilityLoss]:
        """The new network as it starts, and the method with its classifier; the old model must be there."""
        config, known = self.config, self._known
        torch.manual_seed(2 * config.seed + 1)
        width = find_method(config.method).model_width(config.old_width, config.new_width)
        model = network(config, "new", width, self.data.train)
        vertices, classes = self.scenario.new_classes, self.new_images.num_classes
        classifier = classifier_of(config, config.new_loss, config.new_width, classes, vertices)
        method = build_method(config.method, known, classifier, **task(config), **config.method_options)
        return model, method

    @cached_property
    def _known(self) -> OldSystem:
        """What the method is told: the old system, and the oracle's features when it needs them."""
        if "oracle" not in find_method(self.config.method).needs:
            return self.old_system
        self.oracle.train()
        return self.old_system.with_oracle(self.oracle.training_features())

    def _train_new(self, folder: Path) -> None:
        config, images = self.config, self.new_images
        model, method = self.new_parts()
        epochs = config.epochs
        if config.budget == "passes":
            epochs = round(epochs / method.embedded_share)
        settings = settings_of(config, epochs, config.lr, 2 * config.seed + 1)
        self.say(f"{method.title}: {images.num_classes} classes, {len(images)} images, {epochs} epochs")
        history = self._train(model, method, images, settings, folder, old=self._known)
        self._keep(model, method, history, folder, self.old.test)

    def evaluate(self) -> Run:
        """Measure the new model against the old one and complete the run folder; trains what is missing.

        Returns:
            the run; when its metrics are there already, nothing is computed.

        Raises:
            ValueError: the images have changed since the run was made.
        """
        config, folder = self.config, self.config.run_folder
        if distributed.agreed(is_complete(folder)):
            stored = Run(folder).config
            refuse_changed(folder, stored["made_of"], self._made_of, self._source)
            # A run's name says what differs from the defaults, and a later version may have other defaults.
            now = {name: value for name, value in config.to_dict().items() if name in stored}
            refuse_changed(folder, stored, {k: v for k, v in now.items() if k not in _WHERE}, self._source)
            self.say(f"{config.run_id}: read from {shown_path(folder)}")
            return Run(folder)
        started = time.time()
        self.train()
        target = self.training_features() if config.method == "independent" else None  # for its adapters
        if self._first:
            self._measure(target, started)
        distributed.agreed(None)
        return Run(folder)

    def _measure(self, target: Tensor | None, started: float) -> None:
        config, new = self.config, self.new
        records = measure_protocol(
            config.protocol,
            self.old.test,
            new.test,
            self.data.test,
            self.data.lists,
            cross=new.cross,
            certainty=self._certainty(),
            learned=self._learned(),
            draws=config.bootstrap_draws,
        )
        records += self._adapters(target)
        self._finish(config.run_folder, records, new, self.new_images, started)

    def _certainty(self) -> np.ndarray | None:
        """How sure the old classifier is of each gallery image, for the order of backfill."""
        classifier, features = self.old.classifier, self.old.test
        if classifier is None or classifier.width != features.shape[1] or classifier.num_classes < 2:
            return None
        with torch.inference_mode():
            return margin(classifier.logits(features.to(classifier.weight.device)))

    def _learned(self) -> np.ndarray | None:
        """The order of backfill that the method learnt, of the test images as a gallery."""
        method, old = self.new.method, self.old.test
        with torch.inference_mode():
            order = method.backfill_order(old.to(method.classifier.weight.device))
        return None if order is None else order.cpu().numpy()

    def _adapters(self, target: Tensor | None) -> list[Record]:
        """The cross-test through maps and interpolations, which need no other training than the run's.

        Args:
            target: the independent model's features of its training set; None for another method's run.
        """
        old, new, config = self.old, self.new, self.config
        val = old.val, new.val, self.data.val.labels
        if target is not None:
            adapted = without_training(
                (self.old_system.features, target, self.new_images.labels), val, (old.test, new.test)
            )
        elif new.cross is not None:
            query, gallery = compared(new.method, new.val, old.val)
            adapted = with_old_query((gallery, query, val[-1]), new.cross)
        else:
            return []
        found = [
            Record("new", "old", "alpha", one.alpha, adapter=name)
            for name, one in adapted.items()
            if one.alpha is not None
        ]
        forms = {name: (one.query, one.gallery) for name, one in adapted.items()}
        images, lists, draws = self.data.test, self.data.lists, config.bootstrap_draws
        found += measure_adapters(config.protocol, old.test, forms, images, lists, draws=draws)
        if target is not None and config.protocol == "pairs":  # it needs no compatible model
            merged = merged_indexes_curve(old.test, new.test, images.labels, shares=QUARTERS, fars=())
            found += merged.records.changed(adapter="rank-merge")
        return found

    def _test(self, query: Tensor, gallery: Tensor | None = None) -> Records:
        """One test of the run's protocol; the self-test without a gallery."""
        config, data = self.config, self.data
        return one_test(config.protocol, query, gallery, data.test, data.lists, draws=config.bootstrap_draws)

    # -- shared by both sides --------------------------------------------------------------------

    def embed(
        self,
        model: nn.Module,
        images: Tensor | EncodedImages,
        out: Path | None = None,
        flip: bool = False,
    ) -> Tensor:
        """Features of images by a model of this run, float32 ``[N, width]``, in the run's precision.

        Args:
            model: maps float pixels to features, such as ``experiment.new.model``.
            images: uint8 ``[N, C, H, W]``, or encoded.
            out, flip: see :func:`compat_lib.models.embed`.
        """
        how = {name: getattr(self.config, name) for name in ("device", "precision", "workers")}
        return embed_together(model, images, out, flip=flip, **how)

    def _train(
        self,
        model: EmbeddingModel,
        method: CompatibilityLoss,
        images: ImageSet,
        settings: TrainingSettings,
        folder: Path,
        old: OldSystem | None = None,
    ) -> list[dict[str, float]]:
        return train(
            model,
            method,
            images.images,
            images.labels,
            settings,
            old=old,
            checkpoint=folder / "checkpoint.pt",
            made_of={"images": images.digest()}
            | network_made_of(self.config, "old" if old is None else "new"),
            validate=lambda model: self._look(model, method, old),
            validate_every=self.config.validate_every,
            say=self.say,
        )

    @cached_property
    def _looked_at(self) -> Tensor:
        """Rows of whole validation identities, about LOOK images: enough for a curve, and much faster."""
        labels = self.data.val.labels
        images = torch.bincount(labels)
        order = (images < 2).long().argsort(stable=True)  # those without a pair last
        shown = order[images[order].cumsum(0) <= LOOK]
        # Two at least: without pairs of different identities nothing can be measured.
        return torch.isin(labels, torch.cat([order[:2], shown])).nonzero()[:, 0]

    def _look(
        self, model: EmbeddingModel, method: CompatibilityLoss, old: OldSystem | None
    ) -> dict[str, float]:
        """What the history says of the validation identities; the first ones, where they have many images."""
        images, rows = self.data.val, self._looked_at
        labels = images.labels[rows]
        features = self.embed(deployed(model, method), images.images[rows])
        if not self._first:
            return {}
        values = {"new_new": verification(features, labels, fars=FARS[:2])}
        before = None if old is None else self.old.val[rows]
        cross = None if before is None else compared(method, features, before)
        if cross is not None:
            query, gallery = cross
            values["new_old"] = verification(
                query, labels, gallery, labels, query_ids=rows, gallery_ids=rows, fars=FARS[:2]
            )
        looks = {
            f"{pair}/{tar_name(far)}": tar
            for pair, value in values.items()
            for far, tar in zip(value.fars, value.tar, strict=True)
        }
        if cross is not None:
            held = constraints(before, features, labels, cross=cross)
            looks |= {f"constraint{k}/share": share for k, share in enumerate(held.share, start=1)}
        return looks

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
        flip = self.config.flip_test or self.config.protocol == "ijb"  # whose features are such sums
        features = {
            "test": self.embed(whole, self.data.test.images, flip=flip),
            "val": self.embed(whole, self.data.val.images),
        }
        cross = None if old_test is None else compared(method, features["test"], old_test)
        if cross is not None:
            features["query"], features["gallery"] = cross
        made_of = self._old_made_of if old_test is None else self._made_of
        if self._first:
            keep_model(folder, model, method, history, features, made_of)
            (folder / "checkpoint.pt").unlink(missing_ok=True)
        distributed.agreed(None)

    def _finish(
        self,
        folder: Path,
        records: Records,
        model: TrainedModel,
        images: ImageSet,
        started: float,
        run_id: str | None = None,
        method: str | None = None,
    ) -> None:
        """Write the run's files, metrics last."""
        config, history = self.config, model.history
        cost = {
            "epochs": len(history),
            "steps": int(sum(row["steps"] for row in history)),
            "seconds": sum(row["seconds"] for row in history),
            "backbone_images": sum(row["backbone_images"] for row in history),
        }
        if all("processor_seconds" in row for row in history):
            cost["processor_seconds"] = sum(row["processor_seconds"] for row in history)
        records += [Record(None, None, f"train/{name}", value) for name, value in cost.items()]
        facts = {
            "images": {"train": len(images), "val": len(self.data.val), "test": len(self.data.test)},
            "classes": {
                "train": images.num_classes,
                "val": self.data.val.num_classes,
                "test": self.data.test.num_classes,
            },
            "parameters": sum(p.numel() for p in model.model.parameters()) if model.model else None,
        } | ({"skipped": list(self.data.skipped)} if self.data.skipped else {})
        identity = {
            "experiment_id": config.experiment_id,
            "run_id": run_id or config.run_id,
            "old_run_id": config.old_folder.name,
            "made_of": self._made_of if method is None else self._old_made_of,
        }
        described = config.to_dict() | ({"method": method} if method else {}) | identity
        # Where the data and the runs lay is nobody's business, and differs between machines.
        described = {name: v for name, v in described.items() if name not in ("data_root", "runs_root")}
        write_json(folder / "config.json", described | {"facts": facts})
        made = {"device": config.device, "processes": distributed.world()}
        times = {"started": _clock(started), "finished": _clock(time.time())}
        write_json(folder / "environment.json", environment() | made | times)
        write_metrics(folder, records)


def _only_one(folder: Path) -> AbstractContextManager:
    """A lock that the operating system releases when its holder dies; the first process holds it for all."""
    if distributed.rank():
        return nullcontext()
    with explained(folder, ADVICE):
        folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / ".lock")


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
