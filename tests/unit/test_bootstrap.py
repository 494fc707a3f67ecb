import numpy as np
import pytest

from compat_lib.evaluation import bootstrap, inputs, verification
from compat_lib.evaluation import pairs as pairs_module
from compat_lib.evaluation.bootstrap import bootstrap_mean, bootstrap_tar, identity_weights, interval
from compat_lib.evaluation.counting import count
from compat_lib.evaluation.pairs import PairScores

FARS = (0.5, 0.1, 0.02)


def make_features(classes=10, images=4, width=5, noise=0.8, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(classes), images))
    return rng.normal(size=(classes, width))[labels] + noise * rng.normal(size=(len(labels), width)), labels


def make_pairs(query, labels, gallery=None):
    query = inputs.unit_rows(query, "query")
    if gallery is None:
        return PairScores(query, labels)
    ids = np.arange(len(labels))
    gallery = inputs.unit_rows(gallery, "gallery")
    return PairScores(query, labels, gallery, labels, query_ids=ids, gallery_ids=ids)


def slow_tar(query, gallery, labels, weights, far, ordered):
    # One draw, pair by pair and threshold by threshold.
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (query, gallery)]
    genuine, impostors = [], []
    for i in range(len(labels)):
        for j in range(len(labels)):
            if i == j or (not ordered and j < i):
                continue
            score = np.float32(unit[0][i] @ unit[1][j])
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


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("images", [1, 4])
def test_tar_equals_brute_force(ordered, images):
    features, labels = make_features(images=4)
    if images == 1:  # some identities have a single image, hence no genuine pair
        keep = (labels < 3) | (np.r_[True, [label not in labels[:i] for i, label in enumerate(labels) if i]])
        features, labels = features[keep], labels[keep]
    other = features + 0.3 * np.random.default_rng(9).normal(size=features.shape)
    weights = identity_weights(labels, 25, seed=3)
    pairs = make_pairs(features, labels, other if ordered else None)
    result = bootstrap_tar(pairs, count(pairs), weights, FARS)
    gallery = other if ordered else features
    expected = [
        [slow_tar(features, gallery, labels, weights[:, b], far, ordered) for b in range(25)] for far in FARS
    ]
    assert result == pytest.approx(np.array(expected), abs=1e-9, nan_ok=True)


def make_sides(seed=0):
    # Queries of identities 0..6 against a gallery of 3..11; some images are in both.
    features, labels = make_features(12, 5, seed=seed)
    query, gallery = np.flatnonzero(labels < 7), np.flatnonzero(labels >= 3)
    return features, labels, query, gallery


def test_tar_of_queries_against_a_gallery_equals_brute_force():
    features, labels, query, gallery = make_sides()
    weights = identity_weights(labels, 25, seed=1)
    pairs = PairScores(
        inputs.unit_rows(features[query], "query"),
        labels[query],
        inputs.unit_rows(features[gallery] + 0.1, "gallery"),
        labels[gallery],
        query_ids=query,
        gallery_ids=gallery,
    )
    result = bootstrap_tar(pairs, count(pairs), weights, FARS)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (features[query], features[gallery] + 0.1)]
    cosines = (unit[0] @ unit[1].T).astype(np.float32)
    counted = query[:, None] != gallery
    same = (labels[query][:, None] == labels[gallery]) & counted
    for b in range(25):
        row, column = weights[labels[query], b], weights[labels[gallery], b]
        impostors = np.where(counted & ~same, row[:, None] * column, 0)
        genuine = np.where(same, row[:, None], 0)
        for far, tar in zip(FARS, result[:, b], strict=True):
            passing = [
                genuine[cosines >= threshold].sum() / genuine.sum()
                for threshold in [*np.unique(cosines[same]), np.inf]
                if impostors[cosines >= threshold].sum() <= far * impostors.sum()
            ]
            assert tar == pytest.approx(max(passing), abs=1e-9)


@pytest.mark.parametrize("ids", [False, True])
def test_genuine_pairs_of_each_identity_are_counted_without_looking(monkeypatch, ids):
    monkeypatch.setitem(pairs_module.TILES, "cpu", (4, 8))
    features, labels, query, gallery = make_sides()
    expected = np.zeros(12, int)
    for i in query:
        for j in gallery:
            expected[labels[i]] += labels[i] == labels[j] and not (ids and i == j)
    sides = {"query_ids": query, "gallery_ids": gallery} if ids else {}
    unit = inputs.unit_rows(features, "query")
    pairs = PairScores(unit[query], labels[query], unit[gallery], labels[gallery], **sides)
    assert pairs.own_counts(12).tolist() == expected.tolist()
    assert pairs.own_counts(12).sum() == count(pairs).positives
    inside = PairScores(unit, labels)
    assert inside.own_counts(12).tolist() == [10] * 12


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


def test_weights_of_one_give_the_plain_metric():
    features, labels = make_features(30, 5)
    pairs = make_pairs(features, labels)
    ones = np.ones((30, 2), np.int64)
    result = bootstrap_tar(pairs, count(pairs), ones, (0.01, 0.001))
    plain = verification(features, labels, fars=(0.01, 0.001))
    assert result == pytest.approx(np.array(plain.tar)[:, None].repeat(2, 1))


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


def test_interval_leaves_out_what_is_not_a_number():
    assert interval(np.array([np.nan, 1.0, 1.0])) == (1.0, 1.0)
    assert interval(np.array([np.nan, 1.0])) is None
    assert interval([1.0, 3.0], level=0.5) == (1.5, 2.5)
    assert bootstrap_mean([1.0, 0.0], [0, 1], np.array([[3], [1]])).tolist() == [0.75]


def test_interval_covers_the_truth_about_as_often_as_it_says():
    # Values of one identity are nearly equal: an interval over images would cover far too seldom.
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        labels = np.repeat(np.arange(40), 5)
        values = rng.normal(size=40)[labels] + 0.1 * rng.normal(size=200)
        low, high = interval(bootstrap_mean(values, labels, identity_weights(labels, 200, seed=trial)))
        covered += low <= 0 <= high
    assert 0.88 <= covered / 200 <= 0.99
