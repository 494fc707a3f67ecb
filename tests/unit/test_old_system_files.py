"""Files of an old system: round trips, and the sentence for each kind of bad file."""

import numpy as np
import pytest
import torch
from method_steps import make_old

from compat_lib.old_system import DESCRIPTION, TENSORS, OldSystem

FIELDS = (
    "features",
    "labels",
    "num_classes",
    "width",
    "given_prototypes",
    "classifier_weight",
    "classifier_bias",
    "classifier_scale",
    "class_map",
)


def assert_same(one, two):
    for field in FIELDS:
        a, b = getattr(one, field), getattr(two, field)
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, field


@pytest.mark.parametrize(
    "old",
    [
        make_old(),
        make_old(scale=32.0),
        make_old(classifier=False, class_map=None),
        OldSystem.from_arrays(prototypes=np.eye(3)),
        OldSystem.from_arrays(classifier_weight=np.eye(3), num_classes=7),
    ],
    ids=["everything", "cosine", "features only", "prototypes only", "classifier only"],
)
def test_saved_and_loaded_is_the_same(old, tmp_path):
    old.save(tmp_path / "a" / "old system")
    assert_same(OldSystem.load(tmp_path / "a" / "old system"), old)
    assert sorted(path.name for path in (tmp_path / "a" / "old system").iterdir()) == [DESCRIPTION, TENSORS]


def test_saving_again_replaces_and_leaves_other_files_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    make_old().save(tmp_path)
    other = make_old(seed=9, width=4)
    other.save(tmp_path)
    assert_same(OldSystem.load(tmp_path), other)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_save_that_was_killed_leaves_the_earlier_one(tmp_path, monkeypatch):
    old = make_old()
    old.save(tmp_path)
    monkeypatch.setattr("compat_lib.files.os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        make_old(seed=9).save(tmp_path)
    assert_same(OldSystem.load(tmp_path), old)


def test_halves_of_two_saves_are_refused(tmp_path):
    make_old().save(tmp_path / "a")
    make_old(width=4).save(tmp_path / "b")
    (tmp_path / "a" / DESCRIPTION).write_bytes((tmp_path / "b" / DESCRIPTION).read_bytes())
    with pytest.raises(ValueError, match="come from different saves"):
        OldSystem.load(tmp_path / "a")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file .*nowhere.*old_system.json"):
        OldSystem.load(tmp_path / "nowhere")
    make_old().save(tmp_path)
    (tmp_path / TENSORS).unlink()
    with pytest.raises(FileNotFoundError, match="There is no file .*old_system.safetensors"):
        OldSystem.load(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 99, "num_classes": 5}', '{"version": 2}'])
def test_bad_descriptions(tmp_path, text):
    make_old().save(tmp_path)
    (tmp_path / DESCRIPTION).write_text(text)
    with pytest.raises(ValueError, match=r"old_system\.json describes no old system of version 2; save"):
        OldSystem.load(tmp_path)


def damaged(whole):
    yield b""
    yield b"not tensors at all"
    yield whole[: len(whole) // 2]
    yield whole[:-40]
    yield whole[:-200] + bytes(200)  # a copy that broke off in its last block
    yield whole[:-1] + bytes([whole[-1] ^ 1])


def test_damaged_tensors_are_refused_with_the_file_and_the_remedy(tmp_path):
    make_old().save(tmp_path)
    path = tmp_path / TENSORS
    for content in damaged(path.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"old_system\.safetensors is damaged.*; save the old"):
            OldSystem.load(tmp_path)


def test_npz_of_a_user(tmp_path):
    old = make_old(scale=8.0)
    path = tmp_path / "old.npz"
    np.savez(
        path,
        features=old.features.numpy().astype(np.float64),
        labels=old.labels.numpy().astype(np.int32),
        classifier_weight=old.classifier_weight.numpy(),
        class_map=old.class_map.numpy(),
        classifier_scale=8.0,
        num_classes=5,
    )
    assert_same(OldSystem.from_npz(path), old)


BAD_NPZ = {
    "objects": ({"features": np.array([{"a": 1}], dtype=object)}, "is damaged, or no npz archive of plain"),
    "unknown": ({"embeddings": np.eye(3)}, "an old system has no 'embeddings', but features, labels, "),
    "not finite": ({"features": np.full((2, 2), np.nan), "labels": [0, 1]}, "features hold 4 values that"),
    "two scalars": (
        {"prototypes": np.eye(2), "num_classes": [2, 3]},
        "num_classes must be a whole number",
    ),
    "fractions": ({"features": np.eye(2), "labels": [0.0, 1.0]}, "labels must be whole numbers, not float64"),
}


@pytest.mark.parametrize("case", BAD_NPZ)
def test_bad_npz_files(tmp_path, case):
    arrays, message = BAD_NPZ[case]
    np.savez(tmp_path / "old.npz", **arrays)
    with pytest.raises((ValueError, TypeError), match=rf"old\.npz:? {message}"):
        OldSystem.from_npz(tmp_path / "old.npz")
