"""The workflow on throw-away notebooks: parameters, failures, dead kernels, interruption, pages."""

import dataclasses
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import execute
import nbformat
import pages
import plan
import psutil
import pytest
import reproduce
from stub_project import experiment_notebook, make_project, run_notebook, start, write_notebook

from compat_lib import losses
from compat_lib.config import ExperimentConfig
from compat_lib.presets import load_preset

# -- execute.py ----------------------------------------------------------------------------------


def printed(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "".join(o.get("text", "") for cell in cells for o in cell.get("outputs", []))


def test_a_notebook_runs_with_its_parameters_on_the_own_kernel(project, tmp_path):
    """Also where a kernel of the same name, which cannot start, comes first in Jupyter's search path."""
    other = tmp_path / "jupyter" / "kernels" / "python3"
    other.mkdir(parents=True)
    (other / "kernel.json").write_text('{"argv": ["false"], "display_name": "x", "language": "python"}')
    source = "import os, sys\nprint(seed, sys.prefix, os.getcwd(), os.environ['OMP_NUM_THREADS'])"
    notebook = write_notebook(tmp_path / "notebooks" / "a.ipynb", source)
    target = tmp_path / "runs" / "b" / "notebook.ipynb"
    variables = {"JUPYTER_PATH": str(tmp_path / "jupyter"), "OMP_NUM_THREADS": "4"}
    options = ("--parameters", '{"seed": 7}', "--label", "L2, seed 7")
    ended = run_notebook(project, notebook, target, *options, **variables)
    assert ended.returncode == 0, ended.stderr
    assert printed(target).split() == ["7", sys.prefix, str(notebook.parent), "1"]
    assert "[L2, seed 7] done in" in ended.stdout
    assert os.listdir(target.parent) == ["notebook.ipynb"]


FAILING = {  # sources of the cells, options, what is said
    "a cell": (
        ("x = 1", "# divide\ny = x / 0", "print('never')"),
        (),
        ("a.ipynb, cell", "y = x / 0", "ZeroDivisionError: division", "b.failed.ipynb"),
    ),
    "a killed kernel": (
        ("x = 1", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "print('never')"),
        (),
        ("import os, signal", "the kernel died", "CORES=1", "b.failed.ipynb"),
    ),
    "other work than asked for": (("x = 1",), ("--expect", "no/metrics.json"), ("left no no/metrics.json",)),
}


@pytest.mark.parametrize("case", FAILING)
def test_what_fails_is_named_and_its_notebook_kept(case, tmp_path, capsys):
    sources, options, words = FAILING[case]
    notebook, target = write_notebook(tmp_path / "a.ipynb", *sources), tmp_path / "out" / "b.ipynb"
    label = ("--label", "MixBCT, seed 0, exp/run")
    assert execute.main([str(notebook), str(target), *label, *options]) == 1
    said = capsys.readouterr().err
    assert [word for word in ("FAILED    MixBCT, seed 0", *words) if word not in said] == []
    assert not target.exists() and "never" not in printed(target.with_name("b.failed.ipynb"))


def occupy_first_ports(monkeypatch, kernels: float) -> None:
    """The first port of the first ``kernels`` kernels is one that somebody listens on."""
    from jupyter_client.provisioning.local_provisioner import LocalPortCache

    taken = socket.create_server(("127.0.0.1", 0))
    asked = itertools.count()
    really = LocalPortCache.find_available_port

    def find(cache, ip):
        turn, number = divmod(next(asked), 5)  # a kernel asks for five
        return taken.getsockname()[1] if turn < kernels and number == 0 else really(cache, ip)

    monkeypatch.setattr(LocalPortCache, "find_available_port", find)


def test_a_kernel_whose_port_was_taken_meanwhile_is_started_again(tmp_path, monkeypatch, capsys):
    notebook = write_notebook(tmp_path / "a.ipynb", "print('ran', seed)")
    target = tmp_path / "out" / "b.ipynb"
    target.parent.mkdir()
    target.with_name("b.failed.ipynb").touch()  # of a run before; it goes when one ends well
    occupy_first_ports(monkeypatch, kernels=2)
    assert execute.main([str(notebook), str(target), "--parameters", '{"seed": 4}']) == 0
    assert capsys.readouterr().out.count("starting it again") == 2
    assert printed(target) == "ran 4\n" and os.listdir(target.parent) == ["b.ipynb"]


def test_a_kernel_that_never_starts_is_given_up(tmp_path, monkeypatch, capsys):
    notebook = write_notebook(tmp_path / "a.ipynb", "x = 1")
    occupy_first_ports(monkeypatch, kernels=float("inf"))
    assert execute.main([str(notebook), str(tmp_path / "b.ipynb")]) == 1
    output = capsys.readouterr()
    assert output.out.count("starting it again") == execute.KERNEL_STARTS - 1
    assert "a.ipynb, before its first cell" in output.err and "Kernel died" in output.err


def test_a_parameters_cell_holds_literals_only(tmp_path):
    for name, parameters, words in (
        ("b", "seed = 0\nfolder = 'runs' + '/a'", "got: folder = 'runs' + '/a'"),
        ("c", "import os\nseed = 0", "got: import os"),
        ("d", "a = b = 0", "got: a = b = 0"),
        ("e", None, "0 cells have it"),
    ):
        notebook = write_notebook(tmp_path / f"{name}.ipynb", "x = 1", parameters=parameters)
        with pytest.raises(execute.NotebookError) as caught:
            execute.declared_parameters(notebook)
        assert words in caught.value.what


# -- plan.py -------------------------------------------------------------------------------------


@pytest.fixture
def stub(tmp_path, project, monkeypatch):
    """A stub project, with plan.py made to believe that it lies in it."""
    root = make_project(tmp_path / "stub", project)
    monkeypatch.setattr(plan, "ROOT", root)
    monkeypatch.setattr(plan, "NOTEBOOKS", root / "notebooks")
    return root


def test_a_preset_becomes_one_notebook_for_each_old_model_and_run(stub):
    preset, path, root = plan.read("tiny")
    assert root == stub / "runs" and path == stub / "configs" / "tiny.yml"
    old, l2, mixbct = plan.experiment_jobs(preset)
    stems = [job.notebook.stem for job in (old, l2, mixbct)]
    assert stems == ["01_old_system", "04_other_methods", "03_mixbct"]
    config = preset.experiments[1]
    assert mixbct.target == f"{config.experiment_id}/{config.run_id}/notebook.ipynb"
    assert l2.after == mixbct.after == (old.target,) and old.after == ()
    assert old.result == config.old_folder / "metrics.json"
    assert mixbct.result == root / config.experiment_id / config.run_id / "metrics.json"
    assert l2.parameters == {"runs_root": "runs", "seed": 0, "method": "l2", "settings": {"epochs": 3}}
    assert mixbct.parameters == {"runs_root": "runs", "seed": 0, "settings": {"epochs": 3}}
    assert old.parameters == mixbct.parameters
    assert len({job.label for job in (old, l2, mixbct)}) == 3


def test_experiments_have_names_for_people(stub):
    (stub / "configs" / "tiny.yml").write_text(
        "seeds: [3]\nsettings: [{}, {epochs: 4}, {scenario: open-data}]\nmethods:\n  - {method: l2}\n"
        "  - {method: mixbct, budget: passes, method_options: {mix_ratio: 0.2}}\n"
    )
    jobs = plan.experiment_jobs(plan.read("tiny")[0])
    found = list(plan.names(jobs).values())
    settings = list(dict.fromkeys(setting for setting, _ in found))
    title = "Portraits, open-class, softmax to ArcFace"
    data = "Portraits, open-data, softmax to ArcFace"
    assert settings == [f"{title}, epochs=20", f"{title}, epochs=4", data]
    assert {name for _, name in found} == {
        "Old model, seed 3",
        "L2 regression, seed 3",
        "MixBCT, equal backbone passes (mix_ratio=0.2), seed 3",
    }
    assert len(set(found)) == len(jobs)


def test_the_pages_are_told_the_preset_and_shown_one_compatible_run(stub):
    preset, path, root = plan.read("tiny")
    first, last = plan.page_jobs(preset, path, root)
    assert first.target == "tiny/start_here.ipynb" and first.parameters["method"] == "mixbct"
    assert last.target == "tiny/all_tables.ipynb"
    assert last.parameters == {"preset": "configs/tiny.yml", "runs_root": "runs"}
    others = [config.changed(protocol="leave-one-out") for config in preset.experiments]
    (alone,) = plan.page_jobs(dataclasses.replace(preset, experiments=others), path, root)
    assert alone.target == last.target  # of another protocol than all pairs


def test_the_site_adds_the_notebooks_that_no_comparison_needs(stub):
    preset, path, root = plan.read("tiny")
    jobs = plan.page_jobs(preset, path, root, plan.FOR_THE_SITE)
    stems = ("explore_features", "upgrade_a_gallery", "your_own_system", "costs")
    assert [job.target for job in jobs] == [f"tiny/{stem}.ipynb" for stem in stems]
    explore, gallery, own, costs = (job.parameters for job in jobs)
    assert gallery["method"] == "mixbct" and gallery["settings"] == {"epochs": 3}
    experiment = preset.experiments[0].experiment_id
    assert explore == {"runs_root": "runs", "experiment_id": experiment, "method": "mixbct"}
    assert own == {"runs_root": "runs"}  # its example and its training are no run of the preset
    assert costs == {"runs_root": "runs"}


def test_a_parameter_that_no_notebook_has_is_refused(stub):
    path = stub / "configs" / "tiny.yml"
    preset = path.read_text()
    for given, words in (
        ("ablaton: false", "no notebook has a parameter ablaton"),
        ("seed: 3", "seed belongs to runs: set it in defaults"),
    ):
        path.write_text(preset + f"notebooks: {{{given}}}\n")
        with pytest.raises(execute.NotebookError) as caught:
            plan.experiment_jobs(plan.read("tiny")[0])
        assert words in caught.value.what


def test_a_notebook_that_was_told_otherwise_or_lost_its_run_is_made_again(stub):
    def outdated(job, result=True, **told):
        (root / job.target).parent.mkdir(parents=True, exist_ok=True)
        metadata = {"papermill": {"parameters": job.parameters | told}}
        (root / job.target).write_text(json.dumps({"cells": [], "metadata": metadata}))
        if job.result is not None:
            job.result.unlink(missing_ok=True)
            job.result.write_text("[]") if result else None
        return plan.outdated(job, root)

    preset, path, root = plan.read("tiny")
    page, run = plan.page_jobs(preset, path, root)[-1], plan.experiment_jobs(preset)[-1]
    assert not plan.outdated(page, root) and not plan.outdated(run, root)  # not there yet
    assert not outdated(page) and outdated(page, metric="map")  # of the section notebooks, and left out now
    assert not outdated(run) and not outdated(run, seed=3, settings={}) and outdated(run, ablation=True)
    assert outdated(run, result=False)


def test_a_preset_with_other_values_is_written_among_its_runs(stub, tmp_path):
    changes = {"epochs": 1, "dataset_options": {"images": 3}, "methods": [{"method": "bct", "epochs": 7}]}
    path = plan.changed_preset("tiny", str(tmp_path / "runs"), changes)
    assert path == str(tmp_path / "runs" / "tiny" / "tiny.yml")
    (run,) = plan.read(path)[0].experiments
    assert (run.method, run.epochs, run.dataset_options) == ("bct", 1, {"images": 3})
    wrong = plan.changed_preset("tiny", str(tmp_path / "runs"), {"epoch": 1})
    with pytest.raises(ValueError, match="epoch"):
        plan.read(wrong)


def test_other_values_hold_for_what_stands_in_a_base_and_for_chains(stub, tmp_path):
    below, path = stub / "configs" / "below.yml", stub / "configs" / "above.yml"
    below.write_text("methods: [{method: l2}, {method: bct}]\nchains: [{after: l2, epochs: 7}]")
    path.write_text("base: below.yml\nsettings: [{scenario: open-data}]")
    runs = plan.read(plan.changed_preset("above", str(tmp_path), {"epochs": 1}))[0].experiments
    found = [(one.method, one.epochs, one.scenario) for one in runs]
    assert found == [(name, 1, "open-data") for name in ("l2", "bct", "independent", "l2")]


def test_a_runs_root_elsewhere_is_named_in_full(stub, tmp_path):
    preset, _, root = plan.read("tiny", str(tmp_path / "elsewhere"))
    assert root == tmp_path / "elsewhere"
    assert plan.experiment_jobs(preset)[0].parameters["runs_root"] == str(root)
    assert plan.in_project("~/data") == str(Path("~/data").expanduser().resolve())


def test_a_field_that_would_be_lost_is_refused(stub):
    """The run would silently be another experiment."""
    path = stub / "notebooks" / "03_mixbct.ipynb"
    experiment_notebook(path, "'mixbct'", "run_folder", parameters="seed = 0\nruns_root = 'runs'")
    config = ExperimentConfig(method="mixbct", epochs=3, seed=5)
    with pytest.raises(execute.NotebookError) as caught:
        plan.notebook_parameters(path, config, fixed=("method",))
    assert "the preset sets epochs, which it does not declare" in caught.value.what
    config = ExperimentConfig(method="mixbct", seed=5)
    expected = {"seed": 5, "runs_root": "runs"}
    assert plan.notebook_parameters(path, config, fixed=("method",)) == expected


# -- reproduce.py --------------------------------------------------------------------------------


def targets(root: Path) -> dict[str, int]:
    """Executed notebooks of the experiments and when they were written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in root.glob("runs/*/*-s0-*/notebook.ipynb")}


def wait_for(words: str, process: subprocess.Popen) -> str:
    seen = ""
    for line in process.stdout:
        seen += line
        if words in line:
            return seen
    raise AssertionError(f"{words!r} never came: {seen}")


def own_processes(root: Path) -> list[psutil.Process]:
    """Whoever works in the project's folder: Snakemake, execute.py, kernels."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(root) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.slow
def test_killed_failed_and_given_again(tmp_path, project):
    """One story, because every act needs the one before: killed; a kernel dies; mended."""
    root = make_project(tmp_path / "stub", project)

    # Killed while the first methods run: nobody stays behind, the old model is there.
    first = start(root, "--cores", "2", STUB_SECONDS="600")
    wait_for("done in", first)
    wait_for("started", first)
    first.send_signal(signal.SIGKILL)
    first.wait()
    deadline = time.monotonic() + 120
    while (left := own_processes(root)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left
    killed = targets(root)
    assert [name.split("-")[0] for name in killed] == ["old"]
    # Snakemake may have had the time to take its lock away, which a machine that went dark leaves behind.
    lock = root / "runs" / ".snakemake" / "locks" / "0.output.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text("tiny/all_tables.ipynb\n")

    # The same command, and MixBCT's kernel dies: the others end, the master is made, the status says so.
    second = start(root, "--cores", "2", STUB_DIES="mixbct")
    output, _ = second.communicate()
    assert second.returncode == 1, output
    assert "2 to do" in output
    assert "FAILED    mixbct, seed 0" in output and "the kernel died" in output, output
    assert "1 of 5 did not end well" in output and "notebook.failed.ipynb" in output, output
    failed = targets(root)
    assert sorted(name.split("-")[0] for name in failed) == ["l2", "old"]
    assert failed.items() >= killed.items(), "what had finished was repeated"
    assert "2 runs of tiny.yml" in printed(root / "runs" / "tiny" / "all_tables.ipynb")
    site = root / "runs" / "tiny" / "site"
    assert "MixBCT, seed 0</p></td>\n<td><p>failed" in (site / "runs.html").read_text()

    # Mended, and the site asked for: this one and pages, and no other experiment, although every notebook is
    # newer than its runs now, as after a fresh checkout.
    for notebook in (root / "notebooks").glob("*.ipynb"):
        notebook.touch()
    third = start(root, "--cores", "2", "--site")
    output, _ = third.communicate()
    assert third.returncode == 0, output
    assert "1 to do" in output
    begun = re.findall(r"\[(\w+)[^\]]*\] started", output)
    assert begun[0] == "mixbct" and sorted(begun[1:]) == sorted((*plan.PAGES, *plan.FOR_THE_SITE))
    assert targets(root).items() >= failed.items()
    assert "3 runs of tiny.yml" in printed(root / "runs" / "tiny" / "all_tables.ipynb")
    assert not list(root.glob("runs/*/*/notebook.failed.ipynb"))
    assert f"Open {site / 'index.html'}" in output
    assert all((site / f"{stem}.html").is_file() for stem in (*plan.FOR_THE_SITE, "03_mixbct"))


def test_a_living_workflow_is_not_disturbed(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "PATIENCE", 0)
    runs = tmp_path / "runs"
    (runs / ".snakemake" / "locks").mkdir(parents=True)
    (runs / ".snakemake" / "locks" / "0.input.lock").touch()
    owner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "snakemake"], cwd=runs)
    try:
        local = reproduce.PROFILES / reproduce.LOCAL
        workflow = reproduce.Workflow(tmp_path / "x.yml", runs, cores=1, profile=local)
        with pytest.raises(RuntimeError, match=rf"process {owner.pid}\) is at work in .*: wait for it or"):
            workflow.clear_lock()
    finally:
        owner.kill()
        owner.wait()


@pytest.fixture
def refused(monkeypatch, capsys):
    """What the driver says of arguments that it refuses."""

    def said(*arguments):
        monkeypatch.setattr(sys, "argv", ["reproduce.py", "--preset", *map(str, arguments)])
        assert reproduce.main() == 1
        return capsys.readouterr().err

    return said


def test_an_unknown_preset_is_a_sentence(refused):
    message = refused("quik")
    assert "there is no preset" in message and "quick" in message and "Traceback" not in message


@pytest.mark.parametrize(
    ("defaults", "words"),
    [
        ("dataset: folder, dataset_options: {path: none}", "none has no folder train; expected"),
        ("method_options: {weight: '0.4'}", "weight must be a number of at least 0, not '0.4'"),
    ],
)
def test_what_cannot_be_is_said_once_and_before_any_notebook(monkeypatch, refused, tmp_path, defaults, words):
    (tmp_path / "p.yml").write_text(
        f"defaults: {{{defaults}}}\nmethods: [{{method: l2}}, {{method: weakened_l2}}]\n"
    )
    monkeypatch.setattr(reproduce.Workflow, "make", None)
    said = refused(tmp_path / "p.yml", "--runs-root", tmp_path / "runs")
    assert said.count(words) == 1 and "p.yml, portraits" in said.replace("none-open", "portraits-open")


def test_a_folder_that_cannot_be_written_is_a_sentence(monkeypatch, refused, tmp_path):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    said = refused("smoke", "--runs-root", tmp_path)
    assert "no space is left on the disk; name another folder with --runs-root" in said


PROTOCOLS_OF = {  # preset of a published setting -> notebooks without a page
    "dual-tuning-market1501": {"00_start_here", "06_upgrade_a_gallery"},
    "bt2-cifar100": {"00_start_here"},
}


@pytest.mark.parametrize(
    ("asked", "ablation", "authors"),
    [("", False, None), ("notebooks: {results_root: results, ablation: true}\n", True, "results")],
)
def test_a_preset_of_ones_own_images_has_neither_ablations_nor_the_authors_runs(
    tmp_path, asked, ablation, authors
):
    lines = "defaults: {dataset: folder, dataset_options: {path: x}, old_features: y.csv}\n"
    path = tmp_path / "mine.yml"
    path.write_text(f"{lines}methods: [{{method: mixbct}}]\n{asked}")
    preset = load_preset(path, runs_root=str(tmp_path))
    (page,) = plan.page_jobs(preset, path, tmp_path)  # 00 trains old models, which are not there
    assert "06_upgrade_a_gallery" in {job.notebook.stem for job in plan.all_jobs(preset, path, tmp_path)}
    said = pages.page_of_runs([], {}, tmp_path, plan.left_out(preset))
    assert "*00_start_here* has no page: it trains a second old model, and the old side is a file" in said
    assert "*01_old_system* has no page: it looks into an old network" in said
    assert page.parameters["results_root"] == authors
    (job,) = plan.experiment_jobs(preset)  # nor is there an old model's page
    assert job.after == () and job.parameters["ablation"] is ablation


def test_a_preset_has_no_page_of_a_notebook_that_its_method_cannot_play(tmp_path):
    mapped = [name for name, method in losses.METHODS.items() if method.asks != "new model"]
    assert sorted(plan.MAPPED) == sorted(mapped)
    for methods, shown in (("fct", "fct"), ("fct bct", "bct"), ("fct independent", "fct")):
        listed = ", ".join(f"{{method: {name}}}" for name in methods.split())
        path = tmp_path / "mine.yml"
        path.write_text(f"defaults: {{dataset: portraits}}\nmethods: [{listed}]\n")
        preset = load_preset(path, runs_root=str(tmp_path))
        assert plan.shown_first(preset).method == shown
        assert ("06_upgrade_a_gallery" in plan.left_out(preset)) == (shown == "fct")
        own = [job for job in plan.all_jobs(preset, path, tmp_path) if job.notebook.stem == plan.OWN_EXAMPLE]
        assert "method" not in own[0].parameters  # its training is its own


def test_a_protocol_with_queries_of_its_own_has_no_page_of_notebooks_that_divide_the_test():
    left = {name: set(plan.left_out(load_preset(plan.preset_path(f"paper/{name}")))) for name in PROTOCOLS_OF}
    assert left == PROTOCOLS_OF


def test_a_wider_new_model_has_no_first_lesson(tmp_path):
    path = tmp_path / "wider.yml"
    path.write_text(
        "defaults: {dataset: portraits, old_width: 64, new_width: 128}\nmethods: [{method: bct}]\n"
    )
    preset = load_preset(path, runs_root=str(tmp_path))
    assert "one width" in plan.left_out(preset)["00_start_here"]
    assert "00_start_here" not in {job.notebook.stem for job in plan.page_jobs(preset, path, tmp_path)}
