"""The pipeline: complete run folders, nothing repeated, killed runs go on, unequal widths handled."""

import dataclasses
import json
import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tiny_runs import silent, tiny

from compat_lib import experiment as module
from compat_lib import experiment_data, models
from compat_lib.evaluation import criterion, retrieval
from compat_lib.experiment import Experiment
from compat_lib.files import load_tensors, save_tensors
from compat_lib.losses.heads import simplex
from compat_lib.runs import Run, list_runs

pytestmark = pytest.mark.precision
FEATURES = "features.safetensors"
FIT = {"fit_epochs": 2}


def cost(run, name):
    return run.metrics.value(None, None, f"train/{name}")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("experiment")


@pytest.fixture(scope="module")
def oracle(root):
    return silent(tiny(root)).evaluate()


def test_a_run_folder_holds_everything_that_a_number_needs(root, oracle):
    names = {".lock", "history.csv", "training_features.npy", "features.safetensors", "model.safetensors"}
    names |= {f"{name}.json" for name in ("config", "metrics", "draws", "environment", "training_features")}
    assert {path.name for path in oracle.folder.iterdir()} == names
    assert oracle.config["method"] == "independent" and oracle.config["facts"]["classes"]["train"] == 14
    assert str(root) not in json.dumps([oracle.config, oracle.environment])
    assert oracle.environment["precision"] == models.resolve_precision("cpu", oracle.config["precision"])
    metrics = oracle.metrics
    assert cost(oracle, "epochs") == 2 and cost(oracle, "steps") == 2 * (84 // 16)
    assert cost(oracle, "backbone_images") == 2 * (84 // 16) * 16
    cross, self_test = metrics.value("new", "old", "map"), metrics.value("new", "new", "map")
    assert metrics.value("new", "mixed", "map", order="random", share=0.0) == pytest.approx(cross)
    assert metrics.value("new", "mixed", "map", order="random", share=1.0) == pytest.approx(self_test)
    assert len(oracle.draws("new", "new", "map")) == 10
    between = ("procrustes-slerp", "procrustes-midpoint")
    for name in ("procrustes", "ridge", "procrustes-query", "ridge-query", *between):
        assert metrics.value("new", "old", "map", adapter=name) is not None
        assert metrics.value("new", "old", "relative_negative_flips", adapter=name) is not None
        assert len(oracle.draws("new", "old", "map", name)) == 10
    ends = {"order": "random", "adapter": "rank-merge"}  # two indexes: from the old system to the new one
    assert metrics.value("new", "mixed", "map", share=1.0, **ends) == pytest.approx(self_test)
    before = metrics.value("old", "old", "map")
    assert metrics.value("new", "mixed", "map", share=0.0, **ends) == pytest.approx(before)
    assert [run.folder for run in list_runs(root / "runs") if run.config["method"] == "old"]


def test_finished_work_is_read_not_repeated(root, oracle, monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("trained again")

    monkeypatch.setattr(module, "train", never)
    monkeypatch.setattr(module, "measure_old", never)
    monkeypatch.setattr(module, "measure_upgrade", never)
    again = silent(tiny(root))
    assert list(again.evaluate().metrics) == list(oracle.metrics)
    assert len(again.train_old().history) == 2
    of_old = again.old_run.metrics.select(query="old")
    assert len(of_old) == 6 and list(of_old) == list(oracle.metrics.select(query="old"))
    assert again.old_system.has == {"features", "prototypes", "classifier", "model"}


def test_a_killed_training_goes_on_and_gives_the_same_numbers(tmp_path, root, oracle, monkeypatch):
    class Stop(Exception):
        pass

    def kill(line):
        if line.startswith("epoch 1/2"):
            raise Stop

    config = tiny(root, runs_root=str(tmp_path / "runs"))
    with pytest.raises(Stop):  # dies while the old model trains
        Experiment(config, say=kill).evaluate()
    assert (config.old_folder / "checkpoint.pt").is_file()
    silent(config).train_old()
    with pytest.raises(Stop):  # dies while the new model trains
        Experiment(config, say=kill).evaluate()
    assert (config.run_folder / "checkpoint.pt").is_file()
    assert not (config.run_folder / "metrics.json").exists()
    result = silent(config).evaluate()
    assert not (config.run_folder / "checkpoint.pt").exists()
    same = [one for one in oracle.metrics if "seconds" not in one.metric]
    assert [one for one in result.metrics if "seconds" not in one.metric] == same


def test_a_run_made_with_other_defaults_is_not_taken_for_this_one(root, monkeypatch):
    config = tiny(root, method="bct")
    silent(config).evaluate()
    used = json.loads(silent(tiny(root, method="nccl")).made_of["method options"])
    assert used["credible"] == "all"  # no option any more, and in the digests of earlier runs
    original = experiment_data.method_options
    monkeypatch.setattr(experiment_data, "method_options", lambda name: original(name) | {"scale": 7.0})
    for call in (Experiment.train, Experiment.evaluate):
        with pytest.raises(ValueError, match="made with other method options than now"):
            call(silent(config))


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_images_that_have_changed_are_refused_before_any_training(root, oracle, part, monkeypatch):
    """Also for a run that is finished, and for another method that would take its old features."""
    monkeypatch.setattr(module, "train", None)
    words = {"train": "training", "val": "validation"}.get(part, part)
    for method, call in (("l2", Experiment.train), ("independent", Experiment.evaluate)):
        experiment = silent(tiny(root, method=method))
        images = getattr(experiment.data, part)
        flipped = images.with_labels(range(len(images)), images.labels.flip(0), images.classes)
        experiment.data = dataclasses.replace(experiment.data, **{part: flipped})
        with pytest.raises(ValueError, match=f"made with other {words} images than now.*delete"):
            call(experiment)


def test_nothing_trains_because_it_was_looked_at(tmp_path):
    experiment = silent(tiny(tmp_path))
    for name in ("old", "new", "old_system", "old_run", "cross"):
        with pytest.raises(RuntimeError, match=r"call experiment\.train"):
            getattr(experiment, name)
    assert not (tmp_path / "runs").exists()


ALL_OLD = {"mix_ratio": 1.0, "credible_share": 1.0}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "mixbtc"}, "the method is 'mixbtc'; choose"),
        ({"method": "l2", "method_options": {"wait": 1}}, "no option 'wait'.*nearest: weight"),
        ({"method": "l2", "method_options": {"weight": "heavy"}}, "weight must be a number"),
        ({"old_backbone": "resnet81"}, "backbone 'resnet81' is unknown.*nearest: resnet18"),
        ({"new_backbone": "resnet81"}, "backbone 'resnet81' is unknown"),
        ({"method": "mixbct", "method_options": ALL_OLD}, "MixBCT leaves 0 of 16 rows to the network"),
        ({"method": "mixbct", "accumulate": 7}, "leaves 12 of 16 rows to .*accumulate is 7"),
        ({"method": "l2", "new_width": 12}, "one width, not 8 .* and 12"),
        ({"method": "mixbct", "new_width": 12}, "width"),
        ({"device": "gpu"}, "device is 'gpu'.*choose cpu"),
        ({"threads": 1000}, "threads is 1000.*this machine has"),
    ],
)
def test_what_cannot_work_is_refused_at_once(tmp_path, changes, words):
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=words):
        silent(tiny(tmp_path, **changes))
    silent(tiny(tmp_path))
    assert torch.equal(before, torch.get_rng_state())


def test_a_test_part_without_pairs_is_refused_before_any_training(tmp_path):
    experiment = silent(tiny(tmp_path))
    test = experiment.data.test
    lonely = test.subset([int((test.labels == k).nonzero()[0]) for k in range(test.num_classes)])
    experiment.data = dataclasses.replace(experiment.data, test=lonely)
    with pytest.raises(ValueError, match="test part of portraits has no class with two images"):
        experiment.train_old()


def test_unequal_widths_leave_the_cross_test_unmeasured(root):
    metrics = silent(tiny(root, new_width=12)).evaluate().metrics
    assert metrics.value("new", "old", "map") is None and criterion(metrics) is None
    assert metrics.value("new", "new", "map") is not None
    assert metrics.value("new", "old", "map", adapter="ridge") is not None


def test_both_sides_share_a_simplex_in_which_every_class_has_its_vertex(root):
    losses = {"old_loss": "simplex", "new_loss": "simplex"}
    wide = tiny(root, old_width=20, new_width=20, method="hoc", epochs=1, old_epochs=1, **losses)
    experiment = silent(wide)
    run = experiment.evaluate()
    old, new = (side.classifier.weight for side in (experiment.train_old(), experiment.train()))
    assert not experiment.scenario.class_map.ge(0).any()  # open-class
    cosines = old @ new.T
    torch.testing.assert_close(cosines, torch.full_like(cosines, -1 / 20), atol=1e-5, rtol=0)
    assert torch.equal(new, simplex(20)[experiment.scenario.new_classes])
    assert experiment.old_system.classifier_scale is None
    assert run.metrics.value("new", "old", "map") is not None
    with pytest.raises(ValueError, match="old_width 8, which has 9 vertices for the 20 classes"):
        silent(tiny(root, **losses)).train_old()


def test_a_budget_of_passes_gives_mixbct_more_epochs(root):
    steps = silent(tiny(root, method="mixbct", epochs=4)).evaluate()
    passes = silent(tiny(root, method="mixbct", epochs=4, budget="passes")).evaluate()
    assert (cost(steps, "epochs"), cost(passes, "epochs")) == (4, 6)  # 4 / 0.7
    full = cost(silent(tiny(root, epochs=4)).evaluate(), "backbone_images")
    assert cost(steps, "backbone_images") < 0.8 * full
    assert cost(passes, "backbone_images") == pytest.approx(full, rel=0.15)


def test_threads_hold_while_an_experiment_computes_and_no_longer(root):
    counted = []
    before = torch.get_num_threads()
    one = Experiment(tiny(root, threads=1), say=lambda line: counted.append(torch.get_num_threads()))
    try:
        torch.set_num_threads(2)
        one.evaluate()
        assert set(counted) == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_experiments_in_threads_of_one_process_take_turns(root, oracle, tmp_path):
    """Torch's random numbers are the process's own, and each would draw from the other's."""
    both = [silent(tiny(root, runs_root=str(tmp_path), seed=seed)) for seed in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        alone, _ = pool.map(Experiment.evaluate, both)
    file = "model.safetensors"
    assert (alone.folder / file).read_bytes() == (oracle.folder / file).read_bytes()


def _evaluate(config, queue):
    torch.set_num_threads(1)
    lines = []
    run = Experiment(config, say=lines.append).evaluate()
    epochs = sum(line.startswith("epoch") for line in lines)
    queue.put((epochs, run.metrics.value("new", "new", "map")))


def test_two_processes_do_not_train_the_same_model_twice(tmp_path, root):
    config = tiny(root, runs_root=str(tmp_path / "runs"), method="mixbct")
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=_evaluate, args=(config, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    results = [queue.get(timeout=600) for _ in workers]
    for worker in workers:
        worker.join()
    assert sum(epochs for epochs, _ in results) == 4  # two of the old model, two of the new
    assert results[0][1] == results[1][1]


def test_a_third_generation_takes_the_second_for_its_old_model(root, oracle):
    second = tiny(root, method="bct", seed=3)
    third = second.next_generation(new_backbone="convnet-half")
    with pytest.raises(ValueError, match="there is no finished run in .*: run it first"):
        silent(third).evaluate()
    middle = silent(second)
    middle.evaluate()
    experiment = silent(third)
    run = experiment.evaluate()
    assert torch.equal(experiment.old.test, middle.new.test)
    assert torch.equal(experiment.old_system.features, middle.training_features())
    assert torch.equal(experiment.old_system.classifier_weight, middle.new.classifier.weight)
    assert torch.equal(experiment.old_system.class_map, torch.arange(14))
    assert run.metrics.value("old", "old", "map") == middle.evaluate().metrics.value("new", "new", "map")
    assert experiment.old_run.config["method"] == "old"
    assert list(silent(third).evaluate().metrics) == list(run.metrics)
    twins = silent(second.next_generation(method="independent"))  # of the second's kind
    twins.train_old()
    networks = [one.new_parts()[0].state_dict().values() for one in (middle, middle, twins)]
    assert all(map(torch.equal, networks[0], networks[1]))
    assert not all(map(torch.equal, networks[0], networks[2]))  # else comparable without any method
    more = second.dataset_options | {"eval_images": 6}
    for changes, words in (
        ({"old_width": 7}, r"has \(backbone, loss, width, .* 8, F.*, but the old side .* 7, F"),
        # sums of an image and its mirror image against features of one image
        ({"flip_test": True}, r"flipped test images\) .* 8, False\), but the old side .* 8, True\)"),
        ({"scenario": "extended-class"}, "has other training images than this experiment"),
        ({"dataset_options": more}, "has other validation images and test images than"),
    ):
        with pytest.raises(ValueError, match=words):
            silent(second.next_generation(**changes)).train_old()
    features = middle.new.test  # the second generation is trained again, elsewhere
    tensors, known = load_tensors(second.run_folder / FEATURES)
    save_tensors(tensors | {"test": -features}, second.run_folder / FEATURES, known)
    with pytest.raises(ValueError, match="old-s3-.* was made with other old model than now.*delete"):
        silent(third).train_old()


def test_a_new_model_and_its_checkpoint_belong_to_one_old_model(tmp_path, root, oracle):
    """The same configuration on another machine, or with other threads, gives another old model."""

    def kill(line):
        if line.startswith("epoch 1/2") and config.old_folder.joinpath("metrics.json").exists():
            raise KeyboardInterrupt

    config = tiny(root, runs_root=str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        Experiment(config, say=kill).train()
    tensors, known = load_tensors(config.old_folder / FEATURES)
    save_tensors(tensors | {"test": tensors["test"] + 1}, config.old_folder / FEATURES, known)
    with pytest.raises(ValueError, match=r"written with other settings \(old model\)"):
        silent(config).train()
    save_tensors(tensors, config.old_folder / FEATURES, known)
    silent(config).evaluate()
    save_tensors(tensors | {"test": tensors["test"] + 1}, config.old_folder / FEATURES, known)
    with pytest.raises(ValueError, match=f"{config.run_id} was made with other old model than now"):
        silent(config).train()
    stored = json.loads((config.old_folder / "config.json").read_text())
    (config.old_folder / "config.json").write_text(json.dumps(stored | {"old_lr": 0.3, "lr": 0.3}))
    with pytest.raises(ValueError, match="was made with other old_lr than now"):  # by another version
        silent(config).train()


def test_a_model_that_is_trained_again_is_measured_again(tmp_path, root, oracle):
    config = tiny(root, runs_root=str(tmp_path))
    first = silent(config).evaluate()
    first.folder.joinpath(FEATURES).unlink()
    first.folder.joinpath("metrics.json").write_text("[]")
    again = silent(config)
    again.train()
    assert {path.name for path in first.folder.iterdir()} >= {FEATURES, "training_features.npy"}
    assert not (first.folder / "training_features.json").exists()
    assert again.evaluate().metrics.value("new", "old", "map") == oracle.metrics.value("new", "old", "map")


def test_a_third_generation_by_bc_aligner_knows_the_maps_of_the_second(root):
    second = tiny(root, method="bc_emb", new_width=10)
    middle, last = silent(second), silent(second.next_generation(new_width=6))
    middle.evaluate()
    run = last.evaluate()
    (first,) = middle.new.method.maps
    assert first.shape == (8, 10)
    assert torch.equal(last.new.method.back, torch.cat([torch.eye(10), first]))
    near, far = last.new.method.maps
    torch.testing.assert_close(far, first @ near)
    torch.testing.assert_close(last.new.query, last.new.test @ near.T)
    assert torch.equal(last.new.gallery, last.old.test)
    assert run.metrics.value("new", "old", "map", adapter="with-old-query") is not None


def test_unequal_widths_are_compared_as_the_method_compares_them(root):
    experiment = silent(tiny(root, new_width=12, method="bct"))
    run = experiment.evaluate()
    new, old = experiment.new.test, experiment.old.test
    assert (new.shape[1], old.shape[1]) == (12, 8)
    assert torch.equal(experiment.new.query, new[:, :8]) and torch.equal(experiment.new.gallery, old)
    assert run.metrics.value("new", "old", "map") is not None and criterion(run.metrics) is not None
    assert experiment.new.history[-1]["val/new_old/tar@far=1e-2"] is not None


def test_bt2_stores_what_its_head_gives_and_compares_the_first_coordinates(root, oracle):
    config = tiny(root, method="bt2", method_options={"extra": 4})
    run = silent(config).evaluate()
    again = silent(config)
    new = again.train()
    assert new.test.shape[1] == 8 + 4
    assert torch.equal(new.query, new.test[:, :8]) and torch.equal(new.gallery, again.old.test)
    embedded = again.embed(new.model, again.data.test.images)
    assert torch.allclose(embedded, new.test, atol=1e-5)
    assert run.metrics.value("new", "old", "map") is not None
    assert run.metrics.value(None, None, "constraint1/share") is not None
    assert again.oracle.config.run_id == oracle.config["run_id"]
    with pytest.raises(ValueError, match="go on from another method than bt2"):
        silent(config.next_generation()).train_old()  # whose old model stores more than it classifies


def test_fct_is_independent_training_and_a_transformed_gallery(root, oracle):
    config = tiny(root, method="fct", method_options=FIT)
    run = silent(config).evaluate()
    again = silent(config)
    again.train()
    assert torch.equal(again.new.test, again.oracle.train().test)  # to the bit
    assert torch.equal(again.new.query, again.new.test)
    assert not torch.equal(again.new.gallery, again.old.test)
    with torch.inference_mode():
        transformed = again.new.method.comparable(again.new.test, again.old.test)[1]
    assert torch.allclose(transformed, again.new.gallery, atol=1e-5)
    assert run.metrics.value("new", "new", "map") == oracle.metrics.value("new", "new", "map")
    assert "val/new_old/tar@far=1e-2" not in again.new.history[-1]


def test_fastfill_backfills_in_its_own_order(root):
    metrics = silent(tiny(root, method="fastfill", method_options=FIT)).evaluate().metrics
    learned, random = (metrics.value("new", "mixed", "area/map", order=o) for o in ("learned", "random"))
    gain = metrics.get("new", "mixed", "area_over_random/map", order="learned")
    assert gain.value == pytest.approx(learned - random) and gain.low is not None


def test_every_measure_of_an_upgrade_is_in_the_metrics(root, oracle):
    metrics = silent(tiny(root, method="bct")).evaluate().metrics
    assert metrics.value(None, None, "constraint4/slack") is not None
    assert metrics.get("new", "old", "losing").low is not None
    assert metrics.get("new", "mixed", "area_over_random/map", order="uncertain").high is not None
    for changes in ({"method": "bct", "new_width": 12}, {"method": "fct", "method_options": FIT}):
        metrics = silent(tiny(root, **changes)).evaluate().metrics
        for name in ("with-old-query", "midpoint"):
            assert 0 < metrics.value("new", "old", "map", adapter=name) <= 1
        assert 0 <= metrics.value("new", "old", "alpha", adapter="with-old-query") <= 1


def test_new_queries_ask_the_old_gallery_and_not_the_other_way_round(root, oracle):
    """Both directions are close to each other, so that a swap would show in no other number."""
    experiment = silent(tiny(root, method="bct"))
    run, _ = experiment.evaluate(), experiment.train()
    labels, ids = experiment.data.test.labels, torch.arange(len(experiment.data.test))
    sides = experiment.new.test, experiment.old.test
    assert all(torch.equal(a, b) for a, b in zip(experiment.cross, sides, strict=True))
    right, swapped = (
        retrieval(query, labels, gallery, labels, query_ids=ids, gallery_ids=ids).map
        for query, gallery in (sides, sides[::-1])
    )
    assert run.metrics.value("new", "old", "map") == pytest.approx(right, abs=1e-12) and right != swapped


def test_a_task_loss_joins_both_sides_and_every_method(root):
    run = silent(tiny(root, method="bct", task_loss="triplet", per_identity=4)).evaluate()
    assert run.history[0]["loss/task"] > 0
    assert Run(run.folder.parent / run.config["old_run_id"]).history[0]["loss/task"] > 0
