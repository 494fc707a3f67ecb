"""What an old system has, refuses and derives; class means and credible rows against slow loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_steps import make_old

from compat_lib import old_system
from compat_lib.losses import METHODS
from compat_lib.old_system import OldSystem, class_means, credible_rows

NEEDS = {name: (method.needs, *method.other_needs) for name, method in METHODS.items()}


def test_what_is_there_is_told_apart():
    model = torch.nn.Linear(2, 6)
    assert make_old().has == {"features", "prototypes", "classifier", "oracle"}
    assert make_old(classifier=False).has == {"features", "prototypes", "oracle"}
    assert OldSystem.from_arrays(prototypes=np.eye(3)).has == {"prototypes"}
    assert OldSystem.from_arrays(classifier_weight=np.eye(3), num_classes=2, model=model).has == {
        "classifier",
        "model",
    }


def test_require_names_what_is_missing_what_is_there_and_what_still_works():
    old = OldSystem.from_arrays(prototypes=np.eye(3))
    old.require(frozenset({"prototypes"}), "bct")
    with pytest.raises(ValueError) as refusal:
        old.require(frozenset({"features", "model"}), "fancy", NEEDS)
    sentence = str(refusal.value)
    assert "The method fancy needs the old system's features, model, but only prototypes is there" in sentence
    assert "for model, pass model=the old network" in sentence
    assert sentence.endswith("Methods that work with what is there: bct, independent.")


def test_prototypes_are_group_means_and_computed_once():
    old = make_old(per_class=3)
    for average in ("raw", "unit"):
        rows = old.features if average == "raw" else old.features / old.features.norm(dim=1, keepdim=True)
        expected = torch.stack([rows[old.labels == label].mean(0) for label in range(5)])
        torch.testing.assert_close(old.prototypes(average), expected)
        assert old.prototypes(average) is old.prototypes(average)
    assert old.present.all()


def test_classes_without_samples_have_a_zero_row_and_are_not_present():
    old = OldSystem.from_arrays(np.eye(2, 3) + 1, [1, 3], num_classes=5)
    assert old.present.tolist() == [False, True, False, True, False]
    assert old.prototypes().norm(dim=1).gt(0).tolist() == old.present.tolist()


def test_given_prototypes_are_used_as_they_are():
    given_rows = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    old = OldSystem.from_arrays([[1.0, 1.0]], [1], prototypes=given_rows)
    assert torch.equal(old.prototypes(), given_rows)
    assert old.present.tolist() == [True, False]
    root = math.sqrt(0.5)
    assert old.prototypes("unit")[1].tolist() == pytest.approx([root, root])


def test_credible_is_cached_and_depends_on_its_options():
    old = make_old(per_class=10)
    assert old.credible(0.5) is old.credible(0.5)
    assert int(old.credible(0.5).sum()) == 25
    assert int(old.credible().sum()) == 45
    assert not torch.equal(old.credible(0.5, True), old.credible(0.5, False))


def test_refusals_of_what_is_derived():
    old = OldSystem.from_arrays(prototypes=np.eye(3))
    with pytest.raises(ValueError, match="average must be 'raw' or 'unit', not 'median'"):
        old.prototypes("median")
    with pytest.raises(ValueError, match="prototypes with average='unit' are computed from features"):
        old.prototypes("unit")
    with pytest.raises(ValueError, match="credible rows are computed from features, which are not there"):
        old.credible()
    with pytest.raises(ValueError, match="share must be a fraction between 0 and 1, not 90"):
        make_old().credible(90)
    with pytest.raises(ValueError, match="prototypes are computed from features, which are not there"):
        _ = OldSystem.from_arrays(classifier_weight=np.eye(3), num_classes=2).present


def test_the_model_is_frozen():
    model = torch.nn.Sequential(torch.nn.Linear(2, 6), torch.nn.BatchNorm1d(6))
    OldSystem.from_arrays(prototypes=np.eye(6), model=model)
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(torch.randn(8, 2))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_moving_keeps_everything_including_what_was_derived():
    old = make_old()
    mask = old.credible(0.5)
    moved = old.to("cpu")
    assert moved.has == old.has
    assert torch.equal(moved.features, old.features)
    assert torch.equal(moved.credible(0.5), mask)


def test_an_old_system_cannot_be_changed_and_shows_itself_briefly():
    old = make_old()
    with pytest.raises(AttributeError):
        old.features = None
    assert repr(old) == (
        "OldSystem(20 rows, width 6, 5 classes, has classifier, features, oracle, prototypes)"
    )


def test_oracle_features_stand_beside_the_old_ones_row_by_row():
    old = make_old()
    with pytest.raises(ValueError, match="there are 3 oracle features for 20 old ones"):
        old.with_oracle(torch.ones(3, 6))
    with pytest.raises(ValueError, match="oracle_features hold 6 values that are not finite"):
        old.with_oracle(torch.full((20, 6), math.nan).where(torch.arange(20)[:, None] == 0, 0.0))
    assert old.with_oracle(torch.ones(20, 9)).oracle_features.shape == (20, 9)
    assert old.oracle_features.shape == (20, 6)


# -- class means and credible rows ------------------------------------------------------------------


def draw(seed, rows=40, width=5, classes=6):
    generator = np.random.default_rng(seed)
    features = 3 * generator.normal(size=(rows, width)) + 0.5
    return torch.tensor(features, dtype=torch.float32), torch.tensor(generator.integers(0, classes, rows))


def slow_distances(features, labels, columns):
    unit = np.stack([row / np.linalg.norm(row) for row in features.double().numpy()])
    if columns:
        for j in range(unit.shape[1]):
            unit[:, j] = unit[:, j] / math.sqrt(sum(value**2 for value in unit[:, j]))
    distances = np.empty(len(unit))
    for i, label in enumerate(labels.tolist()):
        own = [unit[k] for k in range(len(unit)) if labels[k] == label]
        distances[i] = np.linalg.norm(unit[i] - sum(own) / len(own))
    return distances


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("block", [7, 65_536])
def test_means_equal_the_slow_loop_in_any_block_size(unit, block, monkeypatch):
    monkeypatch.setattr(old_system, "ROWS_AT_ONCE", block)
    features, labels = draw(0)
    means = class_means(features, labels, 8, unit=unit)
    for label in range(8):
        own = [
            row / np.linalg.norm(row) if unit else row for row in features[labels == label].double().numpy()
        ]
        expected = sum(own) / len(own) if own else np.zeros(5)
        np.testing.assert_allclose(means[label].numpy(), expected, rtol=1e-6, atol=1e-7)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000))
def test_order_of_the_rows_does_not_matter(seed):
    features, labels = draw(seed)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        class_means(features[order], labels[order], 6), class_means(features, labels, 6)
    )
    mask = credible_rows(features, labels, 6, 0.55)  # two rows of one class always tie: keep both of them
    assert torch.equal(credible_rows(features[order], labels[order], 6, 0.55), mask[order])


@pytest.mark.parametrize("columns", [True, False])
@pytest.mark.parametrize("share", [0.3, 0.55, 0.9])
@pytest.mark.parametrize("block", [7, 65_536])
def test_credible_rows_equal_the_slow_loop(columns, share, block, monkeypatch):
    monkeypatch.setattr(old_system, "ROWS_AT_ONCE", block)
    features, labels = draw(1, rows=60)
    distances = slow_distances(features, labels, columns)
    mask = credible_rows(features, labels, 6, share, columns).tolist()
    for label in range(6):
        own = [i for i in range(60) if labels[i] == label]
        kept = sorted(own, key=lambda i: distances[i])[: math.ceil(round(share * len(own), 9))]
        assert {i for i in own if mask[i]} == set(kept)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1000), percent=st.integers(0, 100), columns=st.booleans())
def test_kept_count_of_each_class_is_the_ceiling(seed, percent, columns):
    features, labels = draw(seed)
    mask = credible_rows(features, labels, 6, percent / 100, columns)
    for label in range(6):
        size = int((labels == label).sum())
        assert int(mask[labels == label].sum()) == -(-percent * size // 100)


def test_share_one_keeps_all_share_zero_nothing_and_a_single_row_is_kept():
    features, labels = draw(0)
    assert credible_rows(features, labels, 6, 1.0).all()
    assert not credible_rows(features, labels, 6, 0.0).any()
    assert credible_rows(features[:3], torch.tensor([2, 0, 5]), 6, 0.01).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), powers=st.lists(st.integers(-8, 8), min_size=40, max_size=40))
def test_length_of_a_row_does_not_matter(seed, powers):
    features, labels = draw(seed)
    scaled = features * torch.tensor([2.0**power for power in powers])[:, None]
    for columns in (True, False):
        mask = credible_rows(features, labels, 6, 0.5, columns)
        assert torch.equal(credible_rows(scaled, labels, 6, 0.5, columns), mask)


def test_a_column_of_zeros_is_harmless():
    features, labels = draw(0)
    features[:, 2] = 0
    mask = credible_rows(features, labels, 6, 0.5)
    assert torch.equal(mask, credible_rows(features[:, [0, 1, 3, 4]], labels, 6, 0.5))


def test_of_equal_distances_the_earlier_row_is_kept():
    features = torch.tensor([[1.0, 1.0], [1.0, -1.0], [1.0, 1.0], [1.0, -1.0]])
    mask = credible_rows(features, torch.zeros(4).long(), 1, 0.5, columns=False)
    assert mask.tolist() == [True, True, False, False]
