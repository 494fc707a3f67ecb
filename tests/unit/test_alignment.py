import numpy as np
import pytest
from PIL import Image, ImageDraw

from compat_lib.data.alignment import TEMPLATE, align, similarity


def moved(points, degrees, scale, shift):
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points @ (scale * turn).T + shift


@pytest.mark.parametrize("noise", [0, 3])
def test_points_get_the_least_squares_of_numpy(noise):
    draw = np.random.default_rng(1)
    points = moved(TEMPLATE, -8, 0.6, [4, 9]) + draw.normal(0, noise, (5, 2))
    # x' = a x - b y + c, y' = b x + a y + d, solved for a, b, c, d
    rows = [[[x, -y, 1, 0], [y, x, 0, 1]] for x, y in points]
    (a, b, c, d), *_ = np.linalg.lstsq(np.array(rows).reshape(10, 4), TEMPLATE.flatten(), rcond=None)
    found = similarity(points, TEMPLATE)
    assert np.allclose(found, [[a, -b, c], [b, a, d]])
    assert noise or np.allclose(points @ found[:, :2].T + found[:, 2], TEMPLATE)


@pytest.mark.parametrize(("size", "scale", "left", "top"), [((112, 112), 1, 0, 0), ((56, 56), 0.5, 0, 0),
                                                            ((128, 112), 1, 0, 8)])  # fmt: skip
def test_the_points_land_on_the_template(size, scale, left, top):
    points = moved(TEMPLATE, 12, 1.9, [40, 25])
    image = Image.new("L", (300, 300))
    for number, (x, y) in enumerate(points):
        ImageDraw.Draw(image).ellipse((x - 4, y - 4, x + 4, y + 4), fill=50 * (number + 1))
    face = np.asarray(align(image, points, size), dtype=float)
    assert face.shape == size
    for number, (x, y) in enumerate(TEMPLATE):
        near = np.abs(face - 50 * (number + 1)) < 5
        rows, columns = near.nonzero()
        keep = np.hypot(columns - x * scale - left, rows - y * scale - top) < 8
        centre = np.array([columns[keep].mean(), rows[keep].mean()])
        wanted = (np.array([x, y]) + 0.5) * scale - 0.5 + [left, top]
        assert np.abs(centre - wanted).max() < 0.6


def test_a_shift_by_whole_pixels_is_exact_and_outside_is_black():
    image = Image.fromarray(np.arange(112 * 112, dtype=np.uint16).reshape(112, 112).astype(np.uint8))
    face = np.asarray(align(image, TEMPLATE + [3, 0], (112, 112))).astype(int)
    assert np.abs(face[:, :108] - np.asarray(image)[:, 3:111]).max() <= 1
    assert not face[:, -2:].any()


def test_points_that_fall_together_are_refused():
    with pytest.raises(ValueError, match="fall together"):
        align(Image.new("RGB", (9, 9)), np.ones((5, 2)), (112, 112))
