"""What every method's notebook shows of its run; docs/reading_the_pictures.md says how to read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from IPython.display import display
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from companion import plots, results, tables
from companion.titles import row_title
from compat_lib.data.augmentation import to_float
from compat_lib.data.images import DISTRACTOR
from compat_lib.evaluation.records import metric_for, metric_title, shown
from compat_lib.experiment import Experiment
from compat_lib.losses import CompatibilityLoss, Step
from compat_lib.models import EmbeddingModel
from compat_lib.old_system import rows_of
from compat_lib.runs import Run, environment

VALIDATION = "tar@far=1e-2"
MOST = 50_000  # test images whose pairs a picture counts; of more, every second, third, ...


class Lesson:
    """The standard views of one experiment; the pictures' JSON files keep the name of the notebook."""

    def __init__(self, experiment: Experiment, notebook: str) -> None:
        config = experiment.config
        self.experiment = experiment
        self.title = row_title({"method": config.method})
        self._made_by = {"notebook": notebook, "run": config.run_id, "commit": environment()["commit"]}
        plots.use_style()

    def show(self, fig: Figure, name: str) -> None:
        """Show a figure and keep it beside the run, with a note of what made it."""
        folder = self.experiment.config.run_folder / "figures"
        plots.show_figure(fig, name, folder=folder, provenance=self._made_by)

    def data(self) -> None:
        """Who trained on what, and how good the old system is; the old model must be there."""
        experiment, config = self.experiment, self.experiment.config
        metric = metric_for(config.protocol, "map")
        quality = experiment.old_run.metrics.get("old", "old", metric)
        if config.old_features:
            print(f"old side: the features of {Path(config.old_features).name}, width {config.old_width}")
        else:  # after an earlier upgrade the old model has seen all new images
            old_images = experiment.new_images if config.old_run else experiment.old_images
            print(f"old training set: {old_images.num_classes} classes, {len(old_images)} images")
        new_images = experiment.new_images
        print(f"new training set: {new_images.num_classes} classes, {len(new_images)} images")
        if not config.old_features:
            shared = int((experiment.old_system.class_map >= 0).sum())
            print(f"{shared} of the new classes were known to the old model")
        words = shown(quality.value, percent=False, digits=3)
        print(f"old/old on the test identities: {metric_title(metric)} {words}")

    def first_step(self) -> tuple[EmbeddingModel, CompatibilityLoss, Step]:
        """Network and method as they start, and what the method sees of the first images in a step.

        The step is one near the end of the training; the old model must be there.
        """
        experiment, system = self.experiment, self.experiment.old_system
        network, method = experiment.new_parts()
        rows = torch.arange(min(experiment.config.batch_size, len(system.labels)))
        labels, generator = system.labels[rows], torch.Generator().manual_seed(0)
        embedded = method.rows_to_embed(rows, labels, generator)
        passing = rows if embedded is None else rows[embedded]
        embeddings = network(to_float(experiment.new_images.images[passing]))
        when = {"epoch": 0, "epochs": 1, "batch": 0, "batches": 1, "progress": 0.99, "generator": generator}
        if "oracle" in method.needs:  # then new_parts has trained it
            when["oracle_features"] = experiment.oracle.training_features()[rows]
        step = Step(rows, labels, embeddings, embedded, rows_of(system.features, rows), **when)
        return network, method, step

    def cost(self, oracle: Run) -> None:
        """Epochs and seconds of the method's training and of the oracle's."""
        for title, history in ((self.title, self.experiment.new.history), ("oracle", oracle.history)):
            print(f"{title}: {len(history)} epochs, {sum(row['seconds'] for row in history):.0f} s")

    def curves(self, oracle: Run) -> None:
        """The loss terms, and the self-test and cross-test on validation identities, beside the oracle's."""
        config, history = self.experiment.config, self.experiment.new.history
        fig, axes = plt.subplots(3, 1, figsize=(8, 9.6))
        plots.loss_curves(axes[0], history)
        histories = {config.method: history, "independent": oracle.history}
        titles = {config.method: self.title, "independent": "oracle"}
        for ax, pair in zip(axes[1:], ("new_new", "new_old"), strict=True):
            column = f"val/{pair}/{VALIDATION}"
            if any(row.get(column) is not None for row in history):
                plots.validation_curves(ax, histories, column, titles=titles)
                ax.set_ylim(bottom=0)
            else:
                plots.say_instead(ax, self._no("new/old"))
        self.show(fig, "training")
        print(tables.flatness(history))

    def constraints(self) -> None:
        """MixBCT's four constraints on validation pairs, epoch by epoch."""
        fig, ax = plt.subplots(figsize=(6.4, 4.8))
        plots.constraint_curves(ax, self.experiment.new.history)
        self.show(fig, "constraints")

    def verdict(self, result: Run, oracle: Run) -> Styler:
        """Every pair of models with intervals, then criterion, gain and cost."""
        identities = self.experiment.data.test.num_classes
        caption = f"{self.title}: value [95 % interval over {identities} identities], per cent"
        display(tables.styled(tables.run_table(result, oracle), caption))
        return tables.styled(tables.verdict_table(result, oracle, "tar@far=1e-3", "map"))

    def distributions(self) -> None:
        """Lengths and tightness of the features; cosines of pairs for the three pairs of models."""
        experiment, labels = self.experiment, self.experiment.data.test.labels
        classes, some = experiment.data.test.classes, torch.arange(len(labels))
        if DISTRACTOR in classes:  # of many people and of none: no pair of them says anything
            some = some[labels != classes.index(DISTRACTOR)]
        some = some[:: 1 + len(some) // MOST]
        sides = (experiment.old, experiment.new, experiment.oracle.new)
        old, new, oracle = (one.test[some] for one in sides)
        cross, labels = tuple(side[some] for side in experiment.cross), labels[some]
        fig, axes = plt.subplots(2, 1, figsize=(8, 5.4))
        plots.feature_spread(axes, {"old": old, "new": new, "oracle": oracle}, labels)
        self.show(fig, "feature_distributions")
        fig, axes = plt.subplots(1, 3, figsize=(9, 3.4))
        plots.model_cosines(axes, old, new, labels, cross=cross)
        self.show(fig, "cosines")

    def map(self) -> Any:
        """Old and new features of ten test identities in one t-SNE map."""
        query, gallery = self.experiment.cross
        fig, ax = plt.subplots(figsize=(8, 6))
        joint = plots.model_map(ax, gallery, query, self.experiment.data.test.labels)
        self.show(fig, "map")
        return joint

    def backfill(self, result: Run, oracle: Run) -> None:
        """New queries on a gallery of which more and more is embedded again."""
        method = self.experiment.config.method
        curves = {run.config["method"]: results.backfill(run) for run in (oracle, result)}
        merged = results.backfill(oracle, adapter="rank-merge")
        curves |= {results.MERGED: merged} if merged[0] else {}
        fig, ax = plt.subplots(figsize=(8, 3.8))
        if curves[method][0]:
            bounds = {"old_old": result.metrics.value("old", "old", "map")}
            bounds |= {"oracle": oracle.metrics.value("new", "new", "map")}
            titles = {"independent": "oracle, mixed", method: self.title}
            plots.backfill_curve(ax, curves, **bounds, titles=titles)
        else:
            plots.say_instead(ax, self._no("mixed gallery"))
        self.show(fig, "backfill")

    def _no(self, what: str) -> str:
        config = self.experiment.config
        if config.old_width != config.new_width:
            return f"no {what}: old width {config.old_width}, new width {config.new_width}"
        if config.protocol == "pairs":  # such as FCT, which fits its map when the training has ended
            return f"{self.title} has no {what} here"
        return f"no {what} in protocol {config.protocol}"
