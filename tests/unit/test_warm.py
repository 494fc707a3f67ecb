"""Forks of a server that has loaded the libraries: they do as if started by hand, and end with who asked."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import warm
from stub_project import run_notebook, write_notebook

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the server")


@pytest.fixture(scope="module")
def forked(project):
    """The environment of processes that have a server, which has loaded next to nothing."""
    environment = os.environ | {"PYTHONPATH": str(project)}
    with warm.server(environment, modules=("ipykernel.kernelapp", "papermill")):
        yield environment


def test_a_notebook_runs_in_forks_and_its_pictures_and_words_come_back(project, forked, tmp_path):
    seen = "print(os.getcwd(), os.environ['SEEN'], os.environ['OMP_NUM_THREADS'], 'ipykernel' in sys.modules)"
    picture = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    notebook = write_notebook(tmp_path / "a" / "a.ipynb", f"import os, sys\n{seen}", picture)
    target = tmp_path / "b.ipynb"
    ended = run_notebook(project, notebook, target, **forked, SEEN="ja")
    assert ended.returncode == 0 and "[a] done in" in ended.stdout, ended.stderr
    assert not ended.stderr
    cells = json.loads(target.read_text())["cells"]
    assert "".join(cells[-2]["outputs"][0]["text"]).split() == [str(notebook.parent), "ja", "1", "True"]
    assert "image/png" in cells[-1]["outputs"][-1]["data"]


def test_errors_and_killed_kernels_are_told_as_without_a_server(project, forked, tmp_path):
    for source, words in (
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "the kernel died"),
    ):
        notebook = write_notebook(tmp_path / "a.ipynb", source)
        ended = run_notebook(project, notebook, tmp_path / "b.ipynb", **forked)
        assert ended.returncode == 1 and words in ended.stderr


def test_a_kill_of_who_asked_leaves_nobody_behind(project, forked, tmp_path):
    pid = tmp_path / "pid"
    source = (
        f"import os, pathlib, time\npathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\ntime.sleep(600)"
    )
    notebook = write_notebook(tmp_path / "a.ipynb", source)
    command = [sys.executable, str(project / "workflow" / "execute.py"), str(notebook)]
    asker = subprocess.Popen([*command, str(tmp_path / "b.ipynb")], env=forked)
    deadline = time.monotonic() + 300
    while not (pid.is_file() and pid.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert pid.is_file()
    kernel = psutil.Process(int(pid.read_text()))
    asker.send_signal(signal.SIGKILL)
    asker.wait()
    kernel.wait(timeout=120)  # raises where it goes on
