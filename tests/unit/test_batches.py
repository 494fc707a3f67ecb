import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compat_lib.data.batches import Batches, Groups, to_float


def pictures(count, channels=3, height=6, width=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, height, width), generator=generator, dtype=torch.uint8)


def to_bytes(pixels):
    return (pixels * 127.5 + 127.5).round().to(torch.uint8)


def candidates(image, shift, flip):
    """All that augmentation may make of one image, by padding and slicing in numpy."""
    made = {}
    for mirrored in (False, True) if flip else (False,):
        source = image.numpy()[:, :, ::-1] if mirrored else image.numpy()
        # The flip comes after the padded image is cut, seen from the image; both orders give the same set.
        padded = np.pad(source, [(0, 0), (shift, shift), (shift, shift)], mode="edge")
        for down in range(2 * shift + 1):
            for right in range(2 * shift + 1):
                cut = padded[:, down : down + image.shape[1], right : right + image.shape[2]]
                made[cut.tobytes()] = (down - shift, right - shift, mirrored)
    return made


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("shift", "flip"), [(0, False), (2, False), (1, True)])
def test_every_image_is_a_shifted_perhaps_mirrored_copy(channels, shift, flip):
    images = pictures(40, channels)
    batches = Batches(images, torch.arange(40), batch_size=40, seed=3, shift=shift, flip=flip)
    (batch,) = batches.epoch(0)
    draws = []
    for row, pixels in zip(batch.rows.tolist(), to_bytes(batch.pixels()), strict=True):
        draws.append(candidates(images[row], shift, flip)[pixels.contiguous().numpy().tobytes()])
    possible = (2 * shift + 1) ** 2 * (2 if flip else 1)
    assert len(set(draws)) >= min(possible, 12)  # each image has a draw of its own


def test_all_shifts_occur_equally_often():
    image = torch.zeros(1, 1, 5, 5, dtype=torch.uint8)
    image[0, 0, 2, 2] = 255
    count = 5000
    batches = Batches(image.expand(count, -1, -1, -1), torch.zeros(count), batch_size=count, seed=0)
    (batch,) = batches.epoch(0)
    share = to_bytes(batch.pixels()).eq(255).float().mean(dim=(0, 1))
    # 25 places with probability 1/25; five standard deviations of a binomial share
    assert (share - 1 / 25).abs().max() < 5 * (0.04 * 0.96 / count) ** 0.5


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 3))
def test_an_epoch_visits_rows_once_and_drops_a_short_last_batch(count, batch_size, epoch):
    labels = torch.arange(count) * 2
    batches = Batches(pictures(count, 1), labels, batch_size=batch_size, seed=1)
    made = list(batches.epoch(epoch))
    size = min(count, batch_size)
    assert len(made) == len(batches) == count // size
    rows = torch.cat([batch.rows for batch in made])
    assert all(len(batch.rows) == size for batch in made)
    assert len(rows.unique()) == len(rows)
    assert torch.equal(torch.cat([batch.labels for batch in made]), labels[rows])


@pytest.mark.parametrize("per_identity", [0, 2])
def test_an_epoch_depends_on_seed_and_number_only(per_identity):
    images, labels = pictures(60), torch.arange(60) % 9

    def content(seed, number, warm=0):
        batches = Batches(images, labels, batch_size=8, seed=seed, per_identity=per_identity, flip=True)
        for earlier in range(warm):
            list(batches.epoch(earlier))
        torch.manual_seed(warm)  # the global generator has no part in it
        made = list(batches.epoch(number))
        return torch.cat([b.rows for b in made]), torch.cat([b.pixels() for b in made])

    for one, two in zip(content(5, 3), content(5, 3, warm=3), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(content(5, 3)[0], content(5, 4)[0])
    assert not torch.equal(content(5, 3)[0], content(6, 3)[0])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.booleans(), min_size=16, max_size=16))
def test_keep_takes_rows_and_leaves_their_augmentation_alone(kept):
    batch = next(Batches(pictures(16), torch.arange(16), batch_size=16, seed=0, flip=True).epoch(0))
    keep = torch.tensor(kept)
    assert torch.equal(batch.pixels(keep), batch.pixels()[keep])


def test_to_float_is_the_formula_and_leaves_its_input_alone():
    images = pictures(5)
    before = images.clone()
    expected = ((images.double() - 127.5) / 127.5).float()
    assert torch.equal(to_float(images), expected)
    assert to_float(images).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_on_a_gpu_equal_those_on_the_cpu():
    images, labels = pictures(40), torch.arange(40)
    for one, two in zip(
        Batches(images, labels, batch_size=16, seed=0, flip=True).epoch(1),
        Batches(images, labels, batch_size=16, seed=0, flip=True, device="cuda").epoch(1),
        strict=True,
    ):
        assert two.pixels().is_cuda and two.rows.is_cuda and two.labels.is_cuda
        assert torch.equal(one.rows, two.rows.cpu())
        torch.testing.assert_close(one.pixels(), two.pixels().cpu(), rtol=0, atol=1e-6)


# -- several images of each identity -------------------------------------------------------------


def most_batches(sizes, identities, per_identity):
    """The largest number of batches that a greedy deal fills: always those with the most groups left."""
    groups = [-(-size // per_identity) for size in sizes]
    for batches in range(sum(groups) // identities, -1, -1):
        left = sorted(min(count, batches) for count in groups)
        for _ in range(batches):
            left = sorted(left, reverse=True)
            if left[identities - 1] == 0:
                break
            left = [count - (place < identities) for place, count in enumerate(left)]
        else:
            return batches
    return 0


SIZES = st.lists(st.integers(1, 23), min_size=3, max_size=12)


@settings(deadline=None, max_examples=80)
@given(sizes=SIZES, identities=st.integers(1, 3), per_identity=st.integers(2, 5), epoch=st.integers(0, 2))
def test_batches_hold_several_images_of_some_identities(sizes, identities, per_identity, epoch):
    labels = 10 * torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)) - 5  # gaps, and below zero
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    size = identities * per_identity
    batches = Batches(
        pictures(1, 1, 4, 4).expand(len(labels), -1, -1, -1),
        labels,
        batch_size=size,
        seed=1,
        per_identity=per_identity,
    )
    made = list(batches.epoch(epoch))
    assert len(made) == len(batches) == most_batches(sizes, identities, per_identity) > 0
    seen = {label: [] for label in labels.tolist()}
    for batch in made:
        assert torch.equal(batch.labels, labels[batch.rows])
        groups = batch.labels.view(identities, per_identity)
        assert groups.eq(groups[:, :1]).all()  # an identity's images stand next to each other
        assert len(groups[:, 0].unique()) == identities
        for label, rows in zip(
            groups[:, 0].tolist(), batch.rows.view(identities, per_identity).tolist(), strict=True
        ):
            count = int((labels == label).sum())
            times = [rows.count(row) for row in set(rows)]
            assert len(set(rows)) == min(per_identity, count)  # repeated only where there are too few
            assert max(times) - min(times) <= 1
            seen[label].append(rows)
    waiting = 0
    for label, groups in seen.items():
        count = int((labels == label).sum())
        there = min(-(-count // per_identity), len(made))
        assert len(groups) <= there
        waiting += there - len(groups)
        shown = [row for rows in groups for row in rows]
        assert len(set(shown)) == min(count, len(shown))  # each image once before any comes again
    assert waiting < identities


def test_what_waits_and_who_meets_whom_is_drawn_anew_in_every_epoch():
    labels = torch.arange(20).repeat_interleave(4)
    groups = Groups(labels, 32, 4)  # 20 groups, 8 to a batch: 4 of them wait
    absent, together = torch.zeros(20), torch.zeros(20, 20)
    for number in range(600):
        rows = groups.rows(torch.Generator().manual_seed(number)).view(2, 8, 4)
        people = labels[rows[..., 0]]
        absent[sorted(set(range(20)) - set(people.flatten().tolist()))] += 1
        for one in people:
            together[one[:, None], one] += 1
    assert (absent - 120).abs().max() < 5 * (600 * 0.2 * 0.8) ** 0.5
    pairs = together[~torch.eye(20, dtype=torch.bool)]
    expected = 600 * 2 * (8 * 7) / (20 * 19)
    assert (pairs - expected).abs().max() < 5 * expected**0.5


def test_identities_with_more_groups_do_not_come_first():
    labels = torch.arange(12).repeat_interleave(torch.tensor([40] * 4 + [4] * 8))  # 20 groups and 2 groups
    big = torch.zeros(24)
    for number in range(200):
        rows = Groups(labels, 8, 2).rows(torch.Generator().manual_seed(number)).view(-1, 4, 2)
        assert len(rows) == 24
        big += (labels[rows[..., 0]] < 4).sum(dim=1)
    # 80 of the 96 groups belong to the four large identities: 3.33 of 4 in every batch
    assert (big / 200 - 80 / 24).abs().max() < 0.35


def test_an_image_that_occurs_twice_in_a_batch_is_augmented_twice():
    images = pictures(3, 1, 12, 12)
    batches = Batches(images, torch.arange(3), batch_size=60, seed=0, per_identity=20, shift=3, flip=True)
    (batch,) = batches.epoch(0)
    assert sorted(batch.rows.tolist()) == [0] * 20 + [1] * 20 + [2] * 20
    for row in range(3):
        copies = to_bytes(batch.pixels())[batch.rows == row].flatten(1)
        draws = {candidates(images[row], 3, True)[copy.numpy().tobytes()] for copy in copies}
        assert len(draws) > 12  # 98 possible ones, 20 draws
    keep = torch.arange(60) % 3 == 0
    assert torch.equal(batch.pixels(keep), batch.pixels()[keep])


@pytest.mark.parametrize(
    ("per_identity", "batch_size", "shift", "sentence"),
    [
        (0, 4, -1, "less than the image's 6; got -1"),
        (0, 4, 6, "less than the image's 6; got 6"),
        (1, 8, 2, r"per_identity must be 0 \(off\) or at least 2 images; got 1"),
        (4, 10, 2, "batch_size 10 is no multiple of per_identity 4; 8 would be one"),
        (4, 3, 2, "batch_size 3 is no multiple of per_identity 4; 4 would be one"),
        (
            4,
            64,
            2,
            "with 4 of each identity need 16 identities, but there are 5; a batch_size of 20 would do",
        ),
    ],
)
def test_batches_that_cannot_be_made_are_refused(per_identity, batch_size, shift, sentence):
    size = {"batch_size": batch_size, "per_identity": per_identity}
    with pytest.raises(ValueError, match=sentence):
        Batches(pictures(50), torch.arange(50) % 5, seed=0, shift=shift, **size)
