"""Pictures of samples, because a number about outliers convinces nobody who has not seen one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from .style import as_array


def image_strip(
    ax: Axes,
    images: Any,
    captions: Sequence[str] | None = None,
    colours: Sequence[str] | str | None = None,
    *,
    columns: int = 10,
    title: str | None = None,
) -> Axes:
    """Images in a grid on one axis, each with a caption below and a coloured frame.

    Args:
        ax: axis to draw on.
        images: uint8 [n, C, H, W], C = 1 or 3.
        captions: n texts; none when None. Short ones: a column is about 10 characters wide at 10 columns.
        colours: n frame colours or one for all; no frame when None.
        columns: images a row.
        title: over the grid.

    Raises:
        ValueError: "images must be uint8 [n, 1 or 3, H, W]", or captions or colours of another length.
    """
    images = as_array(images)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.dtype != np.uint8 or not len(images):
        raise ValueError(
            f"images are {images.dtype} {list(images.shape)}: they must be uint8 [n, 1 or 3, H, W], n >= 1"
        )
    count, _, height, width = images.shape
    colours = [colours] * count if isinstance(colours, str) or colours is None else list(colours)
    captions = [""] * count if captions is None else [str(caption) for caption in captions]
    for name, given in (("captions", captions), ("colours", colours)):
        if len(given) != count:
            raise ValueError(f"{len(given)} {name} for {count} images: give one for each")
    columns = min(columns, count)
    gap = 0.12 * width
    lines = max(caption.count("\n") + 1 if caption else 0 for caption in captions)
    step_x, step_y = width + gap, height + gap + lines * 0.26 * height
    for i, image in enumerate(images):
        left, top = (i % columns) * step_x, (i // columns) * step_y
        picture = image.transpose(1, 2, 0) if len(image) == 3 else image[0]
        extent = (left, left + width, top + height, top)
        ax.imshow(picture, extent=extent, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        if colours[i] is not None:
            ax.add_patch(
                Rectangle((left, top), width, height, fill=False, edgecolor=colours[i], linewidth=2.5)
            )
        ax.text(left + width / 2, top + height * 1.05, captions[i], ha="center", va="top", fontsize=9)
    rows = -(-count // columns)
    ax.set_xlim(-gap, columns * step_x)
    ax.set_ylim(rows * step_y, -gap)
    ax.set_aspect("equal")
    ax.axis("off")
    if title:
        ax.set_title(title, loc="left")
    return ax
