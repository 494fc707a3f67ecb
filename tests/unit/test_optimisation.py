"""The recipe: rates against torch's own schedulers, optimisers over the right parameters."""

import dataclasses

import pytest
import torch

from compat_lib.config import ExperimentConfig
from compat_lib.losses import build_method
from compat_lib.losses.heads import Classifier
from compat_lib.models import build_model
from compat_lib.optimisation import InParts, TrainingSettings, build_optimiser, learning_rate
from compat_lib.recipe import settings_of

STEPS = 40


def of_torch(scheduler, **options):
    weight = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([weight], lr=0.3)
    scheduler = scheduler(optimiser, **options)
    rates = []
    for _ in range(STEPS):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return rates


def test_rates_equal_those_of_torchs_schedulers():
    from torch.optim import lr_scheduler as of

    plain = TrainingSettings(lr=0.3, warmup=0.0)

    def rates(**changes):
        settings = dataclasses.replace(plain, **changes)
        return [learning_rate(settings, step, STEPS) for step in range(STEPS)]

    assert rates() == pytest.approx(of_torch(of.CosineAnnealingLR, T_max=STEPS))
    square = of_torch(of.PolynomialLR, total_iters=STEPS, power=2.0)
    assert rates(schedule="polynomial") == pytest.approx(square)
    thirds = rates(schedule="multistep", milestones=(1 / 3, 0.75))
    assert thirds == pytest.approx(of_torch(of.MultiStepLR, milestones=[13, 30], gamma=0.1))
    warm = rates(schedule="multistep", milestones=(1 / 3, 0.75), warmup_steps=8)
    assert warm[:8] == pytest.approx([0.3 * (k + 1) / 8 for k in range(8)]) and warm[8:] == thirds[8:]
    assert rates(warmup=0.2) == rates(warmup=0.9, warmup_steps=8)


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_the_optimiser_holds_what_learns_and_decays_what_is_asked(name, kind):
    model = build_model("convnet-half", width=4)
    method = build_method("independent", None, Classifier("linear", 4, 3))
    parameters = [p for p in [*model.parameters(), *method.parameters()] if p.requires_grad]
    for decay in ("matrices", "all"):
        optimiser = build_optimiser(model, method, TrainingSettings(optimiser=name, decay=decay))
        assert type(optimiser) is kind
        decayed, rest = (group["params"] for group in optimiser.param_groups)
        assert {id(p) for p in decayed + rest} == {id(p) for p in parameters}
        assert [p.ndim for p in rest] == [p.ndim for p in parameters if p.ndim < 2 and decay == "matrices"]
        assert [group["weight_decay"] for group in optimiser.param_groups] == [5e-4, 0.0]


def test_a_configuration_gives_both_sides_their_recipe():
    schedule = {"schedule": "multistep", "milestones": [0.75], "warmup_steps": 2000}
    config = ExperimentConfig(optimiser="adam", decay="all", **schedule)
    settings = settings_of(config, 3, 0.5, 7)
    assert (settings.epochs, settings.lr, settings.seed) == (3, 0.5, 7)
    assert (settings.optimiser, settings.milestones, settings.warmup_steps) == ("adam", [0.75], 2000)
    assert config.changed(schedule="cosine", milestones=[]).run_id != config.run_id


def test_a_batch_in_parts_has_the_gradient_of_the_whole():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).double()
    rows = torch.randn(7, 4, dtype=torch.float64)

    def gradients(model):
        network.zero_grad()
        outputs = model(rows)
        (outputs @ outputs.T).exp().mean().backward()  # each row meets all others
        return [outputs.detach(), *(parameter.grad for parameter in network.parameters())]

    torch.testing.assert_close(gradients(InParts(network, 3)), gradients(network))


def test_parts_update_the_running_statistics_once():
    plain, parts = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    rows = torch.randn(6, 2)
    InParts(parts, 2)(rows).sum().backward()
    for part in rows.split(3):
        plain(part)
    torch.testing.assert_close(parts.running_mean, plain.running_mean)
    torch.testing.assert_close(parts.running_var, plain.running_var)
    assert parts.momentum == plain.momentum
