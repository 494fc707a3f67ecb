"""Seconds and memory of a compatibility check of a million images.

Two files of 1,000,000 features of width 128 with their labels, all synthetic: noisy copies of one random
centre for each of 100,000 identities, with less noise for the new model. `python -m compat_lib check` reads
them in a process of its own and writes a report. Its peak memory is that of the whole command: the files, the
libraries, the tests, the pictures.

    python benchmarks/check_million.py
    python benchmarks/check_million.py --images 100000 --folder features
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from million_scale import NOISE, make_features, make_labels

ROOT = Path(__file__).resolve().parent.parent


def write_features(path: Path, model: str, images: int, width: int, each: int) -> None:
    """Write one model's file: features float32 [images, width] and labels, `each` images of an identity."""
    labels = make_labels(0, images, each)[1]
    np.savez(path, features=make_features(model, "gallery", labels, width).numpy(), labels=labels.numpy())


def measure_check(folder: Path, arguments: list[str]) -> tuple[str, dict[str, float]]:
    """Run the command in its own process; return what it prints, its exit code, seconds and memory in MB."""
    command = [sys.executable, "-m", "compat_lib", "check", "old.npz", "new.npz", "--report", "page.html"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    with (folder / "printed.txt").open("w+") as printed:
        child = subprocess.Popen([*command, *arguments], cwd=folder, env=environment, stdout=printed)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        printed.seek(0)
        text = printed.read()
    scale = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, kilobytes elsewhere
    return text, {
        "exit_code": child.returncode,
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss * scale / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=128, help="columns of the features")
    parser.add_argument("--each", type=int, default=10, help="images of each identity")
    parser.add_argument("--folder", type=Path, help="keep the files and the report here")
    options, arguments = parser.parse_known_args()  # the rest goes to the check, such as --queries 500
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        # In processes of their own: the peak of a child holds what its parent held when it began.
        for model in NOISE:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as maker:
                size = options.images, options.width, options.each
                maker.submit(write_features, folder / f"{model}.npz", model, *size).result()
        text, found = measure_check(folder, arguments)
    print(text)
    print(
        f"{options.images:,} images of width {options.width}: {found['seconds']:.0f} s "
        f"({found['cpu_seconds']:.0f} s of CPU), peak memory {found['peak_mb']:,.0f} MB, "
        f"exit code {found['exit_code']}"
    )
    print(json.dumps({"images": options.images, "width": options.width, "each": options.each} | found))


if __name__ == "__main__":
    main()
