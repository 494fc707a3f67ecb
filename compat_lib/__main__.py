"""The command line: python -m compat_lib check OLD NEW."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

COMPATIBLE, NOT_COMPATIBLE, UNUSABLE, OUR_FAULT, STOPPED = 0, 1, 2, 3, 130
NO_MEMORY = "the memory is not enough; give a smaller --queries or --draws, or fewer images"
PROGRAM = "python -m compat_lib"
DESCRIPTION = """Is the new model compatible with the old one, so that new queries may search the old gallery?

OLD and NEW are npz files with the arrays features [N, D] and labels [N], and ids [N] where the rows of the
two files are not the same images in the same order. Write them with
    numpy.savez("old.npz", features=old_features, labels=labels)"""
EPILOGUE = """example:
  python -m compat_lib check old.npz new.npz --report page.html && echo "swap the query model"

exit code:
  0    compatible: the 95 % interval of new/old minus old/old lies above zero
  1    not compatible, or undecided: the interval holds zero (see --ignore-noise), or fewer than six
       identities have two images
  2    unusable input or option, or no room for the answer; the reason is on standard error
  3    the check itself failed, which is a fault of ours
  130  stopped by the keyboard

Beyond a hundred million pairs some of the images ask, and all of them are searched (--queries): a million
images of width 128 take about 4 GB, and up to half an hour on two slow cores."""


class _Parser(argparse.ArgumentParser):
    # A wrong option is told in one line.
    def error(self, message: str) -> NoReturn:
        self.exit(UNUSABLE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    main_parser = _Parser(
        prog=PROGRAM, description="Tools for backward-compatible models.", allow_abbrev=False
    )
    commands = main_parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    check = commands.add_parser(
        "check",
        help="is a new model compatible with an old one?",
        description=DESCRIPTION,
        epilog=EPILOGUE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    check.add_argument("old", metavar="OLD", help="npz file of the old model")
    check.add_argument("new", metavar="NEW", help="npz file of the new model")
    check.add_argument("--report", metavar="PAGE", type=Path, help="write an HTML page with pictures")
    check.add_argument("--json", metavar="FILE", type=Path, help="write all numbers as JSON")
    check.add_argument(
        "--metric",
        help="tar@far=F, map, rank1 or rank5 (default: tar@far=1e-3, or map where too few pairs resolve it)",
    )
    check.add_argument(
        "--ignore-noise",
        action="store_true",
        help="exit with 0 whenever new/old is above old/old, as the published criterion asks, decided or not",
    )
    check.add_argument("--no-adapter", action="store_true", help="measure no adapters, which saves time")
    check.add_argument(
        "--queries",
        metavar="N",
        type=_at_least(1),
        help="images that ask (default: as many as make 10**8 pairs, and at least 2,000)",
    )
    check.add_argument(
        "--draws",
        metavar="N",
        type=_at_least(0),
        default=200,
        help="bootstrap draws (default: 200; 0: no intervals, and the difference itself decides)",
    )
    check.add_argument(
        "--seed", metavar="N", type=_at_least(0), default=0, help="of all that is drawn (default: 0)"
    )
    return main_parser


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} was given; give a whole number of at least {least}")
        return value

    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; a wrong option raises SystemExit(2)."""
    options = parser().parse_args(arguments)
    try:
        return run_check(options)
    except _Refused as error:
        return _refuse(str(error))
    except MemoryError:
        return _refuse(NO_MEMORY)
    except KeyboardInterrupt:
        _tell("stopped")
        return STOPPED
    except Exception as error:  # must not end with 1, which means "not compatible"
        if "allocate memory" in str(error):  # torch's own
            return _refuse(NO_MEMORY)
        _tell("failed, which says nothing about the models", traceback.format_exc())
        return OUR_FAULT


class _Refused(Exception):
    # Why there is no answer, for standard error.
    pass


def _refuse(reason: str) -> int:
    _tell(reason)
    return UNUSABLE


def _tell(reason: str, before: str = "") -> None:
    # Where standard error is closed or full the exit code must do.
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(f"{before}{PROGRAM} check: {reason}", file=sys.stderr, flush=True)


def run_check(options: argparse.Namespace) -> int:
    """Check two files, write what is asked for, print the summary and return the exit code."""
    outputs = [path for path in (options.report, options.json) if path is not None]
    _check_outputs(outputs, [Path(options.old), Path(options.new)])
    # Here, because torch takes seconds to load.
    from compat_lib.deploy.check import UnusableInput, check_sides, read_side
    from compat_lib.deploy.check.choices import known_metric
    from compat_lib.deploy.check.pictures import require_pictures
    from compat_lib.deploy.check.report import page

    if options.report is not None:  # before any work
        try:
            require_pictures()
        except ModuleNotFoundError as error:
            raise _Refused(str(error)) from error
    try:
        if options.metric is not None:
            known_metric(options.metric)
        sides = [read_side(path, name) for path, name in ((options.old, "old"), (options.new, "new"))]
        result = check_sides(
            *sides,
            metric=options.metric,
            adapter=not options.no_adapter,
            queries=options.queries,
            draws=options.draws,
            seed=options.seed,
            say=_say if sys.stderr is not None and sys.stderr.isatty() else None,
        )
    except UnusableInput as error:
        raise _Refused(str(error)) from error
    unheard = _print(result.summary())
    passed = result.above if options.ignore_noise else result.compatible
    code = COMPATIBLE if passed else NOT_COMPATIBLE
    sources = [side.source for side in sides]
    if options.json is not None:
        _write(options.json, _as_json(result, sources, code))
    if options.report is not None:
        _write(options.report, page(result, sources))
    if unheard:
        raise _Refused(unheard)
    return code


def _print(text: str) -> str:
    # Why nobody can read it, or nothing; the files are written all the same.
    try:
        print(text, flush=True)
    except OSError as error:
        # Or Python would try again at its end, fail, and change the exit code.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # A reader who left has seen enough; the exit code still counts.
        if not isinstance(error, BrokenPipeError):
            return f"the answer cannot be printed: {error.strerror or error}; make room for it"
    return ""


def _say(line: str) -> None:
    print(f"... {line}", file=sys.stderr, flush=True)


def _check_outputs(outputs: Sequence[Path], inputs: Sequence[Path]) -> None:
    if len(outputs) == 2 and outputs[0].resolve() == outputs[1].resolve():
        raise _Refused(f"--report and --json both name {outputs[0]}; give two files")
    for path in outputs:
        try:
            with contextlib.suppress(FileNotFoundError):
                path.stat()  # refuses a name that is too long, or below a file
            if path.exists() and not path.is_file():
                raise _Refused(f"{path} cannot be written: it is there and not a file")
            if any(_same(path, other) for other in inputs):
                raise _Refused(f"{path} is an input and would be overwritten; give another name")
            if path.exists() and not os.access(path, os.W_OK):  # its folder alone would allow to replace it
                raise _Refused(f"{path} cannot be written: it is protected against writing")
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".compat_lib-"):
                pass
        except OSError as error:
            raise _Refused(f"{path} cannot be written: {error.strerror or error}") from error


def _same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)  # also by a link
    except OSError:  # one of them cannot be had, which is said where it is read or written
        return False


def _write(path: Path, text: str) -> None:
    # Under its own name only when it is complete.
    part = path.with_name(f".compat_lib-{os.getpid()}.part")
    try:
        try:
            part.write_text(text, encoding="utf-8")
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise _Refused(f"{path} cannot be written: {error.strerror or error}") from error


def _as_json(result: Any, sources: Sequence[Any], code: int) -> str:
    from compat_lib import __version__

    record = {
        "verdict": result.verdict,
        "compatible": result.compatible,
        "above": result.above,
        "exit_code": code,
        "metric": result.metric,
        "paragraph": result.paragraph,
        "basis": result.basis,
        "notes": result.notes,
        "metrics": result.metrics,
        "files": [vars(source) for source in sources],
        "version": __version__,
    }
    return json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())
