"""One validated, flat configuration of an experiment, and the names of its folders.

Nothing here imports torch: the workflow names run folders without starting it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import numbers
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from compat_lib.names import check_choice, instead

DATASETS = (
    *("portraits", "omniglot", "cifar100", "folder", "ms1mv3", "celeba-lfw"),
    *("market1501", "dukemtmc", "msmt17", "imagenet", "places365"),
)
SCENARIOS = ("extended-class", "extended-data", "open-class", "open-data")
HEADS = ("linear", "bn-neck")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")

# They say where and how a run is made, not what it is: a run keeps its name when they change.
WHERE = ("data_root", "runs_root", "device", "threads", "workers", "checkpoint_steps", "checkpoint_minutes")
ONE_RUN_ONLY = ("method", "method_options", "budget")
NEW_SIDE = (
    *("new_backbone", "new_head", "new_weights", "new_loss", "new_width", "epochs", "lr"),
    "old_outliers",  # put into the old features as they are read
)
_CHOICES = {  # field -> what it may be
    **dict.fromkeys(("dataset", "old_dataset"), DATASETS),
    "scenario": SCENARIOS,
    **dict.fromkeys(("old_loss", "new_loss"), ("softmax", "cosface", "arcface", "simplex")),
    **dict.fromkeys(("old_head", "new_head"), HEADS),
    "old_strength": ("normal", "weak"),
    "budget": ("steps", "passes"),
    "precision": PRECISIONS,
    "optimiser": ("sgd", "adam", "adamw"),
    "schedule": ("cosine", "polynomial", "multistep"),
    "decay": ("matrices", "all"),
    "protocol": ("pairs", "ijb", "reid", "leave-one-out", "landmarks"),
    "task_loss": ("none", "triplet", "circle"),
}
_RANGES: tuple[tuple[str, Callable[[float], bool], tuple[str, ...]], ...] = (  # of which fields
    ("be at least 0", lambda x: x >= 0, ("shift", "pad", "seed", "data_seed", "bootstrap_draws")),
    ("be at least 0", lambda x: x >= 0, ("per_identity", "weight_decay", "margin", "warmup_steps")),
    ("be at least 0", lambda x: x >= 0, ("threads", "workers", "checkpoint_steps", "checkpoint_minutes")),
    ("be at least 1", lambda x: x >= 1, ("image_size", "image_height", "old_width", "new_width")),
    ("be at least 1", lambda x: x >= 1, ("old_epochs", "epochs", "validate_every", "accumulate")),
    ("be at least 2", lambda x: x >= 2, ("batch_size",)),
    ("be above 0", lambda x: x > 0, ("old_lr", "lr", "scale", "clip")),
    ("lie between 0 and 1", lambda x: 0 <= x <= 1, ("erase", "resized_crop", "warmup", "margin_ramp")),
    ("lie between 0 and 1", lambda x: 0 <= x <= 1, ("old_outliers",)),
    ("lie between 0 and 0.999", lambda x: 0 <= x <= 0.999, ("label_smoothing",)),
    ("lie strictly between 0 and 1", lambda x: 0 < x < 1, ("old_share",)),
    ("lie above 0 and at most at 1", lambda x: 0 < x <= 1, ("classifier_sample",)),
)


@dataclass(frozen=True)
class TrainingSettings:
    """The recipe of a training, which every method shares; a value that cannot be is refused by its name."""

    epochs: int = 20
    batch_size: int = 256
    per_identity: int = 0  # images of each identity in a batch, which a task loss needs; 0: at random
    optimiser: str = "sgd"  # with Nesterov momentum; or "adam", "adamw"
    lr: float = 0.1
    schedule: str = "cosine"  # to zero; or "polynomial" (of power 2), "multistep" (x 0.1)
    milestones: list[float] = field(default_factory=list)  # of "multistep": shares of the steps
    weight_decay: float = 5e-4
    decay: str = "matrices"  # what decays; "all": biases and normalisation too, as many papers do
    warmup: float = 0.1  # share of the steps
    warmup_steps: int | None = None  # steps of the warm-up, instead of a share
    clip: float = 5.0  # norm of the network's gradient; the classifier is not clipped
    shift: int = 2  # augmentation: pixels
    flip: bool = False  # augmentation: mirror images
    pad: int = 0  # augmentation: pixels of zeros around an image, out of which it is cut; needs shift 0
    erase: float = 0.0  # augmentation: probability that a rectangle is erased
    resized_crop: float = 0.0  # augmentation: smallest share that is cut out and enlarged; needs shift 0
    seed: int = 0
    precision: str = "auto"
    accumulate: int = 1  # parts in which a batch passes through the network: less memory, a third more time
    compile: bool = False  # torch.compile of the network
    sync_batchnorm: bool = False  # under torchrun: batch statistics over the rows of all processes
    checkpoint_steps: int = 0  # keep a checkpoint after so many steps within an epoch; 0: after each epoch
    checkpoint_minutes: float = 10.0  # and after so many minutes; 0: not by time
    device: str = "cpu"
    workers: int = 0  # processes that decode images when stream is on

    def __post_init__(self) -> None:
        for item in fields(self):
            object.__setattr__(self, item.name, _typed(item.name, str(item.type), getattr(self, item.name)))
        for name, choices in _CHOICES.items():
            value = getattr(self, name, choices[0])  # a recipe alone has no data set, for one
            if (name, value) != ("old_dataset", None):
                check_choice(name, value, choices)
        for words, within, names in _RANGES:
            for name in names:
                if (value := getattr(self, name, None)) is not None and not within(value):
                    raise ValueError(f"{name} must {words}; got {value}")
        for sentence in self._contradictions():
            raise ValueError(sentence)

    def _contradictions(self) -> Iterator[str]:
        """What fields say against each other, a sentence each."""
        if self.batch_size < 2 * self.accumulate:
            yield (
                f"accumulate is {self.accumulate}, which leaves fewer than two images of a batch of "
                f"{self.batch_size} to a part; at most {self.batch_size // 2} would do"
            )
        if (self.schedule == "multistep") != bool(self.milestones):
            yield (
                f"schedule {self.schedule!r} and milestones {self.milestones} do not go together: "
                f'"multistep" needs milestones, shares of the steps such as [0.5, 0.75], and no other has any'
            )
        if not all(isinstance(one, numbers.Real) and 0 < one < 1 for one in self.milestones):
            yield f"milestones must be shares of the steps between 0 and 1; got {self.milestones}"


@dataclass(frozen=True)
class ExperimentConfig(TrainingSettings):
    """Everything that determines one run; unknown or impossible values are refused on construction.

    The fields are plain literals so that a notebook's parameters cell, a preset and ``config.json`` can hold
    them as they are. ``experiment_id`` names what the methods share (data, scenario, old and new side),
    ``run_id`` one method and seed within it.

    >>> config = ExperimentConfig(method="mixbct", method_options={"mix_ratio": 0.2})
    >>> config.run_id.rsplit("-", 1)[0], config.experiment_id.rsplit("-", 1)[0]
    ('mixbct-s0', 'portraits-open-class-softmax-to-arcface')
    """

    # data
    dataset: str = "portraits"
    dataset_options: dict[str, Any] = field(default_factory=dict)  # of compat_lib.data.load
    data_root: str | None = None  # None: the environment variable COMPAT_DATA, then ./data
    image_size: int = 32  # pixels; the width where image_height says another height
    image_height: int | None = None  # pixels; None: squares
    stream: bool = False  # keep images encoded, and decode each batch: for sets larger than memory
    data_seed: int | None = 0  # draws the data set and its validation part; None: the run's seed
    scenario: str = "open-class"
    old_share: float = 0.3  # share of classes (or of each class's images) that the old model saw
    shuffle_seed: int | None = 0  # None: classes in the data set's own order
    old_classes: str | None = None  # in place of the share: "<600" (names are numbers), or a file of names
    old_dataset: str | None = None  # the old model trained on this other data set; None: on the same
    old_dataset_options: dict[str, Any] = field(default_factory=dict)
    protocol: str = "pairs"  # of the evaluation, see docs/protocols.md
    # the old side
    old_strength: str = "normal"  # a label for tables: "normal" or "weak"
    old_backbone: str = "convnet"  # see compat_lib.models.build_model
    old_head: str = "linear"  # "bn-neck": the pooled feature itself, as wide as the network's
    old_weights: str | None = None  # where training starts: a name of torchvision's or timm's, or a file
    old_loss: str = "softmax"  # or "cosface", "arcface", "simplex" (not trained; a vertex for each class)
    old_width: int = 64
    old_epochs: int = 20
    old_lr: float = 0.2
    old_run: str | None = None  # "experiment/run" whose new model is the old one here; None: train one
    old_features: str | None = None  # a file of your old model's features of all images; None: train one
    old_test_features: str | None = None  # those of the test images, where they lie in a file of their own
    old_features_columns: dict[str, Any] = field(default_factory=dict)  # "ids", "features": their names there
    old_outliers: float = 0.0  # share of the rows whose old feature is that of an image of another class
    # the new side
    new_backbone: str = "resnet-small"
    new_head: str = "linear"
    new_weights: str | None = None
    new_loss: str = "arcface"
    new_width: int = 64
    # shared by both sides, beside the fields of TrainingSettings
    label_smoothing: float = 0.0
    task_loss: str = "none"  # beside the classifier's, on both sides: "triplet" or "circle", as re-ID trains
    scale: float = 32.0  # s of the margin losses
    margin: float = 0.3  # m: radians for ArcFace, cosine for CosFace
    margin_ramp: float = 0.3  # share of the steps over which the margin grows from zero
    classifier_sample: float = 1.0  # share of the classes in a step's softmax (Partial FC)
    validate_every: int = 2  # epochs between looks at the validation identities
    # the method
    method: str = "independent"
    method_options: dict[str, Any] = field(default_factory=dict)
    budget: str = "steps"  # "passes": more epochs for a method that embeds fewer rows a step
    # where and how
    flip_test: bool = False  # test features are of each image and its mirror image, as faces are tested
    bootstrap_draws: int = 200
    threads: int = 0  # 0: leave torch's own number; runs repeat to the bit with equal numbers
    runs_root: str = "runs"

    def _contradictions(self) -> Iterator[str]:
        yield from super()._contradictions()
        if self.seed >= 2**63:
            yield f"seed must be below 2**63, since torch takes its double; got {self.seed}"
        if self.old_dataset is not None and (self.scenario != "open-class" or self.old_classes is not None):
            yield (
                "an old_dataset shares no class with dataset, and is taken whole: set scenario to "
                f"open-class and old_classes to None; got {self.scenario} and {self.old_classes!r}"
            )
        others = ("old_dataset", "old_classes", "old_run")
        wrong = [name for name in others if getattr(self, name) is not None]
        if self.old_features is not None and (wrong or self.scenario != "open-class"):
            yield (
                "old_features come from a model that is not trained here, and the new one learns from "
                f"all of train/: leave out {' and '.join(wrong) or 'scenario'}; got {self.scenario}"
            )
        if self.old_features is None and (self.old_test_features is not None or self.old_features_columns):
            yield "old_test_features and old_features_columns need old_features, a file"
        if self.old_dataset is None and self.old_dataset_options:
            yield "old_dataset_options need old_dataset, another data set on which the old model trained"
        if self.old_classes is not None and not self.scenario.endswith("class"):
            yield f"old_classes splits by class: choose extended-class or open-class; got {self.scenario}"
        for name in ("dataset_options", "old_dataset_options"):
            path = getattr(self, name).get("path", "")
            if not isinstance(path, str | PathLike):
                yield f"{name}: path must be text; got {path!r}: put it in quotes, or write it as ./{path}"
        if self.task_loss != "none" and self.per_identity < 2:
            yield (
                f"task_loss {self.task_loss!r} compares images of one identity within a batch: set "
                f"per_identity to 2 or more (4 is usual); got {self.per_identity}"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ExperimentConfig:
        """A configuration from names and values; a name that is no field is a ValueError."""
        known = [item.name for item in fields(cls)]
        for name in values:
            if name not in known:
                raise ValueError(
                    f"unknown configuration {name}; the fields are {instead(name, known)}; options of a "
                    "method stand in method_options, those of a data set in dataset_options"
                )
        return cls(**values)

    @classmethod
    def of_run(cls, stored: Mapping[str, Any], **changes: Any) -> ExperimentConfig:
        """The configuration in what a run's ``config.json`` holds, with some fields changed."""
        return cls(**({k: v for k, v in stored.items() if k in cls.__dataclass_fields__} | changes))

    def to_dict(self) -> dict[str, Any]:
        """Every field as plain literals."""
        return asdict(self)

    def next_generation(self, **changes: Any) -> ExperimentConfig:
        """The experiment in which this one's new model plays the old one: a chain of three generations.

        ``changes`` are fields of the third side, such as ``new_backbone``; the rest stays as it is. Its
        weights and batches are drawn anew, whatever the seed.

        >>> third = ExperimentConfig(method="bct").next_generation(new_backbone="resnet18")
        >>> third.old_backbone, third.new_backbone, third.old_run.split("/")[1][:6]
        ('resnet-small', 'resnet18', 'bct-s0')
        """
        parts = ("backbone", "head", "weights", "loss", "width")
        inherited = {f"old_{part}": getattr(self, f"new_{part}") for part in parts}
        inherited |= {"old_epochs": self.epochs, "old_lr": self.lr, "old_strength": "normal"}
        inherited["old_run"] = f"{self.experiment_id}/{self.run_id}"
        return self.changed(**(inherited | changes))

    def changed(self, **changes: Any) -> ExperimentConfig:
        """A copy with some fields changed, validated again."""
        return self.from_dict(self.to_dict() | changes)

    @property
    def size(self) -> int | tuple[int, int]:
        """Pixels as loaders and networks take them: a side of squares, else (height, width)."""
        square = self.image_height in (None, self.image_size)
        return self.image_size if square else (self.image_height, self.image_size)

    @property
    def flips(self) -> bool:
        """Whether a test feature is the sum of those of the image and its mirror image."""
        return self.flip_test or self.protocol == "ijb"

    @property
    def experiment_id(self) -> str:
        """Readable name and hash of what all methods and seeds of this experiment share."""
        source = set_name(self.dataset, self.dataset_options)
        if self.old_dataset:
            source = f"{set_name(self.old_dataset, self.old_dataset_options)}-to-{source}"
        marks = [self.old_strength] * (self.old_strength != "normal") + ["chain"] * bool(self.old_run)
        marks += [self.protocol] * (self.protocol != "pairs")
        old = ["features", *marks] if self.old_features else [self.scenario, *marks, self.old_loss]
        digest = self._digest(leave_out=(*ONE_RUN_ONLY, "seed"))
        return "-".join([source, *old, "to", self.new_loss, digest])

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
        return self.folder / f"old-s{self.seed}-{self._digest(leave_out=ONE_RUN_ONLY)}"

    @property
    def old_side(self) -> str:
        """Hash of what determines the old model and all that is measured of it: equal ones can share it."""
        return self._digest(leave_out=(*ONE_RUN_ONLY, *NEW_SIDE))

    def _digest(self, leave_out: tuple[str, ...] = ()) -> str:
        # Only what differs from the defaults: a field that a later version adds renames no run.
        left = (*WHERE, *leave_out)
        values = {k: v for k, v in vars(self).items() if k not in left and v != DEFAULTS[k]}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:6]


def set_name(dataset: str, options: Mapping[str, Any]) -> str:
    """A data set's name in run names and tables: of an image folder, its own.

    >>> set_name("portraits", {}), set_name("folder", {"path": "~/My photos/"})
    ('portraits', 'My-photos')
    """
    if dataset != "folder" or "path" not in options:
        return dataset
    return re.sub(r"[^\w.]+", "-", Path(options["path"]).name).strip("-.") or dataset


def _typed(name: str, kind: str, value: Any) -> Any:
    """``value`` as the field's type, or a TypeError that names the field."""
    if value is None and "None" in kind:
        return None
    kind, value = kind.split(" ")[0].split("[")[0], _plain(value)
    if kind in ("int", "float") and isinstance(value, str):
        with contextlib.suppress(ValueError):  # papermill's files of parameters have 1e-3 as text
            value = float(value)
    if kind == "int" and isinstance(value, float) and value.is_integer():
        value = int(value)
    types, words = _TYPES[kind]
    if not isinstance(value, types) or isinstance(value, bool) and kind != "bool":
        raise TypeError(f"{name} must be {words}; got {value!r} ({type(value).__name__})")
    if value == "":
        raise ValueError(f"{name} is an empty text; leave it out")
    if kind == "float" and not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number; got {value}")
    if kind in ("dict", "list"):
        try:
            return json.loads(json.dumps(value, default=_plain))
        except (TypeError, ValueError):
            raise TypeError(
                f"{name} must hold numbers, text, lists and dictionaries; got {value!r}"
            ) from None
    return {"float": float, "int": int}.get(kind, lambda same: same)(value)


_TYPES = {
    "float": (numbers.Real, "a number"),
    "int": (numbers.Integral, "a whole number"),
    "str": (str, "text"),
    "bool": (bool, "True or False"),
    "dict": (dict, "a dictionary of options"),
    "list": ((list, tuple), "a list of numbers"),
}


def _plain(value: Any) -> Any:
    """A path as text, and a single number of NumPy or torch as Python's: JSON and YAML know no others."""
    if isinstance(value, PathLike):
        return fspath(value)
    return value if getattr(value, "shape", True) else value.item()


DEFAULTS = ExperimentConfig().to_dict()  # field -> value


def project_path(path: str | Path) -> Path:
    """``path``, relative ones taken from the project's root when the working directory lies inside it.

    A notebook's kernel starts in ``notebooks/``, the workflow at the root; both mean the same ``runs/``.
    """
    return (_project_root() or Path.cwd()) / Path(path).expanduser()


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
