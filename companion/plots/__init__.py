"""Pictures: functions that take numbers and an axis and return the axis.

Old is always blue, new always orange, the oracle grey; dots are samples, stars are prototypes, and every
method keeps its colour and marker from figure to figure. Nothing here knows a data set, a model or a run.
"""

from .comparisons import cross_test_dots, gain_dots, self_cross_scatter
from .curves import backfill_curve, constraint_curves, loss_curves, roc_curves, validation_curves
from .histograms import cosine_row, prototype_alignment, prototype_heatmap, value_histogram
from .images import image_strip
from .maps import JointMap, joint_tsne, knn_agreement
from .plane import draw_circle, draw_map, draw_plane
from .style import (
    ADAPTED,
    CROSS,
    NEW,
    OLD,
    ORACLE,
    PAIR_COLOURS,
    PAIR_TITLES,
    legend_below,
    method_style,
    metric_title,
    save_figure,
    say_instead,
    use_style,
    wrapped,
)
from .upgrade import feature_spread, model_cosines, model_map, toy_row

__all__ = [
    "ADAPTED",
    "CROSS",
    "NEW",
    "OLD",
    "ORACLE",
    "PAIR_COLOURS",
    "PAIR_TITLES",
    "JointMap",
    "backfill_curve",
    "constraint_curves",
    "cosine_row",
    "cross_test_dots",
    "draw_circle",
    "draw_map",
    "draw_plane",
    "feature_spread",
    "gain_dots",
    "image_strip",
    "joint_tsne",
    "knn_agreement",
    "legend_below",
    "loss_curves",
    "method_style",
    "metric_title",
    "model_cosines",
    "model_map",
    "prototype_alignment",
    "prototype_heatmap",
    "roc_curves",
    "save_figure",
    "say_instead",
    "self_cross_scatter",
    "toy_row",
    "use_style",
    "validation_curves",
    "value_histogram",
    "wrapped",
]
