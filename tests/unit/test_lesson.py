"""A lesson's first step by hand sees of each image what a step of the training sees of it."""

import pytest
import torch
from tiny_runs import silent, tiny

from companion.lesson import Lesson
from compat_lib.data.augmentation import to_float


@pytest.mark.parametrize("method", ["bct", "mixbct", "dual_tuning"])
def test_both_sides_of_the_first_step_are_of_the_same_images(tmp_path, method):
    experiment = silent(tiny(tmp_path, method=method, precision="float32"))
    images = experiment.new_images
    old = experiment.embed(experiment.train_old().model, images.images)
    network, _, step = Lesson(experiment, "02_dual_tuning").first_step()
    rows = torch.arange(16)
    assert torch.equal(step.rows, rows) and torch.equal(step.labels, images.labels[rows])
    torch.testing.assert_close(step.old_features, old[rows])
    assert (step.embedded is None) == (method != "mixbct")
    seen = rows if step.embedded is None else rows[step.embedded]
    torch.testing.assert_close(step.embeddings, network(to_float(images.images[seen])))
