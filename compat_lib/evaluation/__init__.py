"""Evaluation of features: arrays in, small frozen dataclasses out."""

from compat_lib.evaluation.backfill import BackfillCurve, mixed_gallery_curve
from compat_lib.evaluation.compatibility import (
    PAIRS,
    Comparison,
    compare,
    criterion,
    gain_interval,
    tar_name,
    update_gain,
)
from compat_lib.evaluation.intervals import bootstrap_mean, identity_weights, interval
from compat_lib.evaluation.pairs import FARS, Roc, Verification, cosine_histograms, roc_curve, verification
from compat_lib.evaluation.ranking import Retrieval, retrieval

__all__ = [
    "FARS",
    "PAIRS",
    "BackfillCurve",
    "Comparison",
    "Retrieval",
    "Roc",
    "Verification",
    "bootstrap_mean",
    "compare",
    "cosine_histograms",
    "criterion",
    "gain_interval",
    "identity_weights",
    "interval",
    "mixed_gallery_curve",
    "retrieval",
    "roc_curve",
    "tar_name",
    "update_gain",
    "verification",
]
