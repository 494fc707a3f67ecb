"""The recipe: rates against torch's own schedulers, optimisers over the right parameters."""

import dataclasses

import pytest
import torch

from compat_lib.config import ExperimentConfig
from compat_lib.losses import build_method
from compat_lib.losses.heads import Classifier
from compat_lib.models import build_model
from compat_lib.optimisation import TrainingSettings, build_optimiser, learning_rate
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
