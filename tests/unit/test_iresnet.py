"""IResNet against the published numbers of parameters, and a slow loop through its layers."""

import pytest
import torch
from torch.nn import functional

from compat_lib.models import build_model
from compat_lib.networks.iresnet import IResNet


@pytest.mark.parametrize(
    ("name", "million"), [("iresnet18", 24.03), ("iresnet50", 43.59), ("iresnet100", 65.16)]
)
def test_parameters_at_112_pixels_and_512_outputs_are_the_published_number(name, million):
    with torch.device("meta"):
        model = build_model(name, width=512, size=112)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == million


def test_forward_is_the_published_order_of_layers():
    torch.manual_seed(0)
    network = IResNet((1, 2, 1, 1), channels=1).double()
    state = network.state_dict()
    for value in state.values():  # so that no norm is the identity
        if value.is_floating_point() and value.ndim == 1:
            value.uniform_(0.5, 1.5)
    network.eval()

    def norm(x, name):
        parts = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(x, *(state[f"{name}.{part}"] for part in parts))

    def rectified(x, name):
        return functional.prelu(x, state[f"{name}.weight"])

    pixels = torch.randn(2, 1, 40, 24, dtype=torch.float64)
    x = rectified(norm(functional.conv2d(pixels, state["conv1.weight"], padding=1), "bn1"), "prelu")
    for layer, blocks in enumerate((1, 2, 1, 1), start=1):
        for number in range(blocks):
            at, stride = f"layer{layer}.{number}", 2 if number == 0 else 1
            y = functional.conv2d(norm(x, f"{at}.bn1"), state[f"{at}.conv1.weight"], padding=1)
            y = rectified(norm(y, f"{at}.bn2"), f"{at}.prelu")
            y = norm(functional.conv2d(y, state[f"{at}.conv2.weight"], stride=stride, padding=1), f"{at}.bn3")
            if number == 0:
                x = functional.conv2d(x, state[f"{at}.downsample.0.weight"], stride=2)
                x = norm(x, f"{at}.downsample.1")
            x = x + y
    with torch.no_grad():
        found = network(pixels)
    assert found.shape == (2, 512, 3, 2)
    assert torch.allclose(found, norm(x, "bn2"), rtol=1e-9)
