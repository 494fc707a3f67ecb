import math

import pytest
import training_overhead as benchmark

from compat_lib.losses import METHODS

SIZE = {"steps": 2, "rounds": 1, "batch": 12, "classes": 6, "size": 16, "width": 8}


def test_every_method_takes_its_turns(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    shipped = sorted(name for name in METHODS if METHODS[name].__module__.startswith("compat_lib."))
    results = benchmark.measure(shipped, epochs=3, **SIZE)
    assert list(results)[0] == "independent" and set(results) == set(shipped)
    for name, result in results.items():
        numbers = [value for key, value in result.items() if key != "limit"]
        assert all(math.isfinite(value) and value >= 0 for value in numbers), name
        assert result["seconds/step"] > 0 and result["seconds/ratio"] > 0
    oracle = results["independent"]
    assert 0 < oracle["of_bare"] < 10
    assert oracle["seconds/ratio"] == pytest.approx(1, abs=0.5) and oracle["limit"] is None
    assert (results["mixbct"]["limit"], results["l2"]["limit"]) == (0.80, 1.10)


def test_an_epoch_continues_the_one_before_and_a_refresh_is_timed_apart(monkeypatch, tmp_path):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    ticks = iter(range(1000))
    monkeypatch.setattr(benchmark, "CLOCKS", {"seconds": lambda: next(ticks)})
    old = benchmark.make_old(24, 6, 8)
    settings = benchmark.TrainingSettings(epochs=3, batch_size=12)
    images = benchmark.torch.zeros(24, 3, 16, 16, dtype=benchmark.torch.uint8)
    candidate = benchmark.Candidate("l2", old, images, settings, tmp_path)
    for done in (1, 2, 3):
        candidate.train_epoch()
        history = benchmark.torch.load(candidate.checkpoint, weights_only=True)["history"]
        assert [row["epoch"] for row in history] == list(range(1, done + 1))
        # The counter of the benchmark advances by one during a refresh; the loop has its own clocks.
        assert candidate.refreshes == [{"seconds": 1}] * done
        assert candidate.epochs[-1]["seconds"] == history[-1]["seconds"] - 1
    assert candidate.fit == pytest.approx(0, abs=0.1)
