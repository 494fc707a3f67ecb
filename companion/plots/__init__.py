"""Pictures: functions that take an axis (`ax`, to draw on) and numbers, and return the axis.

Old is always blue, new always orange, the oracle grey; dots are samples, stars are prototypes, and every
method keeps its colour and marker from figure to figure. Nothing here knows a data set, a model or a run.
"""

from compat_lib.evaluation.records import metric_title

from .curves import (
    backfill_curve,
    backfill_panels,
    constraint_curves,
    first_day,
    loss_curves,
    roc_curves,
    validation_curves,
    validation_panels,
)
from .distributions import (
    cosine_row,
    feature_spread,
    model_cosines,
    prototype_alignment,
    prototype_heatmap,
    value_histogram,
)
from .maps import JointMap, draw_circle, draw_map, image_strip, joint_tsne, model_map, toy_row
from .methods import cross_test_dots, gain_dots, self_cross_scatter
from .style import (
    ADAPTED,
    CROSS,
    INK,
    NEW,
    OLD,
    ORACLE,
    PAIR_COLOURS,
    legend_below,
    method_style,
    save_figure,
    say_instead,
    show_figure,
    use_style,
    wrapped,
)

__all__ = [
    "ADAPTED",
    "CROSS",
    "INK",
    "NEW",
    "OLD",
    "ORACLE",
    "PAIR_COLOURS",
    "JointMap",
    "backfill_curve",
    "backfill_panels",
    "constraint_curves",
    "cosine_row",
    "cross_test_dots",
    "draw_circle",
    "draw_map",
    "feature_spread",
    "first_day",
    "gain_dots",
    "image_strip",
    "joint_tsne",
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
    "show_figure",
    "toy_row",
    "use_style",
    "validation_curves",
    "validation_panels",
    "value_histogram",
    "wrapped",
]
