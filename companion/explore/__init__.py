"""Views to explore an upgrade: plain arrays and choices in, a picture and a sentence out.

Every view has a still picture (matplotlib) for batch runs and pages; where pointing at something helps, it
is a live one (Bokeh, the image under the pointer). `show` puts controls above a view.
"""

# ruff: noqa: F401 (the names are for notebooks)

from .features import NO_CROSS, OUTCOMES, RIGHT, WRONG, TrainingSample, Upgrade
from .map import layout, map_view, nearest_star
from .run_arrays import find_runs, open_best, training_samples, upgrade_of
from .show import View, load_bokeh, show
from .views import change_view, flips, nearest, neighbour_view, pair_cosines, queries_of, slack
