"""What an experiment's configuration says of images, before anything is trained."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from compat_lib.config import WHERE, ExperimentConfig, project_path
from compat_lib.data import load
from compat_lib.data.batches import Groups
from compat_lib.data.images import DATA_VARIABLE, ImageSet, Splits
from compat_lib.data.scenarios import Scenario, named_classes, other_set, split
from compat_lib.files import tensor_digest
from compat_lib.losses import find_method, method_options
from compat_lib.old_sources import read_old_features
from compat_lib.recipe import network_made_of, refuse_unmeasurable
from compat_lib.runs import read_json, refuse_changed


class ExperimentData:
    """The images of both sides of an experiment, and digests of all that its numbers belong to."""

    def __init__(self, config: ExperimentConfig) -> None:
        self.config = config

    @cached_property
    def data(self) -> Splits:
        """Training, validation and test images of the data set."""
        return self._load(self.config.dataset, self.config.dataset_options)

    def _load(self, name: str, options: Mapping[str, Any]) -> Splits:
        """A data set by its name, from where and in the way that the configuration says."""
        config = self.config
        # A kernel starts in notebooks/, the workflow at the root.
        paths = {name: project_path(options[name]) for name in ("path", "test_path") if options.get(name)}
        root = project_path(config.data_root or os.environ.get(DATA_VARIABLE) or "data")
        seed = config.seed if config.data_seed is None else config.data_seed
        how = {"size": config.size, "seed": seed, "stream": config.stream}
        return load(name, root=root, **how, **options | paths)

    @cached_property
    def scenario(self) -> Scenario:
        """Which training images the old and the new model see."""
        config, train = self.config, self.data.train
        if config.old_dataset or config.old_features:
            return other_set(train.labels)
        how = {"share": config.old_share, "shuffle_seed": config.shuffle_seed}
        if config.old_classes:
            how["chosen"] = named_classes(config.old_classes, train.classes, also=self.data.val.classes)
        return split(train.labels, config.scenario, **how)

    @cached_property
    def old_images(self) -> ImageSet:
        """The old model's training set, labelled 0..C_o-1, of this data set or of another."""
        config, train = self.config, self.data.train
        if config.old_features:
            raise ValueError(
                "old_features come from a file: nothing says on which images their model was trained"
            )
        if not config.old_dataset:
            return self.scenario.training_set("old", train)
        images = self._load(config.old_dataset, config.old_dataset_options).train
        channels = [images.images.shape[1], train.images.shape[1]]
        if channels[0] != channels[1]:
            raise ValueError(
                f"images of old_dataset {config.old_dataset} and dataset {config.dataset} have "
                f"{channels[0]} and {channels[1]} channels: no network reads both"
            )
        return images

    @cached_property
    def new_images(self) -> ImageSet:
        """The new model's training set, labelled 0..C_n-1."""
        return self.scenario.training_set("new", self.data.train)

    @cached_property
    def given_features(self) -> dict[str, Tensor] | None:
        """The old features of train, val and test from a file; None where an old model is at hand."""
        return None if self.config.old_features is None else read_old_features(self.config, self.data)

    @cached_property
    def old_made_of(self) -> dict[str, str]:
        """What the old side's files belong to: they are refused when it has changed."""
        parts = {"training": self.new_images, "validation": self.data.val, "test": self.data.test}
        parts |= self.data.other_tests
        if self.config.old_dataset or self.config.old_classes:  # which the configuration does not determine
            parts["old training"] = self.old_images
        digests = {f"{part} images": images.digest() for part, images in parts.items()}
        tensors = {f"list {name}": rows for name, rows in self.data.lists.items()}
        tensors |= {f"old {part} features": rows for part, rows in (self.given_features or {}).items()}
        digests |= {name: tensor_digest(rows) for name, rows in tensors.items()}
        return digests | network_made_of(self.config, "old")

    @cached_property
    def made_of(self) -> dict[str, str]:
        """The same of the new side; an option's default may be another one in a later version."""
        method, given = self.config.method, self.config.method_options
        options = find_method(method).dropped | method_options(method) | given
        made_of = self.old_made_of | network_made_of(self.config, "new")
        return made_of | {"method options": json.dumps(options, sort_keys=True)}

    def refuse_data(self) -> None:
        """Look at the data, and at old features from a file, before anything is trained on them.

        They are refused where they cannot be read, do not fit each other, the scenario or the protocol, or
        where a part has no two images of one class.
        """
        config, sides = self.config, {"new": self.new_images}
        refuse_unmeasurable(config, self.data)
        if self.given_features is None:
            sides["old"] = self.old_images
        for side, images in sides.items():
            if images.num_classes < 2:
                raise ValueError(
                    f"the {side} model would train on one class, and has nothing to tell it from: change the "
                    "split between old and new, or take more classes"
                )
            if config.per_identity:
                Groups(images.labels, config.batch_size, config.per_identity)

    def refuse_other_fields(self, folder: Path, stored: Mapping[str, Any], but: Iterable[str] = ()) -> None:
        """Refuse a run of other values: its name says what differs from the defaults of its own version."""
        config = self.config.to_dict()
        now = {k: v for k, v in config.items() if k in stored and k not in (*WHERE, *but)}
        refuse_changed(folder, stored, now, self.source)

    @property
    def source(self) -> str:
        """Where images and given old features come from, for a sentence about changed ones."""
        config = self.config
        places = config.dataset_options.get("path"), config.old_features, config.old_test_features
        places = [str(place) for place in places if place]
        return f" in {' and '.join(places)}" if places else ""


def data_of_run(folder: Path) -> ExperimentData:
    """What a run, old or new, was made on; a ValueError where its test images are others now."""
    stored = read_json(folder / "config.json")
    found = ExperimentData(ExperimentConfig.of_run(stored))
    refuse_changed(folder, stored["made_of"], {"test images": found.data.test.digest()})
    return found
