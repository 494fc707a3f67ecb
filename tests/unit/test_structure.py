"""Promises about the repository as a whole: notebooks as committed, imports, paths, README."""

import ast
import json
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
from execute import declared_parameters, read_cells

ROOT = Path(__file__).resolve().parent.parent.parent
LONGEST_CELL = 25  # lines of code; most have 3 to 10
LONGEST_ALGORITHM = 40  # where an algorithm is shown, open (tag "show-input")


def repository_files() -> list[str]:
    """Tracked files, and new ones that git does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted(name for name in listed.split("\0") if name and (ROOT / name).is_file())


def notebooks() -> list[Path]:
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


# -- notebooks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_a_committed_notebook_carries_no_trace_of_a_run(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    assert "papermill" not in content["metadata"] and "widgets" not in content["metadata"]
    for cell in content["cells"]:
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", cell["id"])
        left = {"papermill", "execution", "ExecuteTime"} & set(cell["metadata"])
        assert not left, f"cell {cell['id']} has metadata of a run: {left}; run make format"
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None, "outputs: run make format"
    ids = [cell["id"] for cell in content["cells"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_the_first_code_cell_holds_the_parameters(path):
    cells = read_cells(path)
    first = next(cell for cell in cells if cell["cell_type"] == "code")
    assert "parameters" in first["metadata"].get("tags", [])
    assert declared_parameters(path)  # literals only, or it raises
    lines = ["", *first["source"].splitlines()]
    for above, line in zip(lines, lines[1:], strict=False):
        explained = "#" in line or above.startswith("#")
        assert explained, f"a parameter without a comment beside or above it: {line}"
    assert cells[0]["cell_type"] == "markdown" and cells[0]["source"].startswith("# ")


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_cells_are_short_and_introduced(path):
    cells = read_cells(path)
    for before, cell in zip(cells, cells[1:], strict=False):
        if cell["cell_type"] != "code":
            continue
        lines = [line for line in cell["source"].splitlines() if line.strip()]
        tags = cell["metadata"].get("tags", [])
        longest = LONGEST_ALGORITHM if "show-input" in tags else LONGEST_CELL
        assert len(lines) <= longest or "parameters" in tags, f"{len(lines)} lines in {lines[0]!r}"
        assert before["cell_type"] == "markdown", f"no prose before the cell {lines[0]!r}"


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_a_notebook_leaves_the_environment_alone(path):
    for cell in read_cells(path):
        if cell["cell_type"] == "code":
            assert not re.search(r"sys\.path|%pip|!pip|simplefilter\(.ignore", cell["source"])


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_a_notebook_says_near_the_top_how_long_it_takes(path):
    top = "\n".join(cell["source"] for cell in read_cells(path)[:4])
    said = re.search(r"\*Time\.\*(.+?)(?:\n\n|$)", top, flags=re.DOTALL)
    assert said and "two" in said[1] and "GPU" in said[1]


# -- imports -------------------------------------------------------------------------------------


FLOORS = {  # room: which others of compat_lib it stands on; all may write files
    "files": set(),
    "names": set(),
    "config": set(),
    "presets": {"config"},
    "data": {"config"},
    "networks": {"config"},
    "models": {"config", "data", "networks"},
    "evaluation": set(),
    "adapters": {"evaluation"},
    "class_means": set(),
    "user_arrays": {"class_means", "evaluation"},
    "old_system": {"class_means", "user_arrays"},
    "distributed": set(),
    "optimisation": {"config"},
    "losses": {  # the first for one that distils, the fourth for a map's own training
        *("adapters", "distributed", "old_system", "optimisation", "user_arrays"),
    },
    "orthogonal_adapter": {"data", "evaluation", "losses"},
    "checkpoint": {"distributed", "losses"},
    "finite": {"losses"},
    "training": {
        *("checkpoint", "config", "data", "distributed", "finite"),
        *("losses", "models", "old_system", "optimisation", "user_arrays"),
    },
    "runs": {  # the last for its type
        *("config", "data", "distributed", "evaluation", "models", "trained_model"),
    },
    "trained_model": {"losses", "models", "runs"},
    "deploy": {  # reads runs
        *("adapters", "config", "evaluation", "experiment_data", "orthogonal_adapter", "user_arrays"),
    },
}


def imported(path: Path) -> set[str]:
    """Dotted names of the modules that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "compat_lib":
            names |= {f"compat_lib.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


@pytest.mark.parametrize("room", FLOORS)
def test_no_import_runs_back_up(room):
    place = ROOT / "compat_lib" / room
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    assert files and all(path.is_file() for path in files)
    for path in files:
        house = {name.split(".")[1] for name in imported(path) if name.startswith("compat_lib.")}
        extra = house - FLOORS[room] - {room, "files", "names", "__version__"}
        assert not extra, f"{path.name} imports {extra}"


def test_the_library_knows_nothing_of_what_notebooks_show():
    for path in sorted((ROOT / "compat_lib").rglob("*.py")):
        assert not {name for name in imported(path) if name.split(".")[0] == "companion"}, path.name


def test_no_two_modules_have_one_name():
    names = [p.name for room in ("compat_lib", "companion", "workflow") for p in (ROOT / room).rglob("*.py")]
    names = [name for name in names if not name.startswith("__")]
    assert sorted(names) == sorted(set(names))


# -- files ---------------------------------------------------------------------------------------


def test_no_file_names_a_machine():
    """Neither a home nor a system folder, nor the address of a package index."""
    folders = "|".join(("home", "root", "Users", "tmp", "work", "mnt", "private", "scratch"))
    own_path = re.compile(rf"(?<![\w.~/-])/({folders})/\w|[A-Z]:\\\\\w")
    index = re.compile(r"index-url\s*[= ]\s*\S*://|https?://\S+/simple\b")
    for name in repository_files():
        data = (ROOT / name).read_bytes()
        if b"\0" in data:
            continue
        for number, line in enumerate(data.decode("utf-8").splitlines(), 1):
            assert not own_path.search(line), f"{name}:{number}: {line[:120]}"
            assert not index.search(line), f"{name}:{number}: {line[:120]}"


def test_what_is_built_is_not_committed():
    for name in repository_files():
        assert not name.startswith((".venv/", "runs/", "data/", ".snakemake/")), name
        assert (ROOT / name).stat().st_size < 1_500_000, f"{name} is large"


# -- README --------------------------------------------------------------------------------------


@cache
def made(*words: str) -> str:
    """What make says of a target, without making it."""
    return subprocess.run(["make", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def make_targets() -> set[str]:
    targets = set(re.findall(r"^  ([a-z]+) ", made(), flags=re.MULTILINE))
    assert all(made("-n", target) for target in targets)
    return targets


def test_every_command_in_the_readme_is_a_make_target():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```.*?```|`[^`\n]+`", text, flags=re.DOTALL)
    named = set(re.findall(r"\bmake ([a-z]+)\b", "\n".join(snippets)))
    assert {"reproduce", "test", "lab"} <= named
    assert named <= make_targets()


def test_a_bare_make_lists_every_target():
    written = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert set(written) == make_targets()


def test_jupyterlab_takes_further_options_and_a_bare_make_says_so():
    said = made("-n", "-o", "env", "lab", "LAB=--no-browser --allow-root")
    assert "NeverCheckForUpdate --no-browser --allow-root\n" in said
    assert "LAB=" in made()
    presets = re.search(r"PRESET=(\S+)", made())[1].split("|")
    assert sorted(presets) == sorted(path.stem for path in (ROOT / "configs").glob("*.yml"))
