"""How long does each view of companion.explore take when a control is moved, with 2,000 points?

Synthetic features of 2,000 test images (200 identities, width 64, 32 x 32 pixels). Each view is drawn once
with its first choices, still picture and all, which also computes what is kept, and then for each of several
moves of its controls, as JupyterLab draws it; the slowest move counts, as its share of half a second. Time is
that of the kernel: a browser adds its own. On a machine that others use as well, look at the processor's
time. A t-SNE is computed once for each run, when it is first asked for; that has no limit.

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

from companion import explore

LIMIT = 0.5  # seconds


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


def moves(upgrade: explore.Upgrade, tsne: bool) -> dict[str, list[Callable[[], explore.View]]]:
    """Every view with its first choices, then with moved controls."""
    everyone = len(upgrade.identities)

    def maps(projection: str) -> list[Callable[[], explore.View]]:
        shown = zip((12, 20, min(60, everyone)), ("model", "identity", "first answer"), strict=True)
        given = [{"identities": n, "colour": colour, "projection": projection} for n, colour in shown]
        return [lambda one=one: explore.map_view(upgrade, **one) for one in given]

    found = {
        "map, PCA": maps("PCA"),
        "neighbours": [
            lambda query=query, share=share: explore.neighbour_view(upgrade, query, share)
            for query, share in ((0, 0.0), (7, 0.35), (99, 0.7), (99, 1.0))
        ],
        "who got worse": [
            lambda who=who, n=n: explore.change_view(upgrade, who, n)
            for who, n in (("lose", 3), ("lose", 5), ("gain", 3), ("gain", 5))
        ],
    }
    return found | ({"map, t-SNE": maps("t-SNE")} if tsne else {})


def seconds(draw: Callable[[], explore.View], still: bool) -> tuple[float, float, int]:
    """Wall time and processor time of one drawing, and how many bytes it sends."""
    begun, worked = time.perf_counter(), time.process_time()
    size = len(draw().html(still))
    return time.perf_counter() - begun, time.process_time() - worked, size


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--identities", type=int, default=200)
    parser.add_argument("--no-tsne", action="store_true", help="leave the t-SNE out: it takes seconds")
    options = parser.parse_args()
    upgrade = make_upgrade(options.images, options.identities).prepared()
    found = {}
    titles = ("first", "slowest move", "of the limit", "of processor", "size")
    print(f"{'view':14s}" + "".join(f"{title:>14s}" for title in titles))
    for name, (first, *others) in moves(upgrade, not options.no_tsne).items():
        begun = seconds(first, still=True)[0]
        walls, works, sizes = zip(*(seconds(draw, still=False) for draw in others), strict=True)
        found[name] = {"first": begun, "move": max(walls), "processor": max(works), "bytes": max(sizes)}
        shown = f"{begun:12.2f} s{max(walls):12.2f} s{max(walls) / LIMIT:14.2f}{max(works) / LIMIT:14.2f}"
        print(f"{name:14s}{shown}{max(sizes) / 1000:11.0f} kB")
    late = [name for name, times in found.items() if times["move"] > LIMIT]
    print(f"limit {LIMIT:g} s a move: " + (f"missed by {', '.join(late)}" if late else "kept by every view"))
    print(json.dumps(vars(options) | found))
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
