"""The command line: ``compat-lib check`` and ``compat-lib run``, or ``python -m compat_lib``."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compat_lib.config import ExperimentConfig

RUN = """Train and measure runs of a preset, without notebooks; what has finished is not repeated.

On several GPUs:      torchrun --nproc-per-node=8 -m compat_lib run PRESET --set device=cuda
On several machines:  torchrun --nnodes=2 --rdzv-backend=c10d --rdzv-endpoint=HOST:29500 ... on each

SIGTERM ends the run with exit code 143 after the present step; the same command goes on from there."""
DESCRIPTION = """Is the new model compatible with the old one, so that new queries may search the old gallery?

OLD and NEW are files of features with labels, and with ids where their rows are not the same images in the
same order: npz, npy, csv, tsv, parquet, feather, arrow, safetensors, or run folders. The simplest:
    numpy.savez("old.npz", features=old_features, labels=labels)
Without any labels the agreement with the new model's own neighbours is measured, which decides nothing."""
EPILOGUE = """exit code:
  0    compatible: the 95 % interval of new/old minus old/old lies above zero
  1    not compatible (features of unequal width always), or undecided (see --ignore-noise)
  2    no answer, such as for unusable input; the reason is on standard error
  130  stopped by the keyboard

A million images of width 128 take about 5 GB, and up to an hour on two slow cores; a third of it with
--no-adapter."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; a wrong option raises SystemExit(2)."""
    program = argparse.ArgumentParser("compat-lib", description="Tools for backward-compatible models.")
    commands = program.add_subparsers(dest="command", metavar="COMMAND", required=True)
    plain = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    text = {"help": "is a new model compatible with an old one?", "description": DESCRIPTION}
    add = commands.add_parser("check", **text, epilog=EPILOGUE, **plain).add_argument
    add("old", metavar="OLD", type=Path, help="file of the old model's features")
    add("new", metavar="NEW", type=Path, help="file of the new model's features")
    add("--report", metavar="PAGE", type=Path, help="write an HTML page with pictures")
    add("--json", metavar="FILE", type=Path, help="write all numbers as JSON")
    add("--save-adapter", metavar="FILE", type=Path, help="write the best linear map that was found")
    for role, which in (("labels", "OLD"), ("ids", "OLD"), ("new-labels", "NEW"), ("new-ids", "NEW")):
        add(f"--{role}", metavar="FILE", type=Path, help=f"those of {which}'s rows: npy, or text, one a line")
    several = {"action": "append", "default": []}
    add("--column", metavar="ROLE=NAME", **several, help="features, ids or labels: its name")
    add("--relevance", metavar="FILE", type=Path, help="in place of labels: qrels of TREC, or a table")
    add("--group", metavar="COLUMN", help="a verdict for each group of this column's")
    add("--threshold", metavar="T", type=float, help="the cosine from which the old system says yes")
    add("--metric", help="tar@far=F, map, rank1 or rank5 (default: tar@far=1e-3, or map with too few pairs)")
    yes = "0 whenever new/old is above old/old, beyond the noise or not"
    add("--ignore-noise", action="store_true", help=yes)
    add("--no-adapter", action="store_false", dest="adapter", help="measure no adapters, which saves time")
    add("--queries", metavar="N", type=int, help="images that ask (default: for 10**8 pairs, at least 2,000)")
    add("--draws", metavar="N", type=int, default=200, help="bootstrap draws (default: 200)")
    add("--seed", metavar="N", type=int, default=0, help="of all that is drawn (default: 0)")
    text = {"help": "train and measure runs of a preset", "description": RUN}
    add = commands.add_parser("run", **text, **plain).add_argument
    add("preset", metavar="PRESET", type=Path, help="a YAML file, such as configs/quick.yml")
    add("--only", metavar="FIELD=VALUE", **several, help="runs with this; may be repeated")
    add("--set", metavar="FIELD=VALUE", **several, help="changed in all; may be repeated")
    add("--old", action="store_true", help="train their old models only")
    options = program.parse_args(arguments)
    try:
        return {"check": check, "run": run}[options.command](options)
    except KeyboardInterrupt:
        print(f"compat-lib {options.command}: stopped", file=sys.stderr)
        return 130
    except (ValueError, OSError, MemoryError) as error:
        print(f"compat-lib {options.command}: {error}", file=sys.stderr)
    except Exception:  # must not end with 1, which means "not compatible"
        traceback.print_exc()
        print(f"compat-lib {options.command}: failed, which says nothing about the models", file=sys.stderr)
    return 2


def run(options: argparse.Namespace) -> int:
    """Run the chosen experiments of a preset one after another and return the exit code."""
    from compat_lib.presets import load_preset

    only, changes = field_values(options.only), field_values(options.set)
    preset = load_preset(options.preset, **changes)
    known = [*preset.experiments[0].to_dict(), "experiment_id", "run_id"]
    for name in only:
        if name not in known:
            raise ValueError(f"--only {name}=...: there is no such field; the fields are {', '.join(known)}")
    chosen = [one for one in preset.experiments if all(getattr(one, k) == v for k, v in only.items())]
    if not chosen:
        there = {name: sorted({str(getattr(one, name)) for one in preset.experiments}) for name in only}
        has = "; ".join(f"{name} {', '.join(values)}" for name, values in there.items())
        raise ValueError(f"{options.preset} has no such run; it has {has}")
    from compat_lib import distributed
    from compat_lib.experiment import Experiment

    refuse(options.preset, chosen)
    for config in chosen:
        experiment = Experiment(config)
        experiment.train_old() if options.old else experiment.evaluate()
        if distributed.rank() == 0:
            print(config.old_folder if options.old else config.run_folder, flush=True)
    distributed.end()
    return 0


def refuse(preset: Path, configs: Iterable[ExperimentConfig], own_data: bool = False) -> None:
    """Look at the options and data (of folders alone if `own_data`) of all runs, before one is trained.

    Finished runs of other data than now are refused too.
    """
    from compat_lib.experiment import Experiment
    from compat_lib.experiment_data import ExperimentData
    from compat_lib.runs import Run, is_complete, refuse_changed

    looked: dict[Path, ExperimentData] = {}
    for config in configs:
        try:
            # A finished run needs no device any more.
            experiment = (ExperimentData if is_complete(config.run_folder) else Experiment)(config)
            if own_data and config.dataset != "folder":
                continue
            if (first := looked.setdefault(config.old_folder, experiment)) is experiment:
                experiment.refuse_data()
            for folder in filter(is_complete, (config.old_folder, config.run_folder)):
                refuse_changed(folder, Run(folder).config["made_of"], first.old_made_of, first.source)
        except (TypeError, ValueError, OSError) as error:
            raise ValueError(f"{preset}, {config.experiment_id}/{config.run_id}: {error}") from error


def pairs(texts: Sequence[str], form: str) -> dict[str, str]:
    """Names and values of texts of the form NAME=VALUE, as it is called in a refusal."""
    found = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign:
            raise ValueError(f"{text!r} is not of the form {form}")
        if name in found:
            raise ValueError(f"{name} is given twice, last as {text!r}; it has one value")
        found[name] = value
    return found


def field_values(texts: Sequence[str]) -> dict[str, Any]:
    """Fields and values; a value is JSON where it reads as such, and text where not."""
    values: dict[str, Any] = pairs(texts, "FIELD=VALUE")
    for name, value in values.items():
        with contextlib.suppress(json.JSONDecodeError):
            values[name] = json.loads(value)
    return values


def check(options: argparse.Namespace) -> int:
    """Check two files, print the summary, write what is asked for and return the exit code."""
    given = vars(options)
    beside = ("labels", "ids", "new_labels", "new_ids")
    beside = {name: given[name] for name in beside if given[name] is not None}
    read = (options.old, options.new, *beside.values(), options.relevance)
    taken = [path.resolve() for path in read if path is not None]
    for path in (options.report, options.json, options.save_adapter):
        if path is not None and (path.resolve() in taken or path.is_dir()):
            raise ValueError(
                f"{path} is an input, or written twice, and would be overwritten, or a folder; give another"
            )
        taken += [] if path is None else [path.resolve()]
    from compat_lib.deploy.check import check_files  # here, because torch takes seconds to load
    from compat_lib.files import write_text

    if options.save_adapter is not None and not options.adapter:
        raise ValueError("--save-adapter needs the maps that --no-adapter leaves out; give one of them")
    names = ("metric", "adapter", "queries", "draws", "seed", "relevance", "group", "threshold")
    chosen = {name: given[name] for name in names} | {"beside": beside}
    chosen["columns"] = pairs(options.column, "ROLE=NAME, such as ids=photo")
    if sys.stderr.isatty():
        chosen["say"] = lambda line: print(f"... {line}", file=sys.stderr)
    result = check_files(options.old, options.new, **chosen)
    try:
        print(result.summary(), flush=True)
    except BrokenPipeError:  # a reader who left has seen enough; Python must not try again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if options.save_adapter is not None:
        result.adapter.save(options.save_adapter)
        print(f"\nThe map ({result.adapter.kind} on the {result.adapter.side}) is in {options.save_adapter}.")
    code = int(not (result.above if options.ignore_noise else result.compatible))
    if options.json is not None:
        record = {"exit_code": code} | result.plain()
        write_text(options.json, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    if options.report is not None:
        write_text(options.report, result.page())
    return code


if __name__ == "__main__":
    sys.exit(main())
