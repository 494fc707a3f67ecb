"""Seconds and memory of indexing and splitting a RecordIO set of MS1Mv3's size.

5,200,000 records of 93,431 classes, synthetic: true headers, and 32 bytes in the place of each image, which
nothing here decodes. Each part runs in a process of its own, whose peak memory includes the libraries and
the pages of the mapped file: a plain read of both files (the yardstick, in seconds of a processor), the rows
and labels from index and headers, the same from the cache, and from there a split by classes and by images.
With a folder of the true set its counts are printed beside the published ones.

    python benchmarks/recordio_scale.py
    python benchmarks/recordio_scale.py --records 520000 --classes 9343
    python benchmarks/recordio_scale.py --path data/ms1m-retinaface-t1
"""

from __future__ import annotations

import argparse
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from million_scale import measure
from torch import Tensor

from compat_lib.data.faces import records
from compat_lib.data.recordio import HEADER, MAGIC
from compat_lib.data.scenarios import split

IMAGE = 32  # bytes
ROWS = 2**20  # written at a time


def published_counts(labels: Tensor) -> dict[str, tuple[int, int]]:
    """Return what MixBCT (arXiv 2308.06948) publishes of MS1Mv3's parts: name -> (here, published).

    Args:
        labels: int64 [N], of all images in the file's order.
    """
    open_class, open_data = (split(labels, f"open-{unit}", share=0.3) for unit in ("class", "data"))
    return {
        "images": (len(labels), 5_179_510),
        "identities": (len(labels.unique()), 93_431),
        "class30 identities": (len(open_class.old_classes), 28_029),
        "class70 identities": (len(open_class.new_classes), 65_402),
        "class30 images": (len(open_class.old_rows), 1_581_241),
        "class70 images": (len(open_class.new_rows), 3_598_269),
        "data30 images": (len(open_data.old_rows), 1_554_138),
    }


def write_set(folder: Path, count: int, classes: int) -> None:
    """Write train.rec and train.idx: a record that tells of the images, and the images class by class."""
    first = np.zeros(2 + (HEADER + 8) // 4, "<u4")
    first[:3] = MAGIC, HEADER + 8, 2
    first[8:] = np.array([count + 1, count + 1 + classes], "<f4").view("<u4")
    labels = np.sort(np.random.default_rng(0).integers(0, classes, count - classes))
    labels = np.sort(np.concatenate([labels, np.arange(classes)])).astype("<f4")  # each class has an image
    with open(folder / "train.rec", "wb") as file:
        first.tofile(file)
        for start in range(0, count, ROWS):
            part = labels[start : start + ROWS]
            block = np.zeros((len(part), 2 + (HEADER + IMAGE) // 4), "<u4")
            block[:, 0], block[:, 1], block[:, 3] = MAGIC, HEADER + IMAGE, part.view("<u4")
            block.tofile(file)
    step = 8 + HEADER + IMAGE
    offsets = np.concatenate([[0], first.nbytes + step * np.arange(count, dtype=np.int64)])
    table = pd.DataFrame({"number": np.arange(count + 1), "offset": offsets})
    table.to_csv(folder / "train.idx", sep="\t", header=False, index=False)


def measure_read(folder: Path, cache: Path) -> dict[str, float]:
    """Measure a plain read of both files."""
    return measure(
        lambda: [np.fromfile(folder / f"train.{kind}", np.uint8).sum() for kind in ("rec", "idx")]
    )[1]


def measure_rows(folder: Path, cache: Path) -> dict[str, float]:
    """Measure the rows and labels, made when the cache has none."""
    return measure(lambda: records(folder, cache, 112))[1]


def measure_split(folder: Path, cache: Path, unit: str) -> dict[str, float]:
    """Measure the rows from the cache and one split of them."""
    return measure(lambda: split(records(folder, cache, 112).labels, f"open-{unit}"))[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=5_200_000)
    parser.add_argument("--classes", type=int, default=93_431)
    parser.add_argument("--path", type=Path, help="the true set; without it a synthetic one is written")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder, cache = options.path or Path(made), Path(made)
        if options.path is None:
            start = time.perf_counter()
            write_set(folder, options.records, options.classes)
            print(f"written in {time.perf_counter() - start:.1f} s: {options.records} records")
        parts = {"read": measure_read, "rows": measure_rows, "cached": measure_rows}
        parts |= {f"{unit} split": partial(measure_split, unit=unit) for unit in ("class", "data")}
        costs = {}
        for name, part in parts.items():
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                costs[name] = pool.submit(part, folder, cache).result()
            cost, ratio = costs[name], costs[name]["cpu_seconds"] / costs["read"]["cpu_seconds"]
            print(
                f"{name:12}{cost['seconds']:8.2f} s{cost['cpu_seconds']:8.2f} s of a processor "
                f"{ratio:8.2f} x the read {cost['peak_mb']:8.0f} MB"
            )
        if options.path:
            for name, (here, published) in published_counts(records(folder, cache, 112).labels).items():
                print(f"{name:20}{here:>12,} {published:>12,} published")


if __name__ == "__main__":
    main()
