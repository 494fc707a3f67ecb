import numpy as np
import pytest
import torch
from scipy.special import stdtr, stdtrit

from compat_lib.evaluation.bootstrap import identity_weights, interval
from compat_lib.evaluation.paired import paired_comparison, paired_scores


def make_draws(seeds=3, draws=80, shared=1.0, own=0.5, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=seeds)
    return values, values[:, None] + shared * rng.normal(size=draws) + own * rng.normal(size=(seeds, draws))


def against_zero(values, draws):
    return paired_comparison(values, np.zeros(len(values)), draws_a=draws, draws_b=0 * draws)


def slow_centres(values, draws):
    # The mean's draws, shrunk to the mean covariance of the draws of two seeds.
    seeds, number = draws.shape
    mean = [sum(draws[s, b] for s in range(seeds)) / seeds for b in range(number)]
    pairs = [(s, t) for s in range(seeds) for t in range(seeds) if s != t]
    covariances = [np.cov(draws[s], draws[t], ddof=0)[0, 1] for s, t in pairs]
    share = np.sqrt(max(np.mean(covariances), 0) / np.var(mean))
    value = sum(values) / seeds
    return [value + share * (x - value) for x in mean]


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_without_draws_it_is_students_interval(seeds):
    rng = np.random.default_rng(seeds)
    a, b = rng.normal(size=(2, seeds))
    result = paired_comparison(a, b)
    half = stdtrit(seeds - 1, 0.975) * (a - b).std(ddof=1) / np.sqrt(seeds)
    assert (result.low, result.high) == pytest.approx(((a - b).mean() - half, (a - b).mean() + half))
    assert (result.value, result.seeds, result.draws) == (pytest.approx((a - b).mean()), seeds, 0)


@pytest.mark.parametrize("shape", [(100,), (1, 100)])
def test_one_seed_is_the_percentile_interval_of_the_paired_draws(shape):
    a, b = np.random.default_rng(0).normal(size=(2, 100))
    result = paired_comparison(0.3, 0.1, draws_a=a.reshape(shape), draws_b=b.reshape(shape))
    assert (result.low, result.high) == pytest.approx(interval(a - b))
    assert (result.value, result.seeds, result.draws) == (pytest.approx(0.2), 1, 100)


@pytest.mark.parametrize("seeds", [2, 3, 6])
@pytest.mark.parametrize("shared", [0.0, 0.3, 3.0])
def test_ends_are_quantiles_of_the_mixture(seeds, shared):
    values, draws = make_draws(seeds, shared=shared)
    result = against_zero(values, draws)
    spread = values.std(ddof=1) / np.sqrt(seeds)
    centres = slow_centres(values, draws)
    for end, expected in ((result.low, 0.025), (result.high, 0.975)):
        below = [stdtr(seeds - 1, (end - centre) / spread) for centre in centres]
        assert sum(below) / len(below) == pytest.approx(expected, abs=1e-9)


def test_seeds_that_agree_leave_the_identities_alone():
    draws = np.random.default_rng(0).normal(size=200)
    result = against_zero([0.5, 0.5], np.stack([draws, draws]))
    assert (result.low, result.high) == pytest.approx(interval(draws))


@pytest.mark.parametrize("a, b", [([0.5, 0.5], [0.25, 0.25]), ([0.3, 0.7, 0.5], [0.1, 0.5, 0.3])])
def test_seeds_that_agree_say_nothing_of_their_noise(a, b):
    # The second ones are equal but for rounding.
    result = paired_comparison(a, b)
    assert result.value > 0.19 and np.isnan([result.low, result.high]).all()
    assert result.verdict == "not decidable"
    apart = paired_comparison(a, np.subtract(b, 1e-9 * np.arange(len(a))))  # differences that do vary
    assert apart.verdict == "better"


def test_draws_that_could_not_be_measured_are_left_out():
    values, draws = make_draws(3)
    holes = draws.copy()
    holes[1, ::4] = np.nan
    kept = np.delete(draws, np.s_[::4], axis=1)
    expected, result = against_zero(values, kept), against_zero(values, holes)
    assert (result.low, result.high, result.draws) == (expected.low, expected.high, 60)
    none = against_zero(values, np.full_like(draws, np.nan))
    assert none == paired_comparison(values, np.zeros(3))
    alone = paired_comparison(1.0, 0.0, draws_a=[np.nan, 1.0], draws_b=[0.0, 0.0])
    assert np.isnan(alone.low) and alone.verdict == "not decidable"


def slow_scores(a, b, labels, draws, seed):
    classes = sorted(set(labels))
    weights = identity_weights(labels, draws, seed)
    values, drawn = [], []
    for one, other in zip(a, b, strict=True):
        valid = [n for n in range(len(labels)) if not np.isnan(one[n])]
        values.append((np.mean([one[n] for n in valid]), np.mean([other[n] for n in valid])))
        rows = []
        for k in range(draws):
            picked = [n for n in valid for _ in range(weights[classes.index(labels[n]), k])]
            rows.append((np.mean([one[n] for n in picked]), np.mean([other[n] for n in picked])))
        drawn.append(rows)
    return np.array(values), np.array(drawn)


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("names", [False, True])
def test_scores_equal_a_loop_over_the_drawn_identities(seeds, names):
    rng = np.random.default_rng(0)
    labels = [3, 3, 7, 7, 7, 9, 9, 1, 1, 4]
    labels = [f"id{x}" for x in labels] if names else labels
    a, b = rng.random((2, seeds, 10))
    a[:, [2, 9]] = b[:, [2, 9]] = np.nan  # the last identity has no query that counts
    result = paired_scores(a, b, labels, draws=30, seed=5)
    values, drawn = slow_scores(a, b, labels, 30, 5)
    sides = {"draws_a": drawn[..., 0], "draws_b": drawn[..., 1]}
    expected = paired_comparison(*values.T, **sides)
    assert result.value == pytest.approx(expected.value)
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high))
    assert (result.seeds, result.draws) == (seeds, 30)
    if seeds == 1:
        assert paired_scores(torch.tensor(a[0]), torch.tensor(b[0]), labels, draws=30, seed=5) == result


def test_equal_methods_are_not_decidable():
    scores = np.random.default_rng(0).random((3, 20))
    result = paired_scores(scores, scores, np.arange(20) % 5, draws=20)
    assert (result.value, result.low, result.high) == (0, 0, 0)
    assert result.verdict == paired_comparison(0.5, 0.4).verdict == "not decidable"


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(ValueError, match=r"a and b have shapes \(3,\) and \(2,\)"):
        paired_comparison([1.0, 2.0, 3.0], [1.0, 2.0])
    with pytest.raises(ValueError, match=r"shapes \(1, 2\) and \(1, 1\) for 1 seed"):
        paired_comparison(1.0, 2.0, draws_a=[1.0, 2.0], draws_b=[1.0])
    with pytest.raises(ValueError, match="count different queries"):
        paired_scores([0.1, np.nan], [0.1, 0.2], [0, 1])
