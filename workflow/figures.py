"""Copy the README's pictures from the runs that made them (make figures).

    python workflow/figures.py [--preset quick] [--runs-root DIR]

Each picture comes with the JSON file in which its notebook wrote what made it.
"""

import argparse
import shutil
import sys
from pathlib import Path

import plan

# (method or page, the notebook's name of the figure, our name)
PICTURES = (
    ("independent", "map", "oracle_map"),
    ("mixbct", "map", "mixbct_map"),
    ("mixbct", "cosines", "mixbct_cosines"),
    ("dual_tuning", "backfill", "dual_tuning_backfill"),
    ("page", "self-cross", "self_and_cross_test"),
    ("page", "backfill", "backfill"),
)


def sources(preset_name: str, runs_root: str | None) -> dict[str, Path]:
    """Our name of each picture and the PNG that a notebook wrote.

    Raises:
        FileNotFoundError: a picture is not there; the sentence says how to make it.
    """
    preset, _, root = plan.read(preset_name, runs_root)
    first = {config.method: config for config in reversed(preset.experiments) if config.budget == "steps"}
    found = {}
    for owner, figure, name in PICTURES:
        if owner == "page":
            experiment = preset.experiments[0].experiment_id
            path = root / preset.name / "figures" / f"{figure}-{experiment}.png"
        else:
            path = first[owner].run_folder / "figures" / f"{figure}.png"
        if not path.is_file():
            raise FileNotFoundError(f"there is no {path}: run make reproduce PRESET={preset.name} first")
        found[name] = path
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--runs-root")
    options = parser.parse_args()
    try:
        pictures = sources(options.preset, options.runs_root)
    except FileNotFoundError as error:
        print(f"make figures: {error}", file=sys.stderr)
        return 1
    for name, path in pictures.items():
        for suffix in (".png", ".json"):
            shutil.copyfile(path.with_suffix(suffix), plan.ROOT / "figures" / f"{name}{suffix}")
        print(f"figures/{name}.png  from {path.relative_to(path.parents[3])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
