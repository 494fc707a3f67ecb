"""Images that stay encoded: the pixels of the files, rows and subsets as of a tensor, a digest of lists."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from compat_lib.data.decoding import UnreadableImages, read_image
from compat_lib.data.encoded import EncodedImages, Names
from compat_lib.data.images import ImageSet


@pytest.fixture
def paths(tmp_path):
    draw = np.random.default_rng(0)
    made = [tmp_path / f"bild-{number}-ä.{kind}" for number, kind in enumerate(["png", "jpg", "png", "jpg"])]
    for path in made:
        Image.fromarray(draw.integers(0, 256, (14, 9, 3), dtype=np.uint8)).save(path)
    return made


def encoded(paths, size=(8, 6), **options):
    return EncodedImages(paths, size=size, digest="of the list", **options)


def test_rows_are_the_files_pixels_in_any_order(paths):
    images = encoded(paths)
    expected = torch.stack([torch.tensor(read_image(path, (8, 6))).permute(2, 0, 1) for path in paths])
    assert images.shape == (4, 3, 8, 6) and len(images) == 4
    for rows in ([3, 0, 3], torch.tensor([2, 1]), np.array([1]), [], slice(1, None), slice(-1, None)):
        there = rows if isinstance(rows, slice) else torch.as_tensor(rows).long()
        assert torch.equal(images[rows], expected[there])
    assert torch.equal(images[-1], expected[3])
    part = images.subset(torch.tensor([3, 2, 0])).subset(torch.tensor([2, 0]))
    assert part.shape == (2, 3, 8, 6) and torch.equal(part[[0, 1]], expected[[0, 3]])
    assert torch.equal(pickle.loads(pickle.dumps(part))[:], part[:])


def test_what_cannot_be_read_is_named(paths):
    paths[1].write_bytes(b"")
    paths[3].unlink()
    with pytest.raises(UnreadableImages, match=r"2 images: .*bild-1.*file is empty.*bild-3.*No such file"):
        encoded(paths)[:]
    assert encoded(paths)[[0, 2]].shape == (2, 3, 8, 6)


def test_the_digest_is_of_the_list_the_rules_and_the_rows(paths):
    images = encoded(paths)
    before = images.digest()
    paths[0].unlink()  # the list is what its maker says it is: no file is opened
    others = [images.subset(torch.tensor(rows)) for rows in ([0, 1, 2], [1, 0, 2])]
    others += [encoded(paths, size=(8, 7)), encoded(paths, mode="L")]
    others.append(EncodedImages(paths, size=(8, 6), digest="of another list"))
    assert len({before, *(other.digest() for other in others)}) == 6
    assert encoded(paths).digest() == before and len(before) == 64


def test_an_image_set_of_encoded_images(paths):
    images = ImageSet(
        encoded(paths), torch.tensor([0, 0, 2, 1]), ("a", "b", "c"), {"camera": torch.arange(4)}
    )
    part = images.compact(torch.tensor([False, True, True, False]))
    assert part.classes == ("a", "c") and part.labels.tolist() == [0, 1] and len(part) == 2
    assert part.extras["camera"].tolist() == [1, 2]
    assert torch.equal(part.images[:], images.images[[1, 2]])
    assert images.subset(torch.arange(4)) is images
    renamed = images.with_labels(torch.arange(4), images.labels, "xyz")
    assert len({images.digest(), part.digest(), renamed.digest()}) == 3
    assert images.digest() == ImageSet(encoded(paths), images.labels, images.classes, images.extras).digest()


def test_names_are_one_buffer():
    texts = ["a.png", "", "ä/ö.jpg", "b\udce4.png"]
    names = Names(texts)
    assert [names[number] for number in range(len(names))] == texts
    many = Names(f"{number:07d}/{number % 100}.jpg" for number in range(2000))
    assert len(pickle.dumps(many)) < 40 * 2000 and many[1234] == "0001234/34.jpg"
