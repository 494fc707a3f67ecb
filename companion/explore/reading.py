"""Run folders as the arrays that the views take."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from companion.explore.sample import TrainingSample, class_rows
from companion.explore.upgrade import Upgrade
from compat_lib.config import ExperimentConfig
from compat_lib.experiment import Experiment
from compat_lib.models import embed
from compat_lib.runs import Run, list_runs


def find_runs(runs_root: str | Path) -> dict[str, list[Run]]:
    """Complete runs of new models whose features and whose old model are there, by experiment.

    Args:
        runs_root: folder of run folders; it may be absent.

    Returns:
        experiment -> runs, both in the order of their names; empty when there is none.
    """
    found: dict[str, list[Run]] = {}
    for run in list_runs(runs_root):
        parts = [run.folder, run.folder.parent / str(run.config.get("old_run_id"))]
        there = all((folder / "features.safetensors").is_file() for folder in parts)
        if run.config.get("method") != "old" and there:
            found.setdefault(run.folder.parent.name, []).append(run)
    return found


def run_titles(runs: Sequence[Run]) -> list[str]:
    """One text for each run: its method, its options, and its seed where there are several."""
    from companion.titles import method_title

    several = len({run.config.get("seed", 0) for run in runs}) > 1
    titles = []
    for run in runs:
        config = run.config
        options = json.dumps(config.get("method_options") or {})
        title = method_title(config["method"], config.get("budget", "steps"), options)
        titles.append(f"{title}, seed {config.get('seed', 0)}" if several else title)
    return titles


def open_runs(
    runs: Sequence[Run],
    *,
    data_root: str | None = None,
    device: str = "cpu",
    say: Callable[[str], None] = print,
) -> dict[str, Experiment]:
    """Experiments whose models are read and never trained, by the titles of their runs.

    Args:
        runs: of one experiment, from `find_runs`.
        data_root: folder of data sets, or None as in a configuration.
        device: where models are put.
        say: receives a sentence for every run that cannot be read.

    Raises:
        ValueError: "none of the ... runs can be read ...".
    """
    opened = {}
    for run, title in zip(runs, run_titles(runs), strict=True):
        values = {k: v for k, v in run.config.items() if k in ExperimentConfig.__dataclass_fields__}
        values |= {"runs_root": str(run.folder.parent.parent), "data_root": data_root, "device": device}
        try:
            experiment = Experiment(ExperimentConfig.from_dict(values), say=lambda line: None)
            if experiment.config.run_folder.resolve() != run.folder.resolve():
                raise ValueError("its configuration has another name in this version of the package")
            _ = experiment.new
        except (ValueError, TypeError, KeyError) as error:
            say(f"left out {run.folder.name}: {error}")
            continue
        opened[title] = experiment
    if not opened:
        raise ValueError(
            f"none of the {len(runs)} runs can be read by this version of the package; delete their folder "
            "and make them anew"
        )
    return opened


def open_best(
    found: Mapping[str, Sequence[Run]],
    experiment_id: str | None = None,
    *,
    data_root: str | None = None,
    device: str = "cpu",
    say: Callable[[str], None] = print,
) -> tuple[str, dict[str, Experiment]]:
    """The experiment with the most methods, then runs, that can be read: its name, and `open_runs` of it.

    Args:
        found: from `find_runs`.
        experiment_id: one of them, to have that one and no other; None: the best.
        data_root, device, say: as in `open_runs`; one that cannot be read at all costs a sentence as well.

    Raises:
        ValueError: "no complete runs of ...; there are ...", or "none of the ... runs can be read ...".
    """
    if not found or experiment_id not in (None, *found):
        raise ValueError(
            f"no complete runs of {experiment_id or 'any experiment'}; there are {', '.join(found) or 'none'}"
        )
    names = sorted(found, key=lambda name: _size(found[name]), reverse=True)
    names = [experiment_id] if experiment_id else names
    best: tuple[tuple, str, dict[str, Experiment]] | None = None
    for name in names:
        if best is not None and _size(found[name]) <= best[0]:
            break  # neither it nor one after it can have more
        try:
            opened = open_runs(found[name], data_root=data_root, device=device, say=say)
        except ValueError as error:
            if len(names) == 1:
                raise
            say(f"left out {name}: {error}")
            continue
        size = (len({one.config.method for one in opened.values()}), len(opened))
        if best is None or size > best[0]:
            best = (size, name, opened)
    if best is None:
        count = sum(map(len, found.values()))
        raise ValueError(
            f"none of the {count} runs in {len(found)} experiments can be read by this version of the "
            "package; delete their folders and make them anew"
        )
    return best[1], best[2]


def _size(runs: Sequence[Run]) -> tuple[int, int]:
    return len({run.config["method"] for run in runs}), len(runs)


def upgrade_of(experiment: Experiment, title: str | None = None, *, most: int = 2000) -> Upgrade:
    """The test images of an experiment with the features of its two models.

    Args:
        experiment: trained, or read by `open_runs`.
        title: what the new model is called; the method's name when None.
        most: images; of a larger test set whole identities are taken, evenly spaced, and then numbers
            differ from those of the run's own tables, which use all.
    """
    test, old, new = experiment.data.test, experiment.old, experiment.new
    rows = _few(test.labels, most)
    cross = None if new.query is None or new.gallery is None else (new.query[rows], new.gallery[rows])
    labels = test.labels[rows]
    return Upgrade(
        old.test[rows],
        new.test[rows],
        labels,
        test.images[rows],
        cross,
        [test.classes[label] for label in np.unique(labels)],
        title or experiment.config.method,
    )


def training_sample(experiment: Experiment, title: str | None = None, *, most: int = 2000) -> TrainingSample:
    """Some training images of an experiment as MixBCT meets them; the new features are computed now.

    Args:
        experiment, title: as in `upgrade_of`.
        most: images, of whole classes evenly spaced; fewer where there are very many classes.

    Raises:
        ValueError: the widths of the features differ, see `TrainingSample`.
    """
    config, side, system = experiment.config, experiment.new, experiment.old_system
    weight = side.classifier.weight.detach().cpu()
    rows = torch.from_numpy(class_rows(system.labels, min(most, max(200, 4_000_000 // len(weight)))))
    images = experiment.new_images.images[rows]
    new = embed(side.model, images, device=config.device, precision=config.precision)
    return TrainingSample(
        system.features[rows], new, system.labels[rows], weight, title or experiment.config.method
    )


def training_samples(
    experiments: Mapping[str, Experiment],
    titles: Sequence[str],
    *,
    most: int = 2000,
    say: Callable[[str], None] = print,
) -> dict[str, TrainingSample]:
    """The samples of some experiments, by title; one whose widths differ is left out with a sentence.

    Args:
        experiments: by title, from `open_runs`.
        titles: which of them.
        most, say: as in `training_sample` and `open_runs`.
    """
    samples = {}
    for title in titles:
        try:
            samples[title] = training_sample(experiments[title], title, most=most)
        except ValueError as error:
            say(f"no angles for {title}: {error}")
    return samples


def _few(labels: Any, most: int) -> torch.Tensor:
    rows = np.arange(len(labels)) if len(labels) <= most else class_rows(labels, most)
    return torch.from_numpy(rows)
