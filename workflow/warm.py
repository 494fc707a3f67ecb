"""Processes that begin with torch, pandas and Jupyter loaded: forks of one that has loaded them.

A notebook needs two processes, papermill's and its kernel's, and what they load takes nine seconds of a
processor. make reproduce starts this file as a server; each of the two is then a small process that asks the
server for a fork with its own arguments, environment, folder and outputs, and ends as the fork ends.
Where there is no server (a cluster's node, one notebook by hand) they load what they need themselves.
"""

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, MutableMapping, Sequence
from pathlib import Path

ADDRESS = "COMPAT_WARM"  # the server's socket
LOADED = (
    "papermill",
    "ipykernel.kernelapp",
    "companion.lesson",
    "companion.toy",
    "compat_lib.experiment",
    "torch._dynamo",  # every optimiser loads it
)


def run_notebook(arguments: list[str]) -> int:
    """What execute.py does."""
    import execute

    return execute.main(arguments)


def run_kernel(arguments: list[str]) -> int:
    """What ``python -m ipykernel_launcher`` does."""
    from execute import end_with
    from ipykernel.kernelapp import IPKernelApp

    end_with(int(os.environ["JPY_PARENT_PID"]))  # papermill's process: a fork is no child of it
    sys.path.remove(str(Path(__file__).resolve().parent))  # the workflow's modules are no notebook's
    IPKernelApp.launch_instance(arguments, parent_handle=os.getppid())
    return 0


ENTRIES = {"notebook": run_notebook, "kernel": run_kernel}


def start(entry: str, arguments: list[str]) -> int:
    """Run one of ENTRIES in a fork of the server, or here where there is none; its exit status.

    A fork that is killed gives 1. One whose asking process ends, however it ends, ends with it.
    """
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(os.environ[ADDRESS])
        except (KeyError, OSError):
            return ENTRIES[entry](arguments)
        asked = json.dumps([entry, arguments, os.getcwd(), dict(os.environ)]).encode()
        if entry == "kernel":  # is interrupted before it is told to end
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        socket.send_fds(server, [len(asked).to_bytes(4, "big")], [0, 1, 2])
        server.sendall(asked)
        status = server.recv(1)
    return status[0] if status else 1


def _become(asker: socket.socket) -> None:
    """In a fork: do what was asked, and never return."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, outputs, *_ = socket.recv_fds(asker, 4, 3)
    asked = asker.recv(int.from_bytes(length, "big"), socket.MSG_WAITALL)
    entry, arguments, folder, environment = json.loads(asked)
    for number, output in enumerate(outputs):
        os.dup2(output, number)
        os.close(output)
    if entry == "kernel":
        os.setsid()  # Ctrl-C is for its notebook
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)

    def end_with_asker() -> None:
        if not asker.recv(1):
            os._exit(1)

    threading.Thread(target=end_with_asker, daemon=True).start()
    status = 1
    try:
        status = ENTRIES[entry](arguments)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        with contextlib.suppress(OSError):
            asker.sendall(bytes([status]))
        os._exit(status)


def serve(address: str, modules: Sequence[str]) -> None:
    """Load modules, then fork for everybody who asks, until the process that started this one has ended."""
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the workflow's business
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks but their askers
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)  # whoever asks meanwhile waits
        listener.settimeout(0.5)
        # Also execute.py leaves it out: a grammar that no notebook needs, and that takes two seconds.
        sys.modules.setdefault("rfc3987_syntax", None)
        for module in modules:
            importlib.import_module(module)
        while os.getppid() == parent:
            try:
                asker, _ = listener.accept()
            except TimeoutError:
                continue
            asker.setblocking(True)
            if os.fork() == 0:
                listener.close()
                _become(asker)
            asker.close()


@contextlib.contextmanager
def server(environment: MutableMapping[str, str], modules: Sequence[str] = LOADED) -> Iterator[None]:
    """A server for the processes that get this environment, which learns the server's address."""
    # As in a kernel: how many threads, and where pictures go, is decided while modules are loaded.
    fixed = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    fixed["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    with tempfile.TemporaryDirectory() as folder:
        address = str(Path(folder) / "socket")
        command = [sys.executable, __file__, "serve", address, *modules]
        process = subprocess.Popen(command, env=environment | fixed)
        environment[ADDRESS] = address
        try:
            yield
        finally:
            del environment[ADDRESS]
            process.kill()
            process.wait()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(start(sys.argv[1], sys.argv[2:]))
