"""Pictures: functions that take an axis (`ax`, to draw on) and numbers, and return the axis.

Old is always blue, new always orange, the oracle grey; dots are samples, stars are prototypes, and every
method keeps its colour and marker from figure to figure. Nothing here knows a data set, a model or a run.
"""

# ruff: noqa: F401 (the names are for notebooks)

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
from .maps import draw_circle, draw_map, image_strip, joint_tsne, model_map, toy_row
from .methods import cross_test_dots, gain_dots, self_cross_scatter
from .style import (
    ADAPTED,
    CROSS,
    NEW,
    OLD,
    ORACLE,
    legend_below,
    method_style,
    save_figure,
    say_instead,
    show_figure,
    use_style,
    wrapped,
)
