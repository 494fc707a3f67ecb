"""Independent training is the classification loss and nothing else."""

import torch
from method_steps import make_classifier

from compat_lib.losses import build_method


def test_needs_nothing_of_the_old_system_and_embeds_everything():
    method = build_method("independent", None, make_classifier())
    assert method.needs == frozenset()
    assert method.embedded_share == 1.0
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert method.rows_to_embed(torch.arange(4), torch.zeros(4).long(), generator) is None
    assert torch.equal(generator.get_state(), before)
