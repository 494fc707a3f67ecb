"""Run a command that ends, with everything it started, as soon as whoever asked for it has ended.

    python guarded.py COMMAND...          (with a pipe as standard input)

The pipe closes when its owner closes it, and also when the owner is killed: no clean-up code of the
owner is needed, so a killed test leaves neither a browser nor a server behind.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading

import psutil


def end(process: psutil.Popen, patience: float = 5.0) -> None:
    """End a process, its descendants and its process group: ask first, then kill.

    Args:
        patience: seconds between the two.
    """
    family = [process]
    with contextlib.suppress(psutil.NoSuchProcess):
        family += process.children(recursive=True)
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.terminate()
    _, alive = psutil.wait_procs(family, timeout=patience)
    for member in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def main() -> int:
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: over.set())
    process = psutil.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=lambda: (sys.stdin.buffer.read(), over.set()), daemon=True).start()
    while process.poll() is None and not over.wait(0.2):
        pass
    end(process)
    return process.poll() or 0


if __name__ == "__main__":
    sys.exit(main())
