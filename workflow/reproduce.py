"""Run a preset from what is there to its pages: experiments, comparison, pages.

    python workflow/reproduce.py --preset quick --cores 2       (make reproduce)
    python workflow/reproduce.py --preset quick --site          (make site)

Give the same command after an interruption of any kind: what has finished is not repeated, and a
training goes on at its last checkpoint. An experiment that fails does not stop the others; the
comparison shows it as missing, and the exit status is 1.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import plan
import psutil
import warm
from execute import WATCHED, NotebookError

from compat_lib.__main__ import field_values, refuse
from compat_lib.files import explained

HERE = Path(__file__).resolve().parent
PROFILES, LOCAL = HERE / "profiles", "default"
ADVICE = "name another folder with --runs-root, or make room"
WORTH_A_SERVER = 5  # notebooks to run from which loading their libraries once pays
PATIENCE = 5  # seconds
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
    """Snakemake on one preset and runs root; an experiment that takes accelerators takes `gpus` of them."""

    def __init__(self, preset: Path, runs_root: Path, cores: int, profile: Path, gpus: int = 1) -> None:
        self.folder = runs_root.resolve()
        self.command = [sys.executable, "-m", "snakemake", "--snakefile", str(HERE / "Snakefile")]
        self.command += ["--directory", str(self.folder), "--config", f"preset={preset}"]
        self.command += [f"runs_root={self.folder}", "--cores", str(cores)]
        if profile.name == LOCAL:  # a cluster counts its own
            self.command += ["--resources", f"gpu={gpus}"]
        self.command += ["--workflow-profile", str(profile)]
        data = os.environ.get("COMPAT_DATA", plan.ROOT / "data")
        self.environment = os.environ | {"COMPAT_DATA": str(Path(data).resolve())}
        if profile.name == LOCAL:
            # Jobs and Snakemake itself end with this process, so that a killed run leaves nobody
            # behind who writes into the folders of the next one. A cluster sees to its own jobs.
            self.environment[WATCHED] = str(os.getpid())

    def clear_lock(self) -> None:
        """Remove the lock of a workflow that was killed; a RuntimeError where its owner lives.

        A workflow whose driver was killed a moment ago takes one to end: PATIENCE.
        """
        if not any(self.folder.glob(".snakemake/locks/*")):
            return
        deadline = time.monotonic() + PATIENCE
        while owner := snakemake_in(self.folder):
            if time.monotonic() > deadline:
                other = f"another workflow (process {owner.pid}) is at work in {self.folder}"
                raise RuntimeError(f"{other}: wait for it or stop it")
            time.sleep(0.2)
        time.sleep(1.5)  # kernels look for their parent once a second
        subprocess.run([*self.command, "--unlock", "--quiet", "all"], env=self.environment, check=True)

    def make(self, target: str) -> int:
        """Make a rule's files as far as possible; Snakemake's exit status."""
        return subprocess.run([*self.command, target], env=self.environment).returncode


def reproduce(
    preset_name: str, cores: int, runs_root: str | None, site: bool = False, profile: Path = PROFILES / LOCAL
) -> int:
    """Make what is missing of a preset, then its pages; the exit status."""
    preset, path, root = plan.read(preset_name, runs_root)
    jobs = plan.experiment_jobs(preset)
    notebooks = (*plan.PAGES, *(plan.FOR_THE_SITE if site else ()))
    wanted = jobs + plan.page_jobs(preset, path, root, notebooks)
    with explained(root, ADVICE):
        (root / preset.name).mkdir(parents=True, exist_ok=True)
    workflow = Workflow(path, root, cores, profile, preset.processes)
    workflow.clear_lock()
    for job in wanted:
        if plan.outdated(job, root):
            (root / job.target).unlink()
    waiting = [job for job in jobs if plan.state(job, root) != "done"]
    if profile == PROFILES / LOCAL:  # elsewhere this machine sees neither a user's images nor the devices
        # Of finished runs too, whose images may have changed since, unless these are gone.
        looked = [job.config for job in jobs if job in waiting or plan.has_own_images(job)]
        refuse(path, looked, own_data=True)
    print(f"Preset {preset.name}: {len(jobs)} notebooks, {len(waiting)} to do, {cores} at a time", flush=True)
    begun, status = time.monotonic(), 0
    forked = (
        len(waiting) >= WORTH_A_SERVER
        and sys.platform == "linux"  # elsewhere libraries do not survive a fork
        and profile == PROFILES / LOCAL
        and all(job.config.device == "cpu" for job in jobs)  # nor does CUDA
    )
    with warm.server(workflow.environment) if forked else contextlib.nullcontext():
        for target in ("experiments", "pages", *(("site",) if site else ())):
            status = workflow.make(target) or status
    command = [sys.executable, str(HERE / "pages.py"), "--preset", str(path), "--runs-root", str(root)]
    status = subprocess.run(command).returncode or status
    print(f"{time.monotonic() - begun:.0f} s in all.", flush=True)
    bad = [job for job in wanted if plan.state(job, root) != "done"]
    if bad:
        print(f"{len(bad)} of {len(wanted)} did not end well:", file=sys.stderr)
        for job in bad:
            how = plan.state(job, root)
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
    several = {"action": "append", "default": []}
    parser.add_argument("--set", metavar="FIELD=VALUE", **several, help="changed in all runs")
    places = "default (this machine), slurm, kubernetes, or a folder of your own"
    parser.add_argument("--profile", default=LOCAL, help=places)
    options = parser.parse_args()
    profile = Path(options.profile) if "/" in options.profile else PROFILES / options.profile
    if not (profile / "config.yaml").is_file():
        names = ", ".join(sorted(folder.name for folder in PROFILES.iterdir()))
        parser.error(f"profile {options.profile!r} has no config.yaml; choose one of {names}, or a folder")
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = options.cores or min(available, MOST_CORES)
    try:
        preset = plan.changed_preset(options.preset, options.runs_root, field_values(options.set))
        return reproduce(preset, cores, options.runs_root, options.site, profile.resolve())
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        print(f"make reproduce: {error}", file=sys.stderr)
    except NotebookError as error:
        print(f"make reproduce: {error.where}: {error.what}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from here.", file=sys.stderr)
        return 130
    return 1


if __name__ == "__main__":
    sys.exit(main())
