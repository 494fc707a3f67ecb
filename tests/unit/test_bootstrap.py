import numpy as np
import pytest
from plain_rows import grouped

from compat_lib.evaluation import bootstrap, inputs
from compat_lib.evaluation import pairs as pairs_module
from compat_lib.evaluation.bootstrap import bootstrap_mean, bootstrap_tar, identity_weights, interval
from compat_lib.evaluation.counting import count
from compat_lib.evaluation.pairs import PairScores

FARS = (0.5, 0.1, 0.02)


def make_features(classes=10, images=4, width=5, noise=0.8, seed=0):
    return grouped(classes, images, width, (noise,), seed)


def make_pairs(query, labels, gallery=None):
    query = inputs.unit_rows(query, "query")
    if gallery is None:
        return PairScores(query, labels)
    ids = dict.fromkeys(("query_ids", "gallery_ids"), np.arange(len(labels)))
    return PairScores(query, labels, inputs.unit_rows(gallery, "gallery"), labels, **ids)


def slow_tar(query, gallery, labels, weights, far, ordered):
    # One draw, pair by pair and threshold by threshold; the sides are {image: feature}.
    genuine, impostors = [], []
    for i, a in query.items():
        for j, b in gallery.items():
            if i == j or (not ordered and j < i):
                continue
            score = np.float32(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
            if labels[i] == labels[j]:
                genuine.append((score, weights[labels[i]]))
            else:
                impostors.append((score, weights[labels[i]] * weights[labels[j]]))
    genuine, impostors = np.array(genuine), np.array(impostors)
    total = impostors[:, 1].sum()
    if far * total < 1 or not genuine[:, 1].sum():
        return np.nan
    best = 0.0
    for threshold in [*genuine[:, 0], np.inf]:
        if impostors[impostors[:, 0] >= threshold, 1].sum() / total <= far:
            best = max(best, genuine[genuine[:, 0] >= threshold, 1].sum() / genuine[:, 1].sum())
    return best


@pytest.mark.parametrize(
    ("sides", "images"), [("one set", 1), ("one set", 4), ("ordered", 1), ("ordered", 4), ("apart", 4)]
)
def test_tar_equals_brute_force(sides, images):
    features, labels = make_features(12, 4)
    if images == 1:  # some identities have a single image, hence no genuine pair
        keep = (labels < 3) | (np.r_[True, [label not in labels[:i] for i, label in enumerate(labels) if i]])
        features, labels = features[keep], labels[keep]
    weights = identity_weights(labels, 25, seed=3)
    other = features + 0.3 * np.random.default_rng(9).normal(size=features.shape)
    rows, columns = np.arange(len(labels)), np.arange(len(labels))
    if sides == "apart":  # queries of identities 0..6 against a gallery of 3..11; some images are in both
        rows, columns = np.flatnonzero(labels < 7), np.flatnonzero(labels >= 3)
        unit = [inputs.unit_rows(x, "x") for x in (features[rows], other[columns])]
        ids = {"query_ids": rows, "gallery_ids": columns}
        pairs = PairScores(unit[0], labels[rows], unit[1], labels[columns], **ids)
    else:
        pairs = make_pairs(features, labels, other if sides == "ordered" else None)
    result = bootstrap_tar(pairs, count(pairs), weights, FARS)
    gallery = features if sides == "one set" else other
    query, gallery = ({i: side[i] for i in chosen} for side, chosen in ((features, rows), (gallery, columns)))
    expected = [
        [slow_tar(query, gallery, labels, weights[:, b], far, sides != "one set") for b in range(25)]
        for far in FARS
    ]
    assert result == pytest.approx(np.array(expected), abs=1e-9, nan_ok=True)


def test_tail_grows_and_is_cut_into_pieces_without_a_change(monkeypatch):
    features, labels = make_features(12, 5)
    weights = identity_weights(labels, 30)
    pairs = make_pairs(features, labels)
    counts = count(pairs)
    expected = bootstrap_tar(pairs, counts, weights, (0.05, 0.01))
    monkeypatch.setattr(bootstrap, "ITEMS", 50)
    monkeypatch.setattr(bootstrap, "CHUNK", 7)
    monkeypatch.setattr(bootstrap, "TAIL", 0.5)  # half of what the largest FAR needs: draws fall outside
    monkeypatch.setattr(bootstrap, "EXTRA", 0)
    monkeypatch.setitem(pairs_module.TILES, "cpu", (8, 16))
    pairs = make_pairs(features, labels)
    assert bootstrap_tar(pairs, counts, weights, (0.05, 0.01)) == pytest.approx(expected)


def test_thinned_thresholds_stay_at_or_below_the_exact_ones(monkeypatch):
    features, labels = make_features(30, 6)
    weights = identity_weights(labels, 20)
    pairs = make_pairs(features, labels)
    exact = bootstrap_tar(pairs, count(pairs), weights, (0.05,))
    monkeypatch.setattr(bootstrap, "KEPT", 400)
    monkeypatch.setattr(bootstrap, "SPACING", 1.02)
    thinned = bootstrap_tar(pairs, count(pairs), weights, (0.05,))
    assert (bootstrap_tar(pairs, count(pairs), weights, (1e-4,)) <= 1).all()  # above the highest one kept
    assert (thinned <= exact).all()
    assert thinned == pytest.approx(exact, abs=0.05)


def test_equal_scores_and_draws_without_impostors():
    labels = np.arange(60) % 6
    pairs = make_pairs(np.ones((60, 3)), labels)
    result = bootstrap_tar(pairs, count(pairs), identity_weights(labels, 10), (0.1, 1.0))
    assert (result[0] == 0).all() and (result[1] == 1).all()
    pairs = make_pairs([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]], np.array([0, 0, 1, 1]))
    result = bootstrap_tar(pairs, count(pairs), np.array([[2, 1], [0, 1]]), (0.5, 1.0))
    assert np.isnan(result[:, 0]).all() and (result[:, 1] == 1).all()


def test_weights_depend_on_labels_and_seed_only():
    labels = np.array([3, 3, 8, 8, 8, 1])
    first = identity_weights(labels, 50, seed=4)
    assert np.array_equal(first, identity_weights(labels[::-1], 50, seed=4))
    assert not np.array_equal(first, identity_weights(labels, 50, seed=5))
    assert first.shape == (3, 50) and (first.sum(0) == 3).all()
    assert identity_weights(labels, 0).shape == (3, 0)


def test_mean_equals_drawing_the_identities():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, 40)
    values = rng.random(40)
    values[::7] = np.nan
    weights = identity_weights(labels, 20)
    for b, result in enumerate(bootstrap_mean(values, labels, weights)):
        drawn = [value for c in range(6) for _ in range(weights[c, b]) for value in values[labels == c]]
        assert result == pytest.approx(np.nanmean(drawn))
    with pytest.raises(ValueError, match="mismatch"):  # weights of other labels
        bootstrap_mean(values[labels > 2], labels[labels > 2], weights)


def test_interval_leaves_out_what_is_not_a_number():
    assert interval(np.array([np.nan, 1.0, 1.0])) == (1.0, 1.0)
    assert interval(np.array([np.nan, 1.0])) is None
    assert interval([1.0, 3.0]) == pytest.approx((1.05, 2.95))
    assert bootstrap_mean([1.0, 0.0], [0, 1], np.array([[3], [1]])).tolist() == [0.75]
