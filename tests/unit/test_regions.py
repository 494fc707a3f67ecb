"""The outlier rule of class radii and angles against a slow loop over sorted lists."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compat_lib.losses.regions import kept_extent


def slow_extent(distances, labels, num_classes):
    """One class at a time: sort, drop what lies outside the fences, take the largest."""
    extents, counts = [], []
    for label in range(num_classes):
        rho = sorted(d for d, y in zip(distances, labels, strict=True) if y == label)
        n = len(rho)
        if n >= 4:
            q1, q3 = rho[n // 4], rho[(3 * n) // 4]
            fence = 1.5 * (q3 - q1)
            rho = [d for d in rho if q1 - fence <= d <= q3 + fence] or rho
        extents.append(max(rho, default=0.0))
        counts.append(len(rho))
    return extents, counts


def check(distances, labels, num_classes):
    extent, count = kept_extent(distances, labels, num_classes)
    expected = slow_extent(distances.double().tolist(), labels.tolist(), num_classes)
    assert extent.double().tolist() == expected[0]
    assert count.tolist() == expected[1]
    assert extent.dtype == distances.dtype and count.dtype == torch.int64
    return extent, count


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [1, 3, 40])
@pytest.mark.parametrize("samples", [0, 1, 3, 4, 5, 200])
def test_against_sorted_lists(samples, classes, dtype):
    generator = torch.Generator().manual_seed(samples + classes)
    distances = torch.empty(samples).exponential_(generator=generator).to(dtype)  # with a long tail
    labels = torch.randint(classes, (samples,), generator=generator)
    _, count = check(distances, labels, classes)
    if samples == 200 and classes <= 3:
        assert count.sum() < samples  # something was dropped


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=60),
    seed=st.integers(0, 100),
)
def test_ties_and_any_order(rows, seed):
    labels = torch.tensor([label for label, _ in rows])
    distances = torch.tensor([2.0**power for _, power in rows])  # many ties, and outliers on one side
    found = check(distances, labels, 6)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    again = kept_extent(distances[order], labels[order], 6)
    assert torch.equal(found[0], again[0]) and torch.equal(found[1], again[1])
    assert (found[1] >= (torch.bincount(labels, minlength=6) > 0)).all()  # never all dropped


@pytest.mark.parametrize(
    ("distances", "extent", "count"),
    [
        ([1.0, 2.0, 3.0, 100.0], 100.0, 4),  # the third quartile of four is the largest itself
        ([1.0, 2.0, 3.0, 4.0, 100.0], 4.0, 4),  # q1 = 2, q3 = 4, fences -1 and 7
        ([1.0, 2.0, 3.0, 4.0, 7.0], 7.0, 5),  # on the fence is kept
        ([1.0, 2.0, 3.0, 4.0, 7.000001], 4.0, 4),
        ([-50.0, 2.0, 3.0, 4.0, 5.0], 5.0, 4),  # too near is an outlier too
        ([1.0, 1.0, 1.0, 1.0, 1.5], 1.0, 4),  # no spread at all: only ties are kept
        ([1.0, 2.0, 100.0], 100.0, 3),  # three are too few for quartiles
        ([5.0], 5.0, 1),
    ],
)
def test_by_hand(distances, extent, count):
    found = kept_extent(torch.tensor(distances), torch.zeros(len(distances), dtype=torch.int64), 1)
    assert found[0].item() == pytest.approx(extent) and found[1].item() == count


def test_classes_without_samples_anywhere():
    extent, count = kept_extent(torch.tensor([3.0, 2.0]), torch.tensor([1, 3]), 5)
    assert extent.tolist() == [0, 3, 0, 2, 0] and count.tolist() == [0, 1, 0, 1, 0]


def test_no_gradient_and_the_arguments_stay():
    distances = torch.rand(12, generator=torch.Generator().manual_seed(0)).requires_grad_()
    before = distances.detach().clone()
    extent, count = kept_extent(distances, torch.arange(12) % 2, 2)
    assert not extent.requires_grad and not count.requires_grad
    assert torch.equal(distances.detach(), before)


@pytest.mark.parametrize(
    ("distances", "labels", "message"),
    [
        (torch.ones(5), torch.zeros(4).long(), "There are 5 distances for 4 labels"),
        (
            torch.tensor([1.0, torch.nan]),
            torch.zeros(2).long(),
            "hold 1 values .* not finite, .* row 1",
        ),
        (
            torch.tensor([torch.inf, 1.0]),
            torch.zeros(2).long(),
            "hold 1 values .* not finite, .* row 0",
        ),
        (torch.ones(2), torch.tensor([0, 3]), r"labels must lie within 0..2, but go from 0 to 3"),
        (torch.ones(2), torch.tensor([-1, 0]), r"labels must lie within 0..2, but go from -1 to 0"),
        (torch.ones(2, 1), torch.zeros(2).long(), r"distances must be .* of shape \(2, 1\)"),
        (torch.ones(2).long(), torch.zeros(2).long(), "distances must be .* not torch.int64"),
        (torch.ones(2), torch.zeros(2), "labels must be one int64 number a sample, not torch.float32"),
    ],
)
def test_bad_input_is_refused(distances, labels, message):
    with pytest.raises(ValueError, match=message):
        kept_extent(distances, labels, 3)
