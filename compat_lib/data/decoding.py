"""An image file as pixels: one way for every data set here and for a service that embeds files."""

import contextlib
import io
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

Size = int | tuple[int, int]  # pixels: a side of squares, or (height, width)
Resize = Callable[[Image.Image, tuple[int, int]], np.ndarray]  # image, (height, width) -> uint8 [H, W(, 3)]
_NAMED = 100  # unreadable files that are named in one error


class UnreadableImages(ValueError):
    """Image files that cannot be read: path and reason of each."""

    def __init__(self, files: list[tuple[str, str]]) -> None:
        self.files = files
        named = [f"{printable(path)} ({reason})" for path, reason in files[:_NAMED]]
        if len(files) > _NAMED:
            named.append(f"and {len(files) - _NAMED} more")
        count = "the image" if len(files) == 1 else f"{len(files)} images:"
        super().__init__(f"cannot read {count} {', '.join(named)}; replace or remove what is named")

    def __reduce__(self) -> tuple:
        return type(self), (self.files,)  # from a worker process


def height_width(size: Size) -> tuple[int, int]:
    """Return the (height, width) of images in pixels; one number means squares."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def read_image(path: str | os.PathLike, size: Size) -> np.ndarray:
    """Return one image file as every data set here has it, uint8 [H, W, 3]: upright, RGB over white.

    See :func:`open_image` for unusual files and what is raised, :func:`smooth_resize` for the size.
    """
    return smooth_resize(open_image(path, "RGB"), size)


def open_image(path: object, mode: str, content: bytes | None = None) -> Image.Image:
    """Return a decoded image, upright by its EXIF, in the given mode ("RGB" or "L").

    `content` is the encoded image where it is no file of its own; `path` then only names it in an error.

    Transparency is laid over white. Greys of 16 (or 12) bits are scaled so that their white is 255. 32-bit
    and floating-point pixels must be 0..255, since nothing in such a file says which value is white. Of a
    moving picture the first frame counts. EXIF that cannot be read or written is passed over. An image that
    is damaged or absent is an `UnreadableImages`.
    """
    try:
        if content is None:
            content = Path(path).read_bytes()  # one read: small files dominate
        with Image.open(io.BytesIO(content)) as image:
            tags = getattr(image, "tag_v2", {})
            # Pillow's 16-bit PGM: mode I, 0..65535
            wide = image.mode.startswith("I;16") or image.format == "PPM"
            white = 2 ** tags.get(258, (16,))[0] - 1 if wide else 255  # a TIFF may have 12 bits
            negative = wide and tags.get(262) == 0  # white is 0, which Pillow leaves so
            image.load()
            with contextlib.suppress(Exception):  # EXIF that is broken, after the pixels are turned
                ImageOps.exif_transpose(image, in_place=True)
            return _eight_bits(image, white, negative).convert(mode)
    except Image.UnidentifiedImageError:
        reason = "an image format that Pillow does not know" if content else "the file is empty"
    except PermissionError:
        reason = "permission denied"
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    raise UnreadableImages([(os.fspath(path) if isinstance(path, os.PathLike) else str(path), reason)])


def _eight_bits(image: Image.Image, white: int, negative: bool) -> Image.Image:
    if image.mode.startswith("I") and white > 255:
        wide = np.asarray(image, dtype=np.uint32)
        wide = white - wide if negative else np.where(wide == image.info.get("transparency"), white, wide)
        return Image.fromarray(((wide * 255 + white // 2) // white).astype(np.uint8))
    if image.mode in ("I", "F"):
        low, high = image.getextrema()
        if not (low >= 0 and (high == 0 or 1 < high <= 255)):
            raise ValueError(
                f"32-bit pixels of {low:g}..{high:g} do not say what is white: scale them to 0..255, or save "
                "8 or 16 bits"
            )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image


def smooth_resize(image: Image.Image, size: Size) -> np.ndarray:
    """Return the image at (height, width), bilinear; each output pixel averages over its whole footprint."""
    height, width = height_width(size)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image)


def printable(path: str | bytes | os.PathLike) -> str:
    """A path as text in Unicode's form NFC; what is not UTF-8 in it is replaced."""
    return unicodedata.normalize("NFC", os.fsencode(path).decode("utf-8", "replace"))
