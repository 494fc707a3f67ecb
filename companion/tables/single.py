"""One run beside its oracle: the tables and the sentences of a method's own notebook."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.tables.rows import ADAPTERS, method_title
from compat_lib.evaluation.compatibility import gain_interval, update_gain
from compat_lib.evaluation.intervals import interval
from compat_lib.losses import METHODS
from compat_lib.runs import Run

HEADLINE = "tar@far=1e-3"
METRICS = ("tar@far=1e-2", HEADLINE, "tar@far=1e-4", "map", "rank1")
VALIDATION = "val/new_new/tar@far=1e-2"
FLAT = 0.02  # absolute: two points of the metric
_NAMES = {"old_old": "old/old", "new_old": "new/old", "new_new": "new/new"}
_NOT_MEASURABLE = "n/a"


def title_of(run: Run) -> str:
    """A run's method for people, with "reconstruction" where its published code is incomplete."""
    title = method_title(run.config["method"], run.config.get("budget", "steps"))
    method = METHODS.get(run.config["method"])
    return title + (" (reconstruction)" if getattr(method, "reconstruction", False) else "")


def run_table(run: Run, oracle: Run | None = None, metrics: Sequence[str] = METRICS) -> pd.DataFrame:
    """Every pair of query and gallery model of one run as text, value and 95 % interval in a cell.

    Args:
        run: a complete run.
        oracle: the independent model's run, for two rows more; not used when it is the run itself.
        metrics: names without the pair.

    Returns:
        Columns "query/gallery" and the metrics; "n/a" where not measurable.
    """
    rows = [(_NAMES[pair], run, pair) for pair in _NAMES]
    if oracle is not None and oracle.folder != run.folder:
        rows += [(f"oracle {_NAMES[pair]}", oracle, pair) for pair in ("new_old", "new_new")]
    return pd.DataFrame(
        [{"query/gallery": name} | _cells(source.metrics, pair, metrics) for name, source, pair in rows]
    )


def adapter_table(run: Run, metrics: Sequence[str] = METRICS) -> pd.DataFrame:
    """The cross-test of an independent run before and after each linear adapter, as text.

    Returns:
        Columns "new/old" (which adapter) and the metrics; the first row is old/old, the bound to beat.
    """
    prefixes = sorted({m.group() for m in map(re.compile("adapter/[^/]+").match, run.metrics) if m})
    rows = [("old/old, the bound to beat", "old_old"), ("no adapter", "new_old")]
    rows += [(ADAPTERS.get(prefix, prefix), f"{prefix}/new_old") for prefix in prefixes]
    return pd.DataFrame([{"new/old": name} | _cells(run.metrics, pair, metrics) for name, pair in rows])


def verdict(run: Run, oracle: Run, *metrics: str) -> str:
    """Criterion, update gain and cost to the new model, each with what the test identities can decide.

    The intervals are paired bootstraps over test identities (95 %): they do not know how another training
    seed would have come out, and the last sentence says so.

    Args:
        run: a complete run.
        oracle: the independent model's run.
        metrics: names without the pair, a paragraph each.
    """
    last = "One seed: another training seed can move each of these numbers further."
    return "\n".join([_paragraph(run, oracle, metric) for metric in metrics] + [last])


def _paragraph(run: Run, oracle: Run, metric: str) -> str:
    cross, bound = run.metrics.get(f"new_old/{metric}"), run.metrics.get(f"old_old/{metric}")
    own, free = run.metrics.get(f"new_new/{metric}"), oracle.metrics.get(f"new_new/{metric}")
    lines = [f"{title_of(run)}, {_title(metric)}"]
    if cross is None or bound is None:
        lines.append("new/old cannot be measured: old and new widths differ, or there are too few pairs")
    else:
        margin = _paired(run, f"new_old/{metric}", run, f"old_old/{metric}")
        holds = "holds" if cross > bound else "does not hold"
        lines.append(
            f"criterion new/old > old/old {holds}: {cross:.3f} against {bound:.3f}, "
            f"{_signed(cross - bound, margin)}"
        )
        lines.append(_gain(run, oracle, metric, update_gain(cross, bound, free)))
    if own is not None and free is not None and oracle.folder != run.folder:
        change = _paired(run, f"new_new/{metric}", oracle, f"new_new/{metric}")
        lines.append(f"new/new minus the oracle's: {_signed(own - free, change)}")
    return "\n    ".join(lines) + "\n"


def _gain(run: Run, oracle: Run, metric: str, gain: float | None) -> str:
    if gain is None:
        return "update gain n/a: the oracle does not beat the old model here"
    draws = [_draws(run, f"{pair}/{metric}") for pair in ("new_old", "old_old")]
    draws.append(_draws(oracle, f"new_new/{metric}"))
    ends = gain_interval(*draws) if len({len(draw) for draw in draws}) == 1 else None
    shown = f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else ""
    return f"update gain {gain:.2f}{shown} (0: the old system, 1: the oracle everywhere)"


def flatness(history: Sequence[Mapping[str, Any]], metric: str = VALIDATION) -> str:
    """Whether a validation metric still moves in the last third of the training, as a sentence.

    >>> looks = [{"epoch": 3, "val/x": 0.5}, {"epoch": 6, "val/x": 0.75}, {"epoch": 9, "val/x": 0.76}]
    >>> flatness(looks, "val/x")
    'From epoch 6 to 9 it moved by +0.010: flat enough to be judged.'
    """
    third = last_third(history, metric)
    if third is None:
        return "Fewer than two looks at the validation identities: nothing can be said about flatness."
    start, last, change = third
    words = (
        "flat enough to be judged" if abs(change) <= FLAT else "still moving, so train longer before judging"
    )
    return f"From epoch {start} to {last} it moved by {change:+.3f}: {words}."


def last_third(
    history: Sequence[Mapping[str, Any]], metric: str = VALIDATION
) -> tuple[int, int, float] | None:
    """First and last epoch of the last third of a training, and how far a metric moved between them.

    Returns:
        None with fewer than two epochs that have the metric.

    >>> looks = [{"epoch": 3, "val/x": 0.5}, {"epoch": 6, "val/x": 0.75}, {"epoch": 9, "val/x": 1.0}]
    >>> last_third(looks, "val/x")
    (6, 9, 0.25)
    """
    known = [(int(row["epoch"]), row[metric]) for row in history if row.get(metric) is not None]
    if len(known) < 2:
        return None
    last, end = known[-1]
    start, value = min(known[:-1], key=lambda point: abs(point[0] - 2 * last / 3))
    return start, last, end - value


def ablation_table(runs: Mapping[str, Run], metric: str = HEADLINE) -> pd.DataFrame:
    """Variants of one method as text; differences are to the first, paired by bootstrap draw.

    Args:
        runs: what was changed -> its run; the first is the run as configured.
        metric: name without the pair.

    Returns:
        Columns: variant, new/old, its change from the first, new/new, its change, epochs, images through the
        network.
    """
    first = next(iter(runs.values()))
    lines = []
    for name, run in runs.items():
        line = {"variant": name}
        for pair in ("new_old", "new_new"):
            key = f"{pair}/{metric}"
            value, base = run.metrics.get(key), first.metrics.get(key)
            line[_NAMES[pair]] = _NOT_MEASURABLE if value is None else f"{value:.3f}"
            known = run is not first and value is not None and base is not None
            change = _signed(value - base, _paired(run, key, first, key)) if known else ""
            line[f"{_NAMES[pair]} change"] = change
        line["epochs"] = f"{run.metrics['train/epochs']}"
        line["images through the network"] = f"{run.metrics['train/backbone_images']:,.0f}"
        lines.append(line)
    return pd.DataFrame(lines)


def recorded_values(run: Run, oracle: Run) -> dict[str, float | None]:
    """What the notebooks' tests look at: the three pairs, the oracle's, and adapters when measured."""
    names = [f"{pair}/{metric}" for pair in _NAMES for metric in ("tar@far=1e-2", "map")]
    values = {name: run.metrics.get(name) for name in names}
    values |= {f"oracle/{name}": oracle.metrics.get(name) for name in names if "old_old" not in name}
    adapters = [name for name in run.metrics if name.startswith("adapter/") and name.endswith("/map")]
    values |= {"criterion": run.metrics.get("criterion")} | {name: run.metrics[name] for name in adapters}
    return values | {"backbone_images": run.metrics["train/backbone_images"]}


def _title(metric: str) -> str:
    names = {"map": "mAP", "rank1": "rank-1", "rank5": "rank-5"}
    return names.get(metric) or metric.replace("tar@far=", "TAR at FAR ")


def _cells(metrics: Mapping[str, Any], pair: str, names: Sequence[str]) -> dict[str, str]:
    return {_title(name): _cell(metrics, f"{pair}/{name}") for name in names}


def _cell(metrics: Mapping[str, Any], name: str) -> str:
    value, low, high = (metrics.get(name + end) for end in ("", "/low", "/high"))
    if value is None:
        return _NOT_MEASURABLE
    return f"{value:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else "")


def _draws(run: Run, name: str) -> np.ndarray:
    return np.array([np.nan if draw is None else draw for draw in run.draws.get(name, [])], dtype=float)


def _paired(a: Run, name_a: str, b: Run, name_b: str) -> np.ndarray:
    """Difference of two metrics draw by draw; empty where the draws do not belong together."""
    draws = _draws(a, name_a), _draws(b, name_b)
    return draws[0] - draws[1] if len(draws[0]) == len(draws[1]) else np.array([])


def _signed(value: float, draws: np.ndarray) -> str:
    ends = interval(draws)
    if ends is None:
        return f"{value:+.3f}"
    noise = ", within noise" if ends[0] <= 0 <= ends[1] else ""
    return f"{value:+.3f} [{ends[0]:+.3f}, {ends[1]:+.3f}]{noise}"
