"""Is a new model compatible with the old one? Self-tests, cross-test, criterion and gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compat_lib.evaluation.counting import count
from compat_lib.evaluation.intervals import bootstrap_mean, bootstrap_tar, identity_weights, interval
from compat_lib.evaluation.pairs import FARS, checked_fars, verify
from compat_lib.evaluation.ranking import rank
from compat_lib.evaluation.scores import PairScores, unit_rows

PAIRS = ("old_old", "new_old", "new_new")  # query model, gallery model
RANKS = (1, 5)


@dataclass(frozen=True)
class Comparison:
    """All metrics of one old and one new model on one test set."""

    metrics: dict[str, float | None]  # "new_old/tar@far=1e-3", with "/low" and "/high"; None: not measurable
    draws: dict[str, np.ndarray] = field(repr=False)  # metric name -> float64 [draws]
    notes: dict[str, str] = field(repr=False)  # pair -> what was excluded

    def summary(self) -> str:
        """Return one line for each pair of models."""
        lines = []
        for pair in PAIRS:
            values = [
                (name.split("/", 1)[1], value)
                for name, value in self.metrics.items()
                if name.startswith(pair + "/") and name.count("/") == 1
            ]
            shown = ", ".join(f"{name} " + ("n/a" if v is None else f"{v:.4f}") for name, v in values)
            lines.append(f"{pair.replace('_', '/')}: {shown}")
        return "\n".join(lines)


def tar_name(far: float) -> str:
    """Return the name of TAR at a FAR.

    >>> tar_name(1e-3), tar_name(0.025)
    ('tar@far=1e-3', 'tar@far=2.5e-2')
    """
    digits, exponent = f"{far:e}".split("e")
    return f"tar@far={digits.rstrip('0').rstrip('.')}e{int(exponent)}"


def compare(
    old: Any, new: Any, labels: Any, *, fars: Sequence[float] = FARS, draws: int = 200, seed: int = 0
) -> Comparison:
    """Return verification and retrieval metrics of old/old, new/old and new/new with 95 % intervals.

    The pairs are named query model / gallery model. old/old and new/new use unordered pairs and leave-one-out
    retrieval; new/old uses new queries against the old gallery without the pairs of the same image, in both
    orders. Intervals are percentiles of a bootstrap over identities whose draws depend on the labels and the
    seed only.

    Args:
        old: float [N, d_old] features of the old model, or None.
        new: float [N, d_new] features of the new model for the same images.
        labels: whole numbers or names [N].
        fars: fractions in (0, 1].
        draws: bootstrap draws; 0 for no intervals.
        seed: of the draws.

    Returns:
        metrics "pair/tar@far=1e-3", "pair/map", "pair/rank1", "pair/rank5", each also with "/low" and
        "/high". None where not measurable: a FAR below one impostor pair, old_old and new_old without old
        features, new_old when the widths differ.

    Raises:
        ValueError: for NaN, lengths that differ, no genuine or no impostor pair.

    >>> points = [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]]
    >>> result = compare(points, points, [0, 0, 1, 1], fars=[0.5], draws=0)
    >>> result.metrics["old_old/map"] == result.metrics["new_old/map"] == result.metrics["new_new/map"]
    True
    """
    fars = checked_fars(fars)
    new = unit_rows(new, "new")
    old = None if old is None else unit_rows(old, "old")
    if old is not None and len(old) != len(new):
        raise ValueError(
            f"there are {len(old)} old and {len(new)} new features; give both models' features of the same "
            "images in the same order"
        )
    weights = identity_weights(labels, draws, seed)
    sides = {
        "old_old": None if old is None else (old, old),
        "new_old": None if old is None or old.shape[1] != new.shape[1] else (new, old),
        "new_new": (new, new),
    }
    metrics: dict[str, float | None] = {}
    drawn: dict[str, np.ndarray] = {}
    notes: dict[str, str] = {}
    for pair, features in sides.items():
        values = {name: (None, np.full(draws, np.nan)) for name in _names(fars)}
        notes[pair] = (
            "Not measured: without old features, or with features of unequal width, there is no such test."
        )
        if features is not None:
            values, notes[pair] = _evaluate(*features, labels, fars, weights, ordered=pair == "new_old")
        for name, (value, bootstrap) in values.items():
            low, high = (interval(bootstrap) if value is not None else None) or (None, None)
            metrics |= {f"{pair}/{name}": value, f"{pair}/{name}/low": low, f"{pair}/{name}/high": high}
            drawn[f"{pair}/{name}"] = bootstrap
    return Comparison(metrics, drawn, notes)


def _names(fars: Sequence[float]) -> list[str]:
    return [tar_name(far) for far in fars] + ["map"] + [f"rank{k}" for k in RANKS]


def _ordered(query: Tensor, gallery: Tensor, labels: Any) -> PairScores:
    images = np.arange(len(query))
    return PairScores(query, labels, gallery, labels, query_ids=images, gallery_ids=images)


def _evaluate(
    query: Tensor,
    gallery: Tensor,
    labels: Any,
    fars: tuple[float, ...],
    weights: np.ndarray,
    *,
    ordered: bool,
) -> tuple[dict[str, tuple[float | None, np.ndarray]], str]:
    crossed = _ordered(query, gallery, labels)
    pairs = crossed if ordered else PairScores(query, labels)
    counts = count(pairs)
    verified = verify(pairs, counts, fars)
    ranked = rank(crossed, RANKS)
    none = np.full((len(fars), weights.shape[1]), np.nan)
    tars = bootstrap_tar(pairs, counts, weights, fars) if weights.shape[1] and fars else none
    values: dict[str, tuple[float | None, np.ndarray]] = {}
    for far, tar, ok, bootstrap in zip(fars, verified.tar, verified.measurable, tars, strict=True):
        values[tar_name(far)] = (tar, bootstrap) if ok else (None, np.full_like(bootstrap, np.nan))
    values["map"] = ranked.map, bootstrap_mean(ranked.average_precision, labels, weights)
    for k, value in ranked.rank.items():
        hit = np.where(ranked.first_match > 0, ranked.first_match <= k, np.nan)
        values[f"rank{k}"] = value, bootstrap_mean(hit, labels, weights)
    return values, verified.note


def criterion(metrics: Mapping[str, float | None], metric: str = "tar@far=1e-3") -> bool | None:
    """Return whether the new model is compatible: new/old strictly better than old/old.

    The empirical compatibility criterion of BCT (Shen et al., CVPR 2020, arXiv 2003.11942). None when either
    side was not measured.

    Raises:
        ValueError: "the metrics hold no 'old_old/...'".

    >>> criterion({"old_old/map": 0.5, "new_old/map": 0.6}, "map")
    True
    """
    for pair in ("old_old", "new_old"):
        if f"{pair}/{metric}" not in metrics:
            known = sorted(m.split("/", 1)[1] for m in metrics if m.startswith(pair) and m.count("/") == 1)
            raise ValueError(
                f"the metrics hold no '{pair}/{metric}'; choose one of {', '.join(known) or 'none'}"
            )
    cross, bar = metrics[f"new_old/{metric}"], metrics[f"old_old/{metric}"]
    return None if cross is None or bar is None else cross > bar


def update_gain(cross: float | None, old_self: float | None, oracle_self: float | None) -> float | None:
    """Return the share of the possible gain that the upgrade brings without backfilling.

    (new/old - old/old) / (oracle - old/old), the oracle being the new model trained without compatibility: 0
    for the old model itself, 1 for an ideal swap, negative when the cross-test is worse than the old system.
    None when the oracle is not better than the old model, or a value was not measured.

    >>> update_gain(0.75, 0.5, 1.0)
    0.5
    """
    if cross is None or old_self is None or oracle_self is None or not oracle_self > old_self:
        return None
    return (cross - old_self) / (oracle_self - old_self)


def gain_interval(
    cross: np.ndarray, old_self: np.ndarray, oracle_self: np.ndarray
) -> tuple[float, float] | None:
    """Return the 95 % interval of the update gain from paired bootstrap draws.

    The three arrays come from `compare` on the same labels with the same seed. None when the denominator is
    positive in fewer than 95 % of the draws: the gain is then not determined.

    Args:
        cross, old_self, oracle_self: float64 [draws], of one metric.

    Raises:
        ValueError: "the draws have lengths ...".
    """
    cross, old_self, oracle_self = (np.asarray(x, np.float64) for x in (cross, old_self, oracle_self))
    if not len(cross) == len(old_self) == len(oracle_self):
        raise ValueError(
            f"the draws have lengths {len(cross)}, {len(old_self)} and {len(oracle_self)}; "
            "they must come from the same number of draws and the same seed"
        )
    room = oracle_self - old_self
    known = room > 0  # nan compares false
    if not len(known) or known.mean() < 0.95:
        return None
    return interval((cross - old_self)[known] / room[known])
