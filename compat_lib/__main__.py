"""The command line: ``compat-lib check OLD NEW``, or ``python -m compat_lib check OLD NEW``."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DESCRIPTION = """Is the new model compatible with the old one, so that new queries may search the old gallery?

OLD and NEW are files of features with labels, and with ids where their rows are not the same images in the
same order: npz, npy, csv, tsv, parquet, feather or safetensors. The simplest:
    numpy.savez("old.npz", features=old_features, labels=labels)"""
EPILOGUE = """exit code:
  0    compatible: the 95 % interval of new/old minus old/old lies above zero
  1    not compatible, not comparable as they are, or undecided (see --ignore-noise)
  2    no answer, such as for unusable input; the reason is on standard error
  130  stopped by the keyboard

Beyond a hundred million pairs some of the images ask, and all of them are searched (--queries): a million
images of width 128 take about 5 GB, and up to half an hour on two slow cores."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    program = argparse.ArgumentParser("compat-lib", description="Tools for backward-compatible models.")
    check = program.add_subparsers(dest="command", metavar="COMMAND", required=True).add_parser(
        "check",
        help="is a new model compatible with an old one?",
        description=DESCRIPTION,
        epilog=EPILOGUE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = check.add_argument
    add("old", metavar="OLD", type=Path, help="file of the old model's features")
    add("new", metavar="NEW", type=Path, help="file of the new model's features")
    add("--report", metavar="PAGE", type=Path, help="write an HTML page with pictures")
    add("--json", metavar="FILE", type=Path, help="write all numbers as JSON")
    add("--metric", help="tar@far=F, map, rank1 or rank5 (default: tar@far=1e-3, or map with too few pairs)")
    add("--ignore-noise", action="store_true", help="0 whenever new/old is above old/old, decided or not")
    add("--no-adapter", action="store_false", dest="adapter", help="measure no adapters, which saves time")
    add("--queries", metavar="N", type=int, help="images that ask (default: for 10**8 pairs, at least 2,000)")
    add("--draws", metavar="N", type=int, default=200, help="bootstrap draws (default: 200)")
    add("--seed", metavar="N", type=int, default=0, help="of all that is drawn (default: 0)")
    return program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; a wrong option raises SystemExit(2)."""
    options = parser().parse_args(arguments)
    try:
        return run_check(options)
    except KeyboardInterrupt:
        print("compat-lib check: stopped", file=sys.stderr)
        return 130
    except (ValueError, OSError, MemoryError) as error:
        print(f"compat-lib check: {error}", file=sys.stderr)
    except Exception:  # must not end with 1, which means "not compatible"
        traceback.print_exc()
        print("compat-lib check: failed, which says nothing about the models", file=sys.stderr)
    return 2


def run_check(options: argparse.Namespace) -> int:
    """Check two files, print the summary, write what is asked for and return the exit code."""
    for path in (options.report, options.json):
        if path is not None and path.resolve() in (options.old.resolve(), options.new.resolve()):
            raise ValueError(f"{path} is an input and would be overwritten; give another name")
    # Here, because torch takes seconds to load.
    from compat_lib import __version__
    from compat_lib.deploy.check import check_compatibility
    from compat_lib.deploy.feature_files import read_features
    from compat_lib.files import write_text

    old, new = read_features(options.old), read_features(options.new)
    sides = {"new_labels": new.labels, "ids": old.ids, "new_ids": new.ids}
    numbers = {name: getattr(options, name) for name in ("metric", "adapter", "queries", "draws", "seed")}
    if sys.stderr.isatty():
        numbers["say"] = lambda line: print(f"... {line}", file=sys.stderr)
    result = check_compatibility(old.features, new.features, old.labels, **sides, **numbers)
    files = _file("old", old), _file("new", new)
    notes = [
        f"{f['name']}: {note}" for f, table in zip(files, (old, new), strict=True) for note in table.notes
    ]
    result = dataclasses.replace(result, notes=(*notes, *result.notes), files=files)
    try:
        print(result.summary(), flush=True)
    except BrokenPipeError:  # a reader who left has seen enough; Python must not try again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    code = int(not (result.above if options.ignore_noise else result.compatible))
    if options.json is not None:
        names = ("verdict", "metric", "sentence", "notes", "basis", "files")
        record = {"exit_code": code, "version": __version__, "records": result.records.plain()}
        record |= {name: getattr(result, name) for name in names}
        write_text(options.json, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    if options.report is not None:
        write_text(options.report, result.page())
    return code


def _file(side: str, table: Any) -> dict[str, Any]:
    # For the record: which file it was, whatever its name; or which parts, one after the other.
    parts = sorted(path for path in table.path.rglob("*") if path.is_file()) or [table.path]
    digest = hashlib.sha256()
    for part in parts:
        with part.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return {
        "side": side,
        "name": os.fsencode(table.path.name).decode("utf-8", "replace"),  # it may hold bytes that are no text
        "rows": len(table.features),
        "width": table.features.shape[1],
        "bytes": sum(part.stat().st_size for part in parts),
        "sha256": digest.hexdigest(),
    }


if __name__ == "__main__":
    sys.exit(main())
