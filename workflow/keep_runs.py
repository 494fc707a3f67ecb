"""Copy the complete runs of a folder into results/, small: no weights, no features, draws of three metrics.

    python workflow/keep_runs.py [--runs runs] [--results results] [--shared]

Tables pair the draws of TAR, mAP and rank-1 (or what stands for them in a protocol) and of no map of a
trained method. With --shared the seconds of training by the clock become null, because other work ran beside
it; the processor's seconds stay.
"""

import argparse
import shutil
import sys
from pathlib import Path

from companion.chains import Chain, find_chains
from companion.results import HEADLINE
from compat_lib.evaluation.records import metric_for
from compat_lib.runs import Run, draw_rows, list_runs, read_json, write_lines

ROOT = Path(__file__).resolve().parents[1]


def keep(run: Run, folder: Path, *, shared: bool = False, chain: Chain | None = None) -> None:
    """Write what results/ keeps of a run; of the last of a chain, what its generations find too."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "environment.json", "history.csv"):
        if (run.folder / name).is_file():  # an old model that another run trained has no history
            shutil.copyfile(run.folder / name, folder / name)
    rows = read_json(run.folder / "metrics.json")
    for row in rows:
        if shared and row["metric"] == "train/seconds":
            row["value"] = None
    asked = {metric_for(run.config.get("protocol", "pairs"), one) for one in (HEADLINE, "map", "rank1")}
    maps = run.config["method"] == "independent"
    kept = read_json(run.folder / "draws.json")
    kept = [row for row in kept if row["metric"] in asked and (maps or "adapter" not in row)]
    if chain and not chain.kept:
        found = chain.to_keep()
        rows += found.plain()
        kept += draw_rows(one for one in found if one.metric in asked)
    write_lines(folder / "draws.json", kept)
    write_lines(folder / "metrics.json", rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="of run folders")
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="where they are kept")
    parser.add_argument("--shared", action="store_true", help="other work ran beside these runs")
    given = parser.parse_args()
    runs = list_runs(given.runs)
    if not runs:
        print(f"There is no complete run in {given.runs}", file=sys.stderr)
        return 2
    ends = {chain.runs[-1].folder: chain for chain in find_chains(given.runs)}
    for run in runs:
        folder = given.results / run.folder.parent.name / run.folder.name
        keep(run, folder, shared=given.shared, chain=ends.get(run.folder))
    print(f"kept: {len(runs)} runs in {given.results}; now make readme")
    return 0


if __name__ == "__main__":
    sys.exit(main())
