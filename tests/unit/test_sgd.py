"""The optimiser against torch's own, to the bit, with and without decay, gaps and a restart."""

import subprocess
import sys

import pytest
import torch

from compat_lib.sgd import NesterovSGD


def parameters():
    generator = torch.Generator().manual_seed(0)
    return [
        torch.nn.Parameter(torch.randn(*shape, generator=generator)) for shape in ((5, 3), (5,), (2, 2, 2))
    ]


def give_gradients(values, step):
    generator = torch.Generator().manual_seed(100 + step)
    for number, value in enumerate(values):
        gradient = torch.randn(value.shape, generator=generator)
        # one parameter has no gradient at first and in the middle, as an unused branch would
        value.grad = None if number == 1 and step in (0, 3) else gradient


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("restart", [None, 4])
def test_equals_torch_to_the_bit(weight_decay, restart):
    ours, theirs = parameters(), parameters()
    options = {"lr": 0.1, "momentum": 0.9}
    groups = [{"params": ours[:2], "weight_decay": weight_decay}, {"params": ours[2:], "weight_decay": 0.0}]
    optimiser = NesterovSGD(groups, **options)
    reference = torch.optim.SGD(
        [{"params": theirs[:2], "weight_decay": weight_decay}, {"params": theirs[2:], "weight_decay": 0.0}],
        nesterov=True,
        **options,
    )
    for step in range(8):
        if step == restart:
            state = optimiser.state_dict()
            optimiser = NesterovSGD(groups, **options)
            optimiser.load_state_dict(state)
        for group in (*optimiser.groups, *reference.param_groups):
            group["lr"] = 0.1 / (step + 1)
        give_gradients(ours, step)
        give_gradients(theirs, step)
        optimiser.step()
        reference.step()
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)), step


def test_zero_grad_forgets_gradients():
    values = parameters()
    give_gradients(values, 1)
    NesterovSGD([{"params": values, "weight_decay": 0.0}], lr=0.1, momentum=0.9).zero_grad()
    assert all(value.grad is None for value in values)


def test_training_does_not_start_the_compiler():
    code = (
        "import sys, torch; from compat_lib.sgd import NesterovSGD; p = torch.nn.Parameter(torch.ones(2)); "
        "o = NesterovSGD([{'params': [p], 'weight_decay': 0.1}], lr=0.1, momentum=0.9); "
        "p.sum().backward(); torch.nn.utils.clip_grad_norm_([p], 1.0); o.step(); o.zero_grad(); "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
