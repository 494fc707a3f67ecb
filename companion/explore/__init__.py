"""Views to explore an upgrade: plain arrays and choices in, a picture and a sentence out.

A view is HTML that needs no script, no network and no widget, so that a notebook, a batch run and an exported
page show the same. `show` adds controls to it. Heavy libraries are imported when a picture is drawn.
"""

from .angles import angle_view, sweep_view
from .controls import Choice, Explorer, Several, Slider, show
from .layout import Layout, layout
from .losers import change_view, flips
from .maps import map_view, nearest_star
from .markup import View, sentence
from .neighbours import nearest, neighbour_view
from .pairs import constraint_view, slack
from .reading import (
    find_runs,
    open_best,
    open_runs,
    run_titles,
    training_sample,
    training_samples,
    upgrade_of,
)
from .sample import TrainingSample
from .upgrade import NO_CROSS, OUTCOMES, Upgrade

__all__ = [
    "NO_CROSS",
    "OUTCOMES",
    "Choice",
    "Explorer",
    "Layout",
    "Several",
    "Slider",
    "TrainingSample",
    "Upgrade",
    "View",
    "angle_view",
    "change_view",
    "constraint_view",
    "find_runs",
    "flips",
    "layout",
    "map_view",
    "nearest",
    "nearest_star",
    "neighbour_view",
    "open_best",
    "open_runs",
    "run_titles",
    "sentence",
    "show",
    "slack",
    "sweep_view",
    "training_sample",
    "training_samples",
    "upgrade_of",
]
