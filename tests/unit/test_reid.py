import math

import numpy as np
import pytest

from compat_lib.evaluation import pairs, ranking
from compat_lib.evaluation.protocols.reid import reid


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
    # The protocol in plain loops: precision and penalty by query (nan: skipped), and the curve.
    precision, penalty, curves = [], [], []
    for feature, person, camera in zip(query, people, cameras, strict=True):
        kept = [
            (round(1 - cosine(feature, other), 9), other_person == person)  # among ties right ones last
            for other, other_person, other_camera in zip(
                gallery, gallery_people, gallery_cameras, strict=True
            )
            if other_person != person or other_camera != camera
        ]
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
    return precision, penalty, np.mean(curves, axis=0)


@pytest.mark.parametrize("tile, matches", [((2, 3), 1), ((5, 7), 40), ((256, 1024), 2**23)])
@pytest.mark.parametrize(("values", "noise"), [(0, 0.1), (0, 0.9), (0, 3.0), (1, 0.9), (3, 0.9), (6, 0.9)])
def test_equals_the_plain_loop(monkeypatch, tile, matches, values, noise):
    sides = make_sides(noise=noise, seed=values)
    rng = np.random.default_rng(values)
    for side in (0, 3) if values else ():  # directions along few axes: the same cosines again, exactly
        sides[side] = np.eye(values)[rng.integers(0, values, len(sides[side]))] * rng.choice([-1, 1, 4])
    monkeypatch.setitem(pairs.TILES, "cpu", tile)
    monkeypatch.setattr(ranking, "MATCHES", matches)
    result = reid(*sides, ranks=range(1, 51))
    precision, penalty, curve = slow_reid(*sides)
    assert result.average_precision == pytest.approx(precision, abs=1e-12, nan_ok=True)
    assert result.inverse_negative_penalty == pytest.approx(penalty, abs=1e-12, nan_ok=True)
    assert list(result.rank.values()) == pytest.approx(curve, abs=1e-12)
    assert (result.map, result.minp) == pytest.approx((np.nanmean(precision), np.nanmean(penalty)))
    assert result.queries == np.isfinite(precision).sum()
    own = (sides[1][:, None] == sides[4]) & (sides[2][:, None] == sides[5])
    assert result.excluded == own.sum() and result.values["minp"] == result.minp


def test_what_cannot_be_measured_is_refused():
    sides = make_sides()
    with pytest.raises(ValueError, match="no query has a right item .* its camera"):
        reid(*sides[:2], np.zeros(25, int), *sides[3:5], np.zeros(70, int))


def test_short_gallery_extends_the_curve():
    # The second query has one item only; the first finds its own at rank 2.
    sides = [[1, 0], [0, 1]], [1, 2], [0, 0], [[3, 1], [1, 1], [0, 1]], [2, 1, 2], [0, 1, 0]
    result = reid(*sides)
    assert result.rank == {1: 0.0, 5: 1.0, 10: 1.0} and result.queries == 1
