"""FCT: the transformation layer by layer, its fit against torch's own optimiser, and independence."""

import math

import pytest
import torch
import torch.nn.functional as F
from method_steps import make_classifier

from compat_lib.losses import build_method
from compat_lib.losses.fct import GalleryTransform, fit_transform
from compat_lib.old_system import OldSystem


def make_pairs(rows=400, old_width=6, new_width=5, seed=0):
    """Old features, and new ones that are a smooth function of them."""
    generator = torch.Generator().manual_seed(seed)
    old = F.normalize(torch.randn(rows, old_width, generator=generator))
    mix = torch.randn(old_width, new_width, generator=torch.Generator().manual_seed(99))
    return old, (2 * old @ mix).tanh()


def plain_layer(rows, layer, training):
    linear, norm, _ = layer
    statistics = (norm.running_mean.clone(), norm.running_var.clone(), norm.weight, norm.bias)
    return F.batch_norm(F.linear(rows, linear.weight), *statistics, training).relu()


def plain_transform(transform, old, training):
    branches = []
    for layers in (transform.gallery, transform.side):
        rows = F.normalize(old)
        for layer in layers:
            rows = plain_layer(rows, layer, training)
        branches.append(rows)
    rows = torch.cat(branches, dim=1)
    for layer in transform.mixer[:2]:
        rows = plain_layer(rows, layer, training)
    last = transform.mixer[2]
    return F.linear(rows, last.weight, last.bias)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("old_width", "new_width", "expansion"), [(3, 2, 4), (2, 4, 1), (1, 1, 2)])
def test_transformation_equals_its_layers_one_by_one(old_width, new_width, expansion, training):
    torch.manual_seed(old_width)
    transform = GalleryTransform(old_width, new_width, expansion=expansion).double()
    for module in transform.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            for values in (module.weight.data, module.bias.data, module.running_mean):
                torch.nn.init.normal_(values)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    transform.train(training)
    old = torch.randn(7, old_width, dtype=torch.float64)
    expected = plain_transform(transform, old, training)
    torch.testing.assert_close(transform(old), expected, atol=1e-9, rtol=1e-7)


def published_rate(epoch, epochs, warmup):
    if epoch < warmup:
        return (epoch + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup)))


@pytest.mark.parametrize(("epochs", "warmup"), [(80, 5), (5, 0), (16, 1)])
def test_fit_equals_a_loop_of_its_own(epochs, warmup):
    old, new = make_pairs(rows=23)
    options, state = {"lr": 0.01, "weight_decay": 0.1}, torch.get_rng_state()
    ours = fit_transform(old, new, epochs=epochs, batch_size=10, expansion=2, seed=4, **options)
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is left alone

    torch.manual_seed(4)
    theirs = GalleryTransform(6, 5, expansion=2)
    optimiser = torch.optim.Adam(theirs.parameters(), **options)
    goal = F.normalize(new)
    for epoch in range(epochs):
        optimiser.param_groups[0]["lr"] = 0.01 * published_rate(epoch, epochs, warmup)
        theirs.train()
        if epoch >= epochs / 2:
            theirs.eval()
        order = torch.randperm(23)
        for rows in (order[:12], order[12:]):  # two batches of nearly one size
            optimiser.zero_grad()
            estimate = theirs(old[rows])
            ((estimate - goal[rows]) ** 2).mean().backward()
            optimiser.step()
    theirs.eval()
    torch.testing.assert_close(ours.carry_over(old), theirs.carry_over(old), atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("rows", [2, 3, 8, 9, 11])
def test_no_batch_is_left_with_a_single_row(rows):
    old, new = make_pairs(rows=rows)
    transform = fit_transform(old, new, epochs=2, batch_size=2)
    assert transform.carry_over(old).isfinite().all()


def test_a_long_gallery_is_transformed_in_blocks(monkeypatch):
    old, new = make_pairs(rows=50)
    transform = fit_transform(old, new, epochs=2).train()
    whole = transform.carry_over(old)
    monkeypatch.setattr("compat_lib.losses.fct.ROWS_AT_ONCE", 7)
    torch.testing.assert_close(transform.carry_over(old), whole)
    assert transform.training  # restored
    assert transform.carry_over(old[:0]).shape == (0, 5)
    assert not whole.requires_grad


@pytest.mark.parametrize(("old_width", "width"), [(6, 6), (4, 6), (6, 3)])
def test_cross_test_begins_with_the_fit(old_width, width):
    past, new = make_pairs(400, old_width, width)
    old = OldSystem.from_arrays(past, torch.arange(400) % 5)
    fit = {"fit_lr": 0.01, "fit_batch_size": 40, "fit_epochs": 20}
    method = build_method("fct", old, make_classifier(width=width), **fit)
    assert method.comparable(new, past) is None
    asked = []

    def embed():
        asked.append(True)
        with torch.inference_mode():
            return new.clone()

    torch.manual_seed(0)
    method.finish(embed)
    assert asked == [True]
    queries, gallery = method.comparable(new, past)
    assert queries is new
    assert gallery.shape == (400, width)
    assert F.cosine_similarity(gallery, new).mean() > 0.9
    assert [p for p in method.parameters() if p.requires_grad] == [method.classifier.weight]
