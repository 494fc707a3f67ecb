import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compat_lib.data.batches import Batches, to_float


def pictures(count, channels=3, height=6, width=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, height, width), generator=generator, dtype=torch.uint8)


def to_bytes(pixels):
    return (pixels * 127.5 + 127.5).round().to(torch.uint8)


def candidates(image, shift, flip, padding):
    """All that augmentation may make of one image, by padding and slicing in numpy."""
    made = {}
    mode = {"edge": "edge", "zero": "constant"}[padding]
    for mirrored in (False, True) if flip else (False,):
        source = image.numpy()[:, :, ::-1] if mirrored else image.numpy()
        # The flip comes after the padded image is cut, seen from the image; both orders give the same set.
        padded = np.pad(source, [(0, 0), (shift, shift), (shift, shift)], mode=mode)
        for down in range(2 * shift + 1):
            for right in range(2 * shift + 1):
                cut = padded[:, down : down + image.shape[1], right : right + image.shape[2]]
                made[cut.tobytes()] = (down - shift, right - shift, mirrored)
    return made


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("padding", ["edge", "zero"])
@pytest.mark.parametrize(("shift", "flip"), [(0, False), (2, False), (1, True)])
def test_every_image_is_a_shifted_perhaps_mirrored_copy(channels, padding, shift, flip):
    images = pictures(40, channels)
    batches = Batches(
        images, torch.arange(40), batch_size=40, seed=3, shift=shift, flip=flip, padding=padding
    )
    (batch,) = batches.epoch(0)
    draws = []
    for row, pixels in zip(batch.rows.tolist(), to_bytes(batch.pixels()), strict=True):
        draws.append(candidates(images[row], shift, flip, padding)[pixels.contiguous().numpy().tobytes()])
    possible = (2 * shift + 1) ** 2 * (2 if flip else 1)
    assert len(set(draws)) >= min(possible, 12)  # each image has a draw of its own


def test_all_shifts_occur_equally_often():
    image = torch.zeros(1, 1, 5, 5, dtype=torch.uint8)
    image[0, 0, 2, 2] = 255
    count = 5000
    batches = Batches(
        image.expand(count, -1, -1, -1), torch.zeros(count), batch_size=count, seed=0, padding="zero"
    )
    (batch,) = batches.epoch(0)
    share = to_bytes(batch.pixels()).eq(255).float().mean(dim=(0, 1))
    # 25 places with probability 1/25; five standard deviations of a binomial share
    assert (share - 1 / 25).abs().max() < 5 * (0.04 * 0.96 / count) ** 0.5


def test_without_augmentation_pixels_are_the_evaluation_transform():
    images = pictures(9)
    batches = Batches(images, torch.arange(9), batch_size=4, seed=0, shift=0)
    for batch in batches.epoch(2):
        assert torch.equal(batch.pixels(), to_float(images[batch.rows]))


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


def test_fewer_images_than_a_batch_make_one_batch():
    batches = Batches(pictures(3), torch.arange(3), batch_size=8, seed=0)
    (batch,) = batches.epoch(0)
    assert len(batches) == 1 and sorted(batch.rows.tolist()) == [0, 1, 2]


def test_an_epoch_depends_on_seed_and_number_only():
    images, labels = pictures(32), torch.arange(32)

    def content(seed, number, warm=0):
        batches = Batches(images, labels, batch_size=8, seed=seed, flip=True)
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


def test_keep_of_another_kind_is_refused():
    batch = next(Batches(pictures(4), torch.arange(4), batch_size=4, seed=0).epoch(0))
    for keep in (torch.ones(3, dtype=torch.bool), torch.ones(4, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"keep must be bool \[4\]"):
            batch.pixels(keep)


def test_flips_change_neither_order_nor_shifts():
    images, labels = pictures(64), torch.arange(64)
    plain = next(Batches(images, labels, batch_size=64, seed=0).epoch(0))
    flipped = next(Batches(images, labels, batch_size=64, seed=0, flip=True).epoch(0))
    assert torch.equal(plain.rows, flipped.rows)
    same = (plain.pixels() == flipped.pixels()).all(dim=3).all(dim=2).all(dim=1)
    assert 15 < int(same.sum()) < 49  # half of 64, give or take four standard deviations


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_float32_in_range_and_channels_last(channels):
    batch = next(Batches(pictures(8, channels), torch.arange(8), batch_size=8, seed=0).epoch(0))
    pixels = batch.pixels()
    assert pixels.dtype == torch.float32 and pixels.shape == (8, channels, 6, 7)
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    assert pixels.min() >= -1 and pixels.max() <= 1


def test_to_float_is_the_formula_and_leaves_its_input_alone():
    images = pictures(5)
    before = images.clone()
    expected = ((images.double() - 127.5) / 127.5).float()
    assert torch.equal(to_float(images), expected)
    assert torch.equal(images, before)
    with pytest.raises(TypeError, match="uint8"):
        to_float(expected)


def test_a_memory_mapped_file_gives_the_same_batches(tmp_path):
    images = pictures(20)
    np.save(tmp_path / "images.npy", images.numpy())
    mapped = torch.from_numpy(np.load(tmp_path / "images.npy", mmap_mode="c"))
    for one, two in zip(
        Batches(images, torch.arange(20), batch_size=8, seed=0).epoch(1),
        Batches(mapped, torch.arange(20), batch_size=8, seed=0).epoch(1),
        strict=True,
    ):
        assert torch.equal(one.pixels(), two.pixels())


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"images": torch.zeros(4, 3, 6, 7)}, TypeError, "uint8"),
        ({"images": pictures(4)[0]}, ValueError, "shape"),
        ({"images": pictures(4)[:0], "labels": torch.zeros(0)}, ValueError, "N > 0"),
        ({"labels": torch.arange(3)}, ValueError, "4 images need as many labels"),
        ({"batch_size": 0}, ValueError, "at least 1; got 0"),
        ({"shift": -1}, ValueError, "shift must be"),
        ({"shift": 6}, ValueError, "less than the image's 6"),
        ({"padding": "mirror"}, ValueError, "edge, zero"),
    ],
)
def test_what_cannot_be_batched_is_said(change, error, sentence):
    arguments = {"images": pictures(4), "labels": torch.arange(4), "batch_size": 2, "seed": 0, **change}
    with pytest.raises(error, match=sentence):
        Batches(arguments.pop("images"), arguments.pop("labels"), **arguments)


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
