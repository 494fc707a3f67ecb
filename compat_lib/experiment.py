"""The pipeline of one experiment, step by step as the notebooks call it.

    experiment = Experiment(config)
    experiment.data, experiment.scenario     # images and who trains on what, see `experiment_data`
    old = experiment.train_old()             # the old model: trained, or read when it has been
    new = experiment.train()                 # the new model by the configured method, likewise
    run = experiment.evaluate()              # metrics into the run folder; the run is complete

Each step first looks into the run folder, so a notebook that is run again, or was killed, repeats
nothing that had finished. Two processes that want the same model do not train it twice: the second
waits for the first. Processes that torchrun started run it together; the first one measures and
writes. What the configuration cannot do is refused before anything is trained.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, wraps
from pathlib import Path

import torch
from torch import Tensor, nn

from compat_lib import distributed, runs, trained_model
from compat_lib.config import NEW_SIDE, ONE_RUN_ONLY, ExperimentConfig, shown_path
from compat_lib.data.encoded import EncodedImages
from compat_lib.data.images import ImageSet, seeded_generator, torch_defaults
from compat_lib.experiment_data import ExperimentData
from compat_lib.files import explained, map_rows
from compat_lib.losses import build_method, find_method
from compat_lib.losses.base import CompatibilityLoss
from compat_lib.measuring import measure_old, measure_upgrade, validate, whole_identities
from compat_lib.models import EmbeddingModel
from compat_lib.old_sources import find_predecessor, take_old
from compat_lib.old_system import MAPPED, OldSystem
from compat_lib.recipe import classifier_of, network, refuse_impossible, settings_of
from compat_lib.runs import ADVICE, Run
from compat_lib.trained_model import TrainedModel, compared, deployed, named
from compat_lib.training import TrainingSettings, embed_together, train

Parts = tuple[EmbeddingModel, CompatibilityLoss]
_TURN = threading.RLock()  # torch's random numbers and its number of threads are the process's own


def _in_turn(step: Callable) -> Callable:
    """A step of an experiment: alone in this process, on its number of threads, by torch's own defaults."""

    @wraps(step)
    def run(self: Experiment, *given, **named):
        with _TURN, torch_defaults():
            before = torch.get_num_threads()
            torch.set_num_threads(self.config.threads or before)
            try:
                return step(self, *given, **named)
            finally:
                torch.set_num_threads(before)

    return run


class Experiment(ExperimentData):
    """One configuration, and the calls that train and measure by it.

    What cannot be built is refused: a method, option, network or device that is not there, widths that the
    method cannot compare, more threads than this machine has cores. `say` receives one line an epoch and a
    word on what was found finished.
    """

    def __init__(self, config: ExperimentConfig, say: Callable[[str], None] = print) -> None:
        distributed.start(config.device)  # before anything touches a GPU: each process has its own
        super().__init__(config)
        self._first = distributed.rank() == 0  # of several processes, the one that writes
        self.say = say if self._first else lambda line: None
        self._before: Experiment | None = None  # of a chain: the upgrade whose new model is the old one here
        self._old: TrainedModel | None = None
        self._new: TrainedModel | None = None
        with _TURN, torch_defaults():
            refuse_impossible(config)

    # -- the old side ----------------------------------------------------------------------------

    @property
    def old(self) -> TrainedModel:
        """The old model, once :meth:`train_old` or :meth:`train` was called; before, a RuntimeError."""
        if self._old is None:
            raise RuntimeError("there is no old model yet: call experiment.train_old() first")
        return self._old

    @_in_turn
    def train_old(self) -> TrainedModel:
        """The deployed model: trained, read when it has been, or the new model of an earlier upgrade.

        What :meth:`refuse_data` refuses, and data that have changed since, are a FileNotFoundError or
        ValueError.
        """
        if self._old is None:
            folder = self.config.old_folder
            self.refuse_data()
            with runs.only_one(folder):
                before = find_predecessor(self)
                if not distributed.agreed(runs.is_complete(folder)):
                    self._provide_old(folder, before)
                model = before.new if before else self._read_old(folder)
                stored = Run(folder).config
                self.refuse_other_fields(folder, stored, (*ONE_RUN_ONLY, *NEW_SIDE))
                if before:
                    runs.refuse_changed(folder, model.as_old | stored["made_of"], model.as_old)
                self._old, self._before = model, before
        return self._old

    def _provide_old(self, folder: Path, before: Experiment | None) -> None:
        """Fill the old model's folder: with that of another experiment, or by making one."""
        if before is not None or self.given_features is not None:
            return self._make_old(folder, before)
        # Who wants the same old model meanwhile waits, in whatever experiment.
        with runs.only_one(folder.parent.parent / f".old-{self.config.old_side}"):
            found = take_old(self.config, self.old_made_of) if self._first else None
            if (found := distributed.agreed(found)) is None:
                return self._make_old(folder, None)
            self.say(f"old model: that of {shown_path(found)}, since only the new side differs")

    def _make_old(self, folder: Path, before: Experiment | None) -> None:
        """Train an old model, unless one is given; write what is left of the old system, then its run."""
        started, images, class_map = time.time(), self.new_images, self.scenario.class_map
        # What does not fit in memory as images may not fit as features either.
        on_disk = folder / "old_system" / MAPPED if isinstance(images.images, EncodedImages) else None
        if before is not None:
            model, features = before.new, before.training_features()
            on_disk = on_disk and before._training_file
            class_map = torch.arange(images.num_classes)
        elif self.given_features is not None:  # nothing is known of what the old model was trained on
            on_disk, features = None, self.given_features["train"]
            if self._first:
                kept = {part: self.given_features[part] for part in ("test", "val")}
                trained_model.keep_model(folder, None, None, [], kept, self.old_made_of)
            distributed.agreed(None)
            model = self._read_old(folder)
        else:
            config, images = self.config, self.old_images
            if not distributed.agreed(trained_model.is_trained(folder)):
                settings = settings_of(config, config.old_epochs, config.old_lr, 2 * config.seed)
                self.say(f"old model: {images.num_classes} classes, {len(images)} images")
                self._train(folder, self._old_parts(), images, settings)
            model = self._read_old(folder)
            features = self.embed(model.model, self.new_images.images, on_disk)
        if self._first:
            OldSystem.from_arrays(
                on_disk or features,
                self.new_images.labels,
                num_classes=self.new_images.num_classes,
                class_map=class_map,
                **model.old_classifier,
            ).save(folder / "old_system")
            records = measure_old(self.config, self.data, model)
            made_of = self.old_made_of | (model.as_old if before else {})
            runs.write_run(folder, self.config, records, model, self.data, images, made_of, started)
        distributed.agreed(None)

    def _read_old(self, folder: Path) -> TrainedModel:
        parts = (None, None) if self.config.old_features else self._old_parts()
        return trained_model.read_model(folder, *parts, self.config.device, self.old_made_of, self.source)

    def _old_parts(self) -> Parts:
        config = self.config
        vertices = None if config.old_dataset else self.scenario.old_classes
        asked = config, config.old_loss, config.old_width, self.old_images.num_classes, vertices
        with torch.random.fork_rng(devices=[]):  # the caller's own draws go on
            torch.manual_seed(2 * config.seed)
            model = network(config, "old", config.old_width, self.data.train)
            return model, build_method("independent", None, classifier_of(*asked), task_loss=config.task_loss)

    @cached_property
    def old_system(self) -> OldSystem:
        """What a method may use of the old model: features of the new training set, and the rest.

        `old_outliers` are in it, and in nothing else: the old model, its test features and the files stay.
        """
        config = self.config
        old = OldSystem.load(config.old_folder / "old_system", model=self.old.model)
        old = replace(old, maps=self.old.method.maps) if self.old.method else old
        draws = seeded_generator("old outliers", config.seed)
        return old.with_outliers(config.old_outliers, draws) if config.old_outliers else old

    @property
    def old_run(self) -> Run:
        """The old model's run folder."""
        _ = self.old
        return Run(self.config.old_folder)

    # -- the new side ----------------------------------------------------------------------------

    @property
    def new(self) -> TrainedModel:
        """The new model, once :meth:`train` was called; before, a RuntimeError."""
        if self._new is None:
            raise RuntimeError("there is no new model yet: call experiment.train() first")
        return self._new

    @_in_turn
    def train(self) -> TrainedModel:
        """The new model, trained by the configured method, or read from the run folder."""
        if self._new is None:
            folder = self.config.run_folder
            self.train_old()
            with runs.only_one(folder):
                if not distributed.agreed(trained_model.is_trained(folder)):
                    self._train_new(folder)
                parts, device = self.new_parts(), self.config.device
                made_of = self.made_of | self.old.as_old
                self._new = trained_model.read_model(folder, *parts, device, made_of, self.source)
        return self._new

    def _train_new(self, folder: Path) -> None:
        config, images = self.config, self.new_images
        _, method = parts = self.new_parts()
        share = method.embedded_share if config.budget == "passes" else 1
        epochs = round(config.epochs / (share or 1))  # without a row to embed the training says so
        settings = settings_of(config, epochs, config.lr, self._new_seed)
        self.say(f"{method.title}: {images.num_classes} classes, {len(images)} images, {epochs} epochs")
        self._train(folder, parts, images, settings, old=self._known)

    def new_parts(self) -> Parts:
        """The new network as it starts, and the method with its classifier; the old model must be there."""
        config, known = self.config, self._known
        width = find_method(config.method).model_width(config.old_width, config.new_width)
        vertices, classes = self.scenario.new_classes, self.new_images.num_classes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._new_seed)
            model = network(config, "new", width, self.data.train)
            classifier = classifier_of(config, config.new_loss, config.new_width, classes, vertices)
            options = {"task_loss": config.task_loss, **config.method_options}
            method = build_method(config.method, known, classifier, **options)
        return model, method

    @property
    def _new_seed(self) -> int:
        """Of the new model's weights and batches; the old model must be there.

        Each generation of a chain has its own: networks that start from the same weights and see the same
        batches are comparable without any method.
        """
        seed = self.config.seed
        if self._before is None:
            return 2 * seed + 1  # odd, where the old model's is even
        return seeded_generator("next generation", self._before._new_seed, seed).initial_seed()

    @cached_property
    def _known(self) -> OldSystem:
        """What the method is told: the old system, and the oracle's features when it needs them."""
        if "oracle" not in find_method(self.config.method).needs:
            return self.old_system
        self.oracle.train()
        return self.old_system.with_oracle(self.oracle.training_features())

    @cached_property
    def oracle(self) -> Experiment:
        """The same experiment without compatible training; this one itself when it has none."""
        if self.config.method == "independent":
            return self
        changed = self.config.changed(method="independent", method_options={}, budget="steps")
        return type(self)(changed, say=self.say)

    @property
    def cross(self) -> tuple[Tensor, Tensor]:
        """(query, gallery): new and old test features as the cross-test takes them.

        Where the method gives no such test (unequal widths), the features as they are.
        """
        return self.new.cross or (self.new.test, self.old.test)

    @_in_turn
    def training_features(self) -> Tensor:
        """The new model's features of its training set, float32 ``[N, width]``, memory-mapped."""
        model, path = self.new.model, self._training_file
        whole = path.with_suffix(".json")  # written last
        with runs.only_one(path.parent):
            if distributed.agreed(whole.is_file()):
                runs.refuse_changed(path, runs.read_json(whole), self.made_of, self.source)
            else:
                with explained(path, ADVICE):
                    self.embed(model, self.new_images.images, path)
                if self._first:
                    runs.write_json(whole, self.made_of)
                distributed.agreed(None)
        return map_rows(path)

    @property
    def _training_file(self) -> Path:
        return self.config.run_folder / "training_features.npy"

    @_in_turn
    def evaluate(self) -> Run:
        """Measure the new model against the old one and complete the run folder; trains what is missing.

        When its metrics are there already, nothing is computed; a ValueError where the images have changed
        since.
        """
        config, folder = self.config, self.config.run_folder
        if distributed.agreed(runs.is_complete(folder)):
            stored = Run(folder).config
            runs.refuse_changed(folder, stored["made_of"], self.made_of, self.source)
            self.refuse_other_fields(folder, stored)
            self.say(f"{config.run_id}: read from {shown_path(folder)}")
            return Run(folder)
        started, pairs = time.time(), None
        new, images = self.train(), self.new_images
        if config.method == "independent":  # whose adapters are fitted on the training set
            pairs = (self.old_system.features, self.training_features(), images.labels)
        if self._first:
            records = measure_upgrade(config, self.data, self.old, new, pairs)
            runs.write_run(folder, config, records, new, self.data, images, self.made_of, started)
        distributed.agreed(None)
        return Run(folder)

    # -- shared by both sides --------------------------------------------------------------------

    @_in_turn
    def embed(
        self, model: nn.Module, images: Tensor | EncodedImages, out: Path | None = None, flip: bool = False
    ) -> Tensor:
        """Features of images by a model of this run; see :func:`compat_lib.models.embed`."""
        how = {name: getattr(self.config, name) for name in ("device", "precision", "workers")}
        return embed_together(model, images, out, flip=flip, **how)

    def _train(
        self,
        folder: Path,
        parts: Parts,
        images: ImageSet,
        settings: TrainingSettings,
        old: OldSystem | None = None,
    ) -> None:
        """Train a network by a method, embed test and validation images, and keep everything.

        `old` is what the method was told, of the new side; None: the old model itself is trained.
        """
        config, data, (model, method) = self.config, self.data, parts
        rows = whole_identities(data.val.labels)
        shown, labels = data.val.images[rows], data.val.labels[rows]
        before = None if old is None else self.old.val[rows]

        def look(model: EmbeddingModel) -> dict[str, float]:
            features = self.embed(deployed(model, method), shown)
            return validate(method, features, labels, before) if self._first else {}

        made_of = self.old_made_of if old is None else self.made_of | self.old.as_old
        how = {"checkpoint": folder / "checkpoint.pt", "made_of": {"images": images.digest()} | made_of}
        how |= {"validate": look, "validate_every": config.validate_every, "say": self.say}
        history = train(model, method, images.images, images.labels, settings, old=old, **how)
        whole = deployed(model, method)
        features = {"val": self.embed(whole, data.val.images)}
        for part, tested in data.tests.items():
            test = features[named("test", part)] = self.embed(whole, tested.images, flip=config.flips)
            cross = None if old is None else compared(method, test, self.old.on(part).test)
            if cross is not None:
                features[named("query", part)], features[named("gallery", part)] = cross
        if self._first:
            if old is not None:  # what was measured and embedded by a model that was here before
                for left in (folder / "metrics.json", self._training_file.with_suffix(".json")):
                    left.unlink(missing_ok=True)
            trained_model.keep_model(folder, model, method, history, features, made_of)
            (folder / "checkpoint.pt").unlink(missing_ok=True)
        distributed.agreed(None)
