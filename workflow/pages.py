"""Build the pages of a preset from what its runs have left: one folder with a search, which needs no network.

    python workflow/pages.py --preset quick        (the last step of make reproduce and make site)

Sphinx draws the executed notebooks and the documents. They are laid side by side first, each under one
name, because a run's notebook lies in the run's folder. The master notebook is the first page: it opens
on the result. A notebook that has not run has no page: the page of all runs says so.
"""

import argparse
import json
import os
import re
import shutil
import sys
from collections import Counter
from pathlib import Path

import plan
from execute import NotebookError

from compat_lib.files import write_text

TEMPLATE = Path(__file__).resolve().parent / "page"
RENAMED = {"README.md": "about.md", "results/README.md": "authors_runs.md"}
CONTENTS = {  # heading in the side bar: pages, in this order, as far as they are there
    "Start": ("00_start_here", "about", "reading_the_pictures", "teaching", "glossary"),
    "See": ("01_old_system", "05_explore_features"),
    "Understand": ("02_dual_tuning", "03_mixbct", "methods", "choosing_options", "which_method"),
    "Decide": ("06_upgrade_a_gallery", "07_your_own_system", "08_costs", "protocols", "networks"),
    "Compare": ("runs", "results", "claims", "authors_runs"),
}
SLIDERS = "In JupyterLab there are sliders here."
WIDGET = "application/vnd.jupyter.widget-view+json"


def names(jobs: list[plan.Job]) -> dict[str, str]:
    """The page of each job: the notebook's name; for further runs of it also that of the run."""
    folders = Counter(job.result.parent.name for job in jobs if job.result)
    taken: dict[str, str] = {}
    for job in jobs:
        name = job.notebook.stem
        if job.result and (name == plan.OTHER_METHODS or name in taken.values()):
            folder = job.result.parent
            run = folder.name if folders[folder.name] == 1 else f"{folder.parent.name}-{folder.name}"
            name = f"{name}-{run}"
        taken[job.target] = "index" if name == plan.ALL_TABLES else name
    return taken


def prepared(notebook: Path, pages: set[str], first: str = "") -> str:
    """An executed notebook as a page shows it: code and solutions folded, sliders replaced by a sentence.

    Links may lead to `pages`. `first`, for the first page, is markdown after the last cell. That page opens
    on its result, which stands in the section "1": what comes before it, parameters and imports, is left out
    but for its output.
    """
    content = json.loads(notebook.read_text(encoding="utf-8"))
    if first:
        open_on_result(content)
    content["metadata"].pop("widgets", None)
    solutions = 0
    for cell in content["cells"]:
        tags = cell["metadata"].setdefault("tags", [])
        if cell["cell_type"] == "markdown":
            cell["source"] = linked("".join(cell["source"]), pages)
            continue
        if "solution" in tags:
            solutions += 1
            tags.append("hide-cell")
            cell["metadata"]["mystnb"] = {"code_prompt_show": f"Solution {solutions}"}
        elif "show-input" not in tags:
            tags.append("hide-input")
            cell["metadata"]["mystnb"] = {"code_prompt_show": "code", "code_prompt_hide": "hide the code"}
        cell["outputs"] = [without_widget(one) for one in cell["outputs"]]
    if first:
        content["cells"].append({"cell_type": "markdown", "id": "below", "metadata": {}, "source": first})
    return json.dumps(content)


def open_on_result(content: dict) -> None:
    """Leave only the title's first paragraph and the outputs before the section "1" of a notebook."""
    title, *cells = content["cells"]
    title["source"] = "\n\n".join("".join(title["source"]).split("\n\n")[:2])
    start = next((k for k, cell in enumerate(cells) if "".join(cell["source"]).startswith("## 1")), 0)
    opening = [cell for cell in cells[:start] if cell["cell_type"] == "code" and cell["outputs"]]
    for cell in opening:
        cell["metadata"].setdefault("tags", []).append("remove-input")
    content["cells"] = [title, *opening, *cells[start:]]


def without_widget(output: dict) -> dict:
    """An output; where it is a widget, which needs a kernel, a sentence in its place."""
    data = output.get("data", {})
    if WIDGET not in data:
        return output
    said = "".join(data.get("text/plain", "")).strip()
    # A sentence that was written for pages stays; the name of a Python object does not.
    words = said if re.fullmatch(r"[A-Z][^(){}<>=]*\.", said) else SLIDERS
    return {"output_type": "display_data", "metadata": {}, "data": {"text/markdown": f"*{words}*"}}


def linked(text: str, pages: set[str]) -> str:
    """Markdown whose links to notebooks and documents lead to their pages beside it, and pictures to theirs.

    >>> linked("[a](../docs/methods.md#bct) [b](03_mixbct.ipynb) [c](../Makefile)", {"methods", "03_mixbct"})
    '[a](methods.md#bct) [b](03_mixbct.ipynb) *c*'
    >>> linked("![p](../figures/p.png)", set())
    '![p](figures/p.png)'
    """

    def lead(found: re.Match) -> str:
        words, target, anchor = found.groups()
        path = re.sub(r"^(\.\./)+", "", target)
        name = RENAMED.get(path, Path(path).name).replace(plan.ALL_TABLES, "index")
        return f"[{words}]({name}{anchor or ''})" if Path(name).stem in pages else f"*{words}*"

    text = re.sub(r"(!\[[^\]]*\]\()(?:\.\./)+(?=figures/)", r"\1", text)
    return re.sub(r"(?<!!)\[([^\]]+)\]\((?![a-z]+:|#)([^)#\s]*)(#[^)\s]*)?\)", lead, text)


def contents(pages: set[str]) -> str:
    """The side bar, as Sphinx's hidden tables of contents."""
    blocks = []
    for heading, listed in CONTENTS.items():
        if there := "\n".join(name for name in listed if name in pages):
            blocks.append(f"```{{toctree}}\n:hidden:\n:caption: {heading}\n\n{there}\n```")
    return "\n\n".join(blocks)


def page_of_runs(jobs: list[plan.Job], page: dict[str, str], root: Path, without: dict[str, str]) -> str:
    """Every run that the preset asks for, with its page or its state, and why notebooks have none."""
    lines = ["# Every run of this preset\n\n| run | state | setting | folder |\n| --- | --- | --- | --- |"]
    titles = plan.names(jobs)
    for job in (one for one in jobs if one.target in titles):
        setting, words = titles[job.target]
        how, folder = plan.state(job, root), job.result.parent.relative_to(root).as_posix()
        shown = f"[{words}]({page[job.target]}.ipynb)" if how == "done" else words
        lines.append(f"| {shown} | {how} | {setting} | `{folder}` |")
    lines += [f"\n*{name}* has no page: {reason}." for name, reason in without.items()]
    return "\n".join(lines) + "\n"


def lay_out(source: Path, jobs: list[plan.Job], root: Path, without: dict[str, str]) -> None:
    """Write what Sphinx reads into a folder; what is not newer keeps its time and is not drawn again."""
    page = names(jobs)
    done = {page[job.target]: root / job.target for job in jobs if plan.state(job, root) == "done"}
    documents = {file.stem: file for file in sorted((plan.ROOT / "docs").glob("*.md"))}
    renamed = {Path(new).stem: plan.ROOT / old for old, new in RENAMED.items()}
    documents |= {name: file for name, file in renamed.items() if file.is_file()}
    pages = {*done, *documents, "runs", "index"}
    texts = {f"{name}.md": linked(file.read_text("utf-8"), pages) for name, file in documents.items()}
    texts["runs.md"] = page_of_runs(jobs, page, root, without)
    for name, file in done.items():
        texts[f"{name}.ipynb"] = prepared(file, pages, contents(pages) if name == "index" else "")
    if "index" not in done:
        words = "# compat_lib\n\nThe comparison has no page: see [every run and its state](runs.md)."
        texts["index.md"] = f"{words}\n\n{contents(pages)}\n"
    for name, text in texts.items():
        target = source / name
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            write_text(target, text)
    for stale in {path.name for path in source.glob("*.[im][pd]*")} - set(texts):
        (source / stale).unlink()
    shutil.copytree(TEMPLATE, source, dirs_exist_ok=True)
    for folder in ("figures", "notebooks/pictures"):
        if (plan.ROOT / folder).is_dir():
            shutil.copytree(plan.ROOT / folder, source / Path(folder).name, dirs_exist_ok=True)


def build(preset_name: str, runs_root: str | None = None) -> Path:
    """Draw the pages and return the first one; an error where nothing of the preset has run."""
    from sphinx.application import Sphinx

    preset, path, root = plan.read(preset_name, runs_root)
    jobs = plan.all_jobs(preset, path, root)
    if not any(plan.state(job, root) == "done" for job in jobs):
        raise FileNotFoundError(f"no notebook of {preset.name} has run: make reproduce PRESET={preset.name}")
    folder = root / preset.name
    source, target = folder / "pages", folder / "site"
    source.mkdir(parents=True, exist_ok=True)
    lay_out(source, jobs, root, plan.left_out(preset))
    how = {"status": None, "parallel": os.cpu_count() or 1}
    app = Sphinx(source, source, target, folder / ".doctrees", "html", **how)
    app.build()
    if app.statuscode:
        raise RuntimeError("the pages could not be drawn: the lines above say why")
    return target / "index.html"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="quick", help="a name in configs/, or a path to a .yml file")
    parser.add_argument("--runs-root", help="where the runs are, from the repository's root (default: runs)")
    options = parser.parse_args()
    try:
        index = build(options.preset, options.runs_root)
    except (FileNotFoundError, ValueError, RuntimeError, NotebookError) as error:
        print(f"make pages: {error}", file=sys.stderr)
        return 1
    print(f"Open {index} in a browser; it needs neither a network nor a server.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
