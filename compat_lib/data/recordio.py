"""RecordIO, the format of InsightFace's training sets, read without mxnet: train.rec and its index train.idx.

A record is the number 0xced7230a, a word of 3 bits for its kind and 29 for its length, and that many bytes,
padded to a multiple of four; all little-endian. A record that holds the number itself is stored in parts
(kinds 1, 2, 3), the number left out between them. The bytes of an image's record are a header (flag, label,
two ids: uint32, float32, 2 x uint64), `flag` further labels (float32) that then count in place of the
header's, and the encoded image.
"""

import mmap
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from .decoding import UnreadableImages, open_image, printable
from .lists import read_list, refuse_line

MAGIC = 0xCED7230A
LENGTH_BITS = 29
HEADER = 24  # bytes
_BLOCK = 2**14  # records whose headers are looked at together
_AGAIN = "unpack or copy the set anew"


def unpacked(data: bytes) -> tuple[np.ndarray, bytes]:
    """Return the labels (float32 [1 or more]) and the encoded image of a record's bytes.

    >>> header = (2).to_bytes(4, "little") + bytes(20)
    >>> labels, image = unpacked(header + np.array([7, 9], "<f4").tobytes() + b"jpeg")
    >>> labels.tolist(), image
    ([7.0, 9.0], b'jpeg')
    """
    count = int.from_bytes(data[:4], "little")
    start = HEADER + 4 * count
    return np.frombuffer(data[HEADER:start] if count else data[4:8], "<f4"), data[start:]


class RecordFile:
    """The images of a file of records by their byte offsets; a memory map, opened where it is used.

    Its index has the same name and the ending ".idx".
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no file of records {printable(path)}: unpack the set there, or name its folder"
            )
        self.path = path

    def __getstate__(self) -> dict:
        return {"path": self.path}  # a worker maps the file itself

    @cached_property
    def words(self) -> np.ndarray:
        """uint32, all complete words of the file."""
        whole = self.path.stat().st_size // 4
        return np.memmap(self.path, "<u4", "r", shape=whole) if whole else np.empty(0, "<u4")

    @cached_property
    def index(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers and byte offsets, int64 [N], of the records that the index names, in its order.

        Its lines are "number, tab, byte", each record once and inside the file.
        """
        path, size = self.path.with_suffix(".idx"), 4 * len(self.words)
        frame = read_list(path, {"record number": np.int64, "byte": np.int64})
        numbers, offsets = (frame[name].to_numpy() for name in frame)
        wrong = (offsets < 0) | (offsets > size - 8) | (offsets % 4 != 0)
        why = f"where no record of {size} bytes can begin: the index and the file of records do not belong "
        why += "together, or the latter is incomplete"
        refuse_line(path, wrong, lambda row: f"has record {numbers[row]} at byte {offsets[row]}, {why}")
        if (twice := frame["record number"].duplicated()).any():
            raise ValueError(f"{printable(path)} names record {numbers[twice.argmax()]} twice; {_AGAIN}")
        return numbers, offsets

    def __call__(self, offset: int) -> Image.Image:
        """Return the decoded image of the record at a byte offset, RGB; UnreadableImages names the record."""
        _, encoded = unpacked(self.payload(int(offset)))
        try:
            return open_image(self.path, "RGB", encoded)
        except UnreadableImages as error:
            raise UnreadableImages([(self._name(offset), error.files[0][1])]) from error

    def payload(self, offset: int) -> bytes:
        """Return the bytes of the record at an offset, its parts joined, or name the record in an error."""
        parts, word = [], offset // 4
        while True:
            if word + 2 > len(self.words) or self.words[word] != MAGIC:
                raise UnreadableImages([(self._name(offset), "it is damaged: no record begins there")])
            kind, length = divmod(int(self.words[word + 1]), 2**LENGTH_BITS)
            end = word + 2 + -(-length // 4)
            if end > len(self.words):
                raise UnreadableImages([(self._name(offset), "it is cut off at the end of the file")])
            parts.append(self.words[word + 2 : end].tobytes()[:length])
            if kind in (0, 3):
                return MAGIC.to_bytes(4, "little").join(parts)
            word = end

    def first_labels(self, offsets: np.ndarray) -> np.ndarray:
        """Return the first label, float32 [n], of each record at these offsets, int64 [n], block by block."""
        result = np.empty(len(offsets), np.float32)
        for start in range(0, len(offsets), _BLOCK):
            part = slice(start, start + _BLOCK)
            word = offsets[part] // 4
            length = (self.words[word + 1] % 2**LENGTH_BITS).astype(np.int64)
            end = word + 2 + -(-length // 4)
            last = len(self.words) - 1
            flag = self.words[np.minimum(word + 2, last)].astype(np.int64)
            wrong = (self.words[word] != MAGIC) | (end > len(self.words)) | (length < HEADER + 4 * flag)
            if wrong.any():
                name = self._name(offsets[part][wrong.argmax()])
                raise ValueError(f"{name} is damaged, or the file is cut off in it; {_AGAIN}")
            bits = self.words[np.minimum(word + np.where(flag > 0, 8, 3), last)]
            result[part] = bits.view("<f4")
            if hasattr(mmap, "MADV_DONTNEED"):  # pages of the file count as this process's memory until then
                self.words.base.madvise(mmap.MADV_DONTNEED)
        return result

    def _name(self, offset: int) -> str:
        """The record at an offset, for a sentence."""
        numbers, offsets = self.index
        number = numbers[offsets == offset]
        where = f"record {number[0]}" if len(number) else f"what lies at byte {offset}"
        return f"{printable(self.path)}, {where}"
