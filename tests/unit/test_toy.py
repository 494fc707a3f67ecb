"""The points in the plane do what the notebooks say they do."""

import pytest
import torch

from compat_lib.losses import METHODS
from compat_lib.toy import make_toy, train_toy


@pytest.fixture(scope="module")
def toy():
    return make_toy()


@pytest.fixture(scope="module")
def runs(toy):
    return {name: train_toy(name, toy) for name in ("independent", "l2", "bct", "dual_tuning", "mixbct")}


def test_shapes(toy, runs):
    assert toy.old.shape == (100, 2) and toy.labels.tolist() == sorted(toy.labels.tolist())
    run = runs["mixbct"]
    assert run.steps == (0, 20, 80, 300)
    assert run.points.shape == (4, 100, 2) and run.classifier.shape == (4, 5, 2)
    torch.testing.assert_close(run.points.norm(dim=2), torch.ones(4, 100))


def test_outliers_lie_with_the_third_class(toy):
    means = torch.nn.functional.normalize(toy.system.prototypes(), dim=1)
    nearest = (torch.nn.functional.normalize(toy.old, dim=1) @ means.T).argmax(dim=1)
    assert nearest[toy.outlier].tolist() == [2, 2]
    assert (nearest[~toy.outlier] == toy.labels[~toy.outlier]).float().mean() > 0.9


def test_credible_selection_drops_the_outliers(toy):
    assert not toy.system.credible(0.9)[toy.outlier].any()


def test_all_methods_start_from_the_same_points(runs):
    for run in runs.values():
        assert torch.equal(run.points[0], runs["l2"].points[0])


def test_only_the_independent_model_is_incompatible(runs):
    for name, run in runs.items():
        assert run.self_test[-1] > 0.9
        assert run.cross_test[0] < 0.4  # five classes: chance is 0.2
        if name == "independent":
            assert run.cross_test[-1] < 0.6
        else:
            assert run.cross_test[-1] > 0.9


def test_l2_keeps_the_old_spread_where_the_others_gather(toy, runs):
    """L2's cost: the new points are as scattered within their class as the old ones."""

    def spread(name):
        points = runs[name].points[-1][~toy.outlier]
        labels = toy.labels[~toy.outlier]
        sums = torch.zeros(5, 2).index_add(0, labels, points)
        return float(1 - (sums.norm(dim=1) / torch.bincount(labels)).mean())

    assert spread("l2") > 3 * max(spread(name) for name in ("dual_tuning", "mixbct"))


def test_same_arguments_same_run(toy):
    first, second = (train_toy("mixbct", toy, snapshots=(0, 20)) for _ in range(2))
    assert torch.equal(first.points, second.points)
    assert torch.equal(first.classifier, second.classifier)
    assert not torch.equal(train_toy("mixbct", toy, snapshots=(0, 20), seed=1).points, first.points)


def test_the_global_generator_is_left_alone(toy):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    train_toy("mixbct", toy, snapshots=(2,))
    assert torch.equal(torch.rand(2), expected)


def test_mixing_nothing_is_independent_training(toy):
    plain = train_toy("mixbct", toy, snapshots=(20,), mix_ratio=0.0)
    assert torch.equal(plain.points, train_toy("independent", toy, snapshots=(20,)).points)


def test_every_method_can_be_played(toy):
    for name, method in METHODS.items():
        if "oracle" in method.needs:
            with pytest.raises(ValueError, match=f"{name} has no toy"):
                train_toy(name, toy, snapshots=(0, 2))
        else:
            assert torch.isfinite(train_toy(name, toy, snapshots=(0, 2)).points).all()


def test_refusals():
    with pytest.raises(ValueError, match="outliers must lie between 0 and images - 1; got 4 of 4"):
        make_toy(images=4, outliers=4)
