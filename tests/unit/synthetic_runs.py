"""Run folders made by hand, in the layout that the experiments write."""

from compat_lib.config import ExperimentConfig
from compat_lib.runs import write_json

METRIC = "tar@far=1e-3"


def write_run(
    root, config, old_old, new_old, new_new, *, width=None, seconds=10.0, epochs=20, images=1000, **more
):
    """One complete run; with a width, 101 draws spread evenly over +-width around every value."""
    folder = root / config.experiment_id / config.run_id
    values = {"old_old": old_old, "new_old": new_old, "new_new": new_new}
    metrics = {f"{pair}/{METRIC}": value for pair, value in values.items()} | {
        "train/seconds": seconds * epochs,
        "train/epochs": epochs,
        "train/backbone_images": images,
    }
    draws = {}
    if width is not None:
        steps = [width * (i - 50) / 50 for i in range(101)]
        for pair, value in values.items():
            # old/old moves against the others, so that paired differences spread twice as far
            sign = -1 if pair == "old_old" else 1
            draws[f"{pair}/{METRIC}"] = [value + sign * step for step in steps]
            metrics |= {f"{pair}/{METRIC}/low": value - width, f"{pair}/{METRIC}/high": value + width}
        write_json(folder / "draws.json", draws)
    ids = {"experiment_id": config.experiment_id, "run_id": config.run_id}
    facts = {"facts": {"classes": {"test": 200}}}
    described = {k: v for k, v in config.to_dict().items() if k not in ("data_root", "runs_root")}
    write_json(folder / "config.json", described | ids | facts)
    write_json(folder / "metrics.json", metrics | more)
    return folder


def configs(methods, seeds=(0,), **fields):
    return [ExperimentConfig(method=m, seed=s, **fields) for s in seeds for m in methods]
