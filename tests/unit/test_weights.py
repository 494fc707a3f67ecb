"""Files of weights, and the scaling of a pretrained network's inputs against torchvision's own transform."""

import pytest
import torch
from torch import nn

from compat_lib.data.augmentation import to_float
from compat_lib.files import save_tensors
from compat_lib.models import build_model
from compat_lib.networks.weights import read_weights

NAME = "shufflenet_v2_x0_5"  # the smallest of torchvision's with a linear classifier


@pytest.fixture(scope="module")
def published():
    from torchvision import models

    torch.manual_seed(1)
    network = models.get_model(NAME, weights=None)
    for module in network.modules():  # statistics unlike those of a fresh network
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
    return network.eval()


def images():
    return torch.randint(
        0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def test_named_weights_see_what_torchvisions_own_transform_gives(published, tmp_path, monkeypatch):
    from torchvision import models

    weights = models.get_model_weights(NAME).DEFAULT
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # as if they had been fetched
    place = tmp_path / "hub" / "checkpoints" / weights.url.rpartition("/")[2]
    place.parent.mkdir(parents=True)
    torch.save(published.state_dict(), place)
    model = build_model(f"torchvision:{NAME}", width=8, size=64, weights="DEFAULT").eval()
    transform = weights.transforms(crop_size=64, resize_size=64)
    network = models.get_model(NAME, weights=None)
    network.load_state_dict(published.state_dict())
    network.fc = nn.Identity()
    with torch.inference_mode():
        expected = network.eval()(transform(images()))
        found = model.backbone(model.inputs(to_float(images())))
    assert torch.allclose(found, expected, atol=1e-4)
    # a service that has only the file gets the scaling with it
    save_tensors(model.state_dict(), tmp_path / "service.safetensors")
    torch.manual_seed(9)
    served = build_model(
        f"torchvision:{NAME}", width=8, size=64, weights=str(tmp_path / "service.safetensors")
    )
    with torch.inference_mode():
        assert torch.equal(served.eval()(to_float(images())), model(to_float(images())))


def test_weights_that_cannot_be_fetched_are_told_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # where nobody answers
    with pytest.raises(ValueError, match=f"'DEFAULT' of {NAME} could not be fetched .*{tmp_path}"):
        build_model(f"torchvision:{NAME}", size=64, weights="DEFAULT")


@pytest.mark.parametrize("kind", ["pth", "safetensors", "checkpoint.pth"])
def test_a_file_of_the_network_fills_it_and_its_classifier_is_left(published, kind, tmp_path):
    path, state = tmp_path / f"weights.{kind}", published.state_dict()
    if kind == "safetensors":
        save_tensors(state, path)
    else:
        parallel = {f"module.{name}": value for name, value in state.items()}
        torch.save({"state_dict": parallel, "epoch": 3} if "checkpoint" in kind else state, path)
    model = build_model(f"torchvision:{NAME}", width=8, size=64, weights=str(path))
    filled = model.backbone.state_dict()
    assert all(torch.equal(value, filled[name]) for name, value in state.items() if name in filled)
    assert set(state) - set(filled) == {"fc.weight", "fc.bias"} and model.inputs is None


def test_a_run_continues_from_the_file_of_a_run(tmp_path):
    model = build_model("convnet", width=8)
    weights = {f"model.{name}": value for name, value in model.state_dict().items()}
    save_tensors(weights | {"method.classifier.weight": torch.ones(2)}, tmp_path / "model.safetensors")
    again = build_model("convnet", width=8, weights=str(tmp_path / "model.safetensors"))
    state = again.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_what_does_not_fit_is_listed(tmp_path):
    path = tmp_path / "other.pth"
    state = build_model("convnet", channels=1).backbone.state_dict()
    del state["1.0.weight"], state["2.1.num_batches_tracked"]
    torch.save(state | {"extra.weight": torch.ones(1)}, path)
    sentence = (
        r"of backbone 'convnet' do not fit it: .* Missing key\(s\) in state_dict: .1\.0\.weight.\. "
        r"Unexpected key\(s\) in state_dict: .extra\.weight.\. size mismatch for 0\.0\.weight: "
    )
    with pytest.raises(ValueError, match=sentence):
        build_model("convnet", weights=str(path))


def test_files_that_hold_no_weights_are_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot be read .*No such file"):
        read_weights(str(tmp_path / "absent.pth"))
    with pytest.raises(ValueError, match="cannot be read .*There is no file"):
        read_weights(str(tmp_path / "absent.safetensors"))
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ValueError, match="cut.pth cannot be read"):
        read_weights(str(tmp_path / "cut.pth"))
    torch.save(nn.Linear(1, 1), tmp_path / "module.pth")  # unpickling it could run code
    with pytest.raises(ValueError, match="module.pth cannot be read"):
        read_weights(str(tmp_path / "module.pth"))
    torch.save({"epoch": 3}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="no state_dict of tensors"):
        read_weights(str(tmp_path / "other.pth"))
