"""Every notebook ends with exercises, and each solution is a folded cell that runs with the notebook."""

import ast
import copy
import re
from pathlib import Path

import pytest
from execute import read_cells

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
FOLDED = {"source_hidden": True, "outputs_hidden": True}
FEWEST = 3
SECTION = re.compile(r"## (\d+ )?Exercises\n\s*\S")
EXERCISE = re.compile(r"\*\*Exercise (\d+)\.\*\* \S")


def faults(cells: list[dict]) -> list[str]:
    """What a notebook's exercises lack, in sentences; nothing where they are as they should be."""
    starts = [i for i, cell in enumerate(cells) if SECTION.match(said(cell))]
    if len(starts) != 1:
        return [f"{len(starts)} markdown cells begin with '## Exercises'; there must be one, with a sentence"]
    found, tail = [], cells[starts[0] + 1 :]
    numbers = [match[1] for cell in tail if (match := asked(cell))]
    if len(numbers) < FEWEST:
        found.append(f"{len(numbers)} exercises; there must be {FEWEST}")
    if numbers != [str(k + 1) for k in range(len(numbers))]:
        found.append(f"the exercises are numbered {', '.join(numbers)}")
    if not any("predict" in cell["source"].lower() for cell in tail if asked(cell)):
        found.append("no exercise asks to predict")
    for at, cell in enumerate(tail):
        if match := asked(cell):
            found += solution_faults(match[1], tail[at + 1] if at + 1 < len(tail) else None)
    solved = [at for at, cell in enumerate(cells) if "solution" in tags(cell)]
    if len(solved) != len(numbers):
        found.append(f"{len(solved)} cells have the tag 'solution' for {len(numbers)} exercises")
    later = [cell for cell in cells[max(solved, default=0) + 1 :] if cell["cell_type"] == "code"]
    if len(later) > 1:
        found.append(f"{len(later)} code cells follow the solutions; only that of the recorded values may")
    return found


def solution_faults(number: str, cell: dict | None) -> list[str]:
    """What one solution lacks."""
    where = f"solution {number}"
    if cell is None or cell["cell_type"] != "code":
        return [f"{where}: exercise {number} is not followed by a code cell"]
    found = []
    if cell["metadata"].get("jupyter") != FOLDED or "solution" not in tags(cell):
        found.append(f"{where} is not folded, or has no tag 'solution': {cell['metadata']}")
    if not re.match(rf"# Solution {number}: \S", cell["source"]):
        found.append(f"{where} does not begin with '# Solution {number}: ...'")
    nodes = list(ast.walk(ast.parse(cell["source"])))
    called = [node.func for node in nodes if isinstance(node, ast.Call)]
    spoken = any(isinstance(func, ast.Name) and func.id in ("print", "display") for func in called)
    if not spoken and not any(isinstance(node, ast.Assert) for node in nodes):
        found.append(f"{where} neither prints a sentence nor asserts anything")
    return found


def asked(cell: dict) -> re.Match | None:
    """The exercise that a markdown cell poses."""
    return EXERCISE.match(said(cell))


def said(cell: dict) -> str:
    """The text of a markdown cell."""
    return cell["source"] if cell["cell_type"] == "markdown" else ""


def tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_ends_with_exercises_and_folded_solutions(path):
    assert faults(read_cells(path)) == []


def test_there_are_notebooks_to_look_at():
    assert len(NOTEBOOKS) >= 6


# -- the rules themselves, on a notebook that keeps them and on notebooks that do not ------------------


def keeping() -> list[dict]:
    """The cells of a notebook with three exercises that keep every rule."""

    def text(source: str) -> dict:
        return {"cell_type": "markdown", "source": source, "metadata": {}}

    def code(source: str, **metadata) -> dict:
        return {"cell_type": "code", "source": source, "metadata": metadata}

    cells = [text("# A title"), code("a = 1"), text("## Exercises\n\nThree questions.")]
    for number in (1, 2, 3):
        ask = "*Predict first.* " if number == 2 else ""
        cells.append(text(f"**Exercise {number}.** {ask}What is a?"))
        cells.append(code(f"# Solution {number}: a\nassert a == 1", jupyter=dict(FOLDED), tags=["solution"]))
    return [*cells, text("The last cell collects values."), code("print(a)")]


def change(place: int, **fields):
    return lambda cells: cells[place].update(fields)


def test_a_notebook_that_keeps_the_rules_has_no_fault():
    assert faults(keeping()) == []


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (change(2, source="## Questions\n\nThree."), "0 markdown cells begin with '## Exercises'"),
        (lambda cells: cells.__delitem__(slice(7, 9)), "2 exercises; there must be 3"),
        (change(3, source="**Exercise 4.** What?"), "the exercises are numbered 4, 2, 3"),
        (change(5, source="**Exercise 2.** What is a?"), "no exercise asks to predict"),
        (lambda cells: cells.insert(4, cells[0]), "exercise 1 is not followed by a code cell"),
        (change(4, metadata={"tags": ["solution"]}), "solution 1 is not folded"),
        (change(4, metadata={"jupyter": FOLDED}), "solution 1 is not folded, or has no tag"),
        (change(6, source="print(a)"), "solution 2 does not begin with"),
        (change(8, source="# Solution 3: a\na + 1"), "solution 3 neither prints"),
        (lambda cells: cells.insert(1, cells[4]), "4 cells have the tag 'solution' for 3 exercises"),
        (lambda cells: cells.append(cells[1]), "2 code cells follow the solutions"),
    ],
)
def test_a_broken_rule_is_named(spoil, said):
    cells = copy.deepcopy(keeping())
    spoil(cells)
    assert any(said in fault for fault in faults(cells)), faults(cells)
