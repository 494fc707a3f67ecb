"""Independent training is the classification loss and nothing else."""

import pytest
import torch
from method_steps import check_gradient, make_classifier, make_old, make_step, slow_classification

from compat_lib.losses import build_method


@pytest.mark.parametrize("kind", ["linear", "cosface", "arcface"])
def test_value_and_gradient(kind):
    old = make_old()
    method = build_method("independent", None, make_classifier(kind)).double()
    step = make_step(old, dtype=torch.float64)
    terms = method(step)
    assert list(terms) == ["classification"]
    expected = slow_classification(method.classifier, step.embeddings.tolist(), step.labels.tolist())
    assert terms["classification"].item() == pytest.approx(expected, abs=1e-9)
    assert check_gradient(method, step)


def test_needs_nothing_of_the_old_system_and_embeds_everything():
    method = build_method("independent", None, make_classifier())
    assert method.needs == frozenset()
    assert method.embedded_share == 1.0
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert method.rows_to_embed(torch.arange(4), torch.zeros(4).long(), generator) is None
    assert torch.equal(generator.get_state(), before)
