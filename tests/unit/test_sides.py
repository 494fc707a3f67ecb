"""A trained model's files: what is read is what was kept, frozen; a foreign network is refused."""

import pytest
import torch
from safetensors import safe_open

from compat_lib.losses import build_method, find_method
from compat_lib.losses.heads import Classifier
from compat_lib.models import build_model
from compat_lib.old_system import OldSystem
from compat_lib.sides import compared, deployed, is_kept, keep_side, read_side, save_tensors

HISTORY = [{"epoch": 1, "seconds": 0.5, "loss/classification": 2.25}]


def parts(method="independent", seed=0, backbone="convnet-half", **options):
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(7)
    old = OldSystem.from_arrays(torch.randn(12, 8, generator=generator), torch.arange(12) % 3)
    old = old.with_oracle(torch.randn(12, 8, generator=generator))
    model = build_model(backbone, width=find_method(method).model_width(8, 8), channels=3, size=32)
    return model, build_method(method, old, Classifier("arcface", 8, 3), **options)


def features(count=5):
    return {"test": torch.randn(count, 8), "val": torch.randn(3, 8)}


@pytest.mark.parametrize("method", ["independent", "advbct", "bt2"])
def test_what_is_read_is_what_was_kept_and_frozen(tmp_path, method):
    model, loss = parts(method, seed=1)
    shown = features()
    keep_side(tmp_path, model, loss, HISTORY, shown | {"query": shown["test"], "gallery": -shown["test"]})
    side = read_side(tmp_path, *parts(method, seed=2), "cpu")
    for name, value in deployed(model, loss).state_dict().items():
        assert torch.equal(side.model.state_dict()[name], value), name
    for name, value in loss.state_dict().items():
        assert torch.equal(side.method.state_dict()[name], value), name
    assert torch.equal(side.test, shown["test"]) and torch.equal(side.val, shown["val"])
    assert torch.equal(side.query, side.test) and torch.equal(side.gallery, -side.test)
    assert side.history == HISTORY and side.classifier is side.method.classifier
    assert not side.model.training and not side.method.training
    assert not any(p.requires_grad for module in (side.model, side.method) for p in module.parameters())


def test_an_old_model_has_no_sides_of_a_cross_test(tmp_path):
    keep_side(tmp_path, *parts(), HISTORY, features())
    side = read_side(tmp_path, *parts(), "cpu")
    assert side.query is None and side.gallery is None


def test_training_is_over_when_the_last_file_is_there(tmp_path, monkeypatch):
    assert not is_kept(tmp_path)
    monkeypatch.setattr("compat_lib.sides.write_history", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        keep_side(tmp_path, *parts(), HISTORY, features())
    assert not is_kept(tmp_path)
    monkeypatch.undo()
    keep_side(tmp_path, *parts(), HISTORY, features())
    assert is_kept(tmp_path)


def test_another_network_is_refused_with_the_folder_and_a_way_out(tmp_path):
    keep_side(tmp_path, *parts(), HISTORY, features())
    with pytest.raises(ValueError, match=r"(?s)another version of the package .*delete the folder"):
        read_side(tmp_path, *parts(backbone="convnet"), "cpu")


def test_a_head_is_part_of_what_is_deployed():
    model, loss = parts()
    assert deployed(model, loss) is model
    model, loss = parts("bt2")
    pixels = torch.zeros(2, 3, 32, 32)
    model.eval()
    with torch.inference_mode():
        assert torch.equal(deployed(model, loss)(pixels), loss.head(model(pixels)))


def test_the_cross_test_leaves_the_method_in_its_mode():
    _, loss = parts("l2")
    new, old = torch.randn(4, 8), torch.randn(6, 8)
    for training in (True, False):
        loss.train(training)
        query, gallery = compared(loss, new, old)
        assert loss.training is training
        assert torch.equal(query, new) and torch.equal(gallery, old)
    assert compared(loss, torch.randn(4, 9), old) is None


def test_tensors_are_written_whole_with_their_words(tmp_path):
    one = torch.arange(6.0).reshape(2, 3)
    save_tensors({"a": one, "b": one, "c": one.T}, tmp_path / "x.safetensors", {"digest": "7"})
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata() == {"digest": "7"}
        assert torch.equal(file.get_tensor("b"), one) and torch.equal(file.get_tensor("c"), one.T)
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]
