"""How much faster than scikit-learn are TAR at FAR and the ROC curve over all pairs, and in how much memory?

The default size is that of Omniglot's evaluation characters, 659 x 20 images, 87 million pairs, with
synthetic features. scikit-learn gets the scores ready made and is not charged for them; ours includes
computing them. Each side runs in a process of its own. Takes about two minutes; scikit-learn needs 6 GB.

    python benchmarks/verification_speed.py
    python benchmarks/verification_speed.py --classes 100
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import torch

from compat_lib.evaluation.inputs import unit_rows
from compat_lib.evaluation.pairs import PairScores
from compat_lib.evaluation.tar import FARS, verification


def make_features(classes: int, images: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return noisy copies of one random centre for each class: float32 [N, width], labels int64 [N]."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(classes).repeat_interleave(images)
    centres = torch.randn(classes, width, generator=generator)
    return centres[labels] + torch.randn(len(labels), width, generator=generator), labels


def peak_memory() -> float:
    """Return the largest resident size of this process so far, in MB."""
    scale = 1 if sys.platform == "darwin" else 1024  # kilobytes on Linux, bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6


def measure_ours(classes: int, images: int, width: int) -> dict:
    """Time one call of `verification`, which holds the curve as well."""
    features, labels = make_features(classes, images, width)
    before = peak_memory()
    wall, cpu = time.perf_counter(), time.process_time()
    result = verification(features, labels, fars=FARS)
    return {
        "seconds": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "before": before,
        "peak": peak_memory(),
        "result": result,
    }


def measure_sklearn(classes: int, images: int, width: int, roc) -> dict:
    """Time scikit-learn's `roc_curve` on the same scores and look up our operating points on it."""
    from sklearn.metrics import roc_curve

    features, labels = make_features(classes, images, width)
    pairs = PairScores(unit_rows(features, "query"), labels)
    n = classes * images
    scores = np.empty(n * (n - 1) // 2, np.float32)
    genuine = np.zeros(len(scores), bool)
    end = 0
    for tile in pairs.tiles():
        own = torch.zeros(tile.scores.numel(), dtype=torch.bool)
        own[tile.genuine] = True
        counted = tile.scores.reshape(-1) >= -1
        start, end = end, end + int(counted.sum())
        scores[start:end], genuine[start:end] = tile.scores.reshape(-1)[counted], own[counted]
    assert end == len(scores)
    wall, cpu = time.perf_counter(), time.process_time()
    far, tar, thresholds = roc_curve(genuine, scores, drop_intermediate=False)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    place = np.searchsorted(-thresholds, -roc.thresholds, "right") - 1  # the last point that is as strict
    return {
        "seconds": wall,
        "cpu": cpu,
        "peak": peak_memory(),
        "tar": [float(tar[np.searchsorted(far, f, "right") - 1]) for f in FARS],
        "curve": float(max(abs(far[place] - roc.far).max(), abs(tar[place] - roc.tar).max())),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=659)
    parser.add_argument("--images", type=int, default=20, help="images of each class")
    parser.add_argument("--width", type=int, default=64, help="columns of the features")
    size = vars(parser.parse_args())
    spawn = get_context("spawn")  # a forked child would inherit this process's peak
    with ProcessPoolExecutor(1, mp_context=spawn) as child:
        ours = child.submit(measure_ours, **size).result()
    with ProcessPoolExecutor(1, mp_context=spawn) as child:
        theirs = child.submit(measure_sklearn, roc=ours["result"].roc, **size).result()
    result = ours["result"]
    print(f"{result.positives + result.negatives} pairs, torch {torch.__version__}, one run")
    print(f"ours          {ours['seconds']:8.2f} s ({ours['cpu']:.2f} s of CPU)")
    print(f"scikit-learn  {theirs['seconds']:8.2f} s ({theirs['cpu']:.2f} s of CPU)")
    print(f"ratio         {theirs['seconds'] / ours['seconds']:8.1f}")
    print(
        f"peak memory   {ours['peak']:8.0f} MB of the process, {ours['before']:.0f} MB of it before the call"
    )
    print(f"scikit-learn  {theirs['peak']:8.0f} MB")
    difference = np.nanmax(np.abs(np.subtract(result.tar, theirs["tar"]))[list(result.measurable)])
    print(f"largest difference: {difference:.1e} in TAR at FAR, {theirs['curve']:.1e} on the curve")


if __name__ == "__main__":
    main()
