"""What make reproduce takes around its training: kernels, imports, data, evaluation and pictures, as ratios.

    .venv/bin/python benchmarks/reproduce_overhead.py [--runs-root runs]

Reads the executed notebooks and histories of the runs that are there; give it runs that were made in one go,
with nothing else on the machine. One thread a notebook, so that seconds of a notebook are seconds of a core.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

from compat_lib.runs import list_runs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs-root", default="runs")
    root = Path(parser.parse_args().runs_root)
    ratios, whole, training = [], 0.0, 0.0
    print(f"{'run':60} {'training s':>10} {'around s':>9} {'around / training':>18}")
    for run in list_runs(root):
        notebook = run.folder / "notebook.ipynb"
        if not (notebook.is_file() and (run.folder / "history.csv").is_file()):  # a chain trains no old model
            continue
        took = json.loads(notebook.read_text(encoding="utf-8"))["metadata"]["papermill"]["duration"]
        trained = sum(row["seconds"] for row in run.history)
        ratios.append((took - trained) / trained)
        whole, training = whole + took, training + trained
        name = f"{run.folder.parent.name[:35]}/{run.folder.name}"
        print(f"{name:60} {trained:10.1f} {took - trained:9.1f} {ratios[-1]:18.2f}")
    if not ratios:
        print(f"no executed run in {root}: make reproduce first", file=sys.stderr)
        return 1
    print(f"{len(ratios)} runs: around / training {statistics.median(ratios):.2f} in the median, ", end="")
    print(f"all notebooks / all training {whole / training:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
