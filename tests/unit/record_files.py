"""Writers of small face sets in the formats in which the true ones are distributed."""

import io
import struct

import numpy as np
from PIL import Image

MAGIC = 0xCED7230A


def jpeg(colour, side=112):
    file = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(file, "JPEG", quality=95)
    return file.getvalue()


def image_record(label, image, number=0):
    """A record's bytes with one label in its header; a list of labels follows the header instead."""
    if isinstance(label, list):
        header = struct.pack("<IfQQ", len(label), 0, number, 0)
        return header + np.array(label, "<f4").tobytes() + image
    return struct.pack("<IfQQ", 0, label, number, 0) + image


def framed(data):
    """The record as it stands in the file: split where the data hold the magic number at a word's begin."""
    magic = struct.pack("<I", MAGIC)
    parts, start = [], 0
    for place in range(0, len(data) - 3, 4):
        if data[place : place + 4] == magic and place >= start:
            parts.append(data[start:place])
            start = place + 4
    parts.append(data[start:])
    kinds = [0] if len(parts) == 1 else [1, *[2] * (len(parts) - 2), 3]
    file = b""
    for kind, part in zip(kinds, parts, strict=True):
        file += magic + struct.pack("<I", kind << 29 | len(part)) + part + b"\0" * (-len(part) % 4)
    return file


def write_records(folder, payloads):
    """Write train.rec and train.idx with the payloads as records 0, 1, ...; return the path of train.rec."""
    folder.mkdir(parents=True, exist_ok=True)
    lines, offset = [], 0
    with open(folder / "train.rec", "wb") as file:
        for number, payload in enumerate(payloads):
            lines.append(f"{number}\t{offset}\n")
            offset += file.write(framed(payload))
    (folder / "train.idx").write_text("".join(lines))
    return folder / "train.rec"


def write_face_set(folder, sizes, side=112):
    """InsightFace's own layout: record 0 tells where the images end, records of identities follow them.

    Identity k has sizes[k] images whose red is 20 k + 5 and whose green counts them by tens.
    """
    images, ranges = [], []
    for label, size in enumerate(sizes):
        ranges.append([float(len(images) + 1), float(len(images) + 1 + size)])
        for number in range(size):
            data = jpeg((20 * label + 5, 10 * number, 99), side)
            images.append(image_record(float(label), data, len(images) + 1))
    first = image_record([float(len(images) + 1), float(len(images) + 1 + len(sizes))], b"")
    return write_records(folder, [first, *images, *(image_record(span, b"") for span in ranges)])
