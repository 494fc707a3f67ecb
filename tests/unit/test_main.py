import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import compat_lib.__main__ as command
import compat_lib.deploy.check
from compat_lib.deploy.check import check_compatibility

ROOT = Path(__file__).resolve().parents[2]
MEASURE = "compat_lib.deploy.check.compatibility.measure"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of an old model, a better one of the same space, one of another space, and broken ones."""
    place = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(30), 5)
    centres = rng.normal(size=(30, 12))
    old, new = (centres[labels] + noise * rng.normal(size=(150, 12)) for noise in (1.2, 0.6))
    np.savez(place / "old.npz", features=old, labels=labels)
    np.savez(place / "new.npz", features=new, labels=labels)
    np.savez(place / "apart.npz", features=new @ np.linalg.qr(rng.normal(size=(12, 12)))[0], labels=labels)
    # Only queries of one identity get better: in a draw without it nothing is gained.
    np.savez(place / "near.npz", features=np.where(labels[:, None] == 0, centres[0], old), labels=labels)
    np.savez(place / "wide.npz", features=np.c_[new, new], labels=labels)
    order = rng.permutation(150)
    np.savez(place / "shuffled.npz", features=new[order], labels=labels[order], ids=order)
    np.savez(place / "named.npz", features=old, labels=labels, ids=np.arange(150))
    np.savez(place / "pickled.npz", features=old, labels=labels.astype(object))
    (place / "text.npz").write_text("features")
    os.link(place / "old.npz", place / "also_old.npz")
    return place


@pytest.fixture
def check(folder, monkeypatch, capsys):
    """A function that runs the command in the folder and returns exit code, output and errors."""
    monkeypatch.chdir(folder)

    def run(*arguments):
        try:
            code = command.main(["check", *map(str, arguments)])
        except SystemExit as left:
            code = left.code
        return code, *capsys.readouterr()

    return run


def too_early(*_):
    pytest.fail("it began to compute")


def refused(answer, *parts):
    """Exit code 2, nothing on standard output, and one line on standard error that holds the parts."""
    code, out, errors = answer
    assert (code, out) == (2, "") and errors.count("\n") == 1 and "Traceback" not in errors
    assert errors.startswith("python -m compat_lib")
    return all(part in errors for part in parts)


# -- answers -------------------------------------------------------------------------------------


def test_compatible_is_0_and_not_compatible_1(check, folder):
    code, out, errors = check("old.npz", "new.npz", "--draws", 30)
    assert code == 0 and out.startswith("Compatible: ") and errors == ""
    data = [np.load(folder / name) for name in ("old.npz", "new.npz")]
    expected = check_compatibility(*(one["features"] for one in data), data[0]["labels"], draws=30)
    assert out == expected.summary() + "\n"
    code, out, errors = check("old.npz", "apart.npz", "--draws", 30)
    assert code == 1 and out.startswith("Not compatible: ") and errors == ""


def test_undecided_is_1_unless_noise_is_ignored(check):
    options = ["--draws", 60, "--metric", "map", "--no-adapter"]
    code, out, _ = check("old.npz", "near.npz", *options)
    assert code == 1 and out.startswith("Undecided: ")
    assert check("old.npz", "near.npz", *options, "--ignore-noise")[0] == 0
    assert check("old.npz", "apart.npz", "--draws", 30, "--ignore-noise", "--no-adapter")[0] == 1
    assert check("old.npz", "old.npz", "--draws", 5, "--ignore-noise")[0] == 1


def test_ids_bring_rows_together(check):
    _, plain, _ = check("old.npz", "new.npz", "--draws", 10)
    assert check("named.npz", "shuffled.npz", "--draws", 10) == (0, plain, "")


def test_options_reach_the_library(check, monkeypatch):
    seen = {}
    real = compat_lib.deploy.check.check_sides

    def spy(*sides, **options):
        seen.update(options)
        return real(*sides, **options)

    monkeypatch.setattr("compat_lib.deploy.check.check_sides", spy)
    options = ["--metric", "MAP", "--no-adapter", "--queries", 50, "--draws", 7, "--seed", 3]
    code, out, _ = check("old.npz", "new.npz", *options)
    assert code == 0 and "adapter" not in out and "of which 50, drawn at random" in out.replace("\n", " ")
    expected = {"metric": "MAP", "adapter": False, "queries": 50, "draws": 7, "seed": 3, "say": None}
    assert seen == expected


def test_json_holds_everything(check, folder, tmp_path):
    code, _, _ = check("old.npz", "new.npz", "--draws", 10, "--json", tmp_path / "all.json")
    record = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    assert record["verdict"] == "compatible" and record["exit_code"] == code == 0
    assert record["compatible"] is record["above"] is True
    assert record["metrics"]["new_old/map"] > record["metrics"]["old_old/map"]
    assert [one["name"] for one in record["files"]] == ["old.npz", "new.npz"]
    assert record["paragraph"].startswith("Compatible")
    assert [path.name for path in tmp_path.iterdir()] == ["all.json"]


def test_a_report_is_written_whole(check, tmp_path):
    (tmp_path / "page.html").write_text("an earlier one")
    code, out, errors = check("old.npz", "apart.npz", "--draws", 10, "--report", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert code == 1 and errors == "" and page.endswith("</html>\n") and "apart.npz" in page
    assert str(tmp_path) not in page
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "old, new, parts",
    [
        ("old.npz", "wide.npz", ["the old features have 12 columns and the new ones 24", "width 12"]),
        ("none.npz", "new.npz", ["none.npz: there is no such file"]),
        ("old.npz", "text.npz", ["text.npz is damaged, or not an npz archive"]),
        ("pickled.npz", "new.npz", ["pickled.npz: 'labels' holds Python objects"]),
        ("old.npz", "shuffled.npz", ["only the new side has ids"]),
        (".", "new.npz", ["is not a file"]),
    ],
)
def test_unusable_input_is_2_with_its_reason(check, old, new, parts):
    assert refused(check(old, new), *parts)


@pytest.mark.parametrize(
    "options, part",
    [
        (["--metric", "auc"], "the metric 'auc' is not known"),
        (["--draws", "-1"], "'-1' was given; give a whole number of at least 0"),
        (["--queries", "0"], "'0' was given; give a whole number of at least 1"),
        (["--seed", "1.5"], "'1.5' was given"),
        (["--frobnicate"], "unrecognized arguments: --frobnicate"),
        (["--rep", "page.html"], "unrecognized arguments: --rep"),
        (["third.npz"], "unrecognized arguments: third.npz"),
        (["--metric", "tar@far=1e-9"], "cannot be measured"),
        (["--report", "nowhere/page.html"], "nowhere/page.html cannot be written: No such file or directory"),
        (["--report", "x" * 300], "File name too long"),
        (["--report", "."], ". cannot be written: it is there and not a file"),
        (["--json", os.devnull], "cannot be written: it is there and not a file"),
        (["--report", "./old.npz"], "old.npz is an input and would be overwritten"),
        (["--json", "a.html", "--report", "./a.html"], "--report and --json both name"),
        (["--report", "also_old.npz"], "also_old.npz is an input and would be overwritten"),
    ],
)
def test_a_wrong_option_is_2_before_anything_is_computed(check, monkeypatch, options, part):
    monkeypatch.setattr(
        "compat_lib.deploy.check.compatibility.measure", lambda *_: pytest.fail("it began to compute")
    )
    assert refused(check("old.npz", "new.npz", *options), part)


def test_a_protected_page_is_not_replaced(check, monkeypatch, tmp_path):
    (tmp_path / "page.html").write_text("keep")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write to everything
    answer = check("old.npz", "new.npz", "--report", tmp_path / "page.html")
    assert refused(answer, "page.html cannot be written: it is protected against writing")
    assert (tmp_path / "page.html").read_text() == "keep"


def test_nothing_asked_is_2(capsys):
    for arguments in ([], ["check"], ["check", "old.npz"], ["chekc", "a", "b"]):
        with pytest.raises(SystemExit) as left:
            command.main(arguments)
        assert left.value.code == 2
        assert refused((2, *capsys.readouterr()))


def test_a_report_without_matplotlib_is_2_at_once(check, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(
        "compat_lib.deploy.check.compatibility.measure", lambda *_: pytest.fail("it began to compute")
    )
    assert refused(check("old.npz", "new.npz", "--report", "page.html"), "the report needs matplotlib")


def test_a_disk_that_fills_up_leaves_no_half_page(check, monkeypatch, tmp_path):
    def full(self, *_, **__):
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    code, out, errors = check("old.npz", "new.npz", "--draws", 5, "--json", tmp_path / "all.json")
    assert code == 2 and "cannot be written: No space left on device" in errors
    assert out.startswith("Compatible")  # minutes of work are not lost
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error, code, part",
    [
        (MemoryError(), 2, "the memory is not enough"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."),
            2,
            "the memory is not enough",
        ),
        (KeyboardInterrupt(), 130, "stopped"),
        (ZeroDivisionError("ours"), 3, "Traceback"),
        (ValueError("ours"), 3, "says nothing about the models"),
    ],
)
def test_a_fault_is_never_taken_for_an_answer(check, monkeypatch, error, code, part):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr("compat_lib.deploy.check.check_sides", broken)
    found, out, errors = check("old.npz", "new.npz")
    assert found == code and out == "" and part in errors


# -- as a command --------------------------------------------------------------------------------


def run(*arguments, cwd=ROOT, code=""):
    """Run the command in its own process, after some code."""
    program = f"{code}\nimport runpy, sys\nsys.argv = ['compat_lib', *{list(arguments)!r}]\n"
    program += "runpy.run_module('compat_lib', run_name='__main__')"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_the_process_ends_with_the_code_and_needs_the_core_only(folder):
    blocked = ("matplotlib", "pandas", "sklearn", "scipy", "seaborn", "faiss", "IPython")
    ended = run(
        *("check", "old.npz", "apart.npz", "--draws", "5"),
        cwd=folder,
        code=f"import sys; sys.modules.update(dict.fromkeys({blocked!r}))",
    )
    assert (ended.returncode, ended.stderr) == (1, "") and ended.stdout.startswith("Not compatible")


def test_a_reader_who_leaves_does_not_change_the_answer(folder):
    reading, writing = os.pipe()
    os.close(reading)
    arguments = [sys.executable, "-m", "compat_lib", "check", "old.npz", "apart.npz", "--draws", "0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(arguments, cwd=folder, env=environment, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_answer_that_cannot_be_printed_is_2_and_its_files_are_written(folder, tmp_path):
    arguments = [sys.executable, "-m", "compat_lib", "check", "old.npz", "apart.npz", "--draws", "0"]
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [*arguments, "--json", tmp_path / "all.json"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert "the answer cannot be printed: No space left on device" in ended.stderr
    assert json.loads((tmp_path / "all.json").read_text())["verdict"] == "not compatible"


@pytest.mark.parametrize("new, code", [("apart.npz", 1), ("none.npz", 2)])
def test_a_closed_or_full_standard_error_does_not_change_the_answer(check, monkeypatch, new, code):
    class Full:
        def isatty(self):
            return False

        def write(self, text):
            raise OSError(28, "No space left on device")

    for stream in (None, Full()):
        monkeypatch.setattr(sys, "stderr", stream)
        found, out, _ = check("old.npz", new, "--draws", 0, "--no-adapter")
        assert found == code and bool(out) == (code == 1)


def test_help_and_wrong_options_do_not_wait_for_torch():
    blocked = "import sys; sys.modules.update(dict.fromkeys(('torch', 'numpy')))"
    helped = run("check", "--help", code=blocked)
    assert helped.returncode == 0 and "--report PAGE" in helped.stdout and "example:" in helped.stdout
    wrong = run("check", "old.npz", "new.npz", "--draws", "-1", code=blocked)
    assert wrong.returncode == 2 and "whole number" in wrong.stderr
