import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from compat_lib.data.batches import Augmentation, Batches, Groups
from compat_lib.data.encoded import EncodedImages

FLIP = Augmentation(flip=True)


def pictures(count, channels=3, height=6, width=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, height, width), generator=generator, dtype=torch.uint8)


def to_bytes(pixels):
    return (pixels * 127.5 + 127.5).round().to(torch.uint8)


def test_all_shifts_occur_equally_often():
    image = torch.zeros(1, 1, 5, 5, dtype=torch.uint8)
    image[0, 0, 2, 2] = 255
    count = 5000
    batches = Batches(image.expand(count, -1, -1, -1), torch.zeros(count), batch_size=count, seed=0)
    (batch,) = batches.epoch(0)
    share = to_bytes(batch.pixels()).eq(255).float().mean(dim=(0, 1))
    # 25 places with probability 1/25; five standard deviations of a binomial share
    assert (share - 1 / 25).abs().max() < 5 * (0.04 * 0.96 / count) ** 0.5


@settings(max_examples=30)
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
        how = {"batch_size": 8, "seed": seed, "per_identity": per_identity, "augmentation": FLIP}
        batches = Batches(images, labels, **how)
        for earlier in range(warm):
            list(batches.epoch(earlier))
        torch.manual_seed(warm)  # the global generator has no part in it
        made = list(batches.epoch(number))
        return torch.cat([b.rows for b in made]), torch.cat([b.pixels() for b in made])

    for one, two in zip(content(5, 3), content(5, 3, warm=3), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(content(5, 3)[0], content(5, 4)[0])
    assert not torch.equal(content(5, 3)[0], content(6, 3)[0])


# -- encoded images, and several processes -------------------------------------------------------


class Tiles:
    """A reader whose files are the tiles of one picture."""

    def __init__(self, images):
        self.images = images.permute(0, 2, 3, 1).numpy()

    def __call__(self, number):
        return Image.fromarray(self.images[number])


FULL = Augmentation(shift=0, flip=True, pad=2, erase=0.5)


def same(one, two):
    assert torch.equal(one.rows, two.rows) and torch.equal(one.labels, two.labels)
    assert torch.equal(one.pixels(), two.pixels())
    keep = torch.arange(len(one.rows)) % 3 == 0
    assert torch.equal(one.pixels(keep), two.pixels(keep))


@pytest.mark.parametrize(("workers", "per_identity"), [(0, 0), (2, 0), (2, 2)])
def test_encoded_images_make_the_batches_of_images_in_memory(workers, per_identity):
    images, labels = pictures(50), torch.arange(50) % 7
    files = EncodedImages(np.arange(50), Tiles(images), size=(6, 7), digest="tiles")
    how = {"batch_size": 8, "seed": 4, "per_identity": per_identity, "augmentation": FULL}
    memory, encoded = Batches(images, labels, **how), Batches(files, labels, workers=workers, **how)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    for epoch, start in ((0, 0), (1, 4), (1, len(memory))):
        for one, two in zip(memory.epoch(epoch, start), encoded.epoch(epoch, start), strict=True):
            same(one, two)
    next(encoded.epoch(2))  # an epoch that is left at once disturbs none that follows
    for one, two in zip(memory.epoch(3), encoded.epoch(3), strict=True):
        same(one, two)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("augmentation", [FLIP, FULL, Augmentation(shift=0, resized_crop=0.3, erase=0.5)])
def test_batches_on_a_gpu_equal_those_on_the_cpu(augmentation):
    images, labels = pictures(40), torch.arange(40)
    files = EncodedImages(np.arange(40), Tiles(images), size=(6, 7), digest="tiles")
    how = {"batch_size": 16, "seed": 0, "augmentation": augmentation}
    for source in (images, files):
        there = Batches(source, labels, device="cuda", workers=2, **how)
        for one, two in zip(Batches(images, labels, **how).epoch(1), there.epoch(1), strict=True):
            assert two.pixels().is_cuda and two.rows.is_cuda and two.labels.is_cuda
            assert torch.equal(one.rows, two.rows.cpu())
            torch.testing.assert_close(one.pixels(), two.pixels().cpu(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_cannot_be_read_is_named_where_it_is_needed(tmp_path, workers):
    for number in range(4):
        Image.new("RGB", (6, 6)).save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").write_bytes(b"")
    files = EncodedImages(sorted(tmp_path.iterdir()), size=6, digest="")
    batches = Batches(files, torch.arange(4), batch_size=4, seed=0, workers=workers)
    with pytest.raises(ValueError, match=r"cannot read the image .*2.png .the file is empty"):
        list(batches.epoch(0))


@pytest.mark.parametrize("per_identity", [0, 2])
@pytest.mark.parametrize("encoded", [False, True])
def test_the_ranks_together_have_the_batch_of_one_process(per_identity, encoded):
    images, labels = pictures(50), torch.arange(50) % 7
    source = EncodedImages(np.arange(50), Tiles(images), size=(6, 7), digest="") if encoded else images
    how = {"batch_size": 12, "seed": 4, "per_identity": per_identity, "augmentation": FULL}
    whole = list(Batches(images, labels, **how).epoch(2))
    for world in (2, 3):
        ranks = [Batches(source, labels, rank=rank, world=world, **how) for rank in range(world)]
        assert {len(rank) for rank in ranks} == {len(whole)}
        for start in (0, 1):
            parts = zip(*(rank.epoch(2, start) for rank in ranks), strict=True)
            for one, shares in zip(whole[start:], parts, strict=True):
                assert torch.equal(one.rows, torch.cat([share.rows for share in shares]))
                assert torch.equal(one.pixels(), torch.cat([share.pixels() for share in shares]))
    with pytest.raises(ValueError, match="12 images cannot be dealt out to 5 .* a batch_size of 10 can"):
        Batches(images, labels, world=5, **how)


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


@settings(max_examples=80)
@given(sizes=SIZES, identities=st.integers(1, 3), per_identity=st.integers(2, 5), epoch=st.integers(0, 2))
def test_batches_hold_several_images_of_some_identities(sizes, identities, per_identity, epoch):
    labels = 10 * torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)) - 5  # gaps, and below zero
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    how = {"batch_size": identities * per_identity, "seed": 1, "per_identity": per_identity}
    batches = Batches(pictures(1, 1, 4, 4).expand(len(labels), -1, -1, -1), labels, **how)
    made = list(batches.epoch(epoch))
    assert len(made) == len(batches) == most_batches(sizes, identities, per_identity) > 0
    seen = {label: [] for label in labels.tolist()}
    for batch in made:
        assert torch.equal(batch.labels, labels[batch.rows])
        groups = batch.labels.view(identities, per_identity)
        assert groups.eq(groups[:, :1]).all()  # an identity's images stand next to each other
        assert len(groups[:, 0].unique()) == identities
        rows_of = batch.rows.view(identities, per_identity).tolist()
        for label, rows in zip(groups[:, 0].tolist(), rows_of, strict=True):
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


@pytest.mark.parametrize(
    ("per_identity", "batch_size", "sentence"),
    [
        (1, 8, r"per_identity must be 0 \(off\) or at least 2 images; got 1"),
        (4, 10, "batch_size 10 is no multiple of per_identity 4; 8 would be one"),
        (4, 3, "batch_size 3 is no multiple of per_identity 4; 4 would be one"),
        (4, 64, "with 4 of each identity need 16 identities, but there are 5; a batch_size of 20 would do"),
    ],
)
def test_batches_that_cannot_be_made_are_refused(per_identity, batch_size, sentence):
    size = {"batch_size": batch_size, "per_identity": per_identity}
    with pytest.raises(ValueError, match=sentence):
        Batches(pictures(50), torch.arange(50) % 5, seed=0, **size)
