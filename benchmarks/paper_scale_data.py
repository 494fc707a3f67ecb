"""What the input pipeline and the old features of a set of MS1Mv3's size cost, beside a bare pass over them.

An epoch's order with the draws of its augmentation, plain and with several images of each identity, beside
a bare permutation of as many numbers; then class means, credible rows and the gathers of an epoch over
memory-mapped float16 features, beside a bare read of their file. Each part runs in a process of its own. Its
own memory is told without the pages of the mapped file, which the system takes back when it needs them.

    python benchmarks/paper_scale_data.py
    python benchmarks/paper_scale_data.py --full        # 5,200,000 rows: 5.3 GB of disk, minutes
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from compat_lib.data.batches import Augmentation, Batches
from compat_lib.files import map_rows, write_rows
from compat_lib.old_system import class_means, credible_rows, rows_of

BATCH, PER_IDENTITY = 1024, 4
BLOCK = 65_536  # rows
FULL = {"rows": 5_200_000, "classes": 93_431, "width": 512}
QUICK = {"rows": 200_000, "classes": 3_594, "width": 512}


def labels_of(rows: int, classes: int) -> torch.Tensor:
    """Labels in the order of a file, class after class of unequal sizes."""
    drawn = torch.randint(classes, (rows - classes,), generator=torch.Generator().manual_seed(0))
    return torch.cat([torch.arange(classes), drawn]).sort().values


def write_features(path: Path, rows: int, classes: int, width: int) -> None:
    """Write noisy copies of one centre a class, float16, block by block."""
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(classes, width, generator=generator)
    blocks = labels_of(rows, classes).split(BLOCK)
    noisy = (centres[one] + 1.5 * torch.randn(len(one), width, generator=generator) for one in blocks)
    write_rows(path, rows, (block.half() for block in noisy))


def permutation(path: Path, rows: int, classes: int, width: int) -> None:
    """The yardstick of an order."""
    torch.randperm(rows, generator=torch.Generator().manual_seed(0))


def order(path: Path, rows: int, classes: int, width: int, per_identity: int = 0) -> None:
    """Make the order of an epoch and everything that is drawn with it, until the first batch is there."""
    pixels = torch.zeros(1, 3, 4, 4, dtype=torch.uint8).expand(rows, -1, -1, -1)
    how = {"batch_size": BATCH, "seed": 0, "augmentation": Augmentation(1, True)}
    next(Batches(pixels, labels_of(rows, classes), per_identity=per_identity, **how).epoch(0))


def order_of_identities(path: Path, **size: int) -> None:
    """The same with several images of each identity in a batch."""
    order(path, **size, per_identity=PER_IDENTITY)


def read(path: Path, rows: int, classes: int, width: int) -> None:
    """The yardstick of what goes over features: read the file once."""
    with open(path, "rb") as file:
        while len(np.fromfile(file, np.float16, BLOCK * width)):
            pass


def means(path: Path, rows: int, classes: int, width: int) -> None:
    """The prototypes."""
    class_means(map_rows(path), labels_of(rows, classes), classes)


def credible(path: Path, rows: int, classes: int, width: int) -> None:
    """MixBCT's selection of old features."""
    credible_rows(map_rows(path), labels_of(rows, classes), classes, 0.9)


def gathers(path: Path, rows: int, classes: int, width: int) -> None:
    """The old features of all batches of an epoch."""
    features = map_rows(path)
    for batch in torch.randperm(rows, generator=torch.Generator().manual_seed(0)).split(BATCH):
        rows_of(features, batch)


def own_memory() -> float:
    """Megabytes that belong to this process alone; Linux tells them."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1000
    return float("nan")


def measure(part: Callable, path: Path, size: dict[str, int]) -> tuple[float, float]:
    """Seconds of a part, and how many megabytes it needed at most beyond what there was before."""
    before, peak, done = own_memory(), own_memory(), threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    part(path, **size)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    return seconds, peak - before


def in_own_process(part: Callable, path: Path, size: dict[str, int]) -> tuple[float, float]:
    """What `measure` gives in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, part, path, size).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="5.2 million rows instead of 200,000")
    parser.add_argument("--folder", type=Path, help="where the features are written; default: the system's")
    options = parser.parse_args()
    size = FULL if options.full else QUICK
    parts = (permutation, order, order_of_identities), (read, means, credible, gathers)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "features.npy"
        write_features(path, **size)
        print(f"{size['rows']:,} rows of {size['classes']:,} classes, width {size['width']}")
        for group in parts:
            costs = [in_own_process(part, path, size) for part in group]
            for part, (seconds, megabytes) in zip(group, costs, strict=True):
                print(
                    f"{part.__name__.replace('_', ' '):20}{seconds:9.2f} s{seconds / costs[0][0]:9.1f} x "
                    f"the {group[0].__name__}{megabytes:9.0f} MB of its own"
                )


if __name__ == "__main__":
    main()
