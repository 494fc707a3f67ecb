"""Evaluation of features: arrays in, small frozen dataclasses out."""

from compat_lib.evaluation.backfill import BackfillCurve, BackfillOrders, backfill_orders, mixed_gallery_curve
from compat_lib.evaluation.changes import Changes, IdentityChanges, changes, upgrade_changes
from compat_lib.evaluation.compatibility import (
    PAIRS,
    Comparison,
    Queries,
    compare,
    criterion,
    gain_interval,
    tar_name,
    update_gain,
)
from compat_lib.evaluation.constraints import Constraints, constraints
from compat_lib.evaluation.generations import Generations, generations
from compat_lib.evaluation.intervals import bootstrap_mean, identity_weights, interval
from compat_lib.evaluation.ordering import backfill_order, class_distance, entropy, margin
from compat_lib.evaluation.paired import PairedComparison, paired_comparison, paired_scores
from compat_lib.evaluation.pairs import FARS, Roc, Verification, cosine_histograms, roc_curve, verification
from compat_lib.evaluation.protocols.identification import (
    FPIR_GRID,
    FPIRS,
    GallerySearch,
    Identification,
    gallery_search,
    identification,
    identification_1_to_n,
    template_subjects,
)
from compat_lib.evaluation.protocols.landmarks import LandmarkRetrieval, Revisited, landmark_map, revisited
from compat_lib.evaluation.protocols.leave_one_out import leave_one_out
from compat_lib.evaluation.protocols.reid import Reid, reid
from compat_lib.evaluation.protocols.roc import (
    IJB_FARS,
    PairVerification,
    pair_list_scores,
    tar_at_far,
    verification_1_to_1,
)
from compat_lib.evaluation.protocols.templates import Templates, TemplateTests, image_features, pool_templates
from compat_lib.evaluation.ranking import Retrieval, retrieval
from compat_lib.evaluation.search import top_k
from compat_lib.evaluation.upgrade_scores import UpgradeScores, upgrade_scores

__all__ = [
    "BackfillCurve",
    "BackfillOrders",
    "Changes",
    "Comparison",
    "Constraints",
    "FARS",
    "FPIRS",
    "FPIR_GRID",
    "GallerySearch",
    "Generations",
    "IJB_FARS",
    "Identification",
    "IdentityChanges",
    "LandmarkRetrieval",
    "PAIRS",
    "PairVerification",
    "PairedComparison",
    "Queries",
    "Reid",
    "Retrieval",
    "Revisited",
    "Roc",
    "TemplateTests",
    "Templates",
    "UpgradeScores",
    "Verification",
    "backfill_order",
    "backfill_orders",
    "bootstrap_mean",
    "changes",
    "class_distance",
    "compare",
    "constraints",
    "cosine_histograms",
    "criterion",
    "entropy",
    "gain_interval",
    "gallery_search",
    "generations",
    "identification",
    "identification_1_to_n",
    "identity_weights",
    "image_features",
    "interval",
    "landmark_map",
    "leave_one_out",
    "margin",
    "mixed_gallery_curve",
    "pair_list_scores",
    "paired_comparison",
    "paired_scores",
    "pool_templates",
    "reid",
    "retrieval",
    "revisited",
    "roc_curve",
    "tar_at_far",
    "tar_name",
    "template_subjects",
    "top_k",
    "update_gain",
    "upgrade_changes",
    "upgrade_scores",
    "verification",
    "verification_1_to_1",
]
