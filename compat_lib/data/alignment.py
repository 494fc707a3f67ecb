"""Faces turned, scaled and cut so that five points of each lie where face recognition expects them."""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from .decoding import Size, open_image
from .encoded import EncodedImages, Names
from .lists import listed_images, refuse_line

# Eyes, nose and corners of the mouth, left to right, in an image of 112 x 112 pixels; pixel centres are whole
# numbers. Published with ArcFace (Deng et al., CVPR 2019) and used by all sets that are cut to 112 x 112.
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
TEMPLATE_SIDE = 112


def similarity(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the rotation, scaling and shift that bring points nearest to targets in the least squares.

    Source: Umeyama, "Least-squares estimation of transformation parameters between two point patterns" (PAMI
    1991), which in the plane and without mirroring is one division of complex numbers. Points and targets
    are float [n, 2], x and y; the result is float64 [2, 3], matrix and shift.

    >>> similarity(np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([[1.0, 1.0], [1.0, 3.0]])).round(6).tolist()
    [[0.0, -2.0, 1.0], [2.0, 0.0, 1.0]]
    """
    z, w = (np.asarray(p, np.float64) @ np.array([1, 1j]) for p in (points, targets))
    centred = z - z.mean()
    spread = np.vdot(centred, centred).real
    if not spread > 0:
        raise ValueError("all points fall together, so that they show neither size nor direction")
    turn = np.vdot(centred, w - w.mean()) / spread
    shift = w.mean() - turn * z.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def align(image: Image.Image, points: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Return the face at (height, width) with its five points as near to the template's as they come.

    Bilinear between four pixels, as published; what lies outside the image is black. A size other than
    112 x 112 scales the template, evenly and centred. `points`: float [5, 2], x and y in pixels of the image,
    in the template's order; whole numbers are pixel centres.
    """
    height, width = size
    scale = min(height, width) / TEMPLATE_SIDE
    # Half a pixel each way: Pillow counts from the corner of the first pixel, the points from its centre.
    middle = np.array([width, height]) / 2 - scale * TEMPLATE_SIDE / 2
    corners = (TEMPLATE + 0.5) * scale + middle
    there = np.vstack([similarity(np.asarray(points) + 0.5, corners), [0, 0, 1]])
    back = np.linalg.inv(there)[:2].flatten()
    return image.transform((width, height), Image.Transform.AFFINE, tuple(back), Image.Resampling.BILINEAR)


def _aligned(files: Names, points: np.ndarray, size: tuple[int, int], row: int) -> Image.Image:
    return align(open_image(files[row], "RGB"), points[row], size)


def aligned_images(
    folder: Path, names: Sequence[str], points: np.ndarray, size: Size, source: Path
) -> EncodedImages:
    """Return the images of a list, N files in a folder, aligned by points [N, 5, 2] when they are read.

    `source` is the list, whose line k has the points of image k, for errors.
    """
    there = listed_images(folder, names, size=size)
    good = np.isfinite(points).all((1, 2)) & (np.ptp(points, axis=1) > 0).any(1)
    refuse_line(source, ~good, lambda row: f"has five points of {names[row]} that are not finite or one")
    points = np.ascontiguousarray(points)
    digest = hashlib.sha256(there.digest().encode() + points.tobytes()).hexdigest()
    reader = functools.partial(_aligned, there.files, points, there.size)  # which a worker gets pickled
    return EncodedImages(np.arange(len(points)), reader, size=size, digest=digest)
