"""Verification (1:1) on a list of template pairs: the ROC curve, TAR at FAR in two readings, and AUC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compat_lib.evaluation.compatibility import tar_name
from compat_lib.evaluation.counting import most_accepted
from compat_lib.evaluation.pairs import Roc, checked_fars
from compat_lib.evaluation.protocols.templates import (
    Templates,
    TemplateTests,
    checked_ids,
    checked_templates,
    found,
    three_tests,
)

IJB_FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
READINGS = ("conservative", "nearest")
VALUES = {"cpu": 2**18, "cuda": 2**25}  # numbers of one side that are multiplied together


@dataclass(frozen=True)
class PairVerification:
    """True accept rates on a list of pairs; tuples in the order of `fars`."""

    fars: tuple[float, ...]
    reading: str
    tar: tuple[float, ...]  # fraction, also where the FAR is not measurable
    reached: tuple[float, ...]  # the false accept rate of the point that was read
    thresholds: tuple[float, ...]  # a pair is accepted when its score is at least this; inf: none is
    measurable: tuple[bool, ...]  # False: the FAR is below one impostor pair
    auc: float  # area under the ROC curve; ties count half
    positives: int  # pairs of one identity
    negatives: int
    roc: Roc = field(repr=False, compare=False)  # corners of the curve; straight runs have their ends only

    @property
    def metrics(self) -> dict[str, float | None]:
        """Flat names, such as "tar@far=1e-4" and "auc"; None where not measurable."""
        levels = zip(self.fars, self.tar, self.measurable, strict=True)
        return {tar_name(far): tar if ok else None for far, tar, ok in levels} | {"auc": self.auc}

    def summary(self) -> str:
        """Return one line for reading."""
        parts = [
            f"TAR@FAR={far:g} {tar:.4f}" + ("" if ok else " (below one impostor pair)")
            for far, tar, ok in zip(self.fars, self.tar, self.measurable, strict=True)
        ]
        return (
            f"{', '.join(parts)}, AUC {self.auc:.4f} ({self.reading} reading; {self.positives} genuine, "
            f"{self.negatives} impostor pairs)"
        )


def verification_1_to_1(
    old: Templates | None,
    new: Templates,
    first: Any,
    second: Any,
    same: Any,
    *,
    fars: Sequence[float] = IJB_FARS,
    reading: str = "conservative",
) -> TemplateTests:
    """Return 1:1 verification on a list of template pairs for old/old, new/old and new/new.

    In the cross-test the first template of a pair (enrolment) is the old model's and the second (probe) the
    new model's. Source: the IJB evaluation of MixBCT (arXiv 2308.06948); its reading is "nearest".

    Args:
        old, new: template ids and unit rows of either model, as `pool_templates` returns them; old may be
            None.
        first, second: template ids [P] of the pairs: enrolment, probe.
        same: True or 1 [P] where both templates show one identity.
        fars: fractions in (0, 1].
        reading: "conservative" or "nearest", see `tar_at_far`.

    Returns:
        results of `tar_at_far` by pair of models; metrics such as "new_old/tar@far=1e-4", which `criterion`
        takes. new/old is None when the widths differ.

    Raises:
        ValueError: those of `pair_list_scores` and `tar_at_far`.

    >>> old = Templates([1, 2, 3], [[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    >>> new = Templates([1, 2, 3], [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    >>> tests = verification_1_to_1(old, new, [1, 1, 2], [2, 3, 3], [1, 0, 0], fars=[0.5])
    >>> tests.metrics["old_old/tar@far=5e-1"], tests.metrics["new_old/auc"]
    (1.0, 0.75)
    """
    return three_tests(
        old,
        new,
        lambda enrolled, probe: tar_at_far(
            pair_list_scores(enrolled, probe, first, second), same, fars, reading=reading
        ),
    )


def pair_list_scores(enrolled: Templates, probe: Templates, first: Any, second: Any) -> np.ndarray:
    """Return the inner product of every pair of a list, in float64 as IJB's published tools have it.

    Memory grows with the templates and with the pairs (8 bytes each), never with pairs x width.

    Args:
        enrolled, probe: template ids and unit rows of either side, as `pool_templates` returns them; computed
            where the probe's tensor lies.
        first: ids [P] among the enrolled templates.
        second: ids [P] among the probe templates.

    Returns:
        float64 [P]; a pair of given rows has the same score wherever it stands in the list.

    Raises:
        ValueError: "first names 2 templates that no image has ...", "there are 3 second template ids for 4
            pairs ...", "the enrolled templates have 64 columns and the probe templates 128 ...", "... not of
            unit length ...".

    >>> templates = Templates([7, 9], [[1.0, 0.0], [0.6, 0.8]])
    >>> pair_list_scores(templates, templates, [7, 9, 9], [9, 7, 9]).tolist()
    [0.6, 0.6, 1.0]
    """
    enrolled_ids, left = checked_templates(enrolled, "enrolled")
    probe_ids, right = checked_templates(probe, "probe")
    if left.shape[1] != right.shape[1]:
        raise ValueError(
            f"the enrolled templates have {left.shape[1]} columns and the probe templates {right.shape[1]}; "
            "scores need equal widths; map one side into the other's space first"
        )
    first = checked_ids(first, "first template ids")
    second = checked_ids(second, "second template ids", len(first), "pairs")
    rows = torch.from_numpy(found(enrolled_ids, first, "first"))
    others = torch.from_numpy(found(probe_ids, second, "second"))
    device, left = right.device, left.to(right.device)
    step = max(1, VALUES["cpu" if device.type == "cpu" else "cuda"] // left.shape[1])
    scores = torch.empty(len(rows), dtype=torch.float64, device=device)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        # Not a matrix product: its rounding would depend on where a pair stands.
        scores[part] = (left[rows[part].to(device)] * right[others[part].to(device)]).sum(1)
    return scores.cpu().numpy()


def tar_at_far(
    scores: Any, same: Any, fars: Sequence[float] = IJB_FARS, *, reading: str = "conservative"
) -> PairVerification:
    """Return the true accept rate at each false accept rate of a list of scored pairs, and the AUC.

    A pair is accepted when its score is at least a threshold; tied pairs are accepted or refused together.
    Two readings of the ROC curve:

    - "conservative": the largest TAR of any threshold whose false accept rate is at most f. The reading of
      this library's tables.
    - "nearest": the TAR at the point whose false accept rate is nearest to f, which may be above f. Among
      points of equal rate the largest TAR; of two rates equally near the larger one.

    "nearest" is for parity with the published IJB tools, down to the points they choose among. These are the
    ones of scikit-learn's `roc_curve` as called there, without options, which leaves out points amid a
    straight run. In a long run of impostors the nearest point that is left can lie far from f, and at its
    end the genuine scores that follow count; `reached` tells the rate of the point that was read.

    A FAR below one impostor pair is not measurable. The conservative reading then gives the point without
    false accepts, the nearest one that point or the one with few; `measurable` marks both.

    Source: the IJB evaluation of MixBCT (arXiv 2308.06948). Deviation: the conservative reading is added and
    is the default.

    Args:
        scores: real numbers [P], finite; compared in float64.
        same: True or 1 [P] where the pair shows one identity, else False or 0.
        fars: fractions in (0, 1].
        reading: "conservative" or "nearest".

    Raises:
        ValueError: "reading is 'closest' ...", "there are 3 labels for 4 scores ...", "2 of the 9 scores are
            NaN or infinite ...", "same holds values other than 0 and 1 ...", "there is no genuine pair ...",
            "there is no impostor pair ...", "a FAR of 10 was given ...".

    >>> scores, same = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [1, 0, 1, 0, 0, 0]
    >>> tar_at_far(scores, same, [0.2]).tar, tar_at_far(scores, same, [0.2], reading="nearest").tar
    ((0.5,), (1.0,))
    """
    if reading not in READINGS:
        raise ValueError(f"reading is {reading!r}; choose 'conservative' or 'nearest'")
    fars = checked_fars(fars)
    scores, same = _checked(scores, same)
    wrong, right, thresholds = _points(scores, same)
    negatives, positives = int(wrong[-1]), int(right[-1])
    allowed = [int(most_accepted(far, negatives)) for far in fars]
    corner = _corners(wrong, right)
    roc = Roc(wrong[corner] / negatives, right[corner] / positives, thresholds[corner])
    if reading == "conservative":
        chosen = np.searchsorted(wrong, allowed, "right") - 1
    else:
        # Backwards, so that the first of equals has the larger rates.
        chosen = [corner[len(corner) - 1 - int(np.argmin(np.abs(roc.far[::-1] - far)))] for far in fars]
    doubled_area = int(np.sum(np.diff(wrong) * (right[1:] + right[:-1])))
    return PairVerification(
        fars,
        reading,
        tuple(float(right[i] / positives) for i in chosen),
        tuple(float(wrong[i] / negatives) for i in chosen),
        tuple(float(thresholds[i]) for i in chosen),
        tuple(k >= 1 for k in allowed),
        doubled_area / (2 * positives * negatives),
        positives,
        negatives,
        roc,
    )


def _checked(scores: Any, same: Any) -> tuple[np.ndarray, np.ndarray]:
    scores, same = (
        x.detach().cpu().double().numpy() if isinstance(x, Tensor) else np.asarray(x) for x in (scores, same)
    )
    if scores.ndim != 1 or scores.dtype.kind not in "fiu":
        raise ValueError(
            f"the scores have shape {scores.shape} and type {scores.dtype}; give one real number for each "
            "pair"
        )
    if same.shape != scores.shape:
        raise ValueError(
            f"there are labels of shape {same.shape} for {len(scores)} scores; give one for each pair"
        )
    scores = scores.astype(np.float64)
    broken = ~np.isfinite(scores)
    if broken.any():
        raise ValueError(
            f"{broken.sum()} of the {len(scores)} scores are NaN or infinite; look for a diverged model or a "
            "corrupt image and leave these pairs out"
        )
    if same.dtype.kind not in "biuf" or ((same != 0) & (same != 1)).any():
        raise ValueError(
            "same holds values other than 0 and 1; give True or 1 where both templates show one identity, "
            "else False or 0"
        )
    same = same.astype(bool)
    if not same.any():
        raise ValueError(
            "there is no genuine pair, so there is no true accept rate; give pairs with same = 1"
        )
    if same.all():
        raise ValueError(
            "there is no impostor pair, so there is no false accept rate; give pairs with same = 0"
        )
    return scores, same


def _points(scores: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # Accepted impostor and genuine pairs at every distinct score, from none to all; thresholds fall.
    order = np.argsort(scores)[::-1]
    scores = scores[order]
    last = np.flatnonzero(np.r_[scores[1:] != scores[:-1], True])
    right = np.cumsum(same[order])[last]
    return np.r_[0, last + 1 - right], np.r_[0, right], np.r_[np.inf, scores[last]]


def _corners(wrong: np.ndarray, right: np.ndarray) -> np.ndarray:
    # Places of the points that scikit-learn's roc_curve keeps: not those amid equal steps. It looks for them
    # before it puts the point without accepted pairs in front.
    bent = (np.diff(wrong[1:], 2) != 0) | (np.diff(right[1:], 2) != 0)
    inner = 2 + np.flatnonzero(bent)
    return np.unique(np.r_[0, 1, inner, len(wrong) - 1])
