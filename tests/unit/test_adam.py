"""The optimiser against torch's own, to the bit, with and without decay, gaps and changes of the rate."""

import subprocess
import sys

import pytest
import torch

from compat_lib.adam import Adam


def parameters(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype))
        for shape in ((5, 3), (5,), (2, 2, 2), ())
    ]


def give_gradients(values, step):
    generator = torch.Generator().manual_seed(100 + step)
    for number, value in enumerate(values):
        gradient = torch.randn(value.shape, generator=generator).to(value.dtype)
        # one parameter has no gradient at first and in the middle, as an unused branch would
        value.grad = None if number == 1 and step in (0, 3) else gradient


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_torch_to_the_bit(weight_decay, dtype):
    ours, theirs = parameters(dtype), parameters(dtype)
    optimiser = Adam(
        [{"params": ours[:2]}, {"params": ours[2:], "weight_decay": 0.0, "lr": 0.03}],
        lr=0.1,
        weight_decay=weight_decay,
    )
    reference = torch.optim.Adam(
        [
            {"params": theirs[:2], "weight_decay": weight_decay},
            {"params": theirs[2:], "lr": 0.03},
        ],
        lr=0.1,
    )
    for step in range(12):
        if step == 6:
            for group in (*optimiser.groups, *reference.param_groups):
                group["lr"] /= 3
        give_gradients(ours, step)
        give_gradients(theirs, step)
        optimiser.step()
        reference.step()
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)), step


def test_finds_the_bottom_of_a_bowl():
    point, goal = torch.nn.Parameter(torch.tensor([3.0, -2.0])), torch.tensor([1.0, 5.0])
    optimiser = Adam([{"params": [point]}], lr=0.1)
    for _ in range(400):
        optimiser.zero_grad()
        (torch.tensor([1.0, 100.0]) * (point - goal).square()).sum().backward()
        optimiser.step()
    torch.testing.assert_close(point.detach(), goal, atol=1e-3, rtol=0)


def test_zero_grad_forgets_gradients():
    values = parameters()
    give_gradients(values, 1)
    Adam([{"params": values[:1]}, {"params": values[1:]}], lr=0.1).zero_grad()
    assert all(value.grad is None for value in values)


def test_training_does_not_start_the_compiler():
    code = (
        "import sys, torch; from compat_lib.adam import Adam; p = torch.nn.Parameter(torch.ones(2)); "
        "o = Adam([{'params': [p]}], lr=0.1); p.sum().backward(); o.step(); o.zero_grad(); "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
