"""Write the features of one seed of a preset's main runs to one file (make features).

    python workflow/release.py [--preset evidence/omniglot] [--seed 0] [--out release]

docs/features.md says what is in it, and evaluates a map and a loss on it in seconds.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import plan
import torch

from compat_lib.config import ExperimentConfig
from compat_lib.evaluation.inputs import unit_rows
from compat_lib.experiment import Experiment
from compat_lib.files import replacing
from compat_lib.presets import load_preset
from compat_lib.runs import is_complete

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("independent", "l2", "weakened_l2", "bct", "dual_tuning", "mixbct", "neighbours")  # README's rows


def main_runs(
    configs: Iterable[ExperimentConfig], methods: Sequence[str], seed: int
) -> list[ExperimentConfig]:
    """The runs of some methods by their defaults in a preset's first setting.

    A ValueError where they are not complete, or the preset does not list a method or the seed.
    """
    configs = [config for config in configs if config.seed == seed]
    plain = [one for one in configs if (one.budget, one.method_options) == ("steps", {})]
    own = {one.method: one for one in reversed(plain) if one.experiment_id == configs[0].experiment_id}
    if absent := [method for method in methods if method not in own]:
        raise ValueError(f"the preset lists no run of {absent[0]} by its defaults with seed {seed}")
    found = [own[method] for method in methods]
    if missing := [one.run_id for one in found if not is_complete(one.run_folder)]:
        raise ValueError(f"not complete: {', '.join(missing)}; make reproduce with this preset makes them")
    return found


def arrays(configs: Sequence[ExperimentConfig]) -> dict[str, np.ndarray]:
    """The arrays of the file, from complete runs of one experiment; the first one's training images too.

    They are "PART/labels" int64 [N], "PART/old" and "PART/METHOD" float16 [N, d], unit rows as the cross-test
    compares them; PART is "test", another test part, or "val"; "train" has the first method alone.
    """
    found: dict[str, np.ndarray] = {}

    def put(name: str, rows: torch.Tensor) -> None:
        found[name] = unit_rows(rows.float(), name).numpy().astype(np.float16)

    for place, config in enumerate(configs):
        experiment = Experiment(config, say=lambda line: None)
        new = experiment.train()  # reads what is finished
        for part, images in experiment.data.tests.items():
            before, after = experiment.old.on(part), new.on(part)
            query, gallery = after.cross or (after.test, before.test)
            if not torch.equal(gallery, before.test):
                why = "transforms the gallery, which this file keeps once"
                raise ValueError(f"{config.method} {why}: leave it out")
            put(f"{part or 'test'}/{config.method}", query)
            put(f"{part or 'test'}/old", before.test)
            found[f"{part or 'test'}/labels"] = images.labels.numpy()
        put(f"val/{config.method}", new.val)
        put("val/old", experiment.old.val)
        found["val/labels"] = experiment.data.val.labels.numpy()
        if place == 0:
            images = experiment.new_images
            put("train/old", experiment.old_system.features[:])
            put(f"train/{config.method}", experiment.embed(new.model, images.images))
            found["train/labels"] = images.labels.numpy()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="evidence/omniglot", help="of configs/, or a file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--out", type=Path, default=ROOT / "release")
    given = parser.parse_args()
    try:
        configs = load_preset(plan.preset_path(given.preset)).experiments
        configs = main_runs(configs, given.methods, given.seed)
        made = arrays(configs)
    except (OSError, ValueError) as error:
        print(f"features: {error}", file=sys.stderr)
        return 2
    target = given.out / f"features-{configs[0].dataset}-s{given.seed}.npz"
    with replacing(target) as part, open(part, "wb") as file:
        np.savez_compressed(file, **made)
    print(f"written: {target}, {target.stat().st_size / 1e6:.1f} MB, {', '.join(made)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
