"""Seconds and memory of the IJB protocols at the size of IJB-C, beside the bare products of the same arrays.

469,375 images of 512 numbers in 23,124 templates, 15,658,489 pairs, galleries of 1,772 and 1,759 subjects
and 19,593 probes, all synthetic: 1:1 and 1:N for old/old, new/old and new/new, as in an experiment.
The bare product is that of the same pairs' templates, in the same pieces and float64. A share makes images,
templates, pairs and probes that much fewer.

    python benchmarks/ijb_scale.py --share 0.05
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from types import SimpleNamespace

import torch

from compat_lib.evaluation.protocols.measure import measure_protocol
from compat_lib.evaluation.protocols.templates import VALUES

IMAGES, TEMPLATES, PAIRS, SUBJECTS, PROBES = 469_375, 23_124, 15_658_489, (1_772, 1_759), 19_593
GENUINE = 0.00125  # share of IJB-C's pairs that show one subject


def make(share: float, width: int) -> tuple[SimpleNamespace, dict, torch.Tensor, torch.Tensor]:
    """Return images (labels and extras), lists, old and new features of the images."""
    generator = torch.Generator().manual_seed(0)
    count = {
        name: max(20, round(share * size))
        for name, size in zip("itp", (IMAGES, TEMPLATES, PAIRS), strict=True)
    }
    sizes = [max(5, round(share * size)) for size in SUBJECTS]
    subject = torch.arange(count["t"]) % sum(sizes)
    template = torch.cat(
        [torch.arange(count["t"]), torch.randint(count["t"], (count["i"] - count["t"],), generator=generator)]
    )
    extras = {
        "template": template,
        "media": torch.randint(8, (count["i"],), generator=generator),
        "detector": torch.rand(count["i"], generator=generator),
    }
    first, second = torch.randint(count["t"], (2, count["p"]), generator=generator)
    genuine = torch.rand(count["p"], generator=generator) < GENUINE
    step = sum(sizes) * torch.randint(1, 5, (count["p"],), generator=generator)
    second = torch.where(genuine, (first + step) % (count["t"] // sum(sizes) * sum(sizes)), second)
    pairs = torch.stack([first, second, (subject[first] == subject[second]).long()], 1)
    entries = torch.stack([torch.arange(sum(sizes)), torch.arange(sum(sizes))], 1)
    rest = torch.arange(sum(sizes), count["t"])[: max(20, round(share * PROBES))]
    lists = {
        "pairs": pairs,
        "gallery1": entries[: sizes[0]],
        "gallery2": entries[sizes[0] :],
        "probes": torch.stack([rest, subject[rest]], 1),
    }
    centres = torch.randn(sum(sizes), width, generator=generator)
    sides = []
    for noise in (4.0, 3.0):
        features = torch.empty(count["i"], width).normal_(0, noise, generator=generator)
        for start in range(0, len(features), 2**16):
            features[start : start + 2**16] += centres[subject[template[start : start + 2**16]]]
        sides.append(features)
    return SimpleNamespace(labels=subject[template], extras=extras), lists, *sides


def bare(templates: int, width: int, pairs: torch.Tensor) -> float:
    """Return the processor's seconds for the products of all pairs, three times."""
    rows = torch.randn(templates, width, dtype=torch.float64)
    start = time.process_time()
    for _ in range(3):
        for part in pairs.split(max(1, VALUES // width)):
            (rows[part[:, 0]] * rows[part[:, 1]]).sum(1)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="of IJB-C's sizes")
    parser.add_argument("--width", type=int, default=512)
    asked = parser.parse_args()
    images, lists, old, new = make(asked.share, asked.width)
    product = bare(int(images.extras["template"].max()) + 1, asked.width, lists["pairs"])
    wall, start = time.perf_counter(), time.process_time()
    found = measure_protocol("ijb", old, new, images, lists, cross=(new, old))
    seconds, wall = time.process_time() - start, time.perf_counter() - wall
    scale = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, kilobytes elsewhere
    result = {
        "images": len(old),
        "pairs": len(lists["pairs"]),
        "seconds": round(wall, 1),
        "processor seconds": round(seconds, 1),
        "bare products, processor seconds": round(product, 1),
        "ratio": round(seconds / product, 2),
        "peak GB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e9, 2),
        "peak / features": round(
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / (8 * old.numel()), 2
        ),
        "new/old": {name: found.value("new", "old", name) for name in ("tar@far=1e-4", "top1")},
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
