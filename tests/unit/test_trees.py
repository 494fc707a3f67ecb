from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from compat_lib.data.trees import area_resize, list_images, open_image, smooth_resize, subfolders


def slow_area_resize(pixels, size):
    """Mean over the exact area of each output pixel, in fractions."""
    high, wide = pixels.shape

    def share(i, j, source):  # overlap of output pixel i and input pixel j, in input pixels
        low, top = Fraction(i * source, size), Fraction((i + 1) * source, size)
        return max(Fraction(0), min(top, Fraction(j + 1)) - max(low, Fraction(j)))

    result = np.zeros((size, size), dtype=np.uint8)
    for i in range(size):
        for k in range(size):
            total = sum(
                share(i, j, high) * share(k, m, wide) * int(pixels[j, m])
                for j in range(high)
                for m in range(wide)
            )
            mean = total * size * size / (high * wide)
            result[i, k] = int(mean + Fraction(1, 2))
    return result


@pytest.mark.parametrize(("high", "wide", "size"), [(7, 7, 3), (9, 6, 4), (8, 8, 4), (5, 5, 5), (3, 4, 7)])
def test_area_resize_is_the_mean_over_the_exact_area(high, wide, size):
    pixels = np.random.default_rng(high).integers(0, 256, (high, wide)).astype(np.uint8)
    assert np.array_equal(area_resize(Image.fromarray(pixels), size), slow_area_resize(pixels, size))


def test_area_resize_by_a_whole_factor_is_the_block_mean():
    pixels = np.random.default_rng(0).integers(0, 2, (64, 64)).astype(np.uint8) * 252
    expected = pixels.reshape(32, 2, 32, 2).mean(axis=(1, 3)).astype(np.uint8)  # multiples of 63
    assert np.array_equal(area_resize(Image.fromarray(pixels), 32), expected)


def test_area_resize_keeps_the_amount_of_ink():
    pixels = np.random.default_rng(0).integers(0, 2, (105, 105)).astype(np.uint8) * 255
    assert abs(area_resize(Image.fromarray(pixels), 32).mean() - pixels.mean()) < 0.1


def test_smooth_resize_leaves_the_right_size_alone_and_averages_when_shrinking():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    assert np.array_equal(smooth_resize(Image.fromarray(pixels), 32), pixels)
    lines = np.zeros((64, 64, 3), dtype=np.uint8)
    lines[:, ::2] = 200  # every second column: a resize that skips pixels would give 0 or 200
    inner = smooth_resize(Image.fromarray(lines), 16)[:, 2:-2]
    assert inner.min() > 90 and inner.max() < 110


def test_folders_and_images_are_sorted_and_hidden_ones_left_out(tmp_path):
    for name in ("b", "a", ".git", "c"):
        (tmp_path / name).mkdir()
    for name in ("2.PNG", "10.jpg", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in subfolders(tmp_path)] == ["a", "b", "c"]
    assert [entry.name for entry in list_images(tmp_path)] == ["10.jpg", "2.PNG"]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "LA"])
def test_every_kind_of_image_becomes_what_is_asked_for(tmp_path, mode):
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    Image.new(mode, (4, 4)).save(path)
    assert open_image(path, "RGB").mode == "RGB" and open_image(path, "L").mode == "L"


def test_a_photograph_on_its_side_is_turned_upright(tmp_path):
    image = Image.new("RGB", (8, 4))
    exif = image.getexif()
    exif[274] = 6  # the tag of orientation: turned by a quarter
    image.save(tmp_path / "side.jpg", exif=exif)
    assert open_image(tmp_path / "side.jpg", "RGB").size == (4, 8)
