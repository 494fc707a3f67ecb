"""Experiments whose data set has a second test part, and whose data are drawn by the run's own seed."""

import pytest
import torch
from tiny_runs import TINY, silent, tiny

from compat_lib.adapters import fit_ridge
from compat_lib.data.scenarios import split
from compat_lib.evaluation.compatibility import compare, one_set_test

SHIFTED = {"dataset_options": TINY["dataset_options"] | {"test_pose": 1.2}}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("parts")


def test_every_number_is_measured_on_both_parts(root):
    experiment = silent(tiny(root, **SHIFTED, precision="float32"))
    run = experiment.evaluate()
    plain = silent(tiny(root, precision="float32")).evaluate()
    assert run.parts == ("shifted",) and plain.parts == ()
    kept = [one for one in plain.metrics if not one.metric.startswith("train/")]
    assert kept == [one for one in run.metrics if not one.metric.startswith("train/")]
    assert {one.metric for one in run.on("shifted").metrics} == {one.metric for one in plain.metrics}
    assert run.config["facts"]["images"]["shifted"] == 50

    images = experiment.data.tests["shifted"]
    old, new = (experiment.embed(side.model, images.images) for side in (experiment.old, experiment.new))
    there = run.on("shifted").metrics
    for expected in compare(old, new, images.labels, draws=0).records:
        found = there.value(expected.query, expected.gallery, expected.metric)
        assert found == pytest.approx(expected.value, abs=1e-6)
    ridge = fit_ridge(experiment.old_system.features, experiment.training_features()).apply(old)
    expected = one_set_test(new, ridge, images.labels, draws=0).records.value(None, None, "map")
    assert there.value("new", "old", "map", adapter="ridge") == pytest.approx(expected, abs=1e-4)
    before = experiment.old_run.on("shifted").metrics.value("old", "old", "map")
    assert before == there.value("old", "old", "map")


def test_a_trained_method_and_its_old_query_on_both_parts(root):
    run = silent(tiny(root, **SHIFTED, method="l2")).evaluate().on("shifted")
    for adapter in (None, "with-old-query", "midpoint"):
        assert len(run.draws("new", "old", "map", adapter)) == 10
    assert run.metrics.value("new", "old", "alpha", adapter="with-old-query") is not None


def test_data_that_follow_the_seed_are_those_of_that_data_seed(root):
    first, second = (silent(tiny(root, data_seed=None, seed=seed)) for seed in (0, 1))
    assert first.config.experiment_id == second.config.experiment_id  # one row of a table
    assert first.config.run_id != second.config.run_id
    for seed, one in enumerate((first, second)):
        drawn = silent(tiny(root, data_seed=seed)).data
        for mine, theirs in zip(one.data.parts.values(), drawn.parts.values(), strict=True):
            assert mine.digest() == theirs.digest()
    assert not torch.equal(first.data.test.images, second.data.test.images)
    expected = split(first.data.train.labels, "open-class", shuffle_seed=0)
    assert torch.equal(first.scenario.old_rows, expected.old_rows)
