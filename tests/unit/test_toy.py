"""The points in the plane do what the notebooks say they do."""

import pytest
import torch

from companion.toy import make_toy, train_toy
from compat_lib.adapters import fit_procrustes
from compat_lib.losses import METHODS

STEPS = (0, 60, 80, 110, 150, 300)


@pytest.fixture(scope="module")
def toy():
    return make_toy()


@pytest.fixture(scope="module")
def runs(toy):
    names = ("independent", "l2", "bct", "dual_tuning", "mixbct")
    return {name: train_toy(name, toy, snapshots=STEPS) for name in names}


def test_outliers_lie_with_the_third_class(toy):
    means = torch.nn.functional.normalize(toy.system.prototypes(), dim=1)
    nearest = (torch.nn.functional.normalize(toy.old, dim=1) @ means.T).argmax(dim=1)
    assert nearest[toy.outlier].tolist() == [2, 2]
    assert (nearest[~toy.outlier] == toy.labels[~toy.outlier]).float().mean() > 0.9
    assert not toy.system.credible(0.9)[toy.outlier].any()
    with pytest.raises(ValueError, match="outliers must lie between 0 and 19; got 20"):
        make_toy(outliers=20)


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


def test_a_run_depends_on_method_and_seed_alone(toy):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    cases = ((0, 12), 0), ((0, 1, 5, 12), 0), ((0, 12), 1)
    few, many, other = (train_toy("mixbct", toy, snapshots=steps, seed=seed) for steps, seed in cases)
    assert torch.equal(torch.rand(2), expected)  # the global generator is left alone
    assert torch.equal(few.points[-1], many.points[-1]) and not torch.equal(few.points, other.points)
    assert torch.equal(few.classifier[-1], many.classifier[-1])


def test_every_method_can_be_played(toy):
    for name, method in METHODS.items():
        if method.model_width(2, 2) != 2:
            with pytest.raises(ValueError, match=f"{name} has no toy"):
                train_toy(name, toy, snapshots=(0, 2))
        else:
            assert torch.isfinite(train_toy(name, toy, snapshots=(0, 2)).points).all()


# -- what 00_start_here says about the pictures ----------------------------------------------------


def degrees_to_the_stars(toy, run):
    """[S, 5] each: of the classifier's rows, and of the mean new points of the classes."""
    stars = torch.nn.functional.normalize(toy.system.prototypes(), dim=1)
    means = torch.stack([run.points[:, toy.labels == c].mean(dim=1) for c in range(5)], dim=1)
    sides = (torch.nn.functional.normalize(side, dim=2) for side in (run.classifier, means))
    return [torch.rad2deg(torch.acos((side * stars).sum(dim=2).clamp(-1, 1))) for side in sides]


def test_points_lead_under_l2_and_bct_and_the_classifier_leads_under_mixbct(toy, runs):
    for name in ("l2", "bct"):
        rows, means = degrees_to_the_stars(toy, runs[name])
        assert means[1].mean() < 20 < rows[1].mean() and rows[-1].mean() < 20
    rows, means = degrees_to_the_stars(toy, runs["mixbct"])
    assert (rows[2:5, 4] < means[2:5, 4] - 20).all()  # person 5: its stroke is ahead of its points
    assert rows[5, 4] < 10 and means[5, 4] < 10


def test_a_fitted_rotation_helps_where_a_random_one_does_not(toy):
    clean = make_toy(outliers=0)
    new = train_toy("independent", clean, seed=1, snapshots=(300,)).points[-1]
    stars = torch.nn.functional.normalize(clean.system.prototypes(), dim=1)

    def right(points):
        return float(((points @ stars.T).argmax(dim=1) == clean.labels).float().mean())

    angles = torch.deg2rad(torch.arange(0, 360, 5.0))
    turns = torch.stack([angles.cos(), angles.sin(), -angles.sin(), angles.cos()], dim=1).view(-1, 2, 2)
    random = [right(new @ turn) for turn in turns]
    assert sum(random) / len(random) == pytest.approx(0.2, abs=0.01)  # over all rotations: one of five
    assert right(fit_procrustes(new, clean.old).apply(new)) > 0.4
