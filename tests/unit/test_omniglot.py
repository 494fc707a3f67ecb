import numpy as np
import pytest
import torch
from PIL import Image

from compat_lib.data import load
from compat_lib.data.omniglot import area_resize, omniglot


def draw_tree(root, background=14, evaluation=4, drawers=3):
    """Write a tree in which character number k has its column 5 k inked, in reverse order of names."""
    for part, count in (("images_background", background), ("images_evaluation", evaluation)):
        for number in reversed(range(count)):
            alphabet = f"Alphabet_{'BA'[number < count // 2]}"
            folder = root / "omniglot-py" / part / alphabet / f"character{number:02d}"
            folder.mkdir(parents=True)
            for drawer in reversed(range(drawers)):
                pixels = np.ones((105, 105), dtype=bool)
                pixels[:, 5 * number : 5 * number + 5] = False
                pixels[: 10 * drawer] = True
                Image.fromarray(pixels).save(folder / f"{number:04d}_{drawer + 1:02d}.png")
    return root


def test_parts_labels_and_order(tmp_path, caplog):
    data = load("omniglot", root=draw_tree(tmp_path), size=21, seed=0)
    assert "14 characters, the data set has 964" in caplog.messages[0] and len(caplog.messages) == 2
    assert data.name == "omniglot"
    assert data.train.images.shape == (12 * 3, 1, 21, 21) and data.val.num_classes == 2
    assert data.test.images.shape == (4 * 3, 1, 21, 21)
    assert data.test.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert data.test.classes[::3] == ("Alphabet_A/character00", "Alphabet_B/character03")
    assert list(data.train.classes) == sorted(data.train.classes)
    for part in (data.train, data.val, data.test):
        for image, label, drawer in zip(part.images, part.labels, [0, 1, 2] * part.num_classes, strict=True):
            number = int(part.classes[label][-2:])
            expected = torch.full((21, 21), 255, dtype=torch.uint8)  # 105 = 5 x 21: column k is all ink
            expected[2 * drawer :, number] = 0
            assert torch.equal(image[0], expected)


def test_in_domain_characters_are_held_out_of_training_alone(tmp_path):
    draw_tree(tmp_path, background=20)
    for seed in range(3):
        plain, data = (omniglot(tmp_path, seed=seed, size=8, in_domain=share) for share in (0, 0.2))
        assert (data.val.digest(), data.test.digest()) == (plain.val.digest(), plain.test.digest())
        held = data.tests["in-domain"]
        assert held.num_classes == 3 and len(held) == 9  # round(0.2 x 17)
        assert not set(held.classes) & set(data.train.classes)
        assert sorted(held.classes + data.train.classes) == sorted(plain.train.classes)
        for image, label in zip(held.images, held.labels, strict=True):
            rows = plain.train.labels == plain.train.classes.index(held.classes[label])
            assert (plain.train.images[rows] == image).flatten(1).all(1).any()
    assert list(plain.tests) == [None]
    with pytest.raises(ValueError, match="in_domain must be a number between 0 and 0.5, not 0.6"):
        omniglot(tmp_path, in_domain=0.6)


def test_without_a_tree_torchvision_downloads_it(tmp_path, monkeypatch):
    asked = []

    def download(root, background, download):
        asked.append((background, download))
        if not (tmp_path / "omniglot-py").exists():
            draw_tree(tmp_path)

    monkeypatch.setattr("torchvision.datasets.Omniglot", download)
    assert omniglot(tmp_path, size=8).test.num_classes == 4
    assert asked == [(True, True)]


@pytest.mark.parametrize("background", [0, 3])
def test_too_few_characters_are_refused(tmp_path, background):
    draw_tree(tmp_path, background=background)
    (tmp_path / "omniglot-py/images_background").mkdir(exist_ok=True)
    with pytest.raises(ValueError, match=f"holds {background} characters, the data set has 964: too few"):
        omniglot(tmp_path, size=8)


def test_the_real_tree(omniglot_root):
    data = omniglot(omniglot_root)
    assert (data.train.num_classes, data.val.num_classes, data.test.num_classes) == (819, 145, 659)
    assert len(data.train) + len(data.val) == 19280 and len(data.test) == 13180
    for part in (data.train, data.val, data.test):
        assert part.images.shape[1:] == (1, 32, 32)
        assert part.labels.bincount().unique().tolist() == [20]
    # ink is black and thin: most of the paper stays white
    assert data.test.images.median() == 255 and data.test.images.min() == 0


@pytest.mark.parametrize(("high", "wide", "size"), [(7, 7, 3), (9, 6, 4), (8, 8, 4), (5, 5, 5), (3, 4, 7)])
def test_area_resize_is_the_mean_over_the_exact_area(high, wide, size):
    pixels = np.random.default_rng(high).integers(0, 256, (high, wide)).astype(np.uint8)
    # each pixel as size x size small ones, of which every output pixel is a whole number
    sums = pixels.astype(int).repeat(size, 0).repeat(size, 1).reshape(size, high, size, wide).sum((1, 3))
    expected = (2 * sums + high * wide) // (2 * high * wide)
    assert np.array_equal(area_resize(Image.fromarray(pixels), size), expected)
