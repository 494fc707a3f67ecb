"""Run folders as the arrays that the views take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from companion.explore.features import TrainingSample, Upgrade, spaced
from companion.titles import method_title
from compat_lib.config import ExperimentConfig
from compat_lib.experiment import Experiment
from compat_lib.runs import Run, list_runs


def open_best(
    runs_root: str | Path,
    experiment_id: str | None = None,
    *,
    data_root: str | None = None,
    device: str = "cpu",
) -> tuple[str, dict[str, Experiment]]:
    """The experiment with the most methods, then runs: its name, and title -> experiment; nothing is trained.

    With `experiment_id`, a folder in runs_root, that one and no other. A run that cannot be read is left out
    with a printed sentence; where none can, a ValueError says what there is.
    """
    found = find_runs(runs_root)
    names = [name for name in found if experiment_id in (None, name)]
    names.sort(key=lambda name: (len({run.config["method"] for run in found[name]}), len(found[name])))
    for name in reversed(names):
        opened, several = {}, len({run.config["seed"] for run in found[name]}) > 1
        for run in found[name]:
            how = (run.config[field] for field in ("method", "budget", "method_options"))
            title = method_title(*how) + (f", seed {run.config['seed']}" if several else "")
            try:
                opened[title] = _open(run, data_root, device)
            except (ValueError, TypeError, KeyError) as error:
                print(f"left out {name}/{run.folder.name}: {error}")
        if opened:
            return name, opened
    raise ValueError(
        f"no complete runs of {experiment_id or 'any experiment'} that can be read; "
        f"there are {', '.join(found) or 'none'} in {runs_root}"
    )


def find_runs(runs_root: str | Path) -> dict[str, list[Run]]:
    """Complete runs of new models whose features and whose old model are there: experiment -> runs."""
    found: dict[str, list[Run]] = {}
    for run in list_runs(runs_root):
        parts = [run.folder, run.folder.parent / str(run.config.get("old_run_id"))]
        there = all((folder / "features.safetensors").is_file() for folder in parts)
        if run.config.get("method") != "old" and there:
            found.setdefault(run.folder.parent.name, []).append(run)
    return found


def _open(run: Run, data_root: str | None, device: str) -> Experiment:
    where = {"runs_root": str(run.folder.parent.parent), "data_root": data_root, "device": device}
    experiment = Experiment(ExperimentConfig.of_run(run.config, **where), say=lambda line: None)
    if experiment.config.run_folder.resolve() != run.folder.resolve():  # or it would be trained anew
        raise ValueError("its configuration has another name in this version of the package")
    experiment.train()  # reads what is finished
    return experiment


def upgrade_of(experiment: Experiment, title: str | None = None, *, most: int = 2000) -> Upgrade:
    """The test images of an experiment with the features of its two models; `title` names the new one.

    Of a larger test set than `most` whole identities are taken, evenly spaced, and then numbers differ from
    those of the run's own tables, which use all.
    """
    test, old, new = experiment.data.test, experiment.old, experiment.new
    rows = class_rows(test.labels, most)
    labels = test.labels[rows]
    return Upgrade(
        old.test[rows],
        new.test[rows],
        labels,
        test.images[rows],
        None if new.cross is None else tuple(form[rows] for form in new.cross),
        [test.classes[label] for label in np.unique(labels)],
        title or experiment.config.method,
    )


def training_samples(
    experiments: Mapping[str, Experiment], titles: Iterable[str], *, most: int = 2000
) -> dict[str, TrainingSample]:
    """Some training images of some experiments as MixBCT meets them; the new features are computed now.

    At most `most` images, of whole classes evenly spaced; fewer where there are very many classes. An
    experiment whose widths differ has no angles, and is left out with a printed sentence.
    """
    samples = {}
    for title in titles:
        experiment = experiments[title]
        system, side = experiment.old_system, experiment.new
        weight = side.classifier.weight.detach().cpu()
        rows = class_rows(system.labels, min(most, max(200, 4_000_000 // len(weight))))
        new = experiment.embed(side.model, experiment.new_images.images[rows])
        old, labels = system.features[rows], system.labels[rows]
        if old.shape[1] == new.shape[1] == weight.shape[1]:
            samples[title] = TrainingSample(old, new, labels, weight, title)
        else:
            widths = [table.shape[1] for table in (old, new, weight)]
            print(f"no angles for {title}: old, new features and classifier have unequal widths {widths}")
    return samples


def class_rows(labels: Any, most: int) -> torch.Tensor:
    """Rows of whole classes, evenly spaced over all, of at most about `most` rows; at least two classes.

    >>> class_rows([0, 0, 1, 1, 2, 2, 3, 3], 4).tolist()
    [0, 1, 6, 7]
    """
    labels = np.asarray(labels)
    present = np.unique(labels)
    chosen = present[spaced(len(present), max(most * len(present) // len(labels), 2))]
    return torch.from_numpy(np.flatnonzero(np.isin(labels, chosen)))
