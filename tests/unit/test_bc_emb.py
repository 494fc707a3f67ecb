"""BC-Aligner against a slow loop over rows, galleries and coordinates, least squares, and its invariants."""

import dataclasses

import pytest
import slow_losses as slow
import torch
from method_steps import check_gradient, make_classifier, make_old, make_step
from torch.nn.functional import normalize

from compat_lib.adapters import LinearMap
from compat_lib.evaluation import compare
from compat_lib.losses import build_method


def slow_alignment(new, old, learned, maps):
    """Mean over rows and galleries of |A (o - M n)|^2, every A a list of rows."""
    total = 0.0
    for n, o in zip(map(slow.unit, new), map(slow.unit, old), strict=True):
        apart = [value - slow.dot(row, n) for value, row in zip(o, learned, strict=True)]
        for matrix in [None, *maps]:
            carried = apart if matrix is None else [slow.dot(row, apart) for row in matrix]
            total += slow.dot(carried, carried)
    return total / len(new) / (1 + len(maps))


@pytest.mark.parametrize("older", [(), (6,), (4, 3)])  # widths of the galleries before the old one
@pytest.mark.parametrize(("width", "batch"), [(2, 5), (6, 9), (8, 1)])
def test_value_and_gradient(width, batch, older):
    generator = torch.Generator().manual_seed(3)
    maps = tuple(torch.randn(rows, 6, generator=generator) for rows in older)
    old = dataclasses.replace(make_old(classes=4, per_class=6), maps=maps)
    method = build_method("bc_emb", old, make_classifier(width=width, classes=4), weight=3.0).double()
    step = make_step(old, width, batch, dtype=torch.float64)
    terms = method(step)
    rows = (step.embeddings.tolist(), step.old_features.tolist(), method.matrix.tolist())
    expected = slow_alignment(*rows, [matrix.double().tolist() for matrix in maps])
    assert terms["alignment"].item() == pytest.approx(expected, rel=1e-9)
    assert method.weights == {"classification": 1.0, "alignment": 3.0}
    if batch <= 5:
        assert check_gradient(method, step)


def test_a_linear_image_of_the_old_features_costs_nothing_and_is_found_again():
    old = make_old(per_class=30)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))[0]
    new = 5 * old.features @ turn.T
    method = build_method("bc_emb", old, make_classifier())
    step = dataclasses.replace(make_step(old, rows=torch.arange(len(new))), embeddings=new)
    assert method(step)["alignment"] > 0.1
    method.map.data = turn.T / method.factor
    assert method(step)["alignment"].item() == pytest.approx(0, abs=1e-9)
    query, gallery = method.comparable(new, old.features)
    mapped = compare(old.features, new, old.labels, cross=(query, gallery), draws=0).records
    assert mapped.value("new", "old", "map") == pytest.approx(mapped.value("old", "old", "map"))
    assert gallery is old.features


def test_maps_compose_through_generations():
    generator = torch.Generator().manual_seed(2)
    maps = (torch.randn(4, 6, generator=generator), torch.randn(3, 6, generator=generator))
    method = build_method("bc_emb", dataclasses.replace(make_old(), maps=maps), make_classifier(width=5))
    learned = method.matrix.detach()
    for found, expected in zip(method.maps, (learned, maps[0] @ learned, maps[1] @ learned), strict=True):
        torch.testing.assert_close(found, expected)
        assert not found.requires_grad
    new, old = torch.randn(7, 5), torch.randn(7, 6)
    served = LinearMap(learned.T, kind="bc-emb", side="query").apply(new)  # as docs/gallery.md has it
    torch.testing.assert_close(served, normalize(method.comparable(new, old)[0].detach()))
    assert "back" not in method.state_dict() and not method.back.requires_grad


@pytest.mark.parametrize("weight", [16.0, 100.0])
def test_the_recipe_trains_the_map_also_where_everything_is_steep(weight):
    """Features that all but agree, and older maps that stretch."""
    generator = torch.Generator().manual_seed(4)
    old = dataclasses.replace(make_old(per_class=10), maps=(5 * torch.randn(6, 6, generator=generator),))
    method = build_method("bc_emb", old, make_classifier(), weight=weight)
    step = make_step(old, rows=torch.arange(50))
    step = dataclasses.replace(step, embeddings=torch.ones(50, 6) + 0.01 * step.embeddings.detach())
    sgd = torch.optim.SGD([method.map], lr=0.1, momentum=0.9, nesterov=True)
    first = method(step)["alignment"].item()
    for _ in range(200):
        sgd.zero_grad()
        (weight * method(step)["alignment"]).backward()
        sgd.step()
    mean = normalize(step.old_features).mean(0, keepdim=True)  # nearly the best for features that are one
    apart = (normalize(step.old_features) - mean) @ method.back.T
    assert method(step)["alignment"] < 1.01 * apart.square().sum(1).mean() / 2 < first
