"""Seconds and memory of a search and of a full compatibility table against a gallery of a million.

10,000 queries search 1,000,000 gallery images of width 128, all synthetic: noisy copies of one random centre
for each identity, with less noise for the new model. The first part is the exact search for the best 100, the
second the table of `compare` without intervals: TAR at three false accept rates, mean average precision over
the full ranking, rank-1 and rank-5, for old/old, new/old and new/new. Each part runs in a process of its own,
whose peak memory includes the features and the libraries.

    python benchmarks/million_scale.py
    python benchmarks/million_scale.py --queries 1000 --gallery 100000 --faiss
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from compat_lib.evaluation.compatibility import Queries, compare
from compat_lib.evaluation.ranking import top_k

NOISE = {"old": 1.4, "new": 1.0}  # standard deviation of each coordinate; that of the centres is 1
ROWS = 2**16  # made at a time


def make_features(model: str, role: str, labels: torch.Tensor, width: int) -> torch.Tensor:
    """Return features of one model and role, float32 [N, width], without a second table of their size."""
    centres = torch.randn(int(labels.max()) + 1, width, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(
        ["old query", "new query", "old gallery", "new gallery"].index(f"{model} {role}") + 1
    )
    features = torch.empty(len(labels), width)
    for start in range(0, len(labels), ROWS):
        part = features[start : start + ROWS].normal_(0, NOISE[model], generator=generator)
        part += centres[labels[start : start + ROWS]]
    return features


def make_labels(queries: int, gallery: int, images: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return labels of the queries and of the gallery, which holds `images` of each identity."""
    identities = max(2, gallery // images)
    return torch.arange(queries) % identities, torch.arange(gallery) % identities


def measure(call: Callable[[], object]) -> tuple[object, dict[str, float]]:
    """Return what the call gives, its seconds and the largest resident size of the process in MB."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    seconds = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    scale = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, kilobytes elsewhere
    return result, seconds | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6}


def measure_search(queries: int, gallery: int, width: int, images: int, k: int) -> dict:
    """Measure the exact top-k search of the new model's features."""
    sides = make_labels(queries, gallery, images)
    query, items = (
        make_features("new", r, s, width) for r, s in zip(("query", "gallery"), sides, strict=True)
    )
    (_, indices), cost = measure(lambda: top_k(query, items, k))
    right = sides[1][torch.from_numpy(indices[:, 0])] == sides[0]
    return cost | {"rank1": float(right.float().mean())}


def measure_faiss(queries: int, gallery: int, width: int, images: int, k: int) -> dict:
    """Measure FAISS's exact search of the same features, which it gets with unit length."""
    import faiss

    sides = make_labels(queries, gallery, images)
    query, items = (
        make_features("new", r, s, width).numpy() for r, s in zip(("query", "gallery"), sides, strict=True)
    )
    for features in (query, items):
        faiss.normalize_L2(features)
    faiss.omp_set_num_threads(torch.get_num_threads())
    (_, indices), cost = measure(lambda: faiss.knn(query, items, k, metric=faiss.METRIC_INNER_PRODUCT))
    right = sides[1][torch.from_numpy(indices[:, 0])] == sides[0]
    return cost | {"rank1": float(right.float().mean())}


def measure_table(queries: int, gallery: int, width: int, images: int, draws: int = 0) -> dict:
    """Measure the table of the three pairs of models."""
    sides = make_labels(queries, gallery, images)
    old, new = (make_features(model, "gallery", sides[1], width) for model in NOISE)
    asked = Queries(*(make_features(model, "query", sides[0], width) for model in NOISE), sides[0])
    result, cost = measure(lambda: compare(old, new, sides[1], queries=asked, draws=draws))
    known = (one for one in result.records if one.value is not None)
    return cost | {"metrics": {f"{one.query}_{one.gallery}/{one.metric}": one.value for one in known}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--gallery", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=128, help="columns of the features")
    parser.add_argument("--images", type=int, default=10, help="gallery images of each identity")
    parser.add_argument("--k", type=int, default=100, help="items that the search returns")
    parser.add_argument("--draws", type=int, default=0, help="bootstrap draws of the table")
    parser.add_argument("--parts", nargs="+", choices=("search", "table"), default=("search", "table"))
    parser.add_argument("--faiss", action="store_true", help="run FAISS's search as well")
    options = parser.parse_args()
    size = {name: getattr(options, name) for name in ("queries", "gallery", "width", "images")}
    parts = {
        "search": (measure_search, size | {"k": options.k}),
        "faiss": (measure_faiss, size | {"k": options.k}),
        "table": (measure_table, size | {"draws": options.draws}),
    }
    chosen = [part for part in parts if part in options.parts or (part == "faiss" and options.faiss)]
    print(f"{size}, torch {torch.__version__}, {torch.get_num_threads()} threads, one run")
    results = {}
    for part in chosen:
        function, arguments = parts[part]
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as child:
            results[part] = found = child.submit(function, **arguments).result()
        print(
            f"{part:8s} {found['seconds']:8.1f} s ({found['cpu_seconds']:.1f} s of CPU), "
            f"peak memory {found['peak_mb']:.0f} MB",
            flush=True,
        )
    for name, value in results.get("table", {}).get("metrics", {}).items():
        print(f"  {name:32s} {value:.4f}")
    print(json.dumps(size | results))


if __name__ == "__main__":
    main()
