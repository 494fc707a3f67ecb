import math

import numpy as np
import pytest
from sklearn.metrics import roc_curve as sklearn_roc

from compat_lib.evaluation import pairs, ranking
from compat_lib.evaluation.protocols.reid import reid

FARS = (0.003, 0.01, 0.05, 0.2, 0.37, 0.5, 1.0)


def make_sides(queries=25, items=70, people=9, cameras=3, width=5, noise=0.9, seed=0):
    # (query, identities, cameras, gallery, identities, cameras); identity 0 is in the gallery only.
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(people, width))
    sides = []
    for size, lowest in ((queries, 1), (items, 0)):
        people_of = rng.integers(lowest, people, size)
        features = centres[people_of] + noise * rng.normal(size=(size, width))
        sides += [features, people_of, rng.integers(0, cameras, size)]
    return sides


def cosine(a, b):
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def slow_reid(query, people, cameras, gallery, gallery_people, gallery_cameras, max_rank=50):
    # The protocol in plain loops: precision and penalty by query (nan: skipped), curve, pooled pairs.
    precision, penalty, curves, pooled = [], [], [], []
    for feature, person, camera in zip(query, people, cameras, strict=True):
        kept = [
            (round(1 - cosine(feature, other), 9), other_person == person)  # among ties right ones last
            for other, other_person, other_camera in zip(
                gallery, gallery_people, gallery_cameras, strict=True
            )
            if other_person != person or other_camera != camera
        ]
        pooled += [(distance, not right) for distance, right in kept]
        ranked = [right for _, right in sorted(kept)]
        if not any(ranked):
            precision.append(math.nan)
            penalty.append(math.nan)
            continue
        found, total, last = 0, 0.0, 0
        for place, right in enumerate(ranked, start=1):
            if right:
                found, last = found + 1, place
                total += found / place
        precision.append(total / found)
        penalty.append(found / last)
        curve = [any(ranked[:r]) for r in range(1, len(ranked) + 1)]
        curves.append((curve + [curve[-1]] * max_rank)[:max_rank])
    distances, different = np.array(pooled).T
    return precision, penalty, np.mean(curves, axis=0), distances, different.astype(bool)


def published_rates(distances, different, fars):
    # FastReID: the pairs of different identities are the positives; the first of the nearest points.
    fpr, tpr, _ = sklearn_roc(different, distances, drop_intermediate=False)
    return [tpr[np.argmin(np.abs(fpr - far))] for far in fars]


@pytest.mark.parametrize("tile, matches", [((2, 3), 1), ((5, 7), 40), ((256, 1024), 2**23)])
@pytest.mark.parametrize(("values", "noise"), [(0, 0.1), (0, 0.9), (0, 3.0), (1, 0.9), (3, 0.9), (6, 0.9)])
def test_equals_the_plain_loop(monkeypatch, tile, matches, values, noise):
    sides = make_sides(noise=noise, seed=values)
    rng = np.random.default_rng(values)
    for side in (0, 3) if values else ():  # directions along few axes: the same cosines again, exactly
        sides[side] = np.eye(values)[rng.integers(0, values, len(sides[side]))] * rng.choice([-1, 1, 4])
    monkeypatch.setitem(pairs.TILES, "cpu", tile)
    monkeypatch.setattr(ranking, "MATCHES", matches)
    result = reid(*sides, ranks=range(1, 51), fars=FARS)
    precision, penalty, curve, distances, different = slow_reid(*sides)
    assert result.average_precision == pytest.approx(precision, abs=1e-12, nan_ok=True)
    assert result.inverse_negative_penalty == pytest.approx(penalty, abs=1e-12, nan_ok=True)
    assert list(result.rank.values()) == pytest.approx(curve, abs=1e-12)
    assert (result.map, result.minp) == pytest.approx((np.nanmean(precision), np.nanmean(penalty)))
    assert result.values["metric"] == pytest.approx((np.nanmean(precision) + curve[0]) / 2)
    assert result.skipped == np.isnan(precision).sum() and result.queries == 25 - result.skipped
    own = (sides[1][:, None] == sides[4]) & (sides[2][:, None] == sides[5])
    assert (result.excluded, result.junk) == (own.sum(), 0)
    assert result.tpr == pytest.approx(published_rates(distances, different, FARS), abs=1e-12)
    assert result.measurable == tuple(far * (~different).sum() >= 1 for far in FARS)


def test_published_rate_by_hand():
    # Cosines of one identity: 1, 0.8, 0.6, 0; of the others: 0.6, 0, -1. At FPR 1/4 the pair at 0 is told
    # apart, and with it those at 0 and -1. 0.3 is nearer to 1/4 than to 2/4; 0.375 is as near to both.
    gallery = [[1, 0], [4, 3], [3, 4], [0, 1], [3, 4], [0, 1], [-1, 0]]
    sides = [[1, 0]], [1], [0], gallery, [1, 1, 1, 1, 2, 2, 2], [1] * 7
    fars = (0.25, 0.3, 0.375, 0.4, 0.1, 1)
    result = reid(*sides, fars=fars)
    assert result.tpr == pytest.approx((2 / 3, 2 / 3, 2 / 3, 1, 0, 1))
    assert result.measurable == (True, True, True, True, False, True)
    assert "tpr@fpr=1e-1 n/a" in result.summary()


def test_rates_need_impostors():
    result = reid([[1, 0]], [1], [0], [[1, 0]], [1], [1])
    assert np.isnan(result.tpr).all() and result.measurable == (False,) * 3


def test_junk_is_dropped_and_distractors_stay():
    sides = make_sides(seed=8)
    rng = np.random.default_rng(8)
    junk = rng.normal(size=(11, 5)), np.full(11, -1), rng.integers(0, 3, 11)
    more = [np.r_[side, extra] for side, extra in zip(sides[3:], junk, strict=True)]
    asked = [np.r_[side, extra[:1]] for side, extra in zip(sides[:3], junk, strict=True)]
    expected, result = reid(*sides, fars=FARS), reid(*asked, *more, fars=FARS)
    assert result.average_precision[:-1] == pytest.approx(expected.average_precision, nan_ok=True)
    assert (result.junk, result.skipped) == (11, expected.skipped + 1) and result.tpr == expected.tpr
    named = [side.astype(str) if side.ndim == 1 else side for side in (*asked, *more)]
    assert reid(*named, fars=FARS).summary() == result.summary()
    assert reid(*sides[:3], *more, junk=(), fars=()).map < expected.map
    # Distractors: identity 0 counts as wrong, so dropping it helps.
    assert reid(*sides, junk=(0,), fars=()).map > expected.map


def test_what_cannot_be_measured_is_refused():
    sides = make_sides()
    with pytest.raises(ValueError, match="are junk"):
        reid(*sides, junk=range(9))
    with pytest.raises(ValueError, match="no query has a right item .* its camera"):
        reid(*sides[:2], np.zeros(25, int), *sides[3:5], np.zeros(70, int))


def test_short_gallery_extends_the_curve():
    # The second query has one item only; the first finds its own at rank 2.
    sides = [[1, 0], [0, 1]], [1, 2], [0, 0], [[3, 1], [1, 1], [0, 1]], [2, 1, 2], [0, 1, 0]
    result = reid(*sides, fars=())
    assert result.rank == {1: 0.0, 5: 1.0, 10: 1.0} and result.skipped == 1
