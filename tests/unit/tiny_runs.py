"""The smallest experiment that trains on portraits, below a folder of a test."""

from compat_lib.config import ExperimentConfig
from compat_lib.experiment import Experiment

TINY = {"old_backbone": "convnet-half", "new_backbone": "convnet", "old_width": 8, "new_width": 8}
TINY["dataset_options"] = {"identities": 20, "images": 6, "eval_identities": 10, "eval_images": 5}
TINY["batch_size"] = 16


def tiny(root, **changes):
    short = {"old_epochs": 2, "epochs": 2, "bootstrap_draws": 10}
    places = {"data_root": str(root / "data"), "runs_root": str(root / "runs")}
    return ExperimentConfig(**(TINY | short | places | changes))


def silent(config):
    return Experiment(config, say=lambda line: None)
