"""Run folders made by hand, in the layout that the experiments write."""

import numpy as np

from compat_lib.config import ExperimentConfig
from compat_lib.evaluation.records import Record, Records
from compat_lib.runs import described, write_json, write_metrics

METRIC = "tar@far=1e-3"
PAIRS = (("old", "old"), ("new", "old"), ("new", "new"))


def write_run(
    root,
    config,
    old_old,
    new_old,
    new_new,
    *,
    width=None,
    metric=METRIC,
    more=(),
    seconds=10.0,
    epochs=20,
    images=1000,
    old=False,
):
    """One complete run; with a width, 101 draws spread evenly over +-width around every value.

    old/old moves against the others, so that paired differences spread twice as far.
    """
    name = config.old_folder.name if old else config.run_id
    folder = root / config.experiment_id / name
    records = list(more)
    for (query, gallery), value in zip(PAIRS, (old_old, new_old, new_new), strict=True):
        one = Record(query, gallery, metric, value)
        if width is not None:
            steps = (-1 if query == "old" else 1) * width * (np.arange(101) - 50) / 50
            one = Record(query, gallery, metric, value, value - width, value + width, draws=value + steps)
        records.append(one)
    training = {"seconds": seconds * epochs, "epochs": epochs, "backbone_images": images}
    given = {one.metric for one in records}
    records += [
        Record(None, None, f"train/{n}", float(v)) for n, v in training.items() if f"train/{n}" not in given
    ]
    facts = {"facts": {"classes": {"test": 200}}}
    write_json(folder / "config.json", described(config, folder) | facts)
    write_metrics(folder, Records(records))
    return folder


def write_looks(folder, looks):
    """history.csv of a run: epoch -> self-test on the validation identities."""
    lines = ["epoch,val/new_new/tar@far=1e-2", *(f"{epoch},{value}" for epoch, value in looks.items())]
    (folder / "history.csv").write_text("\n".join(lines) + "\n")


def configs(methods, seeds=(0,), **fields):
    return [ExperimentConfig(method=m, seed=s, **fields) for s in seeds for m in methods]


def write_three_seeds(root):
    """Oracle and MixBCT, three seeds: gains (0.6-0.4)/(0.9-0.4) = 0.4, then 0.5 and 0.6."""
    for seed, cross in enumerate((0.60, 0.65, 0.70)):
        oracle, mixbct = configs(["independent", "mixbct"], [seed])
        write_run(root, oracle, 0.4, 0.01, 0.9, seconds=10)
        write_run(root, mixbct, 0.4, cross, 0.91 + 0.01 * seed, seconds=8)
    return root
