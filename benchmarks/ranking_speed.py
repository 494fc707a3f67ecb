"""How much faster than pytorch-metric-learning is mean average precision over the full ranking?

10,000 queries rank a gallery of 10,000 other images, with synthetic features of width 128, all of unit length
and without ties. pytorch-metric-learning's AccuracyCalculator ranks the whole gallery too: its k is None,
which it takes for the number of gallery items ("max_bin_count" would stop at the largest class). It runs with
its default search, which is FAISS by L2 distance, and with its own search by cosine; on rows of unit length
all three rank alike. Each side runs in a process of its own and is timed from features to the number.

    python benchmarks/ranking_speed.py
    python benchmarks/ranking_speed.py --queries 2000 --gallery 2000
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from compat_lib.evaluation.ranking import retrieval

SEARCHES = ("faiss", "cosine")


def make_features(queries: int, gallery: int, width: int, images: int) -> tuple[torch.Tensor, ...]:
    """Return query features and labels, gallery features and labels: noisy copies of one centre a class."""
    generator = torch.Generator().manual_seed(0)
    classes = max(2, gallery // images)
    centres = torch.randn(classes, width, generator=generator)
    sides = []
    for number in (queries, gallery):
        labels = torch.arange(number) % classes
        features = centres[labels] + 1.5 * torch.randn(number, width, generator=generator)
        sides += [torch.nn.functional.normalize(features), labels]
    return tuple(sides)


def peak_memory() -> float:
    """Return the largest resident size of this process so far, in MB."""
    scale = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6


def measure_ours(**size: int) -> dict[str, float]:
    """Measure one call of `retrieval`."""
    sides = make_features(**size)
    before = peak_memory()
    wall, cpu = time.perf_counter(), time.process_time()
    value = retrieval(*sides).map
    return {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mb": peak_memory(),
        "before_mb": before,
        "map": value,
    }


def measure_theirs(search: str, **size: int) -> dict[str, float]:
    """Measure one call of pytorch-metric-learning's calculator with a search by "faiss" or by "cosine"."""
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    sides = make_features(**size)
    before = peak_memory()
    calculator = AccuracyCalculator(
        include=("mean_average_precision",),
        k=None,
        device=torch.device("cpu"),
        knn_func=CustomKNN(CosineSimilarity()) if search == "cosine" else None,
    )
    wall, cpu = time.perf_counter(), time.process_time()
    value = calculator.get_accuracy(*sides)["mean_average_precision"]
    return {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mb": peak_memory(),
        "before_mb": before,
        "map": value,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--gallery", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=128, help="columns of the features")
    parser.add_argument("--images", type=int, default=10, help="gallery images of each class")
    size = vars(parser.parse_args())
    results = {}
    for side in ("ours", *SEARCHES):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as child:
            one = (
                child.submit(measure_ours, **size)
                if side == "ours"
                else child.submit(measure_theirs, side, **size)
            )
            results[side] = one.result()
    print(f"{size}, torch {torch.__version__}, {torch.get_num_threads()} threads, one run")
    for side, found in results.items():
        name = "ours" if side == "ours" else f"pytorch-metric-learning ({side})"
        print(
            f"{name:32s} {found['seconds']:8.2f} s ({found['cpu_seconds']:.2f} s of CPU), "
            f"mAP {found['map']:.8f}, "
            f"peak memory {found['peak_mb']:.0f} MB ({found['before_mb']:.0f} MB before the call)"
        )
    ours, theirs = results["ours"], [results[side] for side in SEARCHES]
    for unit, key in (("wall time", "seconds"), ("CPU time", "cpu_seconds")):
        ratio = min(one[key] for one in theirs) / ours[key]
        print(f"ratio of {unit} to the faster of the two: {ratio:.1f}")
    print(f"largest difference in mAP: {max(abs(one['map'] - ours['map']) for one in theirs):.1e}")
    print(json.dumps(size | results))


if __name__ == "__main__":
    main()
