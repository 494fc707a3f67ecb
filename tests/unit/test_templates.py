import numpy as np
import pytest
import torch

from compat_lib.evaluation.protocols import templates
from compat_lib.evaluation.protocols.templates import (
    Templates,
    TemplateTests,
    image_features,
    pool_templates,
    three_tests,
)
from compat_lib.evaluation.records import Record, Records


def make_images(images=60, width=7, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(images, width))
    return features, rng.integers(0, 9, images) * 11 - 30, rng.integers(0, 4, images) * 5


def slow_pool(features, template_ids, media):
    # The protocol in plain loops, float64.
    pooled = []
    for template in sorted(set(template_ids)):
        total, own = np.zeros(features.shape[1]), template_ids == template
        for medium in sorted(set(media[own])):
            rows = features[own & (media == medium)]
            total += sum(rows) / len(rows)
        pooled.append(total / np.sqrt((total**2).sum()))
    return np.array(sorted(set(template_ids))), np.array(pooled)


@pytest.mark.parametrize("images, width, rows", [(60, 7, 8192), (60, 7, 13), (1, 1, 8192), (200, 33, 64)])
def test_pooling_equals_the_definition(monkeypatch, images, width, rows):
    monkeypatch.setattr(templates, "ROWS", rows)
    features, ids, media = make_images(images, width)
    expected_ids, expected = slow_pool(features, ids, media)
    pooled = pool_templates(features, ids, media)
    assert pooled.ids.dtype == np.int64 and pooled.features.dtype == np.float64
    assert pooled.ids.tolist() == expected_ids.tolist()
    assert np.allclose(pooled.features, expected, rtol=0, atol=1e-14)


def test_tensors_stay_tensors_and_names_stay_names():
    features, ids, media = make_images()
    given = (torch.from_numpy(features).float(), torch.from_numpy(ids), torch.from_numpy(media))
    tensors = pool_templates(*given)
    assert isinstance(tensors.features, torch.Tensor) and tensors.features.dtype == torch.float64
    named = pool_templates(features, [f"t{i + 100:04d}" for i in ids], media)
    assert named.ids.tolist() == [f"t{i + 100:04d}" for i in pool_templates(features, ids, media).ids]


def test_zero_sum_stays_zero_and_extreme_rows_keep_their_direction():
    rows = [[1.0, 2.0], [-1.0, -2.0], [3e300, 4e300], [3e-300, 4e-300]]
    pooled = pool_templates(rows, [0, 0, 1, 2], [0] * 4)
    assert pooled.features == pytest.approx(np.array([[0, 0], [0.6, 0.8], [0.6, 0.8]]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("detector", [False, True])
def test_both_switches_act(monkeypatch, dtype, flip, detector):
    monkeypatch.setattr(templates, "ROWS", 16)
    rng = np.random.default_rng(0)
    features, mirrored = rng.normal(size=(2, 50, 6)).astype(dtype)
    scores = rng.uniform(0, 1, 50)
    given = features.copy()
    sides = (features, mirrored if flip else None, scores if detector else None)
    result = image_features(*sides)
    expected = features.astype(np.float64) + (mirrored.astype(np.float64) if flip else 0)
    if detector:
        expected = expected * scores[:, None]
    assert result.dtype == (np.float64 if dtype == np.float64 else np.float32)
    assert np.allclose(result, expected, rtol=1e-6, atol=1e-7)
    assert np.array_equal(features, given) and not np.shares_memory(result, features)
    sides = (None if side is None else torch.from_numpy(side) for side in sides)
    tensor = image_features(*sides)
    assert np.array_equal(tensor.numpy(), result)


def checked(size, rows):
    return templates.checked_templates(Templates(range(size), rows), "x")


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda: image_features(np.ones((3, 2)), np.ones((1, 2))), "one row and one score"),
        (lambda: image_features(np.ones((3, 2)), None, [1, 1, -1]), "one row and one score"),
        (lambda: pool_templates([[np.nan], [1.0]], [1, 2], [1, 1]), "images of 1 of the 2 templates"),
        (lambda: checked(3, [[0.0, 0.98], [0, 0], [0.995, 0]]), "1 of the 3 rows of the x"),
        (lambda: checked(1, [[0.0, np.inf]]), "not finite or not of unit length"),
    ],
)
def test_features_that_are_no_templates_are_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


class Counted:
    def __init__(self, enrolled, probe):
        total = float(np.sum(enrolled[1]) + 10 * np.sum(probe[1]))
        self.records = Records([Record(None, None, "sum", total), Record(None, None, "n/a", None)])


def test_three_tests_enrol_the_old_and_probe_with_the_new():
    old, new = Templates([1], [[1.0]]), Templates([1], [[2.0]])
    tests = three_tests(old, new, Counted)
    sums = tests.records.select(metric="sum")
    assert [one.value for one in sums] == [11.0, 21.0, 22.0]
    assert [(one.query, one.gallery) for one in sums] == [("old", "old"), ("new", "old"), ("new", "new")]
    assert tests.summary().splitlines() == [
        f"{pair}: sum {total}.0000, n/a n/a"
        for pair, total in (("old/old", 11), ("new/old", 21), ("new/new", 22))
    ]


def test_tests_that_cannot_be_are_none():
    new = Templates([1], [[2.0]])
    alone = three_tests(None, new, Counted)
    assert isinstance(alone, TemplateTests)
    assert [one.value for one in alone.records.select(metric="sum")] == [None, None, 22.0]
    wider = three_tests(Templates([1], [[1.0, 1.0]]), new, Counted)
    assert [one.value for one in wider.records.select(metric="sum")] == [22.0, None, 22.0]
    assert "new/old: sum n/a" in wider.summary()
