"""A chain of upgrades: the run whose new model plays the old one in the next generation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compat_lib.config import WHERE, ExperimentConfig, project_path
from compat_lib.runs import Run, is_complete

if TYPE_CHECKING:
    from compat_lib.experiment import Experiment


def find_predecessor(experiment: Experiment) -> Experiment | None:
    """The experiment that `old_run` names, with its new model read; None when the old model is its own.

    Raises:
        ValueError: there is no such run, its training images are others, or its network is not the one that
            the configuration names as the old one.
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
    theirs = (earlier.config.new_backbone, earlier.config.new_loss, width)
    ours = (config.old_backbone, config.old_loss, config.old_width)
    if theirs != ours:
        raise ValueError(
            f"the new model of {config.old_run} has (backbone, loss, width) {theirs}, but the old side "
            f"of this experiment is {ours}: take ExperimentConfig.next_generation, or set old_* to these"
        )
    if earlier.new_images.digest() != experiment.new_images.digest():
        raise ValueError(
            f"the model of {config.old_run} was trained on other images than this experiment's: keep "
            f"data set, scenario and their seeds through all generations"
        )
    return earlier
