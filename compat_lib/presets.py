"""Presets: a YAML file that lists many experiments. Nothing here imports torch."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compat_lib.config import ExperimentConfig
from compat_lib.names import instead

SETTLED = (  # fields that are those of all generations
    *("seed", "data_seed", "shuffle_seed", "scenario", "dataset", "dataset_options"),
    *("image_size", "image_height", "stream", "flip_test"),
)


def _chained(
    chain: Mapping[str, Any], experiments: list[ExperimentConfig], overrides: Mapping[str, Any]
) -> list[ExperimentConfig]:
    """The third generation of a preset's chain: each new model of a method becomes the old one."""
    changes = {name: overrides.get(name, value) for name, value in chain.items()}
    if settled := [name for name in changes if name in SETTLED or name.startswith("old_")]:
        raise ValueError(f"the run that a chain goes on from has settled {', '.join(settled)}; leave it out")
    after = changes.pop("after", None)
    earlier = [config for config in experiments if config.method == after and config.budget == "steps"]
    if not earlier:
        methods = ", ".join(sorted({config.method for config in experiments}))
        raise ValueError(f"after is {after!r}; a chain goes on after a method of the preset: {methods}")
    later = [config.next_generation(**changes) for config in earlier]
    if after == "independent":
        return later
    alone = {"method": "independent", "method_options": {}}
    return [run for config in later for run in (config.changed(**alone), config)]


@dataclass(frozen=True)
class Preset:
    """A named list of experiments, one configuration a run.

    ``notebooks`` are parameters of the notebooks that are no part of a configuration (``ablation``),
    ``processes`` how many train one model together, under torchrun, and ``published`` the counts of
    images and classes of the ``old`` and ``new`` side, for an estimate without the data.
    """

    name: str
    experiments: list[ExperimentConfig]
    notebooks: dict[str, Any] = field(default_factory=dict)
    processes: int = 1
    published: dict[str, list[int | None]] = field(default_factory=dict)

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
            method and one by none), ``notebooks`` (other parameters of the notebooks), ``processes`` and
            ``published``, see `Preset`. ``base`` is another preset, by its path from this one: its sections
            stand where this one has none, and its defaults where this one's do not say otherwise.
        overrides: fields set last, for all runs (``runs_root``, ``data_root``, ``device``, ...).
    """
    path = Path(path)
    content = read_sections(path)
    experiments = []
    settings, seeds = content.get("settings") or [{}], content.get("seeds") or [0]
    for setting, seed, method in itertools.product(settings, seeds, content.get("methods") or [{}]):
        values = {**(content.get("defaults") or {}), **setting, **method}
        try:
            if "seed" in values:
                raise ValueError(f"the section seeds says which: write seeds: [{values['seed']}]")
            values |= {"seed": seed} | overrides
            experiments.append(ExperimentConfig.from_dict(values))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, setting {setting}, method {method}: {error}") from error
    try:
        chains = content.get("chains") or []
        later = [config for chain in chains for config in _chained(chain, experiments, overrides)]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}, chains: {error}") from error
    experiments += later
    folders = Counter(str(config.run_folder) for config in experiments)
    if twice := sorted(folder for folder, times in folders.items() if times > 1):
        raise ValueError(f"{path} lists the same run twice: {', '.join(twice)}")
    processes = 1 if content.get("processes") is None else content["processes"]
    if processes < 1:
        raise ValueError(f"{path}: processes must be at least 1; got {processes}")
    published = content.get("published") or {}
    if published and not _are_counts(published):
        words = SECTIONS["published"][1]
        raise ValueError(f"{path}: published must be {words} (null: images not told); got {published}")
    return Preset(path.stem, experiments, content.get("notebooks") or {}, processes, published)


def _are_counts(published: Mapping[str, Any]) -> bool:
    """Whether these are images and classes of the old and the new side, where the old images may be None."""
    match published:
        case {"old": [None | int(), int()], "new": [int(), int()]} if len(published) == 2:
            counts = [one for row in published.values() for one in row if one is not None]
            return all(one > 0 and not isinstance(one, bool) for one in counts)
    return False


def read_sections(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """What a preset says, each section of the right kind, over what its base says."""
    if not path.is_file():
        beside = ", ".join(sorted(p.name for p in path.parent.glob("*.y*ml"))) or "none"
        raise FileNotFoundError(f"there is no preset {path}; in that folder are: {beside}")
    content = _read_yaml(path)
    for name, value in content.items():
        if name not in SECTIONS:
            raise ValueError(f"{path}: unknown section {name}; there are {instead(name, SECTIONS)}")
        kind, words = SECTIONS[name]
        rows = value if kind is list and name != "seeds" else []
        right = isinstance(value, kind) and not isinstance(value, bool)  # True is a whole number
        right = right and all(isinstance(row, dict) for row in rows)
        empty = name in ("seeds", "methods") and not value  # which would mean other runs than none
        if empty or (value is not None and not right):
            raise ValueError(f"{path}: {name} must be {words}; got {value!r}")
    if not content.get("base"):
        return content
    above = (*above, path.resolve())
    base = path.parent / content["base"]
    if base.resolve() in above:
        raise ValueError(f"{path}: base is {content['base']}, which is based on this preset itself")
    below = read_sections(base, above)
    defaults = {**(below.get("defaults") or {}), **(content.get("defaults") or {})}
    return below | content | {"defaults": defaults}


SECTIONS = {
    "base": (str, "the path of another preset from this one, such as quick.yml"),
    "description": (str, "text"),
    "defaults": (dict, "fields with values, such as {epochs: 20}"),
    "settings": (list, "a list of fields with values, such as [{scenario: open-class}]"),
    "seeds": (list, "a list of whole numbers, such as [0, 1]"),
    "methods": (list, "a list of fields with values, such as [{method: bct}]"),
    "chains": (list, "a list such as [{after: mixbct}]"),
    "notebooks": (dict, "parameters of notebooks, such as {ablation: false}"),
    "processes": (int, "a whole number of processes that train one model together, such as 8"),
    "published": (dict, "images and classes of both sides, such as {old: [25000, 50], new: [50000, 100]}"),
}


def _read_yaml(path: Path) -> dict[str, Any]:
    """A preset's content, with the numbers of YAML 1.2; a key that is given twice is refused.

    PyYAML drops the first of such keys. It reads as YAML 1.1: 1e-3 as text, 1:30 as 90, and 010 as 8.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            if twice := sorted(key for key, count in keys.items() if count > 1):
                line = node.start_mark.line + 1
                raise ValueError(f"{', '.join(twice)} is given twice in the mapping of line {line}; keep one")
            return super().construct_mapping(node, deep)

    known = yaml.SafeLoader.yaml_implicit_resolvers.items()
    Loader.yaml_implicit_resolvers = {
        first: [(tag, form) for tag, form in forms if not tag.endswith(("int", "float", "timestamp"))]
        for first, forms in known
    }
    for made, form in ((int, r"[-+]?\d+$"), (float, r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")):
        tag = f"tag:yaml.org,2002:{made.__name__}"
        Loader.add_implicit_resolver(tag, re.compile(form), list("-+.0123456789"))
        Loader.add_constructor(tag, lambda loader, node, made=made: made(node.value))
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ValueError(f"{path}{where}: this is not YAML ({getattr(error, 'problem', error)})") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: a preset is a list of sections ({', '.join(SECTIONS)}), each with a colon")
    return content
