"""Neighbours against a slow loop over all pairs and finite differences; ablations."""

import dataclasses
import math

import pytest
import slow_losses as slow
import torch
from method_steps import check_gradient, make_classifier, make_old, make_step

from compat_lib.losses import build_method, neighbours
from compat_lib.old_system import OldSystem


def slow_contrast(step, old, temperature, positives="class"):
    """Row by row over the whole training set, from the formula; `step` has embedded rows alone."""
    features, classes = [slow.unit(row) for row in old.features.double().tolist()], old.labels.tolist()
    losses = []
    for row, embedding in zip(step.rows.tolist(), step.embeddings.tolist(), strict=True):
        scores = [slow.dot(slow.unit(embedding), feature) / temperature for feature in features]
        total = math.log(sum(math.exp(score) for score in scores))
        mates = [j for j, label in enumerate(classes) if label == classes[row]]
        mates = [row] if positives == "own" else mates
        own = [(1 + slow.dot(features[row], features[j])) / 2 * (total - scores[j]) for j in mates]
        losses.append(sum(own) / len(mates))
    return sum(losses) / len(losses)


def slow_distance(step, threshold):
    return slow.excess(step.embeddings.tolist(), step.old_features.tolist(), threshold)


def uneven():
    """Classes of 1, 2, 5 and 9 rows, one without any, in no order; rows of 3 coordinates."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.tensor([0, 1, 3, 4]).repeat_interleave(torch.tensor([1, 2, 5, 9]))
    labels = labels[torch.randperm(17, generator=generator)]
    return OldSystem.from_arrays(2 * torch.randn(17, 3, generator=generator), labels, num_classes=5)


@pytest.mark.parametrize("positives", ["class", "own"])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize("make", [make_old, uneven])
def test_value_and_gradient(monkeypatch, make, temperature, positives):
    monkeypatch.setattr(neighbours, "ANCHORS_AT_ONCE", 3)
    old = make()
    classifier = make_classifier(width=old.width)
    options = {"temperature": temperature, "positives": positives, "threshold": 0.4}
    weights = {"contrast_weight": 2.0, "distance_weight": 3.0}
    method = build_method("neighbours", old, classifier, **options, **weights).double()
    assert method.rows_to_embed(torch.arange(8), old.labels[:8], torch.Generator()) is None
    step = make_step(old, old.width, dtype=torch.float64)
    terms = method(step)
    expected = slow_contrast(step, old, temperature, positives)
    assert terms["contrast"].item() == pytest.approx(expected, rel=1e-5)
    assert terms["distance"].item() == pytest.approx(slow_distance(step, 0.4), rel=1e-6)
    assert method.weights == {"classification": 1.0, "contrast": 2.0, "distance": 3.0}
    assert check_gradient(method, step)


def test_rows_beyond_the_bound_are_drawn_anew_and_stand_for_all():
    old = make_old(classes=5, per_class=40)
    step = make_step(old)
    whole = build_method("neighbours", old, make_classifier(), temperature=0.1)(step)["contrast"].item()
    part = build_method("neighbours", old, make_classifier(), temperature=0.1, rows=100)
    drawn = [part(step)["contrast"].item() for _ in range(200)]
    assert len(set(drawn)) == 200
    # half of the rows: the sum is half as large, and the rest of the loss is the same
    share = part.shares[step.rows].mean().item()
    assert sum(drawn) / 200 + share * math.log(2) == pytest.approx(whole, abs=0.05)
    every = build_method("neighbours", old, make_classifier(), temperature=0.1, rows=200)
    assert every(step)["contrast"].item() == whole


def test_replaced_rows_are_those_of_mixbct_and_have_no_contrast():
    old = make_old(per_class=8)
    rows = torch.arange(20)
    options = {"neighbours": {"temperature": 0.1, "threshold": 0.6}, "mixbct": {}}
    methods = [
        build_method(name, old, make_classifier(), mix_ratio=0.4, **own) for name, own in options.items()
    ]
    masks = [
        method.rows_to_embed(rows, old.labels[rows], torch.Generator().manual_seed(1)) for method in methods
    ]
    assert torch.equal(*masks) and masks[0].sum() == 12
    step = make_step(old, rows=rows, embedded=masks[0])
    ours, theirs = (method(step) for method in methods)
    assert ours["classification"].item() == theirs["classification"].item()
    embedded = dataclasses.replace(step, rows=rows[masks[0]], old_features=step.old_features[masks[0]])
    assert ours["contrast"].item() == pytest.approx(slow_contrast(embedded, old, 0.1), rel=1e-4)
    assert ours["distance"].item() == pytest.approx(slow_distance(embedded, 0.6), rel=1e-5)
