"""Chains of generations: an upgrade of an upgrade, measured on the test images that all its models share."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor

from companion.tables.narrow import DATASETS
from companion.tables.reading import Reading
from companion.tables.single import title_of
from companion.tables.text import NOT_MEASURABLE
from compat_lib.config import ExperimentConfig
from compat_lib.evaluation.generations import Generations, Pair, generations
from compat_lib.evaluation.upgrade import FARS
from compat_lib.experiment import Experiment
from compat_lib.runs import Run, is_complete, list_runs

FEATURES = "features.safetensors"


@dataclass(frozen=True)
class Chain:
    """The complete runs of a chain, oldest generation first: an old model's run, then those of new models."""

    runs: tuple[Run, ...]

    @property
    def models(self) -> tuple[str, ...]:
        """Each generation's network, its training, and from the second on the method that made it."""
        first = self.runs[0].config
        named = [f"{first['old_backbone']} ({first['old_epochs']} epochs)"]
        for run in self.runs[1:]:
            method = "without a method" if run.config["method"] == "independent" else f"by {title_of(run)}"
            named.append(f"{run.config['new_backbone']} {method} ({run.config['epochs']} epochs)")
        return tuple(named)

    @property
    def title(self) -> str:
        """The chain for people, such as "Portraits, open-class: convnet (20 epochs), then …"."""
        config = self.runs[-1].config
        dataset = DATASETS.get(config["dataset"], config["dataset"])
        return f"{dataset}, {config['scenario']}: {', then '.join(self.models)}"

    def measure(self, labels: Any = None, *, draws: int = 200) -> Generations:
        """Every model as the query with every gallery of its own age or older, by `evaluation.generations`.

        A model meets the gallery just before it as its method compares the two. It meets older ones as they
        are, where no method in between transforms features; where one does, that pair is not measured.

        Args:
            labels: whole numbers [N] of the test images; None: those of the data set, which is read for them.
            draws: bootstrap draws over identities; 0 for no intervals.

        Raises:
            ValueError: "the test images of portraits are no longer those of …".
        """
        return generations(
            [tensors["test"] for tensors in self._tensors],
            labels_of(self.runs[-1]) if labels is None else labels,
            comparable=self._comparable(),
            names=[f"generation {g}" for g in range(1, len(self.runs) + 1)],
            fars=FARS,
            draws=draws,
        )

    @cached_property
    def _tensors(self) -> list[dict[str, Tensor]]:
        return [load_file(run.folder / FEATURES) for run in self.runs]

    def _comparable(self) -> dict[Pair, Callable]:
        """What each query meets: (query generation, gallery generation) -> function of both, or none."""
        found: dict[Pair, Callable] = {}
        for i, newer in enumerate(self._tensors):
            for j in range(i):
                if j == i - 1:
                    forms = (newer["query"], newer["gallery"]) if "query" in newer else None
                    found[i, j] = lambda *_, forms=forms: forms
                elif not all(self._plain(step) for step in range(j + 1, i + 1)):
                    found[i, j] = lambda *_: None
        return found

    def _plain(self, generation: int) -> bool:
        """Whether a generation's method compares features with those before it as they are stored."""
        newer, older = self._tensors[generation], self._tensors[generation - 1]
        return (
            "query" in newer
            and torch.equal(newer["query"], newer["test"])
            and torch.equal(newer["gallery"], older["test"])
        )


def find_chains(runs_root: str | Path, experiments: Iterable[str] | None = None) -> list[Chain]:
    """Every chain of complete runs in a folder of runs, three generations or more.

    Args:
        runs_root: folder of run folders; it may be absent.
        experiments: identifiers of experiments; a chain whose last run is in none of them is left out. None:
            all chains.

    Returns:
        In the order of their last run's path, those that end without compatible training last. A chain that
        goes on is there once, as a whole; one of which a run or its features are missing is left out.
    """
    root = Path(runs_root)
    runs = [run for run in list_runs(root) if run.config.get("old_run") and run.config["method"] != "old"]
    lines = [line for line in (_lineage(root, run) for run in runs) if line]
    continued = {run.folder for line in lines for run in line[:-1]}
    wanted = None if experiments is None else set(experiments)
    chains = [
        Chain(line)
        for line in lines
        if line[-1].folder not in continued and (wanted is None or line[-1].folder.parent.name in wanted)
    ]
    return sorted(chains, key=lambda chain: chain.runs[-1].config["method"] == "independent")


def _lineage(root: Path, run: Run) -> tuple[Run, ...] | None:
    """A run with all that came before it, oldest first; None where something is missing."""
    line = [run]
    while line[0].config.get("old_run"):
        line.insert(0, Run(root / line[0].config["old_run"]))
        if not is_complete(line[0].folder):
            return None
    line.insert(0, Run(line[0].folder.parent / line[0].config["old_run_id"]))
    there = all(is_complete(one.folder) and (one.folder / FEATURES).is_file() for one in line)
    return tuple(line) if there else None


def labels_of(run: Run) -> Tensor:
    """Labels of a run's test images, int64 [N], read from its data set and checked against the run.

    Raises:
        ValueError: "the test images of portraits are no longer those of bct-s0-30ecfa: …".
    """
    fields = {
        name: value for name, value in run.config.items() if name in ExperimentConfig.__dataclass_fields__
    }
    images = Experiment(ExperimentConfig.from_dict(fields)).data.test
    if images.digest() != run.config["facts"]["test_digest"]:
        raise ValueError(
            f"the test images of {run.config['dataset']} are no longer those of {run.folder.name}: restore "
            f"the data set, or delete {run.folder} to run it anew"
        )
    return images.labels


def chain_rows(measured: Generations, metric: str = "map") -> pd.DataFrame:
    """One row a generation, oldest first, as numbers.

    Args:
        measured: of Chain.measure.
        metric: name without the pair.

    Returns:
        Columns: generation (from 1); self (its self-test) with _low and _high; and for each gallery g of an
        earlier generation cross_g, with _low and _high, and margin_g: cross_g minus the self-test of
        generation g, with its paired 95 % interval _low and _high. nan where a newer gallery would be asked,
        and where not measurable.

    Raises:
        ValueError: "the metric 'x' was not measured; choose one of …".
    """
    margins = measured.margins(metric)
    lines = []
    for i in range(len(measured.names)):
        line: dict[str, float] = {"generation": i + 1} | _with_ends("self", measured.cells[i, i], metric)
        for j in range(len(measured.names) - 1):
            cell = measured.cells[i, j] if j < i else {}
            margin = margins.get((i, j))
            ends = {"": "value", "_low": "low", "_high": "high"}
            line |= _with_ends(f"cross_{j + 1}", cell, metric)
            line |= {
                f"margin_{j + 1}{end}": getattr(margin, name) if margin else np.nan
                for end, name in ends.items()
            }
        lines.append(line)
    return pd.DataFrame(lines)


def _with_ends(name: str, cell: dict[str, float | None], metric: str) -> dict[str, float]:
    values = {"": cell.get(metric), "_low": cell.get(f"{metric}/low"), "_high": cell.get(f"{metric}/high")}
    return {name + end: np.nan if value is None else float(value) for end, value in values.items()}


def chain_table(measured: Generations, models: Sequence[str], metric: str = "map") -> pd.DataFrame:
    """A chain as people read it: each model's self-test, and its cross-test with every earlier gallery.

    Args:
        measured: of Chain.measure.
        models: of the chain.
        metric: name without the pair.

    Returns:
        Text columns: gen. (the generation), model, self-test, "gallery of 1", ...; value and 95 % interval,
        and below a cross-test whether it beats the self-test of the model that made that gallery. Empty where
        a newer gallery would be asked; "n/a" where not measurable.
    """
    lines = []
    for row, model in zip(chain_rows(measured, metric).to_dict("records"), models, strict=True):
        generation = row["generation"]
        line = {"gen.": str(generation), "model": model, "self-test": _cell(row, "self")}
        for g in range(1, len(models)):
            text = _cell(row, f"cross_{g}") if g < generation else ""
            known = np.isfinite(row[f"margin_{g}"])
            line[f"gallery of {g}"] = f"{text}\n{_beats(row, f'margin_{g}')}" if known else text
        lines.append(line)
    return pd.DataFrame(lines)


def _cell(row: dict[str, float], name: str) -> str:
    if not np.isfinite(row[name]):
        return NOT_MEASURABLE
    ends = row[f"{name}_low"], row[f"{name}_high"]
    # A no-break space: an interval stays on one line however narrow the page is.
    return f"{row[name]:.3f}" + (f"\n[{ends[0]:.3f},\u00a0{ends[1]:.3f}]" if np.isfinite(ends).all() else "")


def _beats(row: dict[str, float], name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    word = "beats it" if row[name] > 0 else "does not"
    return f"{word}, within noise" if low <= 0 <= high else word


def chains_note(chains: Sequence[Chain], expected: Iterable[ExperimentConfig], command: str) -> str:
    """What a reader must know before the tables: nothing, or that there is no chain and how to get one.

    Args:
        chains: of find_chains.
        expected: configurations of chains that a preset lists.
        command: what makes missing runs.
    """
    there = {(run.folder.parent.name, run.folder.name) for chain in chains for run in chain.runs}
    missing = [config.run_id for config in expected if (config.experiment_id, config.run_id) not in there]
    if missing:
        return f"Not run, or not complete: {', '.join(missing)}. `{command}` makes what is missing."
    if not chains:
        return (
            "There is no chain among these runs. `ExperimentConfig.next_generation()` makes the "
            "configuration of one from that of any run."
        )
    return ""


def without_chains(reading: Reading) -> Reading:
    """The same reading without the runs of chains: their old model is an upgrade already, not a first model.

    They are experiments of their own, but no setting of their own, and stand in no table beside one.
    """
    expected = reading.expected
    later = {config.experiment_id for config in expected or () if config.old_run}
    frame = reading.frame
    chained = frame["experiment_id"].isin(later)
    if "old_run" in frame:
        chained |= frame["old_run"].notna()
    if expected is not None:
        expected = tuple(config for config in expected if not config.old_run)
    return replace(reading, frame=frame[~chained].reset_index(drop=True), expected=expected)
