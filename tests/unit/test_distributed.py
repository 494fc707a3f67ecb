"""Two processes of torchrun against one process with the same batches."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from two_processes import CASES, embed_case, experiment_config, sampled_case, train_case

from compat_lib.experiment import Experiment
from compat_lib.files import load_tensors
from compat_lib.runs import Run

HERE = Path(__file__).parent


def torchrun(*command, timeout=600):
    """Two processes by torchrun; the finished launcher."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE)])}
    return subprocess.run(
        [*launcher, *map(str, command)],
        env=environment | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """What each of two processes found, by case."""
    folder = tmp_path_factory.mktemp("pair")
    assert train_case("smoothed", stop_at=2, checkpoint=folder / "alone.pt") is None
    done = torchrun(HERE / "two_processes.py", folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, *(torch.load(folder / f"rank{rank}.pt") for rank in (0, 1))


@pytest.mark.parametrize("case", CASES)
def test_two_processes_are_one_with_the_whole_batch(pair, case):
    alone = train_case(case)
    first, second = (found[case] for found in pair[1:])
    assert_equal(first, alone)
    for part in ("model", "method"):
        assert all(torch.equal(value, second[part][name]) for name, value in first[part].items())


def test_the_classifier_is_dealt_out_unless_a_method_uses_all_of_it(pair):
    rows = {case: [found[case]["dealt"][0] for found in pair[1:]] for case in CASES}
    whole = {case for case, counts in rows.items() if counts == [5, 5]}
    assert whole == {"dual_tuning", "lce", "nccl", "sampled"}
    assert all(counts in ([5, 5], [2, 3]) for counts in rows.values())


def test_a_sample_of_classes_that_were_not_dealt_out_is_the_same_in_all_processes(pair):
    alone = sampled_case()
    assert len(alone[2].nonzero()) == 10, "others of 40 classes than those of the batch are drawn"
    for found in pair[1:]:
        torch.testing.assert_close(found["drawn"], alone)


def test_a_training_goes_on_with_another_number_of_processes(pair):
    alone = train_case("smoothed")
    assert_equal(pair[1]["resumed"], alone)
    assert len(pair[1]["resumed"]["dealt"]) == 1, "two of the three steps were done"
    resumed = train_case("smoothed", checkpoint=pair[0] / "pair.pt")
    assert_equal(resumed, alone)
    assert len(resumed["dealt"]) == 1


def test_two_processes_write_the_features_of_one_into_one_file(pair, tmp_path):
    alone = embed_case(tmp_path / "rows.npy")
    assert alone.shape == (25, 6)
    for found in pair[1:]:
        torch.testing.assert_close(found["rows"], alone, rtol=1e-5, atol=1e-6)
    assert torch.equal(pair[1]["rows"], pair[2]["rows"])


def test_an_experiment_of_two_processes_is_that_of_one(pair, tmp_path):
    alone = Experiment(experiment_config(tmp_path), say=lambda line: None).evaluate()
    found = Run(pair[0] / "runs" / alone.folder.parent.name / alone.folder.name)
    names = {path.name for path in alone.folder.iterdir()}
    assert {path.name for path in found.folder.iterdir()} == names
    for mine, theirs in zip(found.history, alone.history, strict=True):
        assert mine["loss/total"] == pytest.approx(theirs["loss/total"], rel=1e-4)
        assert mine.keys() == theirs.keys() and mine["backbone_images"] == theirs["backbone_images"]
    assert len(found.metrics) == len(alone.metrics)
    features = [load_tensors(run.folder / "features.safetensors")[0]["test"] for run in (found, alone)]
    torch.testing.assert_close(*features, rtol=1e-3, atol=1e-3)
    assert found.environment["processes"] == 2


def assert_equal(found, alone):
    assert found["losses"] == pytest.approx(alone["losses"], rel=1e-5, abs=1e-5)
    assert found["embedded"] == alone["embedded"]
    for part in ("model", "method"):
        for name, value in alone[part].items():
            torch.testing.assert_close(found[part][name], value, rtol=1e-4, atol=4e-5, msg=name)
