"""Files of an old system: round trips, and the sentence for each kind of bad file."""

import json

import numpy as np
import pytest
import torch
from method_steps import make_old
from safetensors.torch import load_file, save_file

from compat_lib.old_files import DESCRIPTION, TENSORS
from compat_lib.old_system import OldSystem

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
    monkeypatch.setattr(
        "compat_lib.old_files.os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "old_system.json is not readable as JSON"),
        ("[]", "does not describe an old system of version 1"),
        ('{"version": 99, "num_classes": 5}', "does not describe an old system of version 1"),
    ],
)
def test_bad_descriptions(tmp_path, text, message):
    make_old().save(tmp_path)
    (tmp_path / DESCRIPTION).write_text(text)
    with pytest.raises(ValueError, match=message):
        OldSystem.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not tensors at all", None])
def test_damaged_tensors(tmp_path, content):
    make_old().save(tmp_path)
    whole = (tmp_path / TENSORS).read_bytes()
    (tmp_path / TENSORS).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(ValueError, match="old_system.safetensors is damaged"):
        OldSystem.load(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("features", torch.full((20, 6), torch.nan), "features hold 120 values that are not finite"),
        ("features", torch.zeros(20, 5), "The old system's arrays disagree: features have width 5"),
        ("labels", torch.arange(19) % 5, "features have 20 rows but labels 19"),
        ("labels", torch.full((20,), 5), "labels must be 0 to 4, but row 0 has 5"),
        (
            "class_map",
            torch.tensor([0, 1, 2, 3, -1]),
            "class_map must hold -1 to 2, but new label 3 maps to 3",
        ),
        ("secret", torch.zeros(1), "there is no field 'secret' in an old system"),
    ],
)
def test_bad_contents_name_file_and_field(tmp_path, field, value, message):
    make_old().save(tmp_path)
    description = json.loads((tmp_path / DESCRIPTION).read_text())
    tensors = load_file(tmp_path / TENSORS) | {field: value}
    save_file(tensors, tmp_path / TENSORS, metadata={"description": json.dumps(description)})
    with pytest.raises(ValueError, match=f"old_system.safetensors: {message}"):
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


def test_npz_with_pickled_objects_is_refused_without_reading_them(tmp_path):
    path = tmp_path / "old.npz"
    np.savez(path, features=np.array([{"a": 1}], dtype=object), labels=[0])
    with pytest.raises(ValueError, match="old.npz: 'features' holds Python objects.*can run code"):
        OldSystem.from_npz(path)


def test_bad_npz_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file .*old.npz"):
        OldSystem.from_npz(tmp_path / "old.npz")
    np.save(tmp_path / "array.npy", np.eye(3))
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "cut.npz", features=np.eye(30))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:200])
    for name in ("array.npy", "text.npz", "empty.npz", "cut.npz"):
        with pytest.raises(ValueError, match=f"{name} is not an npz archive of plain arrays"):
            OldSystem.from_npz(tmp_path / name)
    np.savez(tmp_path / "unknown.npz", embeddings=np.eye(3))
    with pytest.raises(
        ValueError, match="there is no field 'embeddings' in an old system. Fields: features, "
    ):
        OldSystem.from_npz(tmp_path / "unknown.npz")
    np.savez(tmp_path / "nan.npz", features=np.full((2, 2), np.nan), labels=[0, 1])
    with pytest.raises(ValueError, match="nan.npz: features hold 4 values that are not finite"):
        OldSystem.from_npz(tmp_path / "nan.npz")
    np.savez(tmp_path / "two.npz", features=np.eye(2), labels=[0, 1], num_classes=[2, 3])
    with pytest.raises(ValueError, match="two.npz: num_classes must be one number, not 2"):
        OldSystem.from_npz(tmp_path / "two.npz")
    np.savez(tmp_path / "float.npz", features=np.eye(2), labels=[0.0, 1.0])
    with pytest.raises(TypeError, match="float.npz: labels must be whole numbers"):
        OldSystem.from_npz(tmp_path / "float.npz")
