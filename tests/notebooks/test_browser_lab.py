"""JupyterLab in a real browser: a reader opens a notebook, runs all cells and moves a slider."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from execute import declared_parameters

pytestmark = [pytest.mark.browser, pytest.mark.slow]
NAME = "05_explore_features"
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
# What the first cell with a slider shows now: pictures, and the sentence below a live one.
SHOWN = """cell => [...cell.querySelectorAll(".jp-OutputArea img, .jp-OutputArea svg, .jp-OutputArea p")]
  .filter(part => part.tagName !== "IMG" || part.complete).map(part => part.src || part.outerHTML).join()"""
START = """
import os, sys
from execute import end_with
from jupyterlab.labapp import main
end_with(os.getppid())
sys.exit(main())
"""


@pytest.fixture(scope="module")
def lab(project, tmp_path_factory) -> Iterator[str]:
    """The address of a JupyterLab on copies of the notebooks with small parameters."""
    folder = tmp_path_factory.mktemp("lab")
    copy = folder / "project"
    (copy / "notebooks").mkdir(parents=True)
    for name in ("compat_lib", "companion", "configs", "docs", "figures", "results"):
        (copy / name).symlink_to(project / name)
    smaller(project / "notebooks" / f"{NAME}.ipynb", copy / "notebooks" / f"{NAME}.ipynb")
    server = start_lab(folder, copy)
    yield address_of(server, folder)
    server.terminate()
    server.wait(timeout=60)


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


def start_lab(folder: Path, root: Path) -> subprocess.Popen:
    """A JupyterLab server that knows no settings of this machine's user and asks the network nothing."""
    command = [sys.executable, "-c", START, "--no-browser", f"--ServerApp.root_dir={root}"]
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
        "PYTHONPATH": os.pathsep.join((str(SETTINGS.parent), os.environ.get("PYTHONPATH", ""))),
    }
    with (folder / "lab.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | places)


def address_of(server: subprocess.Popen, folder: Path) -> str:
    """Where a server listens, once it does."""
    deadline = time.monotonic() + 300
    while "is running at" not in (folder / "lab.log").read_text(errors="replace"):
        assert server.poll() is None and time.monotonic() < deadline, (folder / "lab.log").read_text()
        time.sleep(0.2)
    (file,) = (folder / "runtime").glob("jpserver-*.json")
    return json.loads(file.read_text())["url"]


def test_a_reader_runs_all_cells_and_moves_a_slider(open_page, lab, pictures):
    page = open_page(f"{lab}lab/tree/notebooks/{NAME}.ipynb?token={TOKEN}&reset", offline=False)
    page.wait_for_function(READY, timeout=240_000)
    page.evaluate(RUN_ALL)
    try:
        page.wait_for_function("window.ended", timeout=600_000)
    finally:
        page.screenshot(path=pictures / f"lab-{NAME}-cells.png")
    cells = page.evaluate(CELLS)
    assert [error for cell in cells for error in cell["errors"]] == []
    assert [cell["source"][:60] for cell in cells if cell["count"] is None] == [], "cells that did not run"
    said = page.inner_text("body")
    assert "Error displaying widget" not in said and "Jupyter news" not in said

    cell = page.locator(".jp-CodeCell").filter(has=page.locator(".noUi-handle")).first
    handle = cell.locator(".noUi-handle").first
    handle.focus()
    page.wait_for_function(f"cell => ({SHOWN})(cell)", arg=cell.element_handle(), timeout=120_000)
    page.wait_for_timeout(500)  # the rest of what came into sight is drawn then
    page.screenshot(path=pictures / f"lab-{NAME}-slider-before.png")
    before, start = cell.evaluate(SHOWN), handle.get_attribute("aria-valuenow")
    assert before, "a slider without its picture"
    begun = time.monotonic()
    page.keyboard.press("ArrowRight")
    if handle.get_attribute("aria-valuenow") == start:  # it stands at its right end
        page.keyboard.press("ArrowLeft")
    assert handle.get_attribute("aria-valuenow") != start, "the slider does not move"
    changed = f"([cell, before]) => (now => now && now !== before)(({SHOWN})(cell))"
    page.wait_for_function(changed, arg=[cell.element_handle(), before], timeout=120_000)
    print(f"{NAME}: another picture {time.monotonic() - begun:.2f} s after the key")
    page.screenshot(path=pictures / f"lab-{NAME}-slider-after.png")
    hosts = {urlsplit(address).hostname for address in page.asked if address.startswith("http")}
    assert hosts == {"127.0.0.1"}, "something was asked for elsewhere"
