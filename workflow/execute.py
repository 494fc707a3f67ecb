"""Run one notebook with papermill, and say in one block what went wrong when it fails.

    python workflow/execute.py NOTEBOOK TARGET --label "MixBCT, seed 0" \\
        --parameters '{"seed": 0}' --expect runs/.../metrics.json

The executed copy appears under its own name only when every cell has run. A failed copy is kept beside
it as ``<name>.failed.ipynb`` and the exit status is 1.
"""

import argparse
import contextlib
import json
import logging
import os
import sys
import threading
import time
from functools import lru_cache
from pathlib import Path

import warm

from companion.parameters import literals

WATCHED = "COMPAT_WORKFLOW_PID"  # a process without which a job has nobody to work for
KERNEL_STARTS = 3


class NotebookError(Exception):
    """A notebook did not run to its end; ``where`` and ``what`` are sentences for the user."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(what)
        self.where, self.what = where, what


class KernelNotStartedError(NotebookError):
    """The kernel ended, or stayed silent, before it took its first cell."""


def end_with(pid: int) -> None:
    """End this process soon after process ``pid`` has ended, however it ended.

    A workflow that is killed leaves its jobs behind. They would go on to write the same folders
    as the jobs of the next start. Kernels end with the process that started them in the same way.
    """

    def watch() -> None:
        while True:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                import psutil

                for child in psutil.Process().children(recursive=True):  # torchrun's processes among them
                    with contextlib.suppress(psutil.NoSuchProcess):
                        child.kill()
                os._exit(1)
            except PermissionError:
                pass  # it lives, under another user
            time.sleep(0.5)

    threading.Thread(target=watch, daemon=True).start()


def read_cells(notebook: Path) -> list[dict]:
    """The cells of a notebook file, sources as one text; nbformat takes seconds to do the same."""
    return [cell | {"source": "".join(cell["source"])} for cell in json.loads(notebook.read_bytes())["cells"]]


@lru_cache  # a preset asks for each of its runs
def declared_parameters(notebook: Path) -> dict[str, object]:
    """Names and default values in a notebook's one parameters cell; a NotebookError where there is none."""
    if not notebook.is_file():
        raise NotebookError(notebook.name, f"there is no such notebook in {notebook.parent}")
    tagged = [cell for cell in read_cells(notebook) if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise NotebookError(
            notebook.name, f"one cell must have the tag 'parameters'; {len(tagged)} cells have it"
        )
    try:
        return literals(tagged[0]["source"])
    except ValueError as error:
        raise NotebookError(f"{notebook.name}, parameters cell", str(error)) from None


def run(notebook: Path, part: Path, parameters: dict) -> None:
    """Execute a notebook into ``part``, in its own folder as JupyterLab does, or raise a NotebookError."""
    # Not above: they take a second, and a wrong parameter is refused without them. jsonschema, which they
    # load, would take two seconds more for a grammar of addresses that no notebook needs.
    sys.modules.setdefault("rfc3987_syntax", None)
    import papermill
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from nbclient.exceptions import DeadKernelError
    from traitlets import default

    # It reads only the simplest lines of a parameters cell, and calls unknown what stands in others. The
    # workflow has read them all (plan.py), and a notebook refuses itself what it does not know.
    logging.getLogger("papermill").setLevel(logging.ERROR)

    class OwnKernelManager(AsyncKernelManager):
        """The kernel of this very interpreter, whatever else is called python3 on this machine.

        It is reached over TCP, which holds with many kernels at a time where IPC did not; encrypted,
        because on a shared machine others can read what crosses the loopback device.
        """

        @default("transport_encryption")
        def _encrypt(self):
            return "auto"

        @property
        def kernel_spec(self):
            command = [sys.executable, warm.__file__, "kernel", "-f", "{connection_file}"]
            return KernelSpec(**get_kernel_dict() | {"argv": command})

    try:
        papermill.execute_notebook(
            notebook,
            part,
            parameters,
            cwd=notebook.parent,
            kernel_name="python3",
            language="python",
            kernel_manager_class=OwnKernelManager,
            progress_bar=False,
            coalesce_streams=True,  # else a page has an empty box where a print came in two parts
            start_timeout=180,
        )
    except papermill.PapermillExecutionError as error:
        raise NotebookError(
            f"{notebook.name}, cell {error.cell_index + 1}: {first_line(error.source)}",
            f"{error.ename}: {error.evalue}",
        ) from error
    except DeadKernelError as error:
        raise NotebookError(
            f"{notebook.name}, {running_cell(part)}",
            "the kernel died without a Python error. It was killed, or the machine ran out of memory: "
            "then give the command again with fewer experiments at a time, CORES=1",
        ) from error
    except RuntimeError as error:
        raise KernelNotStartedError(f"{notebook.name}, before its first cell", str(error)) from error


def run_patiently(notebook: Path, part: Path, parameters: dict, label: str) -> None:
    """Execute a notebook as ``run`` does; a kernel that did not start gets two more attempts.

    The ports of a kernel are looked up a second before it binds them. Where many kernels start side by
    side, another process sometimes takes one meanwhile, and the kernel ends with "address already in use".
    """
    for left in reversed(range(KERNEL_STARTS)):
        try:
            return run(notebook, part, parameters)
        except KernelNotStartedError as error:
            if not left:
                raise
            print(f"[{label}] {error.what}; starting it again", flush=True)


def first_line(source: str) -> str:
    """The first line of a cell that is neither empty nor a comment."""
    lines = [line.strip() for line in source.splitlines()]
    return next((line for line in lines if line and not line.startswith("#")), "")[:80]


def running_cell(part: Path) -> str:
    """The last cell that was started in a saved, unfinished notebook."""
    where = "before its first cell"
    for number, cell in enumerate(read_cells(part), 1):
        if cell["cell_type"] == "code" and cell["metadata"].get("papermill", {}).get("start_time"):
            where = f"cell {number}: {first_line(cell['source'])}"
    return where


def failure_block(label: str, error: NotebookError, kept: Path | None) -> str:
    """What a user needs to know about a failed notebook, as one block of text."""
    see = f"see       {kept}  (the notebook up to the error)\n" if kept else ""
    rule = "=" * 78
    return (
        f"\n{rule}\nFAILED    {label}\nwhere     {error.where}\nerror     {error.what}\n{see}"
        "go on     mend the cause and give the same command again; nothing that finished is repeated\n"
        f"{rule}\n"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("target", type=Path, help="where the executed copy goes")
    parser.add_argument("--parameters", type=json.loads, default={}, help="a JSON object")
    parser.add_argument("--label", default="", help="what this run is called in messages")
    parser.add_argument("--expect", type=Path, help="a file that the notebook must have left behind")
    options = parser.parse_args(arguments)
    if WATCHED in os.environ:
        end_with(int(os.environ[WATCHED]))
    notebook, target = options.notebook.resolve(), options.target.resolve()
    label = options.label or notebook.stem
    part = target.with_name(f".{target.name}.part.ipynb")
    failed = target.with_name(f"{target.stem}.failed.ipynb")
    # One thread a notebook: the workflow keeps the cores busy by running several.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ["TQDM_DISABLE"] = "1"  # a bar that nobody watches leaves its first state in the page
    begun = time.monotonic()
    print(f"[{label}] started", flush=True)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        run_patiently(notebook, part, options.parameters, label)
        if options.expect and not options.expect.exists():
            raise NotebookError(
                notebook.name,
                f"it ran to its end but left no {options.expect}: its parameters cell and "
                "its configuration cell do not describe the experiment that was asked for",
            )
    except NotebookError as error:
        kept = failed if part.exists() else None
        if kept:
            os.replace(part, failed)
        print(failure_block(label, error, kept), file=sys.stderr, flush=True)
        return 1
    os.replace(part, target)
    failed.unlink(missing_ok=True)
    print(f"[{label}] done in {time.monotonic() - begun:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(warm.start("notebook", sys.argv[1:]))
