"""How long does each view of companion.explore take when a control is moved, with 2,000 points?

Synthetic features of 2,000 test images (200 identities, width 64, 32 x 32 pixels) and of 2,000 training
images of 420 classes. Each view is drawn once with its first choices, which also computes what is kept, and
then for each of several moves of its controls; the slowest move counts. Time is that of the kernel: a browser
adds its own. On a machine that others use as well, look at the processor's time. A t-SNE is computed once for
each run, when it is first asked for; that has no limit.

    python benchmarks/explore_views.py
    python benchmarks/explore_views.py --images 1000 --no-tsne
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from companion import explore

LIMIT = 500  # milliseconds


def make_upgrade(images: int, identities: int, width: int = 64, size: int = 32) -> explore.Upgrade:
    """Noisy copies of one centre an identity: the new model less noisy, and near to the old one."""
    rng = np.random.default_rng(0)
    labels = np.sort(np.arange(images) % identities)
    centres = rng.normal(size=(identities, width))
    old = centres[labels] + 1.6 * rng.normal(size=(images, width))
    new = centres[labels] + 0.4 * rng.normal(size=(identities, width))[labels]
    new += 1.1 * rng.normal(size=(images, width))
    pictures = rng.integers(0, 256, (images, 3, size // 4, size // 4), np.uint8)
    return explore.Upgrade(old, new, labels, pictures.repeat(4, axis=2).repeat(4, axis=3), title="synthetic")


def make_sample(images: int, classes: int, width: int = 64) -> explore.TrainingSample:
    """The same for a training set, with a classifier near the centres."""
    rng = np.random.default_rng(1)
    labels = np.sort(np.arange(images) % classes)
    centres = rng.normal(size=(classes, width))
    old, new = (centres[labels] + noise * rng.normal(size=(images, width)) for noise in (1.4, 0.8))
    weight = centres + 0.5 * rng.normal(size=(classes, width))
    return explore.TrainingSample(old, new, labels, weight, title="synthetic")


def moves(
    upgrade: explore.Upgrade, sample: explore.TrainingSample
) -> dict[str, list[Callable[[], explore.View]]]:
    """Every view with its first choices, then with moved controls."""
    everyone, colours = len(upgrade.identities), ("model", "identity", "first answer")
    return {
        "map, PCA": [
            lambda n=n, c=c: explore.map_view(upgrade, n, colour=c)
            for n, c in zip((12, 20, everyone, everyone), (*colours, "model"), strict=True)
        ],
        "neighbours": [
            lambda query=query, share=share: explore.neighbour_view(upgrade, query, share)
            for query, share in ((0, 0.0), (7, 0.35), (99, 0.7), (99, 1.0))
        ],
        "angles": [
            lambda *values: explore.angle_view(sample, *values),
            lambda: explore.angle_view(sample, 0.6, 0.5, 64.0),
            lambda: explore.angle_view(sample, 0.1, 0.75, 4.0, target="old prototype"),
            lambda: explore.angle_view(sample, 0.45, 1.0, 16.0, target="old prototype"),
        ],
        "constraints": [
            lambda who=who: explore.constraint_view(upgrade, who)
            for who in (None, [0], [1], range(everyone // 5))
        ],
        "who got worse": [
            lambda who=who, n=n: explore.change_view(upgrade, who, n)
            for who, n in (("lose", 3), ("lose", 8), ("gain", 3), ("gain", 8))
        ],
    }


def milliseconds(draw: Callable[[], explore.View]) -> tuple[float, float, explore.View]:
    """Wall time and processor time of one drawing, and the view."""
    begun, worked = time.perf_counter(), time.process_time()
    view = draw()
    return 1000 * (time.perf_counter() - begun), 1000 * (time.process_time() - worked), view


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--identities", type=int, default=200)
    parser.add_argument("--classes", type=int, default=420, help="of the training set")
    parser.add_argument("--no-tsne", action="store_true", help="leave the t-SNE out: it takes seconds")
    options = parser.parse_args()
    upgrade = make_upgrade(options.images, options.identities)
    sample = make_sample(options.images, options.classes)
    views = moves(upgrade, sample)
    if not options.no_tsne:
        views["map, t-SNE"] = [
            lambda n=n, c=c: explore.map_view(upgrade, n, colour=c, projection="t-SNE")
            for n, c in ((12, "model"), (20, "identity"), (options.identities, "model"), (5, "first answer"))
        ]
    found = {}
    print(f"{options.images} images, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{'view':16s} {'first':>10s} {'slowest move':>14s} {'of processor':>14s} {'size':>10s}")
    for name, (first, *others) in views.items():
        begun = milliseconds(first)[0]
        walls, works, drawn = zip(*map(milliseconds, others), strict=True)
        size = max(len(view.html) for view in drawn)
        found[name] = {"first_ms": begun, "move_ms": max(walls), "processor_ms": max(works), "bytes": size}
        shown = f"{begun:7.0f} ms {max(walls):11.0f} ms {max(works):11.0f} ms {size / 1000:7.0f} kB"
        print(f"{name:16s} {shown}")
    late = [name for name, times in found.items() if times["move_ms"] > LIMIT]
    print(f"limit {LIMIT} ms a move: " + (f"missed by {', '.join(late)}" if late else "kept by every view"))
    print(json.dumps(vars(options) | found))
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
