"""Old sides that are not trained here: of an earlier generation, another experiment, a file of features."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from compat_lib.config import WHERE, ExperimentConfig, project_path
from compat_lib.data.decoding import printable
from compat_lib.data.images import ImageSet, Splits
from compat_lib.files import explained
from compat_lib.runs import ADVICE, Run, described, is_complete, write_json

if TYPE_CHECKING:
    from compat_lib.experiment import Experiment

_log = logging.getLogger(__name__)
# What differs between the folders: the configuration, which is written anew, and what comes last or is local.
_NOT_TAKEN = ("config.json", "metrics.json", ".lock", "checkpoint.pt", "figures", "*.ipynb")


def find_predecessor(experiment: Experiment) -> Experiment | None:
    """Of a chain: the experiment that `old_run` names, with its new model read; None where it names none.

    A run that is not there, is of other images or has another network than the old one here is a ValueError.
    """
    config = experiment.config
    if config.old_run is None:
        return None
    folder = project_path(config.runs_root) / config.old_run
    if not is_complete(folder):
        raise ValueError(
            f"old_run is {config.old_run!r}, but there is no finished run in {folder}: run it first"
        )
    where = {name: getattr(config, name) for name in WHERE}
    earlier = type(experiment)(ExperimentConfig.of_run(Run(folder).config, **where), say=experiment.say)
    model = earlier.train()
    width = model.test.shape[1]
    if model.classifier.width != width:
        raise ValueError(
            f"{config.old_run} stores features of width {width} and classifies "
            f"{model.classifier.width} of them: no method here reads such an old model; go on from "
            f"another method than {earlier.config.method}"
        )
    theirs = (earlier.config.new_backbone, earlier.config.new_loss, width, earlier.config.flips)
    ours = (config.old_backbone, config.old_loss, config.old_width, config.flips)
    if theirs != ours:
        raise ValueError(
            f"the new model of {config.old_run} has (backbone, loss, width, flipped test images) {theirs}, "
            f"but the old side of this experiment is {ours}: take ExperimentConfig.next_generation, or set "
            "old_* and flip_test to these"
        )
    theirs = earlier.old_made_of
    changed = [name for name, digest in experiment.old_made_of.items() if theirs.get(name) != digest]
    if changed := [name for name in changed if name.endswith(" images") and not name.startswith("old ")]:
        raise ValueError(
            f"the model of {config.old_run} has other {' and '.join(changed)} than this experiment: keep "
            "data set, scenario and their seeds through all generations"
        )
    return earlier


def take_old(config: ExperimentConfig, made_of: dict[str, str]) -> Path | None:
    """Link the old model's folder from an experiment that differs in its new side alone, if there is one.

    It must have been `made_of` the same data. Returns the folder that it was taken from; None when there is
    none, and nothing is written then.
    """
    folder = config.old_folder
    for other in sorted(project_path(config.runs_root).glob(f"*/old-s{config.seed}-*")):
        if other == folder or not is_complete(other):
            continue
        stored = Run(other).config
        if stored.get("made_of") != made_of or _old_side(stored) != config.old_side:
            continue
        with explained(folder, ADVICE):
            left = shutil.ignore_patterns(*_NOT_TAKEN)
            shutil.copytree(other, folder, ignore=left, copy_function=_link, dirs_exist_ok=True)
        new = {name: value for name, value in described(config, folder).items() if name in stored}
        write_json(folder / "config.json", stored | new)
        with explained(folder, ADVICE):
            (folder / "checkpoint.pt").unlink(missing_ok=True)  # of a training that was stopped here
            _link(other / "metrics.json", folder / "metrics.json")  # last: the run is complete
        return other
    return None


def _old_side(stored: dict) -> str | None:
    try:
        return ExperimentConfig.of_run(stored, method="independent", method_options={}).old_side
    except (TypeError, ValueError):  # of another version
        return None


def _link(source: str | Path, target: str | Path) -> None:
    """A second name of the file, where the file system has such; run files are replaced, never changed."""
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def read_old_features(config: ExperimentConfig, data: Splits) -> dict[str, Tensor]:
    """The old model's features of all images of a data set, joined by the images' names.

    Validation images that were held out of train/ keep their rows, since they keep their names.

    Returns "train", "val" and "test": float32 ``[N, old_width]`` each, in the order of their images. A file
    that is missing, is damaged, has another width or no row of an image is a FileNotFoundError or ValueError.
    """
    # Here, since a run without such a file has no need of pandas and pyarrow's readers.
    from compat_lib.deploy.feature_files import read_features

    if nameless := [name for name, part in data.parts.items() if part.names is None]:
        raise ValueError(
            f"old_features are joined to images by the names of their files, which data set {config.dataset} "
            f"does not have ({', '.join(nameless)}); use dataset: folder"
        )
    files = [file for file in (config.old_features, config.old_test_features) if file is not None]
    tables = [read_features(project_path(file), columns=config.old_features_columns) for file in files]
    for table in tables:
        if (width := table.features.shape[1]) != config.old_width:
            raise ValueError(
                f"{table.path} holds features of width {width}, but old_width is {config.old_width}; set "
                f"old_width: {width}, and new_width too unless another one is meant"
            )
    groups = [("train", "val"), ("test",)] if len(tables) == 2 else [("train", "val", "test")]
    found: dict[str, Tensor] = {}
    for table, parts in zip(tables, groups, strict=True):
        found |= _joined(table, {part: data.parts[part] for part in parts})
    return found


def _joined(table, parts: dict[str, ImageSet]) -> dict[str, Tensor]:
    """Features of the parts from one table, part by part."""
    from compat_lib.deploy.check_inputs import alike
    from compat_lib.deploy.row_order import align

    listed = {part: [images.names[row] for row in range(len(images))] for part, images in parts.items()}
    # Once each: validation images may train as well, see `with_validation`.
    files = list(dict.fromkeys(name for names in listed.values() for name in names))
    place = {name: row for row, name in enumerate(files)}
    found = align(table, [printable(name) for name in files])
    features = found.features
    if len(failed := np.flatnonzero(alike(F.normalize(torch.from_numpy(features)), found.labels))):
        _log.warning(
            "%s: %d of %d old features are zeros, or one vector for different classes, as from unreadable "
            "images (the first: %s); they count as they are: take such images out of the folder",
            *(table.path, len(failed), len(files), printable(files[failed[0]])),
        )
    return {
        part: torch.from_numpy(features[np.array([place[name] for name in names])])
        for part, names in listed.items()
    }
