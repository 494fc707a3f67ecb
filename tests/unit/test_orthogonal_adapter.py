"""The lambda-orthogonal adapter: its loss by loops in float64, its penalty, and what a fit finds."""

import math

import pytest
import slow_losses as slow
import torch

from compat_lib import orthogonal_adapter
from compat_lib.orthogonal_adapter import OrthogonalAdapter, fit_orthogonal, orthogonality


def slow_contrast(anchors, others, labels):
    anchors, others = [slow.unit(row) for row in anchors], [slow.unit(row) for row in others]
    losses = []
    for i, anchor in enumerate(anchors):
        scores = [slow.dot(anchor, other) / 0.1 for other in others]
        total = math.log(sum(map(math.exp, scores)))
        right = [total - scores[j] for j in range(len(labels)) if labels[j] == labels[i]]
        losses.append(sum(right) / len(right))
    return sum(losses) / len(losses)


def slow_penalty(weight, threshold, steepness):
    far = 0.0
    for i, a in enumerate(weight):
        for j, b in enumerate(weight):
            far += (slow.dot(a, b) - (i == j)) ** 2
    far = math.sqrt(far)
    return far / (1 + math.exp(-steepness * (far - threshold)))


def test_the_loss_equals_loops(monkeypatch):
    monkeypatch.setattr(orthogonal_adapter, "THRESHOLD", 2.0)
    monkeypatch.setattr(orthogonal_adapter, "STEEPNESS", 3.0)
    torch.manual_seed(0)
    adapter = OrthogonalAdapter(4).double()
    old, new = (torch.nn.functional.normalize(torch.randn(6, 4, dtype=torch.float64)) for _ in range(2))
    labels = [0, 1, 0, 2, 1, 1]
    carried, mapped = adapter.forward_map(old).tolist(), adapter.backward_map(new).tolist()
    expected = slow_penalty(adapter.backward_map.weight.tolist(), 2.0, 3.0)
    for sides in ((mapped, old.tolist()), (carried, mapped)):
        rows = zip(*sides, strict=True)
        expected += sum(sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) for x, y in rows) / 6
    expected += slow_contrast(carried, mapped, labels) + slow_contrast(carried, old.tolist(), labels)
    found = orthogonal_adapter.adapter_loss(adapter, old, new, torch.tensor(labels))
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_the_penalty_is_free_up_to_its_threshold():
    turn = torch.linalg.qr(torch.randn(8, 8))[0]
    assert orthogonality(turn) == pytest.approx(0, abs=1e-4)
    assert orthogonality(1.5 * turn) < 1e-3 * orthogonality(3 * turn)


@pytest.mark.parametrize(("old_width", "new_width"), [(8, 8), (8, 12)])
def test_a_fit_lets_new_queries_meet_both_kinds_of_entries(old_width, new_width):
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(600) % 30
    centres = torch.randn(30, 8, generator=generator)[labels]
    old = centres + 0.4 * torch.randn(600, 8, generator=generator)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=generator))[0]
    new = (centres + 0.2 * torch.randn(600, 8, generator=generator)) @ turn
    new = torch.nn.functional.pad(new, (0, new_width - 8))
    before = torch.get_rng_state()
    adapter = fit_orthogonal(old, new, labels, epochs=40, batch_size=100, lr=1e-2)
    assert torch.equal(torch.get_rng_state(), before)
    query = adapter.query(new)
    assert torch.cosine_similarity(new[:, :8], old).mean() < 0.8
    for gallery in (old, adapter.gallery(old)):
        assert torch.cosine_similarity(query, gallery).mean() > 0.8
    again = fit_orthogonal(old, new, labels, epochs=40, batch_size=100, lr=1e-2)
    assert torch.equal(again.query(new), query)
