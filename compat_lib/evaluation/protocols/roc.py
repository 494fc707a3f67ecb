"""Verification (1:1) on a list of template pairs: the ROC curve, TAR at FAR in two readings, and AUC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as sklearn_curve

from compat_lib.evaluation.counting import most_accepted
from compat_lib.evaluation.inputs import fractions, names_or_numbers, plain_array, slices
from compat_lib.evaluation.protocols.templates import (
    Templates,
    TemplateTests,
    checked_templates,
    found,
    three_tests,
)
from compat_lib.evaluation.tar import Roc, Verification

IJB_FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
VALUES = 2**18  # numbers of one side that are multiplied together


@dataclass(frozen=True)
class PairVerification(Verification):
    """True accept rates on a list of pairs; `tar` is read also where the FAR is not measurable.

    The curve has its corners alone: straight runs have their ends only. A threshold of inf accepts no pair.
    """

    reached: tuple[float, ...]  # the false accept rate of the point that was read
    auc: float  # area under the ROC curve; ties count half

    @property
    def values(self) -> dict[str, float | None]:
        """Such as "tar@far=1e-4", None where not measurable, and "auc"."""
        return super().values | {"auc": self.auc}


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
        old, new: templates of either model, as `pool_templates` returns them; old may be None.
        first, second: template ids [P] of the pairs: enrolment, probe.
        same, fars, reading: those of `tar_at_far`.

    >>> old = Templates(np.array([1, 2, 3]), [[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    >>> new = Templates(np.array([1, 2, 3]), [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    >>> found = verification_1_to_1(old, new, [1, 1, 2], [2, 3, 3], [1, 0, 0], fars=[0.5]).records
    >>> found.value("old", "old", "tar@far=5e-1"), found.value("new", "old", "auc")
    (1.0, 0.75)
    """
    scores = partial(pair_list_scores, first=first, second=second)
    return three_tests(old, new, lambda *sides: tar_at_far(scores(*sides), same, fars, reading=reading))


def pair_list_scores(enrolled: Templates, probe: Templates, first: Any, second: Any) -> np.ndarray:
    """Return the inner product of every pair of a list, float64 [P] as IJB's published tools have it.

    `first`, `second` are ids [P] among the enrolled and among the probe templates. Memory grows with the
    templates and with the pairs (8 bytes each), never with pairs x width. A pair of given rows has the same
    score wherever it stands in the list.

    >>> templates = Templates(np.array([7, 9]), [[1.0, 0.0], [0.6, 0.8]])
    >>> pair_list_scores(templates, templates, [7, 9, 9], [9, 7, 9]).tolist()
    [0.6, 0.6, 1.0]
    """
    probes, right = checked_templates(probe, "probe templates")
    known, left = checked_templates(enrolled, "enrolled templates")
    left = left.to(right.device)
    first = names_or_numbers(first, "first template ids")
    second = names_or_numbers(second, "second template ids", len(first))
    rows = torch.from_numpy(found(known, first, "first")).to(right.device)
    others = torch.from_numpy(found(probes, second, "second")).to(right.device)
    # Into one array: pieces that stayed between freed ones would scatter the heap, gigabytes for IJB-C.
    scores = torch.empty(len(first), dtype=torch.float64, device=right.device)
    for part in slices(len(first), VALUES // left.shape[1]):
        # Not a matrix product: its rounding would depend on where a pair stands.
        scores[part] = (left[rows[part]] * right[others[part]]).sum(1)
    return scores.cpu().numpy()


def tar_at_far(
    scores: Any, same: Any, fars: Sequence[float] = IJB_FARS, *, reading: str = "conservative"
) -> PairVerification:
    """Return the true accept rate at each false accept rate of a list of scored pairs, and the AUC.

    A pair is accepted when its score is at least a threshold; tied pairs are accepted or refused together.
    Two readings of the ROC curve:

    - "conservative", that of this library's tables: the largest TAR of any threshold whose false accept rate
      is at most f.
    - "nearest", that of the published IJB tools: the TAR at the point whose false accept rate is nearest to
      f, which may be above f; among points of equal rate the largest TAR, of two rates equally near the
      larger one. The points are those of scikit-learn's `roc_curve` without options, which leaves out points
      amid a straight run: the nearest one that is left can lie far from f, and `reached` tells its rate.

    A FAR below one impostor pair is not measurable, and marked. The conservative reading then gives the point
    without false accepts, the nearest one that point or the one with few.

    Source: the IJB evaluation of MixBCT (arXiv 2308.06948). Deviation: the conservative reading is added and
    is the default.

    Args:
        scores: real numbers [P], finite; compared in float64.
        same: True or 1 [P] where the pair shows one identity, else False or 0.

    >>> scores, same = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [1, 0, 1, 0, 0, 0]
    >>> tar_at_far(scores, same, [0.2]).tar, tar_at_far(scores, same, [0.2], reading="nearest").tar
    ((0.5,), (1.0,))
    """
    if reading not in ("conservative", "nearest"):
        raise ValueError(f"reading is {reading!r}; choose 'conservative' or 'nearest'")
    fars = fractions(fars, "a FAR")
    scores, same = np.asarray(plain_array(scores), np.float64), plain_array(same)
    same = np.array(same.tolist()) if same.dtype == object else same
    fits = scores.ndim == 1 and scores.shape == same.shape and np.isfinite(scores).all()
    if not fits or same.dtype.kind not in "biuf" or not np.isin(same, (0, 1)).all():
        raise ValueError(
            f"scores have shape {scores.shape}, and same has shape {same.shape} and type {same.dtype}; give "
            "one finite score for each pair, and True or 1 where it shows one identity, else False or 0"
        )
    same = same.astype(bool)
    positives, negatives = int(same.sum()), int((~same).sum())
    if not positives or not negatives:
        raise ValueError(f"there are {positives} genuine and {negatives} impostor pairs; give some of both")
    corners = Roc(*sklearn_curve(same, scores))
    if reading == "conservative":
        points = Roc(*sklearn_curve(same, scores, drop_intermediate=False))
        chosen = np.searchsorted(points.far, fars, "right") - 1
    else:
        points = corners
        # Backwards, so that the first of equals has the larger rates.
        chosen = [len(points.far) - 1 - int(np.argmin(np.abs(points.far[::-1] - far))) for far in fars]
    tar, reached, thresholds = (
        tuple(float(values[i]) for i in chosen) for values in (points.tar, points.far, points.thresholds)
    )
    measurable = tuple(bool(most_accepted(far, negatives) >= 1) for far in fars)
    auc = float(roc_auc_score(same, scores))
    return PairVerification(
        fars, tar, thresholds, measurable, positives, negatives, 0, corners, reached=reached, auc=auc
    )
