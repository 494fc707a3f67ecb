"""One validated, flat configuration of an experiment, and the presets that list many of them.

Nothing here imports torch: the workflow reads presets, and names run folders, without starting it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

DATASETS = ("portraits", "omniglot", "cifar100", "folder")
SCENARIOS = ("extended-class", "extended-data", "open-class", "open-data")
LOSSES = ("softmax", "cosface", "arcface")
BUDGETS = ("steps", "passes")
PRECISIONS = ("auto", "float32", "bfloat16")

# They say where and how a run is made, not what it is: a run keeps its name when they change.
_NOT_PART_OF_THE_RESULT = ("data_root", "runs_root", "device", "threads")
_ONE_RUN_ONLY = ("method", "method_options", "budget")
_ADDED_LATER = {"old_run": None, "per_identity": 0}


@dataclass(frozen=True)
class ExperimentConfig:
    """Everything that determines one run; unknown or impossible values are refused on construction.

    The fields are plain literals so that a notebook's parameters cell, a preset and ``config.json``
    can hold them as they are. ``experiment_id`` names what the methods share (data, scenario, old
    and new side), ``run_id`` one method and seed within it.

    >>> config = ExperimentConfig(method="mixbct", method_options={"mix_ratio": 0.2})
    >>> config.run_id.rsplit("-", 1)[0], config.experiment_id.rsplit("-", 1)[0]
    ('mixbct-s0', 'portraits-open-class-softmax-to-arcface')

    Raises:
        ValueError: a field has a value that is not allowed; the sentence names the field, the value
            and what is allowed.
        TypeError: a field has the wrong type (text that reads as a number is taken as one, because
            YAML 1.1 reads ``1e-3`` as text).
    """

    # data
    dataset: str = "portraits"
    dataset_options: dict[str, Any] = field(default_factory=dict)  # of compat_lib.data.load
    data_root: str | None = None  # None: the environment variable COMPAT_DATA, then ./data
    image_size: int = 32  # pixels
    data_seed: int = 0  # draws the data set and its validation part; the same for every run seed
    scenario: str = "open-class"
    old_share: float = 0.3  # share of classes (or of each class's images) that the old model saw
    shuffle_seed: int | None = 0  # None: classes in the data set's own order
    # the old side
    old_strength: str = "normal"  # a label for tables: "normal" or "weak"
    old_backbone: str = "convnet"
    old_loss: str = "softmax"
    old_width: int = 64
    old_epochs: int = 20
    old_lr: float = 0.2
    old_run: str | None = None  # "experiment/run" whose new model is the old one here; None: train one
    # the new side
    new_backbone: str = "resnet-small"
    new_loss: str = "arcface"
    new_width: int = 64
    epochs: int = 20
    lr: float = 0.1
    # shared by both sides
    batch_size: int = 256
    per_identity: int = 0  # images of each identity in a batch, as re-identification trains; 0: at random
    weight_decay: float = 5e-4  # on matrices only
    warmup: float = 0.1  # share of the steps
    clip: float = 5.0  # norm of the network's gradient
    label_smoothing: float = 0.0
    scale: float = 32.0  # s of the margin losses
    margin: float = 0.3  # m: radians for ArcFace, cosine for CosFace
    margin_ramp: float = 0.3  # share of the steps over which the margin grows from zero
    shift: int = 2  # augmentation: pixels
    flip: bool = False  # augmentation: mirror images
    validate_every: int = 2  # epochs between looks at the validation identities
    # the method
    method: str = "independent"
    method_options: dict[str, Any] = field(default_factory=dict)
    budget: str = "steps"  # "passes": more epochs for a method that embeds fewer rows a step
    seed: int = 0
    # where and how
    bootstrap_draws: int = 200
    precision: str = "auto"
    device: str = "cpu"
    threads: int = 0  # 0: leave torch's own number; runs repeat to the bit with equal numbers
    runs_root: str = "runs"

    def __post_init__(self) -> None:
        for item in fields(self):
            object.__setattr__(self, item.name, _typed(item.name, str(item.type), getattr(self, item.name)))
        _one_of("dataset", self.dataset, DATASETS)
        _one_of("scenario", self.scenario, SCENARIOS)
        _one_of("old_loss", self.old_loss, LOSSES)
        _one_of("new_loss", self.new_loss, LOSSES)
        _one_of("old_strength", self.old_strength, ("normal", "weak"))
        _one_of("budget", self.budget, BUDGETS)
        _one_of("precision", self.precision, PRECISIONS)
        _within("old_share", self.old_share, 0, 1, open_ends=True)
        for name in ("warmup", "margin_ramp"):
            _within(name, getattr(self, name), 0, 1)
        _within("label_smoothing", self.label_smoothing, 0, 0.999)
        for name in ("image_size", "old_width", "new_width", "old_epochs", "epochs", "validate_every"):
            _at_least(name, getattr(self, name), 1)
        _at_least("batch_size", self.batch_size, 2)
        for name in (
            "shift",
            "seed",
            "data_seed",
            "bootstrap_draws",
            "threads",
            "weight_decay",
            "margin",
            "per_identity",
        ):
            _at_least(name, getattr(self, name), 0)
        for name in ("old_lr", "lr", "scale", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0; got {getattr(self, name)}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ExperimentConfig:
        """A configuration from names and values.

        Raises:
            ValueError: a name is not a field; the sentence lists the closest fields.
        """
        known = [item.name for item in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"unknown configuration {', '.join(unknown)}; the fields are {', '.join(known)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Every field as plain literals."""
        return asdict(self)

    def next_generation(self, **changes: Any) -> ExperimentConfig:
        """The experiment in which this one's new model plays the old one: a chain of three generations.

        Args:
            changes: fields of the third side, such as ``new_backbone``; the rest stays as it is.

        >>> third = ExperimentConfig(method="bct").next_generation(new_backbone="resnet18")
        >>> third.old_backbone, third.new_backbone, third.old_run.split("/")[1][:6]
        ('resnet-small', 'resnet18', 'bct-s0')
        """
        inherited = {
            "old_run": f"{self.experiment_id}/{self.run_id}",
            "old_strength": "normal",
            "old_backbone": self.new_backbone,
            "old_loss": self.new_loss,
            "old_width": self.new_width,
            "old_epochs": self.epochs,
            "old_lr": self.lr,
        }
        return self.changed(**(inherited | changes))

    def changed(self, **changes: Any) -> ExperimentConfig:
        """A copy with some fields changed, validated again."""
        return replace(self, **changes)

    @property
    def experiment_id(self) -> str:
        """Readable name and hash of what all methods and seeds of this experiment share."""
        strength = "" if self.old_strength == "normal" else f"-{self.old_strength}"
        strength += "-chain" if self.old_run else ""
        name = f"{self.dataset}-{self.scenario}{strength}-{self.old_loss}-to-{self.new_loss}"
        return f"{name}-{self._digest(leave_out=(*_ONE_RUN_ONLY, 'seed'))}"

    @property
    def run_id(self) -> str:
        """Readable name and hash of this method, its options, its budget and its seed."""
        budget = "" if self.budget == "steps" else f"-{self.budget}"
        return f"{self.method.replace('_', '-')}{budget}-s{self.seed}-{self._digest()}"

    @property
    def folder(self) -> Path:
        """Where the methods of this experiment keep their runs."""
        return project_path(self.runs_root) / self.experiment_id

    @property
    def run_folder(self) -> Path:
        """Where this run keeps its files."""
        return self.folder / self.run_id

    @property
    def old_folder(self) -> Path:
        """Where the old model of this experiment and seed keeps its files."""
        return self.folder / f"old-s{self.seed}-{self._digest(leave_out=_ONE_RUN_ONLY)}"

    def _digest(self, leave_out: tuple[str, ...] = ()) -> str:
        values = {
            name: value
            for name, value in self.to_dict().items()
            if name not in _NOT_PART_OF_THE_RESULT
            and name not in leave_out
            # Runs that were made before these fields existed keep their names.
            and not (name in _ADDED_LATER and value == _ADDED_LATER[name])
        }
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:6]


def _typed(name: str, kind: str, value: Any) -> Any:
    """``value`` as the field's type, or a TypeError that names the field."""
    if value is None and "None" in kind:
        return None
    kind = kind.split(" ")[0].split("[")[0]
    try:
        if kind == "float" and not isinstance(value, bool):
            return float(value)
        if kind == "int" and not isinstance(value, bool) and float(value) == int(float(value)):
            return int(float(value))
    except (TypeError, ValueError):
        pass
    if kind in ("str", "bool", "dict") and isinstance(value, {"str": str, "bool": bool, "dict": dict}[kind]):
        return value
    words = {"float": "a number", "int": "a whole number", "str": "text", "bool": "True or False"}
    raise TypeError(
        f"{name} must be {words.get(kind, 'a dictionary of options')}; got {value!r} ({type(value).__name__})"
    )


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; choose one of {', '.join(allowed)}")


def _within(name: str, value: float, low: float, high: float, open_ends: bool = False) -> None:
    inside = low < value < high if open_ends else low <= value <= high
    if not inside:
        words = "strictly between" if open_ends else "between"
        raise ValueError(f"{name} must lie {words} {low} and {high}; got {value}")


def _at_least(name: str, value: float, low: float) -> None:
    if not value >= low:
        raise ValueError(f"{name} must be at least {low}; got {value}")


def project_path(path: str | Path) -> Path:
    """``path``, relative ones taken from the project's root when the working directory lies inside it.

    A notebook's kernel starts in ``notebooks/``, the workflow at the root; both mean the same ``runs/``.
    """
    return (_project_root() or Path.cwd()) / path


def shown_path(path: str | Path) -> str:
    """``path`` as pages print it: from the project's root when inside, so that no page names a machine."""
    path, root = project_path(path), _project_root()
    return str(path.relative_to(root) if root and path.is_relative_to(root) else path)


def _project_root() -> Path | None:
    """The project's folder when the working directory lies inside it."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "compat_lib").is_dir() and (folder / "notebooks").is_dir():
            return folder
    return None


def _chained(chain: Mapping[str, Any], experiments: list[ExperimentConfig]) -> list[ExperimentConfig]:
    """The third generation of a preset's chain: each new model of a method becomes the old one."""
    changes = dict(chain)
    after = changes.pop("after", None)
    earlier = [config for config in experiments if config.method == after and config.budget == "steps"]
    if not earlier:
        methods = ", ".join(sorted({config.method for config in experiments}))
        raise ValueError(f"after is {after!r}; a chain goes on after a method of the preset: {methods}")
    later = [config.next_generation(**changes) for config in earlier]
    alone = {"method": "independent", "method_options": {}}
    return [run for config in later for run in (config.changed(**alone), config)]


@dataclass(frozen=True)
class Preset:
    """A named list of experiments, one configuration a run.

    ``notebooks`` are parameters of the notebooks that are no part of a configuration (``ablation``).
    """

    name: str
    experiments: list[ExperimentConfig]
    notebooks: dict[str, Any] = field(default_factory=dict)

    @property
    def old_models(self) -> list[ExperimentConfig]:
        """One configuration for each old model that the experiments need."""
        by_folder = {config.old_folder: config for config in reversed(self.experiments)}
        return list(reversed(by_folder.values()))


def load_preset(path: str | Path, **overrides: Any) -> Preset:
    """The runs of a preset: every setting x every seed x every method.

    Args:
        path: a YAML file with ``defaults`` (fields for all), ``settings`` (a list of overrides: data,
            scenario, old and new side), ``seeds``, ``methods`` (a list of overrides: ``method``,
            ``method_options``, ``budget``), ``chains`` (a list of ``after: method`` with fields of the third
            side: once that method's run is there its new model plays the old one, for a run by the same
            method and one by none) and ``notebooks`` (other parameters of the notebooks).
        overrides: fields set last, for all runs (``runs_root``, ``data_root``, ``device``, ...).

    Raises:
        FileNotFoundError: no such preset; the sentence lists those beside it.
        ValueError: an unknown section or field, a chain after a method that the preset does not run, or
            the same run listed twice.
    """
    import yaml

    path = Path(path)
    if not path.is_file():
        beside = ", ".join(sorted(p.stem for p in path.parent.glob("*.yml"))) or "none"
        raise FileNotFoundError(f"there is no preset {path}; the presets in that folder are: {beside}")
    content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    sections = {"description", "defaults", "settings", "seeds", "methods", "chains", "notebooks"}
    if not isinstance(content, dict) or set(content) - sections:
        raise ValueError(f"{path} may hold the sections {', '.join(sorted(sections))} and no other")
    experiments = []
    settings, seeds = content.get("settings") or [{}], content.get("seeds") or [0]
    for setting, seed, method in itertools.product(settings, seeds, content.get("methods") or [{}]):
        values = {**(content.get("defaults") or {}), **setting, **method, "seed": seed, **overrides}
        try:
            experiments.append(ExperimentConfig.from_dict(values))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, setting {setting}, method {method}: {error}") from error
    try:
        later = [config for chain in content.get("chains") or [] for config in _chained(chain, experiments)]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}, chains: {error}") from error
    experiments += later
    folders = [config.run_folder for config in experiments]
    twice = sorted({str(folder) for folder in folders if folders.count(folder) > 1})
    if twice:
        raise ValueError(f"{path} lists the same run twice: {', '.join(twice)}")
    return Preset(path.stem, experiments, content.get("notebooks") or {})
