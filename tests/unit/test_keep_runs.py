"""What results/ keeps of a run gives the tables of the whole run."""

import keep_runs
import pandas as pd

from companion.results import collect, scores
from compat_lib.config import ExperimentConfig
from compat_lib.experiment import Experiment


def test_kept_runs_give_the_same_tables(tmp_path):
    images = {"identities": 12, "images": 4, "eval_identities": 30}
    fields = {"dataset_options": images, "runs_root": str(tmp_path / "runs"), "bootstrap_draws": 20}
    for method in ("independent", "l2"):
        Experiment(ExperimentConfig(method=method, epochs=1, old_epochs=1, **fields)).evaluate()
    whole = collect(tmp_path / "runs")
    for shared in (False, True):
        for run in whole["run"]:
            kept = tmp_path / f"kept-{shared}" / run.folder.parent.name / run.folder.name
            keep_runs.keep(run, kept, shared=shared)
            assert not list(kept.glob("*.safetensors"))
            assert (kept / "draws.json").stat().st_size < (run.folder / "draws.json").stat().st_size
        small = collect(tmp_path / f"kept-{shared}")
        for metric in ("tar@far=1e-3", "map", "rank1"):
            pd.testing.assert_frame_equal(scores(small, metric), scores(whole, metric))
        seconds = [run.metrics.value(None, None, "train/seconds") for run in small["run"]]
        assert (None in seconds) == shared
