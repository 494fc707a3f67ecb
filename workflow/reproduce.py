"""Run a preset from what is there to its page: experiments, comparison, index.

    python workflow/reproduce.py --preset quick --cores 2       (make reproduce)
    python workflow/reproduce.py --preset quick --site          (make site)

Give the same command after an interruption of any kind: what has finished is not repeated, and a
training goes on at its last checkpoint. An experiment that fails does not stop the others; the
comparison shows it as missing, and the exit status is 1.
"""

import argparse
import html
import os
import subprocess
import sys
import time
from pathlib import Path

import plan
import psutil
from execute import WATCHED, NotebookError

HERE = Path(__file__).resolve().parent
MOST_CORES = 8  # unless the user says so: every experiment needs about 2 GB of memory


def snakemake_in(folder: Path) -> psutil.Process | None:
    """A living Snakemake that works in a folder, or None."""
    for process in psutil.process_iter():
        try:
            if any("snakemake" in word for word in process.cmdline()) and Path(process.cwd()) == folder:
                return process
        except psutil.Error:  # gone meanwhile, or another user's
            continue
    return None


class Workflow:
    """Snakemake on one preset and runs root."""

    def __init__(self, preset: Path, runs_root: Path, cores: int) -> None:
        self.folder = runs_root.resolve()
        self.command = [sys.executable, "-m", "snakemake", "--snakefile", str(HERE / "Snakefile")]
        self.command += ["--directory", str(self.folder), "--config", f"preset={preset}"]
        self.command += [f"runs_root={self.folder}", "--cores", str(cores)]
        # Jobs and Snakemake itself end with this process, so that a killed run leaves nobody
        # behind who writes into the folders of the next one.
        data = os.environ.get("COMPAT_DATA", plan.ROOT / "data")
        self.environment = os.environ | {
            WATCHED: str(os.getpid()),
            "COMPAT_DATA": str(Path(data).resolve()),
        }

    def clear_lock(self, patience: float = 5.0) -> None:
        """Remove the lock of a workflow that was killed.

        Args:
            patience: seconds; a workflow whose driver was killed a moment ago takes one to end.

        Raises:
            RuntimeError: its owner lives.
        """
        if not any(self.folder.glob(".snakemake/locks/*")):
            return
        deadline = time.monotonic() + patience
        while owner := snakemake_in(self.folder):
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"another workflow (process {owner.pid}) is at work in {self.folder}: "
                    "wait for it or stop it"
                )
            time.sleep(0.2)
        time.sleep(1.5)  # kernels look for their parent once a second
        subprocess.run([*self.command, "--unlock", "--quiet", "all"], env=self.environment, check=True)

    def make(self, target: str) -> int:
        """Make a rule's files as far as possible; Snakemake's exit status."""
        command = [*self.command, "--keep-going", "--rerun-incomplete", "--scheduler", "greedy"]
        # By content of the folder alone. Snakemake's other triggers (rule code, parameters, software)
        # would repeat hours of training after an edit that changes no result: what a run
        # is stands in its configuration, whose digest is part of its folder's name.
        command += ["--rerun-triggers", "mtime", "input"]
        command += ["--quiet", "all", "--latency-wait", "0"]
        return subprocess.run([*command, target], env=self.environment).returncode


def state(job: plan.Job, runs_root: Path) -> str:
    """ "done", "failed" or "missing"."""
    if (runs_root / job.failed_copy).exists():
        return "failed"
    return "done" if (runs_root / job.page).exists() else "missing"


PAGE_WORDS = {  # on the index, below the titles of pages
    plan.ALL_TABLES: "Every run below in one set of tables and pictures. This is the result: open it first.",
    plan.START_HERE: "What the question is, and what the words mean.",
}


def write_index(
    target: Path, name: str, jobs: list[plan.Job], pages: list[plan.Job], runs_root: Path
) -> None:
    """The page that leads to all others, with the state of each; loads nothing from anywhere."""

    def link(job: plan.Job, words: str) -> str:
        address = html.escape(os.path.relpath(runs_root / job.page, target.parent))
        words = html.escape(words)
        return f'<a href="{address}">{words}</a>' if state(job, runs_root) == "done" else words

    def card(job: plan.Job) -> str:
        how, stem = state(job, runs_root), job.notebook.stem
        words = PAGE_WORDS.get(stem, "") if how == "done" else how
        wide = " first" if stem == plan.ALL_TABLES else ""
        head = link(job, plan.title_of(job.notebook))
        return f'<section class="card{wide}"><h2>{head}</h2><p class="{how}">{words}</p></section>'

    settings: dict[str, list[str]] = {}
    names = plan.names(jobs)
    for job in jobs:
        how, (setting, words) = state(job, runs_root), names[job.target]
        row = f'<tr class="{how}"><td>{link(job, words)}</td><td>{how}</td></tr>'
        settings.setdefault(setting, []).append(row)
    tables = [
        f'<h3>{html.escape(setting)}</h3><table class="states"><tr><th>run</th><th>state</th></tr>'
        + "".join(rows)
        + "</table>"
        for setting, rows in settings.items()
    ]
    ordered = sorted(pages, key=lambda job: job.notebook.stem != plan.ALL_TABLES)
    style = (HERE / "page" / "style.css").read_text()
    content = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>compat_lib: {html.escape(name)}</title><style>{style}</style></head><body><main>
<h1>Preset {html.escape(name)}</h1>
<div class="cards">{"".join(map(card, ordered))}</div>
<h2>Every run</h2>
{"".join(tables)}
</main></body></html>
"""
    part = target.with_suffix(".part")
    part.write_text(content, encoding="utf-8")
    part.replace(target)


def reproduce(preset_name: str, cores: int, runs_root: str | None, site: bool = False) -> int:
    preset, path, root = plan.read(preset_name, runs_root)
    jobs = plan.experiment_jobs(preset)
    pages = plan.page_jobs(preset, path, root)
    pages += plan.site_jobs(preset, path, root) if site else []
    folder = root / preset.name
    folder.mkdir(parents=True, exist_ok=True)
    workflow = Workflow(path, root, cores)
    workflow.clear_lock()
    open_jobs = [job for job in jobs if state(job, root) != "done"]
    print(
        f"Preset {preset.name}: {len(jobs)} notebooks, {len(open_jobs)} to do, {cores} at a time", flush=True
    )
    begun = time.monotonic()
    status = 0
    for target in ("experiments", "pages", *(("site",) if site else ())):
        status = workflow.make(target) or status
    index = folder / "index.html"
    write_index(index, preset.name, jobs, pages, root)
    print(f"\n{time.monotonic() - begun:.0f} s. Open {index} in a browser; it needs no network.", flush=True)
    if site:
        command = [sys.executable, str(HERE / "website.py"), "--preset", str(path), "--runs-root", str(root)]
        status = subprocess.run(command).returncode or status
    bad = [job for job in (*jobs, *pages) if state(job, root) != "done"]
    if bad:
        print(f"{len(bad)} of {len(jobs) + len(pages)} did not end well:", file=sys.stderr)
        for job in bad:
            how = state(job, root)
            where = f": {root / job.failed_copy}" if how == "failed" else ""
            print(f"  {how:8} {job.label}{where}", file=sys.stderr)
        print("After mending the cause the same command runs these and no other.", file=sys.stderr)
    elif status:
        print("A step reported an error, shown above, although every notebook ran.", file=sys.stderr)
    return 1 if bad or status else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="quick", help="a name in configs/, or a path to a .yml file")
    parser.add_argument("--cores", type=int, help="notebooks at a time, one thread each")
    parser.add_argument("--runs-root", help="where the runs go, from the repository's root (default: runs)")
    parser.add_argument("--site", action="store_true", help="then the remaining notebooks, and the site")
    options = parser.parse_args()
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = options.cores or min(available, MOST_CORES)
    try:
        return reproduce(options.preset, cores, options.runs_root, options.site)
    except (FileNotFoundError, ValueError, TypeError, RuntimeError) as error:
        print(f"make reproduce: {error}", file=sys.stderr)
    except NotebookError as error:
        print(f"make reproduce: {error.where}: {error.what}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from here.", file=sys.stderr)
        return 130
    return 1


if __name__ == "__main__":
    sys.exit(main())
