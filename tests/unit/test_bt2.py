"""BT2 against slow loops over one row at a time, numpy's inverse, finite differences and its invariants."""

import numpy as np
import pytest
import slow_losses as slow
import torch
from method_steps import check_gradient, make_classifier, make_old, make_step

from compat_lib.losses import build_method


def build(old_width, width, kind="arcface", **options):
    old = make_old(width=old_width, oracle_width=width)
    method = build_method("bt2", old, make_classifier(kind, width), **options)
    for rotation in (method.head.inner, method.head.outer):  # away from the identity
        torch.nn.init.normal_(rotation.angles)
    return old, method


def slow_rotation(rotation):
    """((I - A/4)^-1 (I + A/4))^2."""
    d = rotation.width
    quarter = np.zeros((d, d))
    quarter[np.triu_indices(d, 1)] = rotation.angles.detach().numpy() / 4
    quarter -= quarter.T
    root = np.linalg.inv(np.eye(d) - quarter) @ (np.eye(d) + quarter)
    return (root @ root).tolist()


def slow_stored(head, outputs):
    """New part and stored features of one row."""
    new = slow.unit(outputs[: head.new_width])
    rectified = [max(0.0, value) for value in outputs]
    extra = slow.unit(slow.linear(head.project.weight, head.project.bias, rectified))
    inner, outer = slow_rotation(head.inner), slow_rotation(head.outer)
    basis = extra + [slow.dot(row, [head.stretch * value for value in new]) for row in inner]
    return new, [slow.dot(row, basis[: head.width]) for row in outer] + basis[head.width :]


@pytest.mark.parametrize("kind", ["linear", "cosface", "arcface"])
@pytest.mark.parametrize(
    ("old_width", "width", "extra", "stretch", "scale"),
    [(6, 6, 2, 2.0, 16), (4, 6, 3, 2.0, 1), (7, 5, 2, 0.5, 3), (5, 3, 9, 2.0, 16), (2, 6, 1, 2.0, 1)],
)
def test_value_and_gradient(old_width, width, extra, stretch, scale, kind):
    old, method = build(old_width, width, kind, extra=extra, stretch=stretch, scale=scale)
    method.double()
    step = make_step(old, old_width + width, batch=5, dtype=torch.float64)
    terms, labels = method(step), step.labels.tolist()
    parts = [slow_stored(method.head, outputs) for outputs in step.embeddings.tolist()]
    new, backward = [f for f, _ in parts], [slow.unit(stored[:old_width]) for _, stored in parts]
    means = slow.means(old, "unit")
    logits = [[scale * slow.dot(p, b) for p in means] for b in backward]
    likeness = {
        name: slow.mean([slow.dot(own, slow.unit(o)) for own, o in zip(side, given.tolist(), strict=True)])
        for name, side, given in (("old", backward, step.old_features), ("oracle", new, step.oracle_features))
    }
    expected = {
        "classification": slow.classification(method.classifier, new, labels),
        "influence": slow.mean([slow.cross_entropy(row, y) for row, y in zip(logits, labels, strict=True)]),
        "old_similarity": 1 - likeness["old"],
        "oracle_similarity": 1 - likeness["oracle"],
    }
    assert list(terms) == list(expected)
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, abs=1e-5), name
    # the training loop decays matrices only, which would pull a rotation back to the identity
    assert method.head.inner.angles.ndim == method.head.outer.angles.ndim == 1
    stored = method.head(step.embeddings)
    torch.testing.assert_close(stored, torch.tensor([s for _, s in parts], dtype=torch.float64))
    assert stored.shape[1] == width + min(extra, old_width)
    query, gallery = method.comparable(stored, old.features)
    assert torch.equal(query, stored[:, :old_width]) and gallery is old.features
    assert list(method.weights.values()) == [1.0, 10.0, 5.0, 1.0]
    if kind == "arcface" and old_width == 4:
        assert check_gradient(method, step)


def test_widths_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"at most 4 \+ 2 .*not 8. Raise .* extra to at least 4"):
        build(8, 4, extra=2)
    build(6, 4, extra=2)
    with pytest.raises(ValueError, match="oracle's features have width 5, the new model's 6. Train the"):
        build_method("bt2", make_old(oracle_width=5), make_classifier())
