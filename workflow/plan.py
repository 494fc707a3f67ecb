"""What a preset means in notebooks: which one runs for what, with which parameters, into which folder.

Used by the Snakefile and by reproduce.py; reads configurations only and starts nothing.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from execute import NotebookError, declared_parameters

from companion.parameters import refuse_unsuitable
from compat_lib.config import DEFAULTS, ExperimentConfig, project_path
from compat_lib.files import write_text
from compat_lib.presets import SECTIONS, Preset, load_preset, read_sections

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
OWN_NOTEBOOK = {"dual_tuning": "02_dual_tuning", "mixbct": "03_mixbct"}
OTHER_METHODS = "04_other_methods"
OLD_SYSTEM = "01_old_system"
START_HERE = "00_start_here"
ALL_TABLES = "99_all_tables"
PAGES = (START_HERE, ALL_TABLES)  # what make reproduce shows besides its runs
OWN_EXAMPLE = "07_your_own_system"
UPGRADE = "06_upgrade_a_gallery"
FOR_THE_SITE = ("05_explore_features", UPGRADE, "07_your_own_system", "08_costs")
SHOWN_FIRST = ("mixbct", "dual_tuning")  # the method that 00_start_here shows, if the preset has it
MAPPED = ("fct", "fastfill", "bc_emb")  # methods that compare by a map, which 06_upgrade_a_gallery has not
NO_ABLATION = {"ablation": False}  # unless a preset's section "notebooks" asks for these three more trainings


@dataclass(frozen=True)
class Job:
    """One notebook to execute."""

    target: str  # the executed copy, relative to the runs root
    notebook: Path
    label: str
    parameters: dict
    after: tuple[str, ...] = ()  # targets that must be there first
    result: Path | None = None  # the file that shows that the notebook did its work
    first: bool = False  # started before others that could start as well, because these read its results
    config: ExperimentConfig | None = None  # what an experiment runs; None for a page

    @property
    def failed_copy(self) -> str:
        """Where execute.py keeps the notebook when it fails."""
        return self.target.removesuffix(".ipynb") + ".failed.ipynb"


def preset_path(preset: str) -> Path:
    """A preset's file: a path with a suffix, or a name in configs or in a folder of it."""
    if Path(preset).suffix:
        return Path(preset).expanduser().resolve()  # make hands over a ~ as it stands
    path, deeper = ROOT / "configs" / f"{preset}.yml", sorted((ROOT / "configs").glob(f"*/{preset}.yml"))
    return path if path.is_file() or not deeper else deeper[0]


def in_project(path: str | os.PathLike) -> str:
    """A path as notebooks are given it: from the repository's root when inside, so no page names a machine.

    compat_lib.config.project_path is the other half of this.
    """
    path = (ROOT / Path(path).expanduser()).resolve()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def notebook_parameters(
    notebook: Path, config: ExperimentConfig, fixed: Iterable[str] = (), others: Mapping | None = None
) -> dict:
    """What a notebook is told about a configuration.

    Every field that its parameters cell declares, whatever the notebook's own default; other fields that
    differ from theirs in ``settings``. A field that would be lost, and the run be another experiment than
    asked for, is a NotebookError. `fixed` are fields that the notebook settles itself, `others` parameters
    that are no fields.
    """
    declared = declared_parameters(notebook)
    values = config.to_dict()
    for name in ("runs_root", "data_root"):
        if values[name] is not None:
            values[name] = in_project(values[name])
    known = {*declared, *fixed}
    rest = {name: value for name, value in values.items() if name not in known and value != DEFAULTS[name]}
    if rest and "settings" not in declared:
        what = f"the preset sets {', '.join(rest)}, which it does not declare"
        where = f"{notebook.name}, parameters cell"
        raise NotebookError(where, f"{what}; declare them, or settings = {{}}")
    offered = values | (others or {})
    parameters = {name: offered[name] for name in declared if name in offered}
    return parameters | ({"settings": rest} if "settings" in declared else {})


def experiment_jobs(preset: Preset) -> list[Job]:
    """One job for every old model and one for every run of a preset.

    A parameter in the preset's section ``notebooks`` that suits no notebook is a NotebookError.
    """
    where, offered = f"preset {preset.name}, notebooks", preset.notebooks
    if fields := sorted(DEFAULTS.keys() & offered):
        raise NotebookError(where, f"{', '.join(fields)} belongs to runs: set it in defaults")
    cells = [declared_parameters(path) for path in NOTEBOOKS.glob("*.ipynb")]
    if unknown := sorted(set(offered).difference(*cells)):
        raise NotebookError(where, f"no notebook has a parameter {', '.join(unknown)}")
    try:
        for declared in cells:
            refuse_unsuitable(declared, {name: offered[name] for name in offered if name in declared})
    except ValueError as error:
        raise NotebookError(where, str(error)) from None
    jobs = []

    def add(config: ExperimentConfig, stem: str, what: str, folder: Path, fixed: tuple, after: tuple) -> None:
        notebook = NOTEBOOKS / f"{stem}.ipynb"
        label = f"{what}, seed {config.seed}, {config.experiment_id}/{folder.name}"
        told = notebook_parameters(notebook, config, fixed, NO_ABLATION | preset.notebooks)
        first, result = what == "independent", folder / "metrics.json"
        jobs.append(Job(run_target(folder, config), notebook, label, told, after, result, first, config))

    # Where the old side is a file of features there is no model to train and to look at.
    for config in (one for one in preset.old_models if one.old_features is None):
        # The old model of a third generation is the new one of another run.
        after = (f"{config.old_run}/notebook.ipynb",) if config.old_run else ()
        add(config, OLD_SYSTEM, "old model", config.old_folder, ("method", "method_options", "budget"), after)
    for config in preset.experiments:
        after = (run_target(config.old_folder, config),) if config.old_features is None else ()
        stem = OWN_NOTEBOOK.get(config.method, OTHER_METHODS)
        fixed = ("method",) if stem != OTHER_METHODS else ()
        add(config, stem, config.method, config.run_folder, fixed, after)
    return jobs


def run_target(folder: Path, config: ExperimentConfig) -> str:
    """The executed notebook of a run folder, relative to the runs root."""
    return f"{folder.relative_to(config.runs_root)}/notebook.ipynb"


def names(jobs: Iterable[Job]) -> dict[str, tuple[str, str]]:
    """The experiments among jobs for people: target -> its setting, and its method with the seed."""
    # Not above: Snakemake reads this module for every job, and has no need of torch and pandas.
    import pandas as pd

    from companion.titles import method_title, setting_titles

    runs = {job.target: job.config for job in jobs if job.config}
    settings = [config.to_dict() | {"experiment_id": config.experiment_id} for config in runs.values()]
    titles = setting_titles(pd.DataFrame(settings, columns=None if settings else ["experiment_id"]))
    found = {}
    for target, config in runs.items():
        old = target == run_target(config.old_folder, config)
        name = "Old model" if old else method_title(config.method, config.budget, config.method_options)
        found[target] = (titles[config.experiment_id], f"{name}, seed {config.seed}")
    return found


def shown_first(preset: Preset) -> ExperimentConfig:
    """The run that 00_start_here shows: a compatible method where there is one, the first otherwise."""
    last = (*MAPPED, "independent")
    order = [*SHOWN_FIRST, *(one.method for one in preset.experiments if one.method not in last), *last]
    return min(preset.experiments, key=lambda config: order.index(config.method))


def page_parameters(notebook: Path, preset: Preset, path: Path, runs_root: Path) -> dict:
    """What a notebook is told that shows what the runs of a preset have left behind.

    One that declares ``settings`` describes a run: that of ``shown_first``. Others, and the one whose example
    has sizes, a method and a training of its own, are given what they declare of places and of that run.
    """
    config, declared = shown_first(preset), declared_parameters(notebook)
    place = {"preset": in_project(path), "runs_root": in_project(runs_root)}
    if "settings" in declared and notebook.stem != OWN_EXAMPLE:
        parameters = notebook_parameters(notebook, config, others=preset.notebooks)
    else:
        parameters = {}
        if config.dataset == "folder":  # the authors' runs are of other images, and beside them if asked for
            place["results_root"] = None
        shown = ("experiment_id", "data_root", "device") + (
            ("method",) if notebook.stem != OWN_EXAMPLE else ()
        )
        place |= {name: getattr(config, name) for name in shown}
        place |= preset.notebooks
    return parameters | {name: value for name, value in place.items() if name in declared}


def left_out(preset: Preset) -> dict[str, str]:
    """Notebooks of which a preset has no page, and why not, as the end of a sentence."""
    first, why = shown_first(preset), {}
    if first.method in MAPPED:
        why[UPGRADE] = f"its gallery compares features as they are, and {first.method} maps them"
    if first.protocol not in ("pairs", "leave-one-out"):
        why[UPGRADE] = f"it divides the test images itself, and the protocol is {first.protocol}"
    if first.protocol != "pairs":
        why[START_HERE] = f"it teaches by all pairs of test images, and the protocol is {first.protocol}"
    if first.old_width != first.new_width:
        why[START_HERE] = "its models have one width, and here the new one's is another"
    if first.old_features is not None:
        why[START_HERE] = "it trains a second old model, and the old side is a file of features"
        why[OLD_SYSTEM] = "it looks into an old network, and the old side is a file of features"
    return why


def page_jobs(preset: Preset, path: Path, runs_root: Path, notebooks: Iterable[str] = PAGES) -> list[Job]:
    """The notebooks that show what the runs of a preset have left behind, without those of `left_out`."""
    jobs = []
    for stem in (stem for stem in notebooks if stem not in left_out(preset)):
        notebook = NOTEBOOKS / f"{stem}.ipynb"
        target = f"{preset.name}/{stem.partition('_')[2]}.ipynb"
        jobs.append(Job(target, notebook, stem, page_parameters(notebook, preset, path, runs_root)))
    return jobs


def all_jobs(preset: Preset, path: Path, runs_root: Path) -> list[Job]:
    """Everything that a preset can have pages of: first the pages of their own, then the experiments."""
    return page_jobs(preset, path, runs_root, (*PAGES, *FOR_THE_SITE)) + experiment_jobs(preset)


def state(job: Job, runs_root: Path) -> str:
    """ "done", "failed" or "missing"."""
    if (runs_root / job.failed_copy).exists():
        return "failed"
    return "done" if (runs_root / job.target).exists() else "missing"


def has_own_images(job: Job) -> bool:
    """Whether a run is of a folder of images that is there."""
    config = job.config
    return config.dataset == "folder" and project_path(config.dataset_options.get("path", "")).is_dir()


def outdated(job: Job, runs_root: Path) -> bool:
    """Whether a notebook was told otherwise than now, or what its run has left is gone.

    Of an experiment's parameters those that are no fields count, such as ``ablation``: its folder's name
    says the rest.
    """
    executed = runs_root / job.target
    if not executed.is_file():
        return False
    told = json.loads(executed.read_bytes())["metadata"].get("papermill", {}).get("parameters", {})
    sides = told, json.loads(json.dumps(job.parameters))
    if job.config is not None:
        left_out = {*DEFAULTS, "settings"}
        sides = tuple({name: side[name] for name in side if name not in left_out} for side in sides)
    return sides[0] != sides[1] or job.result is not None and not job.result.is_file()


def read(preset: str, runs_root: str | None = None) -> tuple[Preset, Path, Path]:
    """A preset, its file, and the absolute runs root (the preset's own unless another is named)."""
    path = preset_path(preset)
    if runs_root is None:
        roots = {config.runs_root for config in load_preset(path).experiments}
        if len(roots) != 1:
            raise ValueError(f"{path} names several runs_root, {', '.join(sorted(roots))}; a preset has one")
        runs_root = roots.pop()
    root = (ROOT / runs_root).resolve()
    return load_preset(path, runs_root=str(root)), path, root


def changed_preset(preset: str, runs_root: str | None, changes: Mapping[str, object]) -> str:
    """A copy of a preset among its runs, with other values of sections, or of fields in all its runs."""
    if not changes:
        return preset
    _, path, root = read(preset, runs_root)
    content = read_sections(path) | {name: value for name, value in changes.items() if name in SECTIONS}
    content.pop("base", None)  # whose sections these are as well
    fields = {name: value for name, value in changes.items() if name not in SECTIONS}
    for rows in ("settings", "methods"):
        content[rows] = [row | fields for row in content.get(rows) or [{}]]
    chains = content.get("chains") or []
    content["chains"] = [{name: fields.get(name, value) for name, value in row.items()} for row in chains]
    copy = root / path.stem / path.name
    write_text(copy, yaml.safe_dump(content, sort_keys=False))
    return str(copy)
