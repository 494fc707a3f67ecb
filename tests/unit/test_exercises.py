"""Every notebook ends with exercises, and each solution is a folded cell that runs with the notebook."""

import ast
import re
from pathlib import Path

import pytest
from execute import read_cells

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_ends_with_exercises_and_folded_solutions(path):
    cells = read_cells(path)
    (start,) = [i for i, cell in enumerate(cells) if re.match(r"## (\d+ )?Exercises\n\s*\S", cell["source"])]
    asked = [i for i, cell in enumerate(cells) if re.match(r"\*\*Exercise \d+\.\*\* \S", cell["source"])]
    solved = [i for i, cell in enumerate(cells) if "solution" in cell["metadata"].get("tags", [])]
    assert len(asked) >= 3 and asked[0] > start
    assert solved == [i + 1 for i in asked], "one solution right after each exercise"
    assert any("predict" in cells[i]["source"].lower() for i in asked), "no exercise asks to predict"
    later = [cell for cell in cells[solved[-1] + 1 :] if cell["cell_type"] == "code"]
    assert len(later) <= 1, "after the solutions comes only the cell of the recorded values"
    asserts = 0
    for number, (question, i) in enumerate(zip(asked, solved, strict=True), 1):
        source = cells[i]["source"]
        assert cells[question]["source"].startswith(f"**Exercise {number}.**")
        assert cells[i]["cell_type"] == "code" and source.startswith(f"# Solution {number}: ")
        assert cells[i]["metadata"]["jupyter"] == {"source_hidden": True, "outputs_hidden": True}
        nodes = list(ast.walk(ast.parse(source)))
        called = {getattr(node.func, "id", "") for node in nodes if isinstance(node, ast.Call)}
        claims = sum(isinstance(node, ast.Assert) for node in nodes)
        assert claims or called & {"print", "display"}, f"solution {number} says nothing"
        asserts += claims
    assert asserts, "solutions that claim nothing are not tested"
