"""What broke is named with its own step, also when a GPU is asked only now and then."""

import dataclasses
import math

import pytest
import torch
from method_steps import make_old, make_step

from compat_lib.finite import LOOK, NotFiniteError, Watch


def note(watch, batch, *, loss=1.0, term=1.0, norm=1.0, embedding=1.0, old=1.0):
    step = make_step(make_old(), batch=4)
    sides = {"embeddings": torch.full((4, 6), embedding), "old_features": torch.full((4, 6), old)}
    step = dataclasses.replace(step, batch=batch, **sides)
    watch.note(step, *(torch.tensor(loss), {"classification": torch.tensor(term)}, torch.tensor(norm)))


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"loss": math.nan, "term": math.nan}, "loss term classification is not finite.*arithmetic"),
        ({"loss": math.inf}, "loss term their sum is not finite"),
        ({"loss": math.nan, "embedding": math.nan}, "network itself diverged.*0.3"),
        ({"loss": math.nan, "old": math.inf}, "check the old system"),
        ({"norm": math.inf}, "its gradient is not .norm inf"),
    ],
)
def test_the_first_broken_step_is_named_at_the_next_look(broken, words):
    watch = Watch(0.3, torch.device("cuda"))  # nothing is computed there
    after = {"loss": math.nan, "term": math.nan, "norm": math.nan, "embedding": math.nan}
    for batch in range(LOOK - 1):
        note(watch, batch, **(broken if batch == 6 else after if batch > 6 else {}))
    with pytest.raises(NotFiniteError, match=f"epoch 1, step 7: .*{words}"):
        note(watch, LOOK)


def test_the_cpu_is_asked_in_every_step_and_a_scaler_may_skip():
    with pytest.raises(NotFiniteError, match="step 1"):
        note(Watch(0.3, torch.device("cpu")), 0, norm=math.inf)
    note(Watch(0.3, torch.device("cpu"), skips=True), 0, norm=math.inf)
    with pytest.raises(NotFiniteError, match="step 1"):
        note(Watch(0.3, torch.device("cpu"), skips=True), 0, loss=math.inf)
