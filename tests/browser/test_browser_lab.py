"""JupyterLab in a real browser: a reader opens a notebook, runs all cells and moves a slider."""

import contextlib
import json
import os
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from devtools import Guarded
from execute import declared_parameters

pytestmark = [pytest.mark.browser, pytest.mark.slow]
TOKEN = "browser-test"
SETTINGS = Path(__file__).resolve().parents[2] / "workflow" / "lab"  # make lab starts with these
SMALL = {  # the sizes of the preset smoke, or less
    "dataset_options": {"identities": 120, "images": 8, "eval_identities": 40, "eval_images": 8},
    "old_epochs": 4,
    "epochs": 4,
    "batch_size": 64,
    "bootstrap_draws": 20,
    "default_data": {"identities": 120, "images": 8, "eval_identities": 40, "eval_images": 8},
    "default_training": {"old_epochs": 4, "epochs": 4, "batch_size": 64},
    "runs_root": "runs",
}
PANEL = """[...jupyterapp.shell.widgets("main")].find(w => w.context && w.sessionContext)"""
CELLS = f"""({PANEL}).content.widgets.map(w => w.model.toJSON())
  .filter(cell => cell.cell_type === "code")
  .map(cell => ({{source: cell.source, count: cell.execution_count,
    errors: cell.outputs.filter(o => o.output_type === "error").map(o => o.ename + ": " + o.evalue)}}))"""
READY = f"""(w => w && w.context.isReady && w.sessionContext.isReady && w.sessionContext.session &&
  w.sessionContext.session.kernel && w.sessionContext.session.kernel.status === "idle"
)(window.jupyterapp && {PANEL})"""
RUN_ALL = f"""(() => {{ window.ended = null; jupyterapp.shell.activateById(({PANEL}).id);
  jupyterapp.commands.execute("notebook:run-all-cells").then(
    () => {{ window.ended = "done"; }}, error => {{ window.ended = String(error); }}); }})()"""
# The first cell with a slider, and what it shows now: pictures, and the sentence below a live one.
SLIDER_CELL = "[...document.querySelectorAll('.jp-CodeCell')].find(c => c.querySelector('.noUi-handle'))"
SHOWN = f"""(cell => [...cell.querySelectorAll(".jp-OutputArea img, .jp-OutputArea svg, .jp-OutputArea p")]
  .filter(part => part.tagName !== "IMG" || part.complete).map(part => part.src || part.outerHTML).join(" ")
)({SLIDER_CELL})"""


@pytest.fixture(scope="module")
def lab(project, browser, tmp_path_factory) -> Iterator[str]:
    """The address of a JupyterLab on copies of the notebooks with small parameters."""
    folder = tmp_path_factory.mktemp("lab")
    copy = folder / "project"
    (copy / "notebooks").mkdir(parents=True)
    for name in ("compat_lib", "companion", "configs", "docs", "figures", "results"):
        (copy / name).symlink_to(project / name)
    for name in ("00_start_here", "05_explore_features"):
        smaller(project / "notebooks" / f"{name}.ipynb", copy / "notebooks" / f"{name}.ipynb")
    server, address = start_lab(folder, copy)
    yield address
    server.close()


def smaller(notebook: Path, copy: Path) -> None:
    """A notebook with a cell after its parameters that sets small values, as papermill does."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    values = {name: value for name, value in SMALL.items() if name in declared_parameters(notebook)}
    tags = [cell["metadata"].get("tags", []) for cell in content["cells"]]
    place = next(number for number, named in enumerate(tags) if "parameters" in named)
    cell = {"cell_type": "code", "id": "small", "metadata": {}, "outputs": [], "execution_count": None}
    cell["source"] = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    content["cells"].insert(place + 1, cell)
    copy.write_text(json.dumps(content), encoding="utf-8")


def start_lab(folder: Path, root: Path) -> tuple[Guarded, str]:
    """A JupyterLab server that knows no settings of this machine's user and asks the network nothing."""
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--ServerApp.root_dir={root}"]
    command += ["--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", f"--IdentityProvider.token={TOKEN}"]
    command += ["--LabApp.expose_app_in_browser=True"]
    # As make lab has it: else it asks whether it may fetch news, over the notebook.
    command += [f"--LabApp.app_settings_dir={SETTINGS}"]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    command += ["--LabApp.extension_manager=readonly"]
    command += ["--allow-root"] if os.geteuid() == 0 else []
    places = {
        **{f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")},
        **{f"JUPYTERLAB_{kind}_DIR": str(folder / kind.lower()) for kind in ("SETTINGS", "WORKSPACES")},
        "IPYTHONDIR": str(folder / "ipython"),
        "COMPAT_DATA": str(folder / "images"),
        "JUPYTER_PREFER_ENV_PATH": "1",
    }
    server = Guarded(command, folder / "lab.log", **places)

    def address() -> str | None:
        for file in (folder / "runtime").glob("jpserver-*.json"):
            try:
                base = json.loads(file.read_text())["url"]
                urllib.request.urlopen(f"{base}api/status?token={TOKEN}", timeout=5).close()
                return base
            except (OSError, ValueError):  # being written, or not listening yet
                return None
        return None

    return server, server.wait_until(address, 60, "JupyterLab to start")


def run_all(tab, lab: str, name: str, seconds: float) -> list[dict]:
    """Open a notebook, run all cells as the menu Run does, and return the code cells."""
    tab.resize(1280, 900)
    tab.open(f"{lab}lab/tree/notebooks/{name}.ipynb?token={TOKEN}&reset")
    tab.wait_for(READY, 60, f"{name} and its kernel")
    tab.evaluate(RUN_ALL)
    tab.wait_for("window.ended", seconds, f"the cells of {name}")
    return tab.evaluate(CELLS)


@contextlib.contextmanager
def last_picture(tab, file: Path) -> Iterator[None]:
    """A picture of what the reader sees at the end, also when the test fails."""
    try:
        yield
    finally:
        tab.picture(file)


@pytest.mark.parametrize("name", ["00_start_here", "05_explore_features"])
def test_a_reader_runs_all_cells_and_moves_a_slider(tab, lab, pictures, name):
    with last_picture(tab, pictures / f"lab-{name}-cells.png"):
        cells = run_all(tab, lab, name, seconds=300)
    assert [error for cell in cells for error in cell["errors"]] == []
    assert [cell["source"][:60] for cell in cells if cell["count"] is None] == [], "cells that did not run"
    assert not tab.evaluate("document.body.innerText.includes('Error displaying widget')")
    assert not tab.evaluate("document.body.innerText.includes('Jupyter news')")

    tab.wait_for(f"{SLIDER_CELL} && {SHOWN}", 20, "a slider with its picture")
    tab.evaluate(f"{SLIDER_CELL}.querySelector('.noUi-handle').focus()")
    tab.evaluate("new Promise(done => setTimeout(done, 500))")  # what comes into sight is drawn then
    tab.picture(pictures / f"lab-{name}-slider-before.png")
    before = tab.evaluate(SHOWN)
    value = f"{SLIDER_CELL}.querySelector('.noUi-handle').getAttribute('aria-valuenow')"
    start = tab.evaluate(value)
    begun = time.monotonic()
    tab.press("ArrowRight")
    if tab.evaluate(value) == start:  # it stands at its right end
        tab.press("ArrowLeft")
    assert tab.evaluate(value) != start, "the slider does not move"
    changed = f"(now => now && now !== {json.dumps(before)})({SHOWN})"
    tab.wait_for(changed, 20, "another picture after the slider has moved")
    print(f"{name}: another picture {time.monotonic() - begun:.2f} s after the key")
    tab.picture(pictures / f"lab-{name}-slider-after.png")
    hosts = {urlsplit(address).hostname for address in tab.requests if address.startswith("http")}
    assert hosts == {"127.0.0.1"}, "something was asked for elsewhere"
