"""An old model from another data set, or of classes named by hand: trained, kept, refused when it changes."""

import numpy as np
import pytest
from image_folders import paint
from PIL import Image
from tiny_runs import TINY, silent, tiny

PORTRAITS = TINY["dataset_options"]


def configured(root, **changes):
    one = {"method": "dual_tuning", "new_backbone": "convnet-half", "old_epochs": 1, "epochs": 1}
    return tiny(root, **(one | changes))


def test_the_old_model_of_another_data_set(tmp_path):
    place = tmp_path / "other"
    for part, names in {"train": "abc", "val": "ab", "test": "ab"}.items():
        paint(place / part, dict.fromkeys(names, 6), noise=np.random.default_rng(0))
    changes = {"old_dataset": "folder", "old_dataset_options": {"path": str(place)}}
    config = configured(tmp_path, **changes)
    assert config.experiment_id.startswith("other-to-portraits-open-class-softmax-to-arcface-")
    experiment = silent(config)
    run = experiment.evaluate()
    assert len(experiment.old_images) == 18 and experiment.old.classifier.num_classes == 3
    # Everything of the new set trains the new model, and no class of it is the old model's.
    assert len(experiment.new_images) == len(experiment.data.train)
    assert experiment.old_system.class_map.tolist() == [-1] * experiment.new_images.num_classes
    assert run.config["made_of"]["old training images"] == experiment.old_images.digest()
    assert run.config["made_of"]["training images"] == experiment.data.train.digest()
    assert 0 <= run.metrics.value("new", "old", "map") <= 1

    (place / "train" / "a" / "000.png").write_bytes((place / "train" / "b" / "001.png").read_bytes())
    with pytest.raises(ValueError, match="made with other old training images than now"):
        silent(config).evaluate()


def test_the_old_model_of_named_classes(tmp_path):
    names = tmp_path / "old.txt"
    plain = silent(configured(tmp_path, scenario="extended-class"))
    wanted = plain.data.train.classes[3:8]
    names.write_text("\n".join(wanted))
    config = configured(tmp_path, scenario="extended-class", old_classes=str(names))
    run = silent(config)
    run.evaluate()
    assert run.old_images.classes == wanted
    new = [-1] * (plain.data.train.num_classes - 5)
    assert sorted(run.old_system.class_map.tolist()) == [*new, *range(5)]

    names.write_text("\n".join(plain.data.train.classes[2:7]))
    with pytest.raises(ValueError, match="made with other old training images than now"):
        silent(config).evaluate()


def test_sets_of_other_channels_are_refused(tmp_path):
    for part in ("images_background", "images_evaluation"):
        for number in range(6):
            place = tmp_path / "data" / "omniglot-py" / part / "Alphabet" / f"character{number:02d}"
            place.mkdir(parents=True)
            for drawing in range(2):
                Image.new("1", (105, 105), drawing).save(place / f"{drawing}.png")
    changes = {"dataset_options": {}, "old_dataset": "portraits", "old_dataset_options": PORTRAITS}
    experiment = silent(configured(tmp_path, dataset="omniglot", **changes))
    with pytest.raises(ValueError, match="portraits and dataset omniglot have 3 and 1 channels"):
        experiment.train_old()
