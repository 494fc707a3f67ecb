"""An old side that is a file of features: joined by names, compared, refused when it leaves a doubt."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tiny_runs import TINY, silent, tiny

from compat_lib import data
from compat_lib.evaluation import retrieval
from compat_lib.old_sources import read_old_features

pytestmark = pytest.mark.precision

WIDTH = 12


@pytest.fixture
def place(tmp_path):
    """Images of 14 and 4 classes, with names of all kinds, in class folders."""
    draw = np.random.default_rng(0)
    for part, classes in {"train": range(14), "test": range(14, 18)}.items():
        for number in classes:
            folder = tmp_path / "Meine Fotos" / part / f"Zoë {number}"
            folder.mkdir(parents=True)
            base = draw.integers(0, 200, (4, 4, 3))
            for image in range(6):
                pixels = (base + draw.integers(0, 55, base.shape)).astype(np.uint8)
                name = f"{image} ü.png" if image % 2 else f"{image}.jpg"
                Image.fromarray(pixels).resize((16, 16)).save(folder / name)
    return tmp_path / "Meine Fotos"


def rows_of(place):
    """Ids and features of all images, shuffled: each feature is a fixed function of its image's pixels."""
    files = sorted(path for path in place.rglob("*") if path.is_file())
    np.random.default_rng(1).shuffle(files)
    mix = np.random.default_rng(2).standard_normal((48, WIDTH))
    small = [np.asarray(Image.open(path).convert("RGB").resize((4, 4))).ravel() for path in files]
    features = (np.stack(small) / 255 - 0.5) @ mix
    return [str(path.relative_to(place)) for path in files], features.astype(np.float32)


def write(path, ids, features, **more):
    frame = pd.DataFrame(features, columns=[f"f{n}" for n in range(WIDTH)]).assign(path=ids, **more)
    frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path, index=False)
    return str(path)


def configured(place, **changes):
    values = {"dataset": "folder", "dataset_options": {"path": str(place)}, "method": "l2", "epochs": 1}
    values |= {"new_backbone": "convnet-half", "image_size": 16, "old_width": WIDTH, "new_width": WIDTH}
    return tiny(place.parent, **(values | changes))


def test_each_image_has_its_own_row_and_held_out_classes_keep_theirs(place):
    ids, features = rows_of(place)
    by_name = dict(zip(ids, features, strict=True))
    config = configured(place, old_features=write(place.parent / "old.csv", ids, features))
    assert config.experiment_id.startswith("Meine-Fotos-features-to-arcface-")
    splits = data.load("folder", path=place, root=place.parent / "data", size=16)
    assert splits.val.names[0].startswith("train/")  # held out of training
    found = read_old_features(config, splits)
    for part, images in splits.parts.items():
        wanted = np.stack([by_name[images.names[row]] for row in range(len(images))])
        assert np.allclose(found[part], wanted, atol=1e-6)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_an_experiment_with_a_given_old_side(place, suffix):
    ids, features = rows_of(place)
    file = place.parent / f"old{suffix}"
    config = configured(place, old_features=write(file, ids, features))
    experiment = silent(config)
    run = experiment.evaluate()
    assert experiment.old.model is None and experiment.old_system.has == {"features", "prototypes"}
    assert len(experiment.new_images) == len(experiment.data.train)  # all of it trains the new model
    by_name = dict(zip(ids, features, strict=True))
    test = experiment.data.test
    direct = retrieval(np.stack([by_name[test.names[row]] for row in range(len(test))]), test.labels)
    assert run.metrics.value("old", "old", "map") == pytest.approx(direct.map, abs=1e-6)
    assert experiment.old_run.history == [] and experiment.old_run.config["facts"]["parameters"] is None
    # A second method finds the old side there; another file of the same name is refused.
    silent(config.changed(method="independent")).evaluate()
    write(file, ids, features[::-1])
    words = "other old test features and old train features.* than now in .* and .*old"
    with pytest.raises(ValueError, match=words):
        silent(config).evaluate()


def test_test_features_in_a_file_of_their_own(place):
    ids, features = rows_of(place)
    test = np.array([name.startswith("test/") for name in ids])
    short = np.array([name.split("/", 1)[1] for name in ids])  # class/file
    sides = {place.parent / "train.csv": ~test, place.parent / "test.csv": test}
    files = [write(path, short[rows], features[rows], who=1) for path, rows in sides.items()]
    whole = configured(place, old_features=write(place.parent / "old.csv", ids, features))
    splits = silent(whole).data
    both = read_old_features(whole, splits)
    two = configured(place, old_features=files[0], old_test_features=files[1])
    assert all(torch.equal(value, both[part]) for part, value in read_old_features(two, splits).items())


def test_old_features_of_unreadable_images_are_told(place, caplog):
    ids, features = rows_of(place)
    features[[5, 50]] = 0
    config = configured(place, old_features=write(place.parent / "old.csv", ids, features))
    read_old_features(config, silent(config).data)
    assert "2 of 108 old features are zeros, or one vector for different classes" in caplog.text
    assert any(f"(the first: {ids[row]})" in caplog.text for row in (5, 50))


def refused(place, words, ids, features, **changes):
    config = configured(place, old_features=write(place.parent / "old.csv", ids, features), **changes)
    with pytest.raises(ValueError, match=words):
        silent(config).train_old()
    assert not (config.old_folder / "old_system").exists()


def test_what_leaves_a_doubt_is_refused_before_anything_is_trained(place):
    ids, features = rows_of(place)
    refused(place, "3 of 108 images have no feature, the first '.*', '.*', '.*'; ", ids[3:], features[3:])
    wide = {"old_width": 16, "new_width": 16}
    refused(place, "width 12, but old_width is 16; set old_width: 12", ids, features, **wide)
    refused(place, "name the same image", [*ids, ids[5]], np.concatenate([features, features[:1]]))
    changes = {"dataset": "portraits", "dataset_options": TINY["dataset_options"]}
    refused(place, "does not have .train, val, test.; use dataset: folder", ids, features, **changes)


def test_methods_that_need_more_are_refused_with_those_that_do_not(place):
    more = {"old_features": "x.csv", "method": "bct", "method_options": {"variant": "classifier"}}
    with pytest.raises(ValueError, match="needs the old system's classifier, but only .* Methods that work"):
        silent(configured(place, **more))
