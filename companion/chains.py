"""Chains of generations: an upgrade of an upgrade, measured on the test images that all its models share."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from companion.tables import changed
from companion.titles import DATASETS, LOSSES, row_title
from compat_lib.adapters import fit_procrustes
from compat_lib.config import ExperimentConfig
from compat_lib.evaluation.chain import average_accuracy, average_compatibility, generations, matrix
from compat_lib.evaluation.paired import paired_comparison
from compat_lib.evaluation.records import Record, Records, shown
from compat_lib.experiment_data import data_of_run
from compat_lib.files import load_tensors
from compat_lib.runs import Run, is_complete, list_runs

FEATURES, MODEL = "features.safetensors", "model.safetensors"
COMPOSED = "composed-procrustes"  # adapter of the records of a query that is carried back
Step = Callable[[Tensor], Tensor]  # a query to the generation before


@dataclass(frozen=True)
class Chain:
    """The complete runs of a chain, oldest generation first: an old model's run, then those of new models."""

    runs: tuple[Run, ...]

    @property
    def models(self) -> tuple[str, ...]:
        """Each generation's network, its training, and from the second on the method that made it."""
        first = self.runs[0].config
        named = [f"{first['old_backbone']} ({first['old_epochs']} epochs)"]
        for config in (run.config for run in self.runs[1:]):
            method = "without a method" if config["method"] == "independent" else f"by {row_title(config)}"
            named.append(f"{config['new_backbone']} {method} ({config['epochs']} epochs)")
        return tuple(named)

    @property
    def title(self) -> str:
        """The chain for people, such as "Portraits, open-class: convnet (20 epochs), then …"."""
        config = self.runs[-1].config
        name = DATASETS.get(config["dataset"], config["dataset"])
        return f"{name}, {config['scenario']}: {', then '.join(self.models)}"

    @property
    def names(self) -> list[str]:
        """What its generations are called in records, "generation 1" first."""
        return [f"generation {g + 1}" for g, _ in enumerate(self.runs)]

    @cached_property
    def kept(self) -> Records:
        """What `to_keep` wrote among the metrics of its last run; empty where that run is as it was made."""
        last = self.runs[-1]
        found = last.metrics.select(query=self.names[-1])
        return Records(
            replace(one, draws=last.draws(one.query, one.gallery, one.metric, one.adapter))
            for one in (last.metrics if len(found) else ())
            if one.query in self.names
        )

    def to_keep(self, labels: Any = None, *, draws: int = 200) -> Records:
        """Both kinds of `measure`, for a place that keeps no features; the composed ones by their adapter."""
        plain = self.measure(labels, draws=draws)
        composed = self.measure(labels, draws=draws, composed=True).changed(adapter=COMPOSED)
        return plain + [one for one in composed if one.query != one.gallery]

    def measure(self, labels: Any = None, *, draws: int = 200, composed: bool = False) -> Records:
        """Every model as the query with every gallery of its own age or older, by `evaluation.generations`.

        A model meets the gallery just before it as its method compares the two. It meets older ones through
        the maps that BC-Aligner learned on the way, and as they are where no method in between transforms
        features; where another one does, that pair is not measured.

        Where its numbers were kept without its features they are read, whatever the arguments.

        Args:
            labels: whole numbers [N] of the test images; None: those of the data set, which is read for them.
            draws: bootstrap draws over identities; 0 for no intervals.
            composed: carry every query back to the gallery's generation by Procrustes maps of neighbours,
                fitted on validation images: no stored feature is touched. This is what bc-emb (Hu et al.,
                KDD 2022, arXiv 2206.03040; method "bc_emb") does by trained maps, here after the training.
        """
        if self.kept:
            own = [one for one in self.kept if one.query == one.gallery or bool(one.adapter) == composed]
            return Records(own).changed(adapter=None)
        ages = range(len(self.runs))
        if composed:
            neighbours = pairwise(tensors["val"] for tensors in self._tensors)
            maps = [fit_procrustes(newer, older).apply for older, newer in neighbours]
            met = {(i, j): _carried(maps[j:i][::-1]) for i in ages for j in range(i)}
        else:
            steps = [None, *map(self._back, ages[1:])]
            met = {(i, j): _carried(steps[i:j:-1]) for i in ages for j in range(i - 1)}
            met |= {(i, i - 1): partial(_as_compared, self._tensors[i]) for i in ages[1:]}
        return generations(
            [tensors["test"] for tensors in self._tensors],
            data_of_run(self.runs[-1].folder).data.test.labels if labels is None else labels,
            comparable=met,
            names=self.names,
            draws=draws,
        )

    @cached_property
    def _tensors(self) -> list[dict[str, Tensor]]:
        return [load_tensors(run.folder / FEATURES)[0] for run in self.runs]

    def _back(self, generation: int) -> Step | None:
        """What a generation's method does to queries of older galleries; None: more than can be repeated."""
        newer, older = self._tensors[generation], self._tensors[generation - 1]
        if self.runs[generation].config["method"] == "bc_emb":
            learned = load_tensors(self.runs[generation].folder / MODEL)[0]
            return partial(F.linear, weight=learned["method.factor"] * learned["method.map"])
        pairs = (("query", newer["test"]), ("gallery", older["test"]))
        plain = all(name in newer and torch.equal(newer[name], stored) for name, stored in pairs)
        return torch.nn.Identity() if plain else None


def _carried(steps: Sequence[Step | None]) -> Callable:
    """A query that takes these steps, and the gallery as it is; nothing where a step is not known."""

    def forms(query: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor] | None:
        if None in steps:
            return None
        for step in steps:
            query = step(query)
        return query, gallery

    return forms


def _as_compared(tensors: Mapping[str, Tensor], *_: Tensor) -> tuple[Tensor, Tensor] | None:
    """Query and gallery as a generation's method compares them with the one before; None where it cannot."""
    return (tensors["query"], tensors["gallery"]) if "query" in tensors else None


def find_chains(runs_root: str | Path, experiments: Sequence[str] | None = None) -> list[Chain]:
    """Every chain of complete runs of the protocol "pairs" in a folder of runs, three generations or more.

    They are in the order of their last run's path, those that end without compatible training last; of some
    `experiments`, those whose last run is in one of these. A chain that goes on is there once, as a whole;
    one of which a run or its features are missing is left out.
    """
    configs = [(run, run.config) for run in list_runs(Path(runs_root))]
    later = [run for run, config in configs if config.get("old_run") and config["method"] != "old"]
    lines = [
        _lineage(Path(runs_root), run) for run in later if run.config.get("protocol", "pairs") == "pairs"
    ]
    continued = {run.folder for line in lines for run in line[:-1]}
    whole = [line for line in lines if line and line[-1].folder not in continued]
    asked = [line for line in whole if experiments is None or line[-1].folder.parent.name in experiments]
    return sorted(map(Chain, asked), key=lambda chain: chain.runs[-1].config["method"] == "independent")


def _lineage(root: Path, run: Run) -> tuple[Run, ...]:
    """A run with all that came before it, oldest first; empty where something is missing."""
    line = [run]
    while line[0].config.get("old_run"):
        line.insert(0, Run(root / line[0].config["old_run"]))
        if not is_complete(line[0].folder):
            return ()
    line.insert(0, Run(line[0].folder.parent / line[0].config["old_run_id"]))
    if not all(is_complete(one.folder) for one in line):
        return ()
    measurable = all((one.folder / FEATURES).is_file() for one in line) or Chain(tuple(line)).kept
    return tuple(line) if measurable else ()


def chain_table(measured: Records, models: Sequence[str], metric: str = "map") -> pd.DataFrame:
    """A chain as people read it: each model's self-test, and its cross-test with every earlier gallery.

    Columns are gen. (the generation), model, self-test, "gallery of 1", ...; in a cross-test's cell a second
    line with its difference from the self-test of the model that made that gallery. Empty where a newer
    gallery would be asked; "n/a" where not measurable.
    """
    names = list(dict.fromkeys(one.query for one in measured))
    own = [measured.get(name, name, metric) for name in names]
    lines = []
    for i, model in enumerate(models):
        line = {"gen.": str(i + 1), "model": model, "self-test": _cell(own[i])}
        for j in range(len(names) - 1):
            cell = _cell(measured.get(names[i], names[j], metric), own[j]) if j < i else ""
            line[f"gallery of {j + 1}"] = cell
        lines.append(line)
    return pd.DataFrame(lines)


def _cell(one: Record, own: Record | None = None) -> str:
    """A number, and below it how far it is from another one."""
    value = shown(one.value, one.low, one.high)
    if own is None or None in (one.value, own.value):
        return value
    margin = paired_comparison(one.value, own.value, draws_a=one.draws, draws_b=own.draws)
    return f"{value}\n{changed(margin)} over its own"


def averages(measured: Records, metric: str = "map") -> str:
    """AC and AA of a chain in per cent, see `evaluation.chain`, such as "AC 67, AA 41.2"."""
    values = matrix(measured, metric)
    return f"AC {shown(average_compatibility(values), digits=0)}, AA {shown(average_accuracy(values))}"


def over_seeds(chains: Sequence[Chain], metric: str = "map") -> pd.DataFrame:
    """One line a kind of chain of three generations: what its queries find in older galleries.

    Columns: the losses and methods of the generations, seeds, the first gallery's self-test, and of three
    cross-tests the paired difference from the gallery's own self-test over the seeds, in points; the last
    one "carried", too: through composed Procrustes maps.
    """
    kinds: dict[tuple[str, str], dict[int, Chain]] = {}
    for chain in (one for one in chains if len(one.runs) == 3):
        second, third = (run.config for run in chain.runs[1:])
        losses = [second["old_loss"], second["new_loss"], third["new_loss"]]
        names = (
            ", ".join(LOSSES.get(one, one) for one in losses),
            ", then ".join(map(row_title, (second, third))),
        )
        kinds.setdefault(names, {})[third["seed"]] = chain
    lines = []
    for (losses, methods), by_seed in sorted(kinds.items()):
        first, second, third = next(iter(by_seed.values())).names
        plain, carried = ([one.measure(composed=how) for one in by_seed.values()] for how in (False, True))
        own = np.mean([one.get(first, first, metric).value for one in plain])
        line = {"losses": losses, "methods": methods, "seeds": len(by_seed), "1 in 1": shown(own)}
        for title, measured, query, gallery in (
            ("2 in 1", plain, second, first),
            ("3 in 2", plain, third, second),
            ("3 in 1", plain, third, first),
            ("3 carried to 1", carried, third, first),
        ):
            pairs = ((query, gallery), (gallery, gallery))
            line[title] = _difference(*([one.get(*pair, metric) for one in measured] for pair in pairs))
        lines.append(line)
    return pd.DataFrame(lines)


def _difference(a: Sequence[Record], b: Sequence[Record]) -> str:
    """The paired difference of two numbers over seeds, in points."""
    if any(one.value is None for one in (*a, *b)):
        return shown(None)
    values = [[one.value for one in side] for side in (a, b)]
    draws = [[one.draws for one in side] for side in (a, b)]
    known = all(one is not None for side in draws for one in side)
    margin = paired_comparison(
        *values, **(dict(zip(("draws_a", "draws_b"), draws, strict=True)) if known else {})
    )
    return shown(margin.value, margin.low, margin.high, signed=True)


def chains_note(chains: Sequence[Chain], expected: Iterable[ExperimentConfig], command: str) -> str:
    """What a reader must know before the tables: nothing, or which of a preset's runs of chains are missing,
    and the command that makes them."""
    there = {(run.folder.parent.name, run.folder.name) for chain in chains for run in chain.runs}
    missing = [config.run_id for config in expected if (config.experiment_id, config.run_id) not in there]
    if missing:
        return f"Not run, or not complete: {', '.join(missing)}. `{command}` makes what is missing."
    hint = "`ExperimentConfig.next_generation()` makes the configuration of one from that of any run."
    return "" if chains else f"There is no chain among these runs. {hint}"
