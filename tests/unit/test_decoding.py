"""One image file as pixels: unusual modes, transparency, orientation, and files that cannot be read."""

import struct

import numpy as np
import pytest
from PIL import Image

from compat_lib.data.decoding import UnreadableImages, open_image, read_image, smooth_resize

RAMP = np.tile(np.linspace(0, 1, 64), (64, 1))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "LA"])
def test_every_kind_of_image_becomes_what_is_asked_for(tmp_path, mode):
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    Image.new(mode, (4, 4)).save(path)
    assert open_image(path, "RGB").mode == "RGB" and open_image(path, "L").mode == "L"


def test_sixteen_bits_look_like_eight(tmp_path):
    sixteen = (RAMP * 65535).round().astype("u2")
    Image.fromarray(sixteen).save(tmp_path / "a.png")
    Image.fromarray(sixteen).save(tmp_path / "b.tif")
    Image.fromarray(sixteen.astype(">u2")).save(tmp_path / "c.tif")
    (tmp_path / "d.pgm").write_bytes(b"P5 64 64 65535\n" + sixteen.astype(">u2").tobytes())
    for path in tmp_path.iterdir():
        pixels = np.asarray(open_image(path, "L"))
        assert np.array_equal(pixels, (sixteen / 257).round()), path.name
        assert np.array_equal(read_image(path, 64)[..., 1], pixels)


def test_sixteen_bits_of_which_one_is_white(tmp_path):
    sixteen = (RAMP * 65535).round().astype("u2")
    Image.fromarray(sixteen).save(tmp_path / "a.tif", tiffinfo={262: 0})  # white is zero
    assert np.array_equal(open_image(tmp_path / "a.tif", "L"), ((65535 - sixteen) / 257).round())
    clear = int(sixteen[5, 7])
    Image.fromarray(sixteen).save(tmp_path / "b.png", transparency=clear)
    pixels = np.where(sixteen == clear, 255, (sixteen / 257).round())
    assert np.array_equal(open_image(tmp_path / "b.png", "L"), pixels)


def test_twelve_bits_look_like_eight(tmp_path):
    values = np.array([0, 4095, 2048, 100])  # two of them in three bytes
    packed = bytes.fromhex("".join(f"{value:03x}" for value in values))
    tags = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: len(packed)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = struct.pack("<2sHI", b"II", 42, 8 + len(packed))
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    (tmp_path / "image.tif").write_bytes(head + packed + directory)
    assert np.array_equal(open_image(tmp_path / "image.tif", "L"), [(values * 255 / 4095).round()])


@pytest.mark.parametrize("kind", ["i4", "f4"])
def test_thirty_two_bits_must_say_what_is_white(tmp_path, kind):
    path = tmp_path / "image.tif"
    Image.fromarray((RAMP * 255).astype(kind)).save(path)
    assert np.array_equal(open_image(path, "L"), (RAMP * 255).astype("u1"))
    for top in (1, 65535):
        Image.fromarray((RAMP * top).astype(kind)).save(path)
        with pytest.raises(UnreadableImages, match=rf"image\.tif \(32-bit pixels of 0\.\.{top} do not say"):
            open_image(path, "RGB")


@pytest.mark.parametrize("kind", ["png", "webp", "tif", "gif"])
def test_transparency_is_laid_over_white(tmp_path, kind):
    image = Image.new("RGBA", (8, 4), (0, 0, 0, 0))
    image.paste((200, 100, 40, 255), (0, 0, 4, 4))
    image.save(tmp_path / f"image.{kind}", **({"lossless": True} if kind == "webp" else {}))
    pixels = np.asarray(open_image(tmp_path / f"image.{kind}", "RGB"))
    assert pixels[0, 6].tolist() == [255] * 3 and pixels[0, 1].tolist() == [200, 100, 40]
    half = Image.new("LA", (2, 2), (0, 51))  # a fifth of black over white
    half.save(tmp_path / "half.png")
    assert np.asarray(open_image(tmp_path / "half.png", "L"))[0, 0] == 204
    plain = np.random.default_rng(0).integers(0, 256, (4, 4, 3)).astype("u1")
    Image.fromarray(np.dstack([plain, np.full((4, 4), 255, "u1")])).save(tmp_path / "opaque.png")
    assert np.array_equal(open_image(tmp_path / "opaque.png", "RGB"), plain)


def test_a_photograph_on_its_side_is_turned_upright(tmp_path):
    image = Image.new("RGB", (8, 4))
    exif = image.getexif()
    exif[274] = 6  # the tag of orientation: turned by a quarter
    image.save(tmp_path / "side.jpg", exif=exif)
    assert open_image(tmp_path / "side.jpg", "RGB").size == (4, 8)


SIDE = struct.pack("<HHII", 274, 3, 1, 6)  # the same tag as bytes
BROKEN = {
    "no directory": (b"garbage!", (4, 8)),
    "a directory that is not there": (struct.pack("<2sHI", b"II", 42, 9999), (4, 8)),
    "on its side, and a width that is text": (
        struct.pack("<2sHIH", b"II", 42, 8, 2) + SIDE + struct.pack("<HHI4sI", 256, 2, 4, b"wide", 0),
        (8, 4),
    ),
}


@pytest.mark.parametrize(("exif", "size"), BROKEN.values(), ids=BROKEN)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
def test_broken_exif_does_not_make_an_image_unreadable(tmp_path, exif, size):
    # As photographs of ImageNet and Places have it; a dpi keeps Pillow from looking into EXIF when it opens.
    Image.new("RGB", (4, 8)).save(tmp_path / "photo.jpg", exif=b"Exif\0\0" + exif, dpi=(72, 72))
    assert open_image(tmp_path / "photo.jpg", "RGB").size == size


def test_resizing_leaves_the_right_size_alone_and_averages_when_shrinking():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    assert np.array_equal(smooth_resize(Image.fromarray(pixels), 32), pixels)
    lines = np.zeros((64, 64, 3), dtype=np.uint8)
    lines[:, ::2] = 200  # every second column: a resize that skips pixels would give 0 or 200
    inner = smooth_resize(Image.fromarray(lines), 16)[:, 2:-2]
    assert inner.min() > 90 and inner.max() < 110


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "the file is empty"), (b"text", "does not know"), (None, "truncated")]
)
def test_what_cannot_be_read_is_named_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "broken.png"
    Image.fromarray((RAMP * 255).astype("u1")).save(path)
    path.write_bytes(path.read_bytes()[:80] if content is None else content)
    with pytest.raises(ValueError, match=rf"cannot read the image .*broken\.png \(.*{reason}"):
        open_image(path, "RGB")
