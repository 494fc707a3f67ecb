"""An experiment whose images stay encoded gives the numbers of the same images in memory, to the bit."""

import numpy as np
import paper_scale_data as benchmark
import pytest
import torch
from image_folders import paint
from tiny_runs import silent, tiny

from compat_lib.models import build_model, embed

pytestmark = pytest.mark.precision


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Eight classes of portrait-format pictures, each class of one colour with noise."""
    place, noise = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 2), ("test", 3)):
        paint(place / part, {f"class-{number}": count for number in range(8)}, (30, 20), noise)
    return place


def config(place, runs, **changes):
    source = {"dataset": "folder", "dataset_options": {"path": str(place)}, "old_share": 0.5}
    size = {"image_size": 16, "image_height": 24, "batch_size": 8, "new_backbone": "convnet-half"}
    augmentation = {"shift": 0, "pad": 3, "erase": 0.5, "flip": True}
    how = {"epochs": 1, "old_epochs": 1, "bootstrap_draws": 0, "method": "mixbct", "precision": "float32"}
    return tiny(runs, **(source | size | augmentation | how | changes))


def numbers(run):
    return [one for one in run.metrics if "seconds" not in one.metric]


def test_a_streamed_experiment_is_the_one_in_memory(place, tmp_path):
    memory = silent(config(place, tmp_path))
    streamed = silent(config(place, tmp_path, stream=True, workers=1))
    assert memory.data.train.images.shape == streamed.data.train.images.shape == (48, 3, 24, 16)
    one, two = numbers(memory.evaluate()), numbers(streamed.evaluate())
    assert one == two and len(one) > 20
    assert memory.old_system.mapped is None and streamed.old_system.mapped.name == "features.npy"
    assert (memory.old_system.features == streamed.old_system.features).all()
    features = streamed.training_features()
    assert torch.equal(features, memory.training_features())
    assert torch.equal(streamed.training_features(), features)  # read again
    assert (streamed.config.run_folder / "training_features.npy").is_file()
    again = silent(config(place, tmp_path, stream=True))
    assert numbers(again.evaluate()) == two  # another number of workers is the same run
    with (place / "test" / "class-0" / "000.png").open("ab") as file:
        file.write(b" ")
    changed = silent(config(place, tmp_path, stream=True))
    with pytest.raises(ValueError, match="was made with other test images than now in"):
        changed.evaluate()


def test_embeddings_written_block_by_block_are_those_in_memory(place, tmp_path):
    images = silent(config(place, tmp_path, stream=True)).data.train.images
    model = build_model("convnet-half", width=8, size=(24, 16))
    whole = embed(model, images, precision="float32", batch_size=20)
    mapped = embed(model, images[:], precision="float32", batch_size=20, out=tmp_path / "a" / "rows.npy")
    assert np.array_equal(np.load(tmp_path / "a" / "rows.npy"), whole.numpy())
    assert np.array_equal(mapped.numpy(), whole.numpy())
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["rows.npy"]


def test_every_part_of_the_benchmark_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "BATCH", 8)
    size, path = {"rows": 60, "classes": 7, "width": 5}, tmp_path / "rows.npy"
    benchmark.write_features(path, **size)
    assert np.load(path).shape == (60, 5) and np.load(path).dtype == np.float16
    parts = ("permutation", "order", "order_of_identities", "read", "means", "credible", "gathers")
    for name in parts:
        seconds, megabytes = benchmark.measure(getattr(benchmark, name), path, size)
        assert seconds > 0 and megabytes < 100
